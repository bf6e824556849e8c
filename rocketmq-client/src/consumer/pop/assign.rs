//! The division of work as a broker makes it, topic by topic: which queues to pull, and what to pop.
//!
//! All members ask the broker whose name comes first and that answers, so they hear the same.
//!
//! Protocol source: `RebalanceImpl#getRebalanceResultFromBroker`, `updateMessageQueueAssignment`,
//! `QueryAssignmentProcessor`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::Pop;
use super::calls::is_unknown_request;
use crate::consumer::engine::Engine;
use crate::consumer::filter::Filter;
use crate::consumer::rebalance::Division;
use crate::consumer::remote::Remote;
use crate::error::{Error, Result};
use crate::protocol::bodies::{
    AssignmentQuery, MASTER_ID, MessageModel, MessageQueue, QueueAssignment, RequestMode,
};
use crate::protocol::names::RETRY_PREFIX;
use crate::protocol::requests::QueryAssignment;
use crate::protocol::{JsonBody, PopTopic};
use crate::sync::lock;
use crate::trace::now_millis;

impl Engine {
    /// Fails if a broker that is known is too old for a consumer that pops.
    pub(in crate::consumer) async fn check_pop(&self) -> Result<()> {
        if self.pop.is_none() {
            return Ok(());
        }
        for topic in self.subscriptions.table().keys() {
            if let Ok(queues) = self.remote.queues(topic).await {
                self.remote.check_can_pop(&queues)?;
            }
        }
        Ok(())
    }

    /// Divides a topic as a broker says.
    pub(in crate::consumer) async fn divide_by_broker(
        self: &Arc<Self>,
        topic: &Arc<str>,
        pop: &Pop,
    ) -> Division {
        let queues = match self.remote.queues(topic).await {
            Ok(queues) => queues,
            Err(error) => {
                debug!(group = %self.group, %topic, %error, "no route, the assignment stays as it is");
                return Division::Unsettled;
            }
        };
        lock(&self.assignment).see(topic, &queues);
        if queues.is_empty() {
            debug!(group = %self.group, %topic, "the topic has no queues, the assignment stays as it is");
            // A topic for what comes again exists only when something has.
            return if is_of_pop(topic) {
                Division::Settled
            } else {
                Division::Unsettled
            };
        }
        let Some(assigned) = self.ask_for_share(topic, &queues).await else {
            return Division::Unsettled;
        };
        let share = |mode: RequestMode| -> Vec<MessageQueue> {
            let queues: BTreeSet<&MessageQueue> = assigned
                .iter()
                .filter(|assigned| assigned.mode == mode && assigned.message_queue.topic == *topic)
                .map(|assigned| &assigned.message_queue)
                .collect();
            queues.into_iter().cloned().collect()
        };
        let (popped, pulled) = (share(RequestMode::Pop), share(RequestMode::Pull));
        self.follow_mode(topic, !popped.is_empty(), !pulled.is_empty());
        let (added, removed) = {
            let stop = self.intake.token();
            let mut assignment = lock(&self.assignment);
            // Under the lock, or a topic that is just being given up could get its queues back.
            if !self.subscriptions.contains(topic) {
                return Division::Settled;
            }
            assignment.divide(topic, &pulled, stop)
        };
        // Whoever else is in the group, a queue may come from them.
        self.change(topic, 2, added, removed);
        self.assign_pop(pop, topic, &popped);
        Division::Settled
    }

    async fn ask_for_share(&self, topic: &str, queues: &[MessageQueue]) -> Option<Vec<QueueAssignment>> {
        let brokers: BTreeSet<&Arc<str>> = queues.iter().map(|queue| &queue.broker_name).collect();
        let strategy = self.options.allocate.name();
        for broker in brokers {
            let answer = self.remote.assignments(broker, topic, strategy).await;
            match answer {
                Ok(Some(assigned)) if assigned.is_empty() && !self.is_listed(queues).await => return None,
                Ok(Some(assigned)) => return Some(assigned),
                Ok(None) => {
                    info!(group = %self.group, topic, %broker, strategy, "the broker does not say what this member's share is; it knows AVG and AVG_BY_CIRCLE, and who has sent a heartbeat");
                    self.remote.heartbeat().await;
                }
                Err(error) if is_unknown_request(&error) => {
                    let error = self.remote.cannot_pop(broker, &error.to_string());
                    error!(group = %self.group, topic, %error, "nothing is consumed");
                }
                Err(error) => {
                    warn!(group = %self.group, topic, %broker, %error, "this member's share is not known, it stays as it is");
                }
            }
        }
        None
    }

    /// Whether the group's broker knows this member: one that it does not know gets nothing, which says nothing.
    async fn is_listed(&self, queues: &[MessageQueue]) -> bool {
        let listed = match self.remote.members(queues).await {
            Ok(members) => members.iter().any(|member| member == self.remote.client_id()),
            Err(_) => false,
        };
        if !listed {
            self.remote.heartbeat().await;
        }
        listed
    }

    /// What was popped and not acknowledged is in retry topics, which pops look into. As long as the topic is pulled,
    /// they are pulled as well.
    fn follow_mode(self: &Arc<Self>, topic: &Arc<str>, is_popped: bool, is_pulled: bool) {
        if topic.starts_with(RETRY_PREFIX) || is_popped == is_pulled {
            return;
        }
        let wire_topic = self.remote.cluster().wire_name(topic);
        for retry in [PopTopic::RetryV1, PopTopic::RetryV2] {
            // The group gets its namespace like that of any other retry topic.
            let retry_topic = retry.name(&wire_topic, &self.group);
            if is_pulled && !self.subscriptions.contains(&retry_topic) {
                info!(group = %self.group, %topic, retry_topic, "the topic is pulled, and what was popped of it before");
                let _ = self.subscriptions.set(&retry_topic, Filter::all(), now_millis());
                self.rebalance.notify_one();
            } else if is_popped && self.subscriptions.remove(&retry_topic) {
                info!(group = %self.group, %topic, retry_topic, "the topic is popped from now on");
                let removed = lock(&self.assignment).leave(&retry_topic, self.intake.token());
                self.change(&retry_topic, 0, Vec::new(), removed);
            }
        }
    }
}

impl Remote {
    /// This member's share of a topic as a broker divides it; `None` if that broker cannot say.
    async fn assignments(
        &self,
        broker: &str,
        topic: &str,
        strategy: &str,
    ) -> Result<Option<Vec<QueueAssignment>>> {
        let query = AssignmentQuery {
            client_id: self.client_id().to_owned(),
            consumer_group: self.wire_group().to_owned(),
            message_model: MessageModel::Clustering,
            strategy_name: strategy.to_owned(),
            topic: self.cluster().wire_name(topic).into_owned(),
        };
        let body = query
            .to_body()
            .map_err(|error| Error::from_encode("question for a share", error))?;
        let answer = self.ask(broker, MASTER_ID, &QueryAssignment { body }).await?;
        let Some(mut assignments) = answer.0.message_queue_assignments else {
            return Ok(None);
        };
        for assignment in &mut assignments {
            assignment.message_queue = self.user_queue(assignment.message_queue.clone());
        }
        Ok(Some(assignments))
    }
}

/// Whether a topic is one of those through which popped messages come again.
fn is_of_pop(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}
