//! What was sent and received, and the verdict on it.
//!
//! Every message carries an [`Id`] in its body; producers and consumers of a scenario record what they saw;
//! [`History::check`] finds what must not be:
//! - *lost*: acknowledged and never received;
//! - *ghosts*: received though never sent, or though the send certainly did not store it;
//! - *disorder*: of one key on one queue, a message overtook an earlier one. Replays are allowed, as a restart from an
//!   earlier message that goes on in order: what a commit that got lost brings about;
//! - *offset conflicts*: one place in a queue held two different messages;
//! - *unended* and *ended again*: a send that never told how it ended, or told so more often than it began.
//!
//! Duplicates are no fault by themselves (delivery is at least once) but are counted.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::Failure;

/// Names a message: who sent it, and as which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The sender within the scenario. Also the ordering key: one sender sends one after the other.
    pub producer: u32,
    /// Counts up for each message of a sender.
    pub sequence: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.sequence)
    }
}

impl FromStr for Id {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (producer, sequence) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is no message id"))?;
        Ok(Self {
            producer: producer.parse()?,
            sequence: sequence.parse()?,
        })
    }
}

/// A place in the cluster that holds one message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Broker name.
    pub broker: String,
    /// Topic; a retry lives in another.
    pub topic: String,
    /// Queue of the topic on that broker.
    pub queue: i32,
    /// Offset in the queue.
    pub offset: i64,
}

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Acknowledged, and where it is stored.
    Stored(Place),
    /// The producer cannot know: the answer was lost, or none was asked for.
    Unknown,
    /// Certainly not stored.
    NotStored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Begun(Id),
    Sent(Id, Sent),
    Received(Id, Place),
}

/// The record of one scenario; share it by reference among its tasks.
#[derive(Debug, Default)]
pub struct History(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    acknowledged: usize,
    last_acknowledged: Option<Instant>,
    longest_silence: Duration,
}

impl History {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that a send begins; its end has to be recorded once.
    pub fn begun(&self, id: Id) {
        self.log().events.push(Event::Begun(id));
    }

    /// Records the end of a send.
    pub fn sent(&self, id: Id, outcome: Sent) {
        let mut log = self.log();
        if matches!(outcome, Sent::Stored(_)) {
            let now = Instant::now();
            let silence = log.last_acknowledged.map_or(Duration::ZERO, |last| now - last);
            log.longest_silence = log.longest_silence.max(silence);
            log.last_acknowledged = Some(now);
            log.acknowledged += 1;
        }
        log.events.push(Event::Sent(id, outcome));
    }

    /// Records a delivery.
    pub fn received(&self, id: Id, place: Place) {
        self.log().events.push(Event::Received(id, place));
    }

