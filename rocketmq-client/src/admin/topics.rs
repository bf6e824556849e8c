//! Topics: creating, changing, deleting, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};

use super::fan_out::{Merged, PerBroker};
use super::order::ORDER_TOPIC_CONFIG;
use super::reach::{Place, names_of};
use super::{Admin, Scope};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{
    MessageQueue, TopicConfig, TopicConfigList, TopicOffset, TopicQueueMapping, TopicRouteData, permission,
};
use crate::protocol::names::{self, AUTO_CREATE_TOPIC, DLQ_PREFIX, RETRY_PREFIX};
use crate::protocol::requests::{
    self, AllTopicConfig, AllTopics, CreateTopic, CreateTopics, DeleteKvConfig, DeleteTopic,
    DeleteTopicInNameServer, GetTopicConfig, SystemTopicsOfBroker, TopicsByCluster,
};
use crate::protocol::{Json, JsonBody};

/// How far the queues of a topic are.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TopicStats {
    /// Offsets of each queue.
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages stored per second, of brokers that tell it (5.x).
    pub put_tps: f64,
}

impl TopicConfig {
    /// A topic with this many queues for reading and writing on each broker, and defaults for everything else.
    #[must_use]
    pub fn new(topic: impl Into<String>, queues: i32) -> Self {
        Self {
            topic_name: topic.into(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            ..Self::default()
        }
    }

    /// Sets an attribute, for instance `message.type` to `FIFO`. 5.x; brokers of 4.9 pay no attention to it.
    ///
    /// Java: `+name=value` of `TopicAttributes`.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Takes an attribute away from a topic that has it.
    #[must_use]
    pub fn without_attribute(mut self, name: impl AsRef<str>) -> Self {
        self.attributes
            .insert(format!("-{}", name.as_ref()), String::new());
        self
    }

    /// As a request wants attributes: `+name=value,-name`. A name that has its sign already keeps it.
    fn attribute_changes(&self) -> Option<String> {
        let changes: Vec<_> = self
            .signed_attributes()
            .into_iter()
            .map(|(name, value)| match name.starts_with('-') {
                true => name,
                false => format!("{name}={value}"),
            })
            .collect();
        (!changes.is_empty()).then(|| changes.join(","))
    }

    fn signed_attributes(&self) -> BTreeMap<String, String> {
        signed(&self.attributes)
    }
}

/// Attributes as changes: each name with `+` or `-` before it.
pub(super) fn signed(attributes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let sign = |name: &String| match name.starts_with(['+', '-']) {
        true => name.clone(),
        false => format!("+{name}"),
    };
    attributes
        .iter()
        .map(|(name, value)| (sign(name), value.clone()))
        .collect()
}

/// Topics: creating, changing, deleting, and what is known of them.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// use rocketmq_client::admin::TopicConfig;
///
/// let admin = client.admin();
/// admin.create_topic(&TopicConfig::new("orders", 8).attribute("message.type", "FIFO")).await?;
/// for (broker, config) in admin.topic_config("orders").await?.complete()? {
///     println!("{broker} has {} queues", config.write_queue_nums);
/// }
/// assert!(admin.topics().await?.contains("orders"));
/// admin.delete_topic("orders").await?;
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// Creates a topic, or changes it where it is there already, on every master of the scope.
    ///
    /// The attributes given are set, those with a `-` before their name are taken away, all others stay. Java:
    /// `createAndUpdateTopicConfig`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that no topic can have; what a broker refuses, naming the brokers that failed
    /// and those that did it.
    ///
    /// # Cancellation
    /// Brokers may have done it all the same. Doing it again is harmless.
    pub async fn create_topic(&self, config: &TopicConfig) -> Result<()> {
        check_topic(&config.topic_name)?;
        let request = create(config);
        let places = self.masters().await?;
        let all = self.tell(places, &request).await;
        all.context(format_args!("create topic {}", config.topic_name))
            .done()
    }

