//! Who of this client is known to the brokers, and keeping it so.
//!
//! Protocol source: `MQClientInstance#sendHeartbeatToAllBroker`, `unregisterClient`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{mem, ptr};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Cluster, GroupMember, ProducerMember, TopicTemplate};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{HeartbeatData, ProducerData};
use crate::protocol::names::reply_topic;
use crate::protocol::requests::{HeartBeat, UnregisterClient};
use crate::protocol::{BrokerVersion, JsonBody};
use crate::sync::lock;
use crate::tasks::join_all;

/// For how long nobody waits for a broker that could not be told of a group.
const UNREACHABLE: Duration = Duration::from_secs(5);

/// The producers and consumers of one client.
#[derive(Debug, Default)]
pub(super) struct Members {
    groups: Mutex<Groups>,
    /// Addresses to which a heartbeat is on its way: the connection it makes needs no other one.
    beating: Mutex<HashSet<Arc<str>>>,
    /// The producer groups that each broker was told of over its connection of now.
    introduced: Mutex<HashMap<Arc<str>, HashSet<String>>>,
    /// Brokers that could not be told, and until when nobody waits for them.
    unreachable: Mutex<HashMap<Arc<str>, Instant>>,
}

#[derive(Debug, Default)]
struct Groups {
    consumers: HashMap<String, Arc<dyn GroupMember>>,
    /// Several producers may share a group.
    producers: BTreeMap<String, Vec<Arc<dyn ProducerMember>>>,
}

/// Whether a producer was registered, and whether its group still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    Unknown,
    OneOfMany,
    Last,
}

impl Members {
    /// The topics of all consumers.
    pub(super) fn topics(&self) -> Vec<String> {
        self.consumers()
            .iter()
            .flat_map(|member| member.topics())
            .collect()
    }

    pub(super) fn consumers(&self) -> Vec<Arc<dyn GroupMember>> {
        lock(&self.groups).consumers.values().map(Arc::clone).collect()
    }

    pub(super) fn producers(&self) -> Vec<Arc<dyn ProducerMember>> {
        lock(&self.groups)
            .producers
            .values()
            .flatten()
            .map(Arc::clone)
            .collect()
    }

    /// The producers of a group.
    pub(super) fn producers_of(&self, group: &str) -> Vec<Arc<dyn ProducerMember>> {
        lock(&self.groups)
            .producers
            .get(group)
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn consumer(&self, group: &str) -> Option<Arc<dyn GroupMember>> {
        lock(&self.groups).consumers.get(group).map(Arc::clone)
    }

    /// Tells the consumers of a topic that its queues changed.
    pub(super) fn route_changed(&self, topic: &str) {
        for member in self.consumers() {
            if member.topics().iter().any(|known| known == topic) {
                member.on_route_changed();
            }
        }
    }

    fn remove_producer(&self, member: &dyn ProducerMember) -> Removed {
        let mut groups = lock(&self.groups);
        let Some(members) = groups.producers.get_mut(member.group()) else {
            return Removed::Unknown;
        };
        let before = members.len();
        members.retain(|known| !ptr::addr_eq(Arc::as_ptr(known), member));
        let (gone, last) = (members.len() < before, members.is_empty());
        if last {
            groups.producers.remove(member.group());
        }
        match (gone, last) {
            (true, true) => Removed::Last,
            (true, false) => Removed::OneOfMany,
            (false, _) => Removed::Unknown,
        }
    }

    /// Lets go of everybody. The members hold the cluster that holds them, so somebody has to.
    pub(super) fn clear(&self) {
        let groups = mem::take(&mut *lock(&self.groups));
        // Outside of the lock: dropping a member runs its own code.
        drop(groups);
    }

    /// What the brokers are told; nothing without members. And whether slaves have to hear it too.
    fn heartbeat(&self) -> Option<(HeartbeatData, bool)> {
        let (consumers, producers): (Vec<_>, Vec<_>) = {
            let groups = lock(&self.groups);
            (
                groups.consumers.values().map(Arc::clone).collect(),
                groups.producers.keys().cloned().collect(),
            )
        };
        if consumers.is_empty() && producers.is_empty() {
            return None;
        }
        let slaves = !consumers.is_empty();
        let data = HeartbeatData {
            consumer_data_set: consumers.iter().map(|member| member.heartbeat()).collect(),
            producer_data_set: producers
                .into_iter()
                .map(|group_name| ProducerData { group_name })
                .collect(),
            ..HeartbeatData::default()
        };
        Some((data, slaves))
    }
}

impl Cluster {
    /// What the brokers are told, in their names.
    fn heartbeat(&self) -> Option<(HeartbeatData, bool)> {
        let (mut data, slaves) = self.members.heartbeat()?;
        data.client_id.clone_from(&self.client_id);
        for consumer in &mut data.consumer_data_set {
            consumer.unit_mode = self.unit_mode();
            self.put_in_namespace(&mut consumer.group_name);
            for subscription in &mut consumer.subscription_data_set {
                self.put_in_namespace(&mut subscription.topic);
            }
        }
        for producer in &mut data.producer_data_set {
            self.put_in_namespace(&mut producer.group_name);
        }
        Some((data, slaves))
    }

