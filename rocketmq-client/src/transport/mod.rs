//! One peer, one [`Connection`]; many peers, one [`Pool`].
//!
//! Requests are encoded straight into the connection's buffer under a short lock; a writer task swaps the buffer
//! and writes it, a reader task resolves replies by their number, a third one watches deadlines. Nothing here knows
//! what a topic is.

mod backoff;
mod call;
mod connection;
mod dial;
mod inbound;
mod outgoing;
mod pool;
mod proxy;
mod seal;
mod slots;
mod standing;
#[cfg(feature = "tls")]
mod tls;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Fields, HeaderFormat};

pub(crate) use backoff::{backoff, random};
pub use call::{Call, Reply, RequestStack};
pub(crate) use call::{Remoting, layered};
pub(crate) use connection::{Connection, InFlight, Outbound, Started};
pub(crate) use dial::DialOptions;
pub(crate) use inbound::{Inbound, ServerRequest};
pub(crate) use outgoing::Hold;
pub(crate) use pool::Pool;
pub use proxy::Socks5;
pub(crate) use seal::{Sign, Unsigned};
pub(crate) use standing::{Standing, Standings};
#[cfg(feature = "tls")]
pub use tls::Tls;

/// What all connections of one client have in common.
#[derive(Clone, Debug)]
pub(crate) struct TransportOptions {
    /// How headers are written.
    pub(crate) format: HeaderFormat,
    /// How connections are made.
    pub(crate) dial: DialOptions,
    /// How many requests may be in flight on one connection.
    pub(crate) max_in_flight: usize,
    /// How many bytes may wait to be written on one connection. One frame is always let in.
    pub(crate) max_buffered_bytes: usize,
    /// After how long a silence a connection without requests in flight is closed.
    pub(crate) idle_timeout: Duration,
    /// How many requests in a row have to time out, without a byte from the peer, for it to count as frozen.
    pub(crate) frozen_after: u32,
    /// How many requests of the server may be in work at a time on one connection.
    pub(crate) max_server_requests: usize,
    /// Fields that every request carries behind its own; `None` costs nothing. Responses do not carry them.
    pub(crate) common_fields: Option<Arc<Fields>>,
    /// Signs every request; `None` costs nothing. Responses are not signed.
    pub(crate) signer: Option<Arc<dyn Sign>>,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            format: HeaderFormat::Binary,
            dial: DialOptions::default(),
            max_in_flight: 65_535,
            max_buffered_bytes: 32 * 1024 * 1024,
            idle_timeout: Duration::from_secs(120),
            frozen_after: 3,
            max_server_requests: 256,
            common_fields: None,
            signer: None,
        }
    }
}
