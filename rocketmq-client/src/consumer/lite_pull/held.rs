//! The queues of a lite-pull consumer: where each is, what is cached of it, and what is to be committed.
//!
//! All of it stands behind one lock. A queue that is started anew, because it was sought, reset, or lost and won again,
//! gets a new [`Turn`]; what a pull of an earlier turn brings is not taken any more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::consumer::offsets::OffsetTable;
use crate::consumer::process_queue::Limits;
use crate::protocol::Record;
use crate::protocol::bodies::MessageQueue;

/// The assigned queues.
#[derive(Debug)]
pub(super) struct Held {
    queues: BTreeMap<MessageQueue, Entry>,
    /// Queues that have something to hand out; the one that waits longest is the first.
    line: VecDeque<MessageQueue>,
    /// Queues whose position has changed since the last poll.
    moved: Vec<MessageQueue>,
    /// What the user has committed, or what counts as handled.
    offsets: OffsetTable,
    /// Whether what was handed out counts as handled once the user polls again.
    automatic: bool,
    limits: Limits,
    /// How many messages all queues may hold together, and do.
    max_messages: usize,
    messages: usize,
    turns: u64,
}

/// One start of a queue: tells its pull loop from earlier ones.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    number: u64,
    /// Ends the pulling.
    pub(super) stop: CancellationToken,
    /// Told when the queue may have room, or is not paused any more.
    pub(super) free: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    turn: Turn,
    /// The offset to be handed out next, once it is known.
    position: Option<i64>,
    batches: VecDeque<Cached>,
    messages: usize,
    bytes: usize,
    paused: bool,
    listed: bool,
    /// The position has changed since the last poll.
    moved: bool,
    /// There is an offset that this consumer has to tell.
    told: bool,
}

/// The messages of one pull.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
    /// The offset behind them and behind what was left out after them.
    pub(super) end: i64,
}

/// What a poll takes.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) queue: MessageQueue,
    pub(super) records: Vec<Record>,
    pub(super) bytes: usize,
}

/// A queue that is not assigned any more.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) queue: MessageQueue,
    /// What is to be committed of it.
    pub(super) offset: Option<i64>,
    /// The bytes that are free now.
    pub(super) freed: usize,
}

/// A queue as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) position: Option<i64>,
    pub(super) committed: Option<i64>,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// The lowest and the highest offset in the cache.
    pub(super) cached: Option<(i64, i64)>,
    pub(super) paused: bool,
}

impl Held {
    /// `limits` is for each queue, `max_messages` for all together.
    pub(super) fn new(limits: Limits, max_messages: usize, automatic: bool) -> Self {
        Self {
            queues: BTreeMap::new(),
            line: VecDeque::new(),
            moved: Vec::new(),
            offsets: OffsetTable::default(),
            automatic,
            limits,
            max_messages,
            messages: 0,
            turns: 0,
        }
    }

    /// Takes the queues of `target` that are not assigned yet, and gives up those that `concerns` and `target` does not
    /// name.
    pub(super) fn divide(
        &mut self,
        target: &[MessageQueue],
        concerns: impl Fn(&MessageQueue) -> bool,
        stop: &CancellationToken,
    ) -> (Vec<(MessageQueue, Turn)>, Vec<Released>) {
        let lost: Vec<_> = self
            .queues
            .keys()
            .filter(|queue| concerns(queue) && !target.contains(queue))
            .cloned()
            .collect();
        let released = lost.iter().filter_map(|queue| self.release(queue)).collect();
        let mut added = Vec::new();
        for queue in target {
            if self.queues.contains_key(queue) {
                continue;
            }
            let turn = self.turn(stop);
            let entry = Entry {
                turn: turn.clone(),
                position: None,
                batches: VecDeque::new(),
                messages: 0,
                bytes: 0,
                paused: false,
                listed: false,
                moved: false,
                told: false,
            };
            self.queues.insert(queue.clone(), entry);
            added.push((queue.clone(), turn));
        }
        (added, released)
    }

    fn turn(&mut self, stop: &CancellationToken) -> Turn {
        self.turns += 1;
        Turn {
            number: self.turns,
            stop: stop.child_token(),
            free: Arc::default(),
        }
    }

    /// Gives a queue up.
    pub(super) fn release(&mut self, queue: &MessageQueue) -> Option<Released> {
        let entry = self.queues.remove(queue)?;
        entry.turn.stop.cancel();
        self.line.retain(|listed| listed != queue);
        self.moved.retain(|moved| moved != queue);
        self.let_go(entry.messages);
        let offset = self.offsets.disown(queue);
        Some(Released {
            queue: queue.clone(),
            offset: offset.filter(|_| entry.told),
            freed: entry.bytes,
        })
    }

    /// Gives everything up.
    pub(super) fn clear(&mut self) -> Vec<Released> {
        let queues: Vec<_> = self.queues.keys().cloned().collect();
        queues.iter().filter_map(|queue| self.release(queue)).collect()
    }

