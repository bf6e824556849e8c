//! Several messages in one request.
//!
//! Protocol source: `MessageBatch#generateFromList`, `DefaultMQProducer#batch`, `MessageDecoder#encodeMessages`.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;

use super::layer::SendKind;
use super::prepare::Prepared;
use super::select::Target;
use super::send::{SendBuilder, SendFuture, SendHandle};
use super::{Core, Producer, SendReceipt, SendStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Delivery, Message};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::names::RETRY_PREFIX;
use crate::protocol::{BATCH_OVERHEAD, encode_batch_message, property};
use crate::trace::now_millis;

/// What a message that has no id yet is going to grow by: name, id and two separators.
const UNIQUE_KEY_BYTES: usize = property::UNIQUE_KEY.len() + 32 + 2;

/// What one send carries.
pub(super) enum Content {
    Single(Message),
    Batch(Vec<Message>),
}

impl Content {
    /// What layers made of the messages of a send of this kind.
    pub(super) fn of(kind: SendKind, mut messages: Vec<Message>) -> Option<Self> {
        match kind {
            SendKind::Batch => Some(Self::Batch(messages)),
            _ => messages.pop().map(Self::Single),
        }
    }

    pub(super) fn kind(&self) -> SendKind {
        let message = match self {
            Self::Single(message) => message,
            Self::Batch(_) => return SendKind::Batch,
        };
        let has = |name| message.get(name).is_some();
        match () {
            () if has(property::TRANSACTION_PREPARED) => SendKind::TransactionHalf,
            () if has(property::MESSAGE_TYPE) => SendKind::Reply,
            () if has(property::CORRELATION_ID) => SendKind::Request,
            () => SendKind::Normal,
        }
    }

    pub(super) fn map(self, mut change: impl FnMut(Message) -> Message) -> Self {
        match self {
            Self::Single(message) => Self::Single(change(message)),
            Self::Batch(messages) => Self::Batch(messages.into_iter().map(change).collect()),
        }
    }

    pub(super) fn into_messages(self) -> Vec<Message> {
        match self {
            Self::Single(message) => vec![message],
            Self::Batch(messages) => messages,
        }
    }

    pub(super) fn topic(&self) -> &str {
        match self {
            Self::Single(message) => &message.topic,
            Self::Batch(messages) => messages.first().map_or("", |message| &message.topic),
        }
    }

    /// The bytes of all bodies.
    pub(super) fn body_bytes(&self) -> usize {
        match self {
            Self::Single(message) => message.body.len(),
            Self::Batch(messages) => messages.iter().map(|message| message.body.len()).sum(),
        }
    }

    pub(super) fn prepare(self, core: &Core, target: &Target) -> Result<Prepared> {
        match self {
            Self::Single(message) => Prepared::new(message, core),
            Self::Batch(messages) => prepare(messages, core, target),
        }
    }
}

impl Producer {
    /// Sends several messages of one topic in one request; the broker stores them one behind the other in one queue,
    /// or none of them.
    ///
    /// What is returned says how, as with [`send`](Self::send). A batch counts as one message in flight, with the
    /// bytes of all. It has to be within [`max_message_bytes`](super::ProducerBuilder::max_message_bytes) as a whole,
    /// see [`split_batch`](Self::split_batch), and is not compressed: brokers store each message as it is in the batch.
    ///
    /// The send fails, and names the first message that is in the way, if there are messages of another topic or with
    /// another [`wait_store`](Message::wait_store), messages with a delay, a priority or a transaction, messages to a
    /// retry topic, or different [sharding keys](Message::sharding_key) without a queue that was named.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message};
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    /// let producer = client.producer("orders-svc").start().await?;
    /// let orders = (1..=3).map(|number| Message::new("orders", format!("order {number}")));
    /// let receipt = producer.send_batch(orders).await?;
    /// assert_eq!(receipt.message_ids.len(), 3);
    /// println!("from {} on in {}", receipt.queue_offset, receipt.queue);
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_batch(&self, messages: impl IntoIterator<Item = Message>) -> SendBatch<'_> {
        SendBatch(SendBuilder::new(
            self,
            Content::Batch(messages.into_iter().collect()),
        ))
    }

    /// Cuts messages into batches that this producer may send, each as large as it can be.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message};
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    /// let producer = client.producer("orders-svc").max_message_bytes(10_000).start().await?;
    /// let orders = (0..100).map(|_| Message::new("orders", vec![b'x'; 1000]));
    /// for batch in producer.split_batch(orders) {
    ///     producer.send_batch(batch?).await?;
    /// }
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn split_batch<I: IntoIterator<Item = Message>>(&self, messages: I) -> BatchSplitter<I::IntoIter> {
        let core = self.core();
        let mut splitter = BatchSplitter::new(messages, core.options.max_message_bytes);
        splitter.added_bytes = added_bytes(core);
        splitter
    }
}

