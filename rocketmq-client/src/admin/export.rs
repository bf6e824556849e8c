//! Topics and groups as one document, to keep or to put on another cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Admin;
use super::order::ORDER_TOPIC_CONFIG;
use crate::error::Result;
use crate::protocol::bodies::{SubscriptionGroupConfig, TopicConfig};

/// Topics and groups of a cluster. Serde makes JSON or anything else of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Metadata {
    /// By the name of the broker.
    pub brokers: BTreeMap<String, BrokerMetadata>,
    /// The order of queues, by topic.
    pub order: BTreeMap<String, String>,
}

/// Topics and groups of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct BrokerMetadata {
    /// Topics by name.
    pub topics: BTreeMap<String, TopicConfig>,
    /// Groups by name.
    pub groups: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Topics and groups as one document.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let other = EmbeddedBroker::start().await?;
/// use rocketmq_client::Client;
/// use rocketmq_client::admin::TopicConfig;
///
/// let old = Client::connect(broker.name_server()).await?;
/// old.admin().create_topic(&TopicConfig::new("orders", 4)).await?;
/// let metadata = old.admin().export_metadata().await?;
///
/// let new = Client::connect(other.name_server()).await?;
/// new.admin().import_metadata(&metadata).await?;
/// assert!(new.admin().topics().await?.contains("orders"));
/// # old.shutdown().await;
/// # new.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// All topics and groups of users on the masters of the scope, without retry and dead-letter topics: those come
    /// with their groups. Java: `mqadmin exportMetadata`.
    ///
    /// # Errors
    /// When one of the brokers does not answer: half a document would look like a whole one.
    pub async fn export_metadata(&self) -> Result<Metadata> {
        let mut topics = self.user_topic_configs(false).await?.complete()?;
        let groups = self.user_group_configs().await?.complete()?;
        let brokers = groups.into_iter().map(|(broker, groups)| {
            let topics = topics.remove(&broker).unwrap_or_default();
            (broker, BrokerMetadata { topics, groups })
        });
        Ok(Metadata {
            brokers: brokers.collect(),
            order: self.kv_list(ORDER_TOPIC_CONFIG).await?,
        })
    }

    /// Creates or changes all topics and groups of a document: of a broker that the cluster has, on this broker; of
    /// others on every master of the scope. Nothing is deleted. The order of queues names brokers, so it is taken over
    /// only for topics whose brokers are all there.
    ///
    /// # Errors
    /// As [`create_topics`](Self::create_topics). What came before stays.
    pub async fn import_metadata(&self, metadata: &Metadata) -> Result<()> {
        let masters = self.masters().await?;
        let is_here = |broker: &str| masters.iter().any(|place| place.name == broker);
        for (broker, found) in &metadata.brokers {
            let target = match is_here(broker) {
                true => self.at_broker(broker.as_str()),
                false => self.clone(),
            };
            let topics: Vec<_> = found.topics.values().cloned().collect();
            if !topics.is_empty() {
                target.create_topics(&topics).await?;
            }
            let groups: Vec<_> = found.groups.values().cloned().collect();
            if !groups.is_empty() {
                target.create_groups(&groups).await?;
            }
        }
        for (topic, order) in &metadata.order {
            let mut brokers = order.split(';').filter_map(|part| part.split_once(':'));
            if brokers.all(|(broker, _)| is_here(broker)) {
                self.set_kv(ORDER_TOPIC_CONFIG, topic, order).await?;
            }
        }
        Ok(())
    }
}
