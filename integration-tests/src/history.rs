//! What was sent and received, and the verdict on it.
//!
//! Every message carries an [`Id`] in its body; producers and consumers of a scenario, or the programs that it starts
//! ([`verifiable`](crate::verifiable)), record what they saw; [`History::check`] finds what must not be:
//! - *lost*: acknowledged by a broker and never handled to the end;
//! - *ghosts*: received though never sent, or though the send certainly did not store it;
//! - *disorder*: of one sender and key on one queue, a message overtook an earlier one. Replays are allowed, as a
//!   restart from an earlier message that goes on in order: what a commit that got lost brings about;
//! - *offset conflicts*: one place in a queue held two different messages;
//! - *altered*: a message came whose body is not the one that was sent;
//! - *unended* and *ended again*: a send that never told how it ended, or told so more often than it began;
//! - *cut*: a handler had not ended when its process said that it had stopped in order;
//! - *shared queues* and *shared keys*: two handlers worked on one queue, or one key of a queue, at the same time.
//!   Only [orderly](Verdict::one_owner) consumption promises that there are none of the first, and
//!   [key-ordered](Verdict::one_handler_for_each_key) that there are none of the second;
//! - *lag*: messages that the group had not committed in the end, if somebody looked.
//!
//! Duplicates are no fault by themselves (delivery is at least once) but are counted, and [`Bound`] says how many a run
//! may have had. [`Outages`] tells how long nothing went on, within faults and outside.

mod bound;
mod check;
mod line;
mod outages;

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    io::Write,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use bound::Bound;
pub use line::{Clock, Event, Handled, Id, Line, Member, Place, SendStatus, Sent};
pub use outages::{Outages, Progress};

use crate::Failure;

/// The record of one scenario; share it by reference among its tasks.
#[derive(Debug, Default)]
pub struct History {
    clock: Clock,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<Line>,
    acknowledged: usize,
    handled: usize,
    /// Acknowledged by a broker, not yet handled to the end.
    open: HashSet<Id>,
    /// Handled to the end.
    done: HashSet<Id>,
    last_acknowledged: Option<Instant>,
    longest_silence: Duration,
}

/// The process that records its own doings with [`History::begun`] and so on.
const HERE: &str = "scenario";

impl History {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that a send begins; its end has to be recorded once.
    pub fn begun(&self, id: Id) {
        self.note(Event::Begin { id, key: None });
    }

    /// Records the end of a send.
    pub fn sent(&self, id: Id, outcome: Sent) {
        let (status, place) = match outcome {
            Sent::Stored(place) => (SendStatus::Ok, Some(place)),
            Sent::Unknown => (SendStatus::Unknown, None),
            Sent::NotStored => (SendStatus::NotSent, None),
        };
        self.note(Event::Send {
            id,
            status,
            place,
            error: None,
        });
    }

    /// Records a delivery that is handled at once and to the end.
    pub fn received(&self, id: Id, place: Place) {
        let mut log = self.log();
        let received = Event::Recv {
            id,
            place: place.clone(),
            key: None,
            attempt: 0,
            call: None,
        };
        log.push(self.line(received));
        let status = Handled::Ok;
        let call = None;
        log.push(self.line(Event::Ack {
            id,
            place,
            status,
            call,
        }));
    }

    /// Records anything that this process has seen or done.
    pub fn note(&self, event: Event) {
        // The time is taken under the lock, so that lines of one process lie in their order.
        let mut log = self.log();
        let line = self.line(event);
        log.push(line);
    }

    /// Records that something is broken on purpose; `target` names a process if it is done to one.
    pub fn fault(&self, what: &str, target: Option<&str>) {
        self.note(Event::Fault {
            what: what.to_owned(),
            target: target.map(str::to_owned),
        });
    }

    /// Records that it is whole again.
    pub fn mended(&self, what: &str) {
        let what = what.to_owned();
        self.note(Event::Mended { what });
    }

    /// Adds what another process tells.
    pub fn push(&self, line: Line) {
        self.log().push(line);
    }

    /// How many different messages were acknowledged and are still to be handled.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.log().open.len()
    }

    /// How many sends were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.log().acknowledged
    }

    /// How many deliveries were handled to the end.
    #[must_use]
    pub fn handled(&self) -> usize {
        self.log().handled
    }

    /// How many different messages were handled to the end.
    #[must_use]
    pub fn handled_messages(&self) -> usize {
        self.log().done.len()
    }

    /// How many sends ended in doubt, and how many certainly stored nothing.
    #[must_use]
    pub fn unacknowledged(&self) -> (usize, usize) {
        let count = |wanted| {
            self.count(|line| matches!(&line.event, Event::Send { status, .. } if *status == wanted))
        };
        (count(SendStatus::Unknown), count(SendStatus::NotSent))
    }

    /// How many lines are so.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&Line) -> bool) -> usize {
        self.log().lines.iter().filter(|line| wanted(line)).count()
    }

    /// What all the lines that matter say.
    #[must_use]
    pub fn collect<T>(&self, wanted: impl Fn(&Line) -> Option<T>) -> Vec<T> {
        self.log().lines.iter().filter_map(wanted).collect()
    }

    /// The longest time between two acknowledgements that came one after the other.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.log().longest_silence
    }

    /// The verdict on all of it.
    #[must_use]
    pub fn check(&self) -> Verdict {
        check::check(&self.log().lines)
    }

    /// How long nothing went on.
    #[must_use]
    pub fn outages(&self, progress: Progress) -> Outages {
        Outages::of(&self.log().lines, progress)
    }

    /// Writes all of it to a file, as `check-history` reads it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for line in &self.log().lines {
            serde_json::to_writer(&mut file, line)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    fn line(&self, event: Event) -> Line {
        Line {
            ts: self.clock.now(),
            proc: HERE.to_owned(),
            event,
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn push(&mut self, line: Line) {
        match &line.event {
            Event::Send {
                id,
                status: SendStatus::Ok,
                ..
            } => {
                let now = Instant::now();
                let silence = self.last_acknowledged.map_or(Duration::ZERO, |last| now - last);
                self.longest_silence = self.longest_silence.max(silence);
                self.last_acknowledged = Some(now);
                self.acknowledged += 1;
                if !self.done.contains(id) {
                    self.open.insert(*id);
                }
            }
            Event::Ack { id, status, .. } if status.is_done() => {
                self.handled += 1;
                self.done.insert(*id);
                self.open.remove(id);
            }
            _ => {}
        }
        self.lines.push(line);
    }
}

/// Two handlers that worked at the same time where there may be but one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    /// What the later one was at.
    pub place: Place,
    /// The process of the one that had begun.
    pub first: String,
    /// The process of the one that began beside it.
    pub second: String,
}

