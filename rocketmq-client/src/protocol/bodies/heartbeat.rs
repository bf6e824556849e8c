//! Who is there: heartbeats, members, connections.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::java_hash;

/// Java: `HeartbeatData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// The client; unique in the cluster.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The consumer groups of the client.
    pub consumer_data_set: Vec<ConsumerData>,
    /// 0 unless the client leaves out what the broker knows already. 5.x.
    pub heartbeat_fingerprint: i32,
    /// The producer groups of the client.
    pub producer_data_set: Vec<ProducerData>,
    /// Whether subscriptions are left out. 5.x.
    pub without_sub: bool,
}

/// Java: `ProducerData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// The group.
    pub group_name: String,
}

/// Java: `ConsumerData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// Where a group without offsets starts.
    pub consume_from_where: ConsumeFrom,
    /// Who drives.
    pub consume_type: ConsumeType,
    /// The group.
    pub group_name: String,
    /// Shared or everything to everybody.
    pub message_model: MessageModel,
    /// What the group wants.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Whether the group is a unit's.
    pub unit_mode: bool,
}

/// Java: `ConsumeFromWhere`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConsumeFrom {
    /// Behind the newest message; a young topic is read from its start all the same.
    #[default]
    #[serde(
        rename = "CONSUME_FROM_LAST_OFFSET",
        alias = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        alias = "CONSUME_FROM_MAX_OFFSET"
    )]
    Last,
    /// At the oldest message.
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET", alias = "CONSUME_FROM_MIN_OFFSET")]
    First,
    /// At the first message stored at a given time or later.
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
}

/// Java: `ConsumeType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumeType {
    /// The user pulls.
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    /// The client pushes to the user.
    #[default]
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    /// The broker hands out messages one by one. 5.x.
    #[serde(rename = "CONSUME_POP")]
    Pop,
}

/// Java: `MessageModel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageModel {
    /// Every member gets every message.
    Broadcasting,
    /// The members share the messages.
    #[default]
    Clustering,
}

/// What a group wants of a topic. Java: `SubscriptionData`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Obsolete.
    pub class_filter_mode: bool,
    /// [`java_hash`] of each tag: what the broker compares.
    pub code_set: BTreeSet<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// The expression; `*` for everything.
    pub sub_string: String,
    /// When the subscription was made: milliseconds since 1970. A newer one replaces an older one.
    pub sub_version: i64,
    /// The tags: what the client compares, because different tags may have one hash.
    pub tags_set: BTreeSet<String>,
    /// The topic.
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            code_set: BTreeSet::new(),
            expression_type: Self::TAG.to_owned(),
            sub_string: Self::ALL.to_owned(),
            sub_version: 0,
            tags_set: BTreeSet::new(),
            topic: String::new(),
        }
    }
}

impl SubscriptionData {
    /// The expression for everything.
    pub const ALL: &'static str = "*";
    /// The expression type of tags.
    pub const TAG: &'static str = "TAG";
    /// The expression type of SQL filters.
    pub const SQL92: &'static str = "SQL92";

    /// A subscription by tags: `*`, nothing, or tags separated by `||`. Java: `FilterAPI#buildSubscriptionData`.
    #[must_use]
    pub fn by_tags(topic: &str, expression: &str, sub_version: i64) -> Self {
        let mut subscription = Self {
            sub_version,
            topic: topic.to_owned(),
            ..Self::default()
        };
        let expression = expression.trim();
        if expression.is_empty() || expression == Self::ALL {
            return subscription;
        }
        subscription.sub_string = expression.to_owned();
        for tag in expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
        {
            subscription.tags_set.insert(tag.to_owned());
            subscription.code_set.insert(java_hash(tag));
        }
        subscription
    }

    /// Whether a message with this tag is wanted, by its text.
    #[must_use]
    pub fn matches_tag(&self, tag: Option<&str>) -> bool {
        self.tags_set.is_empty() || tag.is_some_and(|tag| self.tags_set.contains(tag))
    }

    /// Whether a message whose tag has this hash may be wanted.
    #[must_use]
    pub fn matches_code(&self, code: i64) -> bool {
        self.code_set.is_empty() || i32::try_from(code).is_ok_and(|code| self.code_set.contains(&code))
    }
}

/// Java: `GetConsumerListByGroupResponseBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// The members of the group.
    pub consumer_id_list: Vec<String>,
}

/// Java: `GroupList`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// The groups.
    pub group_list: BTreeSet<String>,
}

/// Java: `Connection`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// `ip:port` as the broker sees it.
    pub client_addr: String,
    /// The client.
    pub client_id: String,
    /// The client's language.
    pub language: String,
    /// The client's version.
    pub version: i32,
}

/// Java: `ConsumerConnection`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// The members.
    pub connection_set: BTreeSet<Connection>,
    /// Where a group without offsets starts.
    pub consume_from_where: ConsumeFrom,
    /// Who drives.
    pub consume_type: ConsumeType,
    /// Shared or everything to everybody.
    pub message_model: MessageModel,
    /// Subscriptions by topic.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Java: `ProducerConnection`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// The members.
    pub connection_set: BTreeSet<Connection>,
}

/// What a live consumer says of itself. Java: `ConsumerRunningInfo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerRunningInfo {
    /// Settings and facts, by Java's property names.
    pub properties: BTreeMap<String, String>,
    /// Subscriptions.
    pub subscription_set: Vec<SubscriptionData>,
    /// State of each queue that the consumer owns.
    pub mq_table: super::QueueMap<super::ProcessQueueInfo>,
    /// State of each queue that is consumed by POP. 5.x.
    pub mq_pop_table: super::QueueMap<super::PopProcessQueueInfo>,
    /// Rates by topic.
    pub status_table: BTreeMap<String, super::ConsumeStatus>,
    /// What the user's own code adds. 5.x.
    pub user_consumer_info: BTreeMap<String, String>,
    /// The stacks of its threads, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jstack: Option<String>,
}
