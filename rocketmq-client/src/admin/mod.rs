//! What operators do: topics, groups, offsets, messages, brokers, name servers and permissions, with typed results.
//!
//! [`Client::admin`] makes an [`Admin`]. It works on every broker of the cluster, as `mqadmin` does; [`in_cluster`] and
//! [`at_broker`] narrow that down. Where several brokers are asked, one that fails hides nothing of the others and is
//! not hidden by them: see [`PerBroker`] and [`Merged`]. A request that a broker is too old for fails with
//! [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) and the broker's version.
//!
//! Protocol source: `DefaultMQAdminExtImpl`, `MQAdminImpl`. Which of Java's calls is which one here says
//! [`docs::java_admin`](crate::docs::java_admin).
//!
//! ```
//! # use rocketmq_embedded_broker::EmbeddedBroker;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = EmbeddedBroker::start().await?;
//! use rocketmq_client::admin::TopicConfig;
//! use rocketmq_client::{Client, Message};
//!
//! let client = Client::connect(broker.name_server()).await?;
//! let admin = client.admin();
//!
//! admin.create_topic(&TopicConfig::new("orders", 4)).await?;
//! let producer = client.producer("orders-svc").start().await?;
//! producer.send(Message::new("orders", "42 apples").key("order-42")).await?;
//!
//! let stats = admin.topic_stats("orders").await?;
//! assert_eq!(stats.offset_table.values().map(|queue| queue.max_offset).sum::<i64>(), 1);
//! let found = admin.query_by_key("orders", "order-42", Default::default()).await?;
//! assert_eq!(&found[0].body()[..], b"42 apples");
//! # client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`in_cluster`]: Admin::in_cluster
//! [`at_broker`]: Admin::at_broker

mod acl;
mod brokers;
mod export;
mod fan_out;
mod groups;
mod kv;
mod members;
mod offsets;
mod order;
mod queries;
mod reach;
mod reset;
mod runtime;
mod topics;
mod tracks;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use export::{BrokerMetadata, Metadata};
pub use fan_out::{Merged, PartialFailure, PerBroker};
pub use queries::{KeyQuery, TimeRange};
pub use reset::ResetTo;
pub use runtime::BrokerRuntime;
pub use topics::TopicStats;
pub use tracks::{MessageTrack, TrackState};

pub use crate::protocol::bodies::{
    Account, AclEntry, AclInfo, AclOfBroker, AclPolicy, BrokerConsumeStats, BrokerData, BrokerStatsData,
    BrokerStatsItem, ClusterInfo, Connection, ConsumeDirectlyResult, ConsumeQueueEntry, ConsumeQueuePage,
    ConsumeStats, ConsumerConnection, ConsumerRunningInfo, MessageRequestMode, OffsetWrapper,
    ProcessQueueInfo, ProducerConnection, ProducerInfo, QueueData, QueueTimeSpan, Secret, SubscriptionData,
    SubscriptionGroupConfig, TopicConfig, TopicFilterType, TopicOffset, TopicQueueMapping, TopicRouteData,
    UserInfo, permission,
};

use crate::cluster::Client;

/// How long a request may take unless told otherwise. Java: `DefaultMQAdminExt`'s `timeoutMillis`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Administration of a cluster. Cloning is cheap.
#[derive(Clone)]
pub struct Admin {
    client: Client,
    scope: Scope,
    timeout: Duration,
}

/// Which brokers an [`Admin`] works on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Cluster(Arc<str>),
    Broker(Arc<str>),
    Address(Arc<str>),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("any cluster"),
            Self::Cluster(name) => write!(f, "cluster {name}"),
            Self::Broker(name) => write!(f, "the name {name}"),
            Self::Address(address) => write!(f, "the address {address}"),
        }
    }
}

impl Client {
    /// Administration of this cluster, with this client's connections and identity.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin {
            client: self.clone(),
            scope: Scope::All,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl Admin {
    /// The same for the brokers of one cluster, where the name servers know several.
    #[must_use]
    pub fn in_cluster(&self, cluster: impl Into<Arc<str>>) -> Self {
        self.in_scope(Scope::Cluster(cluster.into()))
    }

    /// The same for one broker: the name that master and slaves share, or the `host:port` of one of them.
    #[must_use]
    pub fn at_broker(&self, broker: impl Into<Arc<str>>) -> Self {
        let broker = broker.into();
        match broker.contains(':') {
            true => self.in_scope(Scope::Address(broker)),
            false => self.in_scope(Scope::Broker(broker)),
        }
    }

    /// The same with another limit for each request. Default 5 s. Java: `timeoutMillis`.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    fn in_scope(&self, scope: Scope) -> Self {
        Self {
            scope,
            ..self.clone()
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("client_id", &self.client.client_id())
            .field("scope", &self.scope)
            .field("timeout", &self.timeout)
            .finish()
    }
}
