//! How the queues of a topic are divided among the members of a group.
//!
//! Each file has one rule. All of them equal Java's for the same queues and members, so that members of both kinds can
//! share a group: the tests compare them with what Java's classes of 4.9 and 5.5 answered.
//!
//! Protocol source: `AllocateMessageQueueStrategy` and the classes of its package.

mod averagely;
mod by_circle;
mod by_config;
mod by_machine_room;
mod consistent_hash;
mod machine_room_nearby;

pub use averagely::AllocateAveragely;
pub use by_circle::AllocateByCircle;
pub use by_config::AllocateByConfig;
pub use by_machine_room::AllocateByMachineRoom;
pub use consistent_hash::AllocateConsistentHash;
pub use machine_room_nearby::AllocateMachineRoomNearby;

use crate::protocol::bodies::MessageQueue;

/// Divides the queues of a topic among the members of a group.
///
/// Every member computes its own share, so each has to come to the same division from the same two lists: the result
/// must depend on nothing else, and all members have to use the same strategy with the same settings, Java's among
/// them. A queue that two members believe to be theirs is consumed twice; one that nobody believes to be theirs, not at
/// all.
///
/// | Strategy | Name, as Java's | For |
/// |---|---|---|
/// | [`AllocateAveragely`] | `AVG` | the default |
/// | [`AllocateByCircle`] | `AVG_BY_CIRCLE` | the queues of each broker spread over all members |
/// | [`AllocateConsistentHash`] | `CONSISTENT_HASH` | few queues change hands when members come and go |
/// | [`AllocateByConfig`] | `CONFIG` | queues named by hand |
/// | [`AllocateByMachineRoom`] | `MACHINE_ROOM` | brokers whose names begin with their room, some rooms only |
/// | [`AllocateMachineRoomNearby`] | `MACHINE_ROOM_NEARBY-..` | members that consume from their own room first |
///
/// ```
/// use rocketmq_client::{AllocateStrategy, MessageQueue};
///
/// /// The first member takes everything, the others wait to replace it.
/// #[derive(Debug)]
/// struct HotStandby;
///
/// impl AllocateStrategy for HotStandby {
///     fn name(&self) -> &str {
///         "HOT_STANDBY"
///     }
///
///     fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
///         match members.first() {
///             Some(first) if first == client_id => queues.to_vec(),
///             _ => Vec::new(),
///         }
///     }
/// }
/// ```
pub trait AllocateStrategy: Send + Sync + std::fmt::Debug + 'static {
    /// The name, for logs and tools. Java's strategies are `AVG`, `AVG_BY_CIRCLE`, ..
    fn name(&self) -> &str;

    /// The share of the member `client_id`.
    ///
    /// Both lists are sorted and the member is in its list. What is returned has to be a part of `queues`; anything
    /// else is ignored.
    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue>;
}

/// The member's place in the list.
fn place_of(client_id: &str, members: &[String]) -> Option<usize> {
    members.iter().position(|member| member == client_id)
}

#[cfg(test)]
mod tests;
