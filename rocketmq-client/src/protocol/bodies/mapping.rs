//! Static topics: queues with global numbers that stay when brokers come and go. 5.x.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TopicConfig;

/// Where a part of a global queue is. Java: `LogicQueueMappingItem`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueMappingItem {
    /// Counts the moves of the queue.
    #[serde(rename = "gen")]
    pub generation: i32,
    /// The queue on the broker.
    pub queue_id: i32,
    /// The broker.
    pub bname: String,
    /// The global offset at which the part starts.
    pub logic_offset: i64,
    /// The broker's offset at which the part starts.
    pub start_offset: i64,
    /// The broker's offset before which the part ends; -1 for the last part.
    pub end_offset: i64,
    /// When the part started: milliseconds since 1970, -1 if that is not known.
    pub time_of_start: i64,
    /// When the part ended: milliseconds since 1970, -1 if it has not.
    pub time_of_end: i64,
}

/// Java: `TopicQueueMappingDetail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMapping {
    /// The topic.
    pub topic: String,
    /// `__global__` unless several clusters have a numbering each.
    pub scope: String,
    /// How many global queues the topic has on all brokers.
    pub total_queues: i32,
    /// The broker that says so.
    pub bname: String,
    /// Which state of the mapping this is.
    pub epoch: i64,
    /// Whether the mapping is not in use any more.
    pub dirty: bool,
    /// The parts of each global queue whose last part is on this broker.
    pub hosted_queues: BTreeMap<i32, Vec<QueueMappingItem>>,
}

/// Java: `TopicConfigAndQueueMapping`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigAndMapping {
    /// The topic as the broker has it.
    #[serde(flatten)]
    pub config: TopicConfig,
    /// The global queues, if the topic has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_detail: Option<TopicQueueMapping>,
}
