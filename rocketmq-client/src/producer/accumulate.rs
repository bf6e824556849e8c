//! Batches that gather by themselves: messages that are sent one by one wait a moment for others that go the same way.
//!
//! Messages gather in lanes: one for each topic and each wish to wait for the store, and within it one for each queue
//! that messages name (by themselves or by their sharding keys) and one for those that go anywhere. A lane sends one
//! batch at a time, so a queue gets the messages of a lane in their order even if a batch has to be sent again; what
//! is sent meanwhile gathers for the next one.
//!
//! Protocol source: `ProduceAccumulator`, which keeps several batches in flight and so no order.

mod lane;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use self::lane::{Lane, LaneKey, Way};
use super::batch::{self, Content};
use super::builder::Options;
use super::prepare::Prepared;
use super::queue_selector;
use super::room::Seat;
use super::select::Target;
use super::send::{New, Wait, given_up};
use super::{Core, SendReceipt, SendStatus, WhenFull};
use crate::cluster::{BoxFuture, TopicRoute};
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::message::Message;
use crate::protocol::{java_hash, property};
use crate::sync::lock;
use crate::trace::now_millis;

/// How much longer a send waits for the answer to its batch than it may take: the batch's own error says more than
/// that the time is over.
const GRACE: Duration = Duration::from_millis(20);

/// How messages that are sent one by one gather to batches: [`ProducerBuilder::batching`].
///
/// - A send returns when its batch is stored, with a receipt of its own. A batch that fails fails each of its sends;
///   one that the broker finds too large is cut in two and sent again.
/// - Order: one task's sends to one queue (named, or by one sharding key) are stored in their order, detached or not,
///   retried or not. Messages that go to any queue are in batches that go to one queue after the other.
/// - What cannot be in a batch is sent by itself, and not in order with the others: messages with a delay or a
///   priority, to retry topics, of transactions, requests and replies, and one-way sends. A message that is larger than
///   a batch may be is sent by itself in its turn, and compressed if it is large enough; batches are not compressed.
/// - Room: a message counts as in flight from the moment it is sent, and `max_total_bytes` bounds what waits to leave.
///   Without room, sends wait or fail as [`when_full`](super::ProducerBuilder::when_full) says.
/// - Cancellation: a send whose future is dropped before its batch leaves is taken out of it; after that it may be
///   stored. A detached send cannot be taken out.
/// - A shutdown sends at once what has gathered, and waits for it.
///
/// [`ProducerBuilder::batching`]: super::ProducerBuilder::batching
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// use std::time::Duration;
///
/// use rocketmq_client::{Batching, Client, Message};
///
/// let client = Client::connect(broker.name_server()).await?;
/// let batching = Batching {
///     linger: Duration::from_millis(2),
///     ..Batching::default()
/// };
/// let producer = client.producer("orders-svc").batching(batching).start().await?;
/// let sent: Vec<_> = (0..100)
///     .map(|number| producer.send(Message::new("orders", format!("order {number}"))).detach())
///     .collect();
/// for handle in sent {
///     let receipt = handle.await?;
///     println!("stored at {} of {}", receipt.queue_offset, receipt.queue);
/// }
/// client.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// How long the first message of a batch waits for others, at most; zero sends what is there as soon as the batch
    /// before it is stored. Default 10 ms. Java: `batchMaxDelayMs`.
    pub linger: Duration,
    /// How large a batch becomes, in bytes on the wire: it leaves when it is. Default 32 KiB. Java: `batchMaxBytes`.
    pub max_bytes: usize,
    /// How many messages a batch has at most. Default 1000.
    pub max_messages: usize,
    /// How many bytes may wait in all batches that have not left yet. Default 32 MiB. Java: `totalBatchMaxBytes`.
    pub max_total_bytes: u32,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(10),
            max_bytes: 32 * 1024,
            max_messages: 1000,
            max_total_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Batching {
    /// Adds what cannot be used to `wrong`.
    pub(super) fn check(&self, options: &Options, wrong: &mut Vec<String>) {
        if self.max_bytes == 0 || self.max_bytes > options.max_message_bytes {
            wrong.push(format!(
                "max_bytes of batching must be from 1 to max_message_bytes, {}, not {}",
                options.max_message_bytes, self.max_bytes
            ));
        }
        if self.max_messages == 0 || self.max_total_bytes == 0 {
            wrong.push("max_messages and max_total_bytes of batching must be at least 1".to_owned());
        }
        if self.linger >= options.send_timeout {
            wrong.push(format!(
                "linger of batching must be shorter than the send timeout of {:?}, not {:?}",
                options.send_timeout, self.linger
            ));
        }
    }
}

