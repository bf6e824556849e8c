//! The stream front door: messages that are leased to the user until he says what became of them.
//!
//! It is a handler like any other, which hands its message to the stream and waits for the decision.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::warn;

use super::outcome::{BoxError, Outcome, Retry};
use super::push::PushConsumer;
use crate::message::MessageView;

/// A message that waits for a decision. It derefs to the [`MessageView`].
///
/// Dropping it without one counts as `retry(Retry::Broker)`, with a warning. A decision that comes after the consume
/// timeout, or after the consumer has ended, is too late: the message comes again.
#[must_use = "a message that is dropped comes again"]
pub struct Leased {
    message: MessageView,
    decision: Option<oneshot::Sender<Outcome>>,
}

impl Leased {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &MessageView {
        &self.message
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
            && decision.send(outcome).is_err()
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
        if let Some(decision) = self.decision.take()
            && decision.send(Outcome::Retry(Retry::Broker)).is_ok()
        {
            warn!(message = ?self.message, "a leased message was dropped without a decision, it comes again");
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
    impl Fn(MessageView) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
    mpsc::Receiver<Leased>,
) {
    let (leases, receiver) = mpsc::channel(concurrency.max(1));
    let handler = move |message: MessageView| -> BoxFuture<'static, Outcome> {
        let leases = leases.clone();
        Box::pin(async move {
            let (decision, decided) = oneshot::channel();
            let lease = Leased {
                message,
                decision: Some(decision),
            };
            match leases.send(lease).await {
                Ok(()) => decided.await.unwrap_or(Outcome::Retry(Retry::Broker)),
                Err(mpsc::error::SendError(mut unsent)) => {
                    unsent.decision = None;
                    Outcome::Retry(Retry::Broker)
                }
            }
        })
    };
    (handler, receiver)
}
