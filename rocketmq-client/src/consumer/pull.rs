//! One loop for each owned queue: finds the first offset, then pulls for as long as the queue is owned.
//!
//! Protocol source: `DefaultMQPushConsumerImpl#pullMessage`, `RebalancePushImpl#computePullFromWhere`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};

use super::engine::{Counters, Engine};
use super::first_offset::{FirstOffset, NewQueues, first_offset};
use super::flow::pull_within;
use super::orderly::{InOrder, consume_in_order};
use super::process_queue::{ProcessQueue, SLOT_BYTES, Wanted};
use super::received::{Damaged, Received};
use super::remote::{Pull, Replica};
use super::source::Source;
use super::spans::Pulling;
use super::stats::QueueWatch;
use super::subscriptions::Subscription;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::ResponseCode;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::names::RETRY_PREFIX;
use crate::protocol::requests::{PullResult, PullStatus};
use crate::sync::lock;
use crate::transport::{backoff, random};

/// How long a queue that may just have left another member waits before its offset is asked for: the other one commits
/// when it lets go. Java waits as long.
pub(super) const HAND_OVER: Duration = Duration::from_millis(500);

/// The wait after the broker said "flow control" (215). Java: `PULL_TIME_DELAY_MILLS_WHEN_BROKER_FLOW_CONTROL`.
const FLOW_CONTROL: Duration = Duration::from_millis(20);

/// What a broker calls an answer that an operator's reset of the group is the reason for. Java:
/// `GetMessageStatus.OFFSET_RESET`.
const OFFSET_RESET: &str = "OFFSET_RESET";

/// How often a message that cannot be read is pulled again before it is given up: the damage may be on the way.
const DAMAGED_TRIES: u32 = 3;

/// Where a queue starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// At the group's offset, or where a group without one starts.
    Group {
        /// Other members may be about to let the queue go.
        shared: bool,
        /// The queue came up while the group was running.
        appeared: bool,
    },
    /// Here: an operator said so.
    At(i64),
    /// At the group's offset again, or here if it has none yet: the queue was not this member's for a while.
    Again(i64),
}

/// The pull loop of one queue.
pub(super) struct Loop {
    engine: Arc<Engine>,
    queue: MessageQueue,
    stop: CancellationToken,
    process: Arc<ProcessQueue>,
    /// What the pulls ask for.
    subscription: Arc<Subscription>,
    /// How often the subscriptions had changed when this one was read.
    changes: u64,
    /// The next offset to pull.
    offset: i64,
    /// Where to pull from.
    source: Source,
    /// The store time of the newest message that was received: milliseconds since 1970.
    newest: Option<i64>,
    /// How large the last response was: what the next one is expected to be.
    expected: usize,
    /// Failures in a row.
    failures: u32,
    /// How often in a row a message could not be read.
    damaged: u32,
}

impl Engine {
    /// Starts to consume a queue.
    pub(super) fn spawn_pull(self: &Arc<Self>, queue: MessageQueue, start: Start, stop: CancellationToken) {
        let engine = Arc::clone(self);
        // Here and not in the task: whoever gives the queue up finds it.
        let ordered = self.keep_order_of(&queue);
        self.intake.spawn("pull", move |_| async move {
            let token = stop.clone();
            let consume = async move {
                // Boxed, so that a queue holds the memory of what it needs and not of the larger one.
                match ordered {
                    None => {
                        let opened = Box::pin(open(engine, queue, start, token, None)).await;
                        if let Some(mut pulls) = opened {
                            Box::pin(pulls.run()).await;
                        }
                    }
                    Some(ordered) => {
                        Box::pin(consume_in_order(engine, queue, ordered, start, token)).await;
                    }
                }
            };
            // Every wait in there can be cut off: nothing is received before it is in the process queue.
            stop.run_until_cancelled(consume).await;
        });
    }

    /// Waits until pulling is not paused.
    pub(super) async fn unpaused(&self) {
        // The sender lives as long as the engine.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
    }