    fn put_in_namespace(&self, name: &mut String) {
        if let Cow::Owned(wire_name) = self.wire_name(name) {
            *name = wire_name;
        }
    }

    /// Makes a consumer known to the brokers, now and as long as it is registered.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if this client has a consumer of the group: brokers could not
    /// tell the two apart. [`ErrorKind::Auth`](crate::ErrorKind::Auth) if brokers refuse it and none accepts it.
    pub(crate) async fn register_consumer(self: &Arc<Self>, member: Arc<dyn GroupMember>) -> Result<()> {
        let group = member.group().to_owned();
        {
            let mut groups = lock(&self.members.groups);
            if groups.consumers.contains_key(&group) {
                return Err(Error::config(format!(
                    "consumer group {group} is used by another consumer of this client; subscribe that one to the \
                     topic too, or make another client for this one"
                )));
            }
            groups.consumers.insert(group.clone(), member);
        }
        let Some(refused) = self.heartbeat_now().await else {
            return Ok(());
        };
        // A heartbeat tells of all members, and brokers that refuse one refuse it as a whole.
        let removed = lock(&self.members.groups).consumers.remove(&group);
        drop(removed);
        Err(refused.context(format_args!("consumer group {group} may not join")))
    }

    /// Takes a consumer off all brokers.
    pub(crate) async fn unregister_consumer(&self, group: &str) {
        let removed = lock(&self.members.groups).consumers.remove(group);
        if removed.is_some() {
            self.unregister(None, Some(group.to_owned())).await;
        }
    }

    /// Makes a producer known to the brokers as long as it is registered, from the next connection or heartbeat on.
    pub(crate) fn register_producer(self: &Arc<Self>, member: Arc<dyn ProducerMember>) {
        let group = member.group().to_owned();
        let first = {
            let mut groups = lock(&self.members.groups);
            let members = groups.producers.entry(group).or_default();
            members.push(member);
            members.len() == 1
        };
        if first {
            let cluster = Arc::clone(self);
            self.tasks.spawn("heartbeat", |stop| async move {
                stop.run_until_cancelled(cluster.heartbeat_now()).await;
            });
        }
    }

    /// Takes a producer off all brokers, if it is the last one of its group. Gives whether it was registered.
    pub(crate) async fn unregister_producer(&self, member: &dyn ProducerMember) -> bool {
        match self.members.remove_producer(member) {
            Removed::Last => {
                self.unregister(Some(member.group().to_owned()), None).await;
                true
            }
            Removed::OneOfMany => true,
            Removed::Unknown => false,
        }
    }

