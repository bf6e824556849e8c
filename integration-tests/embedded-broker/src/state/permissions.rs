//! Write permissions that the name server has taken from this broker's topics or given back, until a topic changes.
//!
//! Protocol source: `RouteInfoManager#operateWritePermOfBroker`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::bodies::permission;

use super::Topic;
use crate::lock::lock;

/// Permissions in routes that differ from those of the topic, by its name.
///
/// Each stands for the topic as it was: a change of a topic makes a new one, whose own permission counts again, as
/// with a broker that registers the topic anew.
#[derive(Debug, Default)]
pub(crate) struct RoutePermissions(Mutex<HashMap<Arc<str>, AsItWas>>);

/// A topic as it was, and its permission in routes.
type AsItWas = (Arc<Topic>, i32);

impl RoutePermissions {
    /// Takes the write permission of all these topics. Gives their number.
    pub(crate) fn wipe(&self, topics: Vec<Arc<Topic>>) -> usize {
        self.set(topics, |perm| perm & !permission::WRITE)
    }

    /// Lets all these topics be read and written. Gives their number.
    pub(crate) fn add(&self, topics: Vec<Arc<Topic>>) -> usize {
        self.set(topics, |_| permission::READ | permission::WRITE)
    }

    fn set(&self, topics: Vec<Arc<Topic>>, change: impl Fn(i32) -> i32) -> usize {
        let count = topics.len();
        let changed: Vec<_> = topics
            .into_iter()
            .map(|topic| (change(self.of(&topic)), topic))
            .collect();
        let mut table = lock(&self.0);
        // What is left of topics that are gone goes too.
        table.clear();
        table.extend(
            changed
                .into_iter()
                .map(|(perm, topic)| (Arc::clone(&topic.name), (topic, perm))),
        );
        count
    }

    /// The permission of a topic in routes.
    pub(crate) fn of(&self, topic: &Arc<Topic>) -> i32 {
        match lock(&self.0).get(&topic.name) {
            Some((as_it_was, perm)) if Arc::ptr_eq(as_it_was, topic) => *perm,
            _ => topic.config.perm,
        }
    }
}
