//! What producers and consumers are to the cluster floor: members that heartbeat and that can be asked.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use super::TransactionCheck;
use crate::protocol::Frame;
use crate::protocol::bodies::ConsumerData;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A consumer of this client.
pub(crate) trait GroupMember: Debug + Send + Sync + 'static {
    /// The consumer group.
    fn group(&self) -> &str;

    /// The topics whose routes are kept fresh, the retry topic included.
    fn topics(&self) -> Vec<String>;

    /// What the heartbeat says of this member.
    fn heartbeat(&self) -> ConsumerData;

    /// Other members came or went, or a broker was (re)connected. Must not block.
    fn on_members_changed(&self);

    /// The route of one of the topics is not what it was. Must not block.
    fn on_route_changed(&self);

    /// Serves a request that a broker makes of this group: reset of offsets, status, running information, direct
    /// consumption. Gives the response; the opaque is filled in, and a one-way request's response goes nowhere.
    fn handle(&self, frame: Frame) -> BoxFuture<'_, Frame>;

    /// Stops the member. Called by the shutdown of the client; has to be idempotent.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// A producer of this client.
pub(crate) trait ProducerMember: Debug + Send + Sync + 'static {
    /// The producer group.
    fn group(&self) -> &str;

    /// Whether this producer answers questions about half messages of its group.
    fn checks_transactions(&self) -> bool {
        false
    }

    /// Takes over a question about a half message. Must not wait for the user's code.
    fn check_transaction(&self, check: TransactionCheck) -> BoxFuture<'_, ()> {
        drop(check);
        Box::pin(async {})
    }

    /// Takes no more messages and waits for those in flight. Called by the shutdown of the client; has to be
    /// idempotent.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
