//! What tools are told: who produces, how late groups are, what a broker has counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConsumeStats, MessageQueue, SubscriptionData};

/// A producer that is connected. Java: `ProducerInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    /// The client.
    pub client_id: String,
    /// The client's language.
    pub language: String,
    /// When it last said that it is there: milliseconds since 1970.
    pub last_update_timestamp: i64,
    /// `ip:port` as the broker sees it.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// The client's version.
    pub version: i32,
}

/// Java: `ProducerTableInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTable {
    /// Producers by group.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// From when to when messages of a queue were stored, and how late a group is. Java: `QueueTimeSpan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueTimeSpan {
    /// The queue.
    pub message_queue: MessageQueue,
    /// When its oldest message was stored: milliseconds since 1970, -1 if there is none.
    #[serde(default)]
    pub min_time_stamp: i64,
    /// When its newest message was stored: milliseconds since 1970, -1 if there is none.
    #[serde(default)]
    pub max_time_stamp: i64,
    /// When the last message was stored that the group consumed; the oldest one's time if it consumed none.
    #[serde(default)]
    pub consume_time_stamp: i64,
    /// For how long the next message of the group has been waiting, in milliseconds; 0 if it has them all, and since
    /// 1970 if it has committed nothing of the queue.
    #[serde(default)]
    pub delay_time: i64,
}

/// Java: `QueryConsumeTimeSpanBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpans {
    /// One for each queue.
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// An entry of a consume queue. Java: `ConsumeQueueData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueEntry {
    /// The position of the message in the broker's log.
    pub physic_offset: i64,
    /// Its size there, in bytes.
    pub physic_size: i32,
    /// The hash of its tag.
    pub tags_code: i64,
    /// What else the entry says, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_data_json: Option<String>,
    /// The bits of the filters that it matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit_map: Option<String>,
    /// Whether the filter of the group that was asked for matches.
    pub eval: bool,
    /// The message, or why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
}

/// Java: `QueryConsumeQueueResponseBody`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueuePage {
    /// What the group that was asked for wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// Its filter as JSON, or why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    /// The entries.
    pub queue_data: Vec<ConsumeQueueEntry>,
    /// One past the newest entry.
    pub max_queue_index: i64,
    /// The oldest entry.
    pub min_queue_index: i64,
}

/// A count over some time. Java: `BrokerStatsItem`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatsItem {
    /// How much in all.
    pub sum: i64,
    /// How much per second.
    pub tps: f64,
    /// How much at a time.
    pub avgpt: f64,
}

/// Java: `BrokerStatsData`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatsData {
    /// In the last minute.
    pub stats_minute: BrokerStatsItem,
    /// In the last hour.
    pub stats_hour: BrokerStatsItem,
    /// In the last day.
    pub stats_day: BrokerStatsItem,
}

/// Java: `ConsumeStatsList`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerConsumeStats {
    /// The broker's address.
    pub broker_addr: String,
    /// For each group one map from its name to the statistics of its topics.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    /// How many messages all groups are behind together.
    pub total_diff: i64,
    /// How many messages members hold that they have not committed.
    pub total_inflight_diff: i64,
}

/// Whether a group may read a topic. Java: `GroupForbidden`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupForbidden {
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether it may.
    pub readable: Option<bool>,
    /// Java's own spelling; nothing sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writeable: Option<bool>,
}

/// Java: `QuerySubscriptionResponseBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSubscription {
    /// What the members want; absent if none of them wants the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
}

/// How the members of a group get messages of a topic. Java: `SetMessageRequestModeRequestBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageRequestMode {
    /// The topic.
    pub topic: String,
    /// The group.
    pub consumer_group: String,
    /// `PULL` or `POP`.
    pub mode: String,
    /// How many queues each member shares when they pop; 0 or less means all.
    pub pop_share_queue_num: i32,
}

/// State of a queue that a member pulls. Java: `ProcessQueueInfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessQueueInfo {
    /// How many messages it holds.
    pub cached_msg_count: i32,
    /// The newest one's offset.
    pub cached_msg_max_offset: i64,
    /// The oldest one's offset.
    pub cached_msg_min_offset: i64,
    /// Their size, in MiB.
    #[serde(rename = "cachedMsgSizeInMiB")]
    pub cached_msg_size_in_mib: i32,
    /// The committed offset.
    pub commit_offset: i64,
    /// Whether the queue was taken away.
    pub droped: bool,
    /// When a message was last consumed: milliseconds since 1970.
    pub last_consume_timestamp: i64,
    /// When the queue was last locked: milliseconds since 1970.
    pub last_lock_timestamp: i64,
    /// When the queue was last pulled: milliseconds since 1970.
    pub last_pull_timestamp: i64,
    /// Whether the queue is locked on the broker.
    pub locked: bool,
    /// How many messages an ordered consumer has in work.
    pub transaction_msg_count: i32,
    /// The newest one's offset.
    pub transaction_msg_max_offset: i64,
    /// The oldest one's offset.
    pub transaction_msg_min_offset: i64,
    /// How often it was tried to unlock the queue.
    pub try_unlock_times: i64,
}

/// State of a queue that a member pops. Java: `PopProcessQueueInfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PopProcessQueueInfo {
    /// Whether the queue was taken away.
    pub droped: bool,
    /// When the queue was last popped: milliseconds since 1970.
    pub last_pop_timestamp: i64,
    /// How many messages wait for an acknowledgement.
    pub wait_ack_count: i32,
}

/// Rates of a topic at one member. Java: `ConsumeStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStatus {
    /// How many messages failed in the last hour.
    pub consume_failed_msgs: i64,
    /// How many fail per second.
    #[serde(rename = "consumeFailedTPS")]
    pub consume_failed_tps: f64,
    /// How many succeed per second.
    #[serde(rename = "consumeOKTPS")]
    pub consume_ok_tps: f64,
    /// How long a message takes, in milliseconds.
    #[serde(rename = "consumeRT")]
    pub consume_rt: f64,
    /// How long a pull takes, in milliseconds.
    #[serde(rename = "pullRT")]
    pub pull_rt: f64,
    /// How many messages are pulled per second.
    #[serde(rename = "pullTPS")]
    pub pull_tps: f64,
}
