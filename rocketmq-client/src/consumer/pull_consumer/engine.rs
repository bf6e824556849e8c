//! What the tasks and handles of one pull consumer share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::consumer::allocate::{AllocateAveragely, AllocateStrategy};
use crate::consumer::confirm::commit_confirmed;
use crate::consumer::division::{Divides, Share, divide_regularly};
use crate::consumer::engine::FAREWELL;
use crate::consumer::lite_pull::{AssignmentChange, AssignmentListener};
use crate::consumer::offsets::OffsetTable;
use crate::consumer::remote::Remote;
use crate::consumer::subscriptions::Subscriptions;
use crate::error::{Error, Result};
use crate::protocol::bodies::{MessageModel, MessageQueue};
use crate::sync::lock;
use crate::tasks::{Tasks, join_all};

/// See the setters of [`PullConsumerBuilder`](super::PullConsumerBuilder).
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) message_model: MessageModel,
    pub(super) rebalance: bool,
    pub(super) rebalance_interval: Duration,
    pub(super) commit_interval: Duration,
    pub(super) pull_timeout: Duration,
    pub(super) broker_suspend: Duration,
    pub(super) suspended_pull_timeout: Duration,
    pub(super) max_reconsume_times: i32,
    pub(super) allocate: Arc<dyn AllocateStrategy>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            message_model: MessageModel::Clustering,
            rebalance: true,
            rebalance_interval: Duration::from_secs(20),
            commit_interval: Duration::from_secs(5),
            pull_timeout: Duration::from_secs(10),
            broker_suspend: Duration::from_secs(20),
            suspended_pull_timeout: Duration::from_secs(30),
            max_reconsume_times: 16,
            allocate: Arc::new(AllocateAveragely),
        }
    }
}

impl Options {
    /// What is wrong with them, each with the setter's name.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.suspended_pull_timeout <= self.broker_suspend {
            faults.push(format!(
                "suspended_pull_timeout is {:?}, it has to be longer than broker_suspend, which is {:?}",
                self.suspended_pull_timeout, self.broker_suspend
            ));
        }
        if self.max_reconsume_times < 0 {
            faults.push("max_reconsume_times is above 2147483647".into());
        }
        for (name, value) in [
            ("rebalance_interval", self.rebalance_interval),
            ("commit_interval", self.commit_interval),
            ("pull_timeout", self.pull_timeout),
            ("broker_suspend", self.broker_suspend),
        ] {
            if value < Duration::from_millis(10) {
                faults.push(format!("{name} is {value:?}, it has to be at least 10ms"));
            }
        }
        faults
    }
}

/// The shared state of one pull consumer.
pub(super) struct Puller {
    pub(super) group: Arc<str>,
    /// The topics that are divided and announced.
    pub(super) registered: Subscriptions,
    /// When the consumer was made, in milliseconds since 1970.
    pub(super) started: i64,
    pub(super) options: Options,
    pub(super) remote: Remote,
    pub(super) offsets: Mutex<OffsetTable>,
    /// This member's share of the registered topics.
    pub(super) balance: watch::Sender<BTreeSet<MessageQueue>>,
    pub(super) rebalance: Notify,
    pub(super) listener: Option<AssignmentListener>,
    /// The brokers that were told of this member before something was asked of them.
    told: Mutex<BTreeSet<Arc<str>>>,
    pub(super) tasks: Tasks,
    shut_down: OnceCell<usize>,
}

impl Puller {
    pub(super) fn new(
        group: Arc<str>,
        registered: Subscriptions,
        started: i64,
        options: Options,
        listener: Option<AssignmentListener>,
        remote: Remote,
    ) -> Self {
        Self {
            group,
            registered,
            started,
            options,
            offsets: Mutex::default(),
            balance: watch::Sender::default(),
            rebalance: Notify::new(),
            listener,
            told: Mutex::default(),
            tasks: remote.cluster().tasks().child(),
            shut_down: OnceCell::new(),
            remote,
        }
    }

    /// Joins the group: finds the brokers of the registered topics and tells them.
    pub(super) async fn join(self: &Arc<Self>) -> Result<()> {
        let table = self.registered.table();
        join_all(table.keys().map(|topic| self.remote.queues(topic))).await;
        self.remote
            .join(Arc::new(super::answers::PullMember(Arc::clone(self))))
            .await
    }

