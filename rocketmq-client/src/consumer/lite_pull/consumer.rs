//! The handles to a running lite-pull consumer.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use super::commit::Commit;
use super::engine::Lite;
use super::held::Taken;
use super::seek::SeekTo;
use crate::cluster::Client;
use crate::consumer::filter::Filter;
use crate::error::Result;
use crate::message::MessageView;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// A consumer that hands messages out when it is asked to: it pulls in the background, keeps to its limits, and remembers
/// a position in each queue.
///
/// Made by [`Client::lite_pull_consumer`](crate::Client::lite_pull_consumer). There is one poller, the owner; everything
/// else can also be done through a [`handle`](Self::handle), from other tasks. The methods of [`LitePullHandle`] are
/// methods of the consumer too.
///
/// Dropping it ends it at once, without its last commits; [`shutdown`](Self::shutdown) ends it in order.
pub struct LitePullConsumer {
    handle: LitePullHandle,
    /// Keeps the client alive as long as the consumer.
    _client: Client,
}

/// What the user of a lite-pull consumer can do beside polling. Clones are handles to the same consumer; they do not
/// keep it alive.
#[derive(Clone)]
pub struct LitePullHandle(Arc<Lite>);

/// What a lite-pull consumer has done since it started, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LitePullStats {
    /// Messages received.
    pub received: u64,
    /// Messages handed out.
    pub polled: u64,
    /// Pulls that failed; each was repeated.
    pub failed_pulls: u64,
    /// Messages in the cache.
    pub cached: usize,
    /// Bytes held for them: whole pull responses, and room set aside for those on their way.
    pub cached_bytes: usize,
    /// The assigned queues.
    pub queues: Vec<MessageQueue>,
}

impl LitePullConsumer {
    pub(super) fn new(lite: Arc<Lite>, client: Client) -> Self {
        Self {
            handle: LitePullHandle(lite),
            _client: client,
        }
    }

    /// Messages that are there, or the first that come before the timeout: those of one pull of one queue, in their
    /// order. Nothing at the timeout; with a timeout of zero, only what is there already. Queues take turns. Java:
    /// `poll`.
    ///
    /// With automatic commits, polling again says that what was handed out before is handled. So a crash between two
    /// polls loses nothing: what the last poll gave comes again.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, ConsumeFrom, Message};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "paid")).await?;
    /// let mut audit = client
    ///     .lite_pull_consumer("audit")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .start()
    ///     .await?;
    /// let mut seen = 0;
    /// while seen == 0 {
    ///     for message in audit.poll(Duration::from_secs(1)).await? {
    ///         println!("{} at {} of {}", message.message_id(), message.queue_offset(), message.queue());
    ///         seen += 1;
    ///     }
    /// }
    /// audit.shutdown().await; // commits what was polled
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) once the consumer, or its client, is shut down. Trouble with
    /// brokers is none: pulls are repeated until they work.
    ///
    /// # Cancellation
    /// Safe: messages leave the cache in the moment in which they are returned. A poll that is dropped has taken
    /// nothing.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<MessageView>> {
        let lite = &self.handle.0;
        lock(&lite.held).count_as_handled();
        let deadline = Instant::now().checked_add(timeout);
        loop {
            lite.check_open()?;
            if let Some(taken) = lite.take() {
                return Ok(taken);
            }
            let arrived = async {
                // A permit is kept for who comes too late to wait.
                let arrived = lite.arrived.notified();
                match deadline {
                    Some(deadline) => timeout_at(deadline, arrived).await.is_ok(),
                    None => {
                        arrived.await;
                        true
                    }
                }
            };
            if lite.intake.token().run_until_cancelled(arrived).await == Some(false) {
                return Ok(Vec::new());
            }
        }
    }

    /// What can be done from elsewhere while this one polls.
    #[must_use]
    pub fn handle(&self) -> LitePullHandle {
        self.handle.clone()
    }

    /// Shuts the consumer down: stops pulling, commits, and leaves the group. With automatic commits, calling it says
    /// that everything that was polled is handled. Gives the number of queues whose last commit no broker confirmed:
    /// what was handled since the commit before may come again.
    ///
    /// The shutdown of the [`Client`] does the same to consumers that still run, but counts only what was polled before
    /// the last poll as handled.
    ///
    /// # Cancellation
    /// The shutdown stops where it is, and the consumer ends hard.
    pub async fn shutdown(self) -> usize {
        self.handle.0.shut_down(true).await
    }
}

impl Deref for LitePullConsumer {
    type Target = LitePullHandle;

    fn deref(&self) -> &LitePullHandle {
        &self.handle
    }
}

impl Drop for LitePullConsumer {
    fn drop(&mut self) {
        self.handle.0.end_hard();
    }
}

