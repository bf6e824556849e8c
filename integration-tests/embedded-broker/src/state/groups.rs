//! Consumer groups and how they are configured.
//!
//! Protocol source: `SubscriptionGroupManager`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::bodies::{DataVersion, SubscriptionGroupConfig};
use rocketmq_client::protocol::names::{MAX_GROUP_BYTES, is_legal_name};

use crate::lock::lock;

/// How many groups there may be.
const MAX_GROUPS: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Groups {
    auto_create: bool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    groups: BTreeMap<String, Arc<SubscriptionGroupConfig>>,
    version: DataVersion,
}

impl Groups {
    pub(crate) fn new(auto_create: bool, now: i64) -> Self {
        let version = DataVersion {
            timestamp: now,
            ..DataVersion::default()
        };
        Self {
            auto_create,
            table: Mutex::new(Table {
                version,
                ..Table::default()
            }),
        }
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
        let system = group.starts_with("CID_RMQ_SYS_");
        if !(self.auto_create || system) || !is_legal_group(group) {
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
        if table.groups.remove(group).is_some() {
            table.changed(now);
        }
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
