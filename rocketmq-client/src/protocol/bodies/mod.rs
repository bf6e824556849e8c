//! JSON bodies of requests and responses.
//!
//! Field names and shapes are those of the Java classes named at each type; members that a peer leaves out have
//! Java's defaults, members that this crate does not know are ignored.

mod acl;
mod cluster;
mod config;
mod heartbeat;
mod inspect;
pub mod loose;
mod mapping;
mod pop;
mod queue;
mod route;
mod stats;

pub use acl::{Account, AclEntry, AclInfo, AclOfBroker, AclPolicy, Secret, UserInfo};
pub use cluster::{ClusterInfo, KvTable, TopicList};
pub use config::{
    DataVersion, GroupConfigList, SubscriptionGroupConfig, SubscriptionGroupTable, TopicConfig,
    TopicConfigList, TopicConfigTable, TopicFilterType,
};
pub use heartbeat::{
    Connection, ConsumeFrom, ConsumeType, ConsumerConnection, ConsumerData, ConsumerList,
    ConsumerRunningInfo, GroupList, HeartbeatData, MessageModel, ProducerConnection, ProducerData,
    SubscriptionData,
};
pub use inspect::{
    BrokerConsumeStats, BrokerStatsData, BrokerStatsItem, ConsumeQueueEntry, ConsumeQueuePage, ConsumeStatus,
    ConsumeTimeSpans, GroupForbidden, GroupSubscription, MessageRequestMode, PopProcessQueueInfo,
    ProcessQueueInfo, ProducerInfo, ProducerTable, QueueTimeSpan,
};
pub use mapping::{QueueMappingItem, TopicConfigAndMapping, TopicQueueMapping};
pub use pop::{AssignmentQuery, Assignments, BatchAck, BatchAcks, OffsetBits, QueueAssignment, RequestMode};
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
    OffsetTable, TopicStatsTable, AclInfo, AclOfBroker, UserInfo, BrokerConsumeStats, BrokerStatsData, ConsumeQueuePage,
    ConsumeTimeSpans, GroupConfigList, GroupForbidden, GroupSubscription, MessageRequestMode,
    ProducerTable, TopicConfigAndMapping, TopicConfigList, AssignmentQuery, Assignments, BatchAcks,
}

impl super::request::JsonBody for Vec<UserInfo> {
    const NAME: &'static str = "list of UserInfo";
}

impl super::request::JsonBody for Vec<AclInfo> {
    const NAME: &'static str = "list of AclInfo";
}

#[cfg(test)]
mod tests;
