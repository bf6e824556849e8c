//! What the tasks and handles of one lite-pull consumer share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::held::{Held, Released};
use super::options::Options;
use super::watch::{AssignmentListener, Watched};
use crate::consumer::budget::Budget;
use crate::consumer::confirm::commit_confirmed;
use crate::consumer::division::divide_regularly;
use crate::consumer::engine::FAREWELL;
use crate::consumer::filter::Filter;
use crate::consumer::remote::Remote;
use crate::consumer::subscriptions::Subscriptions;
use crate::error::{Error, Result};
use crate::protocol::bodies::{MessageModel, MessageQueue};
use crate::sync::lock;
use crate::tasks::{Tasks, join_all};
use crate::trace::now_millis;

/// Where a queue starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// At the group's offset, or where a group without one starts.
    Group {
        /// Other members may be about to let the queue go.
        shared: bool,
        /// The queue came up while the consumer was running.
        appeared: bool,
    },
    /// Here.
    At(i64),
}

/// How the consumer comes by its queues.
#[derive(Debug)]
pub(super) enum Mode {
    /// It shares those of its topics with the other members.
    Subscribed,
    /// It was told which; what is wanted of a topic that has no filter here is everything.
    Assigned(BTreeMap<Arc<str>, Filter>),
}

/// The shared state of one lite-pull consumer.
pub(super) struct Lite {
    pub(super) group: Arc<str>,
    pub(super) mode: Mode,
    /// None with assigned queues.
    pub(super) subscriptions: Subscriptions,
    /// When the consumer was made, in milliseconds since 1970.
    pub(super) started: i64,
    pub(super) options: Options,
    pub(super) remote: Remote,
    pub(super) held: Mutex<Held>,
    /// Told when there is something to hand out.
    pub(super) arrived: Notify,
    pub(super) budget: Arc<Budget>,
    pub(super) counters: Counters,
    /// Asks for a division now.
    pub(super) rebalance: Notify,
    pub(super) assignment_listener: Option<AssignmentListener>,
    pub(super) watched: Mutex<Watched>,
    /// How many queues' last commits were not confirmed, once the consumer was shut down.
    shut_down: OnceCell<usize>,
    abandoned: AtomicBool,
    /// Everything that brings messages in.
    pub(super) intake: Tasks,
    /// Commits, and watching over topics.
    pub(super) upkeep: Tasks,
}

/// What a consumer counts, from its start on.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) polled: AtomicU64,
    pub(super) failed_pulls: AtomicU64,
}

impl Lite {
    pub(super) fn new(
        group: Arc<str>,
        mode: Mode,
        topics: BTreeMap<Arc<str>, Filter>,
        options: Options,
        assignment_listener: Option<AssignmentListener>,
        remote: Remote,
    ) -> Self {
        let tasks = Arc::clone(remote.cluster());
        let tasks = tasks.tasks();
        let started = now_millis();
        let shared = options.memory_limit.as_ref();
        let shared = shared.or_else(|| remote.cluster().options().memory_limit.as_ref());
        let budget = Budget::within(options.max_cached_bytes, shared.cloned());
        Self {
            group,
            mode,
            subscriptions: Subscriptions::new(topics, started),
            started,
            held: Mutex::new(Held::new(
                options.limits,
                options.max_cached_messages,
                options.automatic,
            )),
            arrived: Notify::new(),
            budget,
            counters: Counters::default(),
            rebalance: Notify::new(),
            assignment_listener,
            watched: Mutex::default(),
            shut_down: OnceCell::new(),
            abandoned: AtomicBool::new(false),
            intake: tasks.child(),
            upkeep: tasks.child(),
            options,
            remote,
        }
    }

    /// Joins the group: finds the brokers and tells them.
    pub(super) async fn join(self: &Arc<Self>) -> Result<()> {
        // Topics that do not exist yet are asked for again.
        let topics = self.topics();
        join_all(topics.iter().map(|topic| self.remote.queues(topic))).await;
        self.remote
            .join(Arc::new(super::answers::LiteMember(Arc::clone(self))))
            .await
    }

    /// Starts everything.
    pub(super) fn run(self: &Arc<Self>) {
        let lite = Arc::clone(self);
        self.upkeep
            .spawn("commit", move |stop| lite.commit_regularly(stop));
        let lite = Arc::clone(self);
        self.upkeep.spawn("topics", move |stop| lite.watch_topics(stop));
        if let Mode::Subscribed = self.mode {
            let lite = Arc::clone(self);
            self.intake.spawn("rebalance", move |stop| async move {
                let interval = lite.options.rebalance_interval;
                divide_regularly(Arc::clone(&lite), interval, &lite.rebalance, &stop).await;
            });
        }
    }

    /// The topics whose queues are pulled.
    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        match &self.mode {
            Mode::Subscribed => self.subscriptions.table().keys().map(Arc::clone).collect(),
            Mode::Assigned(_) => {
                let held = lock(&self.held);
                let mut topics: Vec<_> = held.queues().map(|queue| Arc::clone(&queue.topic)).collect();
                topics.dedup();
                topics
            }
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.intake.token().is_cancelled() {
            return Err(Error::closed(format_args!(
                "lite-pull consumer of group {}",
                self.group
            )));
        }
        Ok(())
    }

