//! Pops in order: a queue hands out one batch at a time, and the next one only when no message of it is invisible any
//! more.
//!
//! Protocol source: `QueueLevelConsumerManager` (`ConsumerOrderInfoManager` before 5.5.0).

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Mutex;

use super::Place;
use crate::lock::lock;

/// The batches that are out, by group, topic and queue.
#[derive(Debug, Default)]
pub(crate) struct Orders(Mutex<Groups>);

type Groups = HashMap<String, HashMap<String, BTreeMap<i32, Batch>>>;

/// The messages that one queue handed out last.
#[derive(Debug)]
struct Batch {
    /// Which try of a client got it; the same try gets it again.
    attempt_id: Option<String>,
    pop_time: i64,
    invisible: i64,
    messages: Vec<Message>,
    /// How often messages were handed out before; those of which it is never are left out. After a second answer to the
    /// same try they may be other ones than the messages.
    counts: BTreeMap<i64, i32>,
    /// When a timer will look at it.
    armed_at: Option<i64>,
}

#[derive(Debug)]
struct Message {
    offset: i64,
    acknowledged: bool,
    /// From when on it may be handed out again, if that was changed.
    visible_at: Option<i64>,
}

/// What an acknowledgement in order means for the group's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The group goes on here.
    At(i64),
    /// It was of an earlier batch.
    Late,
    /// Nothing of that offset was handed out.
    Unknown,
}

/// What a client's answer says of a batch that was just handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HandedOut<'a> {
    pub(crate) attempt_id: Option<&'a str>,
    pub(crate) pop_time: i64,
    pub(crate) invisible: i64,
    pub(crate) offsets: &'a [i64],
}

impl Orders {
    /// Whether a queue waits for the messages of its batch.
    pub(crate) fn is_blocked(
        &self,
        place: &Place,
        attempt_id: Option<&str>,
        invisible: i64,
        now: i64,
    ) -> bool {
        let mut groups = lock(&self.0);
        let Some(batch) = find(&mut groups, place) else {
            return false;
        };
        if attempt_id.is_some() && batch.attempt_id.as_deref() == attempt_id {
            return false;
        }
        if batch.invisible <= 0 {
            batch.invisible = invisible;
        }
        batch.pending().any(|message| batch.visible_at(message) > now)
    }

    /// Remembers the batch that is handed out now, and tells how often each of its messages was handed out before:
    /// `<retry> qo<queue>%<offset> <count>` for each that was, and `<retry> <queue> <least>` for all.
    pub(crate) fn hand_out(&self, place: &Place, handed: HandedOut<'_>, retry: &str, told: &mut String) {
        let mut groups = lock(&self.0);
        let earlier = find(&mut groups, place);
        let counts = earlier.map_or_else(BTreeMap::new, |batch| batch.counts_of_next(handed));
        let message = |&offset: &i64| Message {
            offset,
            acknowledged: false,
            visible_at: None,
        };
        let mut least = i32::MAX;
        for offset in in_javas_order(&counts) {
            let count = counts.get(&offset).copied().unwrap_or(0);
            least = least.min(count);
            separate(told);
            // Writing to a string cannot fail.
            let _ = write!(told, "{retry} qo{}%{offset} {count}", place.queue_id);
        }
        if counts.len() != handed.offsets.len() {
            least = 0;
        }
        separate(told);
        let _ = write!(told, "{retry} {} {least}", place.queue_id);
        let batch = Batch {
            attempt_id: handed.attempt_id.map(str::to_owned),
            pop_time: handed.pop_time,
            invisible: handed.invisible,
            messages: handed.offsets.iter().map(message).collect(),
            counts,
            armed_at: None,
        };
        let topics = groups.entry(place.group.to_string()).or_default();
        let queues = topics.entry(place.topic.to_string()).or_default();
        queues.insert(place.queue_id, batch);
    }

    /// Takes an acknowledgement.
    pub(crate) fn acknowledge(&self, place: &Place, offset: i64, pop_time: i64) -> Committed {
        let mut groups = lock(&self.0);
        let Some(batch) = find(&mut groups, place) else {
            return Committed::At(offset.saturating_add(1));
        };
        if batch.pop_time != pop_time {
            return Committed::Late;
        }
        match batch.messages.iter_mut().find(|message| message.offset == offset) {
            Some(message) => message.acknowledged = true,
            None => return Committed::Unknown,
        }
        let next = match batch.pending().next() {
            Some(message) => Some(message.offset),
            None => batch.messages.last().map(|message| message.offset + 1),
        };
        next.map_or(Committed::Unknown, Committed::At)
    }

