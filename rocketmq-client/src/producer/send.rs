//! How the result of a send is wanted, and the futures that give it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::{Instrument, Span};

use super::accumulate;
use super::attempt::{Attempt, Fast, Job, Next};
use super::batch::Content;
use super::layer::{Layers, SendContext, SendMode, Sending};
use super::line::{Line, Place};
use super::room::Seat;
use super::select::Target;
use super::{Core, Producer, SendReceipt, WhenFull};
use crate::cluster::BoxFuture;
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::message::Message;
use crate::protocol::ResponseCode;
use crate::protocol::bodies::MessageQueue;
use crate::telemetry;
use crate::transport::InFlight;

/// A message about to be sent.
///
/// # Cancellation
/// Dropping the awaited future before the message is in the buffer of its connection means that it is not sent; after
/// that it may be stored. [`detach`](Self::detach) it to have it sent to the end.
#[must_use = "a send does nothing until awaited, detached, given a callback, or sent one-way"]
pub struct SendBuilder<'a> {
    producer: &'a Producer,
    content: Content,
    timeout: Option<Duration>,
    target: Target,
    seat: Option<Seat>,
    require_ok: bool,
}

impl<'a> SendBuilder<'a> {
    pub(super) fn new(producer: &'a Producer, content: Content) -> Self {
        Self {
            producer,
            content,
            timeout: None,
            target: Target::Any,
            seat: None,
            require_ok: producer.core().options.require_ok,
        }
    }

    /// How long this send may take, all attempts included. Default:
    /// [`send_timeout`](super::ProducerBuilder::send_timeout) of the producer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes a message that is stored less safely than it should be a failure of this send; see
    /// [`ProducerBuilder::require_ok`](super::ProducerBuilder::require_ok).
    pub fn require_ok(mut self) -> Self {
        self.require_ok = true;
        self
    }

    /// Sends messages of one key to one queue, so that they are consumed in the order they were sent in: short for
    /// [`Message::sharding_key`].
    ///
    /// The queue is that of Java's `SelectMessageQueueByHash`: Java and Rust producers put the same key into the same
    /// queue. All attempts go there. What to know about order:
    ///
    /// - Send messages of one key one after the other, each when the one before is acknowledged: a detached send that
    ///   is tried again comes after those behind it.
    /// - When the number of the topic's queues changes, or a broker leaves the route, keys move to other queues; what
    ///   is in the old ones is still consumed, but side by side with what follows. An order configuration
    ///   (`ORDER_TOPIC_CONFIG`, as `mqadmin updateOrderConf` writes it) keeps the queues fixed: a broker that is away
    ///   keeps its keys, and their sends wait for it until their deadline.
    pub fn ordering_key(mut self, key: impl AsRef<str>) -> Self {
        self.content = self.content.map(|message| message.sharding_key(key.as_ref()));
        self
    }

    /// Sends to this queue, all attempts: what Java tries once is tried again here, at the same queue, after anything
    /// but a refusal that will stay.
    pub fn to_queue(mut self, queue: MessageQueue) -> Self {
        self.target = Target::Queue(queue);
        self
    }

    /// Lets `choose` say which of the topic's writable queues (sorted by broker and number) the message goes to: it
    /// gives an index. All attempts go there. Java: `MessageQueueSelector`; those that it ships are in
    /// [`queue_selector`](crate::queue_selector).
    pub fn select_queue(mut self, choose: impl FnOnce(&[MessageQueue]) -> usize + Send + 'static) -> Self {
        self.target = Target::Chosen(Box::new(choose));
        self
    }

