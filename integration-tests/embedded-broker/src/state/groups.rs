//! Consumer groups and how they are configured.
//!
//! Protocol source: `SubscriptionGroupManager`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::bodies::{DataVersion, SubscriptionGroupConfig};
use rocketmq_client::protocol::names::{MAX_GROUP_BYTES, is_legal_name};

use crate::lock::lock;

/// How many groups there may be.
const MAX_GROUPS: usize = 64 * 1024;
/// The bit that forbids reading. Java: `PermName.INDEX_PERM_READ`.
const FORBIDDEN_READ: i32 = 1 << 2;

#[derive(Debug)]
pub(crate) struct Groups {
    auto_create: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    groups: BTreeMap<String, Arc<SubscriptionGroupConfig>>,
    /// What groups may not do with topics, as bits.
    forbidden: BTreeMap<String, BTreeMap<String, i32>>,
    version: DataVersion,
}

impl Groups {
    pub(crate) fn new(auto_create: bool, now: i64) -> Self {
        let version = DataVersion {
            timestamp: now,
            ..DataVersion::default()
        };
        Self {
            auto_create: AtomicBool::new(auto_create),
            table: Mutex::new(Table {
                version,
                ..Table::default()
            }),
        }
    }

    /// Whether groups are made by themselves from now on.
    pub(crate) fn set_auto_create(&self, on: bool) {
        self.auto_create.store(on, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, group: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        lock(&self.table).groups.get(group).cloned()
    }

    pub(crate) fn contains(&self, group: &str) -> bool {
        lock(&self.table).groups.contains_key(group)
    }

    /// The group, made with default settings if it is new and legal and groups may be made so.
    pub(crate) fn find_or_create(&self, group: &str, now: i64) -> Option<Arc<SubscriptionGroupConfig>> {
        let mut table = lock(&self.table);
        if let Some(config) = table.groups.get(group) {
            return Some(Arc::clone(config));
        }
        // Tools read under a group of their own, which every broker has.
        let system = group.starts_with("CID_RMQ_SYS_") || group == "TOOLS_CONSUMER";
        if !(self.auto_create.load(Ordering::Relaxed) || system) || !is_legal_group(group) {
            return None;
        }
        let config = SubscriptionGroupConfig {
            group_name: group.to_owned(),
            ..SubscriptionGroupConfig::default()
        };
        table.insert(config, now)
    }

    /// Creates or changes a group; none if there are too many.
    pub(crate) fn put(
        &self,
        config: SubscriptionGroupConfig,
        now: i64,
    ) -> Option<Arc<SubscriptionGroupConfig>> {
        lock(&self.table).insert(config, now)
    }

    pub(crate) fn remove(&self, group: &str, now: i64) {
        let mut table = lock(&self.table);
        table.forbidden.remove(group);
        if table.groups.remove(group).is_some() {
            table.changed(now);
        }
    }

    /// Lets a group read a topic or not.
    pub(crate) fn forbid_reading(&self, group: &str, topic: &str, forbidden: bool, now: i64) {
        let mut table = lock(&self.table);
        if !table.groups.contains_key(group) {
            return;
        }
        let topics = table.forbidden.entry(group.to_owned()).or_default();
        if forbidden {
            *topics.entry(topic.to_owned()).or_default() |= FORBIDDEN_READ;
        } else {
            topics.remove(topic);
        }
        table.changed(now);
    }

    /// Whether a group may not read a topic.
    pub(crate) fn is_reading_forbidden(&self, group: &str, topic: &str) -> bool {
        let table = lock(&self.table);
        let bits = table.forbidden.get(group).and_then(|topics| topics.get(topic));
        bits.is_some_and(|bits| bits & FORBIDDEN_READ != 0)
    }

    /// What groups may not do with topics, as bits.
    pub(crate) fn forbidden(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        lock(&self.table).forbidden.clone()
    }

    pub(crate) fn all(&self) -> (BTreeMap<String, SubscriptionGroupConfig>, DataVersion) {
        let table = lock(&self.table);
        let groups = table
            .groups
            .iter()
            .map(|(name, config)| (name.clone(), SubscriptionGroupConfig::clone(config)));
        (groups.collect(), table.version)
    }
}

impl Table {
    fn insert(&mut self, config: SubscriptionGroupConfig, now: i64) -> Option<Arc<SubscriptionGroupConfig>> {
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&config.group_name) {
            return None;
        }
        let config = Arc::new(config);
        self.groups.insert(config.group_name.clone(), Arc::clone(&config));
        self.changed(now);
        Some(config)
    }

    fn changed(&mut self, now: i64) {
        self.version.counter += 1;
        self.version.timestamp = now;
    }
}

/// A broker accepts the group names that clients keep for themselves; only the characters and the length count.
pub(crate) fn is_legal_group(group: &str) -> bool {
    is_legal_name(group) && group.len() <= MAX_GROUP_BYTES
}