    /// Changes from when on a message may be handed out again.
    pub(crate) fn set_visible_at(&self, place: &Place, offset: i64, pop_time: i64, at: i64) {
        let mut groups = lock(&self.0);
        let Some(batch) = find(&mut groups, place).filter(|batch| batch.pop_time == pop_time) else {
            return;
        };
        if let Some(message) = batch.messages.iter_mut().find(|message| message.offset == offset) {
            message.visible_at = Some(at);
        }
    }

    /// When the queue stops to wait, if a timer has to be set for that: it waits, and none will look at it so early.
    pub(crate) fn arm(&self, place: &Place, now: i64) -> Option<i64> {
        let mut groups = lock(&self.0);
        let batch = find(&mut groups, place)?;
        let free_at = batch.pending().map(|message| batch.visible_at(message)).max()?;
        let is_armed = batch.armed_at.is_some_and(|at| at > now && at <= free_at);
        if free_at <= now || is_armed {
            return None;
        }
        batch.armed_at = Some(free_at);
        Some(free_at)
    }

    /// Lets a queue hand out whatever comes next.
    pub(crate) fn clear(&self, place: &Place) {
        let mut groups = lock(&self.0);
        if let Some(queues) = groups
            .get_mut(&*place.group)
            .and_then(|topics| topics.get_mut(&*place.topic))
        {
            queues.remove(&place.queue_id);
        }
    }

    pub(crate) fn remove_group(&self, group: &str) {
        lock(&self.0).remove(group);
    }

    pub(crate) fn remove_topic(&self, topic: &str) {
        lock(&self.0).retain(|_, topics| {
            topics.remove(topic);
            !topics.is_empty()
        });
    }

    /// All timers are gone. All queues that handed out a batch.
    pub(crate) fn disarm_all(&self) -> Vec<Place> {
        let mut groups = lock(&self.0);
        let mut places = Vec::new();
        for (group, topics) in groups.iter_mut() {
            for (topic, queues) in topics {
                for (&queue_id, batch) in queues {
                    batch.armed_at = None;
                    places.push(Place {
                        group: group.as_str().into(),
                        topic: topic.as_str().into(),
                        queue_id,
                    });
                }
            }
        }
        places
    }
}

fn find<'a>(groups: &'a mut Groups, place: &Place) -> Option<&'a mut Batch> {
    groups
        .get_mut(&*place.group)?
        .get_mut(&*place.topic)?
        .get_mut(&place.queue_id)
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        text.push(';');
    }
}

impl Batch {
    fn pending(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| !message.acknowledged)
    }

    fn visible_at(&self, message: &Message) -> i64 {
        message
            .visible_at
            .unwrap_or_else(|| self.pop_time.saturating_add(self.invisible))
    }

    /// How often the messages of the batch behind this one were handed out before.
    fn counts_of_next(&self, next: HandedOut<'_>) -> BTreeMap<i64, i32> {
        if self.attempt_id.is_some() && self.attempt_id.as_deref() == next.attempt_id {
            return self.counts.clone();
        }
        let again = next
            .offsets
            .iter()
            .filter(|offset| self.messages.iter().any(|message| message.offset == **offset));
        again
            .map(|offset| {
                (
                    *offset,
                    self.counts.get(offset).map_or(1, |count| count.saturating_add(1)),
                )
            })
            .collect()
    }
}

/// The offsets in the order in which a Java `HashMap` that grew to this size walks them: real brokers list counts so.
fn in_javas_order(counts: &BTreeMap<i64, i32>) -> Vec<i64> {
    let mut capacity = 16_usize;
    while counts.len() * 4 > capacity * 3 {
        capacity *= 2;
    }
    let bucket = |offset: &i64| {
        let folded = (*offset ^ (*offset).cast_unsigned().wrapping_shr(32).cast_signed()) as u32;
        (folded ^ (folded >> 16)) as usize & (capacity - 1)
    };
    let mut offsets: Vec<i64> = counts.keys().copied().collect();
    // Stable: those of one bucket stay in the order in which they were put.
    offsets.sort_by_key(bucket);
    offsets
}

#[cfg(test)]
mod tests;
