//! What can be set, with its defaults.

use rocketmq_client::protocol::BrokerVersion;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::access::{AccessStyle, User};
#[cfg(feature = "tls")]
use crate::server::TlsOptions;
use crate::state::LOCK_LIFE;

/// The default memory limit for messages, in bytes: 256 MiB.
pub const DEFAULT_MEMORY_LIMIT: usize = 256 * 1024 * 1024;
/// The default limit for the body of one message, in bytes: 4 MiB.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The default number of queues that a topic created by a send has at the most: 8.
pub const DEFAULT_QUEUES: i32 = 8;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) bind: IpAddr,
    pub(crate) port: u16,
    /// The broker's own port; absent means that it shares the name server's.
    pub(crate) broker_port: Option<u16>,
    /// Whether there is a second server two below the broker's port.
    pub(crate) vip_channel: bool,
    /// Whether there is a slave.
    pub(crate) slave: bool,
    /// Whether there is a topic for message trace.
    pub(crate) trace_topic: bool,
    pub(crate) broker_name: String,
    pub(crate) cluster_name: String,
    pub(crate) default_queues: i32,
    pub(crate) auto_create_topics: bool,
    pub(crate) auto_create_groups: bool,
    pub(crate) memory_limit: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) recall_messages: bool,
    pub(crate) version: BrokerVersion,
    pub(crate) reject_transactions: bool,
    pub(crate) transaction_timeout: Duration,
    pub(crate) transaction_check_interval: Duration,
    pub(crate) transaction_check_max: u32,
    pub(crate) store_replies: bool,
    pub(crate) queue_lock_life: Duration,
    /// How users are checked; absent means that everybody may do everything.
    pub(crate) access: Option<AccessStyle>,
    pub(crate) users: Vec<User>,
    #[cfg(feature = "tls")]
    pub(crate) tls: TlsOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            broker_port: None,
            vip_channel: false,
            slave: false,
            trace_topic: false,
            broker_name: "broker-a".to_owned(),
            cluster_name: "DefaultCluster".to_owned(),
            default_queues: DEFAULT_QUEUES,
            auto_create_topics: true,
            auto_create_groups: true,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            recall_messages: false,
            version: BrokerVersion::V5_5_0,
            reject_transactions: false,
            transaction_timeout: Duration::from_secs(6),
            transaction_check_interval: Duration::from_secs(30),
            transaction_check_max: 15,
            store_replies: true,
            queue_lock_life: LOCK_LIFE,
            access: None,
            users: Vec::new(),
            #[cfg(feature = "tls")]
            tls: TlsOptions::default(),
        }
    }
}
