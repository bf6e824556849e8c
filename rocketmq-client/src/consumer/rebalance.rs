//! The division of queues among the members of the group, again and again.
//!
//! Every member computes it for itself, so two of them may disagree for a moment: then a queue is consumed twice, or
//! waits. What is never done on thin ground is giving queues up: an answer that fails, is empty or does not know this
//! member changes nothing.
//!
//! Protocol source: `RebalanceService`, `RebalanceImpl`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::assignment::{Added, Removed};
use super::engine::Engine;
use super::pull::Start;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::panic_text;

/// The shortest time between two rebalances: a group that comes and goes must not keep everybody busy.
const PAUSE: Duration = Duration::from_millis(200);

/// The first wait when something was not settled, and the longest: it doubles in between.
const UNSETTLED: Duration = Duration::from_millis(500);
const UNSETTLED_AT_MOST: Duration = Duration::from_secs(4);

/// What became of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// Its queues are divided.
    Settled,
    /// Something was not known; it stays as it was.
    Unsettled,
}

impl Engine {
    /// Divides on request and regularly. There is one such task for each consumer, so no two divisions run at a time.
    pub(super) async fn rebalance_regularly(self: Arc<Self>, stop: CancellationToken) {
        let mut unsettled = UNSETTLED;
        loop {
            let Some(division) = stop.run_until_cancelled(self.rebalance_once()).await else {
                return;
            };
            let regular = self.options.rebalance_interval;
            let wait = match division {
                Division::Settled => {
                    unsettled = UNSETTLED;
                    regular
                }
                // Nobody knows when it will be permitted: that is not asked for every moment.
                Division::Unsettled if self.refusal.is_some() => regular,
                Division::Unsettled => {
                    let wait = unsettled.min(regular);
                    unsettled = unsettled.saturating_mul(2).min(UNSETTLED_AT_MOST);
                    wait
                }
            };
            let next = stop.run_until_cancelled(async {
                sleep(PAUSE.min(wait)).await;
                tokio::select! {
                    () = sleep(wait.saturating_sub(PAUSE)) => false,
                    () = self.rebalance.notified() => true,
                }
            });
            match next.await {
                // Something has changed: what is not there yet may be there soon.
                Some(true) => unsettled = UNSETTLED,
                Some(false) => {
                    if stop.run_until_cancelled(self.check_agreement()).await.is_none() {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    async fn rebalance_once(self: &Arc<Self>) -> Division {
        let mut all = Division::Settled;
        let table = self.subscriptions.table();
        self.retain_popped(|topic| table.contains_key(topic));
        for topic in table.keys() {
            if self.divide_topic(topic).await == Division::Unsettled {
                all = Division::Unsettled;
            }
        }
        all
    }

    async fn divide_topic(self: &Arc<Self>, topic: &Arc<str>) -> Division {
        if let Some(pop) = &self.pop {
            return self.divide_by_broker(topic, pop).await;
        }
        let mut queues = match self.remote.queues(topic).await {
            Ok(queues) => queues,
            Err(error) => {
                debug!(group = %self.group, %topic, %error, "no route, queues stay as they are");
                return Division::Unsettled;
            }
        };
        lock(&self.assignment).see(topic, &queues);
        if queues.is_empty() {
            // The topic does not exist yet, or a name server has lost it for a moment.
            debug!(group = %self.group, %topic, "the topic has no queues, assigned ones stay");
            return Division::Unsettled;
        }
        // Only a topic that was not there before has not been looked at yet.
        self.look_at(topic, &queues).await;
        queues.sort();
        if self.local.is_some() {
            self.divide(topic, 1, &queues);
            return Division::Settled;
        }
        let mut members = match self.remote.members(&queues).await {
            Ok(members) => members,
            Err(error) => {
                self.note_refusal(&self.group, &error);
                if !self.refusal.is_some() {
                    warn!(group = %self.group, %topic, %error, "the members of the group are not known, queues stay as they are");
                }
                self.heartbeat().await;
                return Division::Unsettled;
            }
        };
        let client_id = self.remote.client_id();
        if !members.iter().any(|member| member == client_id) {
            info!(group = %self.group, %topic, "the broker does not list this member yet, queues stay as they are");
            self.heartbeat().await;
            return Division::Unsettled;
        }
        self.refusal.clear(&self.group);
        if *topic == self.retry_topic {
            self.retry_topic_exists.store(true, Ordering::Relaxed);
        }
        // A member that reconnects is listed twice for a moment.
        members.sort();
        members.dedup();
        let Some(target) = self.share(&members, &queues) else {
            return Division::Unsettled;
        };
        self.divide(topic, members.len(), &target);
        Division::Settled
    }

    /// Makes these the owned queues of a topic.
    fn divide(self: &Arc<Self>, topic: &Arc<str>, members: usize, target: &[MessageQueue]) {
        let (added, removed) = {
            let stop = self.intake.token();
            let mut assignment = lock(&self.assignment);
            // Under the lock, or a topic that is just being given up could get its queues back.
            if !self.subscriptions.contains(topic) {
                return;
            }
            assignment.divide(topic, target, stop)
        };
        self.share_topic(topic, target.len());
        self.change(topic, members, added, removed);
    }

    /// This member's share; `None` if the strategy panicked.
    fn share(&self, members: &[String], queues: &[MessageQueue]) -> Option<Vec<MessageQueue>> {
        let strategy = &self.options.allocate;
        let client_id = self.remote.client_id();
        // It may be the user's, and a panic here would end all rebalancing.
        let share = catch_unwind(AssertUnwindSafe(|| strategy.allocate(client_id, members, queues)));
        let mut share = match share {
            Ok(share) => share,
            Err(panic) => {
                let panic = panic_text(&*panic);
                error!(group = %self.group, strategy = strategy.name(), panic, "the strategy of allocation panicked, queues stay as they are");
                return None;
            }
        };
        // It may return anything.
        share.retain(|queue| queues.binary_search(queue).is_ok());
        Some(share)
    }

    pub(super) fn change(
        self: &Arc<Self>,
        topic: &str,
        members: usize,
        added: Vec<Added>,
        removed: Vec<Removed>,
    ) {
        if added.is_empty() && removed.is_empty() {
            return;
        }
        info!(
            group = %self.group, topic, members, added = added.len(), removed = removed.len(),
            "queues divided"
        );
        // Where order is kept, a queue that comes later was somebody else's, even if nobody else is there any more.
        let again = self
            .order
            .as_ref()
            .is_some_and(|order| order.divides_again(topic));
        for Added {
            queue,
            stop,
            appeared,
        } in added
        {
            let start = Start::Group {
                shared: members > 1 || again,
                appeared,
            };
            self.spawn_pull(queue, start, stop);
        }
        let removed = self.release_in_order(removed);
        if !removed.is_empty() {
            // Not here: a broker that is slow to take commits must not hold up the next division.
            let engine = Arc::clone(self);
            self.upkeep
                .spawn("commit", |_| async move { engine.commit_removed(&removed).await });
        }
    }
}