impl LitePullHandle {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0.group
    }

    /// Whether the consumer runs. Java: `isRunning`.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.check_open().is_ok()
    }

    /// Goes on at another place of a queue, which it gives: everything of the queue that is cached or on its way is let
    /// go. Once this has returned, no poll gives a message of the queue from before. Java: `seek`, `seekToBegin`,
    /// `seekToEnd`.
    ///
    /// The committed offset follows with the next commit, back too.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, Message, SeekTo};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// let stored = producer.send(Message::new("orders", "paid")).await?;
    /// let mut audit = client.lite_pull_consumer("audit").start_assigned([stored.queue.clone()]).await?;
    /// let first = audit.poll(Duration::from_secs(10)).await?;
    /// audit.seek(&stored.queue, SeekTo::Begin).await?;
    /// let again = audit.poll(Duration::from_secs(10)).await?;
    /// assert_eq!(first[0].message_id(), again[0].message_id());
    /// # audit.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a queue that is not assigned (any more), and for an offset
    /// outside of the queue, whose limits the error names; whatever the question for those limits fails with.
    ///
    /// # Cancellation
    /// Safe: the queue is sought or not.
    pub async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<i64> {
        self.0.seek(queue, to).await
    }

    /// Stops handing out these queues, at once: what is cached of them stays there. The queues stay assigned. Java:
    /// `pause`, which still hands out what is cached.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a queue that is not assigned; the others are paused. A queue
    /// that is lost and comes back is not paused.
    pub fn pause<'a>(&self, queues: impl IntoIterator<Item = &'a MessageQueue>) -> Result<()> {
        self.set_paused(queues, true)
    }

    /// Hands these queues out again. Java: `resume`.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume<'a>(&self, queues: impl IntoIterator<Item = &'a MessageQueue>) -> Result<()> {
        self.set_paused(queues, false)
    }

    fn set_paused<'a>(&self, queues: impl IntoIterator<Item = &'a MessageQueue>, paused: bool) -> Result<()> {
        self.0.check_open()?;
        let what = if paused { "pause" } else { "resume" };
        let mut unknown = None;
        for queue in queues {
            if !lock(&self.0.held).pause(queue, paused) {
                unknown = Some(self.0.not_assigned(what, queue));
            }
        }
        if !paused {
            self.0.arrived.notify_one();
        }
        unknown.map_or(Ok(()), Err)
    }

    /// The queues that are paused.
    #[must_use]
    pub fn paused(&self) -> Vec<MessageQueue> {
        let held = lock(&self.0.held);
        let paused = held.standings().filter(|(_, standing)| standing.paused);
        paused.map(|(queue, _)| queue.clone()).collect()
    }

    /// Commits what was polled: of all queues, unless the [`Commit`] is told otherwise. Awaited, it is done when the
    /// brokers have confirmed it. Java: `commit`, `commitSync`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, Message};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # let queue = producer.send(Message::new("orders", "paid")).await?.queue;
    /// let mut audit = client
    ///     .lite_pull_consumer("audit")
    ///     .manual_commit()
    ///     .start_assigned([queue.clone()])
    ///     .await?;
    /// let batch = audit.poll(Duration::from_secs(10)).await?;
    /// // .. handle the batch, then
    /// audit.commit().await?; // all that was polled, confirmed
    /// audit.commit().queues([&queue]).later()?; // of one queue, with the next regular commit
    /// audit.commit().offsets([(queue.clone(), batch[0].queue_offset() + 1)]).await?;
    /// assert_eq!(audit.committed(&queue).await?, Some(1));
    /// # audit.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When it is awaited: [`ErrorKind::Config`](crate::ErrorKind::Config) for a queue that is not assigned (any more),
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after a shutdown, or why a broker did not confirm; what is not
    /// confirmed is repeated by the next regular commit.
    ///
    /// # Cancellation
    /// Safe: commits can be repeated, and those that were not sent are.
    pub fn commit(&self) -> Commit {
        Commit::new(&self.0)
    }

    /// The offset that the group has committed of a queue, as its broker says; `None` if nothing. Java: `committed`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        self.0.check_open()?;
        self.0.remote.look_for(queue).await;
        self.0.remote.committed_offset(queue).await
    }

    /// The offset of a queue that is handed out next; `None` if the queue is not assigned or its first offset is not
    /// known yet.
    #[must_use]
    pub fn position(&self, queue: &MessageQueue) -> Option<i64> {
        lock(&self.0.held).standing(queue)?.position
    }

    /// The oldest offset of a queue.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        self.0.check_open()?;
        self.0.remote.look_for(queue).await;
        self.0.remote.min_offset(queue).await
    }

    /// One past the newest offset of a queue.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        self.0.check_open()?;
        self.0.remote.look_for(queue).await;
        self.0.remote.max_offset(queue).await
    }

    /// The offset of the first message of a queue that was stored at a time or later; brokers of 4.9 give the nearest
    /// message's. Java: `offsetForTimestamp`.
    ///
    /// # Errors
    /// Whatever the question fails with.
    pub async fn offset_for_timestamp(&self, queue: &MessageQueue, time: SystemTime) -> Result<i64> {
        self.0.check_open()?;
        self.0.remote.look_for(queue).await;
        self.0.remote.offset_stored_at(queue, time).await
    }

    /// The assigned queues. Java: `assignment`.
    #[must_use]
    pub fn assignment(&self) -> Vec<MessageQueue> {
        lock(&self.0.held).queues().cloned().collect()
    }

    /// All queues of a topic that can be read; none if it does not exist. Java: `fetchMessageQueues`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub async fn queues_of(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        self.0.check_open()?;
        let topic = self.0.remote.cluster().user_name(topic);
        let mut queues = self.0.remote.queues(&topic).await?;
        queues.sort();
        Ok(queues)
    }

    /// Calls a listener with the queues of a topic whenever they are not what they were, looked at every
    /// [`topic_check_interval`](super::LitePullConsumerBuilder::topic_check_interval). A topic has one listener, the
    /// last; it must not block. Java: `registerTopicMessageQueueChangeListener`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub async fn on_topic_change(
        &self,
        topic: &str,
        listener: impl Fn(&str, &[MessageQueue]) + Send + Sync + 'static,
    ) -> Result<()> {
        let topic = self.0.remote.cluster().user_name(topic).into_owned();
        self.0.listen(&topic, listener).await
    }

    /// Subscribes to another topic, or to the same one with another filter, while the consumer runs. What is cached of
    /// an earlier filter is pulled again by the new one. Java: `subscribe`.
    ///
    /// Returns when the brokers that can be reached know of it. All members of the group have to make the same change.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a topic or a filter that cannot be one, and for a consumer
    /// with assigned queues.
    ///
    /// # Cancellation
    /// The subscription is as it was, or changed; then the next heartbeat tells the brokers.
    pub async fn subscribe(&self, topic: impl Into<String>, filter: impl Into<Filter>) -> Result<()> {
        let topic = self.0.remote.cluster().user_name(&topic.into()).into_owned();
        self.0.subscribe(&topic, filter.into()).await
    }

    /// Gives a topic up while the consumer runs, and commits what is known of its queues. Whether it was subscribed to.
    /// Java: `unsubscribe`.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn unsubscribe(&self, topic: &str) -> Result<bool> {
        let topic = self.0.remote.cluster().user_name(topic).into_owned();
        self.0.unsubscribe(&topic).await
    }

    /// The topics that are subscribed to, and what is wanted of them.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeMap<String, Filter> {
        let table = self.0.subscriptions.table();
        let filters = table.iter();
        filters
            .map(|(topic, subscription)| (topic.to_string(), subscription.filter.clone()))
            .collect()
    }

    /// Makes these the assigned queues: those that were assigned before keep their positions, the others start where
    /// the group is, and what is known of queues that are given up is committed. Java: `assign`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for no queue at all, and for a consumer that subscribes.
    ///
    /// # Cancellation
    /// Safe: the assignment is as it was, or changed.
    pub async fn assign(&self, queues: impl IntoIterator<Item = MessageQueue>) -> Result<()> {
        let queues = queues.into_iter().map(|queue| self.0.remote.user_queue(queue));
        self.0.assign(queues.collect()).await
    }

    /// What the consumer has done so far, and what it holds at the moment.
    #[must_use]
    pub fn stats(&self) -> LitePullStats {
        let lite = &self.0;
        let mut stats = LitePullStats {
            received: lite.counters.received.load(Ordering::Relaxed),
            polled: lite.counters.polled.load(Ordering::Relaxed),
            failed_pulls: lite.counters.failed_pulls.load(Ordering::Relaxed),
            cached_bytes: lite.budget.used(),
            ..LitePullStats::default()
        };
        let held = lock(&lite.held);
        for (queue, standing) in held.standings() {
            stats.cached += standing.messages;
            stats.queues.push(queue.clone());
        }
        stats
    }
}

impl Lite {
    /// What is first in line.
    fn take(&self) -> Option<Vec<MessageView>> {
        let taken = lock(&self.held).take()?;
        let Taken {
            queue,
            records,
            bytes,
        } = taken;
        self.budget.release(bytes);
        self.counters
            .polled
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        let namespace = self.remote.cluster().namespace();
        let messages: Vec<_> = records
            .into_iter()
            .map(|record| MessageView::in_namespace(record, queue.clone(), namespace))
            .collect();
        if let Some(tracer) = self.remote.cluster().trace() {
            self.remote.trace_polled(tracer, &messages);
        }
        Some(messages)
    }
}

impl fmt::Debug for LitePullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.handle, f)
    }
}

impl fmt::Debug for LitePullHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LitePullConsumer")
            .field("group", &self.group())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
