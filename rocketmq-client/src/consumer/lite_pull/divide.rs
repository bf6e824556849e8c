//! The share of a consumer that subscribes: the division of its topics, again and again, and changes of what it wants.
//!
//! Protocol source: `RebalanceLitePullImpl`, `DefaultLitePullConsumerImpl#subscribe`, `#assign`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::info;

use super::engine::{Lite, Mode, Start};
use super::watch::AssignmentChange;
use crate::consumer::allocate::AllocateStrategy;
use crate::consumer::division::{Divides, Share};
use crate::consumer::filter::Filter;
use crate::consumer::remote::Remote;
use crate::consumer::subscriptions::Change;
use crate::error::{Error, Result};
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::trace::now_millis;

impl Divides for Lite {
    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn strategy(&self) -> &dyn AllocateStrategy {
        &*self.options.allocate
    }

    fn is_broadcasting(&self) -> bool {
        self.is_broadcasting()
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.topics()
    }

    fn see(&self, topic: &Arc<str>, all: &[MessageQueue]) {
        lock(&self.watched).see(topic, all);
    }

    fn take_share(self: &Arc<Self>, topic: &Arc<str>, all: &[MessageQueue], share: Share) {
        let before = self.queues_of(topic);
        let start = |queue: &MessageQueue| Start::Group {
            shared: share.members > 1,
            appeared: lock(&self.watched).is_new(queue),
        };
        let wanted = || self.subscriptions.contains(topic);
        self.hold(&share.queues, |queue| queue.topic == *topic, wanted, start);
        let after = self.queues_of(topic);
        if before == after {
            return;
        }
        info!(
            group = %self.group, %topic, members = share.members, queues = after.len(), before = before.len(),
            "queues divided"
        );
        if let Some(listener) = &self.assignment_listener {
            listener.call(&AssignmentChange {
                topic,
                all,
                assigned: &after,
            });
        }
    }
}

impl Lite {
    /// The assigned queues of a topic.
    pub(super) fn queues_of(&self, topic: &str) -> Vec<MessageQueue> {
        lock(&self.held)
            .queues()
            .filter(|queue| *queue.topic == *topic)
            .cloned()
            .collect()
    }

    /// Subscribes to a topic, or to the same one with another filter, from now on.
    pub(super) async fn subscribe(self: &Arc<Self>, topic: &str, filter: Filter) -> Result<()> {
        self.check_open()?;
        self.check_subscribed("subscribe")?;
        self.remote.check_topic(topic)?;
        if let Err(fault) = filter.check() {
            return Err(Error::config(format!("filter of topic {topic:?}: {fault}")));
        }
        // So that the brokers of the topic are among those that are told. One that does not exist yet is asked for
        // again by the next division.
        let _ = self.remote.queues(topic).await;
        self.check_open()?;
        info!(group = %self.group, topic, %filter, "subscription changed");
        match self.subscriptions.set(topic, filter, now_millis()) {
            Change::Nothing => return Ok(()),
            Change::New => {}
            Change::Replaced => self.restart_topic(topic),
        }
        self.remote.announce().await;
        self.rebalance.notify_one();
        Ok(())
    }

    /// Gives a topic up. Whether it was subscribed to.
    pub(super) async fn unsubscribe(self: &Arc<Self>, topic: &str) -> Result<bool> {
        self.check_open()?;
        self.check_subscribed("unsubscribe")?;
        if !self.subscriptions.remove(topic) {
            return Ok(false);
        }
        info!(group = %self.group, topic, "subscription given up");
        self.hold(&[], |queue| *queue.topic == *topic, || true, |_| Start::At(0));
        self.remote.announce().await;
        Ok(true)
    }

    fn check_subscribed(&self, what: &str) -> Result<()> {
        match self.mode {
            Mode::Subscribed => Ok(()),
            Mode::Assigned(_) => Err(Error::config(format!(
                "lite-pull consumer of group {} was started with assigned queues: {what} is for one that subscribes; \
                 use assign",
                self.group
            ))),
        }
    }

    /// Makes these the assigned queues.
    pub(super) async fn assign(self: &Arc<Self>, queues: Vec<MessageQueue>) -> Result<()> {
        self.check_open()?;
        if let Mode::Subscribed = self.mode {
            return Err(Error::config(format!(
                "lite-pull consumer of group {} subscribes: assign is for one that was started with start_assigned",
                self.group
            )));
        }
        self.check_queues(&queues)?;
        // The routes say where their brokers are.
        let topics: BTreeSet<_> = queues.iter().map(|queue| Arc::clone(&queue.topic)).collect();
        for topic in topics {
            let _ = self.remote.queues(&topic).await;
        }
        let start = |_: &MessageQueue| Start::Group {
            shared: false,
            appeared: false,
        };
        self.hold(&queues, |_| true, || true, start);
        self.remote.announce().await;
        Ok(())
    }

    /// Fails for queues that cannot be assigned.
    pub(super) fn check_queues(&self, queues: &[MessageQueue]) -> Result<()> {
        if queues.is_empty() {
            return Err(Error::config(format!(
                "lite-pull consumer of group {}: there has to be a queue to assign",
                self.group
            )));
        }
        for queue in queues {
            self.remote.check_topic(&queue.topic)?;
            if queue.queue_id < 0 {
                return Err(Error::config(format!("queue {queue} has a negative number")));
            }
        }
        Ok(())
    }
}