    /// The first offset of a queue is known. `committed` says that the group has this very one. False when the turn is
    /// over.
    pub(super) fn open(&mut self, queue: &MessageQueue, turn: &Turn, offset: i64, committed: bool) -> bool {
        // Nobody else's offsets are touched by a user who commits for himself and has not done so yet.
        let committed = committed || !self.automatic;
        let Some(entry) = self.entry(queue, turn) else {
            return false;
        };
        entry.position = Some(offset);
        entry.told = !committed;
        self.offsets.own(queue.clone(), offset, committed);
        true
    }

    /// Goes on at `offset`: nothing that is cached or on its way is handed out any more. Gives the new turn and the
    /// bytes that are free now; `None` if the queue is not assigned, or `of` is given and over.
    pub(super) fn reposition(
        &mut self,
        queue: &MessageQueue,
        offset: i64,
        of: Option<&Turn>,
        stop: &CancellationToken,
    ) -> Option<(Turn, usize)> {
        let turn = self.turn(stop);
        let entry = self.queues.get_mut(queue)?;
        if of.is_some_and(|of| of.number != entry.turn.number) {
            return None;
        }
        entry.turn.stop.cancel();
        entry.turn = turn.clone();
        let freed = std::mem::take(&mut entry.bytes);
        let messages = std::mem::take(&mut entry.messages);
        entry.batches.clear();
        entry.listed = false;
        if entry.position.is_none() {
            self.offsets.own(queue.clone(), offset, true);
        }
        entry.position = Some(offset);
        self.line.retain(|listed| listed != queue);
        self.let_go(messages);
        self.mark_moved(queue);
        Some((turn, freed))
    }

    /// Starts all queues of a topic anew, each at its position: what is cached of it was pulled by another filter.
    pub(super) fn start_anew(
        &mut self,
        topic: &str,
        stop: &CancellationToken,
    ) -> Vec<(MessageQueue, i64, Turn, usize)> {
        let queues: Vec<_> = self
            .queues
            .iter()
            .filter(|(queue, _)| *queue.topic == *topic)
            .filter_map(|(queue, entry)| Some((queue.clone(), entry.position?)))
            .collect();
        queues
            .into_iter()
            .filter_map(|(queue, position)| {
                let (turn, freed) = self.reposition(&queue, position, None, stop)?;
                Some((queue, position, turn, freed))
            })
            .collect()
    }

    /// Takes what a pull brought. False when the turn is over.
    pub(super) fn put(&mut self, queue: &MessageQueue, turn: &Turn, batch: Cached) -> bool {
        let Some(entry) = self.entry(queue, turn) else {
            return false;
        };
        let messages = batch.records.len();
        entry.messages += messages;
        entry.bytes += batch.bytes;
        entry.batches.push_back(batch);
        self.messages += messages;
        self.list(queue);
        true
    }

    /// Nothing below `offset` is wanted, or there. False when the turn is over.
    pub(super) fn skip_to(&mut self, queue: &MessageQueue, turn: &Turn, offset: i64) -> bool {
        let Some(entry) = self.entry(queue, turn) else {
            return false;
        };
        match entry.batches.back_mut() {
            Some(last) => last.end = last.end.max(offset),
            None if entry.position.is_some_and(|position| position < offset) => {
                entry.position = Some(offset);
                self.mark_moved(queue);
            }
            None => {}
        }
        true
    }

    /// Whether the queue may be pulled now; `None` when the turn is over.
    pub(super) fn may_pull(&mut self, queue: &MessageQueue, turn: &Turn) -> Option<bool> {
        let (limits, full) = (self.limits, self.is_full());
        let entry = self.entry(queue, turn)?;
        Some(!full && !entry.paused && entry.has_room(limits))
    }

    fn is_full(&self) -> bool {
        self.messages >= self.max_messages
    }

    /// So many messages are not cached any more.
    fn let_go(&mut self, messages: usize) {
        let was_full = self.is_full();
        self.messages -= messages;
        if was_full && !self.is_full() {
            for entry in self.queues.values() {
                entry.turn.free.notify_one();
            }
        }
    }

    /// What was handed out counts as handled, if that is automatic.
    pub(super) fn count_as_handled(&mut self) {
        for queue in std::mem::take(&mut self.moved) {
            let Some(entry) = self.queues.get_mut(&queue) else {
                continue;
            };
            entry.moved = false;
            if let Some(position) = entry.position.filter(|_| self.automatic) {
                entry.told |= note(&mut self.offsets, &queue, position);
            }
        }
    }

