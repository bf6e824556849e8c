//! A consumer that receives when it is asked to: messages are popped, and acknowledged one by one.
//!
//! It keeps nothing between calls, has no queues of its own and needs no rebalance: any number of them, in any number of
//! processes, share the messages of a group as they ask.
//!
//! Protocol source: `PopMessageProcessor`, `NotificationProcessor`, `AckMessageProcessor`,
//! `ChangeInvisibleTimeProcessor`.

mod builder;
mod member;
mod receive;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tracing::{info, warn};

pub use builder::SimpleConsumerBuilder;
use member::Core;

use super::pop::calls::{Receipt, is_unknown_request};
use super::pop::{MAX_INVISIBLE, MIN_INVISIBLE};
use crate::cluster::Client;
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::ReceiptHandle;
use crate::tasks::join_all;

/// How long a shutdown waits for what is on its way.
const FAREWELL: Duration = Duration::from_secs(3);

/// Receives messages of a group one by one: for jobs whose worker says itself when it wants the next one, and when one
/// is done.
///
/// Made by [`Client::simple_consumer`]. Clones are handles to the same consumer, and calls may be made at the same time.
/// [`shutdown`](Self::shutdown) ends it in order; dropping the last handle leaves the group in the background.
///
/// Brokers of 4.x do not serve it.
#[derive(Clone)]
pub struct SimpleConsumer(Arc<Running>);

struct Running {
    core: Arc<Core>,
    shut_down: OnceCell<()>,
    /// Keeps the client alive as long as the consumer.
    _client: Client,
}

/// A message that was received, and is this consumer's until its invisible time is over. It derefs to the
/// [`MessageView`].
///
/// Nothing happens when it is dropped: it comes again when its time is over.
pub struct Received {
    message: MessageView,
    receipt: Receipt,
}

/// What a simple consumer has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimpleConsumerStats {
    /// Messages received.
    pub received: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Acknowledgements that failed.
    pub not_acknowledged: u64,
    /// Changes of an invisible time.
    pub changed: u64,
    /// Messages that were popped for a receive which was given up meanwhile; they come again at once.
    pub released: u64,
    /// Messages that could not be read or acknowledged; they come again when their time is over.
    pub unreadable: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    acknowledged: AtomicU64,
    not_acknowledged: AtomicU64,
    changed: AtomicU64,
    released: AtomicU64,
    unreadable: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Received {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &MessageView {
        &self.message
    }

    /// The message, without what is needed to acknowledge it.
    #[must_use]
    pub fn into_message(self) -> MessageView {
        self.message
    }

    /// What stands for this delivery towards the broker. It changes with the invisible time.
    #[must_use]
    pub fn receipt_handle(&self) -> &ReceiptHandle {
        &self.receipt.handle
    }
}

impl Deref for Received {
    type Target = MessageView;

    fn deref(&self) -> &MessageView {
        &self.message
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("message", &self.message)
            .field("receipt", &self.receipt.handle)
            .finish()
    }
}

