//! The state that all connections share, and the one way by which a message enters the store.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rocketmq_client::protocol::names::SCHEDULE_TOPIC;
use rocketmq_client::protocol::{
    BrokerVersion, CodecError, OffsetMessageId, Record, UniqueIds, java_hash, property,
};
use tokio::time::{self, MissedTickBehavior};

use crate::access::AccessControl;
use crate::clock::Clock;
use crate::options::Options;
use crate::server::{Session, Sessions};
use crate::state::{
    Flight, Groups, KvConfigs, Members, Offsets, Orders, QueueLocks, Registry, RequestModes,
    RoutePermissions, Settings, Slave, Topic, Topics,
};
use crate::store::{Appended, Store};
use crate::wait::{self, Delays, Halves, Polls, Relays, Replies, Timers, Wheel};

/// How often connections are looked at for silence. Java: `ClientHousekeepingService`.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) options: Options,
    pub(crate) name_server: SocketAddr,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Clock,
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) offsets: Offsets,
    pub(crate) members: Members,
    pub(crate) slave: Slave,
    pub(crate) locks: QueueLocks,
    pub(crate) flight: Flight,
    pub(crate) orders: Orders,
    pub(crate) request_modes: RequestModes,
    pub(crate) polls: Polls,
    /// One pop at a time looks at queues: reading one, noting what is on its way and moving the offset belong together.
    pub(crate) popping: Mutex<()>,
    pub(crate) kv: KvConfigs,
    pub(crate) registry: Registry,
    pub(crate) route_permissions: RoutePermissions,
    pub(crate) settings: Settings,
    pub(crate) name_server_settings: Settings,
    pub(crate) store: Store,
    pub(crate) delays: Delays,
    pub(crate) wheel: Wheel,
    pub(crate) halves: Halves,
    pub(crate) relays: Relays,
    pub(crate) replies: Replies,
    pub(crate) timers: Timers,
    pub(crate) sessions: Sessions,
    pub(crate) access: Option<AccessControl>,
    pub(crate) unique_ids: UniqueIds,
    any: AtomicU32,
    random: AtomicU32,
    /// What the ids of all messages stored here start with.
    id_prefix: String,
}

