//! The wire protocol: pure, synchronous, total. No sockets, no tasks, no clock.
//!
//! Read it from the outside in: a [`Frame`] is cut out of the stream by [`next_frame`](frame::next_frame); its
//! [`Fields`] are read as one of the typed [`requests`] or responses; bodies are JSON ([`bodies`]) or stored messages
//! ([`Record`]).
//!
//! No input makes any function here panic or allocate beyond a stated cap.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batch;
pub mod bodies;
mod code;
mod compress;
mod error;
mod fields;
pub mod frame;
mod hash;
mod ids;
pub mod names;
mod pop;
mod properties;
mod recall;
pub mod record;
mod request;
pub mod requests;
mod text;
pub mod trace;
mod version;

pub use batch::{BATCH_OVERHEAD, BatchMessage, decode_batch, encode_batch_message};
pub use code::{Language, RequestCode, ResponseCode};
pub use compress::{compress, decompress};
pub use error::CodecError;
pub use fields::Fields;
pub use frame::{Frame, HeaderFormat};
pub use hash::java_hash;
pub use ids::{OffsetMessageId, UniqueIds};
pub use pop::{
    MessageOffsets, ORDERED_REVIVE_QUEUE, OrderCounts, PopQueue, PopTopic, ReceiptHandle, StartOffsets,
};
pub use properties::{MAX_PROPERTIES_BYTES, Properties, PropertiesBuf, property};
pub use recall::RecallHandle;
pub use record::{Compression, Record, SysFlag};
pub use request::{Done, Json, JsonBody, Never, Request, RequestMeta, Response, ResponseError};
pub use text::Text;
pub use version::BrokerVersion;
