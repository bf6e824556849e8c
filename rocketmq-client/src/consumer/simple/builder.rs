//! How a simple consumer is made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::member::{Core, Member};
use super::{FAREWELL, Running, SimpleConsumer};
use crate::cluster::Client;
use crate::consumer::filter::Filter;
use crate::consumer::first_offset::ConsumeFrom;
use crate::error::{Error, Result};

impl Client {
    /// A simple consumer of this group: it receives when it is asked to. It shares the connections, routes and
    /// heartbeats of this client; one client can have one consumer of each group.
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
    /// # let producer = client.producer("scheduler").start().await?;
    /// # producer.send(Message::new("tasks", "resize 7")).await?;
    /// let simple = client
    ///     .simple_consumer("jobs")
    ///     .subscribe("tasks", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .start()
    ///     .await?;
    /// let invisible = Duration::from_secs(30);
    /// for mut job in simple.receive(16, invisible).await? {
    ///     println!("{:?}, attempt {}", job.body(), job.attempt());
    ///     // It takes longer than expected: nobody else is to get it meanwhile.
    ///     simple.change_invisible(&mut job, invisible * 2).await?;
    ///     simple.ack(&job).await?;
    /// }
    /// simple.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn simple_consumer(&self, group: impl Into<String>) -> SimpleConsumerBuilder {
        let group = self.cluster().user_name(&group.into()).into_owned();
        SimpleConsumerBuilder {
            client: self.clone(),
            group,
            subscriptions: Vec::new(),
            options: Options {
                await_duration: Duration::from_secs(15),
                consume_from: ConsumeFrom::Last,
                orderly: false,
            },
        }
    }
}

/// A simple consumer that is being configured. Made by [`Client::simple_consumer`].
///
/// Nothing is checked before [`start`](Self::start), which reports all that is wrong at once.
#[must_use = "a consumer does nothing until it is started"]
pub struct SimpleConsumerBuilder {
    client: Client,
    group: String,
    subscriptions: Vec<(String, Filter)>,
    options: Options,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) await_duration: Duration,
    pub(super) consume_from: ConsumeFrom,
    pub(super) orderly: bool,
}

impl SimpleConsumerBuilder {
    /// Receives from a topic: `"*"` or [`Filter::all`] for all messages, `"vip || late"` for those with one of these
    /// tags. Call it for each topic.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: impl Into<Filter>) -> Self {
        let topic = self.client.cluster().user_name(&topic.into()).into_owned();
        self.subscriptions.push((topic, filter.into()));
        self
    }

    /// How long [`receive`](SimpleConsumer::receive) waits when there is nothing; up to 10 minutes, 0 for not at all.
    /// Default 15 s.
    pub fn await_duration(mut self, duration: Duration) -> Self {
        self.options.await_duration = duration;
        self
    }

    /// Where the group starts in queues that it has no offset for: at the newest message, which is the default, or at
    /// the oldest. Brokers cannot hand messages out from a time on.
    pub fn consume_from(mut self, consume_from: ConsumeFrom) -> Self {
        self.options.consume_from = consume_from;
        self
    }

    /// Receives the messages of each queue in their order: as long as one that was received is neither acknowledged nor
    /// visible again, nobody in the group gets a later one of its queue. Default false.
    ///
    /// All consumers of a group have to say the same.
    pub fn orderly(mut self) -> Self {
        self.options.orderly = true;
        self
    }

    /// Joins the group. Returns as soon as the brokers that are known have heard of it; the topics need not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names everything that is wrong, or if this client consumes
    /// for the group already; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where a broker is older than
    /// 5.0; [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the client was shut down.
    ///
    /// # Cancellation
    /// Safe: the group is left again.
    pub async fn start(self) -> Result<SimpleConsumer> {
        let subscriptions = self.check()?;
        let client = self.client;
        let core = Arc::new(Core::new(
            Arc::clone(client.cluster()),
            self.group.into(),
            subscriptions,
            self.options,
        ));
        core.find_topics().await;
        // From here on dropping it leaves the group.
        let consumer = SimpleConsumer(Arc::new(Running {
            core: Arc::clone(&core),
            shut_down: OnceCell::new(),
            _client: client,
        }));
        if let Err(error) = core.remote.join(Arc::new(Member(Arc::clone(&core)))).await {
            // It is not registered: what is, is somebody else's.
            core.close();
            return Err(error);
        }
        if let Err(error) = core.check_brokers().await {
            core.close();
            core.remote.leave(FAREWELL).await;
            return Err(error);
        }
        Ok(consumer)
    }

    fn check(&self) -> Result<BTreeMap<Arc<str>, Filter>> {
        let mut faults = Vec::new();
        let cluster = self.client.cluster();
        if let Err(error) = cluster.check_group(&self.group) {
            faults.push(error.to_string());
        }
        if self.subscriptions.is_empty() {
            faults.push("no topic is subscribed to; call subscribe".into());
        }
        if self.options.await_duration > MAX_AWAIT {
            faults.push(format!(
                "await_duration is {:?}, it has to be at most {MAX_AWAIT:?}",
                self.options.await_duration
            ));
        }
        if let ConsumeFrom::Timestamp(_) = self.options.consume_from {
            faults.push(
                "consume_from is a time, from which brokers cannot hand messages out; use First or Last"
                    .into(),
            );
        }
        let mut subscriptions = BTreeMap::new();
        for (topic, filter) in &self.subscriptions {
            if let Err(error) = cluster.check_topic(topic) {
                faults.push(error.to_string());
            }
            if let Err(fault) = filter.check() {
                faults.push(format!("filter of topic {topic:?}: {fault}"));
            }
            if subscriptions
                .insert(Arc::from(topic.as_str()), filter.clone())
                .is_some()
            {
                faults.push(format!(
                    "topic {topic:?} is subscribed to twice; name all tags in one filter"
                ));
            }
        }
        if faults.is_empty() {
            return Ok(subscriptions);
        }
        Err(Error::config(format!(
            "simple consumer of group {:?} cannot start: {}",
            self.group,
            faults.join("; ")
        )))
    }
}

/// The longest that a receive may wait.
const MAX_AWAIT: Duration = Duration::from_secs(600);

impl fmt::Debug for SimpleConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.subscriptions)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
