//! What the tasks of one consumer share.
//!
//! ```text
//! rebalance -> owned queues -> one pull loop each -> process queues -> the line -> workers -> handler
//!                                                        |                           |
//!                                       commits <- lowest unfinished offset   give-back on failure
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::assignment::{Assignment, Removed};
use super::broadcast::LocalOffsets;
use super::budget::Budget;
use super::filter::Filter;
use super::flow::Flow;
use super::handler::DynHandler;
use super::member::Member;
use super::options::Options;
use super::orderly::Order;
use super::pop::Pop;
use super::process_queue::ProcessQueue;
use super::push::ShutdownReport;
use super::ready::Ready;
use super::refusal::Refusal;
use super::remote::Remote;
use super::requeue::Requeue;
use super::standing::Standing;
use super::stats::Meters;
use super::subscriptions::Subscriptions;
use crate::error::Result;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::{Tasks, join_all};

/// How long the last commits and the leave-taking may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// The shared state of one push consumer.
pub(super) struct Engine {
    pub(super) group: Arc<str>,
    pub(super) retry_topic: Arc<str>,
    /// The user's topics and the retry topic.
    pub(super) subscriptions: Subscriptions,
    /// When the consumer was made, in milliseconds since 1970.
    pub(super) started: i64,
    pub(super) options: Options,
    pub(super) remote: Remote,
    /// Where offsets are kept by broadcasting; else brokers keep them.
    pub(super) local: Option<LocalOffsets>,
    /// What the group had consumed before this member came.
    pub(super) standing: Standing,
    pub(super) assignment: Mutex<Assignment>,
    pub(super) ready: Ready,
    /// What keeps the order, if one is kept; it takes the place of the line of queues.
    pub(super) order: Option<Order>,
    /// What it has if the broker divides the work.
    pub(super) pop: Option<Pop>,
    pub(super) budget: Arc<Budget>,
    pub(super) flow: Flow,
    pub(super) meters: Meters,
    /// Why brokers refuse this member, while they do.
    pub(super) refusal: Refusal,
    pub(super) requeue: Requeue,
    pub(super) counters: Counters,
    /// In what the group's other members last differed.
    pub(super) differences: Mutex<Vec<String>>,
    /// Asks for a rebalance now; requests that come while one runs become one.
    pub(super) rebalance: Notify,
    pub(super) paused: watch::Sender<bool>,
    /// Workers with this number or a higher one end.
    pub(super) concurrency: AtomicUsize,
    /// The numbers of the workers that run.
    pub(super) alive: Mutex<BTreeSet<usize>>,
    /// Whether the retry topic has been seen.
    pub(super) retry_topic_exists: AtomicBool,
    /// How the shutdown went, once there was one.
    pub(super) shut_down: OnceCell<ShutdownReport>,
    /// A dropped consumer gives nothing back any more: what is unfinished comes to somebody else.
    abandoned: AtomicBool,
    /// For a message that a broker wants consumed directly.
    pub(super) direct: OnceLock<DynHandler>,
    /// Everything that brings messages in.
    pub(super) intake: Tasks,
    /// Everything that handles them.
    pub(super) workers: Tasks,
    /// Commits and the return of messages that could not be given back.
    pub(super) upkeep: Tasks,
}

