//! Java: `AllocateMessageQueueByConfig`.

use super::AllocateStrategy;
use crate::protocol::bodies::MessageQueue;

/// The queues that this member was given by hand, whoever else is there. Java's `CONFIG`.
///
/// A queue that no running member names is not consumed, and one that two name is consumed twice. Queues of this
/// list that a topic does not have are passed over, so one list can serve several topics.
///
/// ```
/// use rocketmq_client::{AllocateByConfig, MessageQueue};
///
/// let mine = (0..4).map(|queue| MessageQueue::new("orders", "broker-a", queue));
/// let strategy = AllocateByConfig::new(mine);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateByConfig {
    queues: Vec<MessageQueue>,
}

impl AllocateByConfig {
    /// These queues and no others.
    pub fn new(queues: impl IntoIterator<Item = MessageQueue>) -> Self {
        Self {
            queues: queues.into_iter().collect(),
        }
    }
}

impl AllocateStrategy for AllocateByConfig {
    fn name(&self) -> &str {
        "CONFIG"
    }

    fn allocate(&self, _: &str, _: &[String], _: &[MessageQueue]) -> Vec<MessageQueue> {
        self.queues.clone()
    }
}