/// What a producer adds to the properties of each of its messages besides their ids.
fn added_bytes(core: &Core) -> usize {
    core.cluster.namespace().map_or(0, |namespace| {
        property::INSTANCE_ID.len() + namespace.name().len() + 2
    })
}

/// How much of a batch a message takes, the id that it is going to get included.
pub(super) fn size_in_batch(message: &Message) -> usize {
    let properties = message.properties.as_str().len();
    let id = match message.properties.get(property::UNIQUE_KEY) {
        Some(_) => 0,
        None => UNIQUE_KEY_BYTES,
    };
    BATCH_OVERHEAD + message.body.len() + properties + id
}

/// Checks the messages of a batch and puts them into one body.
fn prepare(mut messages: Vec<Message>, core: &Core, target: &Target) -> Result<Prepared> {
    let Some(first) = messages.first() else {
        return Err(Error::config("a batch needs at least one message"));
    };
    let (topic, wait) = (first.topic.clone(), waits_for_store(first));
    let sharding_key = first.get(property::SHARDING_KEY).map(str::to_owned);
    for (index, message) in messages.iter().enumerate() {
        message
            .check(core.options.max_message_bytes)
            .map_err(|error| error.context(format_args!("message {index} of a batch")))?;
        let obstacle = if message.topic != topic {
            Some(format!(
                "is for topic {}, the first one for {topic}",
                message.topic
            ))
        } else if waits_for_store(message) != wait {
            Some("has another wait_store than the first one".to_owned())
        } else if matches!(target, Target::Any)
            && message.get(property::SHARDING_KEY) != sharding_key.as_deref()
        {
            Some("has another sharding key than the first one, and no queue is named".to_owned())
        } else {
            obstacle(message).map(|reason| format!("cannot be in one: {reason}"))
        };
        if let Some(obstacle) = obstacle {
            return Err(Error::config(format!(
                "batch to topic {topic}: message {index} {obstacle}; send it by itself"
            )));
        }
    }
    let born_timestamp = now_millis();
    for message in &mut messages {
        Prepared::admit(message, core, born_timestamp)?;
    }
    encode(&messages, core)
}

/// Puts messages that were checked, and have their ids, into one body.
///
/// # Errors
/// [`ErrorKind::TooLarge`] for a body above the limit.
pub(super) fn encode<'a>(
    messages: impl IntoIterator<Item = &'a Message> + Clone,
    core: &Core,
) -> Result<Prepared> {
    let size: usize = messages.clone().into_iter().map(size_in_batch).sum();
    let mut first = None;
    let mut ids = String::new();
    let mut body = BytesMut::with_capacity(size.min(core.options.max_message_bytes));
    let max = core.options.max_message_bytes;
    for (index, message) in messages.into_iter().enumerate() {
        let first = first.get_or_insert(message);
        let properties = message.properties.as_str();
        encode_batch_message(message.flag, &message.body, properties, &mut body).map_err(|error| {
            Error::from_encode("batch", error)
                .context(format_args!("message {index} to topic {}", first.topic))
        })?;
        if body.len() > max {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "batch to topic {}: with message {index} it is above the limit of {max} bytes, {size} in all; cut \
                     it with split_batch",
                    first.topic
                ),
            ));
        }
        if index > 0 {
            ids.push(',');
        }
        ids.push_str(message.get(property::UNIQUE_KEY).unwrap_or_default());
    }
    match first {
        Some(first) => Prepared::batch(first, ids, body.freeze(), core),
        None => Err(Error::config("a batch needs at least one message")),
    }
}

