//! Queue locks of consumers that consume in order.
//!
//! Protocol source: `RebalanceLockManager`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use rocketmq_client::protocol::bodies::MessageQueue;
use tokio::time::Instant;

use crate::lock::lock;

/// A lock that is not renewed for this long is free again, unless set otherwise.
pub(crate) const LOCK_LIFE: Duration = Duration::from_secs(60);

/// Who holds which queue, by group.
#[derive(Debug)]
pub(crate) struct QueueLocks {
    life: Duration,
    groups: Mutex<HashMap<String, HashMap<MessageQueue, Holder>>>,
}

#[derive(Debug)]
struct Holder {
    client_id: String,
    renewed: Instant,
}

impl Holder {
    fn is_expired(&self, life: Duration) -> bool {
        self.renewed.elapsed() > life
    }
}

impl QueueLocks {
    pub(crate) fn new(life: Duration) -> Self {
        Self {
            life,
            groups: Mutex::default(),
        }
    }

    /// Locks or renews the queues that are free, expired or the client's own; returns those.
    pub(crate) fn lock(&self, group: &str, client_id: &str, queues: Vec<MessageQueue>) -> Vec<MessageQueue> {
        let mut groups = lock(&self.groups);
        let held = groups.entry(group.to_owned()).or_default();
        held.retain(|_, holder| !holder.is_expired(self.life));
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
        let mut groups = lock(&self.groups);
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
        lock(&self.groups)
            .get(group)
            .is_some_and(|held| held.values().any(|holder| !holder.is_expired(self.life)))
    }

    /// Forgets all locks.
    pub(crate) fn clear(&self) {
        lock(&self.groups).clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn queues(ids: std::ops::Range<i32>) -> Vec<MessageQueue> {
        ids.map(|id| MessageQueue::new("orders", "broker-a", id))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_locked_by_one_client_of_a_group_until_it_unlocks_or_falls_silent() {
        let locks = QueueLocks::new(LOCK_LIFE);
        assert_eq!(locks.lock("billing", "a", queues(0..2)), queues(0..2));
        assert_eq!(locks.lock("billing", "b", queues(1..3)), queues(2..3));
        assert_eq!(
            locks.lock("audit", "b", queues(0..3)),
            queues(0..3),
            "another group"
        );

        locks.unlock("billing", "b", &queues(0..1));
        assert_eq!(
            locks.lock("billing", "b", queues(0..1)),
            [],
            "only the holder unlocks"
        );
        locks.unlock("billing", "a", &queues(0..1));
        assert_eq!(locks.lock("billing", "b", queues(0..1)), queues(0..1));

        advance(LOCK_LIFE).await;
        assert_eq!(locks.lock("billing", "b", queues(1..2)), [], "not over yet");
        assert_eq!(locks.lock("billing", "a", queues(1..2)), queues(1..2), "renewed");
        assert!(locks.is_any_held("billing"));
        advance(LOCK_LIFE + Duration::from_millis(1)).await;
        assert!(!locks.is_any_held("billing"));
        assert_eq!(locks.lock("billing", "b", queues(1..2)), queues(1..2));
    }
}
