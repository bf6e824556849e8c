//! Whether the members of the group agree on what they subscribe to.
//!
//! A broker keeps one subscription for each group and topic, the newest. A member that subscribed otherwise is served
//! by it all the same: it misses messages, or its pulls fail. Java leaves the user to find that out.
//!
//! Subscriptions may change while the group runs. What a broker has just not heard of yet is no difference: it keeps
//! something older. A group whose members are changed one by one does differ until the last of them is, and hears so.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tracing::{debug, warn};

use super::engine::Engine;
use super::subscriptions::Table;
use crate::protocol::bodies::SubscriptionData;
use crate::sync::lock;

impl Engine {
    /// Compares this member's subscriptions with those that a broker keeps for the group, and warns of each difference
    /// once.
    pub(super) async fn check_agreement(&self) {
        let queue = lock(&self.assignment)
            .iter()
            .map(|(queue, _)| queue.clone())
            .find(|queue| queue.topic != self.retry_topic);
        let Some(queue) = queue else { return };
        let changes = self.subscriptions.changes();
        let kept = match self.remote.subscriptions(&queue.broker_name).await {
            Ok(kept) => kept,
            Err(error) => {
                debug!(group = %self.group, %error, "the group's subscriptions are not known");
                return;
            }
        };
        let found = differences(&self.subscriptions.table(), &kept);
        if self.subscriptions.changes() != changes {
            // The answer was about what is no longer subscribed to.
            return;
        }
        let mut known = lock(&self.differences);
        if *known == found {
            return;
        }
        for difference in &found {
            self.counters
                .subscription_conflicts
                .fetch_add(1, Ordering::Relaxed);
            warn!(
                group = %self.group, difference,
                "members of one group subscribe differently, so some of them miss messages; give them the same \
                 subscriptions or groups of their own"
            );
        }
        *known = found;
    }
}

/// What a broker keeps that is not what this member said.
fn differences(ours: &Table, kept: &BTreeMap<String, SubscriptionData>) -> Vec<String> {
    let mut differences = Vec::new();
    for (topic, subscription) in ours {
        let filter = &subscription.filter;
        match kept.get(&**topic) {
            None => differences.push(format!("{topic}: this member wants it, the group does not")),
            // The broker has not heard of this member's change: it does not serve by the older one either.
            Some(other) if other.sub_version < subscription.version => {}
            Some(other) if !filter.is(other) => differences.push(format!(
                "{topic}: this member wants {filter}, the group {}",
                other.sub_string
            )),
            Some(_) => {}
        }
    }
    for topic in kept.keys().filter(|topic| !ours.contains_key(topic.as_str())) {
        differences.push(format!("{topic}: the group wants it, this member does not"));
    }
    differences
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::consumer::filter::Filter;
    use crate::consumer::subscriptions::Subscriptions;

    fn ours(topics: &[(&str, &str)]) -> Arc<Table> {
        let filters = topics
            .iter()
            .map(|&(topic, expression)| (Arc::from(topic), Filter::from(expression)));
        Subscriptions::new(filters.collect(), 1).table()
    }

    fn kept(topics: &[(&str, &str)]) -> BTreeMap<String, SubscriptionData> {
        let subscription = |(topic, expression): &(&str, &str)| {
            let data = SubscriptionData::by_tags(topic, expression, 1);
            ((*topic).to_owned(), data)
        };
        topics.iter().map(subscription).collect()
    }

    #[test]
    fn the_same_in_other_words_is_no_difference() {
        let ours = ours(&[("orders", "a || b"), ("payments", "*")]);
        let same = kept(&[("orders", "b||a"), ("payments", "*")]);
        assert_eq!(differences(&ours, &same), Vec::<String>::new());
    }

    #[test]
    fn every_difference_names_the_topic_and_both_sides() {
        let ours = ours(&[("orders", "a"), ("payments", "*")]);
        let other = kept(&[("orders", "a || c"), ("refunds", "*")]);
        assert_eq!(
            differences(&ours, &other),
            [
                "orders: this member wants a, the group a || c",
                "payments: this member wants it, the group does not",
                "refunds: the group wants it, this member does not",
            ]
        );
    }

    #[test]
    fn what_a_broker_has_not_heard_of_yet_is_no_difference() {
        let subscriptions = Subscriptions::new(BTreeMap::from([(Arc::from("orders"), Filter::from("a"))]), 1);
        let older = kept(&[("orders", "a")]);
        let _ = subscriptions.set("orders", Filter::from("b"), 2);
        assert_eq!(differences(&subscriptions.table(), &older), Vec::<String>::new());
        let mut newer = kept(&[("orders", "c")]);
        newer.values_mut().for_each(|data| data.sub_version = 2);
        assert_eq!(
            differences(&subscriptions.table(), &newer),
            ["orders: this member wants b, the group c"]
        );
    }
}
