//! Key-value configuration of the name server.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::lock::lock;

/// How many bytes all names and values may have together.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Values by namespace and key.
#[derive(Debug, Default)]
pub(crate) struct KvConfigs(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

impl KvConfigs {
    /// Sets a value; false if there is no room for it.
    pub(crate) fn put(&self, namespace: String, key: String, value: String) -> bool {
        let mut namespaces = lock(&self.0);
        let bytes = |(namespace, values): (&String, &BTreeMap<String, String>)| {
            namespace.len()
                + values
                    .iter()
                    .map(|(key, value)| key.len() + value.len())
                    .sum::<usize>()
        };
        let new = namespace.len() + key.len() + value.len();
        if namespaces.iter().map(bytes).sum::<usize>().saturating_add(new) > MAX_BYTES {
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
