//! Topics, groups and what is known of them.
//!
//! Protocol source: `CreateTopicRequestHeader`, `DeleteTopicRequestHeader`, `GetTopicStatsInfoRequestHeader`,
//! `GetConsumeStatsRequestHeader` and their like.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::bodies::{
    ConsumeStats, ConsumerConnection, GroupForbidden, GroupList, GroupSubscription, KvTable,
    ProducerConnection, ProducerTable, SubscriptionGroupConfig, SubscriptionGroupTable,
    TopicConfigAndMapping, TopicConfigTable, TopicFilterType, TopicList, TopicStatsTable,
};
use crate::protocol::request::{Response, ResponseError, expect_success, requests};
use crate::protocol::{CodecError, Done, Fields, Frame, Json, ResponseCode};

requests! {
    /// Creates or changes a topic on one broker.
    pub struct CreateTopic = UPDATE_AND_CREATE_TOPIC => Done {
        /// The topic.
        pub topic: String,
        /// The topic that is the template.
        pub default_topic: String,
        /// How many queues can be read.
        pub read_queue_nums: i32,
        /// How many queues can be written.
        pub write_queue_nums: i32,
        /// See [`permission`](crate::protocol::bodies::permission).
        pub perm: i32,
        /// What tags are.
        pub topic_filter_type: TopicFilterType,
        /// Bits 0 and 1 mark unit topics.
        pub topic_sys_flag: Option<i32>,
        /// Whether the order of the topic's queues is fixed.
        pub order: bool,
        /// `+name=value,-name`. 5.x.
        pub attributes: Option<String>,
    }

    /// Creates or changes several topics on one broker. Body:
    /// [`TopicConfigList`](crate::protocol::bodies::TopicConfigList). 5.3.
    pub struct CreateTopics = UPDATE_AND_CREATE_TOPIC_LIST, body => Done {}

    /// Removes a topic and its messages from one broker.
    pub struct DeleteTopic = DELETE_TOPIC_IN_BROKER => Done {
        /// The topic.
        pub topic: String,
    }

    /// All topics of one broker.
    pub struct AllTopicConfig = GET_ALL_TOPIC_CONFIG => Json<TopicConfigTable> {}

    /// One topic of one broker. 5.x.
    pub struct GetTopicConfig = GET_TOPIC_CONFIG => Json<TopicConfigAndMapping> {
        /// The topic.
        pub topic: String,
        /// Whether the mapping of a static topic is wanted too; absent means yes.
        #[serde(rename = "lo")]
        pub with_mapping: Option<bool>,
    }

    /// The topics that every broker has, with those of this one.
    pub struct SystemTopicsOfBroker = GET_SYSTEM_TOPIC_LIST_FROM_BROKER => Json<TopicList> {}

    /// Offsets of all queues of a topic on one broker.
    pub struct TopicStats = GET_TOPIC_STATS_INFO => Json<TopicStatsTable> {
        /// The topic.
        pub topic: String,
    }

    /// Creates or changes a group on one broker. Body:
    /// [`SubscriptionGroupConfig`](crate::protocol::bodies::SubscriptionGroupConfig).
    pub struct CreateGroup = UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, body => Done {}

    /// Creates or changes several groups on one broker. Body:
    /// [`GroupConfigList`](crate::protocol::bodies::GroupConfigList). 5.3.
    pub struct CreateGroups = UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, body => Done {}

    /// All groups of one broker.
    pub struct AllGroupConfig = GET_ALL_SUBSCRIPTIONGROUP_CONFIG => Json<SubscriptionGroupTable> {}

    /// One group of one broker. 5.x.
    pub struct GetGroupConfig = GET_SUBSCRIPTIONGROUP_CONFIG => Json<SubscriptionGroupConfig> {
        /// The group.
        pub group: String,
    }

    /// Removes a group from one broker.
    pub struct DeleteGroup = DELETE_SUBSCRIPTIONGROUP => Done {
        /// The group.
        pub group_name: String,
        /// Whether its offsets go too. 5.x.
        pub clean_offset: Option<bool>,
        /// The same for 4.9.
        pub remove_offset: Option<bool>,
    }

    /// How far a group has got on one broker.
    pub struct GetConsumeStats = GET_CONSUME_STATS => Json<ConsumeStats> {
        /// The group.
        pub consumer_group: String,
        /// The topic; absent means all that the group consumes.
        pub topic: Option<String>,
    }

    /// The members of a group. `CONSUMER_NOT_ONLINE` (206) when there is none.
    pub struct ConsumerConnectionList = GET_CONSUMER_CONNECTION_LIST => Json<ConsumerConnection> {
        /// The group.
        pub consumer_group: String,
    }

    /// The members of a producer group. `SYSTEM_ERROR` (1) when there is none.
    pub struct ProducerConnectionList = GET_PRODUCER_CONNECTION_LIST => Json<ProducerConnection> {
        /// The group.
        pub producer_group: String,
    }

    /// The groups that consume a topic.
    pub struct TopicConsumeByWho = QUERY_TOPIC_CONSUME_BY_WHO => Json<GroupList> {
        /// The topic.
        pub topic: String,
    }

    /// The topics of which a group has committed anything. 5.x.
    pub struct TopicsByConsumer = QUERY_TOPICS_BY_CONSUMER => Json<TopicList> {
        /// The group.
        pub group: String,
    }

    /// What the members of a group want of a topic. 5.x.
    pub struct SubscriptionByConsumer = QUERY_SUBSCRIPTION_BY_CONSUMER => Json<GroupSubscription> {
        /// The group.
        pub group: String,
        /// The topic.
        pub topic: String,
    }

    /// All producers that are connected.
    pub struct AllProducers = GET_ALL_PRODUCER_INFO => Json<ProducerTable> {}

    /// Sets whether a group may read a topic, and says whether it may. 5.x.
    pub struct UpdateGroupForbidden = UPDATE_AND_GET_GROUP_FORBIDDEN => Json<GroupForbidden> {
        /// The group.
        pub group: String,
        /// The topic.
        pub topic: String,
        /// Whether it may; absent means that nothing changes.
        pub readable: Option<bool>,
    }

    /// Sets whether the members of a group pull or pop a topic. Body:
    /// [`MessageRequestMode`](crate::protocol::bodies::MessageRequestMode). 5.x.
    pub struct SetMessageRequestMode = SET_MESSAGE_REQUEST_MODE, body => Done {}

    /// Facts about a broker.
    pub struct BrokerRuntimeInfo = GET_BROKER_RUNTIME_INFO => Json<KvTable> {}

    /// How a broker is configured.
    pub struct BrokerConfig = GET_BROKER_CONFIG => BrokerConfigText {}

    /// Changes the configuration of a broker. Body: lines of `key=value`. `NO_PERMISSION` (16) for keys that cannot be
    /// changed.
    pub struct UpdateBrokerConfig = UPDATE_BROKER_CONFIG, body => Done {}
}

/// How a broker is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfigText {
    /// Which state of the configuration this is.
    pub header: BrokerConfigHeader,
    /// Lines of `key=value`.
    pub text: Bytes,
}

/// The header of [`BrokerConfigText`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerConfigHeader {
    /// A [`DataVersion`](crate::protocol::bodies::DataVersion) as JSON.
    pub version: String,
}

impl Response for BrokerConfigText {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        Ok(Self {
            header: frame.fields.header()?,
            text: frame.body,
        })
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            fields: Fields::from_header(&self.header)?,
            body: self.text,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}
