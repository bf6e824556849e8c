//! How far groups are, as tools ask for it, and how tools move them.
//!
//! Protocol source: `ResetOffsetRequestHeader`, `CloneGroupOffsetRequestHeader`, `QueryConsumeTimeSpanRequestHeader`,
//! `GetConsumeStatsInBrokerHeader`, `ViewBrokerStatsDataRequestHeader` and their like.

use crate::protocol::bodies::{
    BrokerConsumeStats, BrokerStatsData, ConsumeTimeSpans, ConsumerStatus, OffsetTable,
};
use crate::protocol::request::requests;
use crate::protocol::{Done, Json};

requests! {
    /// Moves a group to the offsets of a time, or one queue of it to an offset. 5.x keeps the new offsets itself;
    /// 4.9 tells the members, and answers `CONSUMER_NOT_ONLINE` (206) where there is none.
    pub struct ResetOffset = INVOKE_BROKER_TO_RESET_OFFSET => Json<OffsetTable> {
        /// The topic.
        pub topic: String,
        /// The group.
        pub group: String,
        /// Milliseconds since 1970; negative means the end of the queue.
        pub timestamp: i64,
        /// Whether offsets may go forward too. 5.x does not ask.
        #[serde(rename = "isForce")]
        pub force: bool,
        /// The queue; absent or negative means all. 5.x.
        pub queue_id: Option<i32>,
        /// The offset, where a queue is given; absent or -1 means that of the time. 5.x.
        pub offset: Option<i64>,
    }

    /// The offsets that the members of a group have, as they say themselves.
    pub struct ConsumerStatusOfGroup = INVOKE_BROKER_TO_GET_CONSUMER_STATUS => Json<ConsumerStatus> {
        /// The topic.
        pub topic: String,
        /// The group.
        pub group: String,
        /// The member; absent or empty means all.
        pub client_addr: Option<String>,
    }

    /// Gives one group the offsets of another.
    pub struct CloneGroupOffset = CLONE_GROUP_OFFSET => Done {
        /// The group whose offsets are taken.
        pub src_group: String,
        /// The group that gets them.
        pub dest_group: String,
        /// The topic; absent means all.
        pub topic: Option<String>,
        /// Whether topics count that the group's members do not subscribe now.
        pub offline: bool,
    }

    /// From when to when messages of each queue were stored, and how late a group is.
    pub struct ConsumeTimeSpan = QUERY_CONSUME_TIME_SPAN => Json<ConsumeTimeSpans> {
        /// The topic.
        pub topic: String,
        /// The group.
        pub group: String,
    }

    /// How far all groups of a broker are.
    pub struct AllConsumeStats = GET_BROKER_CONSUME_STATS => Json<BrokerConsumeStats> {
        /// Whether only topics with a fixed order count.
        #[serde(rename = "isOrder")]
        pub order: bool,
    }

    /// What a broker has counted. `SYSTEM_ERROR` (1) where it counted nothing under this name and key.
    pub struct ViewBrokerStats = VIEW_BROKER_STATS_DATA => Json<BrokerStatsData> {
        /// What is counted, for instance `TOPIC_PUT_NUMS`.
        pub stats_name: String,
        /// Of what, for instance a topic.
        pub stats_key: String,
    }

    /// Removes consume queues whose messages are gone.
    pub struct CleanExpiredConsumeQueues = CLEAN_EXPIRED_CONSUMEQUEUE => Done {}

    /// Removes what is left of topics that are not there any more.
    pub struct CleanUnusedTopics = CLEAN_UNUSED_TOPIC => Done {}

    /// Removes files of the log that are past their time.
    pub struct DeleteExpiredCommitLogs = DELETE_EXPIRED_COMMITLOG => Done {}
}