    /// Takes the room that this message needs among those in flight, so that a send that is then detached or given a
    /// callback does not fail for lack of it. With [`WhenFull::Wait`] it waits until there is some, as long as that
    /// takes: what is in flight ends by its own deadline. The room is given back if the builder is dropped.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message};
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    /// let producer = client.producer("orders-svc").max_in_flight(16).start().await?;
    /// let mut sent = Vec::new();
    /// for number in 0..100 {
    ///     let message = Message::new("orders", number.to_string());
    ///     sent.push(producer.send(message).reserve().await?.detach());
    /// }
    /// for handle in sent {
    ///     handle.await?;
    /// }
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] without room if the producer [is to fail](WhenFull::Fail) then;
    /// [`ErrorKind::Closed`] if it is shut down.
    ///
    /// # Cancellation
    /// Safe: no room is kept.
    pub async fn reserve(mut self) -> Result<SendBuilder<'a>> {
        let core = self.producer.core();
        core.check_open()?;
        let body = self.content.body_bytes();
        let cost = match core.room.try_enter(body) {
            Some(cost) => cost,
            None if core.options.when_full == WhenFull::Fail => return Err(core.room.full()),
            None => core.room.enter_when_room(body).await?,
        };
        self.seat = Some(Seat::new(core, cost));
        core.check_open()?;
        Ok(self)
    }

    /// Sends without waiting: the send goes on by itself, and the handle gives its result to whoever wants it.
    ///
    /// Sends that one task detaches one after the other leave in that order, unless one has to be retried or a
    /// [layer](super::ProducerBuilder::layer) waits. A broker serves a connection with several threads and may exchange neighbours; where the order counts, gather them with
    /// [`batching`](super::ProducerBuilder::batching), or wait for each before the next.
    ///
    /// With as much in flight as may be, the handle gives [`ErrorKind::Overloaded`], unless room was
    /// [reserved](Self::reserve) before.
    #[must_use = "drop the handle on purpose if the result does not matter"]
    pub fn detach(self) -> SendHandle {
        let (sender, receiver) = oneshot::channel();
        self.background(SendMode::Detached, move |result| {
            // Nobody may want it.
            let _ = sender.send(result);
        });
        SendHandle(receiver)
    }

    /// Sends without waiting and hands the result to `done`, on a task of the client; `done` must not block.
    ///
    /// With as much in flight as may be, `done` gets [`ErrorKind::Overloaded`], unless room was
    /// [reserved](Self::reserve) before.
    pub fn on_complete(self, done: impl FnOnce(Result<SendReceipt>) + Send + 'static) {
        self.background(SendMode::Callback, done);
    }

    fn background(self, mode: SendMode, done: impl FnOnce(Result<SendReceipt>) + Send + 'static) {
        let core = Arc::clone(self.producer.core());
        let mut future = self.future(mode);
        future.start(Wait::Never);
        let background = Background {
            future,
            stop: core.tasks.token().clone(),
            stopped: None,
            done: Some(done),
        };
        core.tasks.spawn_brief("send", background);
    }

    /// Sends without asking for an answer: returns when the message is in the buffer of the connection. Whether it
    /// arrives is not known, and nothing is retried. It counts as in flight until the socket has taken it, so a broker
    /// that reads slowly makes senders wait instead of filling the memory.
    ///
    /// # Errors
    /// What can be known before: [`ErrorKind::Config`], [`ErrorKind::TooLarge`], no route, no connection;
    /// [`ErrorKind::Overloaded`] without room in time.
    ///
    /// # Cancellation
    /// Dropped before it returns, the message may or may not leave.
    pub async fn one_way(self) -> Result<()> {
        let new = self.new_send(SendMode::OneWay);
        new.core.check_open()?;
        let span = new.span();
        if new.core.layers.is_some() || !span.is_disabled() {
            new.observed(span, Wait::AsConfigured).await?;
        } else {
            new.one_way().await?;
        }
        Ok(())
    }

    fn new_send(self, mode: SendMode) -> New {
        let core = self.producer.core();
        New {
            timeout: self.timeout.unwrap_or(core.options.send_timeout),
            core: Arc::clone(core),
            content: self.content,
            target: self.target,
            mode,
            seat: self.seat,
            require_ok: self.require_ok,
        }
    }

    fn future(self, mode: SendMode) -> SendFuture {
        SendFuture {
            state: State::New(self.new_send(mode)),
        }
    }
}

impl IntoFuture for SendBuilder<'_> {
    type Output = Result<SendReceipt>;
    type IntoFuture = SendFuture;

    fn into_future(self) -> SendFuture {
        self.future(SendMode::Awaited)
    }
}