/// The lanes of one producer.
#[derive(Debug)]
pub(super) struct Accumulator {
    batching: Batching,
    /// Room for what waits to leave.
    waiting: Arc<Semaphore>,
    /// By topic. A lane is there as long as something is in it or on its way.
    lanes: Mutex<HashMap<String, Vec<Lane>>>,
    closing: AtomicBool,
}

/// A message that waits to leave, with all that its send holds.
#[derive(Debug)]
struct Entry {
    message: Message,
    /// Where it is to go; told by its lane once it is in one that goes somewhere.
    way: Option<Way>,
    target: Option<Target>,
    deadline: Instant,
    /// How much of a batch it takes.
    bytes: usize,
    stage: Arc<Stage>,
    require_ok: bool,
    done: oneshot::Sender<Result<SendReceipt>>,
    /// Its share of the room for messages in flight; given back when the send is done.
    _seat: Seat,
    /// Its share of the room for what waits to leave; given back when it leaves.
    waiting: Option<OwnedSemaphorePermit>,
}

/// How far an entry is: the batch that takes it and the send that gives it up decide who was first.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

const WAITS: u8 = 0;
const LEAVES: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Stage {
    fn advance(&self, to: u8) -> bool {
        let changed = self
            .0
            .compare_exchange(WAITS, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }
}

/// The send's end of an entry.
struct Waiting {
    topic: String,
    stage: Arc<Stage>,
    result: oneshot::Receiver<Result<SendReceipt>>,
    deadline: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Nobody wants the message to be sent any more; too late if it has left.
        self.stage.advance(GIVEN_UP);
    }
}

/// Starts a send whose message gathers with others. What can be done at once is done, so that the order of the calls
/// is that of the messages.
pub(super) fn start(new: New, wait: Wait) -> Result<BoxFuture<'static, Result<SendReceipt>>> {
    let deadline = Instant::now() + new.timeout;
    let core = Arc::clone(&new.core);
    let Some(accumulator) = &core.accumulator else {
        return Err(Error::config("the producer has no batching"));
    };
    let Content::Single(mut message) = new.content else {
        return Err(Error::config("a batch is not put into another one"));
    };
    message.check(core.options.max_message_bytes)?;
    Prepared::admit(&mut message, &core, now_millis())?;
    let bytes = batch::size_in_batch(&message);
    let at_once = wait == Wait::Never || core.options.when_full == WhenFull::Fail;
    let seat = new.seat.or_else(|| {
        let cost = core.room.try_enter(message.body.len())?;
        Some(Seat::new(&core, cost))
    });
    let room = accumulator.try_wait(bytes);
    let place = match (seat, room) {
        (Some(seat), Some(room)) => (seat, room),
        (None, _) if at_once => return Err(core.room.full().context(send_to(&message.topic))),
        (_, None) if at_once => return Err(accumulator.full().context(send_to(&message.topic))),
        (seat, room) => {
            drop(room);
            let (target, require_ok) = (new.target, new.require_ok);
            return Ok(Box::pin(async move {
                let Some(accumulator) = &core.accumulator else {
                    return Err(given_up());
                };
                let seat = match seat {
                    Some(seat) => seat,
                    None => {
                        let (body, when_full) = (message.body.len(), core.options.when_full);
                        let cost = core.room.enter(body, when_full, deadline).await;
                        Seat::new(
                            &core,
                            cost.map_err(|error| error.context(send_to(&message.topic)))?,
                        )
                    }
                };
                let room = accumulator.wait(bytes, deadline).await;
                let room = room.map_err(|error| error.context(send_to(&message.topic)))?;
                core.check_open()?;
                let waiting = put(
                    &core,
                    message,
                    (target, require_ok),
                    deadline,
                    (seat, room),
                    bytes,
                )?;
                waiting.result().await
            }));
        }
    };
    let wishes = (new.target, new.require_ok);
    let waiting = put(&core, message, wishes, deadline, place, bytes)?;
    Ok(Box::pin(waiting.result()))
}

fn send_to(topic: &str) -> String {
    format!("send to topic {topic}")
}

/// Puts a message at the end of its lane.
fn put(
    core: &Arc<Core>,
    message: Message,
    (target, require_ok): (Target, bool),
    deadline: Instant,
    (seat, room): (Seat, OwnedSemaphorePermit),
    bytes: usize,
) -> Result<Waiting> {
    let (done, result) = oneshot::channel();
    let stage = Arc::new(Stage::default());
    let waiting = Waiting {
        topic: message.topic.clone(),
        stage: Arc::clone(&stage),
        result,
        deadline,
    };
    let mut entry = Entry {
        message,
        way: None,
        target: Some(target),
        deadline,
        bytes,
        stage,
        require_ok,
        done,
        _seat: seat,
        waiting: Some(room),
    };
    // Outside of the lock: a user's function may be asked.
    if let Some(route) = core.cluster.known_publish_route(&entry.message.topic) {
        entry.choose(&route)?;
    }
    lane::push(core, entry);
    Ok(waiting)
}

