//! The lanes of one queue: messages of one key, one after the other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Notify, watch};

use super::lock::{QueueLock, Standing};
use crate::consumer::process_queue::{Claim, ProcessQueue};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::property;
use crate::sync::lock;

/// A queue whose order is kept, for as long as this member has anything to do with it: longer than its cache, which is
/// replaced when the offset is reset or the lock was lost. A lane that is being worked on thereby keeps what comes
/// after it waiting, from whichever cache it is.
#[derive(Debug)]
pub(in crate::consumer) struct OrderedQueue {
    queue: MessageQueue,
    /// Absent if the queue is nobody else's anyway.
    lock: Option<QueueLock>,
    /// Whether an earlier ownership is still being ended: a new one begins after it.
    leaving: watch::Sender<bool>,
    lanes: Mutex<Lanes>,
    /// A worker has let a lane go.
    let_go: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<u64, Lane>,
    /// How many of them are in the hands of workers.
    busy: usize,
}

#[derive(Debug, Default)]
struct Lane {
    stage: Stage,
    /// Messages that are tried again before any other, in their order.
    again: VecDeque<Again>,
    /// The caches the messages are in, and their numbers there. Weak, because a cache holds on to its queue.
    messages: VecDeque<(Weak<ProcessQueue>, u64)>,
}

#[derive(Debug)]
struct Again {
    process: Weak<ProcessQueue>,
    claim: Claim,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// Waits in line for a worker.
    Listed,
    /// Is in the hands of a worker.
    Busy,
    /// Pauses after a failure.
    Suspended,
    /// Waits for the lock of the queue.
    Parked,
}

/// What a cache holds on to of the order.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct InOrder {
    pub(in crate::consumer) queue: Arc<OrderedQueue>,
    /// The epoch of the lock that it was filled in.
    pub(in crate::consumer) epoch: u64,
}

impl OrderedQueue {
    pub(super) fn new(queue: MessageQueue, locking: bool) -> Self {
        Self {
            queue,
            lock: locking.then(QueueLock::new),
            leaving: watch::Sender::new(false),
            lanes: Mutex::default(),
            let_go: Notify::new(),
        }
    }

    pub(super) fn queue(&self) -> &MessageQueue {
        &self.queue
    }

    pub(super) fn lock(&self) -> Option<&QueueLock> {
        self.lock.as_ref()
    }

    /// Whether the queue is being given up.
    pub(super) fn set_leaving(&self, leaving: bool) {
        self.leaving.send_replace(leaving);
    }

    /// Waits until the queue is this member's; returns the epoch.
    pub(super) async fn held(&self) -> u64 {
        // The sender lives as long as `self`.
        let _ = self.leaving.subscribe().wait_for(|leaving| !leaving).await;
        match &self.lock {
            Some(lock) => lock.held().await,
            None => 0,
        }
    }

    /// Waits until the queue is this member's no longer.
    pub(super) async fn lost(&self, epoch: u64) {
        match &self.lock {
            Some(lock) => lock.lost(epoch).await,
            None => std::future::pending().await,
        }
    }

    fn standing(&self) -> Standing {
        self.lock.as_ref().map_or(Standing::Held(0), QueueLock::standing)
    }

    /// Puts messages, with the lanes they belong to, to the ends of these. Returns the lanes that are to be listed.
    pub(super) fn add(&self, process: &Arc<ProcessQueue>, messages: Vec<(u64, u64)>) -> Vec<u64> {
        let mut ready = Vec::new();
        let mut lanes = lock(&self.lanes);
        for (number, key) in messages {
            let lane = lanes.lanes.entry(key).or_default();
            lane.messages.push_back((Arc::downgrade(process), number));
            if lane.stage == Stage::Idle {
                lane.stage = Stage::Listed;
                ready.push(key);
            }
        }
        ready
    }

    /// A worker takes a lane that it found in line.
    pub(super) fn begin(&self, key: u64) {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.lanes.get_mut(&key) {
            lane.stage = Stage::Busy;
            lanes.busy += 1;
        }
    }

    /// The next messages, up to so many, for the worker that has the lane. None takes the lane from it: it is empty, or
    /// waits for the lock.
    pub(super) fn next(&self, key: u64, at_a_time: usize) -> Option<(Arc<ProcessQueue>, Vec<Claim>)> {
        let mut lanes = lock(&self.lanes);
        let next = lanes.next(key, || self.standing()).map(|(process, claim)| {
            let mut claims = vec![claim];
            if let Some(lane) = lanes.lanes.get_mut(&key) {
                lane.fill(&process, &mut claims, at_a_time);
            }
            (process, claims)
        });
        if next.is_none() {
            drop(lanes);
            self.let_go.notify_waiters();
        }
        next
    }

    /// Messages failed: they wait at the head of their lane, out of the hands of the worker.
    pub(super) fn suspend(&self, key: u64, process: &Arc<ProcessQueue>, claims: Vec<Claim>) {
        self.leave(key, |lane| {
            lane.keep(process, claims);
            Stage::Suspended
        });
    }

    /// Messages could not be finished because the lock went: should the lane go on, they are the next.
    pub(super) fn keep(&self, key: u64, process: &Arc<ProcessQueue>, claims: Vec<Claim>) {
        if let Some(lane) = lock(&self.lanes).lanes.get_mut(&key) {
            lane.keep(process, claims);
        }
    }

