//! How a push consumer is made.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::allocate::AllocateStrategy;
use super::batch::BatchService;
use super::broadcast::{Broadcasting, LocalOffsets};
use super::engine::Engine;
use super::filter::Filter;
use super::first_offset::{ConsumeFrom, NewQueues};
use super::handler::{Function, Handler, HandlerService, Layered};
use super::options::Options;
use super::outcome::{BoxError, IntoOutcome, Outcome};
use super::push::PushConsumer;
use super::remote::Remote;
use super::stream::{LeasedStream, lease};
use super::worker::{Singly, Work};
use crate::cluster::Client;
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::names;
use crate::trace::now_millis;

impl Client {
    /// A push consumer of this group: messages come to a handler or a stream. It shares the connections, routes and
    /// heartbeats of this client; one client can have one consumer of each group.
    ///
    /// ```
    /// use rocketmq_client::{Client, MessageView};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let name_servers = broker.name_server();
    /// let client = Client::connect(name_servers).await?;
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "vip || late")
    ///     .concurrency(8)
    ///     .start(|message: MessageView| async move {
    ///         println!("{} {:?}", message.message_id(), message.body());
    ///         Ok::<_, std::io::Error>(()) // an error: the message comes again
    ///     })
    ///     .await?;
    /// // ..
    /// consumer.shutdown().await;
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_consumer(&self, group: impl Into<String>) -> PushConsumerBuilder {
        let group = self.cluster().user_name(&group.into()).into_owned();
        PushConsumerBuilder::new(self.clone(), group)
    }
}

/// A push consumer that is being configured. Made by [`Client::push_consumer`](crate::Client::push_consumer).
///
/// All members of a group have to have the same subscriptions and the same strategy of allocation.
///
/// Nothing is checked before [`start`](Self::start) or [`stream`](Self::stream), which report all that is wrong at
/// once.
#[must_use = "a consumer does nothing until it is started"]
pub struct PushConsumerBuilder {
    client: Client,
    group: String,
    subscriptions: Vec<(String, Filter)>,
    pub(super) options: Options,
    /// From the outermost to the innermost.
    pub(super) layers: Vec<Box<dyn FnOnce(HandlerService) -> HandlerService + Send>>,
    /// The same for batches.
    pub(super) batch_layers: Vec<Box<dyn FnOnce(BatchService) -> BatchService + Send>>,
}

impl PushConsumerBuilder {
    fn new(client: Client, group: String) -> Self {
        Self {
            client,
            group,
            subscriptions: Vec::new(),
            options: Options::default(),
            layers: Vec::new(),
            batch_layers: Vec::new(),
        }
    }

