//! Queue locks of consumers that consume in order.
//!
//! Protocol source: `RebalanceLockManager`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rocketmq_client::protocol::bodies::MessageQueue;
use tokio::time::Instant;

use crate::lock::lock;

/// A lock that is not renewed for this long is free again.
const LIVE_TIME: Duration = Duration::from_secs(60);

/// Who holds which queue, by group.
#[derive(Debug, Default)]
pub(crate) struct QueueLocks(Mutex<HashMap<String, HashMap<MessageQueue, Holder>>>);

#[derive(Debug)]
struct Holder {
    client_id: String,
    renewed: Instant,
}

impl Holder {
    fn is_expired(&self) -> bool {
        self.renewed.elapsed() > LIVE_TIME
    }
}

impl QueueLocks {
    /// Locks or renews the queues that are free, expired or the client's own; returns those.
    pub(crate) fn lock(&self, group: &str, client_id: &str, queues: Vec<MessageQueue>) -> Vec<MessageQueue> {
        let mut groups = lock(&self.0);
        let held = groups.entry(group.to_owned()).or_default();
        held.retain(|_, holder| !holder.is_expired());
        let free = |queue: &MessageQueue| held.get(queue).is_none_or(|holder| holder.client_id == client_id);
        let locked: Vec<_> = queues.into_iter().filter(free).collect();
        for queue in &locked {
            let holder = Holder {
                client_id: client_id.to_owned(),
                renewed: Instant::now(),
            };
            held.insert(queue.clone(), holder);
        }
        locked
    }

    /// Unlocks those of the queues that the client holds.
    pub(crate) fn unlock(&self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let mut groups = lock(&self.0);
        let Some(held) = groups.get_mut(group) else { return };
        for queue in queues {
            if held
                .get(queue)
                .is_some_and(|holder| holder.client_id == client_id)
            {
                held.remove(queue);
            }
        }
        if held.is_empty() {
            groups.remove(group);
        }
    }

    /// Whether the group holds any lock: it consumes in order then.
    pub(crate) fn is_any_held(&self, group: &str) -> bool {
        lock(&self.0)
            .get(group)
            .is_some_and(|held| held.values().any(|holder| !holder.is_expired()))
    }

    /// Forgets all locks.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}
