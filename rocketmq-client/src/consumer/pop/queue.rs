//! One loop for each queue, or broker, that is popped: waits until there is something, then pops it.
//!
//! Protocol source: `DefaultMQPushConsumerImpl#popMessage`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::acks::Ack;
use super::calls::{Begin, Receipt, Source, is_unknown_request};
use super::leases::{Lease, Popping};
use super::popped::{self, Popped};
use super::{Pop, PopOptions};
use crate::consumer::budget::Reservation;
use crate::consumer::engine::{Counters, Engine};
use crate::consumer::filter::Filter;
use crate::consumer::first_offset::ConsumeFrom;
use crate::consumer::process_queue::{Limits, ProcessQueue, SLOT_BYTES, Wanted};
use crate::error::{Error, ErrorKind};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::{PopResult, PopStatus};
use crate::protocol::{Record, ResponseCode, property};
use crate::sync::lock;
use crate::tasks::join_all;
use crate::transport::{backoff, random};

/// How long a broker may hold the question for messages. Brokers with default settings do not wake it for messages that
/// come again, so this is how late those may be.
const HOLD: Duration = Duration::from_secs(5);

/// The wait after a broker said that it holds too many questions.
const POLLING_FULL: Duration = Duration::from_secs(1);

/// The longest wait after a message arrived that the filter does not want.
const UNMATCHED: Duration = Duration::from_millis(200);

/// How many messages are given back at a time.
const RELEASES: usize = 32;

/// What a member holds of a popped queue.
#[derive(Debug)]
pub(super) struct Owned {
    stop: CancellationToken,
    process: Arc<ProcessQueue>,
}

impl Owned {
    pub(super) fn waiting(&self) -> usize {
        self.process.cached().0
    }
}

/// The loop of one queue.
struct Loop {
    engine: Arc<Engine>,
    pop: PopOptions,
    queue: MessageQueue,
    wire_topic: String,
    process: Arc<ProcessQueue>,
    ordered: bool,
    /// How large the last answer was: what the next one is expected to be.
    expected: usize,
    /// Whether the last pop found nothing.
    idle: bool,
    /// How often in a row there was said to be something and was nothing.
    unmatched: u32,
    /// Failures in a row.
    failures: u32,
    /// How long to wait before the next request.
    pause: Option<Duration>,
    /// An ordered pop whose answer was lost.
    attempt: Option<String>,
}

impl Engine {
    /// Makes `target` what is popped of a topic.
    pub(super) fn assign_pop(self: &Arc<Self>, pop: &Pop, topic: &str, target: &[MessageQueue]) {
        let mut queues = lock(&pop.queues);
        queues.retain(|queue, owned| {
            let keep = *queue.topic != *topic || target.contains(queue);
            if !keep {
                info!(group = %self.group, %queue, "not popped any more");
                owned.stop.cancel();
            }
            keep
        });
        for queue in target {
            if queues.contains_key(queue) {
                continue;
            }
            info!(group = %self.group, %queue, "popped from now on");
            let owned = self.spawn_pop(pop, queue.clone());
            queues.insert(queue.clone(), owned);
        }
    }

    /// Pops nothing any more of topics that `is_wanted` does not know.
    pub(in crate::consumer) fn retain_popped(&self, is_wanted: impl Fn(&str) -> bool) {
        let Some(pop) = &self.pop else { return };
        lock(&pop.queues).retain(|queue, owned| {
            let keep = is_wanted(&queue.topic);
            if !keep {
                owned.stop.cancel();
            }
            keep
        });
    }

    fn spawn_pop(self: &Arc<Self>, pop: &Pop, queue: MessageQueue) -> Owned {
        self.run_acks(&queue.broker_name);
        let stop = self.intake.token().child_token();
        let ordered = false;
        let process = Arc::new(self.popping_queue(queue.clone(), ordered));
        if pop.options.renewal {
            let (engine, process) = (Arc::clone(self), Arc::downgrade(&process));
            pop.tasks.spawn("renew", move |stop| async move {
                engine.renew_regularly(process, stop).await;
            });
        }
        let owned = Owned {
            stop: stop.clone(),
            process: Arc::clone(&process),
        };
        let pops = Loop {
            wire_topic: self.remote.wire_topic(&queue),
            engine: Arc::clone(self),
            pop: pop.options.clone(),
            queue,
            process,
            ordered,
            expected: 0,
            idle: false,
            unmatched: 0,
            failures: 0,
            pause: None,
            attempt: None,
        };
        self.intake.spawn("pop", move |_| pops.run(stop));
        owned
    }

