//! Offsets, as tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::QueueMap;

/// Java: `TopicOffset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// When the newest message was stored: milliseconds since 1970, 0 if there is none.
    pub last_update_timestamp: i64,
    /// One past the newest message.
    pub max_offset: i64,
    /// The oldest message.
    pub min_offset: i64,
}

/// Java: `TopicStatsTable`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    /// Offsets of each queue.
    pub offset_table: QueueMap<TopicOffset>,
    /// Messages stored per second. 5.x.
    pub topic_put_tps: f64,
}

/// Java: `OffsetWrapper`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetWrapper {
    /// One past the newest message.
    pub broker_offset: i64,
    /// Where the group has got to.
    pub consumer_offset: i64,
    /// When the last consumed message was stored: milliseconds since 1970.
    pub last_timestamp: i64,
    /// Where the group's pulls have got to. 5.x.
    pub pull_offset: i64,
}

/// Java: `ConsumeStats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Messages consumed per second.
    pub consume_tps: f64,
    /// Offsets of each queue.
    pub offset_table: QueueMap<OffsetWrapper>,
}

/// Java: `ResetOffsetBody`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetTable {
    /// The offset of each queue.
    pub offset_table: QueueMap<i64>,
}

/// Java: `GetConsumerStatusBody`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatus {
    /// The offset of each queue that a member owns.
    pub message_queue_table: QueueMap<i64>,
    /// The same by member.
    pub consumer_table: BTreeMap<String, QueueMap<i64>>,
}

/// Java: `ConsumeMessageDirectlyResult`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeDirectlyResult {
    /// Whether the consumer is an orderly one.
    pub order: bool,
    /// Whether offsets are committed by themselves.
    pub auto_commit: bool,
    /// `CR_SUCCESS`, `CR_LATER`, `CR_ROLLBACK`, `CR_COMMIT`, `CR_THROW_EXCEPTION` or `CR_RETURN_NULL`.
    pub consume_result: String,
    /// Text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// How long it took, in milliseconds.
    pub spent_time_mills: i64,
}
