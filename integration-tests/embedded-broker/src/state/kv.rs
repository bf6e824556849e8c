//! Key-value configuration of the name server.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::lock::lock;

/// How many values there may be.
const MAX_VALUES: usize = 64 * 1024;

/// Values by namespace and key.
#[derive(Debug, Default)]
pub(crate) struct KvConfigs(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

impl KvConfigs {
    /// Sets a value; false if there are too many.
    pub(crate) fn put(&self, namespace: String, key: String, value: String) -> bool {
        let mut namespaces = lock(&self.0);
        if namespaces.values().map(BTreeMap::len).sum::<usize>() >= MAX_VALUES {
            return false;
        }
        namespaces.entry(namespace).or_default().insert(key, value);
        true
    }

    pub(crate) fn get(&self, namespace: &str, key: &str) -> Option<String> {
        lock(&self.0).get(namespace)?.get(key).cloned()
    }

    pub(crate) fn delete(&self, namespace: &str, key: &str) {
        let mut namespaces = lock(&self.0);
        if let Some(values) = namespaces.get_mut(namespace) {
            values.remove(key);
            if values.is_empty() {
                namespaces.remove(namespace);
            }
        }
    }

    pub(crate) fn list(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        lock(&self.0).get(namespace).cloned()
    }
}
