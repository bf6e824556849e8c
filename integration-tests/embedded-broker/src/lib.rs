//! An Apache RocketMQ name server and broker in one process, for tests, examples and first runs.
//!
//! It speaks the remoting protocol on a socket, so Java, Go and Rust clients use it as they use a real cluster. It
//! is ready in milliseconds and keeps everything in memory, up to a limit at which the oldest messages go.
//!
//! ```
//! use rocketmq_embedded_broker::EmbeddedBroker;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! let broker = EmbeddedBroker::builder().default_queues(4).start().await?;
//! println!("NAMESRV_ADDR={}", broker.name_server());
//! # broker.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # What it serves
//! Routes and cluster information, registration of other brokers, topic creation by sending, sends (single, batch,
//! one-way), pulls with long polling and filters by tag, consumer offsets, heartbeats and changes in groups, queue
//! locks, messages given back with delay levels, delivery times, retry and dead-letter topics, transactions with
//! checks, requests and their replies, POP (also in order; long polling, notifications, acknowledgements one by one and
//! together, changes of the invisible time, queues divided by the broker), and the administration requests that
//! `mqadmin` needs to create and delete topics and groups, to show their state and to find messages by key and by id.
//! It answers as RocketMQ 5.x does.
//!
//! # What it does not
//! SQL filters (refused as by a broker with property filters off), lite topics, replication. Nothing is written to disk.
//! Any other request is answered with `REQUEST_CODE_NOT_SUPPORTED`, as by a real broker.
//!
//! # Bounds
//! Messages take [`memory_limit`](Builder::memory_limit) bytes at the most. There may be 4096 connections, 65536
//! topics, 65536 groups, 4096 queues in a topic, 16384 held pulls and pops on a connection, 100000 held pops together,
//! and 262144 pops of which messages are on their way. A client that does not read its answers is not read from either.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod access;
mod broker;
mod clock;
mod embedded;
mod families;
mod lock;
mod options;
mod server;
mod state;
mod store;
mod tasks;
mod wait;

pub use access::{AccessStyle, Action, User};
pub use embedded::{Builder, EmbeddedBroker, Stats};
pub use options::{DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_MEMORY_LIMIT, DEFAULT_QUEUES};
#[cfg(feature = "tls")]
pub use server::TlsMode;
