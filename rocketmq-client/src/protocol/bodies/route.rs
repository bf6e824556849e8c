//! Where the queues of a topic are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The broker id of a master; slaves have others.
pub const MASTER_ID: i64 = 0;

/// What may be done with a topic on a broker, as bits. Java: `PermName`.
pub mod permission {
    /// The queues can be read.
    pub const READ: i32 = 4;
    /// The queues can be written.
    pub const WRITE: i32 = 2;
    /// The topic can be the template of topics created by a send.
    pub const INHERIT: i32 = 1;
}

/// Java: `TopicRouteData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// The brokers that have the topic.
    pub broker_datas: Vec<BrokerData>,
    /// Obsolete; Java clients expect it.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker:queues;broker:queues` for topics with a fixed order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// The queues on each broker.
    pub queue_datas: Vec<QueueData>,
}

impl TopicRouteData {
    /// Puts brokers and queues in the order of their names, so that equal routes compare equal.
    pub fn sort(&mut self) {
        self.broker_datas
            .sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
        self.queue_datas.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
    }
}

/// Java: `BrokerData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Broker id to `host:port`; [`MASTER_ID`] is the master.
    pub broker_addrs: BTreeMap<i64, String>,
    /// The name that master and slaves share.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
    /// Whether a slave may stand in for its master.
    pub enable_acting_master: bool,
}

/// Java: `QueueData`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// The broker.
    pub broker_name: String,
    /// See [`permission`].
    pub perm: i32,
    /// How many queues can be read.
    pub read_queue_nums: i32,
    /// Bits 0 and 1 mark unit topics.
    pub topic_sys_flag: i32,
    /// How many queues can be written.
    pub write_queue_nums: i32,
}
