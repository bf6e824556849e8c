//! Consumer groups: creating, changing, deleting, and what they may read.

use std::collections::{BTreeMap, BTreeSet};

use super::Admin;
use super::fan_out::{Merged, PerBroker};
use super::topics::signed;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{
    GroupConfigList, MessageRequestMode, SubscriptionData, SubscriptionGroupConfig,
};
use crate::protocol::names;
use crate::protocol::requests::{
    AllGroupConfig, CreateGroup, CreateGroups, DeleteGroup, SetMessageRequestMode, SubscriptionByConsumer,
    TopicsByConsumer, UpdateGroupForbidden,
};
use crate::protocol::{Json, JsonBody};

/// Groups that every broker has for tools and gateways. Java: `MixAll#isPredefinedGroup`.
const PREDEFINED: [&str; 10] = [
    "DEFAULT_CONSUMER",
    "DEFAULT_PRODUCER",
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "CLIENT_INNER_PRODUCER",
    "SELF_TEST_P_GROUP",
    "SELF_TEST_C_GROUP",
    "ONS_HTTP_PROXY_GROUP",
];

impl SubscriptionGroupConfig {
    /// A group with the defaults of a broker.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group_name: group.into(),
            ..Self::default()
        }
    }
}

/// Consumer groups: creating, changing, deleting, and what they may read.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// use rocketmq_client::admin::SubscriptionGroupConfig;
///
/// let admin = client.admin();
/// let config = SubscriptionGroupConfig { retry_max_times: 3, ..SubscriptionGroupConfig::new("billing") };
/// admin.create_group(&config).await?;
/// let known = admin.group_config("billing").await?.complete()?;
/// assert!(known.values().all(|config| config.as_ref().is_some_and(|config| config.retry_max_times == 3)));
/// admin.delete_group("billing", true).await?;
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// Creates a group, or changes it where it is there already, on every master of the scope. Java:
    /// `createAndUpdateSubscriptionGroupConfig`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that no group can have; what a broker refuses, naming the brokers that failed
    /// and those that did it.
    pub async fn create_group(&self, config: &SubscriptionGroupConfig) -> Result<()> {
        check_group(&config.group_name)?;
        let request = create(config)?;
        let places = self.masters().await?;
        let all = self.tell(places, &request).await;
        all.context(format_args!("create group {}", config.group_name))
            .done()
    }

    /// Creates or changes several groups on every master of the scope: in one request for brokers that can (5.3 and
    /// newer), else one after the other. Java: `createAndUpdateSubscriptionGroupConfigList`.
    ///
    /// # Errors
    /// As [`create_group`](Self::create_group).
    pub async fn create_groups(&self, configs: &[SubscriptionGroupConfig]) -> Result<()> {
        let mut singly = Vec::with_capacity(configs.len());
        for config in configs {
            check_group(&config.group_name)?;
            singly.push(create(config)?);
        }
        let list = GroupConfigList {
            group_config_list: configs.iter().map(with_signs).collect(),
        };
        let request = &CreateGroups {
            body: list
                .to_body()
                .map_err(|error| Error::from_encode("CreateGroups", error))?,
        };
        let singly = &singly;
        let places = self.masters().await?;
        let all = self.each(places, |place| async move {
            match self.call(&place, request).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    for request in singly {
                        self.call(&place, request).await?;
                    }
                    Ok(())
                }
                answer => answer.map(drop),
            }
        });
        all.await
            .context(format_args!("create {} groups", configs.len()))
            .done()
    }

    /// Deletes a group from every master of the scope, with its offsets if that is wanted. Members that are connected
    /// make the group again where brokers let them. Java: `deleteSubscriptionGroup`.
    ///
    /// # Errors
    /// What a broker refuses, naming the brokers that failed and those that did it.
    pub async fn delete_group(&self, group: &str, offsets_too: bool) -> Result<()> {
        let request = DeleteGroup {
            group_name: group.to_owned(),
            // 5.x has the first name for it, 4.9 the second.
            clean_offset: Some(offsets_too),
            remove_offset: Some(offsets_too),
        };
        let places = self.masters().await?;
        let all = self.tell(places, &request).await;
        all.context(format_args!("delete group {group}")).done()
    }

    /// How a group is configured on each master of the scope; none where it is not. Java:
    /// `examineSubscriptionGroupConfig`, which makes a group that is not there: this does not.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn group_config(&self, group: &str) -> Result<PerBroker<Option<SubscriptionGroupConfig>>> {
        let all = self.group_configs().await?;
        Ok(all.map(|mut groups| groups.remove(group)))
    }

    /// All groups of each master of the scope, by name. Java: `getAllSubscriptionGroup`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn group_configs(&self) -> Result<PerBroker<BTreeMap<String, SubscriptionGroupConfig>>> {
        let places = self.masters().await?;
        let all = self.ask(places, &AllGroupConfig {}).await;
        Ok(all.map(|Json(found)| found.subscription_group_table))
    }

    /// As [`group_configs`](Self::group_configs) without those of brokers and tools. Java: `getUserSubscriptionGroup`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn user_group_configs(&self) -> Result<PerBroker<BTreeMap<String, SubscriptionGroupConfig>>> {
        let all = self.group_configs().await?;
        Ok(all.map(|mut groups| {
            groups.retain(|group, _| {
                !group.starts_with("CID_RMQ_SYS_") && !PREDEFINED.contains(&group.as_str())
            });
            groups
        }))
    }

    /// The topics of which a group has committed offsets. Brokers of 5.x. Java: `queryTopicsByConsumer`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for brokers of 4.9, whose
    /// [`consume_stats`](Self::consume_stats) say the same; the failure of the first broker if none answers.
    pub async fn topics_of_group(&self, group: &str) -> Result<Merged<BTreeSet<String>>> {
        let places = self.places_of_group(group, None).await?;
        let request = TopicsByConsumer {
            group: group.to_owned(),
        };
        let all = self
            .ask(places, &request)
            .await
            .context(format_args!("topics of group {group}"));
        all.merge(|topics: &mut BTreeSet<String>, Json(found)| topics.extend(found.topic_list))
    }

    /// What the members of a group want of a topic now; none if no member wants it. Brokers of 5.x. Java:
    /// `querySubscription`.
    ///
    /// # Errors
    /// As [`topics_of_group`](Self::topics_of_group).
    pub async fn subscription(&self, group: &str, topic: &str) -> Result<Merged<Option<SubscriptionData>>> {
        let places = self.places_of_topic(topic).await?;
        let request = SubscriptionByConsumer {
            group: group.to_owned(),
            topic: topic.to_owned(),
        };
        let all = self.ask(places, &request).await;
        let all = all.context(format_args!("subscription of group {group} to topic {topic}"));
        all.merge(|newest: &mut Option<SubscriptionData>, Json(found)| {
            let version = |data: &Option<SubscriptionData>| data.as_ref().map(|data| data.sub_version);
            if version(&found.subscription_data) > version(newest) {
                *newest = found.subscription_data;
            }
        })
    }

    /// Whether a group may read a topic, on each broker of the topic. Brokers of 5.x. Java:
    /// `updateAndGetGroupReadForbidden`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic.
    pub async fn group_may_read(&self, group: &str, topic: &str) -> Result<PerBroker<bool>> {
        self.forbidden(group, topic, None).await
    }

    /// Lets a group read a topic, or not, on each broker of the topic. Brokers of 5.x. Java:
    /// `updateAndGetGroupReadForbidden`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic; what a broker refuses, naming the brokers that failed.
    pub async fn set_group_may_read(&self, group: &str, topic: &str, may: bool) -> Result<()> {
        self.forbidden(group, topic, Some(may)).await?.map(drop).done()
    }

    async fn forbidden(&self, group: &str, topic: &str, readable: Option<bool>) -> Result<PerBroker<bool>> {
        let places = self.places_of_topic(topic).await?;
        let request = UpdateGroupForbidden {
            group: group.to_owned(),
            topic: topic.to_owned(),
            readable,
        };
        let all = self.ask(places, &request).await;
        Ok(all.map(|Json(found)| found.readable.unwrap_or(true)))
    }

    /// Lets the members of a group pull or pop a topic, on each broker of the topic. Brokers of 5.x. Java:
    /// `setMessageRequestMode`.
    ///
    /// # Errors
    /// As [`set_group_may_read`](Self::set_group_may_read).
    pub async fn set_message_request_mode(&self, mode: &MessageRequestMode) -> Result<()> {
        let body = mode
            .to_body()
            .map_err(|error| Error::from_encode("SetMessageRequestMode", error))?;
        let places = self.places_of_topic(&mode.topic).await?;
        self.tell(places, &SetMessageRequestMode { body }).await.done()
    }
}

fn create(config: &SubscriptionGroupConfig) -> Result<CreateGroup> {
    let body = with_signs(config).to_body();
    Ok(CreateGroup {
        body: body.map_err(|error| Error::from_encode("CreateGroup", error))?,
    })
}

fn with_signs(config: &SubscriptionGroupConfig) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig {
        attributes: signed(&config.attributes),
        ..config.clone()
    }
}

fn check_group(group: &str) -> Result<()> {
    names::check_group(group).map_err(|error| Error::config(error.to_string()).caused_by(error))
}