/// Why a message can only be sent by itself.
pub(super) fn obstacle(message: &Message) -> Option<&'static str> {
    if message.delivery != Delivery::AtOnce {
        return Some("it is to be delivered later");
    }
    if message.has_priority {
        return Some("it has a priority");
    }
    if message.topic.starts_with(RETRY_PREFIX) {
        return Some("its topic is a retry topic");
    }
    for (name, reason) in [
        (property::TRANSACTION_PREPARED, "it is part of a transaction"),
        (property::PRODUCER_GROUP, "it is part of a transaction"),
        (property::MESSAGE_TYPE, "it is an answer"),
        (property::CORRELATION_ID, "it is a request"),
    ] {
        if message.get(name).is_some() {
            return Some(reason);
        }
    }
    None
}

/// As the property says, which is absent for "yes".
pub(super) fn waits_for_store(message: &Message) -> bool {
    message.get(property::WAIT) != Some("false")
}

/// A batch about to be sent.
///
/// # Cancellation
/// As for a [single message](SendBuilder).
#[must_use = "a send does nothing until awaited, detached, given a callback, or sent one-way"]
pub struct SendBatch<'a>(SendBuilder<'a>);

impl SendBatch<'_> {
    /// See [`SendBuilder::timeout`].
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// Gives all messages this sharding key, see [`SendBuilder::ordering_key`].
    pub fn ordering_key(self, key: impl AsRef<str>) -> Self {
        Self(self.0.ordering_key(key))
    }

    /// See [`SendBuilder::to_queue`].
    pub fn to_queue(self, queue: MessageQueue) -> Self {
        Self(self.0.to_queue(queue))
    }

    /// See [`SendBuilder::select_queue`].
    pub fn select_queue(self, choose: impl FnOnce(&[MessageQueue]) -> usize + Send + 'static) -> Self {
        Self(self.0.select_queue(choose))
    }

    /// Makes it an error if the batch is stored less safely than the brokers are configured to, see
    /// [`SendBuilder::require_ok`].
    pub fn require_ok(self) -> Self {
        Self(self.0.require_ok())
    }

    /// Takes the room that the batch needs among what is in flight, see [`SendBuilder::reserve`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancellation
    /// Safe: no room is kept.
    pub async fn reserve(self) -> Result<Self> {
        self.0.reserve().await.map(Self)
    }

    /// Sends without waiting, see [`SendBuilder::detach`].
    #[must_use = "drop the handle on purpose if the result does not matter"]
    pub fn detach(self) -> BatchHandle {
        BatchHandle(self.0.detach())
    }

    /// Sends without waiting and hands the result to `done`, see [`SendBuilder::on_complete`].
    pub fn on_complete(self, done: impl FnOnce(Result<BatchReceipt>) + Send + 'static) {
        self.0
            .on_complete(|result| done(result.map(BatchReceipt::from_joined)));
    }

    /// Sends without asking for an answer, see [`SendBuilder::one_way`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancellation
    /// Dropped before it returns, the batch may or may not leave.
    pub async fn one_way(self) -> Result<()> {
        self.0.one_way().await
    }
}

impl IntoFuture for SendBatch<'_> {
    type Output = Result<BatchReceipt>;
    type IntoFuture = BatchFuture;

    fn into_future(self) -> BatchFuture {
        BatchFuture(self.0.into_future())
    }
}

impl fmt::Debug for SendBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendBatch").field(&self.0).finish()
    }
}

/// The future of an awaited batch. Nothing happens before it is polled.
#[must_use = "a send does nothing until awaited"]
#[derive(Debug)]
pub struct BatchFuture(SendFuture);

impl Future for BatchFuture {
    type Output = Result<BatchReceipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(result.map(BatchReceipt::from_joined))
    }
}

