//! How the result of a send is wanted, and the futures that give it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use super::attempt::{Attempt, Fast, Job, Next};
use super::prepare::Prepared;
use super::select::Target;
use super::{Core, Producer, SendReceipt, WhenFull};
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::message::Message;
use crate::protocol::ResponseCode;
use crate::protocol::bodies::MessageQueue;
use crate::transport::InFlight;

/// A message about to be sent.
///
/// # Cancellation
/// Dropping the awaited future before the message is in the buffer of its connection means that it is not sent; after
/// that it may be stored. [`detach`](Self::detach) it to have it sent to the end.
#[must_use = "a send does nothing until awaited, detached, given a callback, or sent one-way"]
pub struct SendBuilder<'a> {
    producer: &'a Producer,
    message: Message,
    timeout: Option<Duration>,
    target: Target,
}

impl<'a> SendBuilder<'a> {
    pub(super) fn new(producer: &'a Producer, message: Message) -> Self {
        Self {
            producer,
            message,
            timeout: None,
            target: Target::Any,
        }
    }

    /// How long this send may take, all attempts included. Default:
    /// [`send_timeout`](super::ProducerBuilder::send_timeout) of the producer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends to this queue, all attempts.
    pub fn to_queue(mut self, queue: MessageQueue) -> Self {
        self.target = Target::Queue(queue);
        self
    }

    /// Lets `choose` say which of the topic's writable queues (sorted by broker and number) the message goes to: it
    /// gives an index. All attempts go there. Java: `MessageQueueSelector`.
    pub fn select_queue(mut self, choose: impl FnOnce(&[MessageQueue]) -> usize + Send + 'static) -> Self {
        self.target = Target::Chosen(Box::new(choose));
        self
    }

    /// Sends without waiting: the send goes on by itself, and the handle gives its result to whoever wants it.
    ///
    /// Sends that one task detaches one after the other reach a queue in that order, unless one has to be retried.
    ///
    /// With as much in flight as may be, the handle gives [`ErrorKind::Overloaded`]; see [`Producer::ready`].
    #[must_use = "drop the handle on purpose if the result does not matter"]
    pub fn detach(self) -> SendHandle {
        let (sender, receiver) = oneshot::channel();
        self.background(move |result| {
            // Nobody may want it.
            let _ = sender.send(result);
        });
        SendHandle(receiver)
    }

    /// Sends without waiting and hands the result to `done`, on a task of the client; `done` must not block.
    ///
    /// With as much in flight as may be, `done` gets [`ErrorKind::Overloaded`]; see [`Producer::ready`].
    pub fn on_complete(self, done: impl FnOnce(Result<SendReceipt>) + Send + 'static) {
        self.background(done);
    }

    fn background(self, done: impl FnOnce(Result<SendReceipt>) + Send + 'static) {
        let core = Arc::clone(self.producer.core());
        let mut future = self.into_future();
        future.start(Wait::Never);
        core.tasks.spawn("send", |stop| async move {
            let result = stop.run_until_cancelled(future).await;
            done(result.unwrap_or_else(|| Err(given_up())));
        });
    }

    /// Sends without asking for an answer: returns when the message is in the buffer of the connection. Whether it
    /// arrives is not known, and nothing is retried.
    ///
    /// # Errors
    /// What can be known before: [`ErrorKind::Config`], [`ErrorKind::TooLarge`], no route, no connection.
    ///
    /// # Cancellation
    /// Dropped before it returns, the message may or may not leave.
    pub async fn one_way(self) -> Result<()> {
        let core = self.producer.core();
        core.check_open()?;
        let prepared = Prepared::new(self.message, core)?;
        let timeout = self.timeout.unwrap_or(core.options.send_timeout);
        Job::new(core, prepared, self.target, timeout).one_way().await
    }
}

impl IntoFuture for SendBuilder<'_> {
    type Output = Result<SendReceipt>;
    type IntoFuture = SendFuture;

    fn into_future(self) -> SendFuture {
        let core = self.producer.core();
        SendFuture {
            state: State::New(New {
                timeout: self.timeout.unwrap_or(core.options.send_timeout),
                core: Arc::clone(core),
                message: self.message,
                target: self.target,
            }),
        }
    }
}

impl fmt::Debug for SendBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBuilder")
            .field("topic", &self.message.topic)
            .field("timeout", &self.timeout)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// The future of an awaited send. Nothing happens before it is polled.
#[must_use = "a send does nothing until awaited"]
pub struct SendFuture {
    state: State,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large states are those of every send; a box would cost each one an allocation"
)]
enum State {
    New(New),
    /// The fast path: one request, answered over its connection.
    InFlight(InFlight, Job, Attempt),
    /// Everything else.
    Slow(Pin<Box<dyn Future<Output = Result<SendReceipt>> + Send>>),
    Failed(Error),
    Done,
}

struct New {
    core: Arc<Core>,
    message: Message,
    target: Target,
    timeout: Duration,
}

/// Whether there is somebody who can wait for room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Never,
    AsConfigured,
}

impl SendFuture {
    /// Does what can be done without waiting.
    fn start(&mut self, wait: Wait) {
        let State::New(new) = mem::replace(&mut self.state, State::Done) else {
            return;
        };
        self.state = match new.start(wait) {
            Ok(state) => state,
            Err(error) => State::Failed(error),
        };
    }
}

impl New {
    fn start(self, wait: Wait) -> Result<State> {
        self.core.check_open()?;
        let prepared = Prepared::new(self.message, &self.core)?;
        let mut job = Job::new(&self.core, prepared, self.target, self.timeout);
        if wait == Wait::Never || self.core.options.when_full == WhenFull::Fail {
            job.enter_or_fail()?;
        }
        Ok(match job.start() {
            Fast::InFlight(in_flight, attempt) => State::InFlight(in_flight, job, attempt),
            Fast::NotNow(next) => State::Slow(Box::pin(job.run(next))),
        })
    }
}

impl Future for SendFuture {
    type Output = Result<SendReceipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.state, State::New(_)) {
            self.start(Wait::AsConfigured);
        }
        if let State::InFlight(in_flight, ..) = &mut self.state {
            let answer = ready!(Pin::new(in_flight).poll(context));
            let State::InFlight(in_flight, mut job, attempt) = mem::replace(&mut self.state, State::Done)
            else {
                return Poll::Ready(Err(given_up()));
            };
            if matches!(&answer, Ok(frame) if frame.code == ResponseCode::GO_AWAY.0) {
                job.retire(&attempt, in_flight.connection());
            }
            drop(in_flight);
            match answer.and_then(|frame| job.read(&attempt, frame)) {
                Ok(receipt) => return Poll::Ready(Ok(receipt)),
                Err(error) => self.state = State::Slow(Box::pin(job.run(Next::After(attempt, error)))),
            }
        }
        match &mut self.state {
            State::Slow(slow) => {
                let result = ready!(slow.as_mut().poll(context));
                self.state = State::Done;
                Poll::Ready(result)
            }
            _ => match mem::replace(&mut self.state, State::Done) {
                State::Failed(error) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Err(given_up())),
            },
        }
    }
}

impl fmt::Debug for SendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}

/// The result of a detached send, for whoever wants it. Dropping it changes nothing about the send.
#[derive(Debug)]
pub struct SendHandle(oneshot::Receiver<Result<SendReceipt>>);

impl Future for SendHandle {
    type Output = Result<SendReceipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(result.unwrap_or_else(|_| Err(given_up())))
    }
}

/// The client ended before the send did, or the future was polled after its end.
fn given_up() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the send was given up because its client was shut down before it was done",
    )
    .with_persisted(Persisted::Maybe)
}
