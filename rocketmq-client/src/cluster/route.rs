//! Where the queues of each topic are, and where the brokers are.
//!
//! Routes are immutable snapshots: who sends reads one under a short lock and keeps it; a refresh swaps it.
//! Protocol source: `MQClientInstance#topicRouteData2TopicPublishInfo`, `updateTopicRouteInfoFromNameServer`.

mod refresh;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::naming::vip_address;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{MASTER_ID, MessageQueue, TopicRouteData, permission};
use crate::protocol::names::AUTO_CREATE_TOPIC;
use crate::sync::{lock, read, write};
use crate::telemetry::SendMeters;
use crate::transport::random;

/// How often failing sends may ask for a route again.
const SOON: Duration = Duration::from_secs(1);

/// For how long it is remembered that a topic does not exist.
const MISSING: Duration = Duration::from_secs(1);

/// The route of one topic at one time.
#[derive(Debug)]
pub(crate) struct TopicRoute {
    data: TopicRouteData,
    publish: Arc<[MessageQueue]>,
    /// The address of the master for each of the `publish` queues; queues of an ordered topic stay also without one.
    publish_addresses: Vec<Option<Arc<str>>>,
    subscribe: Arc<[MessageQueue]>,
    /// Made from the template topic: the topic itself does not exist yet.
    derived: bool,
    /// Counts the sends: they take the queues in turn.
    turn: AtomicUsize,
    topic: Arc<str>,
    /// Made by the first send.
    meters: OnceLock<Arc<SendMeters>>,
}

impl TopicRoute {
    /// With `vip`, sends go to the second server of each master.
    fn new(topic: &str, mut data: TopicRouteData, derived: bool, vip: bool) -> Self {
        data.sort();
        let topic: Arc<str> = topic.into();
        let masters: HashMap<&str, Arc<str>> = data
            .broker_datas
            .iter()
            .filter_map(|broker| {
                let address = broker.broker_addrs.get(&MASTER_ID)?;
                let second = vip.then(|| vip_address(address)).flatten();
                let address = second.unwrap_or_else(|| address.clone());
                Some((broker.broker_name.as_str(), address.into()))
            })
            .collect();
        let mut publish = Vec::new();
        let mut publish_addresses = Vec::new();
        let mut subscribe = Vec::new();
        for queues in &data.queue_datas {
            let broker: Arc<str> = queues.broker_name.as_str().into();
            let queue = |id| MessageQueue::new(Arc::clone(&topic), Arc::clone(&broker), id);
            if queues.perm & permission::READ != 0 {
                subscribe.extend((0..queues.read_queue_nums).map(queue));
            }
            let Some(address) = masters.get(&*broker) else {
                continue;
            };
            if queues.perm & permission::WRITE != 0 && data.order_topic_conf.is_none() {
                publish.extend((0..queues.write_queue_nums).map(queue));
                publish_addresses.resize(publish.len(), Some(Arc::clone(address)));
            }
        }
        for (broker, count) in ordered_queues(data.order_topic_conf.as_deref()) {
            // A broker that is away keeps its queues, or its absence would move every ordering key.
            let address = masters.get(broker).map(Arc::clone);
            let broker: Arc<str> = broker.into();
            publish
                .extend((0..count).map(|id| MessageQueue::new(Arc::clone(&topic), Arc::clone(&broker), id)));
            publish_addresses.resize(publish.len(), address);
        }
        Self {
            data,
            publish: publish.into(),
            publish_addresses,
            subscribe: subscribe.into(),
            derived,
            // Clients do not all start with the same queue.
            turn: AtomicUsize::new(usize::from(random() as u16)),
            topic,
            meters: OnceLock::new(),
        }
    }

    /// The queues that can be written: those that the configuration of an ordered topic names, in its order; else
    /// those whose broker has a master, sorted by broker.
    pub(crate) fn publish_queues(&self) -> &Arc<[MessageQueue]> {
        &self.publish
    }