/// The result of a detached batch, for whoever wants it. Dropping it changes nothing about the send.
#[derive(Debug)]
pub struct BatchHandle(SendHandle);

impl Future for BatchHandle {
    type Output = Result<BatchReceipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(result.map(BatchReceipt::from_joined))
    }
}

/// Where the messages of a batch were stored, and how safely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchReceipt {
    /// The ids that this client gave the messages, in their order; a consumer sees the same ones.
    pub message_ids: Vec<String>,
    /// The ids that say where the broker stored them. Only one if the topic keeps batches whole (`BatchCQ`).
    pub offset_message_ids: Vec<String>,
    /// The queue.
    pub queue: MessageQueue,
    /// The position of the first message; the others follow one by one.
    pub queue_offset: i64,
    /// How safely they are stored.
    pub status: SendStatus,
    /// How many attempts it took.
    pub attempts: u32,
}

impl BatchReceipt {
    /// Takes the ids apart, which one receipt has as Java has them: separated by commas.
    pub(super) fn from_joined(receipt: SendReceipt) -> Self {
        let ids = |joined: &str| {
            joined
                .split(',')
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect()
        };
        Self {
            message_ids: ids(&receipt.message_id),
            offset_message_ids: ids(&receipt.offset_message_id),
            queue: receipt.queue,
            queue_offset: receipt.queue_offset,
            status: receipt.status,
            attempts: receipt.attempts,
        }
    }

    /// A receipt for each message.
    #[must_use]
    pub fn into_receipts(self) -> Vec<SendReceipt> {
        let whole = match &self.offset_message_ids[..] {
            [one] => one.clone(),
            _ => String::new(),
        };
        let mut offset_ids = self.offset_message_ids.into_iter();
        (self.queue_offset..)
            .zip(self.message_ids)
            .map(|(queue_offset, message_id)| SendReceipt {
                message_id,
                offset_message_id: offset_ids.next().unwrap_or_else(|| whole.clone()),
                queue: self.queue.clone(),
                queue_offset,
                status: self.status,
                attempts: self.attempts,
                recall_handle: None,
            })
            .collect()
    }
}

/// Cuts messages into batches, in order, each as large as a limit allows. Java users write this themselves.
#[derive(Clone, Debug)]
#[must_use = "an iterator does nothing until it is asked for its items"]
pub struct BatchSplitter<I> {
    messages: std::iter::Fuse<I>,
    max_bytes: usize,
    added_bytes: usize,
    /// How many messages were taken.
    taken: usize,
    /// The first message of the next batch, with its size.
    next: Option<(Message, usize)>,
}

impl<I: Iterator<Item = Message>> BatchSplitter<I> {
    /// Batches of at most `max_bytes` each, what a batch adds to each message (22 bytes and the id) included.
    pub fn new(messages: impl IntoIterator<IntoIter = I>, max_bytes: usize) -> Self {
        Self {
            messages: messages.into_iter().fuse(),
            max_bytes,
            added_bytes: 0,
            taken: 0,
            next: None,
        }
    }

    fn take(&mut self) -> Option<(Message, usize)> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        let message = self.messages.next()?;
        self.taken += 1;
        let size = size_in_batch(&message).saturating_add(self.added_bytes);
        Some((message, size))
    }
}

impl<I: Iterator<Item = Message>> Iterator for BatchSplitter<I> {
    /// A batch, or the error that names the message that no batch can hold; the messages after it follow.
    type Item = Result<Vec<Message>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Vec::new();
        let mut bytes = 0usize;
        while let Some((message, size)) = self.take() {
            if bytes.saturating_add(size) <= self.max_bytes {
                bytes += size;
                batch.push(message);
                continue;
            }
            if batch.is_empty() {
                return Some(Err(Error::new(
                    ErrorKind::TooLarge,
                    format!(
                        "message {} to topic {} takes {size} bytes of a batch, the limit is {}; send less, or raise \
                         max_message_bytes",
                        self.taken.saturating_sub(1),
                        message.topic,
                        self.max_bytes
                    ),
                )));
            }
            self.next = Some((message, size));
            break;
        }
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests;
