//! Which queues this member owns, how far each is consumed, and what changes when the division changes.
//!
//! One lock guards both the queues and their offsets: an offset is only ever taken from the messages of the queue as
//! it is owned now, never from those of an earlier ownership.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::offsets::OffsetTable;
use super::process_queue::ProcessQueue;
use crate::protocol::bodies::MessageQueue;

/// The queues that this member owns.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    owned: BTreeMap<MessageQueue, Owned>,
    offsets: OffsetTable,
    /// The queues that each topic had when its queues were first divided.
    first_seen: HashMap<Arc<str>, BTreeSet<MessageQueue>>,
}

#[derive(Debug)]
struct Owned {
    /// Ends the pulling of the queue.
    stop: CancellationToken,
    /// Ends the pull that is under way; another one follows.
    cut: CancellationToken,
    /// From when its first offset is known.
    process: Option<Arc<ProcessQueue>>,
}

/// A queue to be consumed from now on.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) queue: MessageQueue,
    /// Ends the pulling of the queue.
    pub(super) stop: CancellationToken,
    /// The queue was not there when the topic's queues were first divided: its first messages were sent while the
    /// group was already running.
    pub(super) appeared: bool,
}

/// A queue that is no longer consumed.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) queue: MessageQueue,
    /// What to commit, if anything was known of the queue.
    pub(super) offset: Option<i64>,
    /// Messages that were received and are let go without being handled.
    pub(super) released: usize,
    pub(super) process: Option<Arc<ProcessQueue>>,
}

impl Removed {
    /// What to commit now that some handlers may have ended since the queue was given up.
    pub(super) fn reached(&self) -> Option<i64> {
        let reached = self.process.as_ref().map(|process| process.commit_offset());
        self.offset.max(reached)
    }
}

impl Assignment {
    /// Notes the queues that a topic has; a topic that does not exist yet has none.
    pub(super) fn see(&mut self, topic: &Arc<str>, queues: &[MessageQueue]) {
        if !self.first_seen.contains_key(topic) {
            self.first_seen
                .insert(Arc::clone(topic), queues.iter().cloned().collect());
        }
    }

    /// Makes `target` the owned queues of a topic.
    pub(super) fn divide(
        &mut self,
        topic: &str,
        target: &[MessageQueue],
        stop: &CancellationToken,
    ) -> (Vec<Added>, Vec<Removed>) {
        let lost: Vec<MessageQueue> = self
            .owned
            .keys()
            .filter(|queue| &*queue.topic == topic && !target.contains(queue))
            .cloned()
            .collect();
        let removed = lost.into_iter().filter_map(|queue| self.remove(queue)).collect();
        let mut added = Vec::new();
        for queue in target {
            if self.owned.contains_key(queue) {
                continue;
            }
            let appeared = self
                .first_seen
                .get(topic)
                .is_some_and(|first| !first.contains(queue));
            added.push(Added {
                queue: queue.clone(),
                stop: self.add(queue.clone(), stop),
                appeared,
            });
        }
        (added, removed)
    }

    /// Gives up a queue and takes it again at once, for a start at another offset.
    pub(super) fn take_again(
        &mut self,
        queue: &MessageQueue,
        stop: &CancellationToken,
    ) -> Option<CancellationToken> {
        self.remove(queue.clone())?;
        Some(self.add(queue.clone(), stop))
    }

    /// Gives up everything.
    pub(super) fn clear(&mut self) -> Vec<Removed> {
        let queues: Vec<MessageQueue> = self.owned.keys().cloned().collect();
        queues
            .into_iter()
            .filter_map(|queue| self.remove(queue))
            .collect()
    }

    fn add(&mut self, queue: MessageQueue, stop: &CancellationToken) -> CancellationToken {
        let stop = stop.child_token();
        let owned = Owned {
            cut: stop.child_token(),
            stop: stop.clone(),
            process: None,
        };
        self.owned.insert(queue, owned);
        stop
    }

    fn remove(&mut self, queue: MessageQueue) -> Option<Removed> {
        let owned = self.owned.remove(&queue)?;
        owned.stop.cancel();
        let released = owned.process.as_ref().map_or(0, |process| {
            let released = process.drop_waiting();
            self.offsets.advance(&queue, process.commit_offset());
            released
        });
        let offset = self.offsets.disown(&queue);
        Some(Removed {
            queue,
            offset,
            released,
            process: owned.process,
        })
    }

