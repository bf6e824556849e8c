//! The messages of one queue that are in the cache: received, not yet done with.
//!
//! Messages are handed out in the order of their offsets and finish in any order. The offset to commit is the lowest
//! one that is not finished; everything below it is. Each operation takes constant time, amortised over the messages.
//!
//! Protocol source: `ProcessQueue`, `DefaultMQPushConsumerImpl#pullMessage` (the three limits).

mod batch;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::Budget;
use super::flow::Share;
use super::orderly::InOrder;
use super::outcome::GiveBack;
use super::pop::Popping;
use super::stats::QueueWatch;
use crate::protocol::Record;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

pub(super) use batch::Found;

/// How much of one queue may be in the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Messages.
    pub(super) messages: usize,
    /// Bytes of the pull responses that they are part of.
    pub(super) bytes: usize,
    /// Offsets from the lowest unfinished message to the newest.
    pub(super) span: i64,
}

/// What the next pull needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// A message that a worker has taken. It has to come back by [`ProcessQueue::finish`] or [`ProcessQueue::put_back`].
#[derive(Debug)]
pub(super) struct Claim {
    /// Its number in the queue, by which it comes back.
    pub(super) number: u64,
    pub(super) record: Record,
    /// What is left to tell the broker, when the handler has decided but the broker could not be told.
    pub(super) undelivered: Option<GiveBack>,
}

/// What is in the cache of one queue.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// Messages that are not finished.
    pub(super) messages: usize,
    /// The lowest and the highest offset that is not finished.
    pub(super) offsets: Option<(i64, i64)>,
    /// The offsets of messages that were handed out.
    pub(super) running: Vec<i64>,
    /// Messages that were put back and wait to be handed out again; they count as running too.
    pub(super) again: usize,
    pub(super) dropped: bool,
}

/// The cached messages of one queue, while this consumer owns it.
///
/// A queue that is lost and won again, or whose offset is reset, gets a new one; what then still finishes in the old
/// one cannot move the offset of the new one.
#[derive(Debug)]
pub(super) struct ProcessQueue {
    pub(super) queue: MessageQueue,
    /// Where the order of the queue is kept, if it is.
    in_order: Option<InOrder>,
    /// What is known of the messages if they were popped: they have no offset in common, and are numbered as they come.
    popping: Option<Popping>,
    limits: Limits,
    /// What it may have of its topic's limits.
    share: Option<Arc<Share>>,
    watch: Option<QueueWatch>,
    budget: Arc<Budget>,
    room: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// From the lowest unfinished message on.
    slots: VecDeque<Slot>,
    /// The number of the first slot; messages are numbered as they arrive, without gaps.
    first: u64,
    /// The number of the next message to hand out.
    next: u64,
    /// Messages that were put back, to be handed out again.
    again: VecDeque<Claim>,
    /// The pull responses that the slots came in.
    batches: VecDeque<Batch>,
    first_batch: u64,
    /// Messages that are not finished.
    unfinished: usize,
    /// Bytes of responses with unfinished messages.
    bytes: usize,
    /// One past everything that was seen: the offset to commit when nothing is unfinished.
    end: i64,
    /// Set while the pull loop waits for room.
    blocked: Option<Wanted>,
    /// Whether the queue waits in line for a worker; kept by [`Ready`](super::ready::Ready).
    listed: bool,
    /// Until when what waits here may wait for more, so that a batch is full.
    full_until: Option<Instant>,
    /// Whether somebody looks again by then.
    looked_after: bool,
    dropped: bool,
}

#[derive(Debug)]
struct Slot {
    offset: i64,
    batch: u64,
    cell: Cell,
}

/// What a message takes in the cache beside its bytes: its slot, twice, because the slots grow by doubling.
pub(super) const SLOT_BYTES: usize = 2 * size_of::<Slot>();

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most slots wait, and a box would be an allocation for each message"
)]
enum Cell {
    Waiting(Record),
    Running,
    Done,
    /// Given up unhandled because the queue was dropped; still unfinished for the offset.
    Released,
}