impl Broker {
    pub(crate) fn new(
        options: Options,
        name_server: SocketAddr,
        address: SocketAddr,
        slave: Option<SocketAddr>,
        random: u64,
    ) -> Self {
        let clock = Clock::start();
        let now = clock.now();
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) => ip,
            std::net::IpAddr::V6(_) => std::net::Ipv4Addr::LOCALHOST,
        };
        Self {
            name_server,
            address,
            clock,
            topics: Topics::new(&options, now),
            groups: Groups::new(options.auto_create_groups, now),
            offsets: Offsets::default(),
            members: Members::default(),
            slave: Slave::new(slave),
            locks: QueueLocks::new(options.queue_lock_life),
            flight: Flight::default(),
            orders: Orders::default(),
            request_modes: RequestModes::default(),
            polls: Polls::default(),
            popping: Mutex::default(),
            kv: KvConfigs::default(),
            registry: Registry::default(),
            route_permissions: RoutePermissions::default(),
            settings: Settings::of_broker(&options, name_server, address, now),
            name_server_settings: Settings::of_name_server(name_server, now),
            store: Store::new(clock, options.memory_limit),
            delays: Delays::default(),
            wheel: Wheel::default(),
            halves: Halves::default(),
            relays: Relays::default(),
            replies: Replies::default(),
            timers: Timers::default(),
            sessions: Sessions::default(),
            access: options
                .access
                .map(|style| AccessControl::new(style, &options.cluster_name, &options.users)),
            unique_ids: UniqueIds::new(ip, std::process::id(), random),
            any: AtomicU32::new(0),
            random: AtomicU32::new(random as u32),
            id_prefix: id_prefix(address),
            options,
        }
    }

    /// Puts a message at the end of a queue and lets those go on who waited for it.
    pub(crate) fn append(&self, topic: &Topic, record: Record) -> Result<Appended, CodecError> {
        let tag_code = record
            .properties
            .get(property::TAGS)
            .map_or(0, |tag| i64::from(java_hash(tag)));
        self.append_tagged(topic, record, tag_code)
    }

    /// As [`append`](Self::append) for a caller that knows the hash of the tag.
    pub(crate) fn append_tagged(
        &self,
        topic: &Topic,
        record: Record,
        tag_code: i64,
    ) -> Result<Appended, CodecError> {
        let queue_id = record.queue_id;
        let origin_group = wait::pop::origin_group(&topic.name, &record.properties).map(str::to_owned);
        let (appended, woken) = self.store.append(&topic.name, record, tag_code, self.address)?;
        wait::release(self, woken);
        wait::pop::arrived(self, &topic.name, queue_id, tag_code, origin_group.as_deref());
        Ok(appended)
    }

    /// Puts messages, each with the hash of its tag, one behind the other.
    pub(crate) fn append_all(
        &self,
        topic: &Topic,
        records: Vec<(Record, i64)>,
    ) -> Result<Vec<Appended>, CodecError> {
        let arriving: Vec<_> = records
            .iter()
            .map(|(record, tag_code)| (record.queue_id, *tag_code))
            .collect();
        let (appended, woken) = self.store.append_all(&topic.name, records, self.address);
        wait::release(self, woken);
        for (queue_id, tag_code) in arriving {
            wait::pop::arrived(self, &topic.name, queue_id, tag_code, None);
        }
        appended
    }

    /// Puts a message where it waits for its time. `level` counts from 1 and is cut to the highest one.
    ///
    /// The record's properties must say where it goes then.
    pub(crate) fn append_delayed(&self, level: usize, record: Record) -> Result<Appended, CodecError> {
        let level = level.clamp(1, Delays::LEVELS);
        let Some(topic) = self.topics.get(SCHEDULE_TOPIC) else {
            return Err(CodecError::Field(format!("topic {SCHEDULE_TOPIC} is gone")));
        };
        let record = Record {
            topic: topic.text.clone(),
            queue_id: Delays::queue_of(level),
            ..record
        };
        let appended = self.append_tagged(&topic, record, 0)?;
        Delays::put(self, level, appended);
        Ok(appended)
    }

    /// The id of a message, made of where it is stored.
    pub(crate) fn offset_id(&self, physical_offset: i64) -> String {
        let mut id = String::with_capacity(self.id_prefix.len() + 16);
        id.push_str(&self.id_prefix);
        for shift in (0..16).rev() {
            let digit = (physical_offset >> (shift * 4)) & 15;
            id.push(
                char::from_digit(digit as u32, 16)
                    .unwrap_or('0')
                    .to_ascii_uppercase(),
            );
        }
        id
    }

    /// One of `count` queues, each in turn.
    pub(crate) fn any_queue(&self, count: i32) -> Option<i32> {
        let count = u32::try_from(count).ok().filter(|&count| count > 0)?;
        i32::try_from(self.any.fetch_add(1, Ordering::Relaxed) % count).ok()
    }

    /// Some number below `bound`; not for secrets.
    pub(crate) fn random(&self, bound: u32) -> u32 {
        // A step of a Weyl sequence, mixed as MurmurHash3 does at its end.
        let mut mixed = self.random.fetch_add(0x9e37_79b9, Ordering::Relaxed);
        for (shift, factor) in [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35), (16, 1)] {
            mixed = (mixed ^ (mixed >> shift)).wrapping_mul(factor);
        }
        mixed.checked_rem(bound).unwrap_or(0)
    }

    /// The offset of a time in a queue; `upper` asks for the last one then or earlier, which only brokers of 5.x know.
    pub(crate) fn offset_of_time(&self, topic: &str, queue_id: i32, timestamp: i64, upper: bool) -> i64 {
        match self.options.version < BrokerVersion::V5_0_0 {
            true => self.store.search_nearest(topic, queue_id, timestamp),
            false => self.store.search(topic, queue_id, timestamp, upper),
        }
    }

    /// Removes a topic, its messages and the offsets of it.
    pub(crate) fn delete_topic(&self, name: &str) {
        self.topics.remove(name, self.clock.now());
        self.offsets.remove_topic(name);
        self.orders.remove_topic(name);
        let woken = self.store.delete_topic(name);
        wait::release(self, woken);
    }

    /// Takes a connection off all tables; the other members of its groups hear of it.
    pub(crate) fn forget(&self, session: &Session) {
        let dropped = self.sessions.forget(session);
        Polls::forget(self, session);
        wait::pop::pass_on(self, dropped);
        self.registry.remove_session(session.id());
        for members in [&self.members, &self.slave.members] {
            members.remove_session(session, |group| self.notifies(group));
        }
        wait::requester_is_gone(self, session.id());
        wait::member_is_gone(self, session.id());
    }

    /// Whether the members of a group are told of changes.
    pub(crate) fn notifies(&self, group: &str) -> bool {
        self.groups
            .get(group)
            .is_none_or(|config| config.notify_consumer_ids_changed_enable)
    }
}

fn id_prefix(store_host: SocketAddr) -> String {
    let first = OffsetMessageId {
        store_host,
        physical_offset: 0,
    };
    let mut prefix = first.to_string();
    prefix.truncate(prefix.len().saturating_sub(16));
    prefix
}

/// Closes silent connections, again and again, until it is dropped.
pub(crate) async fn keep_house(broker: Arc<Broker>) {
    let mut tick = time::interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        broker.sessions.close_idle(broker.clock.now());
        broker.registry.remove_silent();
    }
}
