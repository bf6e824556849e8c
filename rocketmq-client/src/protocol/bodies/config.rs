//! How topics and groups are configured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Java: `TopicFilterType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TopicFilterType {
    /// A message has one tag.
    #[default]
    SingleTag,
    /// A message has several tags.
    MultiTag,
}

/// Java: `TopicConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// `queue.type`, `message.type` and others. 5.x.
    pub attributes: BTreeMap<String, String>,
    /// Whether the order of the topic's queues is fixed.
    pub order: bool,
    /// See [`permission`](super::permission).
    pub perm: i32,
    /// How many queues can be read.
    pub read_queue_nums: i32,
    /// What tags are.
    pub topic_filter_type: TopicFilterType,
    /// The topic.
    pub topic_name: String,
    /// Bits 0 and 1 mark unit topics.
    pub topic_sys_flag: i32,
    /// How many queues can be written.
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: super::permission::READ | super::permission::WRITE,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

/// Java: `CreateTopicListRequestBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    /// The topics; their attributes are changes, as in `+message.type`.
    pub topic_config_list: Vec<TopicConfig>,
}

/// Java: `SubscriptionGroupList`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfigList {
    /// The groups; their attributes are changes, as in `+priority.factor`.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// Java: `DataVersion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Counts changes.
    pub counter: i64,
    /// Counts elections. 5.x.
    pub state_version: i64,
    /// When it last changed: milliseconds since 1970.
    pub timestamp: i64,
}

/// Java: `TopicConfigSerializeWrapper`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    /// Changes with each change of a topic.
    pub data_version: DataVersion,
    /// Topics by name.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}

/// Java: `SubscriptionGroupConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// Attributes. 5.x.
    pub attributes: BTreeMap<String, String>,
    /// The broker to read from.
    pub broker_id: i64,
    /// Whether members may consume everything each.
    pub consume_broadcast_enable: bool,
    /// Whether the group may consume.
    pub consume_enable: bool,
    /// Whether a new group may start at the oldest message.
    pub consume_from_min_enable: bool,
    /// Whether the group consumes in order. 5.x.
    pub consume_message_orderly: bool,
    /// Minutes after which a message counts as not consumed. 5.x.
    pub consume_timeout_minute: i32,
    /// The group.
    pub group_name: String,
    /// Bit 0 marks unit groups. 5.x.
    pub group_sys_flag: i32,
    /// Whether members hear of each other's coming and going at once.
    pub notify_consumer_ids_changed_enable: bool,
    /// How often a message is tried again before it is dead.
    pub retry_max_times: i32,
    /// How many queues the retry topic has.
    pub retry_queue_nums: i32,
    /// The broker that slow members read from.
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// Java: `SubscriptionGroupWrapper`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupTable {
    /// Changes with each change of a group.
    pub data_version: DataVersion,
    /// What is forbidden, as bits by group and topic; bit 2 is reading. 5.x.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Groups by name.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}
