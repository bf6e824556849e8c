//! Java: `AllocateMessageQueueConsistentHash`, `ConsistentHashRouter`.

use std::collections::BTreeMap;
use std::fmt::Write;

use md5::{Digest, Md5};

use super::{AllocateStrategy, place_of};
use crate::protocol::bodies::MessageQueue;

/// Members and queues on a ring of hashes; a queue belongs to the next member. Java's `CONSISTENT_HASH`.
///
/// When a member comes or goes, only its own queues change hands; the price is that shares are uneven. A member may
/// have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocateConsistentHash {
    virtual_nodes: u32,
}

impl AllocateConsistentHash {
    /// How often each member is on the ring; Java's default is 10. More make shares more even. The same for all
    /// members. With 0 nobody gets anything.
    #[must_use]
    pub const fn virtual_nodes(virtual_nodes: u32) -> Self {
        Self { virtual_nodes }
    }
}

impl Default for AllocateConsistentHash {
    fn default() -> Self {
        Self::virtual_nodes(10)
    }
}

impl AllocateStrategy for AllocateConsistentHash {
    fn name(&self) -> &str {
        "CONSISTENT_HASH"
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(index) = place_of(client_id, members) else {
            return Vec::new();
        };
        let mut ring = BTreeMap::new();
        let mut text = String::new();
        for (member, name) in members.iter().enumerate() {
            for node in 0..self.virtual_nodes {
                // Of two at one place the later one stays, as in Java's map.
                ring.insert(hash(&mut text, format_args!("{name}-{node}")), member);
            }
        }
        let mut owner_of = |queue: &MessageQueue| {
            let MessageQueue {
                topic,
                broker_name,
                queue_id,
            } = queue;
            // Java's `MessageQueue#toString`.
            let name =
                format_args!("MessageQueue [topic={topic}, brokerName={broker_name}, queueId={queue_id}]");
            let place = hash(&mut text, name);
            let (_, member) = ring.range(place..).next().or_else(|| ring.first_key_value())?;
            Some(*member)
        };
        let own = queues.iter().filter(|queue| owner_of(queue) == Some(index));
        own.cloned().collect()
    }
}

/// The first four bytes of the MD5 hash.
fn hash(text: &mut String, name: std::fmt::Arguments<'_>) -> u32 {
    text.clear();
    // A string takes everything.
    let _ = text.write_fmt(name);
    let [a, b, c, d, ..]: [u8; 16] = Md5::digest(text.as_bytes()).into();
    u32::from_be_bytes([a, b, c, d])
}
