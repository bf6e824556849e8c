//! Requests that a server makes of its client.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use crate::protocol::Frame;

/// A request of the server in work. What it gives is the response; for a one-way request nobody looks at it.
pub(crate) type ServerRequest = Pin<Box<dyn Future<Output = Frame> + Send>>;

/// Serves requests of a server.
pub(crate) trait Inbound: Debug + Send + Sync + 'static {
    /// Starts to serve a request that came from `peer`; `None` for one that is not known.
    ///
    /// Called by the task that reads, so it must not block. The opaque of the response is filled in by the caller.
    fn serve(&self, peer: &str, frame: Frame) -> Option<ServerRequest>;

    /// A connection to `peer` was made. Must not block.
    fn connected(&self, peer: &str);
}