/// What a consumer counts, from its start on.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) panicked: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) not_given_back: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) offset_writes_failed: AtomicU64,
    pub(super) subscription_conflicts: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Engine {
    pub(super) fn new(
        group: Arc<str>,
        subscriptions: BTreeMap<Arc<str>, Filter>,
        started: i64,
        options: Options,
        remote: Remote,
        local: Option<LocalOffsets>,
        tasks: &Tasks,
    ) -> Self {
        let shared = options.memory_limit.as_ref();
        let shared = shared.or_else(|| remote.cluster().options().memory_limit.as_ref());
        Self {
            budget: Budget::within(options.max_cached_bytes, shared.cloned()),
            flow: Flow::new(options.topic_limits),
            meters: Meters::new(Arc::clone(&group)),
            refusal: Refusal::default(),
            retry_topic: crate::protocol::names::retry_topic(&group).into(),
            group,
            subscriptions: Subscriptions::new(subscriptions, started),
            started,
            remote,
            local,
            standing: Standing::default(),
            assignment: Mutex::default(),
            ready: Ready::default(),
            order: Order::new(&options.order, options.broadcasting.is_none()),
            pop: options.pop.clone().map(|options| Pop::new(options, tasks)),
            requeue: Requeue::new(options.requeue_delay),
            counters: Counters::default(),
            differences: Mutex::default(),
            rebalance: Notify::new(),
            paused: watch::Sender::new(options.paused),
            concurrency: AtomicUsize::new(options.concurrency),
            alive: Mutex::default(),
            retry_topic_exists: AtomicBool::new(false),
            shut_down: OnceCell::new(),
            abandoned: AtomicBool::new(false),
            direct: OnceLock::new(),
            intake: tasks.child(),
            workers: tasks.child(),
            upkeep: tasks.child(),
            options,
        }
    }

    /// Joins the group: finds the brokers of the topics and tells them.
    pub(super) async fn join(self: &Arc<Self>) -> Result<()> {
        // Topics that do not exist yet, or that no name server tells of, are asked for again by the rebalance.
        let topics = self.subscriptions.table();
        join_all(topics.keys().map(|topic| self.look_before_joining(topic))).await;
        self.remote.join(Arc::new(Member(Arc::clone(self)))).await?;
        let checked = self.check_pop().await;
        if checked.is_err() {
            self.remote.leave(FAREWELL).await;
        }
        checked
    }

    /// Starts everything but the workers.
    pub(super) fn run(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        self.upkeep
            .spawn("commit", move |stop| engine.commit_regularly(stop));
        let engine = Arc::clone(self);
        self.upkeep.spawn("requeue", move |stop| async move {
            engine.requeue.run(&engine.ready, &stop).await;
        });
        if self.order.is_some() {
            let engine = Arc::clone(self);
            self.upkeep.spawn("resume", move |stop| async move {
                if let Some(order) = &engine.order {
                    order.resume_regularly(&stop).await;
                }
            });
        }
        let engine = Arc::clone(self);
        self.upkeep
            .spawn("stats", move |stop| engine.measure_regularly(stop));
        let engine = Arc::clone(self);
        self.intake
            .spawn("rebalance", move |stop| engine.rebalance_regularly(stop));
    }

    /// New messages of a queue are in its cache.
    pub(super) fn offer(&self, process: &Arc<ProcessQueue>) {
        match &self.order {
            None => self.ready.offer(process),
            Some(order) => order.offer(process, |record| self.view(record, process)),
        }
    }

    /// Commits what is due, every so often.
    pub(super) async fn commit_regularly(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = time::interval(self.options.commit_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if let Some(local) = &self.local {
                self.store_progress(local).await;
                continue;
            }
            let due = lock(&self.assignment).due();
            for (queue, offset) in due {
                if stop
                    .run_until_cancelled(self.commit(&queue, offset))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    }

    /// Commits one offset, one-way; one that cannot be sent is repeated by the next tick.
    pub(super) async fn commit(&self, queue: &MessageQueue, offset: i64) {
        match self.remote.commit(queue, offset).await {
            Ok(()) => debug!(group = %self.group, %queue, offset, "committed"),
            Err(error) => {
                lock(&self.assignment).commit_failed(queue, offset);
                warn!(group = %self.group, %queue, offset, %error, "a commit could not be sent, it is repeated");
            }
        }
    }

    /// Tells brokers how far lost queues were consumed, so that their next owners start there.
    pub(super) async fn commit_removed(&self, removed: &[Removed]) {
        if let Some(local) = &self.local {
            return self.store_removed(local, removed).await;
        }
        for Removed {
            queue,
            offset,
            released,
            ..
        } in removed
        {
            info!(group = %self.group, %queue, offset, released, "queue released");
            if let Some(offset) = offset.filter(|&offset| offset > 0) {
                self.commit(queue, offset).await;
            }
        }
    }

    /// Commits everything and waits until the brokers have confirmed it. Returns how many queues that failed for.
    pub(super) async fn commit_finally(&self, limit: Duration) -> usize {
        if let Some(local) = &self.local {
            return self.store_finally(local, limit).await;
        }
        let removed = lock(&self.assignment).clear();
        let mut brokers: BTreeMap<Arc<str>, Vec<(MessageQueue, i64)>> = BTreeMap::new();
        for Removed { queue, offset, .. } in removed {
            if let Some(offset) = offset.filter(|&offset| offset > 0) {
                let broker = brokers.entry(Arc::clone(&queue.broker_name)).or_default();
                broker.push((queue, offset));
            }
        }
        let deadline = Instant::now() + limit;
        let commits = brokers
            .into_values()
            .map(|queues| self.commit_in_turn(queues, deadline));
        join_all(commits).await.into_iter().sum()
    }

    /// One after the other on one broker: of a group's first commits for a topic that arrive at the same time, brokers
    /// keep but one, and confirm all (4.9.7 and 5.5.0, `ConsumerOffsetManager#commitOffset`).
    async fn commit_in_turn(&self, queues: Vec<(MessageQueue, i64)>, deadline: Instant) -> usize {
        let mut failed = 0;
        for (queue, offset) in queues {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Err(error) = self.remote.commit_confirmed(&queue, offset, left).await {
                failed += 1;
                warn!(
                    group = %self.group, %queue, offset, %error,
                    "the last commit is not confirmed, messages handled since the one before may come again"
                );
            }
        }
        failed
    }

    /// Ends without waiting: all tasks are asked to stop, nothing is committed, the group is left in the background.
    pub(super) fn end_hard(self: &Arc<Self>) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.intake.cancel();
        self.workers.cancel();
        self.upkeep.cancel();
        if let Some(pop) = &self.pop {
            pop.end_hard();
        }
        lock(&self.assignment).clear();
        if let Some(local) = &self.local {
            local.close();
        }
        let engine = Arc::clone(self);
        // A member that is gone but keeps heartbeating would keep its queues from everybody else.
        let leave = move |_| async move {
            engine.unlock_abandoned().await;
            engine.remote.leave(FAREWELL).await;
        };
        self.remote.cluster().tasks().spawn("leave", leave);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("group", &self.group)
            .field("subscriptions", &self.subscriptions)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
