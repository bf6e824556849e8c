//! The lock of one queue, as this member knows it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::trace::now_millis;

/// How long a lock counts, from when it was asked for. Java: `ProcessQueue.REBALANCE_LOCK_MAX_LIVE_TIME`; brokers keep
/// it twice as long.
pub(super) const LIFE: Duration = Duration::from_secs(30);

/// Whether the queue is this member's.
///
/// Each stretch of time for which it is without a break has a number, its epoch: what was received in one is worth
/// nothing in the next, because somebody else may have had the queue in between.
#[derive(Debug)]
pub(in crate::consumer) struct QueueLock(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    epoch: u64,
    hold: Hold,
    /// How often in a row it was not to be had.
    refusals: u64,
    /// When it was last granted, in milliseconds since 1970.
    granted_at: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    No,
    /// Until then, if nothing else is heard.
    Until(Instant),
    /// The same, but the broker may have forgotten it: nothing is started.
    Doubtful(Instant),
}

/// How a lock stands, for those who look from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::consumer) struct LockInfo {
    pub(in crate::consumer) locked: bool,
    /// How often in a row the broker did not give it.
    pub(in crate::consumer) refusals: u64,
    /// When it was last granted, in milliseconds since 1970; 0 if never.
    pub(in crate::consumer) granted_at: i64,
}

/// What the holder may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The queue is this member's, in this epoch.
    Held(u64),
    /// Not known at the moment, or no.
    NotNow,
}

impl QueueLock {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    pub(super) fn standing(&self) -> Standing {
        let state = *self.0.borrow();
        match state.hold {
            Hold::Until(until) if Instant::now() < until => Standing::Held(state.epoch),
            _ => Standing::NotNow,
        }
    }

    /// Until when it counts, if it is certain.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.0.borrow().hold {
            Hold::Until(until) => Some(until),
            _ => None,
        }
    }

    /// Whether it is not held, without any doubt.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().hold == Hold::No
    }

    /// The broker gave it, or gave it again, when it was asked at this time.
    pub(super) fn grant(&self, asked_at: Instant) {
        let now = Instant::now();
        self.0.send_modify(|state| {
            let goes_on = match state.hold {
                Hold::No => false,
                Hold::Until(until) | Hold::Doubtful(until) => now < until,
            };
            if !goes_on {
                state.epoch += 1;
            }
            state.hold = Hold::Until(asked_at + LIFE);
            state.refusals = 0;
            state.granted_at = now_millis();
        });
    }

    /// The broker did not give it: it is somebody else's.
    pub(super) fn refuse(&self) {
        self.0.send_modify(|state| {
            state.hold = Hold::No;
            state.refusals += 1;
        });
    }

    /// It does not count any more, whatever the broker says.
    pub(super) fn give_up(&self) {
        self.0.send_modify(|state| state.hold = Hold::No);
    }

    /// The broker may have forgotten it.
    pub(super) fn doubt(&self) {
        self.0.send_if_modified(|state| match state.hold {
            Hold::Until(until) => {
                state.hold = Hold::Doubtful(until);
                true
            }
            _ => false,
        });
    }

    /// Waits until it is held; returns the epoch.
    pub(super) async fn held(&self) -> u64 {
        let mut states = self.0.subscribe();
        loop {
            states.mark_unchanged();
            if let Standing::Held(epoch) = self.standing() {
                return epoch;
            }
            // The sender lives as long as `self`.
            let _ = states.changed().await;
        }
    }

    /// Waits until this epoch is over.
    pub(super) async fn lost(&self, epoch: u64) {
        let mut states = self.0.subscribe();
        loop {
            let state = *states.borrow_and_update();
            let until = match state.hold {
                Hold::Until(until) | Hold::Doubtful(until) if state.epoch == epoch => until,
                _ => return,
            };
            if timeout_at(until, states.changed()).await.is_err() {
                return;
            }
        }
    }

    pub(super) fn info(&self) -> LockInfo {
        let state = *self.0.borrow();
        LockInfo {
            locked: matches!(self.standing(), Standing::Held(_)),
            refusals: state.refusals,
            granted_at: state.granted_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lock_counts_for_thirty_seconds_from_the_question() {
        let held = QueueLock::new();
        assert_eq!(held.standing(), Standing::NotNow);
        let asked_at = Instant::now();
        advance(Duration::from_secs(4)).await;
        held.grant(asked_at);
        assert_eq!(held.standing(), Standing::Held(1));
        advance(Duration::from_secs(25)).await;
        assert_eq!(held.standing(), Standing::Held(1));
        held.lost(1).await;
        assert_eq!(asked_at.elapsed().as_secs(), 30);
        assert_eq!(held.standing(), Standing::NotNow);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_keeps_the_epoch_and_a_break_ends_it() {
        let held = QueueLock::new();
        held.grant(Instant::now());
        advance(Duration::from_secs(20)).await;
        held.grant(Instant::now());
        assert_eq!(held.held().await, 1);
        held.refuse();
        held.lost(1).await;
        held.grant(Instant::now());
        // Nobody has looked in between, and yet it is seen.
        held.lost(1).await;
        assert_eq!(held.held().await, 2);
        advance(LIFE).await;
        held.grant(Instant::now());
        assert_eq!(held.held().await, 3, "it ran out before it was renewed");
    }

    #[tokio::test(start_paused = true)]
    async fn in_doubt_nothing_starts_and_nothing_is_lost() {
        let held = QueueLock::new();
        held.grant(Instant::now());
        held.doubt();
        assert_eq!(held.standing(), Standing::NotNow);
        assert!(!held.info().locked);
        held.grant(Instant::now());
        assert_eq!(held.standing(), Standing::Held(1), "the broker still has it");
        held.doubt();
        held.lost(1).await;
        assert_eq!(held.info().refusals, 0, "nobody has refused it");
    }
}
