//! Namespaces of the first kind: a prefix that keeps the topics and groups of tenants of one cluster apart.
//!
//! Clients put it before every name that they send and take it off every name that they receive; brokers know nothing
//! of it. Protocol source: `NamespaceUtil`, `NameServerAddressUtils`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{DLQ_PREFIX, NameError, RETRY_PREFIX, check, is_system_topic};

/// The longest namespace, in bytes: with it, a topic still has room for a name of its own.
const MAX_BYTES: usize = 100;

/// What is between a namespace and a name.
const SEPARATOR: char = '%';

/// How the host of an instance's address begins. Java: `NameServerAddressUtils.INSTANCE_PREFIX`.
const INSTANCE_PREFIX: &str = "MQ_INST_";

/// Consumer groups that belong to the broker begin so. Java: `MixAll.isSysConsumerGroup`.
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// A namespace: topics and groups are `<namespace>%<name>` to brokers and `<name>` to users.
///
/// ```
/// use rocketmq_client::protocol::names::Namespace;
///
/// let tenant = Namespace::new("tenant-a").unwrap();
/// assert_eq!(tenant.wrap("orders"), "tenant-a%orders");
/// assert_eq!(tenant.wrap("%RETRY%billing"), "%RETRY%tenant-a%billing");
/// assert_eq!(tenant.unwrap("tenant-a%orders"), "orders");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The namespace and the separator.
    prefix: Arc<str>,
}

impl Namespace {
    /// Checks the name of a namespace.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, longer than 100 bytes, or holds another character than letters, digits, `|`,
    /// `_` and `-`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check("namespace", name, MAX_BYTES)?;
        if name.contains(SEPARATOR) {
            return Err(NameError {
                what: "namespace",
                name: name.into(),
                reason: "'%' ends a namespace, it cannot be in one".into(),
            });
        }
        Ok(Self {
            prefix: format!("{name}{SEPARATOR}").into(),
        })
    }

    /// The namespace in the name of an instance's name server: `MQ_INST_<..>_<..>` before the first dot.
    ///
    /// `address` may begin with a scheme (`http://`). Nothing for any other address.
    #[must_use]
    pub fn of_instance(address: &str) -> Option<Self> {
        let host = address.rsplit_once('/').map_or(address, |(_, host)| host);
        let (instance, _) = host.split_once('.')?;
        let (first, last) = instance.strip_prefix(INSTANCE_PREFIX)?.split_once('_')?;
        let is_word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        (is_word(first) && is_word(last))
            .then(|| Self::new(instance).ok())
            .flatten()
    }

    /// The namespace itself.
    #[must_use]
    pub fn name(&self) -> &str {
        self.prefix.strip_suffix(SEPARATOR).unwrap_or(&self.prefix)
    }

    /// The name of a topic or group as brokers know it. Names of the system and names that are in the namespace
    /// already stay as they are; `%RETRY%` and `%DLQ%` stay in front.
    #[must_use]
    pub fn wrap<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let (front, bare) = split_front(name);
        if bare.is_empty() || bare.starts_with(&*self.prefix) || is_system(name) {
            return Cow::Borrowed(name);
        }
        Cow::Owned([front, &self.prefix, bare].concat())
    }

    /// The name of a topic or group as users know it. Names of other namespaces stay as they are.
    #[must_use]
    pub fn unwrap<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let (front, wrapped) = split_front(name);
        match wrapped.strip_prefix(&*self.prefix) {
            Some(bare) if front.is_empty() => Cow::Borrowed(bare),
            Some(bare) => Cow::Owned([front, bare].concat()),
            None => Cow::Borrowed(name),
        }
    }

    /// Checks that a topic with the namespace before it is not too long for brokers.
    ///
    /// # Errors
    /// [`NameError`], about the bare name.
    pub fn check_topic(&self, topic: &str) -> Result<(), NameError> {
        self.check_len("topic", topic, super::MAX_TOPIC_BYTES)
    }

    /// Checks that a group with the namespace before it is not too long for brokers.
    ///
    /// # Errors
    /// [`NameError`], about the bare name.
    pub fn check_group(&self, group: &str) -> Result<(), NameError> {
        self.check_len("group", group, super::MAX_GROUP_BYTES)
    }

    fn check_len(&self, what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
        let (_, bare) = split_front(name);
        let len = self.wrap(bare).len();
        if len <= max {
            return Ok(());
        }
        Err(NameError {
            what,
            name: name.into(),
            reason: format!("in namespace {self} it has {len} bytes, the limit is {max}"),
        })
    }

    /// As [`unwrap`](Self::unwrap), for the name of a topic that is neither one of retries nor one of dead letters.
    pub(crate) fn unwrap_plain<'a>(&self, topic: &'a str) -> &'a str {
        topic.strip_prefix(&*self.prefix).unwrap_or(topic)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name(), f)
    }
}