#[derive(Debug)]
struct Batch {
    bytes: usize,
    held: usize,
}

impl ProcessQueue {
    /// A queue that is consumed from `offset` on.
    pub(super) fn new(queue: MessageQueue, offset: i64, limits: Limits, budget: Arc<Budget>) -> Self {
        Self {
            queue,
            in_order: None,
            popping: None,
            limits,
            share: None,
            watch: None,
            budget,
            room: Notify::new(),
            state: Mutex::new(State {
                slots: VecDeque::new(),
                first: 0,
                next: 0,
                again: VecDeque::new(),
                batches: VecDeque::new(),
                first_batch: 0,
                unfinished: 0,
                bytes: 0,
                end: offset,
                blocked: None,
                listed: false,
                full_until: None,
                looked_after: false,
                dropped: false,
            }),
        }
    }

    /// The same queue, which keeps to its share of the topic and is watched.
    pub(super) fn watched(mut self, share: Option<Arc<Share>>, watch: QueueWatch) -> Self {
        self.share = share;
        self.watch = Some(watch);
        self
    }

    /// What is known of the queue beside its messages, if it is watched.
    pub(super) fn watch(&self) -> Option<&QueueWatch> {
        self.watch.as_ref()
    }

    /// The same queue, whose messages are taken by [`claim`](Self::claim).
    pub(super) fn with_order(mut self, in_order: Option<InOrder>) -> Self {
        self.in_order = in_order;
        self
    }

    pub(super) fn in_order(&self) -> Option<&InOrder> {
        self.in_order.as_ref()
    }

    /// What `read` makes of the numbers and records of the messages that this has not been asked for before.
    pub(super) fn fresh<T>(&self, read: impl Fn(u64, &Record) -> T) -> Vec<T> {
        let mut state = self.lock();
        let known = usize::try_from(state.next - state.first).unwrap_or(usize::MAX);
        let fresh: Vec<T> = (state.next..)
            .zip(state.slots.iter().skip(known))
            .filter_map(|(number, slot)| match &slot.cell {
                Cell::Waiting(record) => Some(read(number, record)),
                _ => None,
            })
            .collect();
        state.next = state.first + state.slots.len() as u64;
        fresh
    }

    /// Takes a certain message; `None` if it was let go with its queue.
    pub(super) fn claim(&self, number: u64) -> Option<Claim> {
        let mut state = self.lock();
        if state.dropped {
            return None;
        }
        let slot = state.slot(number)?;
        let Cell::Waiting(record) = std::mem::replace(&mut slot.cell, Cell::Running) else {
            return None;
        };
        Some(Claim {
            number,
            record,
            undelivered: None,
        })
    }

    /// Whether a message that was taken still counts; if not, it is let go.
    pub(super) fn keeps(&self, claim: &Claim) -> bool {
        let mut state = self.lock();
        if !state.dropped {
            return true;
        }
        let freed = state.let_go(claim.number);
        drop(state);
        self.budget.release(freed);
        false
    }

    /// The same for popped messages.
    pub(super) fn with_popping(mut self, popping: Popping) -> Self {
        self.popping = Some(popping);
        self
    }

    pub(super) fn popping(&self) -> Option<&Popping> {
        self.popping.as_ref()
    }

    /// The number that the next message gets.
    pub(super) fn next_number(&self) -> u64 {
        let state = self.lock();
        state.first + state.slots.len() as u64
    }

