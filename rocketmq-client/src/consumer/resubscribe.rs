//! Subscriptions that change while the consumer runs.
//!
//! A change is first made here, then told to all brokers, then the queues follow: so a broker that serves by the new
//! filter never meets a consumer that still compares with the old one.
//!
//! Protocol source: `DefaultMQPushConsumerImpl#subscribe`, `#unsubscribe`, `RebalanceImpl#truncateMessageQueueNotMyTopic`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;

use super::engine::Engine;
use super::filter::Filter;
use super::push::PushConsumer;
use super::subscriptions::Change;
use crate::error::{Error, Result};
use crate::sync::lock;
use crate::trace::now_millis;

impl PushConsumer {
    /// Subscribes to another topic, or to the same one with another filter, while the consumer runs. Java: `subscribe`
    /// of a consumer that was started.
    ///
    /// Returns when the brokers that can be reached know of it; the others are told by the next heartbeat, and serve
    /// nothing of the topic before. What was not pulled yet is judged by the new filter alone, so no message that is
    /// sent after the return is missed. What was pulled already is still handled. A topic is consumed from the group's
    /// offset on, or where [`consume_from`](super::PushConsumerBuilder::consume_from) says; it need not exist yet.
    ///
    /// All members of the group have to make the same change: until the last of them has, brokers serve all by the
    /// subscription that came last, and [`ConsumerStats::subscription_conflicts`](super::ConsumerStats) counts that.
    ///
    /// ```
    /// use rocketmq_client::{Client, MessageView};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "vip")
    ///     .start(|message: MessageView| async move { println!("{message:?}") })
    ///     .await?;
    /// consumer.subscribe("orders", "vip || late").await?;
    /// consumer.subscribe("refunds", "*").await?;
    /// consumer.unsubscribe("orders").await?;
    /// assert_eq!(consumer.subscriptions().into_keys().collect::<Vec<_>>(), ["refunds"]);
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a topic that cannot be one and for a filter that would never
    /// match; [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the consumer was shut down.
    ///
    /// # Cancellation
    /// The subscription is either as it was, or changed; then the next heartbeat tells the brokers.
    pub async fn subscribe(&self, topic: impl Into<String>, filter: impl Into<Filter>) -> Result<()> {
        let engine = self.engine();
        let topic = engine.remote.cluster().user_name(&topic.into()).into_owned();
        engine.subscribe(&topic, filter.into()).await
    }

    /// Gives a topic up while the consumer runs: its queues are left to the group's other members, if they still want
    /// the topic, and what was handled of them is committed. Returns whether the topic was subscribed to. Java:
    /// `unsubscribe`.
    ///
    /// Handlers that run are not interrupted, but what they do is not committed any more: their messages come again if
    /// the group subscribes to the topic again. Messages of the topic that were given back for a retry still come: they
    /// are in the group's own retry topic.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the consumer was shut down.
    ///
    /// # Cancellation
    /// As [`subscribe`](Self::subscribe).
    pub async fn unsubscribe(&self, topic: &str) -> Result<bool> {
        let engine = self.engine();
        let topic = engine.remote.cluster().user_name(topic).into_owned();
        engine.unsubscribe(&topic).await
    }

    /// The topics that are subscribed to, and what is wanted of them.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeMap<String, Filter> {
        let engine = self.engine();
        let table = engine.subscriptions.table();
        let of_the_user = table.iter().filter(|(topic, _)| **topic != engine.retry_topic);
        of_the_user
            .map(|(topic, subscription)| (topic.to_string(), subscription.filter.clone()))
            .collect()
    }
}

impl Engine {
    async fn subscribe(self: &Arc<Self>, topic: &str, filter: Filter) -> Result<()> {
        self.check_open()?;
        let checked = self.remote.cluster().check_topic(topic);
        checked.map_err(|error| Error::config(error.to_string()))?;
        if let Err(fault) = filter.check() {
            return Err(Error::config(format!("filter of topic {topic:?}: {fault}")));
        }
        if *topic == *self.retry_topic {
            return Err(Error::config(format!(
                "topic {topic:?} is the retry topic of this very group, which it consumes anyway"
            )));
        }
        // So that the brokers of the topic are among those that are told. One that does not exist yet is asked for
        // again by the rebalance.
        let _ = self.remote.queues(topic).await;
        self.check_open()?;
        info!(group = %self.group, topic, %filter, "subscription changed");
        let change = self.subscriptions.set(topic, filter, now_millis());
        if change == Change::Nothing {
            return Ok(());
        }
        self.remote.announce().await;
        if change == Change::Replaced {
            // Not before: a pull of the new filter is refused by a broker that does not know it.
            lock(&self.assignment).cut_pulls(topic);
        }
        self.rebalance.notify_one();
        Ok(())
    }

    async fn unsubscribe(self: &Arc<Self>, topic: &str) -> Result<bool> {
        self.check_open()?;
        if *topic == *self.retry_topic || !self.subscriptions.remove(topic) {
            return Ok(false);
        }
        info!(group = %self.group, topic, "subscription given up");
        let removed = lock(&self.assignment).leave(topic, self.intake.token());
        self.change(topic, 0, Vec::new(), removed);
        self.remote.announce().await;
        Ok(true)
    }

    fn check_open(&self) -> Result<()> {
        if self.intake.token().is_cancelled() {
            return Err(Error::closed(format_args!("consumer of group {}", self.group)));
        }
        Ok(())
    }
}