    /// How many different messages were acknowledged and are still to be received.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let log = self.log();
        let mut open: BTreeSet<Id> = BTreeSet::new();
        for event in &log.events {
            if let Event::Sent(id, Sent::Stored(_)) = event {
                open.insert(*id);
            }
        }
        for event in &log.events {
            if let Event::Received(id, _) = event {
                open.remove(id);
            }
        }
        open.len()
    }

    /// How many sends were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.log().acknowledged
    }

    /// How many sends ended in doubt, and how many certainly stored nothing.
    #[must_use]
    pub fn unacknowledged(&self) -> (usize, usize) {
        let log = self.log();
        let count = |wanted| {
            let ended = |event: &&Event| matches!(event, Event::Sent(_, outcome) if *outcome == wanted);
            log.events.iter().filter(ended).count()
        };
        (count(Sent::Unknown), count(Sent::NotStored))
    }

    /// The longest time between two acknowledgements that came one after the other.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        self.log().longest_silence
    }

    /// The verdict on all of it.
    #[must_use]
    pub fn check(&self) -> Verdict {
        check(&self.log().events)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`History::check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Acknowledged, never received.
    pub lost: BTreeSet<Id>,
    /// Received, but never sent or certainly not stored.
    pub ghosts: BTreeSet<Id>,
    /// Overtaken by a later one of the same producer in the same queue.
    pub disordered: BTreeSet<Id>,
    /// Places that held two messages.
    pub conflicts: BTreeSet<Place>,
    /// Begun, and never said to have ended.
    pub unended: BTreeSet<Id>,
    /// Ended more often than begun.
    pub ended_again: BTreeSet<Id>,
    /// Deliveries beyond the first of each message.
    pub duplicates: usize,
}

impl Verdict {
    /// Nothing lost, no ghost, no two messages in one place, and every send ended once. Order is only promised by a
    /// single consumer of a queue; see [`ordered`](Self::ordered).
    ///
    /// # Errors
    /// With all that was found.
    pub fn complete(&self) -> Result<(), Failure> {
        let wrong = [&self.lost, &self.ghosts, &self.unended, &self.ended_again];
        if wrong.iter().all(|ids| ids.is_empty()) && self.conflicts.is_empty() {
            Ok(())
        } else {
            Err(self.to_string().into())
        }
    }

    /// As [`complete`](Self::complete), and each queue in order.
    ///
    /// # Errors
    /// With all that was found.
    pub fn ordered(&self) -> Result<(), Failure> {
        self.complete()?;
        if self.disordered.is_empty() {
            Ok(())
        } else {
            Err(self.to_string().into())
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &BTreeSet<Id>| {
            let first: Vec<String> = ids.iter().take(5).map(Id::to_string).collect();
            format!(
                "{} [{}{}]",
                ids.len(),
                first.join(" "),
                if ids.len() > 5 { " ..." } else { "" }
            )
        };
        write!(
            f,
            "lost {}, ghosts {}, disordered {}, offset conflicts {}, unended {}, ended again {}, duplicates {}",
            list(&self.lost),
            list(&self.ghosts),
            list(&self.disordered),
            self.conflicts.len(),
            list(&self.unended),
            list(&self.ended_again),
            self.duplicates
        )
    }
}

fn check(events: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut places: BTreeMap<&Place, Id> = BTreeMap::new();
    let mut outcomes: BTreeMap<Id, &Sent> = BTreeMap::new();
    // Of each send: how often it began, less how often it ended.
    let mut open: BTreeMap<Id, i64> = BTreeMap::new();
    for event in events {
        match event {
            Event::Begun(id) => *open.entry(*id).or_default() += 1,
            Event::Sent(id, outcome) => {
                *open.entry(*id).or_default() -= 1;
                outcomes.insert(*id, outcome);
                if let Sent::Stored(place) = outcome {
                    occupy(&mut places, place, *id, &mut verdict);
                }
            }
            Event::Received(..) => {}
        }
    }
    for (id, open) in open {
        match open.cmp(&0) {
            Ordering::Greater => verdict.unended.insert(id),
            Ordering::Less => verdict.ended_again.insert(id),
            Ordering::Equal => false,
        };
    }

    let mut seen: BTreeSet<Id> = BTreeSet::new();
    // Of each producer on each queue: what came, in order of first arrival, and how far the present run is.
    let mut runs: BTreeMap<(&str, &str, i32, u32), Run> = BTreeMap::new();
    for event in events {
        let Event::Received(id, place) = event else {
            continue;
        };
        match outcomes.get(id) {
            Some(Sent::Stored(_) | Sent::Unknown) => {}
            Some(Sent::NotStored) | None => {
                verdict.ghosts.insert(*id);
            }
        }
        if !seen.insert(*id) {
            verdict.duplicates += 1;
        }
        occupy(&mut places, place, *id, &mut verdict);
        let run = runs
            .entry((&place.broker, &place.topic, place.queue, id.producer))
            .or_default();
        if !run.accept(id.sequence) {
            verdict.disordered.insert(*id);
        }
    }
    for (id, outcome) in outcomes {
        if matches!(outcome, Sent::Stored(_)) && !seen.contains(&id) {
            verdict.lost.insert(id);
        }
    }
    verdict
}

fn occupy<'a>(places: &mut BTreeMap<&'a Place, Id>, place: &'a Place, id: Id, verdict: &mut Verdict) {
    match places.entry(place) {
        Entry::Vacant(free) => {
            free.insert(id);
        }
        Entry::Occupied(taken) => {
            if *taken.get() != id {
                verdict.conflicts.insert(place.clone());
            }
        }
    }
}

/// Sequence numbers as they arrive: new ones must grow, and a replay repeats, without gaps, what came before.
#[derive(Debug, Default)]
struct Run {
    arrived: Vec<u32>,
    /// Index in `arrived` of the one that has to come next while a replay goes on.
    replay: Option<usize>,
}

impl Run {
    fn accept(&mut self, sequence: u32) -> bool {
        match self.arrived.binary_search(&sequence) {
            Ok(index) => {
                let in_order = self.replay.is_none_or(|next| index <= next);
                self.replay = (index + 1 < self.arrived.len()).then_some(index + 1);
                in_order
            }
            Err(index) => {
                // New messages come after all the old ones, and only once a replay has caught up.
                let in_order = index == self.arrived.len() && self.replay.is_none();
                self.arrived.insert(index, sequence);
                if index + 1 == self.arrived.len() {
                    self.replay = None;
                }
                in_order
            }
        }
    }
}

#[cfg(test)]
mod tests;
