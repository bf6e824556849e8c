//! Java: `AllocateMessageQueueAveragely`.

use super::{AllocateStrategy, place_of};
use crate::protocol::bodies::MessageQueue;

/// Neighbouring queues to each member, the first ones get one more. Java's default, `AVG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateAveragely;

impl AllocateStrategy for AllocateAveragely {
    fn name(&self) -> &str {
        "AVG"
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(index) = place_of(client_id, members) else {
            return Vec::new();
        };
        let share = queues.len() / members.len();
        let extra = queues.len() % members.len();
        let start = index * share + index.min(extra);
        let len = share + usize::from(index < extra);
        queues.iter().skip(start).take(len).cloned().collect()
    }
}
