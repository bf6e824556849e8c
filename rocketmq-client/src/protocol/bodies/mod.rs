//! JSON bodies of requests and responses.
//!
//! Field names and shapes are those of the Java classes named at each type; members that a peer leaves out have
//! Java's defaults, members that this crate does not know are ignored.

mod cluster;
mod config;
mod heartbeat;
pub mod loose;
mod queue;
mod route;
mod stats;

pub use cluster::{ClusterInfo, KvTable, TopicList};
pub use config::{
    DataVersion, SubscriptionGroupConfig, SubscriptionGroupTable, TopicConfig, TopicConfigTable,
    TopicFilterType,
};
pub use heartbeat::{
    Connection, ConsumeFrom, ConsumeType, ConsumerConnection, ConsumerData, ConsumerList,
    ConsumerRunningInfo, GroupList, HeartbeatData, MessageModel, ProducerConnection, ProducerData,
    SubscriptionData,
};
pub use queue::{LockBatch, LockedQueues, MessageQueue, QueueMap};
pub use route::{BrokerData, MASTER_ID, QueueData, TopicRouteData, permission};
pub use stats::{
    ConsumeDirectlyResult, ConsumeStats, ConsumerStatus, OffsetTable, OffsetWrapper, TopicOffset,
    TopicStatsTable,
};

macro_rules! json_bodies {
    ($($name:ident),* $(,)?) => {
        $(impl super::request::JsonBody for $name {
            const NAME: &'static str = stringify!($name);
        })*
    };
}

json_bodies! {
    ClusterInfo, KvTable, TopicList, DataVersion, SubscriptionGroupConfig, SubscriptionGroupTable, TopicConfig,
    TopicConfigTable, ConsumerConnection, ConsumerList, ConsumerRunningInfo, GroupList, HeartbeatData,
    ProducerConnection, LockBatch, LockedQueues, TopicRouteData, ConsumeDirectlyResult, ConsumeStats, ConsumerStatus,
    OffsetTable, TopicStatsTable,
}

#[cfg(test)]
mod tests;