impl fmt::Debug for SendBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBuilder")
            .field("topic", &self.content.topic())
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
    Slow(BoxFuture<'static, Result<SendReceipt>>),
    /// Before anybody asked.
    Ended(Result<SendReceipt>),
    Done,
}

pub(super) struct New {
    pub(super) core: Arc<Core>,
    pub(super) content: Content,
    pub(super) target: Target,
    pub(super) timeout: Duration,
    mode: SendMode,
    pub(super) seat: Option<Seat>,
    pub(super) require_ok: bool,
}

/// Whether there is somebody who can wait for room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
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
            Err(error) => State::Ended(Err(error)),
        };
    }
}

impl New {
    fn start(mut self, wait: Wait) -> Result<State> {
        self.core.check_open()?;
        let span = self.span();
        if self.core.layers.is_some() || !span.is_disabled() {
            // Who cannot wait takes its room now: what the layers do comes later.
            if wait == Wait::Never && self.seat.is_none() {
                let core = &self.core;
                let cost = core.room.try_enter(self.content.body_bytes());
                let cost = cost.ok_or_else(|| {
                    core.room
                        .full()
                        .context(format_args!("send to topic {}", self.content.topic()))
                })?;
                self.seat = Some(Seat::new(core, cost));
            }
            let core = Arc::clone(&self.core);
            let mut observed: BoxFuture<'static, _> = Box::pin(self.observed(span, wait));
            if wait == Wait::Never {
                // Now, and not when its task comes to run: so sends leave in the order in which they were detached, as
                // long as the layers do not wait. The task polls it again, by which its waker gets known.
                let _runtime = core.tasks.enter();
                let mut nobody = Context::from_waker(Waker::noop());
                if let Poll::Ready(result) = observed.as_mut().poll(&mut nobody) {
                    return Ok(State::Ended(result));
                }
            }
            return Ok(State::Slow(observed));
        }
        self.start_bare(wait)
    }

    fn span(&self) -> Span {
        let client_id = self.core.cluster.client_id();
        telemetry::send_span(self.content.topic(), client_id, self.content.body_bytes())
    }

    /// Sends in a span that tells how it ended.
    async fn observed(self, span: Span, wait: Wait) -> Result<SendReceipt> {
        let result = self.layered(wait).instrument(span.clone()).await;
        match &result {
            Ok(receipt) => {
                let queue = &receipt.queue;
                let (broker, id) = (&*queue.broker_name, queue.queue_id);
                telemetry::sent(&span, &receipt.message_id, broker, id, receipt.attempts);
            }
            Err(error) => telemetry::not_sent(&span, error.kind(), error.attempts()),
        }
        result
    }

    /// Lets the layers see the message, and sends what they let through.
    async fn layered(self, wait: Wait) -> Result<SendReceipt> {
        let core = Arc::clone(&self.core);
        let Some(layers) = &core.layers else {
            return self.bare(wait).await;
        };
        self.through(layers, wait).await
    }

