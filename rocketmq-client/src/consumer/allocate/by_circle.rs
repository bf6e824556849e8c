//! Java: `AllocateMessageQueueAveragelyByCircle`.

use super::{AllocateStrategy, place_of};
use crate::protocol::bodies::MessageQueue;

/// Queues dealt out in turn, like cards. Java's `AVG_BY_CIRCLE`.
///
/// Spreads the queues of one broker over the members, where [`AllocateAveragely`](super::AllocateAveragely) keeps them
/// together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateByCircle;

impl AllocateStrategy for AllocateByCircle {
    fn name(&self) -> &str {
        "AVG_BY_CIRCLE"
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(index) = place_of(client_id, members) else {
            return Vec::new();
        };
        let dealt = queues.iter().skip(index).step_by(members.len());
        dealt.cloned().collect()
    }
}
