//! The user's code: how it is called, and how it cannot hurt anybody but its own message.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::outcome::{BoxError, IntoOutcome, Outcome};
use crate::message::MessageView;
use crate::tasks::catch;

/// What layers are put around.
pub(super) type HandlerService = BoxCloneSyncService<MessageView, Outcome, BoxError>;

/// One attempt to consume a message, run to its end.
pub(super) trait Handler: Send + Sync + 'static {
    fn handle(&self, message: MessageView) -> impl Future<Output = Result<Outcome, BoxError>> + Send;
}

/// A function of the user's, called directly: no allocation, no indirection.
pub(super) struct Function<H>(pub(super) H);

impl<H, F> Handler for Function<H>
where
    H: Fn(MessageView) -> F + Send + Sync + 'static,
    F: Future<Output: IntoOutcome> + Send,
{
    async fn handle(&self, message: MessageView) -> Result<Outcome, BoxError> {
        (self.0)(message).await.into_outcome()
    }
}

/// A function with layers around it.
pub(super) struct Layered(pub(super) HandlerService);

impl Handler for Layered {
    async fn handle(&self, message: MessageView) -> Result<Outcome, BoxError> {
        self.0.clone().oneshot(message).await
    }
}

/// A handler whose type does not matter: for the rare calls outside the workers.
pub(super) type DynHandler =
    Box<dyn Fn(MessageView) -> Pin<Box<dyn Future<Output = Result<Outcome, Fault>> + Send>> + Send + Sync>;

/// Why there is no outcome.
#[derive(Debug)]
pub(super) enum Fault {
    /// The handler or one of its layers returned an error.
    Failed(BoxError),
    /// The handler panicked, with this text.
    Panicked(String),
    /// The handler did not end in time and was dropped.
    TimedOut(Duration),
    /// The handler was not called: the body cannot be read.
    Unreadable(String),
}

impl Fault {
    /// The same for another message of the same call.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(error.to_string().into()),
            Self::Panicked(text) => Self::Panicked(text.clone()),
            Self::TimedOut(limit) => Self::TimedOut(*limit),
            Self::Unreadable(reason) => Self::Unreadable(reason.clone()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "the handler failed: {error}"),
            Self::Panicked(text) => write!(f, "the handler panicked: {text}"),
            Self::TimedOut(limit) => write!(f, "the handler did not end within {limit:?}"),
            Self::Unreadable(reason) => write!(f, "the body cannot be read: {reason}"),
        }
    }
}

/// Runs the handler: a panic and a hang are faults like an error.
pub(super) async fn attempt(
    handler: &impl Handler,
    message: MessageView,
    limit: Duration,
) -> Result<Outcome, Fault> {
    if let Some(error) = message.body_error() {
        return Err(Fault::Unreadable(error.to_string()));
    }
    guard(|| handler.handle(message), limit).await
}

/// Runs a call of the user's code to its end or to the limit. `call` makes it here, where it stays: a future that is
/// handed on is copied.
pub(super) async fn guard<T, F: Future<Output = Result<T, BoxError>>>(
    call: impl FnOnce() -> F,
    limit: Duration,
) -> Result<T, Fault> {
    // The user's function is called inside the future, because it may panic before it returns one.
    let mut call = pin!(catch(call()));
    // Most handlers of a busy consumer end at the first poll; a timer for those would cost more than they do.
    let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
    let ended = match first {
        Poll::Ready(ended) => ended,
        Poll::Pending => time::timeout(limit, call)
            .await
            .map_err(|_| Fault::TimedOut(limit))?,
    };
    match ended {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => Err(Fault::Failed(error)),
        Err(panic) => Err(Fault::Panicked(panic)),
    }
}
