//! What this member subscribes to: a table that may change while the consumer runs.
//!
//! Brokers know a subscription by its version and replace it only by a newer one. A pull names the version that it was
//! made for, and a broker that has not heard of it yet refuses. So a message that an earlier filter would have left out
//! is never passed by a pull of the new one.
//!
//! Protocol source: `ConsumerGroupInfo#updateSubscription`, `PullMessageProcessor`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::filter::Filter;
use crate::protocol::bodies::SubscriptionData;
use crate::sync::lock;

/// The subscriptions of one consumer; whoever reads them gets a table that does not change any more.
#[derive(Debug)]
pub(super) struct Subscriptions {
    table: Mutex<Arc<Table>>,
    /// How often the table changed: what a pull loop looks at instead of the table.
    changes: AtomicU64,
}

/// Topics and what is wanted of them, the retry topic included.
pub(super) type Table = BTreeMap<Arc<str>, Arc<Subscription>>;

/// What is wanted of one topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) filter: Filter,
    /// When it was made, in milliseconds since 1970, and above all earlier ones of this consumer.
    pub(super) version: i64,
}

impl Subscription {
    /// What brokers are told of it.
    pub(super) fn of_topic(&self, topic: &str) -> SubscriptionData {
        self.filter.subscription(topic, self.version)
    }
}

/// What a change of a subscription was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The topic was not subscribed to.
    New,
    /// It was, with another filter.
    Replaced,
    /// It was, with this very filter.
    Nothing,
}

impl Subscriptions {
    pub(super) fn new(topics: BTreeMap<Arc<str>, Filter>, version: i64) -> Self {
        let subscription = |(topic, filter)| (topic, Arc::new(Subscription { filter, version }));
        Self {
            table: Mutex::new(Arc::new(topics.into_iter().map(subscription).collect())),
            changes: AtomicU64::new(0),
        }
    }

    /// As it is now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&lock(&self.table))
    }

    /// What is wanted of a topic; `None` if it is not subscribed to.
    pub(super) fn of(&self, topic: &str) -> Option<Arc<Subscription>> {
        lock(&self.table).get(topic).map(Arc::clone)
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        lock(&self.table).contains_key(topic)
    }

    /// How often the table changed. Read before the table, an unchanged number says that the table is still the same.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Subscribes to a topic from now on; `now` is in milliseconds since 1970.
    pub(super) fn set(&self, topic: &str, filter: Filter, now: i64) -> Change {
        let mut table = lock(&self.table);
        let change = match table.get(topic) {
            Some(known) if known.filter == filter => return Change::Nothing,
            Some(_) => Change::Replaced,
            None => Change::New,
        };
        // The clock may have been set back, and two changes may fall into one millisecond.
        let newest = table.values().map(|subscription| subscription.version).max();
        let version = newest.map_or(now, |newest| now.max(newest.saturating_add(1)));
        let mut next = Table::clone(&table);
        next.insert(topic.into(), Arc::new(Subscription { filter, version }));
        self.replace(&mut table, next);
        change
    }

    /// Gives a topic up. Returns whether it was subscribed to.
    pub(super) fn remove(&self, topic: &str) -> bool {
        let mut table = lock(&self.table);
        if !table.contains_key(topic) {
            return false;
        }
        let mut next = Table::clone(&table);
        next.remove(topic);
        self.replace(&mut table, next);
        true
    }

    fn replace(&self, table: &mut Arc<Table>, next: Table) {
        *table = Arc::new(next);
        // Under the lock: who sees the new number finds the new table.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// What brokers are told.
    pub(super) fn data(&self) -> Vec<SubscriptionData> {
        let data = |(topic, subscription): (&Arc<str>, &Arc<Subscription>)| subscription.of_topic(topic);
        self.table().iter().map(data).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriptions() -> Subscriptions {
        let topics = [("orders", Filter::from("a")), ("%RETRY%billing", Filter::all())];
        let topics = topics.map(|(topic, filter)| (Arc::from(topic), filter));
        Subscriptions::new(BTreeMap::from(topics), 1000)
    }

    #[test]
    fn each_change_has_a_version_of_its_own_above_all_others() {
        let subscriptions = subscriptions();
        let version = |topic: &str| subscriptions.of(topic).map(|found| found.version);
        assert_eq!(version("orders"), Some(1000));
        // The clock was set back.
        assert_eq!(
            subscriptions.set("orders", Filter::from("b"), 7),
            Change::Replaced
        );
        assert_eq!(version("orders"), Some(1001));
        assert_eq!(subscriptions.set("payments", Filter::all(), 1001), Change::New);
        assert_eq!(version("payments"), Some(1002));
        assert_eq!(
            version("%RETRY%billing"),
            Some(1000),
            "what did not change keeps its version"
        );
        assert_eq!(
            subscriptions.set("orders", Filter::from("c"), 5000),
            Change::Replaced
        );
        assert_eq!(version("orders"), Some(5000));
    }

    #[test]
    fn only_what_changes_something_is_counted() {
        let subscriptions = subscriptions();
        let before = subscriptions.table();
        assert_eq!(
            subscriptions.set("orders", Filter::from("a"), 2000),
            Change::Nothing
        );
        assert!(!subscriptions.remove("payments"));
        assert_eq!(subscriptions.changes(), 0);
        assert!(subscriptions.remove("orders"));
        assert_eq!(subscriptions.changes(), 1);
        assert!(!subscriptions.contains("orders"));
        assert!(
            before.contains_key("orders"),
            "who has read the table keeps what it read"
        );
    }

    #[test]
    fn brokers_are_told_every_topic_with_its_version() {
        let subscriptions = subscriptions();
        let _ = subscriptions.set("payments", Filter::from("x || y"), 3000);
        let told: Vec<_> = subscriptions
            .data()
            .into_iter()
            .map(|data| (data.topic, data.sub_string, data.sub_version))
            .collect();
        let wanted = [
            ("%RETRY%billing", "*", 1000),
            ("orders", "a", 1000),
            ("payments", "x || y", 3000),
        ];
        assert_eq!(
            told,
            wanted.map(|(topic, text, version)| (topic.to_owned(), text.to_owned(), version))
        );
    }
}