    fn process_queue(
        &self,
        queue: &MessageQueue,
        offset: i64,
        in_order: Option<&InOrder>,
    ) -> Arc<ProcessQueue> {
        let meter = self.meters.of(&queue.topic);
        let watch = QueueWatch::new(&self.group, queue, meter);
        let process = ProcessQueue::new(
            queue.clone(),
            offset,
            self.options.limits,
            Arc::clone(&self.budget),
        );
        let process = process.watched(self.flow.share(&queue.topic), watch);
        Arc::new(process.with_order(in_order.cloned()))
    }
}

/// Finds out where a queue starts; `None` if it was lost meanwhile.
pub(super) async fn open(
    engine: Arc<Engine>,
    queue: MessageQueue,
    start: Start,
    stop: CancellationToken,
    in_order: Option<InOrder>,
) -> Option<Loop> {
    if let Start::Group { shared: true, .. } = start {
        sleep(HAND_OVER).await;
    }
    let (offset, committed) = match start {
        Start::At(offset) => (offset, false),
        Start::Group { .. } | Start::Again(_) => start_of(&engine, &queue, start).await,
    };
    let process = engine.process_queue(&queue, offset, in_order.as_ref());
    let opened = {
        let mut assignment = lock(&engine.assignment);
        match start {
            Start::At(_) => assignment.reopen(&process, offset, &stop),
            Start::Group { .. } | Start::Again(_) => assignment.open(&process, offset, committed, &stop),
        }
    };
    if !opened {
        return None;
    }
    if !committed && offset > 0 && engine.local.is_none() {
        // Whoever comes next goes on here, and sees by it that the group has begun with the topic.
        engine.commit(&queue, offset).await;
    }
    info!(group = %engine.group, %queue, offset, "queue assigned");
    // In this order: a change in between is then seen as one.
    let changes = engine.subscriptions.changes();
    let subscription = engine.subscriptions.of(&queue.topic)?;
    Some(Loop {
        engine,
        queue,
        stop,
        process,
        subscription,
        changes,
        offset,
        source: Source::default(),
        newest: None,
        expected: 0,
        failures: 0,
        damaged: 0,
    })
}

/// The first offset, and whether the broker has it as the group's. Asks until there is an answer: no answer is no
/// reason to start anywhere.
async fn start_of(engine: &Engine, queue: &MessageQueue, start: Start) -> (i64, bool) {
    let mut failures = 0u32;
    loop {
        match ask_start_of(engine, queue, start).await {
            Ok(start) => return start,
            Err(error) => {
                failures = failures.saturating_add(1);
                warn!(group = %engine.group, %queue, %error, failures, "the first offset is not known, asking again");
                sleep(backoff(failures, random())).await;
            }
        }
    }
}

async fn ask_start_of(engine: &Engine, queue: &MessageQueue, start: Start) -> Result<(i64, bool)> {
    let known = match &engine.local {
        Some(local) => local.offset(&engine.remote.wire_queue(queue)),
        None => engine.remote.committed_offset(queue).await?,
    };
    if let Some(offset) = known {
        return Ok((offset.max(0), true));
    }
    let appeared = match start {
        Start::Group { appeared, .. } => appeared,
        Start::Again(offset) | Start::At(offset) => return Ok((offset, false)),
    };
    let late = match &engine.local {
        Some(local) => local.knows(&engine.remote.wire_queue(queue).topic),
        None => engine.standing.is_established(&queue.topic),
    };
    let appeared = (appeared || late) && engine.options.new_queues == NewQueues::FromStart;
    let is_retry_topic = queue.topic.starts_with(RETRY_PREFIX);
    let offset = match first_offset(engine.options.consume_from, is_retry_topic, appeared) {
        FirstOffset::At(offset) => offset,
        FirstOffset::Newest => engine.remote.max_offset(queue).await?,
        FirstOffset::StoredAt(timestamp) => engine.remote.offset_at(queue, timestamp).await?,
    };
    Ok((offset.max(0), false))
}

