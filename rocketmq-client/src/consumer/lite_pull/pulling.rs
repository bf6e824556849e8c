//! One loop for each queue: finds the first offset, then pulls for as long as its turn lasts.
//!
//! Protocol source: `DefaultLitePullConsumerImpl.PullTaskImpl`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{info, warn};

use super::engine::{Lite, Mode, Start};
use super::held::{Cached, Turn};
use crate::consumer::filter::Filter;
use crate::consumer::first_offset::ask_first_offset;
use crate::consumer::flow::pull_within;
use crate::consumer::process_queue::SLOT_BYTES;
use crate::consumer::pull::HAND_OVER;
use crate::consumer::received::Received;
use crate::consumer::recover::{give_up_or_wait, recover};
use crate::consumer::remote::ActivePull;
use crate::protocol::Record;
use crate::protocol::bodies::{MASTER_ID, MessageQueue, SubscriptionData};
use crate::protocol::requests::{PullResult, PullStatus};
use crate::sync::lock;
use crate::transport::{backoff, random};

/// As often as Java gives a message back before it is a dead letter: said of messages that cannot be read.
const MAX_RECONSUME_TIMES: i32 = 16;

/// What a broker says when it answers with an offset that a tool has set. Java: `GetMessageStatus.OFFSET_RESET`.
const OFFSET_RESET: &str = "OFFSET_RESET";

/// The pull loop of one queue.
struct Loop {
    lite: Arc<Lite>,
    queue: MessageQueue,
    turn: Turn,
    filter: Filter,
    subscription: SubscriptionData,
    /// The next offset to pull.
    offset: i64,
    /// The broker to pull from, as the last response suggested.
    broker_id: i64,
    /// How large the last response was: what the next one is expected to be.
    expected: usize,
    /// Failures in a row.
    failures: u32,
    /// How often in a row a message could not be read.
    damaged: u32,
}

impl Lite {
    /// Starts to pull a queue.
    pub(super) fn spawn_pull(self: &Arc<Self>, queue: MessageQueue, start: Start, turn: Turn) {
        let lite = Arc::clone(self);
        self.intake.spawn("pull", move |_| async move {
            let stop = turn.stop.clone();
            // Every wait in there can be cut off: nothing is received before it is in the cache.
            stop.run_until_cancelled(pull(lite, queue, start, turn)).await;
        });
    }

    /// What is wanted of a topic, and how brokers are told; `None` if it is not wanted any more.
    fn wanted(&self, topic: &str) -> Option<(Filter, i64)> {
        match &self.mode {
            Mode::Subscribed => {
                let subscription = self.subscriptions.of(topic)?;
                Some((subscription.filter.clone(), subscription.version))
            }
            Mode::Assigned(filters) => {
                let filter = filters.get(topic).cloned().unwrap_or_default();
                Some((filter, self.started))
            }
        }
    }
}

async fn pull(lite: Arc<Lite>, queue: MessageQueue, start: Start, turn: Turn) {
    let offset = match start {
        // The position is known to whoever started the turn.
        Start::At(offset) => offset,
        Start::Group { shared, appeared } => {
            if shared {
                sleep(HAND_OVER).await;
            }
            let (offset, committed) = start_of(&lite, &queue, appeared).await;
            if !lock(&lite.held).open(&queue, &turn, offset, committed) {
                return;
            }
            offset
        }
    };
    // Now that the position is known: a change from here on starts the queue anew.
    let Some((filter, version)) = lite.wanted(&queue.topic) else {
        return;
    };
    info!(group = %lite.group, %queue, offset, "queue assigned");
    let mut pulls = Loop {
        subscription: filter.subscription(&queue.topic, version),
        filter,
        lite,
        queue,
        turn,
        offset,
        broker_id: MASTER_ID,
        expected: 0,
        failures: 0,
        damaged: 0,
    };
    while pulls.once().await {}
}

/// The first offset, and whether the group has it. Asks until there is an answer: no answer is no reason to start
/// anywhere.
async fn start_of(lite: &Lite, queue: &MessageQueue, appeared: bool) -> (i64, bool) {
    let mut failures = 0u32;
    loop {
        let from = lite.options.consume_from;
        match ask_first_offset(&lite.remote, queue, from, false, appeared).await {
            Ok(start) => return start,
            Err(error) => {
                failures = failures.saturating_add(1);
                warn!(group = %lite.group, %queue, %error, failures, "the first offset is not known, asking again");
                sleep(backoff(failures, random())).await;
            }
        }
    }
}

impl Loop {
    /// Waits until the queue may be pulled. False when the turn is over.
    async fn room(&self) -> bool {
        loop {
            let may_pull = lock(&self.lite.held).may_pull(&self.queue, &self.turn);
            match may_pull {
                Some(true) => return true,
                // A permit is kept for who comes too late to wait.
                Some(false) => self.turn.free.notified().await,
                None => return false,
            }
        }
    }

    /// Pulls once. False when the turn is over.
    async fn once(&mut self) -> bool {
        if !self.room().await {
            return false;
        }
        let reserved = self.lite.budget.reserve(self.expected).await;
        let options = &self.lite.options;
        let pull = ActivePull {
            queue: &self.queue,
            broker_id: self.broker_id,
            offset: self.offset,
            max_messages: options.pull_batch_size,
            max_bytes: None,
            subscription: &self.subscription,
            hold: Some(options.broker_suspend),
            timeout: options.pull_timeout,
            lite: true,
        };
        let (result, reserved) = {
            let pull = pin!(self.lite.remote.pull_actively(pull));
            pull_within(reserved, pull).await
        };
        let goes_on = match result {
            Ok(result) => {
                self.broker_id = result.header.suggest_which_broker_id;
                self.receive(result).await
            }
            Err(error) => {
                self.expected = 0;
                self.failures = self.failures.saturating_add(1);
                self.lite.counters.failed_pulls.fetch_add(1, Ordering::Relaxed);
                recover(&self.lite.remote, &self.queue, self.failures, &error).await;
                true
            }
        };
        drop(reserved);
        goes_on
    }

