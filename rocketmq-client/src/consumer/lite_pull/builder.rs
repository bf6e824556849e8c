//! How a lite-pull consumer is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::LitePullConsumer;
use super::engine::{Lite, Mode};
use super::options::Options;
use super::watch::{AssignmentChange, AssignmentListener};
use crate::cluster::Client;
use crate::consumer::allocate::AllocateStrategy;
use crate::consumer::filter::Filter;
use crate::consumer::filters::check_filters;
use crate::consumer::first_offset::ConsumeFrom;
use crate::consumer::remote::Remote;
use crate::error::{Error, Result};
use crate::memory::MemoryLimit;
use crate::protocol::bodies::MessageQueue;

impl Client {
    /// A lite-pull consumer of this group: it pulls in the background, and its owner polls. One client can have one
    /// consumer of each group. Java: `DefaultLitePullConsumer`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, SeekTo};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let name_servers = broker.name_server();
    /// let client = Client::connect(name_servers).await?;
    /// let mut audit = client
    ///     .lite_pull_consumer("audit")
    ///     .subscribe("orders", "*")
    ///     .manual_commit()
    ///     .start()
    ///     .await?;
    /// for message in audit.poll(Duration::from_millis(10)).await? {
    ///     println!("{} {:?}", message.message_id(), message.body());
    /// }
    /// audit.commit().await?;
    /// for queue in audit.assignment() {
    ///     audit.seek(&queue, SeekTo::End).await?;
    /// }
    /// audit.shutdown().await;
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lite_pull_consumer(&self, group: impl Into<String>) -> LitePullConsumerBuilder {
        let group = self.cluster().user_name(&group.into()).into_owned();
        LitePullConsumerBuilder {
            client: self.clone(),
            group,
            subscriptions: Vec::new(),
            filters: Vec::new(),
            options: Options::default(),
            assignment_listener: None,
        }
    }
}

/// A lite-pull consumer that is being configured. Made by
/// [`Client::lite_pull_consumer`](crate::Client::lite_pull_consumer).
///
/// Nothing is checked before [`start`](Self::start) or [`start_assigned`](Self::start_assigned), which report all that
/// is wrong at once.
#[derive(Debug)]
#[must_use = "a consumer does nothing until it is started"]
pub struct LitePullConsumerBuilder {
    client: Client,
    group: String,
    subscriptions: Vec<(String, Filter)>,
    /// For assigned queues.
    filters: Vec<(String, Filter)>,
    options: Options,
    assignment_listener: Option<AssignmentListener>,
}

