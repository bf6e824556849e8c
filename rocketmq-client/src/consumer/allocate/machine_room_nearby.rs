//! Java: `AllocateMachineRoomNearby`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::AllocateStrategy;
use crate::protocol::bodies::MessageQueue;

type RoomOfQueue = dyn Fn(&MessageQueue) -> String + Send + Sync;
type RoomOfMember = dyn Fn(&str) -> String + Send + Sync;

/// Queues of a room to the members in it, by another strategy; queues of rooms without a member to all members. Java's
/// `MACHINE_ROOM_NEARBY-<name of the other strategy>`.
///
/// Two functions tell the room of a queue and of a member (Java: `MachineRoomResolver`). All that a member knows of
/// another is its client id, so the room has to be in there: see
/// [`ClientBuilder::instance_name`](crate::ClientBuilder::instance_name). What they give for somebody whose room is not
/// known is a room like any other, where Java's strategy fails: return an empty text for all of those.
///
/// ```
/// use rocketmq_client::{AllocateAveragely, AllocateMachineRoomNearby};
///
/// // Brokers are named `room-1:broker-a`, instances `room-1:billing-7`.
/// let strategy = AllocateMachineRoomNearby::new(
///     AllocateAveragely,
///     |queue| queue.broker_name.split(':').next().unwrap_or_default().to_owned(),
///     |client_id| {
///         let instance = client_id.split('@').nth(1).unwrap_or_default();
///         instance.split(':').next().unwrap_or_default().to_owned()
///     },
/// );
/// ```
#[derive(Clone)]
pub struct AllocateMachineRoomNearby {
    name: String,
    inner: Arc<dyn AllocateStrategy>,
    room_of_queue: Arc<RoomOfQueue>,
    room_of_member: Arc<RoomOfMember>,
}

impl AllocateMachineRoomNearby {
    /// Divides by `inner` in each room. The functions get a queue (Java: `brokerDeployIn`), and the client id of a
    /// member (Java: `consumerDeployIn`).
    pub fn new(
        inner: impl AllocateStrategy,
        room_of_queue: impl Fn(&MessageQueue) -> String + Send + Sync + 'static,
        room_of_member: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: format!("MACHINE_ROOM_NEARBY-{}", inner.name()),
            inner: Arc::new(inner),
            room_of_queue: Arc::new(room_of_queue),
            room_of_member: Arc::new(room_of_member),
        }
    }
}

impl AllocateStrategy for AllocateMachineRoomNearby {
    fn name(&self) -> &str {
        &self.name
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let mut members_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for member in members {
            let room = members_of.entry((self.room_of_member)(member)).or_default();
            room.push(member.clone());
        }
        let mut queues_of: BTreeMap<String, Vec<MessageQueue>> = BTreeMap::new();
        for queue in queues {
            let room = queues_of.entry((self.room_of_queue)(queue)).or_default();
            room.push(queue.clone());
        }
        let own = (self.room_of_member)(client_id);
        let mut share = Vec::new();
        if let (Some(queues), Some(members)) = (queues_of.remove(&own), members_of.get(&own)) {
            share.extend(self.inner.allocate(client_id, members, &queues));
        }
        for (room, queues) in queues_of {
            if !members_of.contains_key(&room) {
                share.extend(self.inner.allocate(client_id, members, &queues));
            }
        }
        share
    }
}

impl fmt::Debug for AllocateMachineRoomNearby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllocateMachineRoomNearby")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