    /// The address to send to for the queue at this place of [`publish_queues`](Self::publish_queues); `None` while its
    /// broker has no master.
    pub(crate) fn publish_address(&self, index: usize) -> Option<&Arc<str>> {
        self.publish_addresses.get(index)?.as_ref()
    }

    /// What is counted of the sends to the topic.
    pub(crate) fn meters(&self) -> &Arc<SendMeters> {
        self.meters.get_or_init(|| Arc::new(SendMeters::new(&self.topic)))
    }

    /// The place of the queue whose turn it is.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.publish.len().max(1)
    }

    /// The queues that can be read, sorted by broker.
    pub(crate) fn subscribe_queues(&self) -> &Arc<[MessageQueue]> {
        &self.subscribe
    }

    /// Whether the topic does not exist yet and will be created by the first send.
    pub(crate) fn is_derived(&self) -> bool {
        self.derived
    }

    /// The names of the clusters that have the topic.
    pub(crate) fn clusters(&self) -> BTreeSet<&str> {
        let brokers = self.data.broker_datas.iter();
        brokers.map(|broker| broker.cluster.as_str()).collect()
    }

    fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty()
    }
}

/// `broker:queues;broker:queues`; what cannot be read is left out.
fn ordered_queues(conf: Option<&str>) -> impl Iterator<Item = (&str, i32)> {
    conf.unwrap_or_default().split(';').filter_map(|part| {
        let (broker, count) = part.split_once(':')?;
        Some((broker.trim(), count.trim().parse().ok()?))
    })
}

/// What a topic is made after that the first send creates. Java: `createTopicKey`, `defaultTopicQueueNums`.
#[derive(Clone, Debug)]
pub(crate) struct TopicTemplate {
    /// As brokers know it: templates are in no namespace.
    pub(crate) topic: Cow<'static, str>,
    /// How many queues the new topic has on each broker, at most.
    pub(crate) queues: i32,
}

impl TopicTemplate {
    pub(crate) fn of_queues(queues: i32) -> Self {
        Self {
            topic: Cow::Borrowed(AUTO_CREATE_TOPIC),
            queues,
        }
    }
}

impl Default for TopicTemplate {
    fn default() -> Self {
        Self::of_queues(4)
    }
}

/// Addresses by broker name and broker id.
type Brokers = HashMap<String, BTreeMap<i64, Arc<str>>>;

/// All routes of one client.
#[derive(Debug, Default)]
pub(super) struct Routes {
    topics: RwLock<HashMap<String, Arc<TopicRoute>>>,
    brokers: RwLock<Arc<Brokers>>,
    /// Topics that did not exist when last asked for, and until when that is believed.
    missing: Mutex<HashMap<String, Instant>>,
    /// When a topic was last asked for because a send failed.
    asked_soon: Mutex<HashMap<String, Instant>>,
    /// Questions that are being asked: who wants to know the same waits for the same answer.
    asking: Mutex<HashMap<String, Asking>>,
}

type Asking = watch::Receiver<Option<Result<Arc<TopicRoute>>>>;

impl Routes {
    pub(super) fn known(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        read(&self.topics).get(topic).map(Arc::clone)
    }

    pub(super) fn known_topics(&self) -> Vec<String> {
        read(&self.topics).keys().cloned().collect()
    }