impl LitePullConsumerBuilder {
    /// Shares the queues of a topic with the other members of the group: `"*"` or [`Filter::all`] for all messages,
    /// `"vip || late"` for those with one of these tags. Call it for each topic, then [`start`](Self::start). Java:
    /// `subscribe`.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: impl Into<Filter>) -> Self {
        let topic = self.client.cluster().user_name(&topic.into()).into_owned();
        self.subscriptions.push((topic, filter.into()));
        self
    }

    /// What is wanted of a topic whose queues are [assigned](Self::start_assigned). Default everything. Java:
    /// `setSubExpressionForAssign`.
    pub fn assigned_filter(mut self, topic: impl Into<String>, filter: impl Into<Filter>) -> Self {
        let topic = self.client.cluster().user_name(&topic.into()).into_owned();
        self.filters.push((topic, filter.into()));
        self
    }

    /// Commits only what [`commit`](super::LitePullHandle::commit) says. Default: what was polled is committed
    /// regularly, as soon as the next poll says that it is handled. Java: `autoCommit` false.
    pub fn manual_commit(mut self) -> Self {
        self.options.automatic = false;
        self
    }

    /// How often offsets are committed; at least 1 s. Default 5 s. Java: `autoCommitIntervalMillis`, and
    /// `persistConsumerOffsetInterval` for manual commits.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.options.commit_interval = interval;
        self
    }

    /// Where the group starts in queues that it has no offset for. Default [`ConsumeFrom::Last`]. Java:
    /// `consumeFromWhere` and `consumeTimestamp`.
    pub fn consume_from(mut self, consume_from: ConsumeFrom) -> Self {
        self.options.consume_from = consume_from;
        self
    }

    /// How many messages one pull asks for; from 1 to 1024. Brokers give 32 at the most unless configured otherwise.
    /// Default 32; Java's is 10. Java: `pullBatchSize`.
    pub fn pull_batch_size(mut self, messages: usize) -> Self {
        self.options.pull_batch_size = messages;
        self
    }

    /// A queue with so many messages in the cache is not pulled; from 1 to 65535. Default 1000. Java:
    /// `pullThresholdForQueue`.
    pub fn max_cached_messages_per_queue(mut self, messages: usize) -> Self {
        self.options.limits.messages = messages;
        self
    }

    /// With so many messages in all caches together, no queue is pulled. Default 10000. Java: `pullThresholdForAll`.
    pub fn max_cached_messages(mut self, messages: usize) -> Self {
        self.options.max_cached_messages = messages;
        self
    }

    /// A queue with so many bytes in the cache is not pulled; at least 64 KiB. Default 100 MiB. Java:
    /// `pullThresholdSizeForQueue`.
    pub fn max_cached_bytes_per_queue(mut self, bytes: usize) -> Self {
        self.options.limits.bytes = bytes;
        self
    }

    /// How many bytes may be held over all queues; at least 64 KiB. Default 256 MiB. Java has no such limit. Counted are
    /// whole pull responses, from before they are asked for until they are polled.
    pub fn max_cached_bytes(mut self, bytes: usize) -> Self {
        self.options.max_cached_bytes = bytes;
        self
    }

    /// A limit that this consumer shares with others, of other clients too. Default that of the
    /// [client](crate::ClientBuilder::memory_limit). Java has no such limit.
    pub fn memory_limit(mut self, limit: &MemoryLimit) -> Self {
        self.options.memory_limit = Some(limit.clone());
        self
    }

    /// A queue whose first and last message in the cache are further apart is not pulled; from 1 to 65535. Default 2000.
    /// Java: `consumeMaxSpan`.
    pub fn max_span(mut self, offsets: u32) -> Self {
        self.options.limits.span = i64::from(offsets);
        self
    }

    /// How long a broker may hold a pull while there is nothing. Default 20 s. Java: `brokerSuspendMaxTimeMillis`.
    pub fn broker_suspend(mut self, time: Duration) -> Self {
        self.options.broker_suspend = time;
        self
    }

    /// How long a pull may take in all; longer than [`broker_suspend`](Self::broker_suspend). Default 30 s. Java:
    /// `consumerTimeoutMillisWhenSuspend`.
    pub fn pull_timeout(mut self, timeout: Duration) -> Self {
        self.options.pull_timeout = timeout;
        self
    }

    /// How often the queues are divided anew when nothing asks for it earlier. Default 20 s.
    pub fn rebalance_interval(mut self, interval: Duration) -> Self {
        self.options.rebalance_interval = interval;
        self
    }

    /// How often topics are looked at that [somebody listens to](super::LitePullHandle::on_topic_change). Default 30 s.
    /// Java: `topicMetadataCheckIntervalMillis`.
    pub fn topic_check_interval(mut self, interval: Duration) -> Self {
        self.options.topic_check_interval = interval;
        self
    }

    /// How queues are divided among the members. Default [`AllocateAveragely`](crate::AllocateAveragely). Java:
    /// `allocateMessageQueueStrategy`.
    pub fn allocate_strategy(mut self, strategy: impl AllocateStrategy) -> Self {
        self.options.allocate = Arc::new(strategy);
        self
    }

    /// Calls a listener whenever the consumer's share of a topic has changed, with the queues that it has now. It must
    /// not block. Java: `setMessageQueueListener`, and `subscribe` with one.
    pub fn assignment_listener(
        mut self,
        listener: impl Fn(&AssignmentChange<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.assignment_listener = Some(AssignmentListener::new(listener));
        self
    }

    /// Starts a consumer that shares the queues of its topics with the other members of its group. Returns as soon as
    /// the group has joined; the topics need not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names everything that is wrong with group, subscriptions
    /// and options, or if this client consumes for the group already; [`ErrorKind::Closed`](crate::ErrorKind::Closed)
    /// if the client was shut down.
    ///
    /// # Cancellation
    /// Safe: nothing runs before it returns.
    pub async fn start(self) -> Result<LitePullConsumer> {
        let mut faults = Vec::new();
        if self.subscriptions.is_empty() {
            faults.push("no topic is subscribed to; call subscribe, or start_assigned".to_owned());
        }
        if !self.filters.is_empty() {
            faults.push("assigned_filter is for start_assigned; give the filter to subscribe".to_owned());
        }
        let topics = check_filters(self.client.cluster(), &self.subscriptions, &mut faults);
        let consumer = self.build(Mode::Subscribed, topics, faults)?;
        consumer.run().await
    }

    /// Starts a consumer of exactly these queues, whoever else of the group consumes them: nothing is divided. Java:
    /// `assign`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Cancellation
    /// Safe: nothing runs before it returns.
    pub async fn start_assigned(
        self,
        queues: impl IntoIterator<Item = MessageQueue>,
    ) -> Result<LitePullConsumer> {
        let mut faults = Vec::new();
        if !self.subscriptions.is_empty() {
            faults.push(
                "queues are assigned and topics subscribed to; give filters to assigned_filter instead"
                    .to_owned(),
            );
        }
        let filters = check_filters(self.client.cluster(), &self.filters, &mut faults);
        let starting = self.build(Mode::Assigned(filters), BTreeMap::new(), faults)?;
        let lite = Arc::clone(&starting.lite);
        let queues: Vec<_> = queues
            .into_iter()
            .map(|queue| lite.remote.user_queue(queue))
            .collect();
        lite.check_queues(&queues)?;
        let consumer = starting.run().await?;
        lite.assign(queues).await?;
        Ok(consumer)
    }

    fn build(
        self,
        mode: Mode,
        topics: BTreeMap<Arc<str>, Filter>,
        mut faults: Vec<String>,
    ) -> Result<Starting> {
        let cluster = self.client.cluster();
        if let Err(error) = cluster.check_group(&self.group) {
            faults.push(error.to_string());
        }
        faults.extend(self.options.faults());
        if !faults.is_empty() {
            let text = format!(
                "lite-pull consumer of group {:?} cannot start: {}",
                self.group,
                faults.join("; ")
            );
            return Err(Error::config(text));
        }
        let group: Arc<str> = self.group.into();
        let remote = Remote::new(Arc::clone(cluster), Arc::clone(&group));
        let lite = Lite::new(
            group,
            mode,
            topics,
            self.options,
            self.assignment_listener,
            remote,
        );
        Ok(Starting {
            lite: Arc::new(lite),
            client: self.client,
        })
    }
}

/// A consumer that is about to join its group.
struct Starting {
    lite: Arc<Lite>,
    client: Client,
}

impl Starting {
    async fn run(self) -> Result<LitePullConsumer> {
        let consumer = LitePullConsumer::new(Arc::clone(&self.lite), self.client);
        // If this is cut off half-way, dropping the consumer leaves the group.
        self.lite.join().await?;
        self.lite.run();
        Ok(consumer)
    }
}