    /// The worker lets the lane go. Returns whether it is to be listed again.
    pub(super) fn end(&self, key: u64) -> bool {
        let mut listed = false;
        self.leave(key, |lane| {
            listed = !lane.again.is_empty() || !lane.messages.is_empty();
            if listed { Stage::Listed } else { Stage::Idle }
        });
        listed
    }

    fn leave(&self, key: u64, stage: impl FnOnce(&mut Lane) -> Stage) {
        {
            let mut lanes = lock(&self.lanes);
            let Some(lane) = lanes.lanes.get_mut(&key) else {
                return;
            };
            lane.stage = stage(lane);
            if lane.stage == Stage::Idle {
                lanes.lanes.remove(&key);
            }
            lanes.busy -= 1;
        }
        self.let_go.notify_waiters();
    }

    /// The pause of a lane is over. Returns whether it is to be listed.
    pub(super) fn resume(&self, key: u64) -> bool {
        let mut lanes = lock(&self.lanes);
        match lanes.lanes.get_mut(&key) {
            Some(lane) if lane.stage == Stage::Suspended => {
                lane.stage = Stage::Listed;
                true
            }
            _ => false,
        }
    }

    /// The lock is held: what waited for it is to be listed.
    pub(super) fn unpark(&self) -> Vec<u64> {
        let mut lanes = lock(&self.lanes);
        let parked = lanes
            .lanes
            .iter_mut()
            .filter(|(_, lane)| lane.stage == Stage::Parked);
        parked
            .map(|(&key, lane)| {
                lane.stage = Stage::Listed;
                key
            })
            .collect()
    }

    pub(super) fn is_quiet(&self) -> bool {
        lock(&self.lanes).busy == 0
    }

    /// Waits until no worker has any of the lanes.
    pub(super) async fn quiet(&self) {
        loop {
            let mut let_go = std::pin::pin!(self.let_go.notified());
            let_go.as_mut().enable();
            if self.is_quiet() {
                return;
            }
            let_go.await;
        }
    }
}

impl Lanes {
    fn next(&mut self, key: u64, standing: impl Fn() -> Standing) -> Option<(Arc<ProcessQueue>, Claim)> {
        let lane = self.lanes.get_mut(&key)?;
        loop {
            let Standing::Held(epoch) = standing() else {
                lane.stage = Stage::Parked;
                self.busy -= 1;
                // Who grants the lock looks for parked lanes after that, and waits for these lanes: whichever comes
                // first, one of both sees the other.
                if matches!(standing(), Standing::Held(_)) {
                    lane.stage = Stage::Busy;
                    self.busy += 1;
                    continue;
                }
                return None;
            };
            let is_of = |process: &Arc<ProcessQueue>| {
                process.in_order().is_some_and(|in_order| in_order.epoch == epoch)
            };
            if let Some(Again { process, claim }) = lane.again.pop_front() {
                match process.upgrade() {
                    Some(process) if is_of(&process) && process.keeps(&claim) => {
                        return Some((process, claim));
                    }
                    _ => continue,
                }
            }
            let Some((process, number)) = lane.messages.pop_front() else {
                self.lanes.remove(&key);
                self.busy -= 1;
                return None;
            };
            // Cleared with its cache, or cached before the lock was lost.
            let process = process.upgrade().filter(is_of);
            if let Some((process, claim)) =
                process.and_then(|process| process.claim(number).map(|claim| (process, claim)))
            {
                return Some((process, claim));
            }
        }
    }
}

impl Lane {
    /// Puts messages before all others.
    fn keep(&mut self, process: &Arc<ProcessQueue>, claims: Vec<Claim>) {
        for claim in claims.into_iter().rev() {
            self.again.push_front(Again {
                process: Arc::downgrade(process),
                claim,
            });
        }
    }

    /// Takes what follows the first of `claims` in the same cache, of the same topic, up to so many in all.
    fn fill(&mut self, process: &Arc<ProcessQueue>, claims: &mut Vec<Claim>, at_a_time: usize) {
        let Some(first) = claims.first().filter(|first| first.undelivered.is_none()) else {
            return;
        };
        let topic = origin(first).map(str::to_owned);
        let is_here = |other: &Weak<ProcessQueue>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(process));
        while claims.len() < at_a_time {
            let claim = match (self.again.pop_front(), self.messages.front()) {
                (Some(again), _) => {
                    if !is_here(&again.process) || again.claim.undelivered.is_some() {
                        self.again.push_front(again);
                        return;
                    }
                    again.claim
                }
                (None, Some((other, number))) if is_here(other) => {
                    let claim = process.claim(*number);
                    self.messages.pop_front();
                    // It was let go with its queue.
                    let Some(claim) = claim else { return };
                    claim
                }
                _ => return,
            };
            if origin(&claim) != topic.as_deref() {
                return self.keep(process, vec![claim]);
            }
            claims.push(claim);
        }
    }
}

/// The topic that a retried message was first sent to.
fn origin(claim: &Claim) -> Option<&str> {
    claim.record.properties.get(property::RETRY_TOPIC)
}
