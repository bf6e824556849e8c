//! Message properties: `name \x01 value \x02 ...`, kept in that form.
//!
//! Protocol source: `MessageDecoder#messageProperties2String`, `MessageConst`.

use std::fmt;

use super::{CodecError, Text};

const NAME_END: char = '\u{1}';
const PAIR_END: char = '\u{2}';

/// The largest property string that a broker stores, in bytes.
pub const MAX_PROPERTIES_BYTES: usize = 32767;

/// Names of properties that the protocol gives a meaning.
pub mod property {
    /// Index keys, separated by one space.
    pub const KEYS: &str = "KEYS";
    /// The tag.
    pub const TAGS: &str = "TAGS";
    /// Whether the sender waits for the store; `true` unless said otherwise.
    pub const WAIT: &str = "WAIT";
    /// Delay level, 1 to 18.
    pub const DELAY: &str = "DELAY";
    /// Delivery so many seconds from now.
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    /// Delivery so many milliseconds from now.
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    /// Delivery at this time: milliseconds since 1970.
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// When the broker will deliver the message, cut to whole seconds: milliseconds since 1970.
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    /// When the message was put onto the timer wheel.
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    /// When the message was taken off the timer wheel.
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    /// Which timed message is called back: `<topic>+<unique key>`.
    pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
    /// How urgent the message is; brokers from 5.5.0 on look at it.
    pub const PRIORITY: &str = "_SYS_MSG_PRIORITY_";
    /// `reply` on the answer to a request.
    pub const MESSAGE_TYPE: &str = "MSG_TYPE";
    /// The topic that a retried or dead message was first sent to.
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// The namespace of the topic, set by the producer.
    pub const INSTANCE_ID: &str = "INSTANCE_ID";
    /// The destination of a delayed, timed or half message.
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    /// The queue of a delayed, timed or half message.
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    /// `true` on a prepared transaction message.
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    /// The producer group of a transaction message.
    pub const PRODUCER_GROUP: &str = "PGROUP";
    /// The id of the first delivery, on a retried message.
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    /// How often a message that the client itself re-sends to the retry topic was consumed.
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    /// The limit that belongs to [`RECONSUME_TIME`].
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    /// The region of the broker.
    pub const MSG_REGION: &str = "MSG_REGION";
    /// Whether the broker wants the message traced.
    pub const TRACE_ON: &str = "TRACE_ON";
    /// The id that the sending client gave the message.
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    /// The name of the cluster that stored the message.
    pub const CLUSTER: &str = "CLUSTER";
    /// The message group of ordered messages.
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    /// The transaction id on a half message.
    pub const TRANSACTION_ID: &str = "__transactionId__";
    /// How often the producer of a half message was asked.
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    /// For how many seconds the producer of a half message does not want to be asked.
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    /// The first position of a half message that was stored again because it is not to be asked about yet.
    pub const TRANSACTION_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    /// What joins a reply to its request.
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    /// The client that waits for the reply.
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    /// How long the requester waits for the reply, in milliseconds.
    pub const TTL: &str = "TTL";
    /// When the broker passed a reply on: milliseconds since 1970.
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    /// When a reply reached the requester: milliseconds since 1970.
    pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
    /// The [`ReceiptHandle`](crate::protocol::ReceiptHandle) of a popped message.
    pub const POP_CK: &str = "POP_CK";
    /// When a message was first popped: milliseconds since 1970.
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    /// The group to which a popped message comes back. 5.5.
    pub const ORIGIN_GROUP: &str = "ORIGIN_GROUP";

    /// Names that users cannot set as properties of their own, as in `MessageConst.STRING_HASH_SET`.
    pub const RESERVED: &[&str] = &[
        "TRACE_ON",
        "MSG_REGION",
        "KEYS",
        "TAGS",
        "WAIT",
        "DELAY",
        "RETRY_TOPIC",
        "REAL_TOPIC",
        "REAL_QID",
        "TRAN_MSG",
        "PGROUP",
        "MIN_OFFSET",
        "MAX_OFFSET",
        "BUYER_ID",
        "ORIGIN_MESSAGE_ID",
        "TRANSFER_FLAG",
        "CORRECTION_FLAG",
        "MQ2_FLAG",
        "RECONSUME_TIME",
        "UNIQ_KEY",
        "MAX_RECONSUME_TIMES",
        "CONSUME_START_TIME",
        "POP_CK",
        "POP_CK_OFFSET",
        "1ST_POP_TIME",
        "TRAN_PREPARED_QUEUE_OFFSET",
        "DUP_INFO",
        "EXTEND_UNIQ_INFO",
        "INSTANCE_ID",
        "CORRELATION_ID",
        "REPLY_TO_CLIENT",
        "TTL",
        "ARRIVE_TIME",
        "PUSH_REPLY_TIME",
        "CLUSTER",
        "MSG_TYPE",
        "INNER_MULTI_QUEUE_OFFSET",
        "TIMER_DELAY_MS",
        "TIMER_DELAY_SEC",
        "TIMER_DELIVER_MS",
        "TIMER_ENQUEUE_MS",
        "TIMER_DEQUEUE_MS",
        "TIMER_ROLL_TIMES",
        "TIMER_OUT_MS",
        "TIMER_DEL_UNIQKEY",
        "TIMER_DELAY_LEVEL",
        "__BORNHOST",
        "BORN_TIMESTAMP",
        "DLQ_ORIGIN_TOPIC",
        "DLQ_ORIGIN_MESSAGE_ID",
        "_SYS_MSG_PRIORITY_",
        "__CRC32#",
    ];

