//! Spring Cloud Stream for Rust: async functions bound to Apache RocketMQ by YAML.
//!
//! A function is an ordinary async function. An attribute announces it, `application.yml` binds it, and its
//! arguments say what it needs of a message:
//!
//! ```standalone_crate
//! use stream_binder::{App, Config, Failure, Json, MemoryBinder, Message, Meta, consumer};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize, Serialize)]
//! struct Order { id: u64 }
//!
//! #[consumer]
//! async fn orders(Json(order): Json<Order>, meta: Meta) -> Result<(), Failure> {
//!     println!("order {} with tag {:?}", order.id, meta.tags());
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::from_yaml("
//!     spring.cloud.stream.bindings:
//!       orders-in-0: { destination: orders, group: billing }
//!       orders-out-0: { destination: orders }
//! ")?; // an application says App::from_env(), which reads application.yml
//! let binder = MemoryBinder::new(); // left out, it is RocketMQ
//! let app = App::new(config).binder(binder.clone()).start().await?;
//!
//! let receipt = app.bridge().send("orders-out-0", Message::json(&Order { id: 42 })?.tag("vip")).await?;
//! println!("stored as {}", receipt.message_id);
//! # binder.idle().await;
//! app.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! | To | see |
//! | --- | --- |
//! | bind, start and stop | [`App`], [`RunningApp`] |
//! | receive | [`macro@consumer`], [`macro@function`], and the extractors: [`Json`], [`Payload`], [`Text`], `Bytes`, [`Headers`], [`Header`], [`Meta`], [`State`], [`StreamBridge`], [`Delivery`], [`FromDelivery`] for your own |
//! | send | the return value ([`IntoOutput`]), [`StreamBridge`], [`macro@supplier`], [`Message`] for tag, keys, delay and headers |
//! | fail | [`Failure`]: retry, retry later, reject, skip |
//! | configure | [`config`] |
//! | wrap handlers | [`App::layer`], [`layers`] |
//! | test without a broker | [`MemoryBinder`] |
//! | bind something else | [`Binder`], [`conformance`] |
//!
//! # What happens to a message
//! A delivery is decoded innermost, so layers see raw bytes and headers. A function's outputs are stored and
//! confirmed before its input is acknowledged. A failure, and a panic is one, is delivered again by the broker
//! (or here first, with `max-attempts`); what cannot be decoded and what fails for the last time goes to the
//! dead letters. Every failed attempt is one log line with the binding, the message id, the attempt and the
//! whole chain of causes.
//!
//! # Exchanging messages with Spring
//! Header and property names are the Java binder's. Spring producers send text as a JSON string and label
//! everything `application/json`: [`Text`] and [`Payload<String>`](Payload) read that, quotes and all, and
//! `Bytes` shows the body untouched. [`Json`] sends what Spring's converters read. A byte array that a Spring
//! producer sends without `use-native-encoding` arrives as base64 text.
//!
//! # Differences from Spring on purpose
//! - An unknown function, a misspelt binding, a missing group and a missing state are errors at start.
//! - A function's outputs inherit correlation and trace headers, not all headers of the input.
//! - A local attempt is off by default: one retry, the broker's, with one counter.
//! - Several functions without `spring.cloud.function.definition` are an error that lists them.

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod app;
mod binder;
mod bridge;
mod closest;
pub mod config;
pub mod conformance;
mod delivery;
mod failure;
mod function;
mod headers;
pub mod layers;
mod memory;
mod message;
mod rocketmq;
mod tasks;

pub use binder_macros::{consumer, function, supplier};

pub use app::{App, RunningApp, ShutdownReport, ShutdownSignals, StartError, StartProblem, StartProblemKind};
pub use binder::{
    BindError, Binder, BoundConsumer, ConsumerBinding, DeliveryHandler, Outbound, OutboundError, Persisted,
    ProducerBinding, SendReceipt, SendStatus,
};
pub use bridge::{SendError, SendErrorKind, StreamBridge, TopicSender};
pub use config::Config;
pub use delivery::{Delivery, DeliveryBuilder, Meta};
pub use failure::{BoxError, Failure, Outcome, RetryDelay, Settlement};
pub use function::{
    BoxFuture, Function, Role,
    context::{Context, Requirements},
    convert::DecodeError,
    extract::{FromContext, FromDelivery, Header, Json, MissingState, Payload, State, Text, TypedHeader},
    handler::{Argument, Handler, Source},
    output::{IntoMessage, IntoOutcome, IntoOutput, Output},
};
pub use headers::{HeaderError, Headers, names};
pub use memory::{MemoryBinder, MemoryBinderBuilder, StoredMessage};
pub use message::{Delay, EncodeError, Message};
pub use rocketmq::{ConnectError, RocketMqBinder};