    /// Fails if the topic did not exist a moment ago.
    pub(super) fn check_missing(&self, topic: &str) -> Result<()> {
        let mut missing = lock(&self.missing);
        match missing.get(topic) {
            Some(until) if *until > Instant::now() => Err(not_found(topic)),
            Some(_) => {
                missing.remove(topic);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether a failing send may ask for the route again.
    fn may_ask_soon(&self, topic: &str) -> bool {
        let now = Instant::now();
        let mut asked = lock(&self.asked_soon);
        asked.retain(|_, at| *at + SOON > now);
        if asked.contains_key(topic) {
            return false;
        }
        asked.insert(topic.to_owned(), now);
        true
    }

    fn note_missing(&self, topic: &str) {
        let now = Instant::now();
        let mut missing = lock(&self.missing);
        missing.retain(|_, until| *until > now);
        missing.insert(topic.to_owned(), now + MISSING);
    }

    /// Takes over what a name server said. An answer without a queue does not replace one with queues: a name server
    /// that has just started knows less than this client. Gives the route that now holds, and whether it changed.
    fn install(&self, topic: &str, route: TopicRoute) -> (Arc<TopicRoute>, bool) {
        let installed = {
            let mut topics = write(&self.topics);
            match topics.get(topic) {
                Some(known) if route.is_empty() && !known.is_empty() => return (Arc::clone(known), false),
                Some(known) if known.data == route.data && known.derived == route.derived => {
                    return (Arc::clone(known), false);
                }
                _ => {
                    let route = Arc::new(route);
                    topics.insert(topic.to_owned(), Arc::clone(&route));
                    route
                }
            }
        };
        lock(&self.missing).remove(topic);
        self.rebuild_brokers();
        (installed, true)
    }

    #[cfg(test)]
    pub(super) fn learn(&self, topic: &str, data: TopicRouteData) {
        self.install(topic, TopicRoute::new(topic, data, false, false));
    }

    /// Brokers that are in no route any more are forgotten with it.
    fn rebuild_brokers(&self) {
        let mut brokers = Brokers::new();
        for route in read(&self.topics).values() {
            for broker in &route.data.broker_datas {
                let addresses = brokers.entry(broker.broker_name.clone()).or_default();
                for (id, address) in &broker.broker_addrs {
                    addresses.insert(*id, address.as_str().into());
                }
            }
        }
        *write(&self.brokers) = Arc::new(brokers);
    }

    fn brokers(&self) -> Arc<Brokers> {
        Arc::clone(&read(&self.brokers))
    }

    pub(super) fn broker_addr(&self, name: &str, id: i64) -> Option<Arc<str>> {
        self.brokers().get(name)?.get(&id).map(Arc::clone)
    }

    pub(super) fn replica_for_read(&self, name: &str, id: i64) -> Option<(i64, Arc<str>)> {
        let brokers = self.brokers();
        let addresses = brokers.get(name)?;
        let exact = addresses.get_key_value(&id);
        let next_slave = || {
            (id != MASTER_ID)
                .then(|| addresses.get_key_value(&id.saturating_add(1)))
                .flatten()
        };
        exact
            .or_else(next_slave)
            .or_else(|| addresses.first_key_value())
            .map(|(id, address)| (*id, Arc::clone(address)))
    }

    /// The slave with the lowest id.
    pub(super) fn slave_of(&self, name: &str) -> Option<i64> {
        let brokers = self.brokers();
        brokers.get(name)?.keys().copied().find(|&id| id != MASTER_ID)
    }

    /// All addresses; those of slaves only if wanted.
    pub(super) fn broker_addrs(&self, slaves: bool) -> Vec<Arc<str>> {
        let brokers = self.brokers();
        let all = brokers.values().flatten();
        let mut addresses: Vec<_> = all
            .filter(|(id, _)| slaves || **id == MASTER_ID)
            .map(|(_, address)| Arc::clone(address))
            .collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// The name of the broker at an address.
    pub(super) fn broker_name(&self, address: &str) -> Option<String> {
        let brokers = self.brokers();
        let mut all = brokers.iter();
        let found = all.find(|(_, addresses)| addresses.values().any(|known| &**known == address));
        found.map(|(name, _)| name.clone())
    }

    pub(super) fn is_broker(&self, address: &str) -> bool {
        let brokers = self.brokers();
        let mut all = brokers.values().flat_map(BTreeMap::values);
        all.any(|known| &**known == address)
    }
}

fn not_found(topic: &str) -> Error {
    Error::new(
        ErrorKind::TopicNotFound,
        format!(
            "topic {topic}: no broker has it, as the name server says; create it, check its name, or let brokers \
             create topics (autoCreateTopicEnable)"
        ),
    )
}

#[cfg(test)]
mod tests;