    /// Whether `name` is one that users cannot set.
    #[must_use]
    pub fn is_reserved(name: &str) -> bool {
        RESERVED.contains(&name)
    }
}

/// The properties of a received message, in the buffer they were received in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Text);

impl Properties {
    /// Takes the property string of the wire.
    #[must_use]
    pub const fn new(text: Text) -> Self {
        Self(text)
    }

    /// The value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        get(&self.0, name)
    }

    /// All pairs in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(self.0.as_str())
    }

    /// The property string of the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The bytes of the property string.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Properties under construction, already in the form of the wire.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PropertiesBuf(String);

impl PropertiesBuf {
    /// No properties.
    #[must_use]
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Sets a property; an earlier value is replaced.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] when the name or the value is empty or holds one of the two separator characters
    /// `\u{1}` and `\u{2}`, which would cut the pair in two on the other side.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), CodecError> {
        for (what, text) in [("property name", name), ("property value", value)] {
            if text.is_empty() {
                return Err(CodecError::invalid(
                    what,
                    0,
                    format!("empty, in property {name:?}"),
                ));
            }
            // Nearly always there is none, and to know only that is cheaper.
            let separates = |byte: u8| byte == NAME_END as u8 || byte == PAIR_END as u8;
            if text.bytes().fold(false, |found, byte| found | separates(byte)) {
                let at = text.bytes().position(separates).unwrap_or_default();
                return Err(CodecError::invalid(
                    what,
                    at,
                    format!("a separator character in property {name:?}"),
                ));
            }
        }
        self.remove(name);
        self.0.reserve(name.len() + value.len() + 2);
        self.0.push_str(name);
        self.0.push(NAME_END);
        self.0.push_str(value);
        self.0.push(PAIR_END);
        Ok(())
    }

    /// Removes a property if it is there.
    pub fn remove(&mut self, name: &str) {
        if get(&self.0, name).is_none() {
            return;
        }
        let kept = pairs(&self.0).filter(|(key, _)| *key != name);
        let rebuilt = kept.fold(String::with_capacity(self.0.len()), |mut text, (key, value)| {
            text.push_str(key);
            text.push(NAME_END);
            text.push_str(value);
            text.push(PAIR_END);
            text
        });
        self.0 = rebuilt;
    }

    /// The value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        get(&self.0, name)
    }

    /// All pairs in the order they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }

    /// The property string of the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The property string of the wire.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl From<&Properties> for PropertiesBuf {
    fn from(properties: &Properties) -> Self {
        Self(properties.iter().fold(
            String::with_capacity(properties.0.len() + 1),
            |mut text, (key, value)| {
                text.push_str(key);
                text.push(NAME_END);
                text.push_str(value);
                text.push(PAIR_END);
                text
            },
        ))
    }
}

impl From<PropertiesBuf> for Properties {
    fn from(properties: PropertiesBuf) -> Self {
        Self(Text::from(properties.0))
    }
}

impl fmt::Debug for PropertiesBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn get<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    pairs(text).find_map(|(key, value)| (key == name).then_some(value))
}

/// As Java reads them: pairs without a name or a value do not count, the last separator may be missing.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(PAIR_END)
        .filter_map(|pair| pair.split_once(NAME_END))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_replaces_and_keeps_the_wire_form() {
        let mut properties = PropertiesBuf::new();
        properties.set("TAGS", "TagA").unwrap();
        properties.set("KEYS", "k1 k2").unwrap();
        properties.set("TAGS", "TagB").unwrap();
        assert_eq!(properties.as_str(), "KEYS\u{1}k1 k2\u{2}TAGS\u{1}TagB\u{2}");
        properties.remove("KEYS");
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("TAGS", "TagB")]);
    }

    #[test]
    fn separators_and_blanks_are_refused_by_name() {
        let mut properties = PropertiesBuf::new();
        let error = properties.set("a", "b\u{2}c").unwrap_err();
        assert_eq!(
            error.to_string(),
            "property value at byte 1: a separator character in property \"a\""
        );
        assert!(properties.set("", "x").is_err());
        assert!(properties.set("x", "").is_err());
        assert_eq!(properties.as_str(), "");
    }

    #[test]
    fn odd_strings_are_read_as_java_reads_them() {
        let properties = Properties::new(Text::from_static(
            "a\u{1}1\u{2}\u{1}x\u{2}b\u{1}\u{2}noise\u{2}c\u{1}3",
        ));
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("a", "1"), ("c", "3")]);
        assert_eq!(properties.get("c"), Some("3"));
        assert_eq!(properties.get("noise"), None);
    }
}
