//! The SPI between bindings and a messaging system.
//!
//! A [`Binder`] attaches handlers to destinations and hands out senders. It knows nothing of functions,
//! extractors or YAML roots; the core knows nothing of sockets. [`MemoryBinder`](crate::MemoryBinder) and
//! the RocketMQ binder pass the same [conformance suite](crate::conformance).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
pub use rocketmq_client::Persisted;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use crate::{
    delivery::Delivery,
    failure::{BoxError, Failure, Outcome},
    function::pipeline::Pipeline,
    message::Message,
};

/// A messaging system to which functions can be bound.
#[async_trait]
pub trait Binder: Send + Sync + fmt::Debug {
    /// The binder type as `spring.cloud.stream.binders.<name>.type` spells it: `rocketmq`, `memory`.
    fn kind(&self) -> &str;

    /// Starts to deliver messages of the binding's destination to `handler`, at most
    /// [`concurrency`](ConsumerBinding::concurrency) at a time. Deliveries may begin before this returns.
    ///
    /// Each delivery is settled by [`Outcome::settlement`], and only after the handler answered. A delivery
    /// whose handler never answered (stop, crash) stays unsettled and comes again.
    ///
    /// # Errors
    /// [`BindError`] when the destination, group or properties are illegal, or the system cannot be reached.
    async fn bind_consumer(
        &self,
        binding: ConsumerBinding,
        handler: DeliveryHandler,
    ) -> Result<Box<dyn BoundConsumer>, BindError>;

    /// A sender with the properties of the binding.
    ///
    /// # Errors
    /// As [`bind_consumer`](Self::bind_consumer).
    async fn bind_producer(&self, binding: ProducerBinding) -> Result<Arc<dyn Outbound>, BindError>;

    /// Releases connections and everything else, after the consumers were stopped; sends in flight get up to
    /// `grace`. Sending afterwards is an error. Calling it again is harmless.
    async fn shutdown(&self, grace: Duration);
}

/// A running consumer binding.
#[async_trait]
pub trait BoundConsumer: Send + Sync + fmt::Debug {
    /// Stops deliveries to the handler until [`resume`](Self::resume); those that run may finish.
    fn pause(&self);

    /// Continues after [`pause`](Self::pause).
    fn resume(&self);

    /// Stops intake, lets running handlers finish for at most `grace`, commits what was settled, and leaves
    /// the group. Returns the number of handlers that were cut off; their messages come again.
    async fn stop(&self, grace: Duration) -> usize;
}

/// A sender of messages. Shared by all tasks; sending takes no lock of the binder's core.
#[async_trait]
pub trait Outbound: Send + Sync + fmt::Debug {
    /// Stores one message on `topic` and returns when the system confirmed it.
    ///
    /// # Errors
    /// [`OutboundError`], which says whether the message may have been stored all the same.
    ///
    /// # Cancellation
    /// A dropped send may or may not have stored its message.
    async fn send(&self, topic: &str, message: Message) -> Result<SendReceipt, OutboundError>;
}

/// What a consumer binding asks of its binder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerBinding {
    /// Binding name, for instance `orders-in-0`. Binder-specific properties are found under it.
    pub name: Arc<str>,
    /// Topic.
    pub destination: Arc<str>,
    /// Consumer group.
    pub group: Arc<str>,
    /// Deliveries in progress at one time, at least 1.
    pub concurrency: usize,
    /// `false`: bound but paused until [`BoundConsumer::resume`] (`consumer.auto-startup`).
    pub auto_startup: bool,
}

impl ConsumerBinding {
    /// A binding with the default concurrency of 20.
    pub fn new(
        name: impl Into<Arc<str>>,
        destination: impl Into<Arc<str>>,
        group: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            name: name.into(),
            destination: destination.into(),
            group: group.into(),
            concurrency: 20,
            auto_startup: true,
        }
    }

    /// Whether deliveries begin at once. Default `true`.
    #[must_use]
    pub fn auto_startup(mut self, auto_startup: bool) -> Self {
        self.auto_startup = auto_startup;
        self
    }

    /// Deliveries in progress at one time; 0 is taken as 1. Default 20, as in RocketMQ's own client.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }
}

/// What a producer binding asks of its binder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProducerBinding {
    /// Binding name, for instance `orders-out-0`; `None` for the sender of topics that no binding names.
    pub name: Option<Arc<str>>,
    /// Topic of the binding; `None` as above.
    pub destination: Option<Arc<str>>,
}

impl ProducerBinding {
    /// A configured binding.
    pub fn new(name: impl Into<Arc<str>>, destination: impl Into<Arc<str>>) -> Self {
        Self {
            name: Some(name.into()),
            destination: Some(destination.into()),
        }
    }

    /// The sender behind [`StreamBridge::to_topic`](crate::StreamBridge::to_topic).
    #[must_use]
    pub fn dynamic() -> Self {
        Self {
            name: None,
            destination: None,
        }
    }
}