    /// A process queue for popped messages.
    fn popping_queue(&self, queue: MessageQueue, ordered: bool) -> ProcessQueue {
        let pop = self.pop.as_ref().map(|pop| &pop.options);
        let limits = Limits {
            messages: pop.map_or(0, |pop| pop.threshold.saturating_add(pop.batch_size)),
            // Messages of several queues have no span.
            span: i64::MAX,
            ..self.options.limits
        };
        ProcessQueue::new(queue, 0, limits, Arc::clone(&self.budget)).with_popping(Popping::new(ordered))
    }

    /// Gives messages back that nobody has handled: they come again as soon as the broker gets to it.
    pub(super) async fn release(&self, receipts: Vec<Receipt>) {
        let Some(pop) = &self.pop else { return };
        if self.is_abandoned() {
            return;
        }
        Counters::add(&pop.counters.released, receipts.len());
        for some in receipts.chunks(RELEASES) {
            let released = some
                .iter()
                .map(|receipt| self.remote.change_invisible(receipt, Duration::ZERO));
            for error in join_all(released).await.into_iter().filter_map(Result::err) {
                debug!(group = %self.group, %error, "a message could not be given back, it comes again when its time is over");
            }
        }
    }
}

impl Loop {
    async fn run(mut self, stop: CancellationToken) {
        while let Some(reserved) = stop.run_until_cancelled(self.ready()).await {
            // Not cut off: what the broker pops for an answer that nobody reads would be invisible for nothing.
            self.once().await;
            drop(reserved);
        }
        self.process.drop_waiting();
        let receipts = self.process.popping().map(Popping::drain).unwrap_or_default();
        self.engine.release(receipts).await;
    }

    /// Waits until there is something to pop and room for it.
    ///
    /// # Cancellation
    /// Safe: nothing is popped.
    async fn ready(&mut self) -> Reservation {
        loop {
            if let Some(pause) = self.pause {
                sleep(pause).await;
                self.pause = None;
            }
            self.engine.unpaused().await;
            if self.idle && !self.wait().await {
                continue;
            }
            // It may have been paused meanwhile.
            self.engine.unpaused().await;
            let wanted = Wanted {
                messages: self.pop.batch_size,
                bytes: self.expected,
            };
            self.process.room_for(wanted).await;
            return self.engine.budget.reserve(self.expected).await;
        }
    }

    /// Waits at the broker for messages. False if it could not.
    async fn wait(&mut self) -> bool {
        let source = self.source();
        let asked = self
            .engine
            .remote
            .wait_for_messages(&source, HOLD, self.attempt.clone());
        let answer = tokio::select! {
            answer = asked => answer,
            // A queue that was blocked by this member's own messages may be free, which no broker tells.
            () = self.settled(), if self.ordered => return true,
        };
        match answer {
            Ok(answer) => {
                self.failures = 0;
                if answer.polling_full == Some(true) && !answer.has_msg {
                    self.pause = Some(POLLING_FULL);
                }
                // Without a message as well: a wake-up may be missed, a pop finds everything.
                true
            }
            Err(error) => {
                self.recover(error).await;
                false
            }
        }
    }

    async fn settled(&self) {
        if let Some(popping) = self.process.popping() {
            popping.settled().await;
        }
    }

    /// Pops once.
    async fn once(&mut self) {
        let source = self.source();
        if self.ordered && self.attempt.is_none() {
            self.attempt = Some(self.engine.remote.cluster().unique_ids().next());
        }
        // Its time starts at the broker, after this.
        let deadline = Instant::now() + self.pop.invisible_time;
        let answer = self
            .engine
            .remote
            .pop(
                &source,
                self.pop.batch_size,
                self.pop.invisible_time,
                self.attempt.clone(),
            )
            .await;
        match answer {
            Ok(result) => {
                self.failures = 0;
                self.attempt = None;
                self.found(result, &source, deadline);
            }
            Err(error) => {
                self.expected = 0;
                self.recover(error).await;
            }
        }
    }

