//! Java: `AllocateMessageQueueByMachineRoom`.

use std::collections::BTreeSet;

use super::{AllocateStrategy, place_of};
use crate::protocol::bodies::MessageQueue;

/// Only queues of brokers in certain rooms, divided evenly. Java's `MACHINE_ROOM`.
///
/// The name of a broker has to begin with its room and an `@`: `room-1@broker-a`. Queues of other rooms, and of brokers
/// that are named otherwise, are left to nobody.
///
/// ```
/// use rocketmq_client::AllocateByMachineRoom;
///
/// let strategy = AllocateByMachineRoom::new(["room-1", "room-2"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateByMachineRoom {
    rooms: BTreeSet<String>,
}

impl AllocateByMachineRoom {
    /// Consumes from brokers in these rooms. Java: `setConsumeridcs`.
    pub fn new<R: Into<String>>(rooms: impl IntoIterator<Item = R>) -> Self {
        Self {
            rooms: rooms.into_iter().map(Into::into).collect(),
        }
    }

    pub(super) fn is_wanted(&self, broker: &str) -> bool {
        // Java's `split` leaves out what is empty at the end.
        let mut parts = broker.trim_end_matches('@').split('@');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(room), Some(_), None) => self.rooms.contains(room),
            _ => false,
        }
    }
}

impl AllocateStrategy for AllocateByMachineRoom {
    fn name(&self) -> &str {
        "MACHINE_ROOM"
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(index) = place_of(client_id, members) else {
            return Vec::new();
        };
        let wanted: Vec<&MessageQueue> = queues
            .iter()
            .filter(|queue| self.is_wanted(&queue.broker_name))
            .collect();
        let share = wanted.len() / members.len();
        // What does not divide evenly is at the end of the list: one more for each of the first members.
        let extra = wanted.get(share * members.len() + index);
        let even = wanted.iter().skip(index * share).take(share);
        even.chain(extra).map(|&queue| queue.clone()).collect()
    }
}