    /// Starts everything.
    pub(super) fn run(self: &Arc<Self>) {
        let puller = Arc::clone(self);
        self.tasks
            .spawn("commit", move |stop| puller.commit_regularly(stop));
        if self.options.rebalance {
            let puller = Arc::clone(self);
            self.tasks.spawn("rebalance", move |stop| async move {
                let interval = puller.options.rebalance_interval;
                divide_regularly(Arc::clone(&puller), interval, &puller.rebalance, &stop).await;
            });
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.tasks.token().is_cancelled() {
            return Err(Error::closed(format_args!(
                "pull consumer of group {}",
                self.group
            )));
        }
        Ok(())
    }

    /// Fails once the consumer is shut down; else the broker of a queue is known from then on, if it is there.
    pub(super) async fn reach(&self, queue: &MessageQueue) -> Result<()> {
        self.check_open()?;
        self.introduce(queue).await;
        Ok(())
    }

    /// Lets the broker of a queue know this member: users may name any queue, and brokers of 5.x take no offset of a
    /// group that they have not heard of.
    async fn introduce(&self, queue: &MessageQueue) {
        if lock(&self.told).contains(&queue.broker_name) {
            return;
        }
        self.remote.look_for(queue).await;
        self.remote.announce().await;
        lock(&self.told).insert(Arc::clone(&queue.broker_name));
    }

    /// The topics of which something is registered or noted.
    pub(super) fn known_topics(&self) -> BTreeSet<Arc<str>> {
        let mut topics: BTreeSet<_> = self.registered.table().keys().map(Arc::clone).collect();
        let offsets = lock(&self.offsets);
        topics.extend(offsets.iter().map(|(queue, _)| Arc::clone(&queue.topic)));
        topics
    }

    /// Commits what is due, every so often.
    async fn commit_regularly(self: Arc<Self>, stop: CancellationToken) {
        let interval = self.options.commit_interval;
        let mut tick = time::interval_at(Instant::now() + interval, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let due = lock(&self.offsets).due();
            for (queue, offset) in due {
                let sent = async {
                    self.introduce(&queue).await;
                    self.remote.commit(&queue, offset).await
                };
                match stop.run_until_cancelled(sent).await {
                    Some(Ok(())) => debug!(group = %self.group, %queue, offset, "committed"),
                    Some(Err(error)) => {
                        lock(&self.offsets).failed(&queue, offset);
                        warn!(group = %self.group, %queue, offset, %error, "a commit could not be sent, it is repeated");
                    }
                    None => return,
                }
            }
        }
    }

    /// Notes an offset; the next regular commit sends it.
    pub(super) fn update_offset(&self, queue: &MessageQueue, offset: i64) {
        let mut offsets = lock(&self.offsets);
        match offsets.offset(queue) {
            Some(known) if known == offset => {}
            Some(_) => offsets.reset(queue, offset),
            None => {
                offsets.own(queue.clone(), offset, true);
                offsets.reset(queue, offset);
            }
        }
    }

    /// Commits offsets and waits for the brokers. Gives how many were not confirmed, and why one of them was not.
    pub(super) async fn persist(
        &self,
        wanted: impl Fn(&MessageQueue) -> bool,
        limit: Duration,
    ) -> (usize, Option<Error>) {
        let noted: Vec<_> = lock(&self.offsets)
            .iter()
            .filter(|(queue, _)| wanted(queue))
            .map(|(queue, offset)| (queue.clone(), offset))
            .collect();
        // Once for each topic: with no name server there, each look takes its time.
        let topics: BTreeMap<_, _> = noted.iter().map(|(queue, _)| (&queue.topic, queue)).collect();
        join_all(topics.into_values().map(|queue| self.introduce(queue))).await;
        let mut failed = (0, None);
        for (queue, offset, result) in commit_confirmed(&self.remote, noted, limit).await {
            match result {
                Ok(()) => {
                    let mut offsets = lock(&self.offsets);
                    if offsets.offset(&queue) == Some(offset) {
                        offsets.own(queue, offset, true);
                    }
                }
                Err(error) => {
                    failed.0 += 1;
                    failed.1 = Some(error.context(format_args!("commit of {offset} of queue {queue}")));
                }
            }
        }
        failed
    }

    /// Shuts down once; who comes later or at the same time gets the same number of unconfirmed commits.
    pub(super) async fn shut_down(&self) -> usize {
        *self.shut_down.get_or_init(|| self.shut_down_in_order()).await
    }

    async fn shut_down_in_order(&self) -> usize {
        let _ = self.tasks.stop(FAREWELL).await;
        let (unconfirmed, why) = self.persist(|_| true, FAREWELL).await;
        if let Some(error) = why {
            warn!(group = %self.group, unconfirmed, %error, "last commits are not confirmed");
        }
        self.remote.leave(FAREWELL).await;
        info!(group = %self.group, unconfirmed, "pull consumer shut down");
        unconfirmed
    }

    /// Ends without waiting, unless it is shut down.
    pub(super) fn end_hard(self: &Arc<Self>) {
        if self.shut_down.initialized() || self.tasks.token().is_cancelled() {
            return;
        }
        warn!(group = %self.group, "a pull consumer was dropped without a shutdown: its last commits are not sent");
        self.tasks.cancel();
        let puller = Arc::clone(self);
        let leave = move |_| async move { puller.remote.leave(FAREWELL).await };
        self.remote.cluster().tasks().spawn("leave", leave);
    }
}

impl Divides for Puller {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn strategy(&self) -> &dyn AllocateStrategy {
        &*self.options.allocate
    }

    fn is_broadcasting(&self) -> bool {
        self.options.message_model == MessageModel::Broadcasting
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.registered.table().keys().map(Arc::clone).collect()
    }

    fn see(&self, _: &Arc<str>, _: &[MessageQueue]) {}

    fn take_share(self: &Arc<Self>, topic: &Arc<str>, all: &[MessageQueue], share: Share) {
        let changed = self.balance.send_if_modified(|balance| {
            let before = balance.clone();
            balance.retain(|queue| queue.topic != *topic);
            balance.extend(share.queues.iter().cloned());
            *balance != before
        });
        if !changed {
            return;
        }
        info!(group = %self.group, %topic, members = share.members, queues = share.queues.len(), "queues divided");
        if let Some(listener) = &self.listener {
            listener.call(&AssignmentChange {
                topic,
                all,
                assigned: &share.queues,
            });
        }
    }
}

impl fmt::Debug for Puller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Puller")
            .field("group", &self.group)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
