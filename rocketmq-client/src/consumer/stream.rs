//! Messages that are leased to the user until he says what became of them: one by one to a handler that may return
//! before, or as a stream.
//!
//! Behind both is a handler like any other, which hands its message out and waits for the decision. So a lease is one of
//! the consumer's concurrent calls, ends with the consume timeout, and holds the offset to commit.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::warn;

use super::builder::PushConsumerBuilder;
use super::outcome::{BoxError, Outcome, Retry};
use super::push::PushConsumer;
use crate::error::Result;
use crate::message::MessageView;

/// A message that waits for a decision. It derefs to the [`MessageView`].
///
/// It may be kept, sent to other tasks and threads, and decided about there. The group's offset does not pass it before:
/// messages that were leased later and decided earlier wait for it.
///
/// Dropping it without a decision is a failed delivery: it is logged, and the message comes again as the consumer's
/// [`retry`](super::PushConsumerBuilder::retry) says. A decision that comes after the consume timeout, or after the
/// consumer has ended, is too late: the message comes again, and the late decision is logged.
#[must_use = "a message that is dropped comes again"]
pub struct Leased {
    message: MessageView,
    decision: Option<oneshot::Sender<Decision>>,
}

/// What the handler behind a lease returns.
type Decision = std::result::Result<Outcome, BoxError>;

impl Leased {
    /// A lease, and where its decision comes out.
    fn new(message: MessageView) -> (Self, oneshot::Receiver<Decision>) {
        let (decision, decided) = oneshot::channel();
        let lease = Self {
            message,
            decision: Some(decision),
        };
        (lease, decided)
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &MessageView {
        &self.message
    }

    /// Whether a decision would be too late: the consume timeout is over, or the consumer has ended, and the message
    /// comes again.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.decision.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Done: the message is not delivered to the group again.
    pub fn ack(self) {
        self.decide(Outcome::Ack);
    }

    /// Not done: the message comes again.
    pub fn retry(self, retry: Retry) {
        self.decide(Outcome::Retry(retry));
    }

    /// Never to be delivered again: the message becomes a dead letter. The reason is logged.
    pub fn reject(self, reason: impl Into<BoxError>) {
        self.decide(Outcome::Reject(reason.into()));
    }

    fn decide(mut self, outcome: Outcome) {
        if let Some(decision) = self.decision.take()
            && decision.send(Ok(outcome)).is_err()
        {
            warn!(message = ?self.message, "a decision came too late, the message comes again");
        }
    }
}

impl Deref for Leased {
    type Target = MessageView;

    fn deref(&self) -> &MessageView {
        &self.message
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(decision) = self.decision.take() {
            // The worker that waits for it logs it.
            let _ = decision.send(Err("the leased message was dropped without a decision".into()));
        }
    }
}

impl fmt::Debug for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leased").field(&self.message).finish()
    }
}

/// Messages as they come. Ends when the consumer is shut down.
///
/// Dropping the stream ends the consumer hard; shut it down with
/// [`consumer().shutdown()`](PushConsumer::shutdown) to commit what was acknowledged.
pub struct LeasedStream {
    leases: mpsc::Receiver<Leased>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    consumer: PushConsumer,
}

impl LeasedStream {
    pub(super) fn new(leases: mpsc::Receiver<Leased>, consumer: PushConsumer) -> Self {
        let stopped = consumer.engine().intake.token().clone().cancelled_owned();
        Self {
            leases,
            stopped: Box::pin(stopped),
            consumer,
        }
    }

    /// The next message; `None` when the consumer is shut down. The same as the stream's, without its trait.
    ///
    /// # Cancellation
    /// Safe: no message is taken.
    pub async fn next(&mut self) -> Option<Leased> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The consumer behind the stream.
    #[must_use]
    pub fn consumer(&self) -> &PushConsumer {
        &self.consumer
    }
}

impl Stream for LeasedStream {
    type Item = Leased;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Leased>> {
        if let Poll::Ready(lease) = self.leases.poll_recv(context) {
            return Poll::Ready(lease);
        }
        self.stopped.as_mut().poll(context).map(|()| None)
    }
}

impl Drop for LeasedStream {
    fn drop(&mut self) {
        self.consumer.end_hard();
        // What was never seen by the user is nothing to warn of: it goes the way of all that was not started.
        self.leases.close();
        while let Ok(mut lease) = self.leases.try_recv() {
            lease.decision = None;
        }
    }
}

impl fmt::Debug for LeasedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedStream")
            .field("consumer", &self.consumer)
            .finish_non_exhaustive()
    }
}

/// A handler that leases its messages, and where the leases come out.
pub(super) fn lease(
    concurrency: usize,
) -> (
    impl Fn(MessageView) -> BoxFuture<'static, Decision> + Send + Sync + 'static,
    mpsc::Receiver<Leased>,
) {
    let (leases, receiver) = mpsc::channel(concurrency.max(1));
    let handler = move |message: MessageView| -> BoxFuture<'static, Decision> {
        let leases = leases.clone();
        Box::pin(async move {
            let (lease, decided) = Leased::new(message);
            if let Err(mpsc::error::SendError(mut unsent)) = leases.send(lease).await {
                unsent.decision = None;
            }
            // Without a decision, nobody has seen it: the stream is gone.
            decided.await.unwrap_or(Ok(Outcome::Retry(Retry::Broker)))
        })
    };
    (handler, receiver)
}

impl PushConsumerBuilder {
    /// Starts to consume with a handler that gets each message on lease and may return before it is decided about: an
    /// async function of a [`Leased`], which it may keep, collect with others, or pass to another task.
    ///
    /// A message counts as one of the [`concurrency`](Self::concurrency) calls from the call of the handler until both
    /// the handler has returned and the decision has come: so many messages are leased at the most. A lease ends with
    /// the [consume timeout](Self::consume_timeout), counted from the call: then the message comes again, as it does
    /// when the handler panics and when the lease is dropped. Java has nothing like it.
    ///
    /// ```
    /// use rocketmq_client::{Client, ConsumeFrom, Leased, Message};
    /// use tokio::sync::mpsc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "42 apples")).await?;
    /// let (to_books, mut orders) = mpsc::channel(100);
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .concurrency(100)
    ///     .start_manual(move |order: Leased| {
    ///         let to_books = to_books.clone();
    ///         async move {
    ///             // If the receiver is gone, the order is dropped and comes again.
    ///             let _ = to_books.send(order).await;
    ///         }
    ///     })
    ///     .await?;
    /// // Elsewhere, and as late as it takes:
    /// if let Some(order) = orders.recv().await {
    ///     println!("booked {:?}", order.body());
    ///     order.ack();
    /// }
    /// consumer.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Cancellation
    /// Safe: nothing runs before it returns.
    pub async fn start_manual<H, F>(self, handler: H) -> Result<PushConsumer>
    where
        H: Fn(Leased) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let lend = move |message: MessageView| {
            let handler = Arc::clone(&handler);
            async move {
                let (lease, decided) = Leased::new(message);
                handler(lease).await;
                // A lease that is dropped says so.
                decided.await.unwrap_or(Ok(Outcome::Retry(Retry::Broker)))
            }
        };
        self.start(lend).await
    }
}