    pub(super) fn is_broadcasting(&self) -> bool {
        self.options.message_model == MessageModel::Broadcasting
    }

    /// Makes `target` the queues among those that `concerns`, if they are still `wanted`, and starts and ends their
    /// pulling.
    pub(super) fn hold(
        self: &Arc<Self>,
        target: &[MessageQueue],
        concerns: impl Fn(&MessageQueue) -> bool,
        wanted: impl Fn() -> bool,
        start: impl Fn(&MessageQueue) -> Start,
    ) {
        let (added, released) = {
            let mut held = lock(&self.held);
            // Under the lock: after the end nobody would give them up, and a topic that is just being given up must not
            // get its queues back.
            if self.intake.token().is_cancelled() || !wanted() {
                return;
            }
            held.divide(target, concerns, self.intake.token())
        };
        for (queue, turn) in added {
            let start = start(&queue);
            self.spawn_pull(queue, start, turn);
        }
        self.let_go(released);
    }

    /// Commits what is known of queues that are not held any more.
    pub(super) fn let_go(self: &Arc<Self>, released: Vec<Released>) {
        if released.is_empty() {
            return;
        }
        for Released { freed, .. } in &released {
            self.budget.release(*freed);
        }
        // Not here: a broker that is slow to take commits must not hold up the caller.
        let lite = Arc::clone(self);
        self.upkeep.spawn("commit", |_| async move {
            for Released { queue, offset, .. } in released {
                info!(group = %lite.group, %queue, offset, "queue released");
                if let Some(offset) = offset.filter(|&offset| offset > 0) {
                    lite.commit_one_way(&queue, offset).await;
                }
            }
        });
    }

    /// Commits what is due, every so often.
    async fn commit_regularly(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = time::interval(self.options.commit_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let due = lock(&self.held).due();
            for (queue, offset) in due {
                let commit = self.commit_one_way(&queue, offset);
                if stop.run_until_cancelled(commit).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Commits one offset; one that cannot be sent is repeated by the next tick.
    async fn commit_one_way(&self, queue: &MessageQueue, offset: i64) {
        match self.remote.commit(queue, offset).await {
            Ok(()) => debug!(group = %self.group, %queue, offset, "committed"),
            Err(error) => {
                lock(&self.held).commit_failed(queue, offset);
                warn!(group = %self.group, %queue, offset, %error, "a commit could not be sent, it is repeated");
            }
        }
    }

    /// Shuts down once; who comes later or at the same time gets the same number of unconfirmed commits.
    ///
    /// `handled` says that everything that was handed out is handled; else only what was handed out before the last
    /// poll is.
    pub(super) async fn shut_down(&self, handled: bool) -> usize {
        *self
            .shut_down
            .get_or_init(|| self.shut_down_in_order(handled))
            .await
    }

    async fn shut_down_in_order(&self, handled: bool) -> usize {
        // Nothing is in flight there that is not safe to drop.
        let _ = self.intake.stop(FAREWELL).await;
        let _ = self.upkeep.stop(FAREWELL).await;
        let released = {
            let mut held = lock(&self.held);
            if handled {
                held.count_as_handled();
            }
            held.clear()
        };
        for Released { freed, .. } in &released {
            self.budget.release(*freed);
        }
        let offsets = released.into_iter().filter_map(|Released { queue, offset, .. }| {
            let offset = offset.filter(|&offset| offset > 0)?;
            Some((queue, offset))
        });
        let mut unconfirmed = 0;
        for (queue, offset, result) in commit_confirmed(&self.remote, offsets, FAREWELL).await {
            if let Err(error) = result {
                unconfirmed += 1;
                warn!(
                    group = %self.group, %queue, offset, %error,
                    "the last commit is not confirmed, messages handled since the one before may come again"
                );
            }
        }
        self.remote.leave(FAREWELL).await;
        info!(group = %self.group, unconfirmed, "lite-pull consumer shut down");
        unconfirmed
    }

    /// Ends without waiting, unless it is shut down: nothing is committed, the group is left in the background.
    pub(super) fn end_hard(self: &Arc<Self>) {
        if self.shut_down.initialized() || self.abandoned.swap(true, Ordering::Relaxed) {
            return;
        }
        warn!(
            group = %self.group,
            "a lite-pull consumer was dropped without a shutdown: its last commits are not sent"
        );
        self.intake.cancel();
        self.upkeep.cancel();
        for Released { freed, .. } in lock(&self.held).clear() {
            self.budget.release(freed);
        }
        let lite = Arc::clone(self);
        // A member that is gone but keeps heartbeating would keep its queues from everybody else.
        let leave = move |_| async move { lite.remote.leave(FAREWELL).await };
        self.remote.cluster().tasks().spawn("leave", leave);
    }

    /// How long questions that a user waits for may take in all.
    pub(super) const fn patience() -> Duration {
        Duration::from_secs(5)
    }
}

impl fmt::Debug for Lite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lite")
            .field("group", &self.group)
            .field("mode", &self.mode)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