/// What [`History::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Acknowledged, never handled to the end.
    pub lost: BTreeSet<Id>,
    /// Received, but never sent or certainly not stored.
    pub ghosts: BTreeSet<Id>,
    /// Acknowledged, and overtaken by a later one of the same producer and key in the same queue.
    pub disordered: BTreeSet<Id>,
    /// Places that held two messages.
    pub conflicts: BTreeSet<Place>,
    /// Places whose message is not what was sent.
    pub altered: BTreeSet<Place>,
    /// Begun, and never said to have ended.
    pub unended: BTreeSet<Id>,
    /// Ended more often than begun.
    pub ended_again: BTreeSet<Id>,
    /// In a handler when its process had stopped in order.
    pub cut: BTreeSet<Id>,
    /// Handlers of one queue at the same time.
    pub shared_queues: BTreeSet<Shared>,
    /// Handlers of one key of a queue at the same time.
    pub shared_keys: BTreeSet<Shared>,
    /// What the group had not committed in the end.
    pub lag: Option<i64>,
    /// Deliveries beyond the first of each message that no failure had asked for.
    pub duplicates: usize,
    /// Deliveries of messages whose handler had failed before.
    pub retries: usize,
}

impl Verdict {
    /// Nothing lost or altered, no ghost, no two messages in one place, every send ended once, every handler of a
    /// process that stopped in order had ended, and no lag. Order is only promised by a single consumer of a queue; see
    /// [`ordered`](Self::ordered).
    ///
    /// # Errors
    /// With all that was found.
    pub fn complete(&self) -> Result<(), Failure> {
        let wrong = [
            &self.lost,
            &self.ghosts,
            &self.unended,
            &self.ended_again,
            &self.cut,
        ];
        let whole = wrong.iter().all(|ids| ids.is_empty())
            && self.conflicts.is_empty()
            && self.altered.is_empty()
            && self.lag.is_none_or(|lag| lag == 0);
        self.say(whole)
    }

    /// As [`complete`](Self::complete), and each key of each queue in order.
    ///
    /// # Errors
    /// With all that was found.
    pub fn ordered(&self) -> Result<(), Failure> {
        self.complete()?;
        self.say(self.disordered.is_empty())
    }

    /// As [`ordered`](Self::ordered), and each queue had one handler at any time.
    ///
    /// # Errors
    /// With all that was found.
    pub fn one_owner(&self) -> Result<(), Failure> {
        self.ordered()?;
        self.say(self.shared_queues.is_empty())
    }

    /// As [`ordered`](Self::ordered), and each key of each queue had one handler at any time.
    ///
    /// # Errors
    /// With all that was found.
    pub fn one_handler_for_each_key(&self) -> Result<(), Failure> {
        self.ordered()?;
        self.say(self.shared_keys.is_empty())
    }

    /// No more duplicates than so many; [`Bound`] derives the number.
    ///
    /// # Errors
    /// With the numbers.
    pub fn at_most(&self, duplicates: usize) -> Result<(), Failure> {
        if self.duplicates <= duplicates {
            return Ok(());
        }
        Err(format!("duplicates above the bound of {duplicates}: {self}").into())
    }

    fn say(&self, sound: bool) -> Result<(), Failure> {
        if sound {
            Ok(())
        } else {
            Err(self.to_string().into())
        }
    }
}

/// Everything that was found, and with `{:#}` how much of each.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(found: &BTreeSet<T>, short: bool) -> String {
            if short || found.is_empty() {
                return found.len().to_string();
            }
            let first: Vec<String> = found.iter().take(5).map(T::to_string).collect();
            let more = if found.len() > 5 { " ..." } else { "" };
            format!("{} [{}{more}]", found.len(), first.join(" "))
        }
        let short = f.alternate();
        write!(
            f,
            "lost {}, ghosts {}, disordered {}, offset conflicts {}, altered {}, unended {}, ended again {}, cut {}, \
             shared queues {}, shared keys {}, lag {}, duplicates {}, retries {}",
            list(&self.lost, short),
            list(&self.ghosts, short),
            list(&self.disordered, short),
            list(&self.conflicts, short),
            list(&self.altered, short),
            list(&self.unended, short),
            list(&self.ended_again, short),
            list(&self.cut, short),
            list(&self.shared_queues, short),
            list(&self.shared_keys, short),
            self.lag
                .map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
            self.duplicates,
            self.retries,
        )
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} and {}", self.place, self.first, self.second)
    }
}

#[cfg(test)]
mod tests;
