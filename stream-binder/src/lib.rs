//! Spring Cloud Stream for Rust: async functions bound to Apache RocketMQ by YAML.

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

pub use app::{App, RunningApp, ShutdownReport, StartError, StartProblem, StartProblemKind, shutdown_signal};
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