    /// The same without waiting for the brokers.
    pub(crate) fn forget_producer(self: &Arc<Self>, member: &dyn ProducerMember) {
        if self.members.remove_producer(member) != Removed::Last {
            return;
        }
        let cluster = Arc::clone(self);
        let group = member.group().to_owned();
        self.tasks.spawn("unregister", |stop| async move {
            let unregister = cluster.unregister(Some(group), None);
            stop.run_until_cancelled(unregister).await;
        });
    }

    async fn unregister(&self, producer_group: Option<String>, consumer_group: Option<String>) {
        if let Some(group) = &producer_group {
            let group = self.wire_name(group);
            for told in lock(&self.members.introduced).values_mut() {
                told.remove(&*group);
            }
        }
        let request = UnregisterClient {
            client_id: self.client_id.clone(),
            producer_group: producer_group.map(|group| self.wire_name(&group).into_owned()),
            consumer_group: consumer_group.map(|group| self.wire_name(&group).into_owned()),
        };
        // A broker without a connection knows nothing of this client.
        let brokers = self.remoting.pool().connected().into_iter();
        let brokers = brokers.filter(|address| self.routes.is_broker(address));
        let calls = brokers.map(|address| {
            let request = &request;
            async move {
                let timeout = self.options.request_timeout;
                if let Err(error) = self.call_addr(&address, request, timeout).await {
                    // It will notice by the end of the connection, or by the missing heartbeats.
                    debug!(%address, %error, "not unregistered");
                }
                if request.producer_group.is_some() {
                    self.introduce_anew(&address).await;
                }
            }
        });
        join_all(calls).await;
    }

    /// Lets a broker find this client for replies again. Brokers keep one place for each client, give it up with any of
    /// its producer groups, and make it again only for a group that is new to them (`ProducerManager`): so one of the
    /// groups that are left is made new.
    async fn introduce_anew(&self, address: &Arc<str>) {
        let Some((data, _)) = self.heartbeat() else {
            return;
        };
        let Some(left) = data.producer_data_set.first() else {
            return;
        };
        let request = UnregisterClient {
            client_id: self.client_id.clone(),
            producer_group: Some(left.group_name.clone()),
            consumer_group: None,
        };
        let gone = self
            .call_addr(address, &request, self.options.request_timeout)
            .await;
        if let Err(error) = gone {
            debug!(%address, %error, "not introduced anew");
        }
        // A failure is logged, and made good by the next heartbeat.
        let _ = self.beat(address, &data).await;
    }

    /// Tells all known brokers who is here, and waits for their answers, at most the request timeout. Gives why, if
    /// brokers refuse somebody and none accepts.
    pub(crate) async fn heartbeat_now(&self) -> Option<Error> {
        let (data, slaves) = self.heartbeat()?;
        let brokers = self.routes.broker_addrs(slaves);
        let told = join_all(brokers.iter().map(|address| self.beat(address, &data))).await;
        if told.iter().any(Result::is_ok) {
            return None;
        }
        told.into_iter()
            .filter_map(Result::err)
            .find(|error| error.kind() == ErrorKind::Auth)
    }

    /// Tells one broker.
    async fn beat(&self, address: &Arc<str>, data: &HeartbeatData) -> Result<()> {
        let sent = self.send_heartbeat(address, data, self.options.request_timeout);
        match sent.await {
            Ok(version) => debug!(%address, %version, "heartbeat"),
            Err(error) => {
                warn!(%address, %error, "heartbeat failed");
                return Err(error);
            }
        }
        Ok(())
    }

    async fn send_heartbeat(
        &self,
        address: &Arc<str>,
        data: &HeartbeatData,
        timeout: Duration,
    ) -> Result<BrokerVersion> {
        let _beating = Beating::new(&self.members.beating, address);
        let body = data
            .to_body()
            .map_err(|error| Error::from_encode("HeartBeat", error))?;
        let result = self.call_addr(address, &HeartBeat { body }, timeout).await?;
        let version = BrokerVersion(result.version);
        self.versions.note(address, version);
        let told = data
            .producer_data_set
            .iter()
            .map(|producer| producer.group_name.clone());
        lock(&self.members.introduced).insert(Arc::clone(address), told.collect());
        Ok(version)
    }

