//! Bodies of the requests that are about popping.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::{MessageModel, MessageQueue};

/// Java: `BatchAckMessageRequestBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAcks {
    /// What is done with.
    pub acks: Vec<BatchAck>,
    /// The broker.
    pub broker_name: String,
}

/// Messages of one queue that were popped together and are done with. Java: `BatchAck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Which messages: their offsets less the start offset.
    #[serde(rename = "b", alias = "bitSet")]
    pub offsets: OffsetBits,
    /// The group.
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    /// The invisible time of their handles, in milliseconds.
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_time: i64,
    /// The pop time of their handles.
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    /// The queue.
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    /// A [`PopTopic`](crate::protocol::PopTopic).
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    /// The revive queue of their handles.
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    /// The start offset of their handles.
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    /// The topic that was asked for, not its retry topic.
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

/// A set of small numbers, as a Java `BitSet` travels: Base64 of its bytes, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetBits(Vec<u8>);

impl OffsetBits {
    /// Adds a number; takes an eighth of it in bytes. A 16-bit number is far more than one pop spans.
    pub fn insert(&mut self, number: u16) {
        let (byte, bit) = (usize::from(number / 8), number % 8);
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        if let Some(byte) = self.0.get_mut(byte) {
            *byte |= 1 << bit;
        }
    }

    /// The numbers, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().zip(0u64..).flat_map(|(byte, at)| {
            let is_set = move |bit: &u64| byte & (1 << bit) != 0;
            (0..8).filter(is_set).map(move |bit| at * 8 + bit)
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FromIterator<u16> for OffsetBits {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        let mut bits = Self::default();
        for number in numbers {
            bits.insert(number);
        }
        bits
    }
}

impl Serialize for OffsetBits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for OffsetBits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}

/// Who wants to know its share of a topic. Java: `QueryAssignmentRequestBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentQuery {
    /// The member.
    pub client_id: String,
    /// The group.
    pub consumer_group: String,
    /// Whether the members share the messages.
    pub message_model: MessageModel,
    /// The name of a strategy of allocation that the broker has: `AVG` or `AVG_BY_CIRCLE`.
    pub strategy_name: String,
    /// The topic.
    pub topic: String,
}

/// The share of one member. Java: `QueryAssignmentResponseBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignments {
    /// What the member consumes; absent if the broker cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<QueueAssignment>>,
}

/// A queue and how to consume it. Java: `MessageQueueAssignment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueAssignment {
    /// The queue; the number -1 means all of its broker.
    pub message_queue: MessageQueue,
    /// How its messages are got.
    #[serde(default)]
    pub mode: RequestMode,
}

/// How the members of a group get messages of a topic. Java: `MessageRequestMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RequestMode {
    /// Each queue has one owner, who pulls.
    #[default]
    Pull,
    /// The broker hands messages out one by one to whoever asks.
    Pop,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::JsonBody;

    #[test]
    fn acks_travel_as_java_writes_them() {
        let body = r#"{"acks":[{"b":"AQI=","c":"cg","it":60000,"pt":1000,"q":0,"r":"0","rq":3,"so":100,"t":"t"}],"brokerName":"broker-a"}"#;
        let acks = BatchAcks::from_body(body.as_bytes()).unwrap();
        assert_eq!(acks.acks[0].offsets.iter().collect::<Vec<_>>(), [0, 9]);
        assert_eq!(acks.acks[0].offsets.len(), 2);
        assert_eq!(
            (acks.acks[0].start_offset, acks.acks[0].revive_queue_id),
            (100, 3)
        );
        assert_eq!(acks.to_body().unwrap(), body.as_bytes());
        assert_eq!(OffsetBits::from_iter([9, 0, 9]), acks.acks[0].offsets);
    }

    #[test]
    fn long_names_and_bad_bits_are_read_or_refused() {
        let long = br#"{"acks":[{"bitSet":"","consumerGroup":"cg","retry":"1","startOffset":7}]}"#;
        let acks = BatchAcks::from_body(long).unwrap();
        assert_eq!((&*acks.acks[0].retry, acks.acks[0].start_offset), ("1", 7));
        assert!(acks.acks[0].offsets.is_empty());
        assert!(BatchAcks::from_body(br#"{"acks":[{"b":"***"}]}"#).is_err());
    }

    #[test]
    fn an_assignment_says_how_to_consume() {
        let body = br#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"b","queueId":-1,"topic":"t"},"mode":"POP"}]}"#;
        let assigned = Assignments::from_body(body).unwrap();
        let queues = assigned.message_queue_assignments.clone().unwrap();
        assert_eq!(queues[0].message_queue, MessageQueue::new("t", "b", -1));
        assert_eq!(queues[0].mode, RequestMode::Pop);
        assert_eq!(assigned.to_body().unwrap(), &body[..]);
        // Java writes members that are null not at all.
        assert_eq!(
            Assignments::from_body(b"{}").unwrap().message_queue_assignments,
            None
        );
        assert_eq!(Assignments::default().to_body().unwrap(), "{}");
    }

    #[test]
    fn a_question_for_a_share_names_the_strategy() {
        let query = AssignmentQuery {
            client_id: "c".into(),
            consumer_group: "g".into(),
            message_model: MessageModel::Clustering,
            strategy_name: "AVG".into(),
            topic: "t".into(),
        };
        let body = r#"{"clientId":"c","consumerGroup":"g","messageModel":"CLUSTERING","strategyName":"AVG","topic":"t"}"#;
        assert_eq!(query.to_body().unwrap(), body);
    }
}
