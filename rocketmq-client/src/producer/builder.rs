//! The options of a producer, their defaults and checks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tower::layer::Layer;
use tower::{BoxError, Service};

use super::accumulate::Accumulator;
use super::layer::{self, Install, Layers, SendStack, Sending};
use super::line::Line;
use super::propagate::{Propagate, Propagator};
use super::receipt::SendReceipt;
use super::room::Room;
use super::transaction::CheckOptions;
use super::{Batching, Core, Handle, Producer, retry};
use crate::cluster::{Client, Detector, LatencyFaultTolerance, ProducerMember, TopicTemplate};
use crate::error::{Error, Result};
use crate::protocol::{Compression, ResponseCode, names};

impl Client {
    /// Options for a producer of this group; [`start`](ProducerBuilder::start) makes it.
    pub fn producer(&self, group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder {
            client: self.clone(),
            group: self.cluster().user_name(&group.into()).into_owned(),
            options: Options::default(),
            layers: None,
            propagate: Propagate::default(),
        }
    }
}

/// What a send does when as much is in flight as may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits, at most its own timeout.
    #[default]
    Wait,
    /// It fails at once with [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded).
    Fail,
}

/// The one home of the defaults; each setter of [`ProducerBuilder`] states its own.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) send_timeout: Duration,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) max_attempts: u32,
    pub(super) retry_codes: Vec<ResponseCode>,
    pub(super) retry_when_not_stored_ok: bool,
    pub(super) require_ok: bool,
    pub(super) latency_fault_tolerance: Option<LatencyFaultTolerance>,
    pub(super) start_detector: bool,
    pub(super) detector: Detector,
    pub(super) max_message_bytes: usize,
    pub(super) compress_from_bytes: Option<usize>,
    pub(super) compression: Compression,
    pub(super) compression_level: u32,
    pub(super) batching: Option<Batching>,
    pub(super) template: TopicTemplate,
    pub(super) max_in_flight: u32,
    pub(super) max_in_flight_bytes: u32,
    pub(super) when_full: WhenFull,
    pub(super) checks: CheckOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_timeout: Duration::from_secs(3),
            attempt_timeout: None,
            max_attempts: 3,
            retry_codes: retry::RETRY_CODES.to_vec(),
            retry_when_not_stored_ok: false,
            require_ok: false,
            latency_fault_tolerance: None,
            start_detector: true,
            detector: Detector {
                interval: Duration::from_secs(2),
                timeout: Duration::from_millis(200),
            },
            max_message_bytes: 4 * 1024 * 1024,
            compress_from_bytes: Some(4096),
            compression: Compression::Zlib,
            compression_level: 5,
            batching: None,
            template: TopicTemplate::default(),
            max_in_flight: 10_000,
            max_in_flight_bytes: 100 * 1024 * 1024,
            when_full: WhenFull::Wait,
            checks: CheckOptions::default(),
        }
    }
}

/// Options of a [`Producer`].
#[must_use = "a builder does nothing until `start` is awaited"]
pub struct ProducerBuilder {
    client: Client,
    group: String,
    pub(super) options: Options,
    layers: Option<Install>,
    propagate: Propagate,
}