    /// What ends the pull of a queue that is about to start; `None` when the queue was lost.
    pub(super) fn cut_of(&self, queue: &MessageQueue, stop: &CancellationToken) -> Option<CancellationToken> {
        if stop.is_cancelled() {
            return None;
        }
        self.owned.get(queue).map(|owned| owned.cut.clone())
    }

    /// Ends the pulls of a topic that are under way, so that other ones follow.
    pub(super) fn cut_pulls(&mut self, topic: &str) {
        for (_, owned) in self.owned.iter_mut().filter(|(queue, _)| &*queue.topic == topic) {
            owned.cut.cancel();
            owned.cut = owned.stop.child_token();
        }
    }

    /// The topic is not subscribed to any more: gives up its queues and forgets which ones it had.
    pub(super) fn leave(&mut self, topic: &str, stop: &CancellationToken) -> Vec<Removed> {
        self.first_seen.remove(topic);
        self.divide(topic, &[], stop).1
    }

    /// The queue is not this member's for the moment: what is cached of it does not count any more. Returns how far it
    /// was consumed, if it was.
    pub(super) fn close(&mut self, queue: &MessageQueue, stop: &CancellationToken) -> Option<i64> {
        if stop.is_cancelled() {
            return None;
        }
        let process = self.owned.get_mut(queue)?.process.take()?;
        process.drop_waiting();
        self.offsets.advance(queue, process.commit_offset());
        self.offsets.disown(queue)
    }

    /// The first offset of a queue is known: it can be pulled. False when the queue was lost meanwhile.
    pub(super) fn open(
        &mut self,
        process: &Arc<ProcessQueue>,
        offset: i64,
        committed: bool,
        stop: &CancellationToken,
    ) -> bool {
        // The token tells this ownership from a later one of the same queue.
        if stop.is_cancelled() {
            return false;
        }
        let Some(owned) = self.owned.get_mut(&process.queue) else {
            return false;
        };
        owned.process = Some(Arc::clone(process));
        self.offsets.own(process.queue.clone(), offset, committed);
        true
    }

    /// The broker or an operator moved the queue to another offset: what is cached of it does not count any more.
    /// False when the queue was lost meanwhile.
    pub(super) fn reopen(
        &mut self,
        process: &Arc<ProcessQueue>,
        offset: i64,
        stop: &CancellationToken,
    ) -> bool {
        let Some(owned) = self.owned.get_mut(&process.queue) else {
            return false;
        };
        if stop.is_cancelled() {
            return false;
        }
        if let Some(old) = owned.process.replace(Arc::clone(process)) {
            old.drop_waiting();
        }
        if self.offsets.offset(&process.queue).is_none() {
            self.offsets.own(process.queue.clone(), offset, false);
        }
        self.offsets.reset(&process.queue, offset);
        true
    }

    /// Brings the offset of a queue up to date and returns what is to be told of it with a pull.
    pub(super) fn progress_of(&mut self, queue: &MessageQueue) -> Option<i64> {
        let process = self.owned.get(queue)?.process.as_ref()?;
        self.offsets.advance(queue, process.commit_offset());
        self.offsets.news(queue)
    }

    /// Brings all offsets up to date and returns those to be committed now.
    pub(super) fn due(&mut self) -> Vec<(MessageQueue, i64)> {
        for (queue, owned) in &self.owned {
            if let Some(process) = &owned.process {
                self.offsets.advance(queue, process.commit_offset());
            }
        }
        self.offsets.due()
    }

    /// Brings all offsets up to date and returns them.
    pub(super) fn progress(&mut self) -> Vec<(MessageQueue, i64)> {
        for (queue, owned) in &self.owned {
            if let Some(process) = &owned.process {
                self.offsets.advance(queue, process.commit_offset());
            }
        }
        let offsets = self.offsets.iter();
        offsets.map(|(queue, offset)| (queue.clone(), offset)).collect()
    }

    /// A commit could not be sent.
    pub(super) fn commit_failed(&mut self, queue: &MessageQueue, offset: i64) {
        self.offsets.failed(queue, offset);
    }

    /// The owned queues with what is cached of them, once their offset is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&MessageQueue, Option<&Arc<ProcessQueue>>)> {
        self.owned
            .iter()
            .map(|(queue, owned)| (queue, owned.process.as_ref()))
    }

    /// What is cached of an owned queue, once its offset is known.
    pub(super) fn process(&self, queue: &MessageQueue) -> Option<Arc<ProcessQueue>> {
        self.owned.get(queue)?.process.clone()
    }
}

#[cfg(test)]
mod tests;
