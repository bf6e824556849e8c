//! How queues are given up: after the last handler, with what it has done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use super::OrderedQueue;
use crate::consumer::assignment::Removed;
use crate::consumer::engine::{Engine, FAREWELL};
use crate::tasks::join_all;

impl Engine {
    /// Gives up queues: lets their handlers end, commits, unlocks. Returns what no order is kept of.
    pub(in crate::consumer) fn release_in_order(self: &Arc<Self>, removed: Vec<Removed>) -> Vec<Removed> {
        let Some(order) = &self.order else {
            return removed;
        };
        for removed in removed {
            let keeper = {
                let keepers = crate::sync::lock(&order.keepers);
                keepers.get(&removed.queue.broker_name).cloned()
            };
            let Some((keeper, ordered)) =
                keeper.and_then(|keeper| keeper.leave(&removed.queue).map(|queue| (keeper, queue)))
            else {
                continue;
            };
            let engine = Arc::clone(self);
            self.upkeep.spawn("release", |_| async move {
                let queue = removed.queue.clone();
                engine.see_off(&ordered, removed).await;
                keeper.left(&queue);
            });
        }
        Vec::new()
    }

    /// Waits for the last handler of a queue, at most the grace, and commits what it has done.
    async fn see_off(&self, ordered: &OrderedQueue, removed: Removed) {
        let queue = &removed.queue;
        if timeout(self.options.shutdown_grace, ordered.quiet())
            .await
            .is_err()
        {
            warn!(group = %self.group, %queue, "a handler of a queue that is given up does not end, it is cut off");
            if let Some(lock) = ordered.lock() {
                lock.give_up();
            }
            // One that blocks its thread cannot be cut off. Its queue stays this member's as long as the broker says.
            ordered.quiet().await;
        }
        let offset = removed.reached();
        if self.local.is_some() {
            // It is kept here: brokers know nothing of it.
            return self.commit_removed(&[Removed { offset, ..removed }]).await;
        }
        info!(group = %self.group, %queue, ?offset, released = removed.released, "queue released");
        let Some(offset) = offset.filter(|&offset| offset > 0) else {
            return;
        };
        if let Err(error) = self.remote.commit_confirmed(queue, offset, FAREWELL).await {
            warn!(
                group = %self.group, %queue, offset, %error,
                "the last commit is not confirmed, messages handled since the one before may come again"
            );
        }
    }

    /// Unlocks all queues whose handlers have ended; the locks of others run out by themselves.
    pub(in crate::consumer) async fn unlock_all(&self, limit: Duration) {
        let Some(order) = self.order.as_ref().filter(|order| order.locking) else {
            return;
        };
        let unlocks = order.keepers().into_iter().map(|keeper| async move {
            let queues: Vec<_> = keeper
                .queues()
                .iter()
                .filter(|queue| queue.is_quiet())
                .map(|queue| queue.queue().clone())
                .collect();
            if queues.is_empty() {
                return;
            }
            match timeout(limit, self.remote.unlock_queues(keeper.broker(), &queues)).await {
                Ok(Ok(())) => {}
                _ => warn!(
                    group = %self.group, broker = %keeper.broker(), queues = queues.len(),
                    "queues could not be unlocked, their next owner waits for a minute"
                ),
            }
        });
        join_all(unlocks).await;
    }

    /// For a consumer that was dropped: lets its handlers end, for a moment, and unlocks what they leave.
    pub(in crate::consumer) async fn unlock_abandoned(&self) {
        if self.order.is_some() {
            // What does not end is cut off.
            let _ = self.workers.stop(FAREWELL).await;
            self.unlock_all(FAREWELL).await;
        }
    }
}
