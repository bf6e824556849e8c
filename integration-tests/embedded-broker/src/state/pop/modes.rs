//! How groups get the messages of a topic: by pulls, or by POP.
//!
//! Protocol source: `MessageRequestModeManager`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rocketmq_client::protocol::bodies::RequestMode;

use crate::lock::lock;

/// What was set, by topic and group. Both exist when it is set, so there is a bound.
#[derive(Debug, Default)]
pub(crate) struct RequestModes(Mutex<BTreeMap<String, ModesOfGroups>>);

/// The modes of a topic, by group.
type ModesOfGroups = BTreeMap<String, (RequestMode, i32)>;

impl RequestModes {
    /// Sets the mode, and how many neighbours' queues a member pops besides its own.
    pub(crate) fn set(&self, topic: &str, group: &str, mode: RequestMode, share: i32) {
        let mut topics = lock(&self.0);
        let groups = topics.entry(topic.to_owned()).or_default();
        groups.insert(group.to_owned(), (mode, share));
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
