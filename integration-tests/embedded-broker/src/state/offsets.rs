//! How far groups have consumed.
//!
//! Protocol source: `ConsumerOffsetManager`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use crate::lock::lock;

/// Committed and pulled offsets by group, topic and queue.
#[derive(Debug, Default)]
pub(crate) struct Offsets(Mutex<HashMap<String, TopicProgress>>);

/// By topic and queue.
type TopicProgress = BTreeMap<String, BTreeMap<i32, Progress>>;

/// How far a group is in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) committed: Option<i64>,
    pub(crate) pulled: i64,
    /// Where the next pull is sent, because a tool has moved the group.
    reset: Option<i64>,
}

impl Offsets {
    /// Commits an offset; it may go back. False if a reset is on its way, which a member that does not know of it yet
    /// must not undo.
    pub(crate) fn commit(&self, group: &str, topic: &str, queue_id: i32, offset: i64) -> bool {
        let mut committed = false;
        self.change(group, topic, queue_id, |progress| {
            if progress.reset.is_none() {
                progress.committed = Some(offset);
                committed = true;
            }
        });
        committed
    }

    /// Lets the next pull of a queue be sent to an offset.
    pub(crate) fn reset(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.change(group, topic, queue_id, |progress| {
            progress.committed = Some(offset);
            progress.reset = Some(offset);
        });
    }

    /// Where a pull is to be sent; only once.
    pub(crate) fn take_reset(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let mut groups = lock(&self.0);
        let queue = groups.get_mut(group)?.get_mut(topic)?.get_mut(&queue_id)?;
        queue.reset.take()
    }

    /// Gives one group the offsets that another has of a topic.
    pub(crate) fn copy(&self, from: &str, to: &str, topic: &str) {
        let mut groups = lock(&self.0);
        let Some(queues) = groups.get(from).and_then(|topics| topics.get(topic)) else {
            return;
        };
        let copied = queues
            .iter()
            .filter(|(_, progress)| progress.committed.is_some())
            .map(|(queue_id, progress)| {
                let progress = Progress {
                    committed: progress.committed,
                    ..Progress::default()
                };
                (*queue_id, progress)
            })
            .collect();
        groups
            .entry(to.to_owned())
            .or_default()
            .insert(topic.to_owned(), copied);
    }

    /// Remembers where a group's pulls are; only statistics show it.
    pub(crate) fn pulled(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        self.change(group, topic, queue_id, |progress| progress.pulled = offset);
    }

    fn change(&self, group: &str, topic: &str, queue_id: i32, change: impl FnOnce(&mut Progress)) {
        let mut groups = lock(&self.0);
        // The names are copied only the first time.
        if let Some(queues) = groups.get_mut(group).and_then(|topics| topics.get_mut(topic)) {
            change(queues.entry(queue_id).or_default());
        } else {
            let topics = groups.entry(group.to_owned()).or_default();
            change(
                topics
                    .entry(topic.to_owned())
                    .or_default()
                    .entry(queue_id)
                    .or_default(),
            );
        }
    }

    pub(crate) fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.progress(group, topic, queue_id).committed
    }

    pub(crate) fn progress(&self, group: &str, topic: &str, queue_id: i32) -> Progress {
        let groups = lock(&self.0);
        let queue = groups
            .get(group)
            .and_then(|topics| topics.get(topic))
            .and_then(|queues| queues.get(&queue_id));
        queue.copied().unwrap_or_default()
    }

    /// The topics of which a group has committed anything.
    pub(crate) fn topics_of(&self, group: &str) -> BTreeSet<String> {
        let groups = lock(&self.0);
        groups
            .get(group)
            .map(|topics| {
                topics
                    .iter()
                    .filter(is_committed)
                    .map(|(topic, _)| topic.clone())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The groups that have committed anything of a topic.
    pub(crate) fn groups_of(&self, topic: &str) -> BTreeSet<String> {
        let groups = lock(&self.0);
        let consumes = |topics: &TopicProgress| {
            topics
                .get_key_value(topic)
                .is_some_and(|entry| is_committed(&entry))
        };
        groups
            .iter()
            .filter(|(_, topics)| consumes(topics))
            .map(|(group, _)| group.clone())
            .collect()
    }

    pub(crate) fn remove_group(&self, group: &str) {
        lock(&self.0).remove(group);
    }

    pub(crate) fn remove_topic(&self, topic: &str) {
        let mut groups = lock(&self.0);
        groups.retain(|_, topics| {
            topics.remove(topic);
            !topics.is_empty()
        });
    }
}

fn is_committed((_, queues): &(&String, &BTreeMap<i32, Progress>)) -> bool {
    queues.values().any(|progress| progress.committed.is_some())
}