/// Whether a slave says that an offset is not in its queue. It says so in a remark alone: real slaves leave corrections to
/// the master (`offsetCheckInSlave`).
fn is_outside(status: PullStatus, remark: Option<&str>) -> bool {
    match status {
        PullStatus::OffsetIllegal => true,
        PullStatus::NoMatchedMessage => remark.is_some_and(|remark| {
            matches!(
                remark,
                "OFFSET_OVERFLOW_BADLY"
                    | "OFFSET_TOO_SMALL"
                    | "NO_MESSAGE_IN_QUEUE"
                    | "NO_MATCHED_LOGIC_QUEUE"
            )
        }),
        _ => false,
    }
}

impl Loop {
    /// Pulls until the queue is lost.
    pub(super) async fn run(&mut self) {
        loop {
            // Cut off when the filter changes, too: a broker wakes a held pull only for what it was asked for.
            let cut = lock(&self.engine.assignment).cut_of(&self.queue, &self.stop);
            let Some(cut) = cut else { return };
            if cut
                .run_until_cancelled(async { while self.once().await {} })
                .await
                .is_some()
            {
                return;
            }
        }
    }

    /// Pulls once. False when the queue was lost.
    async fn once(&mut self) -> bool {
        let max_messages = self.process.pull_size(self.engine.options.pull_batch_size);
        let wanted = Wanted {
            messages: max_messages,
            bytes: self.expected,
        };
        self.engine.unpaused().await;
        self.process.room_for(wanted).await;
        let reserved = self.engine.budget.reserve(self.expected).await;
        if self.is_replaced() && !self.take_over() {
            return false;
        }
        let replica = match self.engine.remote.replica(&self.queue, self.source.id()) {
            Ok(replica) => replica,
            Err(error) => {
                self.recover(error, None).await;
                return true;
            }
        };
        let commit_offset = match self.engine.local {
            Some(_) => None,
            None => lock(&self.engine.assignment).progress_of(&self.queue),
        };
        let options = &self.engine.options;
        let pull = Pull {
            queue: &self.queue,
            replica: &replica,
            offset: self.offset,
            max_messages,
            max_bytes: options.pull_batch_bytes,
            commit_offset,
            version: self.subscription.version,
            subscription: options
                .post_subscription
                .then(|| Box::new(self.subscription.of_topic(&self.queue.topic))),
        };
        let pulling = self.engine.begin_pulling(&self.queue, self.offset);
        let (result, reserved) = {
            let pull = pin!(self.engine.remote.pull(pull).instrument(pulling.span()));
            pull_within(reserved, pull).await
        };
        pulling.answered(&self.process, &result);
        let kept = match result {
            Ok(result) => {
                // A pull may have been held by the broker since before the pause.
                self.engine.unpaused().await;
                if self.is_replaced() {
                    let asked_for = self.subscription.version;
                    if !self.take_over() {
                        return false;
                    }
                    if self.subscription.version != asked_for {
                        // The answer is that of an earlier filter: what that left out would be passed by.
                        return true;
                    }
                }
                self.source.suggested(result.header.suggest_which_broker_id);
                self.engine.refusal.clear(&self.queue.topic);
                self.receive(result, &replica, &pulling).await
            }
            Err(error) => {
                self.expected = 0;
                self.recover(error, Some(&replica)).await;
                true
            }
        };
        drop(reserved);
        let interval = self.engine.options.pull_interval;
        if self.expected > 0 && !interval.is_zero() {
            sleep(interval).await;
        }
        kept
    }

    /// Whether what is pulled may not be what is subscribed to any more. One load for each pull.
    fn is_replaced(&self) -> bool {
        self.engine.subscriptions.changes() != self.changes
    }

    /// Pulls what is subscribed to now. False if that is nothing.
    fn take_over(&mut self) -> bool {
        self.changes = self.engine.subscriptions.changes();
        match self.engine.subscriptions.of(&self.queue.topic) {
            Some(subscription) => {
                self.subscription = subscription;
                true
            }
            // The queue is about to be given up.
            None => false,
        }
    }