    /// Consumes a topic: `"*"` or [`Filter::all`] for all messages, `"vip || late"` for those with one of these tags.
    /// Call it for each topic. Java: `subscribe`.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: impl Into<Filter>) -> Self {
        let topic = self.client.cluster().user_name(&topic.into()).into_owned();
        self.subscriptions.push((topic, filter.into()));
        self
    }

    /// How many handlers run at a time, over all queues; from 1 to 10000. Default 20. Java: `consumeThreadMax`.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.options.concurrency = concurrency;
        self
    }

    /// Where the group starts in queues that it has no offset for. Default [`ConsumeFrom::Last`]. Java:
    /// `consumeFromWhere` and `consumeTimestamp`.
    pub fn consume_from(mut self, consume_from: ConsumeFrom) -> Self {
        self.options.consume_from = consume_from;
        self
    }

    /// Where the group starts in queues that appear after it has begun to consume their topic. Default
    /// [`NewQueues::FromStart`], which loses nothing. Java does as [`NewQueues::AsConsumeFrom`].
    pub fn new_queues(mut self, new_queues: NewQueues) -> Self {
        self.options.new_queues = new_queues;
        self
    }

    /// Every member consumes all queues, and keeps its own offsets in a file. By default members share the queues.
    /// Java: `setMessageModel(BROADCASTING)`.
    ///
    /// The same as [`broadcasting_with`](Self::broadcasting_with) the defaults of [`Broadcasting`].
    ///
    /// ```
    /// use rocketmq_client::{Broadcasting, Client, ConsumeFrom, Message, MessageView};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # client.producer("shop").start().await?.send(Message::new("prices", "3.50")).await?;
    /// # let directory = std::env::temp_dir().join(format!("broadcasting-{}", std::process::id()));
    /// # let (tell, mut told) = tokio::sync::mpsc::channel(1);
    /// let consumer = client
    ///     .push_consumer("price-cache")
    ///     .subscribe("prices", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .broadcasting_with(Broadcasting::new().directory(&directory).identity("till-7"))
    ///     .start(move |message: MessageView| {
    /// #       let tell = tell.clone();
    ///         async move {
    ///             println!("{:?}", message.body());
    /// #           tell.send(()).await.ok();
    ///         }
    ///     })
    ///     .await?;
    /// # told.recv().await;
    /// // Writes `till-7/price-cache/offsets.json`; the next start goes on there.
    /// consumer.shutdown().await;
    /// # assert!(directory.join("till-7/price-cache/offsets.json").is_file());
    /// # std::fs::remove_dir_all(&directory)?;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn broadcasting(self) -> Self {
        self.broadcasting_with(Broadcasting::default())
    }

    /// [`broadcasting`](Self::broadcasting) with settings.
    pub fn broadcasting_with(mut self, broadcasting: Broadcasting) -> Self {
        self.options.requeue_delay = broadcasting.delay();
        self.options.broadcasting = Some(broadcasting);
        self
    }

    /// How often a message is delivered again before it becomes a dead letter; 0 makes it one after the first failure.
    /// Default 16; where order is kept, see [`orderly`](Self::orderly) and [`ordered_by_key`](Self::ordered_by_key).
    /// Java: `maxReconsumeTimes`.
    pub fn max_reconsume_times(mut self, times: u32) -> Self {
        // A number out of range is reported at the start.
        self.options.max_reconsume_times = i32::try_from(times).unwrap_or(-1);
        self.options.order.times = Some(self.options.max_reconsume_times);
        self
    }

    /// How many messages one pull asks for; from 1 to 1024. Brokers give 32 at the most unless configured otherwise.
    /// Default 32. Java: `pullBatchSize`.
    pub fn pull_batch_size(mut self, messages: usize) -> Self {
        self.options.pull_batch_size = messages;
        self
    }

    /// How many messages of one queue may be received and not yet done with; from the pull batch size to 65535.
    /// Default 1000. Java: `pullThresholdForQueue`.
    pub fn max_cached_messages_per_queue(mut self, messages: usize) -> Self {
        self.options.limits.messages = messages;
        self
    }

    /// How many bytes may be held for one queue; at least 64 KiB. Default 100 MiB. Java: `pullThresholdSizeForQueue`.
    ///
    /// See [`max_cached_bytes`](Self::max_cached_bytes) for what is counted.
    pub fn max_cached_bytes_per_queue(mut self, bytes: usize) -> Self {
        self.options.limits.bytes = bytes;
        self
    }

    /// How many bytes may be held over all queues; at least 64 KiB. Default 256 MiB. Java has no such limit.
    ///
    /// The messages of one pull share a buffer, so what is counted is whole pull responses and the bookkeeping of their
    /// messages, from before they are asked for (as large as the last one of the queue) until their last message is
    /// done with. The limit can be exceeded by one response for each queue, when responses grow. Not counted: bodies
    /// while a handler has them decompressed, and messages that a handler keeps after it has returned.
    pub fn max_cached_bytes(mut self, bytes: usize) -> Self {
        self.options.max_cached_bytes = bytes;
        self
    }

    /// How far apart the offsets of the lowest unfinished and the newest message of one queue may be; from 1 to 65535.
    /// Default 2000. Java: `consumeConcurrentlyMaxSpan`.
    ///
    /// It bounds how many messages come again after a crash while one message is stuck.
    pub fn max_span(mut self, offsets: u32) -> Self {
        self.options.limits.span = i64::from(offsets);
        self
    }

    /// How long a handler may take for one message. Then it is dropped at its next `await`, and the delivery counts as
    /// failed. Default 15 minutes. Java: `consumeTimeout`, where the thread keeps running.
    pub fn consume_timeout(mut self, timeout: Duration) -> Self {
        self.options.consume_timeout = timeout;
        self
    }

    /// How often offsets are committed. Default 5 s. Java: `persistConsumerOffsetInterval`.
    ///
    /// What was handled since the last commit may come again after a crash. Pulls carry the offset too.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.options.commit_interval = interval;
        self
    }

    /// How often the queues are divided anew when nothing asks for it earlier. Default 20 s.
    pub fn rebalance_interval(mut self, interval: Duration) -> Self {
        self.options.rebalance_interval = interval;
        self
    }

    /// How long [`PushConsumer::shutdown`] waits for running handlers. Default 30 s. Java:
    /// `awaitTerminationMillisWhenShutdown`.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.options.shutdown_grace = grace;
        self
    }

    /// Whether the consumer starts paused: it joins the group and pulls nothing until
    /// [`resume`](PushConsumer::resume). Default false. Java: `suspend` before the first rebalance.
    pub fn paused(mut self, paused: bool) -> Self {
        self.options.paused = paused;
        self
    }

    /// How queues are divided among the members. Default [`AllocateAveragely`](super::AllocateAveragely). Java:
    /// `allocateMessageQueueStrategy`.
    pub fn allocate_strategy(mut self, strategy: impl AllocateStrategy) -> Self {
        self.options.allocate = Arc::new(strategy);
        self
    }

    /// Puts a tower layer around the handler. The first layer added is the outermost. An error of a layer is a failed
    /// delivery.
    ///
    /// Without layers the handler is called directly; with layers each message costs a few allocations.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<BoxCloneSyncService<MessageView, Outcome, BoxError>> + Send + 'static,
        L::Service: Service<MessageView, Response = Outcome> + Clone + Send + Sync + 'static,
        <L::Service as Service<MessageView>>::Error: Into<BoxError>,
        <L::Service as Service<MessageView>>::Future: Send + 'static,
    {
        self.layers.push(Box::new(move |inner| {
            BoxCloneSyncService::new(layer.layer(inner).map_err(Into::into))
        }));
        self
    }

    /// Starts to consume with a handler: an async function of a [`MessageView`] that returns `()`, an [`Outcome`], or a
    /// `Result` of one of them.
    ///
    /// A message is acknowledged, retried or rejected as the handler says. An error, a panic, and a handler that does
    /// not end within the [consume timeout](Self::consume_timeout) mean that the message comes again, as
    /// [`retry`](Self::retry) says.
    ///
    /// Returns as soon as the group has joined; the topics need not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names everything that is wrong with group, subscriptions
    /// and options, or if this client consumes for the group already; [`ErrorKind::Closed`](crate::ErrorKind::Closed)
    /// if the client was shut down.
    ///
    /// # Cancellation
    /// Safe: nothing runs before it returns.
    pub async fn start<H, F>(self, handler: H) -> Result<PushConsumer>
    where
        H: Fn(MessageView) -> F + Send + Sync + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        let mut builder = self;
        if !builder.batch_layers.is_empty() {
            return Err(Error::config(
                "a handler of single messages has layers of batches; add them with layer, or start with start_batch",
            ));
        }
        let layers = std::mem::take(&mut builder.layers);
        if layers.is_empty() {
            return builder.run(Singly(Function(handler))).await;
        }
        let handler = Arc::new(Function(handler));
        let mut service = BoxCloneSyncService::new(tower::service_fn(move |message| {
            let handler = Arc::clone(&handler);
            async move { handler.handle(message).await }
        }));
        for layer in layers.into_iter().rev() {
            service = layer(service);
        }
        builder.run(Singly(Layered(service))).await
    }

    /// Starts to consume with a stream of messages, each of which has to be acknowledged.
    ///
    /// At most [`concurrency`](Self::concurrency) messages are leased at a time: with so many neither acknowledged nor
    /// given back, the stream waits.
    ///
    /// ```
    /// use rocketmq_client::{Client, ConsumeFrom, Message, Retry};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "paid")).await?;
    /// let mut messages = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .stream()
    ///     .await?;
    /// while let Some(message) = messages.next().await {
    ///     match &message.body()[..] {
    ///         b"paid" => message.ack(),
    ///         b"" => message.reject("an order of nothing"),
    ///         _ => message.retry(Retry::Broker),
    ///     }
    /// #   break;
    /// }
    /// messages.consumer().shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn stream(self) -> Result<LeasedStream> {
        let (handler, leases) = lease(self.options.concurrency);
        let consumer = self.start(handler).await?;
        Ok(LeasedStream::new(leases, consumer))
    }

    pub(super) async fn run<W: Work>(self, work: W) -> Result<PushConsumer> {
        let subscriptions = self.check()?;
        let (client, options) = (self.client, self.options);
        let group: Arc<str> = self.group.into();
        let remote = Remote::new(Arc::clone(client.cluster()), Arc::clone(&group));
        let local = match &options.broadcasting {
            Some(settings) => Some(LocalOffsets::of_group(settings, &remote).await?),
            None => None,
        };
        let engine = Arc::new(Engine::new(
            group,
            subscriptions,
            now_millis(),
            options,
            remote,
            local,
            client.cluster().tasks(),
        ));
        Joining(Some(&engine)).join().await?;
        let work = Arc::new(work);
        let direct = Arc::clone(&work);
        let limit = engine.options.consume_timeout;
        let _ = engine.direct.set(Box::new(move |message| {
            let work = Arc::clone(&direct);
            Box::pin(async move { work.try_one(message, limit).await })
        }));
        let weak = Arc::downgrade(&engine);
        let spawn_workers = Box::new(move |numbers| {
            if let Some(engine) = weak.upgrade() {
                engine.spawn_workers(&work, numbers);
            }
        });
        engine.resize(engine.options.concurrency, &spawn_workers);
        engine.run();
        Ok(PushConsumer::new(engine, spawn_workers, client))
    }

    /// The subscriptions, the retry topic among them; or everything that is wrong.
    fn check(&self) -> Result<BTreeMap<Arc<str>, Filter>> {
        let mut faults = self.options.faults();
        let cluster = self.client.cluster();
        if let Err(error) = cluster.check_group(&self.group) {
            faults.push(error.to_string());
        }
        if self.subscriptions.is_empty() {
            faults.push("no topic is subscribed to; call subscribe".into());
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
            // By broadcasting nothing is taken back.
            if self.options.broadcasting.is_none() {
                let retry_topic: Arc<str> = names::retry_topic(&self.group).into();
                subscriptions.insert(retry_topic, Filter::all());
            }
            return Ok(subscriptions);
        }
        let text = format!(
            "consumer group {:?} cannot start: {}",
            self.group,
            faults.join("; ")
        );
        Err(Error::config(text))
    }
}

impl fmt::Debug for PushConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.subscriptions)
            .field("options", &self.options)
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}

/// Leaves the group again if the join is cut off half-way.
struct Joining<'a>(Option<&'a Arc<Engine>>);

impl Joining<'_> {
    async fn join(mut self) -> Result<()> {
        let Some(engine) = self.0 else { return Ok(()) };
        let joined = engine.join().await;
        // It is through: either joined, or not registered at all.
        self.0 = None;
        joined
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        if let Some(engine) = self.0 {
            engine.end_hard();
        }
    }
}
