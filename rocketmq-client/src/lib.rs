//! An async [Apache RocketMQ](https://rocketmq.apache.org) client for the remoting protocol: brokers 4.9 to 5.x, no
//! proxy, no Java.
//!
//! One [`Client`] per cluster and identity; producers and consumers are made from it and share its connections, routes
//! and heartbeats. All handles are cheap clones, `Send` and `Sync`.
//!
//! ```
//! # use rocketmq_embedded_broker::EmbeddedBroker;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = EmbeddedBroker::start().await?;
//! use rocketmq_client::{Client, ConsumeFrom, Message, Retry};
//!
//! let client = Client::connect(broker.name_server()).await?;
//!
//! let producer = client.producer("orders-svc").start().await?;
//! producer.send(Message::new("orders", "42 apples").tag("vip").key("order-42")).await?;
//!
//! let mut orders = client
//!     .push_consumer("billing")
//!     .subscribe("orders", "vip || late")
//!     .consume_from(ConsumeFrom::First)
//!     .stream()
//!     .await?;
//! if let Some(order) = orders.next().await {
//!     match order.message().body().starts_with(b"42") {
//!         true => order.ack(),
//!         false => order.retry(Retry::Broker),
//!     }
//! }
//!
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read on
//! - Sending: [`docs::sending`] has an example of every way; [`Producer`], [`SendBuilder`], [`SendReceipt`].
//! - Receiving: a [`PushConsumer`] hands messages to a handler or a stream (one by one, in batches, in order, by
//!   broadcasting or by POP: [`PushConsumerBuilder`]); what a handler decides is an [`Outcome`]. A [`LitePullConsumer`]
//!   is polled, a [`SimpleConsumer`] receives and acknowledges message by message, a [`PullConsumer`] asks for what it
//!   wants.
//! - Java's calls and settings: [`docs::java_producer`], [`docs::java_consumer`], [`docs::java_admin`].
//! - Failing: [`Error`] says its kind and whether the message may be stored.
//! - What happens to futures that are dropped: [`docs::cancellation`].
//! - How it is built: [`docs::architecture`]; the wire itself: [`protocol`].
//!
//! # When a send fails
//! ```
//! # use rocketmq_embedded_broker::EmbeddedBroker;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = EmbeddedBroker::builder().auto_create_topics(false).start().await?;
//! use rocketmq_client::{Client, ErrorKind, Message, Persisted};
//!
//! let client = Client::connect(broker.name_server()).await?;
//! let producer = client.producer("orders-svc").start().await?;
//! match producer.send(Message::new("no-such-topic", "x")).await {
//!     Ok(receipt) => println!("stored at {} of {}", receipt.queue_offset, receipt.queue),
//!     Err(error) if error.persisted() == Persisted::Maybe => println!("perhaps stored: {error}"),
//!     Err(error) => {
//!         println!("not stored: {error}");
//!         assert_eq!(error.kind(), ErrorKind::TopicNotFound);
//!     }
//! }
//! # client.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod admin;
pub mod docs;
pub mod protocol;
pub mod telemetry;

mod auth;
mod cluster;
mod consumer;
mod error;
mod memory;
mod message;
mod producer;
mod secret;
mod sync;
mod tasks;
mod trace;
mod transport;

pub use auth::{Credentials, CredentialsProvider, IssuedCredentials, RotatingCredentials};
pub use cluster::{Client, ClientBuilder, LatencyFaultTolerance};
pub use consumer::{
    AllocateAveragely, AllocateByCircle, AllocateByConfig, AllocateByMachineRoom, AllocateConsistentHash,
    AllocateMachineRoomNearby, AllocateStrategy, BatchOutcome, BoxError, Broadcasting, Choosing, ConsumeFrom,
    ConsumerStats, Filter, IntoBatchOutcome, IntoOutcome, Leased, LeasedStream, NewQueues, Only, Outcome,
    Poison, PopStats, PushConsumer, PushConsumerBuilder, QueueProgress, Received, Retry, ShutdownReport,
    SimpleConsumer, SimpleConsumerBuilder, SimpleConsumerStats, SpanLinker, TopicRates, only,
};
pub use consumer::{
    AssignmentChange, Commit, LitePullConsumer, LitePullConsumerBuilder, LitePullHandle, LitePullStats,
    SeekTo,
};
pub use consumer::{PullBuilder, PullConsumer, PullConsumerBuilder, PullOutcome, PullSchedule};
pub use error::{Error, ErrorKind, Persisted, Result};
pub use memory::MemoryLimit;
pub use message::{InvalidTraceParent, Message, MessageView, TraceContext};
pub use producer::queue_selector;
pub use producer::{BatchFuture, BatchHandle, BatchReceipt, BatchSplitter, Batching, SendBatch};
pub use producer::{
    Committed, Forbid, Forbidding, HalfMessage, Producer, ProducerBuilder, RequestBuilder, RequestFuture,
    RequestHandle, SendBuilder, SendContext, SendFuture, SendHandle, SendKind, SendMode, SendReceipt,
    SendStack, SendStatus, Sending, TransactionError, TransactionListener, TransactionState,
    TransactionStats, TransactionalProducer, WhenFull, forbid,
};
pub use producer::{NewTraces, Propagator};
pub use protocol::Compression;
pub use protocol::bodies::MessageQueue;
pub use secret::Secret;
pub use trace::{Trace, TraceStats};
#[cfg(feature = "tls")]
pub use transport::Tls;
pub use transport::{Call, Reply, RequestStack, Socks5};
