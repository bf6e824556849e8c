//! How a pull consumer is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::PullConsumer;
use super::engine::{Options, Puller};
use crate::cluster::Client;
use crate::consumer::allocate::AllocateStrategy;
use crate::consumer::filter::Filter;
use crate::consumer::filters::check_filters;
use crate::consumer::lite_pull::{AssignmentChange, AssignmentListener};
use crate::consumer::remote::Remote;
use crate::consumer::subscriptions::Subscriptions;
use crate::error::{Error, Result};
use crate::protocol::bodies::MessageModel;
use crate::trace::now_millis;

impl Client {
    /// A pull consumer of this group: single pulls, offsets in the user's hands. Prefer a
    /// [lite-pull consumer](Self::lite_pull_consumer) unless you want exactly that. One client can have one consumer of
    /// each group. Java: `DefaultMQPullConsumer`.
    ///
    /// ```
    /// use rocketmq_client::{Client, Message, protocol::requests::PullStatus};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "paid")).await?;
    /// let puller = client.pull_consumer("archive").start().await?;
    /// for queue in puller.queues_of("orders").await? {
    ///     let mut offset = puller.committed(&queue).await?.unwrap_or(0);
    ///     loop {
    ///         let pulled = puller.pull(&queue, "*", offset, 32).await?;
    ///         if pulled.status == PullStatus::NoNewMessage {
    ///             break;
    ///         }
    ///         for message in &pulled.messages {
    ///             println!("{message:?}");
    ///         }
    ///         offset = pulled.next_offset;
    ///     }
    ///     puller.update_offset(&queue, offset)?;
    /// }
    /// puller.shutdown().await; // commits the offsets
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pull_consumer(&self, group: impl Into<String>) -> PullConsumerBuilder {
        let group = self.cluster().user_name(&group.into()).into_owned();
        PullConsumerBuilder {
            client: self.clone(),
            group,
            registered: Vec::new(),
            options: Options::default(),
            listener: None,
        }
    }
}

/// A pull consumer that is being configured. Made by [`Client::pull_consumer`](crate::Client::pull_consumer).
///
/// Nothing is checked before [`start`](Self::start), which reports all that is wrong at once.
#[derive(Debug)]
#[must_use = "a consumer does nothing until it is started"]
pub struct PullConsumerBuilder {
    client: Client,
    group: String,
    registered: Vec<(String, Filter)>,
    options: Options,
    listener: Option<AssignmentListener>,
}

impl PullConsumerBuilder {
    /// Divides the queues of a topic among the members of the group; see
    /// [`queues_in_balance`](PullConsumer::queues_in_balance). Brokers are told of the filter; pulls have their own. Java:
    /// `setRegisterTopics`, `addRegisterSubscriptions`.
    pub fn register(mut self, topic: impl Into<String>, filter: impl Into<Filter>) -> Self {
        let topic = self.client.cluster().user_name(&topic.into()).into_owned();
        self.registered.push((topic, filter.into()));
        self
    }

    /// Whether registered topics are divided at all. Default true. Java: `enableRebalance`.
    pub fn rebalance(mut self, rebalance: bool) -> Self {
        self.options.rebalance = rebalance;
        self
    }

    /// How often they are divided anew when nothing asks for it earlier. Default 20 s.
    pub fn rebalance_interval(mut self, interval: Duration) -> Self {
        self.options.rebalance_interval = interval;
        self
    }

    /// Gives every member all queues of the registered topics. Default: they share them. Offsets stay the group's, on
    /// the brokers. Java: `messageModel`.
    pub fn broadcasting(mut self) -> Self {
        self.options.message_model = MessageModel::Broadcasting;
        self
    }

    /// How queues are divided among the members. Default [`AllocateAveragely`](crate::AllocateAveragely). Java:
    /// `allocateMessageQueueStrategy`.
    pub fn allocate_strategy(mut self, strategy: impl AllocateStrategy) -> Self {
        self.options.allocate = Arc::new(strategy);
        self
    }

    /// Calls a listener whenever the consumer's share of a topic has changed, with the queues that it has now. It must
    /// not block. Java: `registerMessageQueueListener`, `setMessageQueueListener`.
    pub fn assignment_listener(
        mut self,
        listener: impl Fn(&AssignmentChange<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.listener = Some(AssignmentListener::new(listener));
        self
    }

    /// How often noted offsets are committed. Default 5 s. Java: `persistConsumerOffsetInterval`.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.options.commit_interval = interval;
        self
    }

    /// How long a pull may take that does not wait for messages. Default 10 s. Java: `consumerPullTimeoutMillis`.
    pub fn pull_timeout(mut self, timeout: Duration) -> Self {
        self.options.pull_timeout = timeout;
        self
    }

    /// How long a broker may hold a pull that [waits](super::PullBuilder::wait). Default 20 s. Java:
    /// `brokerSuspendMaxTimeMillis`.
    pub fn broker_suspend(mut self, time: Duration) -> Self {
        self.options.broker_suspend = time;
        self
    }

    /// How long a pull that waits may take in all; longer than [`broker_suspend`](Self::broker_suspend). Default 30 s.
    /// Java: `consumerTimeoutMillisWhenSuspend`.
    pub fn suspended_pull_timeout(mut self, timeout: Duration) -> Self {
        self.options.suspended_pull_timeout = timeout;
        self
    }

    /// How often a message can be [given back](PullConsumer::send_back) before it becomes a dead letter. Default 16.
    /// Java: `maxReconsumeTimes`.
    pub fn max_reconsume_times(mut self, times: u32) -> Self {
        // A number out of range is reported at the start.
        self.options.max_reconsume_times = i32::try_from(times).unwrap_or(-1);
        self
    }

    /// Joins the group.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names everything that is wrong with group, topics and
    /// options, or if this client consumes for the group already; [`ErrorKind::Closed`](crate::ErrorKind::Closed) if
    /// the client was shut down.
    ///
    /// # Cancellation
    /// Safe: nothing runs before it returns.
    pub async fn start(self) -> Result<PullConsumer> {
        let registered = self.check()?;
        let cluster = Arc::clone(self.client.cluster());
        let group: Arc<str> = self.group.into();
        let remote = Remote::new(cluster, Arc::clone(&group));
        let started = now_millis();
        let puller = Arc::new(Puller::new(
            group,
            Subscriptions::new(registered, started),
            started,
            self.options,
            self.listener,
            remote,
        ));
        // If this is cut off half-way, dropping the consumer leaves the group.
        let consumer = PullConsumer::new(Arc::clone(&puller), self.client);
        puller.join().await?;
        puller.run();
        Ok(consumer)
    }

    fn check(&self) -> Result<BTreeMap<Arc<str>, Filter>> {
        let cluster = self.client.cluster();
        let mut faults = self.options.faults();
        if let Err(error) = cluster.check_group(&self.group) {
            faults.push(error.to_string());
        }
        let registered = check_filters(cluster, &self.registered, &mut faults);
        if faults.is_empty() {
            return Ok(registered);
        }
        let text = format!(
            "pull consumer of group {:?} cannot start: {}",
            self.group,
            faults.join("; ")
        );
        Err(Error::config(text))
    }
}
