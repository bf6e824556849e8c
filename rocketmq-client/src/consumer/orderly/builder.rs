//! The setters of ordered consumption.

use std::hash::Hash;
use std::time::Duration;

use super::keys::KeyOf;
use super::options::{OrderedBy, Poison};
use crate::consumer::builder::PushConsumerBuilder;
use crate::message::MessageView;

impl PushConsumerBuilder {
    /// Keeps the order of each queue: its messages are handled one after the other, and a message that fails is tried
    /// again in its place, after a [pause](Self::suspend_time), while all that follows it waits. Java:
    /// `MessageListenerOrderly`.
    ///
    /// Queues are locked at their brokers, so that one member of the group at a time handles a queue, also while
    /// members come and go. Members of other languages that consume in order take part in that; all members of a group
    /// have to. Up to [`concurrency`](Self::concurrency) queues are handled at a time.
    ///
    /// - [`Outcome::Retry`](crate::Outcome::Retry), an error, a panic and a hang pause the queue.
    ///   [`Retry::After`](crate::Retry::After) and [`Retry::Level`](crate::Retry::Level) say for how long, from 10 ms
    ///   to 30 s. [`MessageView::reconsume_times`] counts the tries; the count starts anew with another owner.
    /// - A message is tried again without end unless [`max_reconsume_times`](Self::max_reconsume_times) is set; what
    ///   happens then is up to [`poison`](Self::poison). [`Outcome::Reject`](crate::Outcome::Reject) makes it a dead
    ///   letter at once.
    /// - A queue that is given up stays with this member until its handler has ended, up to the
    ///   [shutdown grace](Self::shutdown_grace). A handler that still runs then, or when the lock of the queue is lost,
    ///   is dropped at its next `await`. What may be repeated is always the newest part of what was handled, in order.
    /// - After a member was killed, its queues stay locked until the broker lets go of them: a minute.
    ///
    /// ```
    /// use rocketmq_client::{Client, ConsumeFrom, Message, MessageView};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "paid").sharding_key("order-1")).await?;
    /// # let (done, mut seen) = tokio::sync::mpsc::channel(1);
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .orderly()
    ///     .start(move |message: MessageView| {
    ///         let done = done.clone();
    ///         async move {
    ///             // An error: the queue waits for a second, then the same message comes again.
    ///             done.send(message.message_id()).await
    ///         }
    ///     })
    ///     .await?;
    /// # seen.recv().await.expect("a message");
    /// // ..
    /// consumer.shutdown().await; // the queues are unlocked: another member goes on at once
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn orderly(mut self) -> Self {
        self.options.order.by = Some(OrderedBy::Queue);
        self
    }

    /// Keeps the order of messages with the same key, and handles different keys of a queue at the same time, up to
    /// [`concurrency`](Self::concurrency) in all. Java has nothing like it.
    ///
    /// The key is the [sharding key](crate::Message::sharding_key), else the [keys](crate::Message::key); a message
    /// without either keeps no order. The producer has to send all messages of a key to the same queue, as
    /// [`ordering_key`](crate::SendBuilder::ordering_key) does. [`ordered_by`](Self::ordered_by) takes another key.
    ///
    /// Queues are locked as with [`orderly`](Self::orderly), and what holds there for a queue holds here for a key,
    /// with two differences:
    ///
    /// - A message is tried again in its place 16 times unless
    ///   [`max_reconsume_times`](Self::max_reconsume_times) says otherwise, because one key must not hold up all others
    ///   for ever: the committed offset does not pass a message that is not done with, and once
    ///   [`max_span`](Self::max_span) or one of the limits of the cache is reached, the whole queue waits for it.
    /// - After a crash, what comes again is everything from the lowest unfinished message on, of all keys: messages of
    ///   other keys that were handled out of turn, too, at most the span of them.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, ConsumeFrom, Message, MessageView, Poison};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "paid").sharding_key("order-1")).await?;
    /// # let (done, mut seen) = tokio::sync::mpsc::channel(1);
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .ordered_by_key()
    ///     .concurrency(64) // different orders at a time, also of one queue
    ///     .max_reconsume_times(5) // then the order would have waited long enough:
    ///     .poison(Poison::DeadLetter)
    ///     .suspend_time(Duration::from_millis(200))
    ///     .start(move |message: MessageView| {
    ///         let done = done.clone();
    ///         async move { done.send(message.message_id()).await }
    ///     })
    ///     .await?;
    /// # seen.recv().await.expect("a message");
    /// // ..
    /// consumer.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordered_by_key(mut self) -> Self {
        self.options.order.by = Some(OrderedBy::Key(KeyOf::sharding_key()));
        self
    }

    /// [`ordered_by_key`](Self::ordered_by_key) with a key of one's own; messages for which there is `None` keep no
    /// order. The function is called once for each message when it arrives, so it should be quick. If it panics, the
    /// message goes in order with all others for which it did.
    pub fn ordered_by<K: Hash>(
        mut self,
        key: impl Fn(&MessageView) -> Option<K> + Send + Sync + 'static,
    ) -> Self {
        self.options.order.by = Some(OrderedBy::Key(KeyOf::new(key)));
        self
    }

    /// How long a queue or key pauses after a failure, where order is kept; from 10 ms to 30 s. Default 1 s. Java:
    /// `suspendCurrentQueueTimeMillis`.
    pub fn suspend_time(mut self, pause: Duration) -> Self {
        self.options.order.suspend = pause;
        self
    }

    /// What becomes of a message that failed more often than
    /// [`max_reconsume_times`](Self::max_reconsume_times), where order is kept. Default [`Poison::DeadLetter`].
    pub fn poison(mut self, poison: Poison) -> Self {
        self.options.order.poison = poison;
        self
    }
}
