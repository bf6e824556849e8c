//! How peers have answered lately, and so which are to be preferred: the one place that knows who is slow, busy or gone.
//!
//! That all is well is the rule, and costs one load of an atomic to know.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::backoff::{backoff, random};
use crate::error::Error;
use crate::sync::{read, write};

/// What is to be expected of a peer, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// An answer in time.
    Good,
    /// An answer, but others are faster.
    Slow,
    /// A refusal, as it has too much to do: nothing before this time.
    Busy(Instant),
    /// None.
    Broken,
}

/// The standing of all peers of one client.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    /// How many peers are noted.
    noted: AtomicUsize,
    notes: RwLock<HashMap<Arc<str>, Note>>,
    /// A peer is well again.
    well_again: Notify,
}

#[derive(Debug)]
struct Note {
    fault: Fault,
    since: Instant,
}

#[derive(Debug)]
enum Fault {
    Slow {
        until: Instant,
    },
    Busy {
        /// How often in a row it refused what was sent one at a time.
        refusals: u32,
        next: Instant,
        error: Error,
    },
    Broken {
        /// `None` until it is found well again.
        until: Option<Instant>,
    },
}

impl Standings {
    /// What is to be expected of a peer now.
    pub(crate) fn of(&self, address: &str) -> Standing {
        if self.noted.load(Ordering::Relaxed) == 0 {
            return Standing::Good;
        }
        let notes = read(&self.notes);
        let Some(note) = notes.get(address) else {
            return Standing::Good;
        };
        match &note.fault {
            Fault::Slow { until } if *until > Instant::now() => Standing::Slow,
            Fault::Broken { until } if until.is_none_or(|until| until > Instant::now()) => Standing::Broken,
            Fault::Busy { next, .. } => Standing::Busy(*next),
            Fault::Slow { .. } | Fault::Broken { .. } => Standing::Good,
        }
    }

    /// Whether a request may be made of a peer now. Of a busy one only one at a time may, each after a longer pause
    /// than the one before; who may not is told when to ask again.
    pub(crate) fn claim(&self, address: &str) -> Result<(), Instant> {
        if self.noted.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let mut notes = write(&self.notes);
        let Some(Note {
            fault: Fault::Busy { refusals, next, .. },
            ..
        }) = notes.get_mut(address)
        else {
            return Ok(());
        };
        let now = Instant::now();
        if *next > now {
            return Err(*next);
        }
        // If nothing is heard of this one, the next may try.
        *next = now + backoff(*refusals, random());
        Ok(())
    }

    /// Why a busy peer refused last.
    pub(crate) fn refusal(&self, address: &str) -> Option<Error> {
        match &read(&self.notes).get(address)?.fault {
            Fault::Busy { error, .. } => Some(error.clone()),
            _ => None,
        }
    }

    /// Waits until a peer is well again, or until this time.
    pub(crate) async fn well_again(&self, address: &str, until: Instant) {
        let mut well = pin!(self.well_again.notified());
        well.as_mut().enable();
        if matches!(self.of(address), Standing::Busy(_)) {
            // Both ends are good: the standing is asked for again.
            let _ = timeout_at(until, well).await;
        }
    }

    /// A peer has answered: all is well with it.
    pub(crate) fn good(&self, address: &str) {
        if self.noted.load(Ordering::Relaxed) == 0 || !read(&self.notes).contains_key(address) {
            return;
        }
        {
            let mut notes = write(&self.notes);
            notes.remove(address);
            self.noted.store(notes.len(), Ordering::Relaxed);
        }
        self.well_again.notify_waiters();
    }

    /// A peer has answered, but slowly: others come first for a while.
    pub(crate) fn slow(&self, address: &str, for_how_long: Duration) {
        let until = Instant::now() + for_how_long;
        self.note(address, Fault::Slow { until });
        self.well_again.notify_waiters();
    }

    /// A peer refused what was sent to it at `sent`, as it has too much to do.
    pub(crate) fn busy(&self, address: &str, sent: Instant, error: Error) {
        let before = match read(&self.notes).get(address) {
            Some(Note {
                fault: Fault::Busy { refusals, .. },
                since,
            }) => {
                // It left before that was known; a crowd of refusals is one.
                if sent < *since {
                    return;
                }
                *refusals
            }
            _ => 0,
        };
        let refusals = before.saturating_add(1);
        let next = Instant::now() + backoff(refusals, random());
        self.note(
            address,
            Fault::Busy {
                refusals,
                next,
                error,
            },
        );
    }