    /// Takes the messages of one pull response that is `bytes` long. Returns how many are new.
    ///
    /// A message at an offset that was seen before is left out: the broker went back, and handling it twice at a time
    /// would confuse the offset.
    pub(super) fn put(&self, records: impl IntoIterator<Item = Record>, bytes: usize) -> usize {
        let mut state = self.lock();
        if state.dropped {
            return 0;
        }
        let batch = state.first_batch + state.batches.len() as u64;
        let mut held = 0;
        for record in records {
            let offset = match self.popping {
                None => record.queue_offset,
                Some(_) => state.end,
            };
            if offset < state.end {
                continue;
            }
            state.end = offset.saturating_add(1);
            let cell = Cell::Waiting(record);
            state.slots.push_back(Slot { offset, batch, cell });
            held += 1;
        }
        if held > 0 {
            state.batches.push_back(Batch { bytes, held });
            state.unfinished += held;
            state.bytes += bytes;
            self.budget.charge(bytes);
        }
        held
    }

    /// Everything below `offset` was seen: what is not in the cache does not match the filter or does not exist.
    pub(super) fn seen_up_to(&self, offset: i64) {
        let mut state = self.lock();
        state.end = state.end.max(offset);
    }

    /// The message is done with: acknowledged, or in the broker's hands again.
    pub(super) fn finish(&self, number: u64) {
        let freed;
        {
            let mut state = self.lock();
            freed = state.finish(number);
            self.unblock(&mut state);
        }
        self.budget.release(freed);
    }

    /// Lets a pull go on that waits for room, if there is some now.
    fn unblock(&self, state: &mut State) {
        if state
            .blocked
            .is_some_and(|wanted| state.has_room(self.limits(), wanted))
        {
            state.blocked = None;
            self.room.notify_one();
        }
    }

    /// The limits may have changed.
    pub(super) fn look_for_room(&self) {
        self.unblock(&mut self.lock());
    }

    fn limits(&self) -> Limits {
        match &self.share {
            Some(share) => share.narrow(self.limits),
            None => self.limits,
        }
    }

    /// How many messages the next pull may ask for, of so many that are wanted.
    pub(super) fn pull_size(&self, wanted: usize) -> usize {
        wanted.min(self.limits().messages).max(1)
    }

    /// The message stays: it is handed out again, and the offset does not pass it.
    ///
    /// Returns false when the queue was dropped meanwhile; the message then comes to its next owner.
    pub(super) fn put_back(&self, claim: Claim) -> bool {
        let mut state = self.lock();
        if state.dropped {
            let freed = state.let_go(claim.number);
            drop(state);
            self.budget.release(freed);
            return false;
        }
        state.again.push_back(claim);
        true
    }

    /// The offset to commit: the lowest one that is not finished, or one past everything seen.
    pub(super) fn commit_offset(&self) -> i64 {
        let state = self.lock();
        state.slots.front().map_or(state.end, |slot| slot.offset)
    }

