//! The handle to a running pull consumer.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::engine::Puller;
use super::pull::PullBuilder;
use crate::cluster::Client;
use crate::consumer::filter::Filter;
use crate::consumer::outcome::{GiveBack, Retry};
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// How long an offset may take to be confirmed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A consumer that pulls when it is told to: which queue, from which offset. It keeps no position.
///
/// Clones are handles to the same consumer. [`shutdown`](Self::shutdown) ends it in order; when the last handle is
/// dropped without that, it ends at once, without its last commits. Made by
/// [`Client::pull_consumer`](crate::Client::pull_consumer).
#[derive(Clone)]
pub struct PullConsumer(Arc<Running>);

struct Running {
    puller: Arc<Puller>,
    /// Keeps the client alive as long as the consumer.
    _client: Client,
}

impl PullConsumer {
    pub(super) fn new(puller: Arc<Puller>, client: Client) -> Self {
        Self(Arc::new(Running {
            puller,
            _client: client,
        }))
    }

    pub(super) fn puller(&self) -> &Arc<Puller> {
        &self.0.puller
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.puller().group
    }

    /// Up to `max_messages` messages of a queue, from an offset on: `"*"` or [`Filter::all`] for all messages, `"vip ||
    /// late"` for those with one of these tags. It answers at once; [`wait`](PullBuilder::wait) waits at the broker
    /// while there is nothing. Brokers give 32 messages at the most unless configured otherwise. Java: `pull`,
    /// `pullBlockIfNotFound`, `pullBlockIfNotFoundWithMessageSelector`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an offset below 0, no messages, and a filter that would never
    /// match; what the broker refuses; [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) for a message that cannot be
    /// read.
    ///
    /// # Cancellation
    /// Safe: pulls change nothing.
    pub fn pull(
        &self,
        queue: &MessageQueue,
        filter: impl Into<Filter>,
        offset: i64,
        max_messages: usize,
    ) -> PullBuilder {
        PullBuilder::new(self.puller(), queue, filter.into(), offset, max_messages)
    }

    /// All queues of a topic that can be read; none if it does not exist. Java: `fetchSubscribeMessageQueues`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub async fn queues_of(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let puller = self.puller();
        puller.check_open()?;
        let topic = puller.remote.cluster().user_name(topic);
        let mut queues = puller.remote.queues(&topic).await?;
        queues.sort();
        Ok(queues)
    }

    /// This member's share of a [registered](super::PullConsumerBuilder::register) topic, as last divided. Java:
    /// `fetchMessageQueuesInBalance`.
    #[must_use]
    pub fn queues_in_balance(&self, topic: &str) -> Vec<MessageQueue> {
        let topic = self.puller().remote.cluster().user_name(topic);
        let balance = self.puller().balance.borrow();
        let of_topic = balance.iter().filter(|queue| *queue.topic == *topic);
        of_topic.cloned().collect()
    }

    /// One past the newest offset of a queue. Java: `maxOffset`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        self.puller().reach(queue).await?;
        self.puller().remote.max_offset(queue).await
    }

    /// The oldest offset of a queue. Java: `minOffset`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        self.puller().reach(queue).await?;
        self.puller().remote.min_offset(queue).await
    }

    /// The offset of the first message of a queue that was stored at a time or later; brokers of 4.9 give the nearest
    /// message's. Java: `searchOffset`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn offset_for_timestamp(&self, queue: &MessageQueue, time: SystemTime) -> Result<i64> {
        self.puller().reach(queue).await?;
        self.puller().remote.offset_stored_at(queue, time).await
    }

    /// When the oldest message of a queue was stored; `None` if it is empty. Java: `earliestMsgStoreTime`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn earliest_store_time(&self, queue: &MessageQueue) -> Result<Option<SystemTime>> {
        self.puller().reach(queue).await?;
        let millis = self.puller().remote.earliest_store_time(queue).await?;
        let since_1970 = millis.and_then(|millis| u64::try_from(millis).ok());
        Ok(since_1970.and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis))))
    }

    /// Notes that everything of a queue below an offset is consumed; the next regular commit tells the broker, at most a
    /// [`commit_interval`](super::PullConsumerBuilder::commit_interval) later. Java: `updateConsumeOffset`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an offset below 0.
    pub fn update_offset(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        self.puller().check_open()?;
        if offset < 0 {
            return Err(Error::config(format!(
                "offset {offset} of queue {queue} cannot be committed: it is below 0"
            )));
        }
        self.puller().update_offset(queue, offset);
        Ok(())
    }

    /// Commits what was noted of a queue now, and waits until its broker has confirmed it. Java: `persist`, which does
    /// not wait.
    ///
    /// # Errors
    /// Why the broker did not confirm; the next regular commit repeats it.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn persist(&self, queue: &MessageQueue) -> Result<()> {
        self.puller().reach(queue).await?;
        let (_, failed) = self.puller().persist(|noted| noted == queue, PATIENCE).await;
        failed.map_or(Ok(()), Err)
    }

    /// What was noted of a queue here, if anything. Java: `fetchConsumeOffset(queue, false)`, which goes on to ask the
    /// broker.
    #[must_use]
    pub fn noted_offset(&self, queue: &MessageQueue) -> Option<i64> {
        lock(&self.puller().offsets).offset(queue)
    }

    /// The offset that the group has committed of a queue, as its broker says; `None` if nothing. Java:
    /// `fetchConsumeOffset(queue, true)`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        self.puller().reach(queue).await?;
        self.puller().remote.committed_offset(queue).await
    }

    /// Gives a message back: the broker puts it into the group's retry topic, `%RETRY%<group>`, after a delay, or makes
    /// it a dead letter once it was given back too often. The retry topic is pulled like any other. Java:
    /// `sendMessageBack`.
    ///
    /// # Errors
    /// Why no broker took it.
    ///
    /// # Cancellation
    /// The broker may have the message all the same.
    pub async fn send_back(&self, message: &MessageView, retry: Retry) -> Result<()> {
        self.give_back(message, GiveBack::from(retry)).await
    }

    /// Makes a dead letter of a message: it goes to `%DLQ%<group>`. Java: `sendMessageBack` with delay level -1.
    ///
    /// # Errors
    /// As [`send_back`](Self::send_back).
    ///
    /// # Cancellation
    /// As [`send_back`](Self::send_back).
    pub async fn dead_letter(&self, message: &MessageView) -> Result<()> {
        self.give_back(message, GiveBack::Dead).await
    }

    async fn give_back(&self, message: &MessageView, give_back: GiveBack) -> Result<()> {
        let puller = self.puller();
        puller.check_open()?;
        let max = puller.options.max_reconsume_times;
        puller.remote.give_back(message, give_back, max).await
    }

    /// Shuts the consumer down: commits what was noted and leaves the group. Gives the number of queues whose last
    /// commit no broker confirmed.
    ///
    /// Calling it again, also at the same time, gives the same number.
    ///
    /// # Cancellation
    /// The shutdown stops where it is and is taken up by the next call.
    pub async fn shutdown(&self) -> usize {
        self.puller().shut_down().await
    }
}

impl fmt::Debug for PullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullConsumer")
            .field("group", &self.group())
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.puller.end_hard();
    }
}
