//! Consuming by POP: brokers hand messages out one by one, to whichever member asks, and keep each from everybody else
//! until it is acknowledged or its invisible time is over.
//!
//! ```text
//! assignment (asked of a broker) -> one loop for each broker -> process queue -> the line -> workers -> handler
//!                                     |                                                           |
//!                            wait there, then pop                         acknowledge, or change the invisible time
//! ```
//!
//! No offset is committed here: the broker moves on as it hands messages out, and a message that is not acknowledged in
//! time comes again through a retry topic of the broker's. What is popped is never held by a pop at the broker: the
//! consumer waits by a request that pops nothing, so that a member which is paused, stopped or killed takes no message
//! with it.
//!
//! Which topics are popped, a broker says: an operator may switch a group between PULL and POP while it runs. Members
//! notice by their next rebalance. Those that still pull and those that pop already may then handle a message twice;
//! none is lost, because offsets are only committed below what is handled, and what was popped and not acknowledged is
//! in a retry topic that is pulled as long as the group pulls.
//!
//! Protocol source: `DefaultMQPushConsumerImpl#popMessage`, `RebalanceImpl#updateMessageQueueAssignment`,
//! `ConsumeMessagePopConcurrentlyService`.

mod acks;
mod assign;
mod builder;
pub(in crate::consumer) mod calls;
mod leases;
pub(in crate::consumer) mod popped;
mod queue;
mod settle;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acks::Acks;
pub(super) use leases::Popping;
use queue::Owned;

use super::first_offset::ConsumeFrom;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::Tasks;

/// The settings of a consumer that pops, and their defaults.
#[derive(Clone, Debug)]
pub(super) struct PopOptions {
    pub(super) invisible_time: Duration,
    pub(super) batch_size: usize,
    pub(super) threshold: usize,
    pub(super) renewal: bool,
}

/// Below this a message would be somebody else's before a handler has it.
pub(in crate::consumer) const MIN_INVISIBLE: Duration = Duration::from_secs(1);
/// The longest that brokers can keep a message back with default settings, less what it takes to get there.
pub(in crate::consumer) const MAX_INVISIBLE: Duration = Duration::from_secs(2 * 24 * 60 * 60);

impl PopOptions {
    fn new(invisible_time: Duration) -> Self {
        Self {
            invisible_time,
            batch_size: calls::MAX_BATCH,
            threshold: 96,
            renewal: true,
        }
    }

    /// What is wrong with them, each with the setter's name.
    pub(super) fn faults(&self, consume_from: ConsumeFrom, faults: &mut Vec<String>) {
        if let ConsumeFrom::Timestamp(_) = consume_from {
            faults.push("consume_from is a time, from which brokers cannot hand messages out by pop; use First or Last".into());
        }
        if !(MIN_INVISIBLE..=MAX_INVISIBLE).contains(&self.invisible_time) {
            faults.push(format!(
                "the invisible time of pop is {:?}, it has to be from {MIN_INVISIBLE:?} to {MAX_INVISIBLE:?}",
                self.invisible_time
            ));
        }
        for (name, value, max) in [
            ("pop_batch_size", self.batch_size, calls::MAX_BATCH),
            ("pop_threshold_for_queue", self.threshold, 65_535),
        ] {
            if !(1..=max).contains(&value) {
                faults.push(format!("{name} is {value}, it has to be from 1 to {max}"));
            }
        }
    }
}

/// What a consumer that pops has beside the others.
pub(super) struct Pop {
    pub(super) options: PopOptions,
    queues: Mutex<BTreeMap<MessageQueue, Owned>>,
    acks: Acks,
    counters: PopCounters,
    /// Acknowledgements and renewals.
    tasks: Tasks,
}

#[derive(Debug, Default)]
pub(super) struct PopCounters {
    popped: AtomicU64,
    skipped: AtomicU64,
    renewed: AtomicU64,
    released: AtomicU64,
    expired: AtomicU64,
    unconfirmed: AtomicU64,
}

/// What a consumer has done by POP since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PopStats {
    /// Messages popped.
    pub popped: u64,
    /// Messages that were not handled because their invisible time was over when their turn came; they come again.
    /// Should be 0: a smaller [`pop_batch_size`](super::PushConsumerBuilder::pop_batch_size) or a longer invisible time
    /// helps.
    pub skipped: u64,
    /// How often the invisible time of a message was renewed because its handler was still running.
    pub renewed: u64,
    /// Messages that were given back unhandled because the consumer stopped or lost a queue.
    pub released: u64,
    /// Messages that were acknowledged when their invisible time was over; they may come again.
    pub expired: u64,
    /// Acknowledgements that no broker confirmed in time; these messages come again.
    pub unconfirmed: u64,
    /// Messages that are popped and not done with.
    pub waiting: usize,
}

impl Pop {
    pub(super) fn new(options: PopOptions, tasks: &Tasks) -> Self {
        Self {
            options,
            queues: Mutex::default(),
            acks: Acks::default(),
            counters: PopCounters::default(),
            tasks: tasks.child(),
        }
    }

    /// What is popped, in order, and how many of its messages are not done with. The number -1 stands for all queues of a
    /// broker.
    pub(super) fn waiting(&self) -> Vec<(MessageQueue, usize)> {
        let queues = lock(&self.queues);
        queues
            .iter()
            .map(|(queue, owned)| (queue.clone(), owned.waiting()))
            .collect()
    }

    pub(super) fn stats(&self) -> PopStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PopStats {
            popped: count(&self.counters.popped),
            skipped: count(&self.counters.skipped),
            renewed: count(&self.counters.renewed),
            released: count(&self.counters.released),
            expired: count(&self.counters.expired),
            unconfirmed: count(&self.counters.unconfirmed),
            waiting: self.waiting().iter().map(|(_, waiting)| waiting).sum(),
        }
    }

    /// Sends what is left to acknowledge, after all workers have ended.
    pub(super) async fn end(&self, limit: Duration) {
        let _ = self.tasks.stop(limit).await;
    }

    pub(super) fn end_hard(&self) {
        self.tasks.cancel();
    }
}
