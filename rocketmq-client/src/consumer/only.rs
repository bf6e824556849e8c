//! A layer that lets a handler see only some of its messages.
//!
//! Java's `FilterMessageHook` takes messages out of what a pull brought; here it is a layer like any other.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::future::BoxFuture;
use tower::{Layer, Service};

use super::outcome::Outcome;
use crate::message::MessageView;

/// A layer for [`PushConsumerBuilder::layer`](super::PushConsumerBuilder::layer) under which the handler gets only the
/// messages that `wanted` says yes to. The others are acknowledged. Java: `FilterMessageHook`.
///
/// Prefer the filter of the subscription, which spares the way too; this is for what brokers cannot tell.
///
/// ```
/// # use rocketmq_client::{ConsumeFrom, Message};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
/// use rocketmq_client::{Client, MessageView, only};
///
/// let client = Client::connect(broker.name_server()).await?;
/// # let producer = client.producer("shop").start().await?;
/// # producer.send(Message::new("orders", "42 apples")).await?;
/// # producer.send(Message::new("orders", "?")).await?;
/// let consumer = client
///     .push_consumer("billing")
///     .subscribe("orders", "*")
/// #   .consume_from(ConsumeFrom::First)
///     .layer(only(|message: &MessageView| message.body().starts_with(b"42")))
///     .start(|message: MessageView| async move {
///         assert_eq!(&message.body()[..], b"42 apples");
///     })
///     .await?;
/// # while consumer.stats().acknowledged < 2 {
/// #     tokio::task::yield_now().await;
/// # }
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub fn only<P>(wanted: P) -> Only<P>
where
    P: Fn(&MessageView) -> bool,
{
    Only(Arc::new(wanted))
}

/// See [`only`].
pub struct Only<P>(Arc<P>);

impl<S, P> Layer<S> for Only<P> {
    type Service = Choosing<S, P>;

    fn layer(&self, inner: S) -> Choosing<S, P> {
        Choosing {
            inner,
            wanted: Arc::clone(&self.0),
        }
    }
}

/// What [`only`] puts around a handler.
pub struct Choosing<S, P> {
    inner: S,
    wanted: Arc<P>,
}

impl<S, P> Service<MessageView> for Choosing<S, P>
where
    S: Service<MessageView, Response = Outcome>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    P: Fn(&MessageView) -> bool,
{
    type Response = Outcome;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Outcome, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, message: MessageView) -> Self::Future {
        if (self.wanted)(&message) {
            return Box::pin(self.inner.call(message));
        }
        Box::pin(std::future::ready(Ok(Outcome::Ack)))
    }
}

impl<S: Clone, P> Clone for Choosing<S, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            wanted: Arc::clone(&self.wanted),
        }
    }
}

impl<P> fmt::Debug for Only<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Only")
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Choosing<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choosing")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