    async fn receive(&mut self, result: PullResult, replica: &Replica, pulling: &Pulling) -> bool {
        let next = result.header.next_begin_offset;
        match result.status {
            PullStatus::Found => {
                self.found(result, pulling).await;
                true
            }
            // A slave may be behind, or have less of the past: what it lacks says nothing of the queue.
            status if !replica.is_master() && is_outside(status, result.remark.as_deref()) => {
                self.source.failed(replica.id, None);
                self.failures = self.failures.saturating_add(1);
                if self.failures.is_power_of_two() {
                    info!(
                        group = %self.engine.group, queue = %self.queue, offset = self.offset, slave = replica.id,
                        next, failures = self.failures, "the slave does not have the offset, asking the master"
                    );
                }
                sleep(backoff(self.failures, random())).await;
                true
            }
            PullStatus::OffsetIllegal => match self.place_to_go_on(next, result.remark.as_deref()).await {
                Ok(offset) => self.move_to(offset, result.remark).await,
                Err(error) => {
                    self.recover(error, Some(replica)).await;
                    true
                }
            },
            // Nothing yet, or nothing that matches.
            _ => {
                self.failures = 0;
                self.expected = 0;
                self.offset = self.offset.max(next);
                self.process.seen_up_to(self.offset);
                true
            }
        }
    }

    async fn found(&mut self, result: PullResult, pulling: &Pulling) {
        // A response shares the connection's read buffer with its neighbours and would keep all of it for as long as
        // one message lives: several times what the limits count. The one copy here is what makes them hold, and lets
        // the connection use its buffer again.
        let mut received = Received::read(Bytes::copy_from_slice(&result.messages));
        let bytes = result.messages.len() + received.records.len() * SLOT_BYTES;
        self.expected = bytes;
        // One past the last message of the response, before any is filtered out.
        let end = received
            .records
            .last()
            .map_or(self.offset, |record| record.queue_offset.saturating_add(1));
        self.newest = self
            .newest
            .max(received.records.last().map(|record| record.store_timestamp));
        if !self.subscription.filter.is_all() {
            received.keep(&self.subscription.filter);
        }
        pulling.brought(&self.process, received.records.len());
        let new = self.process.put(received.records, bytes);
        if new > 0 {
            Counters::add(&self.engine.counters.received, new);
            self.engine.offer(&self.process);
        }
        let before = self.offset;
        if let Some(damaged) = received.damaged {
            self.offset = before.max(end);
            self.process.seen_up_to(self.offset);
            self.give_up_or_retry(damaged).await;
            return;
        }
        self.damaged = 0;
        self.offset = before.max(end).max(result.header.next_begin_offset);
        self.process.seen_up_to(self.offset);
        if self.offset > before {
            self.failures = 0;
            return;
        }
        // A broker that answers with nothing new would be asked without end.
        self.failures = self.failures.saturating_add(1);
        warn!(
            group = %self.engine.group, queue = %self.queue, offset = self.offset,
            "the broker answered with messages before the offset it was asked for, asking again"
        );
        sleep(backoff(self.failures, random())).await;
    }

    /// A message that cannot be read is pulled again a few times, then it becomes a dead letter.
    async fn give_up_or_retry(&mut self, damaged: Damaged) {
        self.damaged = self.damaged.saturating_add(1);
        let Damaged { error, place } = damaged;
        if self.damaged >= DAMAGED_TRIES {
            // Only a place inside what was asked for is believed.
            let place = place.filter(|&(offset, physical)| offset >= self.offset && physical >= 0);
            if let Some((queue_offset, physical_offset)) = place {
                let retries = self.engine.options.max_reconsume_times;
                let given_up = match &self.engine.local {
                    // By broadcasting nobody takes it.
                    Some(_) => {
                        Counters::add(&self.engine.counters.dropped, 1);
                        Ok(())
                    }
                    None => {
                        let remote = &self.engine.remote;
                        remote.dead_letter(&self.queue, physical_offset, retries).await
                    }
                };
                match given_up {
                    Ok(()) => {
                        error!(
                            group = %self.engine.group, queue = %self.queue, offset = queue_offset, %error,
                            "a message cannot be read and is given up: a dead letter, or by broadcasting dropped"
                        );
                        self.damaged = 0;
                        self.offset = queue_offset.saturating_add(1);
                        self.process.seen_up_to(self.offset);
                        return;
                    }
                    Err(refused) => {
                        warn!(group = %self.engine.group, queue = %self.queue, %refused, "the broker cannot take the message");
                    }
                }
            }
        }
        error!(
            group = %self.engine.group, queue = %self.queue, offset = self.offset, %error, tries = self.damaged,
            "a message cannot be read, pulling it again"
        );
        sleep(backoff(self.damaged, random())).await;
    }

