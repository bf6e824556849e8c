//! What was sent and received, and the verdict on it.
//!
//! Every message carries an [`Id`] in its body; producers and consumers of a scenario record what they saw;
//! [`History::check`] finds what must not be:
//! - *lost*: acknowledged and never received;
//! - *ghosts*: received though never sent, or though the send certainly did not store it;
//! - *disorder*: of one key on one queue, a message overtook an earlier one. Replays are allowed, as a restart from an
//!   earlier message that goes on in order: what a commit that got lost brings about;
//! - *offset conflicts*: one place in a queue held two different messages.
//!
//! Duplicates are no fault by themselves (delivery is at least once) but are counted.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

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
    /// The producer cannot know: the answer was lost.
    Unknown,
    /// Certainly not stored.
    NotStored,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Sent(Id, Sent),
    Received(Id, Place),
}

/// The record of one scenario; share it by reference among its tasks.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<Event>>);

impl History {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the end of a send.
    pub fn sent(&self, id: Id, outcome: Sent) {
        self.push(Event::Sent(id, outcome));
    }

    /// Records a delivery.
    pub fn received(&self, id: Id, place: Place) {
        self.push(Event::Received(id, place));
    }

    /// How many different messages were acknowledged and are still to be received.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let events = self.events();
        let mut open: BTreeSet<Id> = BTreeSet::new();
        for event in &events {
            if let Event::Sent(id, Sent::Stored(_)) = event {
                open.insert(*id);
            }
        }
        for event in &events {
            if let Event::Received(id, _) = event {
                open.remove(id);
            }
        }
        open.len()
    }

    /// How many sends were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.events()
            .iter()
            .filter(|event| matches!(event, Event::Sent(_, Sent::Stored(_))))
            .count()
    }

    /// The verdict on all of it.
    #[must_use]
    pub fn check(&self) -> Verdict {
        check(&self.events())
    }

    fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    /// Deliveries beyond the first of each message.
    pub duplicates: usize,
}

impl Verdict {
    /// Nothing lost, no ghost, no two messages in one place. Order is only promised by a single consumer of a queue;
    /// see [`ordered`](Self::ordered).
    ///
    /// # Errors
    /// With all that was found.
    pub fn complete(&self) -> Result<(), Failure> {
        if self.lost.is_empty() && self.ghosts.is_empty() && self.conflicts.is_empty() {
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
            "lost {}, ghosts {}, disordered {}, offset conflicts {}, duplicates {}",
            list(&self.lost),
            list(&self.ghosts),
            list(&self.disordered),
            self.conflicts.len(),
            self.duplicates
        )
    }
}

fn check(events: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut places: BTreeMap<&Place, Id> = BTreeMap::new();
    let mut outcomes: BTreeMap<Id, &Sent> = BTreeMap::new();
    for event in events {
        let Event::Sent(id, outcome) = event else { continue };
        outcomes.insert(*id, outcome);
        if let Sent::Stored(place) = outcome {
            occupy(&mut places, place, *id, &mut verdict);
        }
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
