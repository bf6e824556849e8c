//! Other brokers that have registered with the name server.
//!
//! A broker is gone when its connection closes or when it has been silent for as long as it announced. Topics that an
//! earlier registration named stay, because brokers also register single new topics.
//! Protocol source: `RouteInfoManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use rocketmq_client::protocol::bodies::{BrokerData, MASTER_ID, QueueData, TopicConfig};
use rocketmq_client::protocol::requests::{RegisterBroker, RegisterBrokerResult};
use tokio::time::Instant;

use crate::lock::lock;

/// How long a broker may be silent that does not say how long. Java: `DEFAULT_BROKER_CHANNEL_EXPIRED_TIME`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest silence that a broker can ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// How many broker names there may be.
const MAX_BROKERS: usize = 1024;
/// How many topics one broker may have.
const MAX_TOPICS: usize = 64 * 1024;

/// Brokers by name.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<BTreeMap<String, Registered>>);

#[derive(Debug, Default)]
struct Registered {
    cluster: String,
    enable_acting_master: bool,
    /// The master and its slaves, by broker id.
    instances: BTreeMap<i64, Instance>,
    topics: BTreeMap<String, TopicConfig>,
}

#[derive(Debug)]
struct Instance {
    address: String,
    ha_address: String,
    session: u64,
    expires: Instant,
}

/// Why a broker was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Registry {
    /// Takes a registration; `topics` are all of the broker's, or those that are new.
    pub(crate) fn register(
        &self,
        request: RegisterBroker,
        topics: BTreeMap<String, TopicConfig>,
        session: u64,
    ) -> Result<RegisterBrokerResult, TooMany> {
        let mut brokers = lock(&self.0);
        if brokers.len() >= MAX_BROKERS && !brokers.contains_key(&request.broker_name) {
            return Err(TooMany);
        }
        let timeout = request
            .heartbeat_timeout_millis
            .and_then(|millis| u64::try_from(millis).ok());
        let timeout = timeout
            .map_or(DEFAULT_TIMEOUT, Duration::from_millis)
            .min(MAX_TIMEOUT);
        let broker = brokers.entry(request.broker_name).or_default();
        broker.cluster = request.cluster_name;
        broker.enable_acting_master = request.enable_acting_master.unwrap_or(false);
        let instance = Instance {
            address: request.broker_addr,
            ha_address: request.ha_server_addr,
            session,
            expires: Instant::now() + timeout,
        };
        broker.instances.insert(request.broker_id, instance);
        if request.broker_id == MASTER_ID {
            let room = MAX_TOPICS.saturating_sub(broker.topics.len());
            broker.topics.extend(topics.into_iter().take(room));
            return Ok(RegisterBrokerResult {
                ha_server_addr: None,
                master_addr: None,
            });
        }
        let master = broker.instances.get(&MASTER_ID);
        Ok(RegisterBrokerResult {
            ha_server_addr: master.map(|master| master.ha_address.clone()),
            master_addr: master.map(|master| master.address.clone()),
        })
    }

    pub(crate) fn unregister(&self, name: &str, id: i64) {
        self.retain(|broker, each, _| broker != name || each != id);
    }

    /// Takes off what was registered over a connection that is closed.
    pub(crate) fn remove_session(&self, session: u64) {
        self.retain(|_, _, instance| instance.session != session);
    }

    /// Takes off brokers that have been silent for too long.
    pub(crate) fn remove_silent(&self) {
        let now = Instant::now();
        self.retain(|_, _, instance| instance.expires > now);
    }

    fn retain(&self, keep: impl Fn(&str, i64, &Instance) -> bool) {
        lock(&self.0).retain(|name, broker| {
            broker.instances.retain(|&id, instance| {
                let kept = keep(name, id, instance);
                if !kept {
                    tracing::info!(broker = name, id, address = instance.address, "a broker is gone");
                }
                kept
            });
            !broker.instances.is_empty()
        });
    }

    /// Forgets a topic until a broker registers it again.
    pub(crate) fn remove_topic(&self, topic: &str) {
        for broker in lock(&self.0).values_mut() {
            broker.topics.remove(topic);
        }
    }

    /// Changes the permissions of all topics of a broker until it registers them again. Gives their number.
    pub(crate) fn change_permissions(&self, name: &str, change: impl Fn(i32) -> i32) -> usize {
        let mut brokers = lock(&self.0);
        let Some(broker) = brokers.get_mut(name) else {
            return 0;
        };
        for config in broker.topics.values_mut() {
            config.perm = change(config.perm);
        }
        broker.topics.len()
    }

    /// Adds the brokers that have a topic, and their queues.
    pub(crate) fn add_route(&self, topic: &str, brokers: &mut Vec<BrokerData>, queues: &mut Vec<QueueData>) {
        for (name, broker) in lock(&self.0).iter() {
            if let Some(config) = broker.topics.get(topic) {
                brokers.push(broker.data(name));
                queues.push(queue_data(name, config));
            }
        }
    }

    pub(crate) fn brokers(&self) -> Vec<BrokerData> {
        lock(&self.0)
            .iter()
            .map(|(name, broker)| broker.data(name))
            .collect()
    }

    /// The topics of all brokers, or of those of one cluster.
    pub(crate) fn topics(&self, cluster: Option<&str>) -> BTreeSet<String> {
        let brokers = lock(&self.0);
        let wanted = brokers
            .values()
            .filter(|broker| cluster.is_none_or(|cluster| cluster == broker.cluster));
        wanted.flat_map(|broker| broker.topics.keys().cloned()).collect()
    }
}

impl Registered {
    fn data(&self, name: &str) -> BrokerData {
        let addresses = self
            .instances
            .iter()
            .map(|(&id, instance)| (id, instance.address.clone()));
        BrokerData {
            broker_addrs: addresses.collect(),
            broker_name: name.to_owned(),
            cluster: self.cluster.clone(),
            enable_acting_master: self.enable_acting_master,
        }
    }
}

/// The queues of a topic on one broker, as routes say them.
pub(crate) fn queue_data(broker_name: &str, config: &TopicConfig) -> QueueData {
    QueueData {
        broker_name: broker_name.to_owned(),
        perm: config.perm,
        read_queue_nums: config.read_queue_nums,
        topic_sys_flag: config.topic_sys_flag,
        write_queue_nums: config.write_queue_nums,
    }
}
