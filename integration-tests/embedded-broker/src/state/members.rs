//! Who is connected: the members of consumer and producer groups, as their heartbeats say, and the subscriptions.
//!
//! A member is a connection: a client that reconnects before its old connection is closed is there twice for a
//! while, as on a real broker. Protocol source: `ConsumerManager`, `ConsumerGroupInfo`, `ProducerManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::Language;
use rocketmq_client::protocol::bodies::{
    Connection, ConsumeFrom, ConsumeType, ConsumerConnection, ConsumerData, MessageModel, ProducerConnection,
    ProducerInfo, ProducerTable, SubscriptionData,
};

use crate::lock::lock;
use crate::server::Session;

/// One client on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) session: Arc<Session>,
    pub(crate) client_id: String,
    pub(crate) language: Language,
    pub(crate) version: i32,
    /// When it last said that it is there: milliseconds since 1970.
    pub(crate) seen: i64,
}

impl Member {
    fn producer(&self) -> ProducerInfo {
        ProducerInfo {
            client_id: self.client_id.clone(),
            language: self.language.name().unwrap_or("OTHER").to_owned(),
            last_update_timestamp: self.seen,
            remote_ip: self.session.peer().to_string(),
            version: self.version,
        }
    }

    fn connection(&self) -> Connection {
        Connection {
            client_addr: self.session.peer().to_string(),
            client_id: self.client_id.clone(),
            language: self.language.name().unwrap_or("OTHER").to_owned(),
            version: self.version,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Members(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    consumers: BTreeMap<Arc<str>, ConsumerGroup>,
    producers: BTreeMap<String, BTreeMap<u64, Member>>,
    /// Counts the questions to producers: their members take turns.
    turn: usize,
}

#[derive(Debug, Default)]
struct ConsumerGroup {
    members: BTreeMap<u64, Member>,
    subscriptions: BTreeMap<String, Arc<SubscriptionData>>,
    consume_type: ConsumeType,
    message_model: MessageModel,
    consume_from: ConsumeFrom,
}

/// What a pull has to know of its group.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    pub(crate) message_model: MessageModel,
    pub(crate) subscription: Option<Arc<SubscriptionData>>,
}

impl Members {
    /// Takes a heartbeat of a consumer. Members are told of changes if `notify`.
    pub(crate) fn register_consumer(
        &self,
        member: &Member,
        data: ConsumerData,
        without_subscriptions: bool,
        notify: bool,
    ) {
        let mut tables = lock(&self.0);
        let name: Arc<str> = match tables.consumers.get_key_value(data.group_name.as_str()) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(data.group_name.as_str()),
        };
        let group = tables.consumers.entry(Arc::clone(&name)).or_default();
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from = data.consume_from_where;
        let is_new = group
            .members
            .insert(member.session.id(), member.clone())
            .is_none();
        let subscribed = !without_subscriptions && group.subscribe(data.subscription_data_set);
        if (is_new || subscribed) && notify && group.message_model != MessageModel::Broadcasting {
            group.tell_members(&name);
        }
    }

    pub(crate) fn register_producer(&self, member: &Member, group: &str) {
        let mut tables = lock(&self.0);
        if let Some(members) = tables.producers.get_mut(group) {
            members.insert(member.session.id(), member.clone());
        } else {
            tables.producers.insert(
                group.to_owned(),
                BTreeMap::from([(member.session.id(), member.clone())]),
            );
        }
    }

    pub(crate) fn unregister_consumer(&self, session: &Session, group: &str, notify: bool) {
        let mut tables = lock(&self.0);
        let Some((name, consumers)) = tables.consumers.get_key_value(group) else {
            return;
        };
        let (name, was_member) = (Arc::clone(name), consumers.members.contains_key(&session.id()));
        if was_member {
            tables.remove_consumer(&name, session.id(), notify);
        }
    }

    pub(crate) fn unregister_producer(&self, session: &Session, group: &str) {
        let mut tables = lock(&self.0);
        if let Some(members) = tables.producers.get_mut(group) {
            members.remove(&session.id());
            if members.is_empty() {
                tables.producers.remove(group);
            }
        }
    }

    /// Takes a closed connection out of all groups. `notify` says for each consumer group whether the others hear.
    pub(crate) fn remove_session(&self, session: &Session, notify: impl Fn(&str) -> bool) {
        let mut tables = lock(&self.0);
        tables.producers.retain(|_, members| {
            members.remove(&session.id());
            !members.is_empty()
        });
        let groups: Vec<_> = tables
            .consumers
            .iter()
            .filter(|(_, group)| group.members.contains_key(&session.id()))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for group in groups {
            let notify = notify(&group);
            tables.remove_consumer(&group, session.id(), notify);
        }
    }

    /// What a group has subscribed of a topic; none if the group has no member.
    pub(crate) fn subscribed(&self, group: &str, topic: &str) -> Option<Subscribed> {
        let tables = lock(&self.0);
        let group = tables.consumers.get(group)?;
        Some(Subscribed {
            message_model: group.message_model,
            subscription: group.subscriptions.get(topic).cloned(),
        })
    }

    pub(crate) fn client_ids(&self, group: &str) -> Vec<String> {
        let tables = lock(&self.0);
        let group = tables.consumers.get(group);
        group
            .map(|group| {
                group
                    .members
                    .values()
                    .map(|member| member.client_id.clone())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The newest connection of a member of a group.
    pub(crate) fn consumer_of(&self, group: &str, client_id: &str) -> Option<Arc<Session>> {
        let tables = lock(&self.0);
        let members = tables.consumers.get(group)?.members.iter();
        members
            .filter(|(_, member)| member.client_id == client_id)
            .max_by_key(|(session, _)| **session)
            .map(|(_, member)| Arc::clone(&member.session))
    }

    /// The members of a group with their connections; none if the group has none.
    pub(crate) fn consumers_of(&self, group: &str) -> Option<Vec<(String, Arc<Session>)>> {
        let tables = lock(&self.0);
        let members = tables.consumers.get(group)?.members.values();
        Some(
            members
                .map(|member| (member.client_id.clone(), Arc::clone(&member.session)))
                .collect(),
        )
    }

    /// How many topics the members of a group subscribe.
    pub(crate) fn subscription_count(&self, group: &str) -> usize {
        let tables = lock(&self.0);
        tables
            .consumers
            .get(group)
            .map_or(0, |group| group.subscriptions.len())
    }

    /// Whether a group with members does not want a topic.
    pub(crate) fn does_not_want(&self, group: &str, topic: &str) -> bool {
        let wants = |subscribed: Subscribed| subscribed.subscription.is_some();
        self.subscription_count(group) > 0 && !self.subscribed(group, topic).is_some_and(wants)
    }

    /// The groups that have subscribed a topic now.
    pub(crate) fn groups_of(&self, topic: &str) -> BTreeSet<String> {
        let tables = lock(&self.0);
        let subscribed = tables
            .consumers
            .iter()
            .filter(|(_, group)| group.subscriptions.contains_key(topic));
        subscribed.map(|(name, _)| name.to_string()).collect()
    }

    pub(crate) fn consumer_connection(&self, group: &str) -> Option<ConsumerConnection> {
        let tables = lock(&self.0);
        let group = tables.consumers.get(group)?;
        Some(ConsumerConnection {
            connection_set: group.members.values().map(Member::connection).collect(),
            consume_from_where: group.consume_from,
            consume_type: group.consume_type,
            message_model: group.message_model,
            subscription_table: group
                .subscriptions
                .iter()
                .map(|(topic, subscription)| (topic.clone(), SubscriptionData::clone(subscription)))
                .collect(),
        })
    }

    /// A connection of a producer group, each in turn. Java: `ProducerManager#getAvailableChannel`.
    pub(crate) fn any_producer(&self, group: &str) -> Option<Arc<Session>> {
        let mut tables = lock(&self.0);
        tables.turn = tables.turn.wrapping_add(1);
        let turn = tables.turn;
        let members = tables.producers.get(group)?;
        let member = members.values().nth(turn.checked_rem(members.len())?)?;
        Some(Arc::clone(&member.session))
    }

    /// The newest connection of a client that has a producer: replies go there. Java: `ProducerManager#findChannel`.
    pub(crate) fn producer_of(&self, client_id: &str) -> Option<Arc<Session>> {
        let tables = lock(&self.0);
        let members = tables.producers.values().flatten();
        members
            .filter(|(_, member)| member.client_id == client_id)
            .max_by_key(|(session, _)| **session)
            .map(|(_, member)| Arc::clone(&member.session))
    }

    /// All producers.
    pub(crate) fn producers(&self) -> ProducerTable {
        let tables = lock(&self.0);
        let groups = tables.producers.iter();
        ProducerTable {
            data: groups
                .map(|(group, members)| (group.clone(), members.values().map(Member::producer).collect()))
                .collect(),
        }
    }

    pub(crate) fn producer_connection(&self, group: &str) -> Option<ProducerConnection> {
        let tables = lock(&self.0);
        let members = tables.producers.get(group)?;
        Some(ProducerConnection {
            connection_set: members.values().map(Member::connection).collect(),
        })
    }
}

impl Tables {
    fn remove_consumer(&mut self, name: &Arc<str>, session: u64, notify: bool) {
        let Some(group) = self.consumers.get_mut(name) else {
            return;
        };
        group.members.remove(&session);
        if group.members.is_empty() {
            self.consumers.remove(name);
        } else if notify && group.message_model != MessageModel::Broadcasting {
            group.tell_members(name);
        }
    }
}

impl ConsumerGroup {
    /// Makes the group's subscriptions those of one member; newer versions win. Says whether the set of topics
    /// changed.
    fn subscribe(&mut self, subscriptions: Vec<SubscriptionData>) -> bool {
        let topics: BTreeSet<_> = subscriptions
            .iter()
            .map(|subscription| subscription.topic.clone())
            .collect();
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| topics.contains(topic));
        let mut changed = self.subscriptions.len() != before;
        for subscription in subscriptions {
            match self.subscriptions.get(&subscription.topic) {
                Some(old) if old.sub_version >= subscription.sub_version => {}
                old => {
                    changed |= old.is_none();
                    self.subscriptions
                        .insert(subscription.topic.clone(), Arc::new(subscription));
                }
            }
        }
        changed
    }

    fn tell_members(&self, name: &Arc<str>) {
        for member in self.members.values() {
            member.session.group_changed(name);
        }
    }
}