impl SimpleConsumer {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.0.core.group()
    }

    /// Receives up to `max_messages` (1 to 1024), and keeps them from everybody else for `invisible` (1 s to 48 h).
    ///
    /// Returns as soon as there is a message, with what there is; with nothing after the
    /// [await duration](SimpleConsumerBuilder::await_duration). A message that comes again, because it was not
    /// acknowledged in time, may be up to 5 s late while nothing else arrives.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for numbers out of range; [`ErrorKind::Closed`](crate::ErrorKind::Closed) after a shutdown;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) from a broker of 4.x; otherwise what the brokers that were asked failed with, if no
    /// other one had a message.
    ///
    /// # Cancellation
    /// Safe. As long as it waits, nothing is popped. What was just being popped is given back at once, and counts as
    /// delivered once.
    pub async fn receive(&self, max_messages: usize, invisible: Duration) -> Result<Vec<Received>> {
        if !(1..=1024).contains(&max_messages) {
            return Err(Error::config(format!(
                "{max_messages} messages cannot be received at a time, it has to be from 1 to 1024"
            )));
        }
        check_invisible(invisible)?;
        self.0.core.check_open()?;
        self.0.core.receive(max_messages, invisible).await
    }

    /// The message is done with: it is not delivered to the group again.
    ///
    /// After the invisible time, the broker takes the acknowledgement as well; whether the message still comes again
    /// depends on how far it is.
    ///
    /// # Errors
    /// What the broker says or the transport gives. The message then comes again when its time is over, unless another
    /// try is in time.
    ///
    /// # Cancellation
    /// The broker may have it or not.
    pub async fn ack(&self, message: &Received) -> Result<()> {
        let core = &self.0.core;
        let acked = core.remote.ack(&message.receipt).await;
        core.count_acks(1, acked)
    }

    /// The same for many messages, with one request for each broker.
    ///
    /// # Errors
    /// The first one that a broker gave; the messages of the others are acknowledged.
    ///
    /// # Cancellation
    /// As [`ack`](Self::ack).
    pub async fn ack_all<'a>(&self, messages: impl IntoIterator<Item = &'a Received>) -> Result<()> {
        let core = &self.0.core;
        let mut brokers: Vec<(&str, Vec<&Receipt>)> = Vec::new();
        for message in messages {
            let broker = &*message.receipt.handle.broker_name;
            match brokers.iter_mut().find(|(known, _)| *known == broker) {
                Some((_, receipts)) => receipts.push(&message.receipt),
                None => brokers.push((broker, vec![&message.receipt])),
            }
        }
        let acks = brokers.iter().map(|(broker, receipts)| async move {
            let acked = match core.remote.ack_all(broker, receipts).await {
                Err(error) if is_unknown_request(&error) => core.ack_each(receipts).await,
                done => done,
            };
            core.count_acks(receipts.len(), acked)
        });
        join_all(acks).await.into_iter().collect()
    }

    /// Changes when somebody else gets the message: `invisible` from now on, up to 48 h. Zero gives it back at once;
    /// then it is not to be acknowledged.
    ///
    /// The receipt handle of `message` becomes the one that is valid from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a time out of range, what the broker says, or what the transport gives; then the handle
    /// stays, and so does the time.
    ///
    /// # Cancellation
    /// The broker may have made the change, and then does not take the old handle any more: the message comes again.
    pub async fn change_invisible(&self, message: &mut Received, invisible: Duration) -> Result<()> {
        if !invisible.is_zero() {
            check_invisible(invisible)?;
        }
        let core = &self.0.core;
        message.receipt.handle = core.remote.change_invisible(&message.receipt, invisible).await?;
        Counters::add(&core.counters.changed, 1);
        Ok(())
    }

    /// What the consumer has done so far.
    #[must_use]
    pub fn stats(&self) -> SimpleConsumerStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.core.counters;
        SimpleConsumerStats {
            received: count(&counters.received),
            acknowledged: count(&counters.acknowledged),
            not_acknowledged: count(&counters.not_acknowledged),
            changed: count(&counters.changed),
            released: count(&counters.released),
            unreadable: count(&counters.unreadable),
        }
    }

    /// Ends calls to [`receive`](Self::receive) and leaves the group. Messages that were received can still be
    /// acknowledged. Calling it again is harmless.
    pub async fn shutdown(&self) {
        self.0
            .shut_down
            .get_or_init(|| async {
                self.0.core.shutdown().await;
                info!(group = self.group(), "simple consumer shut down");
            })
            .await;
    }
}

impl fmt::Debug for SimpleConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleConsumer")
            .field("group", &self.group())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.shut_down.initialized() && self.core.check_open().is_ok() {
            warn!(
                group = self.core.group(),
                "a simple consumer was dropped without a shutdown"
            );
            self.core.leave_in_background();
        }
    }
}

fn check_invisible(invisible: Duration) -> Result<()> {
    if (MIN_INVISIBLE..=MAX_INVISIBLE).contains(&invisible) {
        return Ok(());
    }
    Err(Error::config(format!(
        "an invisible time of {invisible:?} is not possible, it has to be from {MIN_INVISIBLE:?} to {MAX_INVISIBLE:?}"
    )))
}
