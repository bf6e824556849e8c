//! How groups get the messages of a topic: by pulls, or by POP.
//!
//! Protocol source: `MessageRequestModeManager`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rocketmq_client::protocol::bodies::RequestMode;

use crate::lock::lock;

/// How many modes may be set.
const MAX_MODES: usize = 64 * 1024;

/// What was set, by topic and group. It outlives both, as on a real broker.
#[derive(Debug, Default)]
pub(crate) struct RequestModes(Mutex<BTreeMap<String, ModesOfGroups>>);

/// The modes of a topic, by group.
type ModesOfGroups = BTreeMap<String, (RequestMode, i32)>;

impl RequestModes {
    /// Sets the mode, and how many neighbours' queues a member pops besides its own. False if there are too many.
    pub(crate) fn set(&self, topic: &str, group: &str, mode: RequestMode, share: i32) -> bool {
        let mut topics = lock(&self.0);
        let count: usize = topics.values().map(BTreeMap::len).sum();
        let is_known = topics.get(topic).is_some_and(|groups| groups.contains_key(group));
        if count >= MAX_MODES && !is_known {
            return false;
        }
        let groups = topics.entry(topic.to_owned()).or_default();
        groups.insert(group.to_owned(), (mode, share));
        true
    }

    pub(crate) fn of(&self, topic: &str, group: &str) -> Option<(RequestMode, i32)> {
        lock(&self.0).get(topic)?.get(group).copied()
    }

    /// Everything that was set: topic, group, mode and share.
    pub(crate) fn all(&self) -> Vec<(String, String, RequestMode, i32)> {
        let topics = lock(&self.0);
        let of_topic = |(topic, groups): (&String, &ModesOfGroups)| {
            let set = groups.iter();
            set.map(|(group, &(mode, share))| (topic.clone(), group.clone(), mode, share))
                .collect::<Vec<_>>()
        };
        topics.iter().flat_map(of_topic).collect()
    }
}