impl Entry {
    /// Finds out which way the message goes, now that the queues are known.
    fn choose(&mut self, route: &TopicRoute) -> Result<()> {
        let queues = route.publish_queues();
        let index = match self.target.take() {
            None => return Ok(()),
            Some(Target::Queue(queue)) => {
                self.way = Some(Way::Queue(queue));
                return Ok(());
            }
            Some(Target::Chosen(choose)) => choose(queues),
            Some(Target::Any) => match self.message.get(property::SHARDING_KEY) {
                Some(key) => queue_selector::place_of(java_hash(key), queues.len()),
                None => {
                    self.way = Some(Way::Any);
                    return Ok(());
                }
            },
        };
        let Some(queue) = queues.get(index) else {
            return Err(Error::config(format!(
                "send to topic {}: select_queue chose queue {index} of {}; choose one below that",
                self.message.topic,
                queues.len()
            )));
        };
        self.way = Some(Way::Queue(queue.clone()));
        Ok(())
    }

    fn key(&self) -> LaneKey {
        LaneKey {
            waits_for_store: batch::waits_for_store(&self.message),
            way: self.way.clone().unwrap_or(Way::Unknown),
        }
    }

    fn finish(self, mut result: Result<SendReceipt>) {
        if let Ok(receipt) = &result
            && receipt.status != SendStatus::Ok
            && self.require_ok
        {
            let (status, broker) = (receipt.status, &receipt.queue.broker_name);
            let why = (status.code(), "the batch of the message was stored so".to_owned());
            result = Err(Error::not_durable(broker, status.name(), why));
        }
        // Nobody may want it any more.
        let _ = self.done.send(result);
    }
}

impl Waiting {
    async fn result(mut self) -> Result<SendReceipt> {
        let until = self.deadline + GRACE;
        match timeout_at(until, &mut self.result).await {
            Ok(Ok(result)) => result,
            // The batch went away with the client.
            Ok(Err(_)) if self.stage.advance(GIVEN_UP) => Err(given_up().with_persisted(Persisted::No)),
            Ok(Err(_)) => Err(given_up()),
            Err(_) => {
                let (persisted, what) = match self.stage.advance(GIVEN_UP) {
                    true => (Persisted::No, "its batch did not leave before the deadline"),
                    false => (Persisted::Maybe, "its batch was not answered before the deadline"),
                };
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "send to topic {}: {what}; send more slowly, or allow more time",
                        self.topic
                    ),
                )
                .with_persisted(persisted))
            }
        }
    }
}

impl Accumulator {
    pub(super) fn new(batching: Batching) -> Self {
        Self {
            batching,
            waiting: Arc::new(Semaphore::new(batching.max_total_bytes as usize)),
            lanes: Mutex::default(),
            closing: AtomicBool::new(false),
        }
    }

    /// Whether messages of this kind gather.
    pub(super) fn takes(&self, message: &Message) -> bool {
        batch::obstacle(message).is_none()
    }

    /// Lets everything leave at once, from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for lane in lock(&self.lanes).values().flatten() {
            lane.wake();
        }
    }

    /// What a message takes of the room; one that is larger than all there is takes all there is.
    fn cost(&self, bytes: usize) -> u32 {
        let max = self.batching.max_total_bytes;
        u32::try_from(bytes).map_or(max, |bytes| bytes.min(max))
    }

    fn try_wait(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let cost = self.cost(bytes);
        Arc::clone(&self.waiting).try_acquire_many_owned(cost).ok()
    }

    async fn wait(&self, bytes: usize, deadline: Instant) -> Result<OwnedSemaphorePermit> {
        let cost = self.cost(bytes);
        let room = Arc::clone(&self.waiting).acquire_many_owned(cost);
        match timeout_at(deadline, room).await {
            Ok(Ok(room)) => Ok(room),
            // The semaphore is never closed, so this is the deadline.
            _ => Err(self.full()),
        }
    }

    fn full(&self) -> Error {
        let max = self.batching.max_total_bytes;
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "{} bytes of at most {max} wait in batches that have not left yet; send more slowly or raise \
                 max_total_bytes of batching",
                max as usize - self.waiting.available_permits()
            ),
        )
    }
}

#[cfg(test)]
mod tests;