    /// Tells a broker who is here for the version in its answer; nothing if nobody is.
    pub(super) async fn ask_version(
        &self,
        address: &Arc<str>,
        timeout: Duration,
    ) -> Result<Option<BrokerVersion>> {
        let Some((data, _)) = self.heartbeat() else {
            return Ok(None);
        };
        self.send_heartbeat(address, &data, timeout).await.map(Some)
    }

    /// Makes sure that the brokers of a topic, and those that replies to a message of it go through, know a producer
    /// group: only then can they ask it or pass replies on to this client. What cannot be reached is left out.
    ///
    /// # Errors
    /// As [`publish_route`](Self::publish_route), about the topic.
    pub(crate) async fn introduce(
        self: &Arc<Self>,
        group: &str,
        topic: &str,
        template: &TopicTemplate,
    ) -> Result<()> {
        let route = self.publish_route(topic, template).await?;
        for cluster in route.clusters() {
            // A broker that keeps no replies has no such topic; it passes them on all the same.
            if let Err(error) = self.publish_route(&reply_topic(cluster), template).await {
                debug!(cluster, %error, "no route of the reply topic");
            }
        }
        let group = self.wire_name(group);
        let connected = self.remoting.pool().connected();
        let mut strangers = self.routes.broker_addrs(false);
        {
            let introduced = lock(&self.members.introduced);
            strangers.retain(|address| {
                let told = introduced.get(address).is_some_and(|told| told.contains(&*group));
                !told || !connected.contains(address)
            });
        }
        {
            let now = Instant::now();
            let mut unreachable = lock(&self.members.unreachable);
            unreachable.retain(|_, until| *until > now);
            strangers.retain(|address| !unreachable.contains_key(address));
        }
        if let (false, Some((data, _))) = (strangers.is_empty(), self.heartbeat()) {
            let introductions = strangers.iter().map(async |address| {
                if self.beat(address, &data).await.is_err() {
                    // The next ones need not wait for it.
                    let until = Instant::now() + UNREACHABLE;
                    lock(&self.members.unreachable).insert(Arc::clone(address), until);
                }
            });
            join_all(introductions).await;
        }
        Ok(())
    }

    /// A broker was connected: it has to hear who is here before it can serve them.
    pub(super) fn broker_connected(self: &Arc<Self>, address: &str) {
        let address = &*self.first_server(address);
        lock(&self.members.introduced).remove(address);
        if lock(&self.members.beating).contains(address) || !self.routes.is_broker(address) {
            return;
        }
        let Some((data, _)) = self.heartbeat() else {
            return;
        };
        let cluster = Arc::clone(self);
        let address = address.into();
        self.tasks.spawn("heartbeat", |stop| async move {
            let beat = cluster.beat(&address, &data);
            if stop.run_until_cancelled(beat).await.is_some() {
                for member in cluster.members.consumers() {
                    member.on_members_changed();
                }
            }
        });
    }

    /// Tells the brokers again and again.
    pub(super) async fn heartbeats(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(self.options.heartbeat_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and members are told of when they are registered.
        tick.tick().await;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if stop.run_until_cancelled(self.heartbeat_now()).await.is_none() {
                return;
            }
        }
    }
}

/// Marks an address for as long as it lives.
struct Beating<'a> {
    set: &'a Mutex<HashSet<Arc<str>>>,
    address: &'a Arc<str>,
}

impl<'a> Beating<'a> {
    fn new(set: &'a Mutex<HashSet<Arc<str>>>, address: &'a Arc<str>) -> Self {
        lock(set).insert(Arc::clone(address));
        Self { set, address }
    }
}

impl Drop for Beating<'_> {
    fn drop(&mut self) {
        lock(self.set).remove(self.address);
    }
}

#[cfg(test)]
mod tests;