/// The retry or dead-letter prefix, and what follows it.
fn split_front(name: &str) -> (&str, &str) {
    let front = [RETRY_PREFIX, DLQ_PREFIX]
        .into_iter()
        .find(|prefix| name.starts_with(prefix));
    name.split_at(front.map_or(0, str::len))
}

fn is_system(name: &str) -> bool {
    is_system_topic(name) || name.starts_with(SYSTEM_GROUP_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        Namespace::new("MQ_INST_1_a").unwrap()
    }

    #[test]
    fn names_are_wrapped_as_java_wraps_them_and_unwrapped_again() {
        for (bare, wrapped) in [
            ("orders", "MQ_INST_1_a%orders"),
            ("%RETRY%billing", "%RETRY%MQ_INST_1_a%billing"),
            ("%DLQ%billing", "%DLQ%MQ_INST_1_a%billing"),
            // Those of the system belong to all.
            ("TBW102", "TBW102"),
            ("RMQ_SYS_TRACE_TOPIC", "RMQ_SYS_TRACE_TOPIC"),
            ("rmq_sys_anything", "rmq_sys_anything"),
            ("CID_RMQ_SYS_TRANS", "CID_RMQ_SYS_TRANS"),
        ] {
            assert_eq!(namespace().wrap(bare), wrapped);
            assert_eq!(namespace().wrap(wrapped), wrapped, "once is enough");
            assert_eq!(namespace().unwrap(wrapped), bare);
            assert_eq!(namespace().unwrap(bare), bare);
        }
        assert_eq!(namespace().unwrap("other%orders"), "other%orders");
        assert_eq!(namespace().wrap(""), "");
    }

    #[test]
    fn an_instance_is_known_by_its_address() {
        let of = |address| Namespace::of_instance(address).map(|found| found.name().to_owned());
        for address in [
            "http://MQ_INST_123_abc.mq.example.com:8080",
            "MQ_INST_123_abc.mq.example.com:80",
        ] {
            assert_eq!(of(address).as_deref(), Some("MQ_INST_123_abc"));
        }
        for address in [
            "127.0.0.1:9876",
            "MQ_INST_123.example.com:80",
            "MQ_INST_1_:9876",
            "xMQ_INST_1_a.b:1",
            "MQ_INST_1-2_a.b:1",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_with_the_namespace_is_refused() {
        assert!(namespace().check_topic(&"t".repeat(115)).is_ok());
        assert_eq!(
            namespace().check_topic(&"t".repeat(116)).unwrap_err().to_string(),
            format!(
                "topic {:?} is not legal: in namespace MQ_INST_1_a it has 128 bytes, the limit is 127",
                "t".repeat(116)
            )
        );
        assert!(namespace().check_group(&"g".repeat(108)).is_ok());
        assert!(namespace().check_group(&"g".repeat(109)).is_err());
    }

    #[test]
    fn what_is_no_namespace_is_refused_with_the_reason() {
        for (name, reason) in [
            ("", "namespace \"\" is not legal: it is empty"),
            (
                "a%b",
                "namespace \"a%b\" is not legal: '%' ends a namespace, it cannot be in one",
            ),
        ] {
            assert_eq!(Namespace::new(name).unwrap_err().to_string(), reason);
        }
        assert!(Namespace::new("a b").is_err());
        assert!(Namespace::new(&"n".repeat(101)).is_err());
    }
}
