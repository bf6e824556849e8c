//! The merged values: for each path the value of the highest layer, and where it came from.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::Origin;
use super::keys::Key;
use super::value::{Value, relaxed};

/// One value and the layer that gave it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// The path as the user wrote it, for messages.
    pub(crate) written: String,
}

/// Values by canonical path: `spring.cloud.stream.bindings.ordersin0.consumer.concurrency`. A binding stands in
/// it by its identity, see [`relaxed`]; the names as written are kept beside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, Setting>,
    names: BTreeMap<String, (String, Origin)>,
}

impl Settings {
    /// Sets a value, whatever was there.
    pub(crate) fn put(&mut self, path: String, setting: Setting) {
        self.values.insert(path, setting);
    }

    /// The value at a canonical path.
    pub(crate) fn at(&self, path: &str) -> Option<&Setting> {
        self.values.get(path)
    }

    /// Everything below a canonical prefix that ends with a dot.
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        self.values
            .range(prefix.to_owned()..)
            .map_while(move |(path, setting)| path.strip_prefix(prefix).map(|rest| (rest, setting)))
    }

    /// Remembers how and where a binding is written; the first spelling stays, so files go before the environment.
    pub(crate) fn name(&mut self, written: &str, origin: &Origin) {
        self.names
            .entry(relaxed(written))
            .or_insert_with(|| (written.to_owned(), origin.clone()));
    }

    /// The bindings that are configured, as written.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(|(written, _)| written.as_str())
    }

    /// How a binding is written, if it is configured.
    pub(crate) fn written(&self, binding: &str) -> Option<&str> {
        self.names
            .get(&relaxed(binding))
            .map(|(written, _)| written.as_str())
    }

    /// Where a binding was named first.
    pub(crate) fn named_at(&self, binding: &str) -> Origin {
        self.names
            .get(&relaxed(binding))
            .map(|(_, origin)| origin.clone())
            .unwrap_or_default()
    }

    /// What was set for a key: the binding's own value, else that of `default`, else that of the binder.
    pub(crate) fn set(&self, key: &Key, binding: &str) -> Option<&Setting> {
        let identity = relaxed(binding);
        key.patterns()
            .rev()
            .find_map(|pattern| self.values.get(&pattern.replace('*', &identity)))
    }

    /// As [`set`](Self::set), else the built-in default.
    fn effective(&self, key: &Key, binding: &str) -> Option<Value> {
        match self.set(key, binding) {
            Some(setting) => Some(setting.value.clone()),
            None => key.default.and_then(|text| key.kind.read(text).ok()),
        }
    }

    pub(crate) fn text(&self, key: &Key, binding: &str) -> Option<String> {
        match self.effective(key, binding)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self, key: &Key) -> Vec<String> {
        match self.effective(key, "") {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    /// A whole number; 0 when the table gives none, which its test excludes.
    pub(crate) fn integer(&self, key: &Key, binding: &str) -> i64 {
        match self.effective(key, binding) {
            Some(Value::Integer(number)) => number,
            _ => 0,
        }
    }

    /// A whole number that the table bounds to `u32`.
    pub(crate) fn count(&self, key: &Key, binding: &str) -> u32 {
        u32::try_from(self.integer(key, binding)).unwrap_or(0)
    }

    pub(crate) fn float(&self, key: &Key, binding: &str) -> f64 {
        match self.effective(key, binding) {
            Some(Value::Float(number)) => number,
            _ => 0.0,
        }
    }

    pub(crate) fn flag(&self, key: &Key, binding: &str) -> bool {
        self.effective(key, binding) == Some(Value::Bool(true))
    }

    pub(crate) fn duration(&self, key: &Key, binding: &str) -> Duration {
        match self.effective(key, binding) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }
}
