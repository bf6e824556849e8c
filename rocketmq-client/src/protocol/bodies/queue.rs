//! Message queues, and maps that have them as keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{self, SerializeMap, SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

/// One queue of a topic on one broker. Cloning copies no text.
///
/// Queues sort by topic, broker and number: the order that all members of a group have to agree on.
/// Java: `org.apache.rocketmq.common.message.MessageQueue`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// The topic.
    pub topic: Arc<str>,
    /// The name of the broker, not its address.
    pub broker_name: Arc<str>,
    /// The number of the queue on this broker, from 0.
    pub queue_id: i32,
}

impl MessageQueue {
    /// Names a queue.
    pub fn new(topic: impl Into<Arc<str>>, broker_name: impl Into<Arc<str>>, queue_id: i32) -> Self {
        Self {
            topic: topic.into(),
            broker_name: broker_name.into(),
            queue_id,
        }
    }
}

impl Serialize for MessageQueue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Java writes members by name; some clients cut them out of the text in that order.
        let mut fields = serializer.serialize_struct("MessageQueue", 3)?;
        fields.serialize_field("brokerName", &*self.broker_name)?;
        fields.serialize_field("queueId", &self.queue_id)?;
        fields.serialize_field("topic", &*self.topic)?;
        fields.end()
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.broker_name, self.queue_id)
    }
}

impl fmt::Debug for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A map with queues as keys. Travels with object keys, as fastjson writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueMap<V>(pub BTreeMap<MessageQueue, V>);

impl<V> Default for QueueMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> FromIterator<(MessageQueue, V)> for QueueMap<V> {
    fn from_iter<I: IntoIterator<Item = (MessageQueue, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl<V: Serialize> Serialize for QueueMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (queue, value) in &self.0 {
            map.serialize_entry(&serde_json::to_string(queue).map_err(ser::Error::custom)?, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for QueueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = QueueMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with message queues as keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<QueueMap<V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if is_reference(&key) {
                        map.next_value::<de::IgnoredAny>()?;
                        continue;
                    }
                    let queue = serde_json::from_str(&key).map_err(de::Error::custom)?;
                    entries.insert(queue, map.next_value()?);
                }
                Ok(QueueMap(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

/// Whether fastjson wrote a reference to what it wrote before, in the place of a queue or of the whole map. What it
/// leads to is elsewhere in the same body already, so it is left out here.
fn is_reference(key: &str) -> bool {
    key == "$ref" || key.starts_with("{\"$ref\"")
}

/// Java: `LockBatchRequestBody`, `UnlockBatchRequestBody`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatch {
    /// The group.
    pub consumer_group: String,
    /// The member that asks.
    pub client_id: String,
    /// Whether other brokers of a set may be left out.
    pub only_this_broker: bool,
    /// The queues to lock or unlock.
    pub mq_set: Vec<MessageQueue>,
}

/// Java: `LockBatchResponseBody`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockedQueues {
    /// The queues that are now locked by the member that asked.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}
