//! An async Apache RocketMQ client for the remoting protocol.

pub mod protocol;

mod error;
mod message;
mod tasks;

pub use error::{Error, ErrorKind, Persisted, Result};
pub use message::{Message, MessageView};
pub use protocol::bodies::MessageQueue;