    async fn through(self, layers: &Layers, wait: Wait) -> Result<SendReceipt> {
        let context = SendContext {
            group: self.core.group.clone(),
            client_id: self.core.cluster.client_id().to_owned(),
            mode: self.mode,
            kind: self.content.kind(),
            queue: match &self.target {
                Target::Queue(queue) => Some(queue.clone()),
                _ => None,
            },
            timeout: self.timeout,
        };
        let Self {
            core,
            content,
            target,
            timeout,
            mode,
            seat,
            require_ok,
        } = self;
        let kind = content.kind();
        let deliver = move |messages: Vec<Message>| -> BoxFuture<'static, Result<SendReceipt>> {
            Box::pin(async move {
                let Some(content) = Content::of(kind, messages) else {
                    return Err(Error::config(
                        "a send layer took the message away; answer with an error instead",
                    ));
                };
                let new = Self {
                    core,
                    content,
                    target,
                    timeout,
                    mode,
                    seat,
                    require_ok,
                };
                new.bare(wait).await
            })
        };
        let messages = content.into_messages();
        layers
            .call(Sending::new(messages, context, Box::new(deliver)))
            .await
    }

    /// Sends without layers.
    async fn bare(self, wait: Wait) -> Result<SendReceipt> {
        if self.mode == SendMode::OneWay {
            return self.one_way().await;
        }
        let state = self.start_bare(wait)?;
        SendFuture { state }.await
    }

    /// Puts the context of the current span into the messages, if somebody says which that is.
    fn put_in_trace(&mut self) {
        if self.core.propagate.is_some() {
            let none = Content::Batch(Vec::new());
            let content = mem::replace(&mut self.content, none);
            self.content = content.map(|message| self.core.propagate.inject(message));
        }
    }

    async fn one_way(mut self) -> Result<SendReceipt> {
        self.put_in_trace();
        let place = self.core.line.behind();
        let mut prepared = self.content.prepare(&self.core, &self.target)?;
        match prepared.is_compressed_elsewhere() {
            true => prepared.compress_elsewhere(&self.core).await,
            false => prepared.compress(&self.core.options),
        }
        let job = Job::new(&self.core, prepared, self.target, self.timeout);
        place.wait(job.deadline).await;
        // The room that was reserved is given back for that which lasts until the frame is written.
        drop(self.seat);
        job.one_way().await
    }

    fn start_bare(mut self, wait: Wait) -> Result<State> {
        self.put_in_trace();
        if let Some(accumulator) = &self.core.accumulator
            && let Content::Single(message) = &self.content
            && accumulator.takes(message)
        {
            return accumulate::start(self, wait).map(State::Slow);
        }
        let mut prepared = self.content.prepare(&self.core, &self.target)?;
        let elsewhere = prepared.is_compressed_elsewhere();
        if !elsewhere {
            prepared.compress(&self.core.options);
        }
        let mut job = Job::new(&self.core, prepared, self.target, self.timeout);
        job.cost = self.seat.and_then(Seat::take);
        job.require_ok = self.require_ok;
        if wait == Wait::Never || self.core.options.when_full == WhenFull::Fail {
            job.enter_or_fail()?;
        }
        if elsewhere || self.core.line.is_busy() {
            // Who waits for this send has nothing behind it; who does not may have.
            let place = match wait {
                Wait::Never if elsewhere || self.core.line.is_ahead() => Line::join(&self.core),
                _ => self.core.line.behind(),
            };
            return Ok(State::Slow(Box::pin(in_line(job, place))));
        }
        Ok(begin(job))
    }
}

/// Makes the first attempt at once if nothing has to be waited for.
fn begin(mut job: Job) -> State {
    match job.start() {
        Fast::InFlight(in_flight, attempt) => State::InFlight(in_flight, job, attempt),
        Fast::NotNow(next) => State::Slow(Box::pin(job.run(next))),
    }
}

/// Compresses a large body where that holds up nothing, and sends it in its turn.
async fn in_line(mut job: Job, place: Place) -> Result<SendReceipt> {
    let core = Arc::clone(&job.core);
    job.prepared.compress_elsewhere(&core).await;
    place.wait(job.deadline).await;
    let state = begin(job);
    drop(place);
    SendFuture { state }.await
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
                State::Ended(result) => Poll::Ready(result),
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

/// A send that nobody awaits, and who gets its result.
struct Background<D> {
    future: SendFuture,
    stop: CancellationToken,
    /// Ends when the client stops. What waits is given up then; what is in flight needs no such watch, because it ends
    /// with its connection.
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    done: Option<D>,
}

/// Nothing in it is ever pinned in place.
impl<D> Unpin for Background<D> {}

impl<D: FnOnce(Result<SendReceipt>)> Future for Background<D> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let result = match Pin::new(&mut this.future).poll(context) {
            Poll::Ready(result) => result,
            Poll::Pending if matches!(this.future.state, State::Slow(_)) => {
                let stop = &this.stop;
                let stopped = this
                    .stopped
                    .get_or_insert_with(|| Box::pin(stop.clone().cancelled_owned()));
                ready!(stopped.as_mut().poll(context));
                this.future.state = State::Done;
                Err(given_up())
            }
            Poll::Pending => return Poll::Pending,
        };
        if let Some(done) = this.done.take() {
            done(result);
        }
        Poll::Ready(())
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
pub(super) fn given_up() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the send was given up because its client was shut down before it was done",
    )
    .with_persisted(Persisted::Maybe)
}