    /// Whether nothing is cached.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lock().unfinished == 0
    }

    /// Waits until the limits leave room for a pull.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn room_for(&self, wanted: Wanted) {
        loop {
            {
                let mut state = self.lock();
                if state.has_room(self.limits(), wanted) {
                    state.blocked = None;
                    return;
                }
                state.blocked = Some(wanted);
            }
            // Only the pull loop waits here, and a notification without a waiter is kept: none is missed.
            self.room.notified().await;
        }
    }

    /// Gives the queue up: nothing is handed out any more, what waits is let go. Returns how many messages were
    /// waiting. The commit offset stays below them.
    pub(super) fn drop_waiting(&self) -> usize {
        if let Some(watch) = &self.watch {
            watch.lost();
        }
        let (freed, released);
        {
            let mut state = self.lock();
            state.dropped = true;
            (freed, released) = state.release_waiting();
        }
        self.budget.release(freed);
        released
    }

    /// How many messages are cached, and the bytes of the responses they are part of.
    pub(super) fn cached(&self) -> (usize, usize) {
        let state = self.lock();
        (state.unfinished, state.bytes)
    }

    /// What is in the cache, for people.
    pub(super) fn contents(&self) -> Contents {
        let state = self.lock();
        let unfinished = || state.slots.iter().filter(|slot| !matches!(slot.cell, Cell::Done));
        let running = state
            .slots
            .iter()
            .filter(|slot| matches!(slot.cell, Cell::Running))
            .map(|slot| slot.offset);
        Contents {
            messages: state.unfinished,
            offsets: unfinished()
                .next()
                .zip(unfinished().next_back())
                .map(|(first, last)| (first.offset, last.offset)),
            running: running.collect(),
            again: state.again.len(),
            dropped: state.dropped,
        }
    }

    /// Puts the queue in line unless it is or has nothing to hand out. Returns whether it was put.
    pub(super) fn list(&self) -> bool {
        let mut state = self.lock();
        let list = !state.listed && state.waiting() > 0;
        state.listed |= list;
        list
    }

    /// Takes a message for the worker that found this queue first in line, and says whether the queue stays in line.
    pub(super) fn take_listed(&self) -> (Option<Claim>, bool) {
        let mut state = self.lock();
        let claim = state.take();
        state.listed = state.waiting() > 0;
        (claim, state.listed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for ProcessQueue {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.budget.release(bytes);
    }
}

impl State {
    fn waiting(&self) -> usize {
        if self.dropped {
            return 0;
        }
        let handed_out = usize::try_from(self.next - self.first).unwrap_or(usize::MAX);
        self.again.len() + self.slots.len().saturating_sub(handed_out)
    }

    fn take(&mut self) -> Option<Claim> {
        if self.dropped {
            return None;
        }
        if let Some(claim) = self.again.pop_front() {
            return Some(claim);
        }
        let number = self.next;
        let slot = self.slot(number)?;
        let Cell::Waiting(record) = std::mem::replace(&mut slot.cell, Cell::Running) else {
            return None;
        };
        self.next += 1;
        Some(Claim {
            number,
            record,
            undelivered: None,
        })
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Returns the bytes that are free now.
    fn finish(&mut self, number: u64) -> usize {
        match self.slot(number) {
            Some(slot) if matches!(slot.cell, Cell::Running) => slot.cell = Cell::Done,
            _ => return 0,
        }
        let freed = self.let_go(number);
        while let Some(Slot { cell: Cell::Done, .. }) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        freed
    }

    /// The message holds its response no longer. Returns the bytes that are free now.
    fn let_go(&mut self, number: u64) -> usize {
        let first_batch = self.first_batch;
        let Some(index) = self
            .slot(number)
            .and_then(|slot| usize::try_from(slot.batch.checked_sub(first_batch)?).ok())
        else {
            return 0;
        };
        let Some(batch) = self.batches.get_mut(index) else {
            return 0;
        };
        self.unfinished -= 1;
        batch.held -= 1;
        if batch.held > 0 {
            return 0;
        }
        let freed = std::mem::take(&mut batch.bytes);
        self.bytes -= freed;
        while let Some(Batch { held: 0, .. }) = self.batches.front() {
            self.batches.pop_front();
            self.first_batch += 1;
        }
        freed
    }

    /// Returns the bytes that are free now and how many messages were let go.
    fn release_waiting(&mut self) -> (usize, usize) {
        let mut numbers: Vec<u64> = self.again.drain(..).map(|claim| claim.number).collect();
        for (slot, number) in self.slots.iter_mut().zip(self.first..) {
            if matches!(slot.cell, Cell::Waiting(_)) {
                slot.cell = Cell::Released;
                numbers.push(number);
            }
        }
        let freed = numbers.iter().map(|&number| self.let_go(number)).sum();
        (freed, numbers.len())
    }

    fn has_room(&self, limits: Limits, wanted: Wanted) -> bool {
        let span = match (self.slots.front(), self.slots.back()) {
            (Some(first), Some(last)) => last.offset.saturating_sub(first.offset),
            _ => return true,
        };
        self.unfinished == 0
            || self.unfinished + wanted.messages <= limits.messages
                && self.bytes.saturating_add(wanted.bytes) <= limits.bytes
                && span <= limits.span
    }
}

#[cfg(test)]
mod tests;
