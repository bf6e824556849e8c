//! Sending messages.
//!
//! [`Producer::send`] is the one way to send; how the result is wanted is said on the [`SendBuilder`] it gives.
//! Protocol source: `DefaultMQProducerImpl`.

mod accumulate;
mod answer;
mod attempt;
mod batch;
mod builder;
mod layer;
mod line;
mod prepare;
mod propagate;
pub mod queue_selector;
mod recall;
mod receipt;
mod request_reply;
mod retry;
mod room;
mod select;
mod send;
mod traced;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::cluster::{BoxFuture, Client, Cluster, ProducerMember};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::tasks::Tasks;

pub use accumulate::Batching;
pub use batch::{BatchFuture, BatchHandle, BatchReceipt, BatchSplitter, SendBatch};
pub use builder::{ProducerBuilder, WhenFull};
pub use layer::{Forbid, Forbidding, SendContext, SendKind, SendMode, SendStack, Sending, forbid};
pub use propagate::{NewTraces, Propagator};
pub use receipt::{SendReceipt, SendStatus};
pub use request_reply::{RequestBuilder, RequestFuture, RequestHandle};
pub use send::{SendBuilder, SendFuture, SendHandle};
pub use transaction::{
    Committed, HalfMessage, TransactionError, TransactionListener, TransactionState, TransactionStats,
    TransactionalProducer,
};

use accumulate::Accumulator;
use batch::Content;
use builder::Options;
use layer::Layers;
use line::Line;
use propagate::Propagate;
use room::Room;

/// Sends messages under one group name. Cloning is cheap; clones share everything.
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
/// let receipt = producer.send(Message::new("orders", "paid").key("order-42")).await?;
/// println!("stored at {} of {}", receipt.queue_offset, receipt.queue);
/// client.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer(Arc<Handle>);

/// What users share; tasks hold the [`Core`] alone, so they do not keep a client alive that nobody holds any more.
struct Handle {
    core: Arc<Core>,
    client: Client,
}

struct Core {
    group: String,
    /// The group as brokers know it.
    wire_group: String,
    options: Options,
    cluster: Arc<Cluster>,
    tasks: Tasks,
    room: Room,
    accumulator: Option<Accumulator>,
    line: Line,
    /// Requests that wait for their replies.
    requests: TaskTracker,
    /// Boxed, and asked, only if some are installed.
    layers: Option<Layers>,
    propagate: Propagate,
    closed: AtomicBool,
}

impl Producer {
    /// Sends a message. What is returned says how: await it, or [`detach`](SendBuilder::detach) it, give it a
    /// [callback](SendBuilder::on_complete), or send it [one-way](SendBuilder::one_way).
    pub fn send(&self, message: Message) -> SendBuilder<'_> {
        SendBuilder::new(self, Content::Single(message))
    }

    /// The producer group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0.core.group
    }

    /// The client that this producer belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Waits until another message may be in flight: for loops that detach their sends.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the producer is shut down.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn ready(&self) -> Result<()> {
        self.0.core.check_open()?;
        self.0.core.room.wait().await
    }

    /// Takes no more messages, waits for those in flight, and takes the group off the brokers. Idempotent; the client
    /// does it too when it is shut down.
    pub async fn shutdown(&self) {
        let core = &self.0.core;
        let grace = core.cluster.options().shutdown_grace;
        if tokio::time::timeout(grace, core.shutdown()).await.is_err() {
            warn!(
                group = core.group,
                "sends were in flight when the grace was over; they are given up"
            );
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("group", &self.0.core.group)
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.core.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        // What is detached goes on; the brokers learn that the group is gone when it can be told without waiting.
        self.core.cluster.forget_producer(&*self.core);
    }
}

impl Core {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::closed(format_args!("producer {}", self.group)));
        }
        Ok(())
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl ProducerMember for Core {
    fn group(&self) -> &str {
        &self.group
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closed.store(true, Ordering::SeqCst);
            if let Some(accumulator) = &self.accumulator {
                accumulator.close();
            }
            self.room.drained().await;
            self.requests.close();
            self.requests.wait().await;
            if self.cluster.unregister_producer(self).await {
                info!(group = self.group, "producer shut down");
            }
        })
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