    /// Creates or changes several topics on every master of the scope: in one request for brokers that can (5.3 and
    /// newer), else one after the other. Java: `createAndUpdateTopicConfigList`.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic). A broker that refuses one of the topics has not created those behind it.
    pub async fn create_topics(&self, configs: &[TopicConfig]) -> Result<()> {
        for config in configs {
            check_topic(&config.topic_name)?;
        }
        let list = TopicConfigList {
            topic_config_list: configs
                .iter()
                .map(|config| TopicConfig {
                    attributes: config.signed_attributes(),
                    ..config.clone()
                })
                .collect(),
        };
        let request = &CreateTopics {
            body: list
                .to_body()
                .map_err(|error| Error::from_encode("CreateTopics", error))?,
        };
        let places = self.masters().await?;
        let all = self.each(places, |place| async move {
            match self.call(&place, request).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    for config in configs {
                        self.call(&place, &create(config)).await?;
                    }
                    Ok(())
                }
                answer => answer.map(drop),
            }
        });
        all.await
            .context(format_args!("create {} topics", configs.len()))
            .done()
    }

    /// Deletes a topic with its messages: on every master and slave of the scope, then on every name server, then its
    /// order configuration. Java: `deleteTopic`.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic). Name servers are told only after all brokers did it.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        check_topic(topic)?;
        let what = format!("delete topic {topic}");
        let places = self.masters_and_slaves().await?;
        let request = DeleteTopic {
            topic: topic.to_owned(),
        };
        self.tell(places, &request).await.context(&what).done()?;
        match &self.scope {
            // Other brokers still have it, so its route stays.
            Scope::Broker(_) | Scope::Address(_) => return Ok(()),
            Scope::All | Scope::Cluster(_) => {}
        }
        self.delete_topic_in_name_servers(topic).await?;
        let request = DeleteKvConfig {
            namespace: ORDER_TOPIC_CONFIG.to_owned(),
            key: topic.to_owned(),
        };
        let all = self.ask_name_servers(&request).await;
        all.map(drop).context(what).done()
    }

    /// Lets every name server forget where a topic is. Brokers that still have it register it again. Java:
    /// `deleteTopicInNameServer`.
    ///
    /// # Errors
    /// What a name server refuses, naming those that failed.
    pub async fn delete_topic_in_name_servers(&self, topic: &str) -> Result<()> {
        let request = DeleteTopicInNameServer {
            topic: topic.to_owned(),
            cluster_name: match &self.scope {
                Scope::Cluster(name) => Some(name.to_string()),
                _ => None,
            },
        };
        let all = self.ask_name_servers(&request).await.map(drop);
        all.context(format_args!("delete topic {topic} on name servers"))
            .done()
    }

    /// How a topic is configured on each broker that has it. Java: `examineTopicConfig`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if the name servers do not know the topic.
    pub async fn topic_config(&self, topic: &str) -> Result<PerBroker<TopicConfig>> {
        let places = self.places_of_topic(topic).await?;
        let all = self.each(places, |place| async move { self.config_at(&place, topic).await });
        Ok(all.await)
    }

    async fn config_at(&self, place: &Place, topic: &str) -> Result<TopicConfig> {
        let request = GetTopicConfig {
            topic: topic.to_owned(),
            with_mapping: Some(false),
        };
        match self.call(place, &request).await {
            Ok(Json(found)) => Ok(found.config),
            // Brokers of 4.9 tell all topics or none.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let Json(mut all) = self.call(place, &AllTopicConfig {}).await?;
                all.topic_config_table.remove(topic).ok_or_else(|| {
                    Error::new(
                        ErrorKind::TopicNotFound,
                        format!("topic {topic}: broker {} does not have it", place.name),
                    )
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The global queues of a static topic, as each of its brokers has them; none for a broker on which the topic is
    /// an ordinary one. Brokers of 5.x.
    ///
    /// # Errors
    /// As [`topic_config`](Self::topic_config).
    pub async fn topic_mapping(&self, topic: &str) -> Result<PerBroker<Option<TopicQueueMapping>>> {
        let places = self.places_of_topic(topic).await?;
        let request = GetTopicConfig {
            topic: topic.to_owned(),
            with_mapping: Some(true),
        };
        let all = self.ask(places, &request).await;
        Ok(all.map(|Json(found)| found.mapping_detail))
    }

    /// All topics of each master of the scope, by name. Java: `getAllTopicConfig`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn topic_configs(&self) -> Result<PerBroker<BTreeMap<String, TopicConfig>>> {
        let places = self.masters().await?;
        let all = self.ask(places, &AllTopicConfig {}).await;
        Ok(all.map(|Json(found)| found.topic_config_table))
    }

    /// As [`topic_configs`](Self::topic_configs) without those of the brokers themselves; retry and dead-letter topics
    /// only if they are wanted. Java: `getUserTopicConfig`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn user_topic_configs(
        &self,
        derived_too: bool,
    ) -> Result<PerBroker<BTreeMap<String, TopicConfig>>> {
        let places = self.masters().await?;
        let all = self.each(places, |place| async move {
            let Json(mut found) = self.call(&place, &AllTopicConfig {}).await?;
            let Json(system) = self.call(&place, &SystemTopicsOfBroker {}).await?;
            let derived = |name: &str| name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX);
            found.topic_config_table.retain(|name, config| {
                !system.topic_list.contains(name)
                    && !names::is_system_topic(name)
                    && (derived_too || !derived(name))
                    && config.perm & (permission::READ | permission::WRITE | permission::INHERIT)
                        == config.perm
            });
            Ok(found.topic_config_table)
        });
        Ok(all.await)
    }

    /// The names of all topics that a name server knows, or of those of the scope's cluster. Java: `fetchAllTopicList`,
    /// `fetchTopicsByCLuster`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`] if none answers.
    pub async fn topics(&self) -> Result<BTreeSet<String>> {
        let Json(found) = match &self.scope {
            Scope::Cluster(cluster) => {
                let request = TopicsByCluster {
                    cluster: cluster.to_string(),
                };
                self.cluster().call_name_server(&request).await?
            }
            _ => self.cluster().call_name_server(&AllTopics {}).await?,
        };
        Ok(names_of(found.topic_list))
    }

    /// Where the queues of a topic are, as a name server says now. Java: `examineTopicRouteInfo`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic.
    pub async fn topic_route(&self, topic: &str) -> Result<TopicRouteData> {
        self.fresh_route(topic).await
    }

    /// The clusters whose brokers have a topic. Java: `getTopicClusterList`.
    ///
    /// # Errors
    /// As [`topic_route`](Self::topic_route).
    pub async fn topic_clusters(&self, topic: &str) -> Result<BTreeSet<String>> {
        let route = self.fresh_route(topic).await?;
        Ok(route
            .broker_datas
            .into_iter()
            .map(|broker| broker.cluster)
            .collect())
    }

    /// Offsets of all queues of a topic. Java: `examineTopicStats`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic; the failure of the first broker if none answers.
    pub async fn topic_stats(&self, topic: &str) -> Result<Merged<TopicStats>> {
        let places = self.places_of_topic(topic).await?;
        let request = requests::TopicStats {
            topic: topic.to_owned(),
        };
        let all = self
            .ask(places, &request)
            .await
            .context(format_args!("statistics of topic {topic}"));
        all.merge(|stats: &mut TopicStats, Json(found)| {
            stats.offset_table.extend(found.offset_table.0);
            stats.put_tps += found.topic_put_tps;
        })
    }

    /// The groups that consume a topic now or have committed offsets of it. Java: `queryTopicConsumeByWho`, which asks
    /// one broker only.
    ///
    /// # Errors
    /// As [`topic_stats`](Self::topic_stats).
    pub async fn groups_of_topic(&self, topic: &str) -> Result<Merged<BTreeSet<String>>> {
        let places = self.places_of_topic(topic).await?;
        let request = requests::TopicConsumeByWho {
            topic: topic.to_owned(),
        };
        let all = self
            .ask(places, &request)
            .await
            .context(format_args!("groups of topic {topic}"));
        all.merge(|groups: &mut BTreeSet<String>, Json(found)| groups.extend(found.group_list))
    }

    /// Lets each master of the scope remove what is left of topics that it does not have any more. Java:
    /// `cleanUnusedTopic`.
    ///
    /// # Errors
    /// What a broker refuses, naming those that failed.
    pub async fn clean_unused_topics(&self) -> Result<()> {
        let places = self.masters().await?;
        self.tell(places, &requests::CleanUnusedTopics {}).await.done()
    }
}

fn create(config: &TopicConfig) -> CreateTopic {
    CreateTopic {
        topic: config.topic_name.clone(),
        default_topic: AUTO_CREATE_TOPIC.to_owned(),
        read_queue_nums: config.read_queue_nums,
        write_queue_nums: config.write_queue_nums,
        perm: config.perm,
        topic_filter_type: config.topic_filter_type,
        topic_sys_flag: Some(config.topic_sys_flag),
        order: config.order,
        attributes: config.attribute_changes(),
    }
}

fn check_topic(topic: &str) -> Result<()> {
    names::check_topic(topic).map_err(|error| Error::config(error.to_string()).caused_by(error))
}
