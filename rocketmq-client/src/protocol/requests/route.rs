//! Name servers: routes, brokers, key-value configuration.
//!
//! Protocol source: `GetRouteInfoRequestHeader`, `RegisterBrokerRequestHeader`, the `*KVConfigRequestHeader` classes.

use bytes::Bytes;

use crate::protocol::bodies::{ClusterInfo, KvTable, TopicList, TopicRouteData};
use crate::protocol::request::{Response, ResponseError, expect_success, requests, responses};
use crate::protocol::{CodecError, Done, Frame, Json, ResponseCode};

requests! {
    /// Where the queues of a topic are. `TOPIC_NOT_EXIST` (17) when no broker has it.
    pub struct RouteInfo = GET_ROUTEINFO_BY_TOPIC => Json<TopicRouteData> {
        /// The topic.
        pub topic: String,
        /// Whether keys must be quoted; name servers do so anyway for versions from 401 (4.9.4) on.
        pub accept_standard_json_only: Option<bool>,
    }

    /// The brokers of all clusters.
    pub struct BrokerClusterInfo = GET_BROKER_CLUSTER_INFO => Json<ClusterInfo> {}

    /// All topics of all brokers.
    pub struct AllTopics = GET_ALL_TOPIC_LIST_FROM_NAMESERVER => Json<TopicList> {}

    /// All topics of one cluster.
    pub struct TopicsByCluster = GET_TOPICS_BY_CLUSTER => Json<TopicList> {
        /// The cluster.
        pub cluster: String,
    }

    /// The names that routes use themselves: those of clusters and brokers.
    pub struct SystemTopicsOfNameServer = GET_SYSTEM_TOPIC_LIST_FROM_NS => Json<TopicList> {}

    /// Topics of units.
    pub struct UnitTopics = GET_UNIT_TOPIC_LIST => Json<TopicList> {}

    /// Topics to which units subscribe.
    pub struct UnitSubscribedTopics = GET_HAS_UNIT_SUB_TOPIC_LIST => Json<TopicList> {}

    /// Topics to which units subscribe and which are no unit's.
    pub struct UnitSubscribedForeignTopics = GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => Json<TopicList> {}

    /// Takes the write permission from all topics of a broker, in the routes of this name server.
    pub struct WipeWritePermission = WIPE_WRITE_PERM_OF_BROKER => WipedTopics {
        /// The broker's name.
        pub broker_name: String,
    }

    /// Gives the write permission back.
    pub struct AddWritePermission = ADD_WRITE_PERM_OF_BROKER => AddedTopics {
        /// The broker's name.
        pub broker_name: String,
    }

    /// How a name server is configured.
    pub struct NameServerConfig = GET_NAMESRV_CONFIG => ConfigText {}

    /// Changes the configuration of a name server. Body: lines of `key=value`.
    pub struct UpdateNameServerConfig = UPDATE_NAMESRV_CONFIG, body => Done {}

    /// Forgets a topic.
    pub struct DeleteTopicInNameServer = DELETE_TOPIC_IN_NAMESRV => Done {
        /// The topic.
        pub topic: String,
        /// The cluster; absent means all.
        pub cluster_name: Option<String>,
    }

    /// A broker says that it is there. Body: its topics, as JSON or compressed.
    pub struct RegisterBroker = REGISTER_BROKER, body => RegisterBrokerResult {
        /// The broker's name.
        pub broker_name: String,
        /// `host:port` of the broker.
        pub broker_addr: String,
        /// The cluster.
        pub cluster_name: String,
        /// `host:port` for replication.
        pub ha_server_addr: String,
        /// 0 for a master.
        pub broker_id: i64,
        /// After how long a silence the broker counts as gone, in milliseconds. 5.x.
        pub heartbeat_timeout_millis: Option<i64>,
        /// Whether a slave may stand in for its master. 5.x.
        pub enable_acting_master: Option<bool>,
        /// Whether the body is compressed.
        pub compressed: Option<bool>,
        /// The checksum of the body; 0 is not checked.
        pub body_crc32: Option<i32>,
    }

    /// A broker says that it goes.
    pub struct UnregisterBroker = UNREGISTER_BROKER => Done {
        /// The broker's name.
        pub broker_name: String,
        /// `host:port` of the broker.
        pub broker_addr: String,
        /// The cluster.
        pub cluster_name: String,
        /// 0 for a master.
        pub broker_id: i64,
    }

    /// Sets a value.
    pub struct PutKvConfig = PUT_KV_CONFIG => Done {
        /// The namespace.
        pub namespace: String,
        /// The key.
        pub key: String,
        /// The value.
        pub value: String,
    }

    /// A value. `QUERY_NOT_FOUND` (22) when there is none.
    pub struct KvConfig = GET_KV_CONFIG => KvValue {
        /// The namespace.
        pub namespace: String,
        /// The key.
        pub key: String,
    }

    /// Removes a value.
    pub struct DeleteKvConfig = DELETE_KV_CONFIG => Done {
        /// The namespace.
        pub namespace: String,
        /// The key.
        pub key: String,
    }

    /// All values of a namespace. `QUERY_NOT_FOUND` (22) when there is no such namespace.
    pub struct KvList = GET_KVLIST_BY_NAMESPACE => Json<KvTable> {
        /// The namespace.
        pub namespace: String,
    }
}

responses! {
    /// How many topics lost the permission.
    pub struct WipedTopics {
        /// The number.
        pub wipe_topic_count: i32,
    }

    /// How many topics were given the permission.
    pub struct AddedTopics {
        /// The number.
        pub add_topic_count: i32,
    }

    /// A value.
    pub struct KvValue {
        /// The value.
        pub value: Option<String>,
    }

    /// What a broker learns when it registers.
    pub struct RegisterBrokerResult {
        /// `host:port` for replication of the master.
        pub ha_server_addr: Option<String>,
        /// `host:port` of the master.
        pub master_addr: Option<String>,
    }
}

/// Lines of `key=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigText(pub Bytes);

impl Response for ConfigText {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        Ok(Self(frame.body))
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            body: self.0,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}
