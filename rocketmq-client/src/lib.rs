//! An async Apache RocketMQ client for the remoting protocol.

pub mod protocol;

mod cluster;
mod consumer;
mod error;
mod message;
mod producer;
mod sync;
mod tasks;
mod transport;

pub use cluster::{Client, ClientBuilder};
pub use consumer::{
    AllocateAveragely, AllocateByCircle, AllocateStrategy, BoxError, ConsumeFrom, ConsumerStats, Filter,
    IntoOutcome, Leased, LeasedStream, Outcome, PushConsumer, PushConsumerBuilder, Retry, ShutdownReport,
};
pub use error::{Error, ErrorKind, Persisted, Result};
pub use message::{Message, MessageView};
pub use producer::{
    Producer, ProducerBuilder, SendBuilder, SendFuture, SendHandle, SendReceipt, SendStatus, WhenFull,
};
pub use protocol::bodies::MessageQueue;
pub use transport::{Call, Reply, RequestStack};