/// Proof that a message is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// The id that consumers will see.
    pub message_id: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Name of the broker that stored it; empty where there is none.
    pub broker: Arc<str>,
    /// Queue within the topic.
    pub queue_id: i32,
    /// Position in the queue.
    pub queue_offset: i64,
    /// How safely it is stored.
    pub status: SendStatus,
}

impl SendReceipt {
    /// A receipt with status [`SendStatus::Ok`] and an unnamed broker.
    pub fn new(
        message_id: impl Into<Arc<str>>,
        topic: impl Into<Arc<str>>,
        queue_id: i32,
        queue_offset: i64,
    ) -> Self {
        Self {
            message_id: message_id.into(),
            topic: topic.into(),
            broker: Arc::from(""),
            queue_id,
            queue_offset,
            status: SendStatus::Ok,
        }
    }

    /// The broker that stored it.
    #[must_use]
    pub fn broker(mut self, broker: impl Into<Arc<str>>) -> Self {
        self.broker = broker.into();
        self
    }

    /// How safely it is stored.
    #[must_use]
    pub fn status(mut self, status: SendStatus) -> Self {
        self.status = status;
        self
    }
}

/// How safely a message is stored; RocketMQ's four states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendStatus {
    /// As safely as the broker is configured to.
    Ok,
    /// Stored in memory; the flush to disk was not confirmed in time.
    FlushDiskTimeout,
    /// Stored on the master; no replica confirmed in time.
    FlushSlaveTimeout,
    /// Stored on the master; there is no replica.
    SlaveNotAvailable,
    /// Handed over; nobody waited for the broker to say that it is stored (`send-type` `Async` or `OneWay`). Such a
    /// receipt has no message id and no position.
    Unconfirmed,
}

/// Why a binder could not send.
#[derive(Debug)]
pub struct OutboundError {
    text: String,
    persisted: Persisted,
    retryable: bool,
    source: Option<BoxError>,
}

impl OutboundError {
    /// An error with its text (what, where, remedy) and whether the message may be stored. Taken as worth
    /// another try; see [`permanent`](Self::permanent).
    pub fn new(text: impl Into<String>, persisted: Persisted) -> Self {
        Self {
            text: text.into(),
            persisted,
            retryable: true,
            source: None,
        }
    }

    /// The same message would fail again: too large, illegal topic, no permission.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// The error below.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the message may be stored all the same.
    #[must_use]
    pub fn persisted(&self) -> Persisted {
        self.persisted
    }

    /// Whether sending the same message again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl fmt::Display for OutboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for OutboundError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

/// Why a binding could not be bound.
#[derive(Debug)]
pub struct BindError {
    binding: String,
    text: String,
    source: Option<BoxError>,
}

impl BindError {
    /// `text` says why `binding` could not be bound and what to do.
    pub fn new(binding: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            binding: binding.into(),
            text: text.into(),
            source: None,
        }
    }

    /// The error below.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The binding concerned.
    #[must_use]
    pub fn binding(&self) -> &str {
        &self.binding
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot bind `{}`: {}", self.binding, self.text)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

/// What a binder calls for each delivery: a function with everything around it.
///
/// It never fails and never panics: whatever happens inside is an [`Outcome`]. Cheap to clone. It is a
/// `tower::Service` too, which is how [layers](crate::App::layer) wrap it; without layers a delivery goes
/// straight to the function.
#[derive(Clone)]
pub struct DeliveryHandler(Inner);

#[derive(Clone)]
enum Inner {
    Function(Arc<Pipeline>),
    Layered(BoxCloneSyncService<Delivery, Outcome, BoxError>),
}

impl DeliveryHandler {
    pub(crate) fn function(pipeline: Pipeline) -> Self {
        Self(Inner::Function(Arc::new(pipeline)))
    }

    /// A handler made of any service of deliveries. An error of the service is a failure to be retried.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        Self(Inner::Layered(BoxCloneSyncService::new(
            service.map_err(Into::into),
        )))
    }

    /// Handles one delivery.
    ///
    /// # Cancellation
    /// Dropping the future cuts the handler off at its current await; the delivery is then unsettled.
    pub async fn handle(&self, delivery: Delivery) -> Outcome {
        match &self.0 {
            Inner::Function(pipeline) => pipeline.run(delivery).await,
            Inner::Layered(service) => {
                match crate::layers::panic::catch(service.clone().oneshot(delivery)).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(error)) => Outcome::Failed(Failure::Retry(error)),
                    Err(panic) => Outcome::Failed(Failure::retry(panic)),
                }
            }
        }
    }
}

impl fmt::Debug for DeliveryHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Function(pipeline) => pipeline.fmt(f),
            Inner::Layered(_) => f.write_str("DeliveryHandler(layered)"),
        }
    }
}

impl Service<Delivery> for DeliveryHandler {
    type Response = Outcome;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move { Ok(handler.handle(delivery).await) })
    }
}