    fn found(&mut self, result: PopResult, source: &Source, deadline: Instant) {
        if result.status != PopStatus::Found {
            self.expected = 0;
            self.nothing();
            return;
        }
        let bytes = result.messages.len();
        let popped = match popped::read(result, &self.queue, &self.wire_topic, self.ordered) {
            Ok(popped) => popped,
            Err(error) => {
                error!(group = %self.engine.group, queue = %self.queue, %error, "the answer to a pop cannot be read, its messages come again");
                self.failures = self.failures.saturating_add(1);
                self.pause = Some(backoff(self.failures, random()));
                return;
            }
        };
        let Popped { messages, damaged } = popped;
        if let Some(damaged) = damaged {
            error!(
                group = %self.engine.group, queue = %self.queue, error = %damaged.error, place = ?damaged.place,
                "a popped message cannot be read, it comes again"
            );
        }
        self.expected = bytes + messages.len() * SLOT_BYTES;
        self.idle = false;
        self.unmatched = 0;
        if let Some(pop) = &self.engine.pop {
            Counters::add(&pop.counters.popped, messages.len());
        }
        let (mut records, mut leases) = (Vec::new(), Vec::new());
        for (record, handle) in messages {
            let lease = Lease {
                receipt: Receipt {
                    topic: Arc::clone(&self.queue.topic),
                    handle,
                },
                deadline,
            };
            // A broker compares only hashes of tags.
            if source.filter.matches(record.properties.get(property::TAGS)) {
                records.push(record);
                leases.push(lease);
            } else {
                self.pass_over(record, lease);
            }
        }
        Counters::add(&self.engine.counters.received, records.len());
        self.put(records, leases, bytes);
    }

    fn put(&self, records: Vec<Record>, leases: Vec<Lease>, bytes: usize) {
        let Some(popping) = self.process.popping() else {
            return;
        };
        // Before the messages: a worker may take one at once.
        popping.add((self.process.next_number()..).zip(leases));
        if self.process.put(records, bytes) > 0 {
            self.engine.ready.offer(&self.process);
        }
    }

    /// A message that is not wanted is done with.
    fn pass_over(&self, record: Record, lease: Lease) {
        let Some(pop) = &self.engine.pop else { return };
        debug!(group = %self.engine.group, queue = %self.queue, offset = record.queue_offset, "not wanted");
        let process = self.engine.popping_queue(self.queue.clone(), false);
        pop.acks.push(Ack {
            lease,
            process: Arc::new(process),
            number: 0,
        });
    }

    fn nothing(&mut self) {
        if self.idle {
            // It was said to be there: somebody else has it, or the filter does not want it.
            self.unmatched = self.unmatched.saturating_add(1);
            let millis = 1u64
                .checked_shl(self.unmatched.saturating_sub(1))
                .unwrap_or(u64::MAX);
            self.pause = Some(Duration::from_millis(millis).min(UNMATCHED));
        }
        self.idle = true;
    }

    fn source(&self) -> Source {
        let subscription = self.engine.subscriptions.of(&self.queue.topic);
        Source {
            queue: self.queue.clone(),
            filter: subscription.map_or_else(Filter::all, |subscription| subscription.filter.clone()),
            begin: match self.engine.options.consume_from {
                ConsumeFrom::First => Begin::Oldest,
                _ => Begin::Newest,
            },
            ordered: self.ordered,
        }
    }

    /// Sees how long to wait after an error, and does something about it.
    async fn recover(&mut self, error: Error) {
        self.failures = self.failures.saturating_add(1);
        let (group, queue, failures) = (&self.engine.group, &self.queue, self.failures);
        let mut wait = backoff(failures, random());
        match error.response().map(|(code, _)| code) {
            Some(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST | ResponseCode::SUBSCRIPTION_NOT_EXIST) => {
                info!(%group, %queue, %error, "the broker does not know the group, telling it again");
                self.engine.remote.heartbeat().await;
            }
            Some(_) if is_unknown_request(&error) => {
                let error = self
                    .engine
                    .remote
                    .cannot_pop(&queue.broker_name, &error.to_string());
                error!(%group, %queue, %error, "nothing can be popped");
                wait *= 5;
            }
            _ => {
                if failures.is_power_of_two() {
                    warn!(%group, %queue, failures, %error, "a pop failed, trying again");
                }
                if error.kind() == ErrorKind::Connect && failures.is_power_of_two() {
                    self.engine.remote.refresh(&queue.topic).await;
                }
                if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Auth) {
                    wait *= 5;
                }
            }
        }
        self.pause = Some(wait);
    }
}