    /// A peer did not answer, or cannot be reached: others come first for this time, or, without one, until it is
    /// found well again. Says whether somebody has to look after it for that from now on.
    pub(crate) fn broken(&self, address: &str, for_how_long: Option<Duration>) -> bool {
        let looked_after = matches!(
            read(&self.notes).get(address),
            Some(Note {
                fault: Fault::Broken { until: None },
                ..
            })
        );
        if looked_after {
            return false;
        }
        let until = for_how_long.map(|time| Instant::now() + time);
        self.note(address, Fault::Broken { until });
        // Who waited because it was busy may choose another one.
        self.well_again.notify_waiters();
        until.is_none()
    }

    /// Whether a peer did not answer last.
    pub(crate) fn is_broken(&self, address: &str) -> bool {
        self.of(address) == Standing::Broken
    }

    fn note(&self, address: &str, fault: Fault) {
        let note = Note {
            fault,
            since: Instant::now(),
        };
        let mut notes = write(&self.notes);
        notes.insert(address.into(), note);
        self.noted.store(notes.len(), Ordering::Relaxed);
    }

    /// Forgets peers that are not wanted any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let mut notes = write(&self.notes);
        notes.retain(|address, _| wanted(address));
        self.noted.store(notes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::error::ErrorKind;

    fn refusal() -> Error {
        Error::new(ErrorKind::Busy, "busy")
    }

    #[tokio::test(start_paused = true)]
    async fn the_slow_and_the_broken_come_later_for_a_while_or_until_they_answer() {
        let standings = Standings::default();
        let second = Duration::from_secs(1);
        assert_eq!(standings.of("a"), Standing::Good);
        standings.slow("a", second);
        assert!(!standings.broken("b", Some(second)), "it comes back by itself");
        assert_eq!(
            (standings.of("a"), standings.of("b")),
            (Standing::Slow, Standing::Broken)
        );
        assert_eq!(standings.of("c"), Standing::Good);
        advance(second * 2).await;
        assert_eq!(
            (standings.of("a"), standings.of("b")),
            (Standing::Good, Standing::Good)
        );
        assert!(standings.broken("b", None), "somebody has to find it well again");
        assert!(!standings.broken("b", None), "somebody does already");
        assert!(!standings.broken("b", Some(second)));
        advance(second * 1000).await;
        assert_eq!(standings.of("b"), Standing::Broken, "until it is found well");
        standings.good("b");
        assert_eq!(standings.of("b"), Standing::Good);
        standings.broken("c", None);
        standings.retain(|address| address == "a");
        assert_eq!(standings.of("c"), Standing::Good);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_busy_peer_one_at_a_time_asks_again_and_ever_later() {
        let standings = Standings::default();
        let started = Instant::now();
        let mut attempts = 0;
        while started.elapsed() < Duration::from_secs(60) {
            match standings.claim("a") {
                Ok(()) => {
                    attempts += 1;
                    let sent = Instant::now();
                    assert!(attempts == 1 || standings.claim("a").is_err(), "one at a time");
                    advance(Duration::from_millis(1)).await;
                    standings.busy("a", sent, refusal());
                    // Those that left at the same time change nothing.
                    standings.busy("a", sent, refusal());
                }
                Err(next) => advance(next - Instant::now()).await,
            }
        }
        // 50, 100, 200, 400, 800 ms, then a second each; at most half of it is taken off.
        assert!((60..=130).contains(&attempts), "{attempts}");
        assert_eq!(standings.refusal("a").unwrap().kind(), ErrorKind::Busy);
        standings.busy("a", Instant::now(), refusal());
        let next = standings.claim("a").unwrap_err();
        let waiting = standings.well_again("a", next + Duration::from_secs(60));
        let ((), ()) = tokio::join!(waiting, async { standings.good("a") });
        assert_eq!((standings.claim("a"), standings.claim("a")), (Ok(()), Ok(())));
    }
}