impl ProducerBuilder {
    /// How long a send may take, all attempts and waits included. Default 3 s. Java: `sendMsgTimeout`.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.options.send_timeout = timeout;
        self
    }

    /// How long one attempt may take at most. Default: what is left of the send timeout is shared by the attempts
    /// that are left if another broker could be tried, so that a frozen broker does not use it all up. Java:
    /// `sendMsgMaxTimeoutPerRequest`.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = Some(timeout);
        self
    }

    /// How many attempts a send makes at most, detached ones too. Default 3. Java: `retryTimesWhenSendFailed` and
    /// `retryTimesWhenSendAsyncFailed`, plus one.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = attempts;
        self
    }

    /// The response codes after which another attempt is made, instead of the default: those of Java 5.x (1, 2, 14, 16,
    /// 17, 204, 205, 1500). Java 4.9 has neither 2 (busy) nor 1500 (going away). They hold for detached sends too,
    /// which Java never tries again after a response.
    pub fn retry_codes(mut self, codes: impl IntoIterator<Item = ResponseCode>) -> Self {
        self.options.retry_codes = codes.into_iter().collect();
        self
    }

    /// Adds a response code after which another attempt is made. Java: `addRetryResponseCode`.
    pub fn retry_code(mut self, code: ResponseCode) -> Self {
        if !self.options.retry_codes.contains(&code) {
            self.options.retry_codes.push(code);
        }
        self
    }

    /// Whether another attempt is made when a broker stored the message but did not flush or replicate it in time;
    /// that duplicates the message. Default false. Java: `retryAnotherBrokerWhenNotStoreOK`.
    pub fn retry_when_not_stored_ok(mut self, retry: bool) -> Self {
        self.options.retry_when_not_stored_ok = retry;
        self
    }

    /// Whether a message that a broker stored, but did not flush or replicate in time
    /// ([`SendStatus`](super::SendStatus)), is an error ([`ErrorKind::NotDurable`](crate::ErrorKind::NotDurable))
    /// instead of a receipt that says so. It is stored all the same: sending it again duplicates it. Default false.
    pub fn require_ok(mut self, require: bool) -> Self {
        self.options.require_ok = require;
        self
    }

    /// Lets brokers that answer slowly come later, by a table of latencies; [`LatencyFaultTolerance::default`] is that
    /// of Java 5.x. Default none: only brokers that do not answer are avoided. Java: `sendLatencyFaultEnable`.
    ///
    /// In turn come the brokers that are well; without one the slow ones; without one any.
    pub fn latency_fault_tolerance(mut self, table: impl Into<Option<LatencyFaultTolerance>>) -> Self {
        self.options.latency_fault_tolerance = table.into();
        self
    }

    /// Whether a broker that did not answer is asked in the background until it does, and gets no message before that
    /// while there is another; else it is tried with a message after 5 s (with
    /// [latency fault tolerance](Self::latency_fault_tolerance) after the time of its table). Default true, as it
    /// costs nothing while all is well; Java's `startDetectorEnable` is false.
    pub fn start_detector(mut self, start: bool) -> Self {
        self.options.start_detector = start;
        self
    }

    /// How often a broker that did not answer is asked. Default 2 s. Java: `detectInterval`.
    pub fn detect_interval(mut self, interval: Duration) -> Self {
        self.options.detector.interval = interval;
        self
    }

    /// How long it may take to answer then. Default 200 ms. Java: `detectTimeout`.
    pub fn detect_timeout(mut self, timeout: Duration) -> Self {
        self.options.detector.timeout = timeout;
        self
    }

    /// The largest body, in bytes before compression. Default 4 MiB, which is also what brokers take unless configured
    /// otherwise. Java: `maxMessageSize`.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.options.max_message_bytes = bytes;
        self
    }

    /// How bodies are compressed. Default [`Compression::Zlib`], which all consumers read; the others are read by Java
    /// consumers from 4.9.4 on and by this crate with the cargo features `lz4` and `zstd`. Java:
    /// `rocketmq.message.compressType`.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
        self
    }

    /// Gathers messages that are sent one by one into batches: a send then returns when its batch is stored. Default:
    /// each message is a request of its own. Java: `autoBatch`.
    ///
    /// See [`Batching`] for what it promises.
    pub fn batching(mut self, batching: Batching) -> Self {
        self.options.batching = Some(batching);
        self
    }

    /// From which size on bodies are compressed, in bytes; `None` never. Default 4096. Java:
    /// `compressMsgBodyOverHowmuch`.
    pub fn compress_from_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.options.compress_from_bytes = bytes.into();
        self
    }

    /// How hard compression tries: for zlib from 0 (not at all) to 9, for Zstandard from 1 to 22; LZ4 has no levels.
    /// Default 5. Java: `rocketmq.message.compressLevel`.
    pub fn compression_level(mut self, level: u32) -> Self {
        self.options.compression_level = level;
        self
    }

    /// How many queues per broker a topic gets that the first send creates, at most. Default 4. Java:
    /// `defaultTopicQueueNums`.
    pub fn default_topic_queue_nums(mut self, queues: i32) -> Self {
        self.options.template.queues = queues;
        self
    }

    /// The topic that a topic is made after which the first send creates: its brokers, queues and permissions. Default
    /// `TBW102`, which brokers have unless `autoCreateTopicEnable` is off. Java: `createTopicKey`.
    pub fn create_topic_key(mut self, topic: impl Into<String>) -> Self {
        self.options.template.topic = topic.into().into();
        self
    }

    /// How many messages may be in flight. Default 10000. Java: `backPressureForAsyncSendNum`.
    pub fn max_in_flight(mut self, messages: u32) -> Self {
        self.options.max_in_flight = messages;
        self
    }

    /// How many bytes of bodies may be in flight; one message is always let in. Default 100 MiB. Java:
    /// `backPressureForAsyncSendSize`.
    pub fn max_in_flight_bytes(mut self, bytes: u32) -> Self {
        self.options.max_in_flight_bytes = bytes;
        self
    }

    /// What a send does when as much is in flight as may be. Default [`WhenFull::Wait`].
    ///
    /// Awaited and one-way sends wait by themselves. Who detaches a send, or gives it a callback, waits by
    /// [`SendBuilder::reserve`](super::SendBuilder::reserve) before; without, such a send fails, as there is nobody
    /// to wait.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.options.when_full = when_full;
        self
    }

    /// Puts a tower layer around every send of this producer, whichever way it is sent: to see it before and after, to
    /// change the message, or to refuse it (see [`forbid`](super::forbid)). The first layer is the outermost one. A
    /// producer without layers boxes nothing. Java: `registerSendMessageHook`, `registerCheckForbiddenHook`.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message, Sending};
    /// use tower::ServiceBuilder;
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    /// let producer = client
    ///     .producer("orders-svc")
    ///     .layer(
    ///         ServiceBuilder::new()
    ///             .map_request(|sending: Sending| sending.map(|message| message.property("region", "eu")))
    ///             .map_result(|result: Result<_, _>| result.inspect(|receipt| println!("sent: {receipt:?}"))),
    ///     )
    ///     .start()
    ///     .await?;
    /// producer.send(Message::new("orders", "paid")).await?;
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<SendStack> + Send + 'static,
        L::Service: Service<Sending, Response = SendReceipt> + Clone + Send + Sync + 'static,
        <L::Service as Service<Sending>>::Error: Into<BoxError>,
        <L::Service as Service<Sending>>::Future: Send + 'static,
    {
        self.layers = Some(layer::add(self.layers.take(), layer));
        self
    }

    /// Who says which trace and span a message is sent in; it travels in the message as W3C trace context (the
    /// properties `traceparent` and `tracestate`), unless the message has one already. Default none.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message, TraceContext};
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    /// let producer = client
    ///     .producer("orders-svc")
    ///     // With OpenTelemetry: the ids of `Span::current().context().span().span_context()`.
    ///     .propagator(|| TraceContext::new(0x4bf9_2f35, 0x00f0_67aa, true))
    ///     .start()
    ///     .await?;
    /// producer.send(Message::new("orders", "paid")).await?;
    ///
    /// let mut orders = client.push_consumer("billing").subscribe("orders", "*")
    ///     .consume_from(rocketmq_client::ConsumeFrom::First).stream().await?;
    /// let order = orders.next().await.expect("the message");
    /// assert_eq!(order.message().trace_parent().expect("a context").span_id(), 0x00f0_67aa);
    /// order.ack();
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn propagator(mut self, propagator: impl Propagator) -> Self {
        self.propagate = Propagate::by(propagator);
        self
    }

    /// Makes the producer and lets the brokers know of its group.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with everything that cannot be used: the group, options.
    #[expect(
        clippy::unused_async,
        reason = "starting may have to ask brokers; callers should not have to change then"
    )]
    pub async fn start(self) -> Result<Producer> {
        self.check()?;
        let cluster = Arc::clone(self.client.cluster());
        let core = Arc::new(Core {
            room: Room::new(
                &self.group,
                self.options.max_in_flight,
                self.options.max_in_flight_bytes,
            ),
            accumulator: self.options.batching.map(Accumulator::new),
            line: Line::default(),
            layers: self.layers.map(Layers::new),
            propagate: self.propagate,
            requests: TaskTracker::new(),
            tasks: cluster.tasks().child(),
            wire_group: cluster.wire_name(&self.group).into_owned(),
            group: self.group,
            options: self.options,
            cluster,
            closed: AtomicBool::new(false),
        });
        core.cluster.check_open()?;
        core.cluster
            .register_producer(Arc::clone(&core) as Arc<dyn ProducerMember>);
        Ok(Producer(Arc::new(Handle {
            core,
            client: self.client,
        })))
    }

    fn check(&self) -> Result<()> {
        let options = &self.options;
        let mut wrong = Vec::new();
        if let Err(error) = self.client.cluster().check_group(&self.group) {
            wrong.push(error.to_string());
        }
        let times = [
            options.send_timeout,
            options.attempt_timeout.unwrap_or(options.send_timeout),
            options.detector.interval,
            options.detector.timeout,
        ];
        if times.iter().any(Duration::is_zero) {
            wrong.push("timeouts must be longer than nothing".to_owned());
        }
        for (name, value) in [
            ("max_attempts", options.max_attempts),
            ("max_in_flight", options.max_in_flight),
            ("max_in_flight_bytes", options.max_in_flight_bytes),
        ] {
            if value == 0 {
                wrong.push(format!("{name} must be at least 1"));
            }
        }
        if let Err(error) = names::check_topic(&options.template.topic) {
            wrong.push(format!("create_topic_key: {error}"));
        }
        if options.template.queues < 1 {
            wrong.push("default_topic_queue_nums must be at least 1".to_owned());
        }
        check_compression(options, &mut wrong);
        if let Some(batching) = &options.batching {
            batching.check(options, &mut wrong);
        }
        options.checks.check(&mut wrong);
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::config(format!(
                "producer {:?} cannot be started: {}",
                self.group,
                wrong.join("; ")
            ))),
        }
    }
}

impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("group", &self.group)
            .field("options", &self.options)
            .field("layers", &self.layers.is_some())
            .finish_non_exhaustive()
    }
}

fn check_compression(options: &Options, wrong: &mut Vec<String>) {
    let compression = options.compression;
    if !compression.is_available() {
        wrong.push(format!(
            "compression {compression:?} is not built in; turn on the cargo feature of that name"
        ));
    }
    let (level, levels) = (options.compression_level, compression.levels());
    if compression != Compression::Lz4 && !levels.contains(&level) {
        let (lowest, highest) = (levels.start(), levels.end());
        wrong.push(format!(
            "compression_level must be from {lowest} to {highest} for {compression:?}, not {level}"
        ));
    }
}
