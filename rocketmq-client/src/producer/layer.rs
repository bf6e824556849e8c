//! Interceptors: tower layers around every send of a producer.
//!
//! Java's `SendMessageHook` is a layer that does something before and after; its `CheckForbiddenHook` is a layer that
//! answers with an error: [`forbid`]. A producer without layers boxes nothing.

use std::fmt;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::layer::Layer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt, service_fn};

use super::receipt::SendReceipt;
use crate::cluster::BoxFuture;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::transport::layered;

/// Sends inside layers; the innermost service sends. What a layer of
/// [`ProducerBuilder::layer`](super::ProducerBuilder::layer) is put around.
pub type SendStack = BoxCloneSyncService<Sending, SendReceipt, Error>;

/// What an installer of layers makes of the innermost service.
pub(super) type Install = Box<dyn FnOnce(SendStack) -> SendStack + Send>;

/// What sends the messages once the layers have let them through.
pub(super) type Deliver = Box<dyn FnOnce(Vec<Message>) -> BoxFuture<'static, Result<SendReceipt>> + Send>;

/// A send as layers see it: before, the message, which they may change, and how it is sent; after, the
/// [`SendReceipt`] or the [`Error`] say which queue and broker it was and how many attempts it took.
///
/// It is sent at most once, so it cannot be cloned: trying again is the producer's own business.
pub struct Sending {
    messages: Vec<Message>,
    context: SendContext,
    deliver: Deliver,
}

impl Sending {
    pub(super) fn new(messages: Vec<Message>, context: SendContext, deliver: Deliver) -> Self {
        Self {
            messages,
            context,
            deliver,
        }
    }

    /// The messages: one, or those of a batch.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages, to be changed in place.
    pub fn messages_mut(&mut self) -> &mut [Message] {
        &mut self.messages
    }

    /// Puts what `change` makes of each message in its place.
    #[must_use]
    pub fn map(mut self, change: impl FnMut(Message) -> Message) -> Self {
        self.messages = self.messages.into_iter().map(change).collect();
        self
    }

    /// How the messages are sent.
    #[must_use]
    pub fn context(&self) -> &SendContext {
        &self.context
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("messages", &self.messages.len())
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// How a message is sent, as far as that is known before. Java: `SendMessageContext`, `CheckForbiddenContext`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SendContext {
    /// The producer group.
    pub group: String,
    /// The client id.
    pub client_id: String,
    /// How the result is wanted.
    pub mode: SendMode,
    /// What is sent.
    pub kind: SendKind,
    /// The queue, if the caller named one.
    pub queue: Option<MessageQueue>,
    /// How long the send may take, all attempts included.
    pub timeout: Duration,
}

/// How the result of a send is wanted. Java: `CommunicationMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendMode {
    /// By who awaits it. Java: `SYNC`.
    Awaited,
    /// By a handle. Java: `ASYNC`.
    Detached,
    /// By a callback. Java: `ASYNC`.
    Callback,
    /// Not at all. The receipt of such a send knows the message id and the queue; its offset is -1. Java: `ONEWAY`.
    OneWay,
}

/// What kind of message is sent. Java: `MessageType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendKind {
    /// One message.
    Normal,
    /// Several messages in one request.
    Batch,
    /// The first half of a transaction.
    TransactionHalf,
    /// A message that is to be answered.
    Request,
    /// The answer to one.
    Reply,
}

/// The layers of one producer, with what sends at their core.
pub(super) struct Layers(Mutex<SendStack>);

impl Layers {
    pub(super) fn new(install: Install) -> Self {
        let innermost = service_fn(|sending: Sending| (sending.deliver)(sending.messages));
        Self(Mutex::new(install(BoxCloneSyncService::new(innermost))))
    }

    pub(super) async fn call(&self, sending: Sending) -> Result<SendReceipt> {
        // The stack is cloned for each call; the lock makes that possible from any thread.
        let stack = lock(&self.0).clone();
        stack.oneshot(sending).await
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layers")
    }
}

/// Adds a layer inside those that are there.
pub(super) fn add<L>(outer: Option<Install>, layer: L) -> Install
where
    L: Layer<SendStack> + Send + 'static,
    L::Service: Service<Sending, Response = SendReceipt> + Clone + Send + Sync + 'static,
    <L::Service as Service<Sending>>::Error: Into<BoxError>,
    <L::Service as Service<Sending>>::Future: Send + 'static,
{
    Box::new(move |innermost| {
        let stack = layered(&layer, innermost, "send");
        match outer {
            Some(outer) => outer(stack),
            None => stack,
        }
    })
}

/// A layer that refuses messages: `check` sees each before it is sent, and an error of it is the send's result.
/// Java: `CheckForbiddenHook`.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// use rocketmq_client::{Client, ErrorKind, Message, forbid};
///
/// let client = Client::connect(broker.name_server()).await?;
/// let producer = client
///     .producer("orders-svc")
///     .layer(forbid(|message, _context| match message.get("TAGS") {
///         Some(_) => Ok(()),
///         None => Err("orders need a tag"),
///     }))
///     .start()
///     .await?;
/// producer.send(Message::new("orders", "paid").tag("eu")).await?;
/// let error = producer.send(Message::new("orders", "paid")).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Rejected);
/// client.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub fn forbid<F, E>(check: F) -> Forbid<F>
where
    F: Fn(&Message, &SendContext) -> Result<(), E> + Clone + Send + Sync + 'static,
    E: Into<BoxError>,
{
    Forbid(check)
}

/// See [`forbid`].
#[derive(Clone, Copy)]
pub struct Forbid<F>(F);

impl<F> fmt::Debug for Forbid<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forbid")
    }
}

impl<F: Clone> Layer<SendStack> for Forbid<F> {
    type Service = Forbidding<F>;

    fn layer(&self, inner: SendStack) -> Forbidding<F> {
        Forbidding {
            check: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`forbid`].
#[derive(Clone)]
pub struct Forbidding<F> {
    check: F,
    inner: SendStack,
}

impl<F> fmt::Debug for Forbidding<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forbidding")
    }
}

impl<F, E> Service<Sending> for Forbidding<F>
where
    F: Fn(&Message, &SendContext) -> Result<(), E>,
    E: Into<BoxError>,
{
    type Response = SendReceipt;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<SendReceipt, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, sending: Sending) -> Self::Future {
        let context = &sending.context;
        for message in &sending.messages {
            if let Err(refusal) = (self.check)(message, context) {
                let refusal = refusal.into();
                return Box::pin(async move { Err(refusal) });
            }
        }
        let sent = self.inner.call(sending);
        Box::pin(async move { sent.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests;