    /// Where to go on when the broker says that the offset is not in the queue, but `next` is.
    ///
    /// An offset beyond the end means that the broker has lost messages at the end of the queue, which it had not
    /// written to its disk when it crashed, say; and those that came since have the offsets of the lost ones. The end
    /// of the queue is behind them. They were stored after all that was received before, or after the broker's start.
    async fn place_to_go_on(&self, next: i64, remark: Option<&str>) -> Result<i64> {
        if next >= self.offset || next <= 0 || remark == Some(OFFSET_RESET) {
            return Ok(next);
        }
        let remote = &self.engine.remote;
        let since = match self.newest {
            Some(newest) => newest,
            None => match remote.started_at(&self.queue).await {
                Ok(started) => started,
                // It is a question of administrators, and not all brokers answer those to consumers.
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Busy
                    ) =>
                {
                    warn!(
                        group = %self.engine.group, queue = %self.queue, offset = self.offset, end = next, %error,
                        "the offset is beyond the end of the queue, and it cannot be found out which messages came                          since: those before the end are skipped"
                    );
                    return Ok(next);
                }
                Err(error) => return Err(error),
            },
        };
        let offset = remote.offset_at(&self.queue, since).await?;
        Ok(offset.clamp(0, next))
    }

    /// The broker does not have the offset and says where to go on. False when the queue was lost meanwhile.
    async fn move_to(&mut self, offset: i64, remark: Option<String>) -> bool {
        let offset = offset.max(0);
        warn!(
            group = %self.engine.group, queue = %self.queue, from = self.offset, to = offset, ?remark,
            "the broker does not have the offset, going on where it says"
        );
        let in_order = self.process.in_order();
        let process = self.engine.process_queue(&self.queue, offset, in_order);
        if !lock(&self.engine.assignment).reopen(&process, offset, &self.stop) {
            return false;
        }
        self.process = process;
        self.expected = 0;
        if offset == self.offset {
            // It refuses the very offset it asks for.
            self.failures = self.failures.saturating_add(1);
            sleep(backoff(self.failures, random())).await;
        }
        self.offset = offset;
        true
    }

    /// Waits as long as the error asks for.
    async fn recover(&mut self, error: Error, replica: Option<&Replica>) {
        if let Some(replica) = replica {
            let is_away = matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout);
            let other = if is_away {
                self.engine.remote.slave_of(&self.queue)
            } else {
                None
            };
            self.source.failed(replica.id, other);
        }
        self.failures = self.failures.saturating_add(1);
        let (group, queue, failures) = (&self.engine.group, &self.queue, self.failures);
        let mut wait = backoff(failures, random());
        match error.response().map(|(code, _)| code) {
            Some(ResponseCode::FLOW_CONTROL) => {
                debug!(%group, %queue, "the broker asks for less");
                // The first one is nothing unusual.
                wait = if failures == 1 { FLOW_CONTROL } else { wait };
            }
            // The broker was restarted, or has not seen the newest heartbeat yet.
            Some(
                ResponseCode::SUBSCRIPTION_NOT_EXIST
                | ResponseCode::SUBSCRIPTION_NOT_LATEST
                | ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            ) => {
                info!(%group, %queue, %error, "the broker does not know the subscription, sending it again");
                self.engine.heartbeat().await;
            }
            _ => {
                // A line for each doubling: a broker that is away for an hour does not fill a disk.
                if failures.is_power_of_two() {
                    warn!(%group, %queue, failures, %error, "a pull failed, trying again");
                }
                if error.kind() == ErrorKind::Connect && failures.is_power_of_two() {
                    // The broker may have come back somewhere else.
                    self.engine.remote.refresh(&queue.topic).await;
                }
                if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Auth) {
                    // Somebody has to do something about it: asking every second is enough to notice.
                    wait *= 5;
                }
                self.engine.note_refusal(&queue.topic, &error);
            }
        }
        sleep(wait).await;
    }
}