    async fn receive(&mut self, result: PullResult) -> bool {
        let next = result.header.next_begin_offset;
        match result.status {
            PullStatus::Found => self.found(result).await,
            PullStatus::OffsetIllegal => self.move_to(next, result.remark).await,
            // Nothing yet, or nothing that matches.
            _ => {
                self.failures = 0;
                self.expected = 0;
                self.offset = self.offset.max(next);
                self.skip_to(self.offset)
            }
        }
    }

    fn skip_to(&self, offset: i64) -> bool {
        lock(&self.lite.held).skip_to(&self.queue, &self.turn, offset)
    }

    async fn found(&mut self, result: PullResult) -> bool {
        // A response shares the connection's read buffer with its neighbours and would keep all of it for as long as
        // one message lives: several times what the limits count.
        let mut received = Received::read(Bytes::copy_from_slice(&result.messages));
        let bytes = result.messages.len() + received.records.len() * SLOT_BYTES;
        self.expected = bytes;
        let before = self.offset;
        // One past the last message of the response, before any is filtered out.
        let end = received
            .records
            .last()
            .map_or(before, |record| record.queue_offset.saturating_add(1));
        // What was seen before does not come twice from a broker that went back.
        received.records.retain(|record| record.queue_offset >= before);
        if !self.filter.is_all() {
            received.keep(&self.filter);
        }
        self.offset = before.max(end);
        if received.damaged.is_none() {
            self.offset = self.offset.max(result.header.next_begin_offset);
        }
        if !self.keep(received.records, bytes) {
            return false;
        }
        if let Some(damaged) = received.damaged {
            let given_up = give_up_or_wait(
                &self.lite.remote,
                &self.queue,
                self.offset,
                MAX_RECONSUME_TIMES,
                &mut self.damaged,
                damaged,
            );
            return match given_up.await {
                Some(behind) => {
                    self.offset = behind;
                    self.skip_to(behind)
                }
                None => true,
            };
        }
        self.damaged = 0;
        if self.offset > before {
            self.failures = 0;
            return true;
        }
        // A broker that answers with nothing new would be asked without end.
        self.failures = self.failures.saturating_add(1);
        warn!(
            group = %self.lite.group, queue = %self.queue, offset = self.offset,
            "the broker answered with messages before the offset it was asked for, asking again"
        );
        sleep(backoff(self.failures, random())).await;
        true
    }

    /// Puts messages into the cache. False when the turn is over.
    fn keep(&self, records: Vec<Record>, bytes: usize) -> bool {
        if records.is_empty() {
            return self.skip_to(self.offset);
        }
        let count = records.len() as u64;
        let batch = Cached {
            records,
            bytes,
            end: self.offset,
        };
        {
            let mut held = lock(&self.lite.held);
            if !held.put(&self.queue, &self.turn, batch) {
                return false;
            }
            // Under the lock: who gives the queue up releases what was charged.
            self.lite.budget.charge(bytes);
        }
        self.lite.counters.received.fetch_add(count, Ordering::Relaxed);
        self.lite.arrived.notify_one();
        true
    }

    /// The broker does not have the offset and says where to go on. False when the turn is over.
    async fn move_to(&mut self, offset: i64, remark: Option<String>) -> bool {
        let offset = offset.max(0);
        warn!(
            group = %self.lite.group, queue = %self.queue, from = self.offset, to = offset, ?remark,
            "the broker does not have the offset, going on where it says"
        );
        if offset == self.offset {
            // It refuses the very offset it asks for.
            self.failures = self.failures.saturating_add(1);
            sleep(backoff(self.failures, random())).await;
            return true;
        }
        self.expected = 0;
        if offset > self.offset && remark.as_deref() != Some(OFFSET_RESET) {
            // What is cached is still good, even if the broker has deleted it.
            self.offset = offset;
            return self.skip_to(offset);
        }
        self.lite.restart_at(&self.queue, offset, Some(&self.turn));
        false
    }
}

impl Lite {
    /// Starts a queue anew at an offset; only if it is this turn, if one is given. False if it is not assigned.
    pub(super) fn restart_at(
        self: &Arc<Self>,
        queue: &MessageQueue,
        offset: i64,
        turn: Option<&Turn>,
    ) -> bool {
        let repositioned = {
            let mut held = lock(&self.held);
            held.reposition(queue, offset, turn, self.intake.token())
        };
        let Some((turn, freed)) = repositioned else {
            return false;
        };
        self.budget.release(freed);
        self.spawn_pull(queue.clone(), Start::At(offset), turn);
        true
    }

    /// Starts the queues of a topic anew, because something else is wanted of it now.
    pub(super) fn restart_topic(self: &Arc<Self>, topic: &str) {
        let restarted = lock(&self.held).start_anew(topic, self.intake.token());
        for (queue, position, turn, freed) in restarted {
            self.budget.release(freed);
            self.spawn_pull(queue, Start::At(position), turn);
        }
    }
}