    /// Hands out what is first in line.
    pub(super) fn take(&mut self) -> Option<Taken> {
        let queue = self.line.pop_front()?;
        let limits = self.limits;
        let entry = self.queues.get_mut(&queue)?;
        entry.listed = false;
        let batch = entry.batches.pop_front()?;
        let messages = batch.records.len();
        entry.messages -= messages;
        entry.bytes -= batch.bytes;
        entry.position = Some(batch.end);
        if entry.has_room(limits) {
            entry.turn.free.notify_one();
        }
        self.let_go(messages);
        self.list(&queue);
        self.mark_moved(&queue);
        Some(Taken {
            queue,
            records: batch.records,
            bytes: batch.bytes,
        })
    }

    /// Puts a queue in line that has something to hand out and may.
    fn list(&mut self, queue: &MessageQueue) {
        if let Some(entry) = self.queues.get_mut(queue)
            && !entry.listed
            && !entry.paused
            && !entry.batches.is_empty()
        {
            entry.listed = true;
            self.line.push_back(queue.clone());
        }
    }

    fn mark_moved(&mut self, queue: &MessageQueue) {
        if let Some(entry) = self.queues.get_mut(queue)
            && !entry.moved
        {
            entry.moved = true;
            self.moved.push(queue.clone());
        }
    }

    /// Stops or starts handing a queue out. False if it is not assigned.
    pub(super) fn pause(&mut self, queue: &MessageQueue, paused: bool) -> bool {
        let Some(entry) = self.queues.get_mut(queue) else {
            return false;
        };
        entry.paused = paused;
        if paused {
            entry.listed = false;
            self.line.retain(|listed| listed != queue);
        } else {
            entry.turn.free.notify_one();
            self.list(queue);
        }
        true
    }

    /// Notes that everything below `offset` is to be committed, or all that was handed out without one. Gives what it
    /// is; `None` if the queue is not assigned, its position not known yet, or nothing of it was handed out.
    pub(super) fn commit(&mut self, queue: &MessageQueue, offset: Option<i64>) -> Option<i64> {
        let entry = self.queues.get_mut(queue)?;
        let position = entry.position?;
        let changes = note(&mut self.offsets, queue, offset.unwrap_or(position));
        entry.told |= changes || offset.is_some();
        entry.told.then_some(offset.unwrap_or(position))
    }

    /// A broker has confirmed an offset.
    pub(super) fn committed(&mut self, queue: &MessageQueue, offset: i64) {
        if self.offsets.offset(queue) == Some(offset) {
            self.offsets.own(queue.clone(), offset, true);
        }
    }

    /// What is to be committed now; counts as sent.
    pub(super) fn due(&mut self) -> Vec<(MessageQueue, i64)> {
        self.offsets.due()
    }

    /// A commit could not be sent.
    pub(super) fn commit_failed(&mut self, queue: &MessageQueue, offset: i64) {
        self.offsets.failed(queue, offset);
    }

    /// The assigned queues.
    pub(super) fn queues(&self) -> impl Iterator<Item = &MessageQueue> {
        self.queues.keys()
    }

    pub(super) fn contains(&self, queue: &MessageQueue) -> bool {
        self.queues.contains_key(queue)
    }

    /// How each queue stands.
    pub(super) fn standings(&self) -> impl Iterator<Item = (&MessageQueue, Standing)> {
        self.queues
            .iter()
            .map(|(queue, entry)| (queue, self.standing_of(queue, entry)))
    }

    /// How one queue stands.
    pub(super) fn standing(&self, queue: &MessageQueue) -> Option<Standing> {
        let entry = self.queues.get(queue)?;
        Some(self.standing_of(queue, entry))
    }

    fn standing_of(&self, queue: &MessageQueue, entry: &Entry) -> Standing {
        Standing {
            position: entry.position,
            committed: self.offsets.offset(queue),
            messages: entry.messages,
            bytes: entry.bytes,
            cached: entry.span(),
            paused: entry.paused,
        }
    }

    /// The queue, if the turn is the one of now.
    fn entry(&mut self, queue: &MessageQueue, turn: &Turn) -> Option<&mut Entry> {
        let entry = self.queues.get_mut(queue)?;
        (entry.turn.number == turn.number).then_some(entry)
    }
}

impl Entry {
    /// The lowest and the highest offset in the cache.
    fn span(&self) -> Option<(i64, i64)> {
        let first = self.batches.iter().find_map(|batch| batch.records.first())?;
        let last = self.batches.iter().rev().find_map(|batch| batch.records.last())?;
        Some((first.queue_offset, last.queue_offset))
    }

    fn has_room(&self, limits: Limits) -> bool {
        let span = self.span().map_or(0, |(first, last)| last.saturating_sub(first));
        self.messages < limits.messages && self.bytes < limits.bytes && span <= limits.span
    }
}

/// Changes an offset, forward or back. False if it is the same already and needs no commit.
fn note(offsets: &mut OffsetTable, queue: &MessageQueue, offset: i64) -> bool {
    let changes = offsets.offset(queue) != Some(offset);
    if changes {
        offsets.reset(queue, offset);
    }
    changes
}

#[cfg(test)]
mod tests;
