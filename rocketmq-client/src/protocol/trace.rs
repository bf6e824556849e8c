//! Records of message trace: what happened to a message, as clients write it to the trace topic.
//!
//! The body of a trace message is records back to back, each ended by `\u{2}`, its fields separated by `\u{1}`.
//! Protocol source: `TraceDataEncoder`.

use std::fmt::{self, Write};
use std::str::FromStr;

use super::CodecError;

/// The topic that trace records go to unless another one is named.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// The region of brokers that are configured with none.
pub const DEFAULT_REGION: &str = "DefaultRegion";

const FIELD: char = '\u{1}';
const END: char = '\u{2}';
/// What Java writes for text that is not there.
const NULL: &str = "null";

/// What kind of message was sent. Java: `MessageType`, by its ordinal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceMessageType(pub i32);

impl TraceMessageType {
    /// An ordinary message.
    pub const NORMAL: Self = Self(0);
    /// The half message of a transaction.
    pub const HALF: Self = Self(1);
    /// A message whose transaction was ended.
    pub const COMMIT: Self = Self(2);
    /// A message that is delivered later.
    pub const DELAY: Self = Self(3);
    /// An ordered message; no client writes it.
    pub const ORDER: Self = Self(4);
}

/// One record. The variants and their fields have Java's names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceRecord {
    /// A message was sent.
    Pub(PubTrace),
    /// A message is about to be handed to its consumer.
    SubBefore(SubBeforeTrace),
    /// A consumer is done with a message.
    SubAfter(SubAfterTrace),
    /// A transaction was ended.
    EndTransaction(EndTransactionTrace),
    /// A delayed message was recalled.
    Recall(RecallTrace),
}

/// A message was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PubTrace {
    /// When the send began, in milliseconds since 1970.
    pub timestamp: i64,
    /// The region of the broker.
    pub region: String,
    /// The producer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The id that the producer gave the message.
    pub message_id: String,
    /// The tag.
    pub tags: Option<String>,
    /// The keys, separated by a space.
    pub keys: Option<String>,
    /// The address of the broker.
    pub store_host: String,
    /// The size of the body in bytes, as it was sent.
    pub body_length: u64,
    /// How long the send took, in milliseconds.
    pub cost: i64,
    /// The kind of the message.
    pub message_type: TraceMessageType,
    /// The id that says where the broker stored the message.
    pub offset_message_id: Option<String>,
    /// Whether it is stored as safely as the broker is configured to.
    pub success: bool,
}

/// A message is about to be handed to its consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubBeforeTrace {
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
    /// The region of the broker.
    pub region: String,
    /// The consumer group.
    pub group: String,
    /// Pairs this record with the one that follows.
    pub request_id: String,
    /// The id that the producer gave the message.
    pub message_id: String,
    /// How often the message was delivered before.
    pub retry_times: i32,
    /// The keys, separated by a space.
    pub keys: Option<String>,
}

/// A consumer is done with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubAfterTrace {
    /// Pairs this record with the one before.
    pub request_id: String,
    /// The id that the producer gave the message.
    pub message_id: String,
    /// How long it took, in milliseconds.
    pub cost: i64,
    /// Whether the message was acknowledged.
    pub success: bool,
    /// The keys, separated by a space.
    pub keys: Option<String>,
    /// What came of it. Java: `ConsumeReturnType`, by its ordinal.
    pub context_code: i32,
    /// When, in milliseconds since 1970; old clients do not say.
    pub timestamp: Option<i64>,
    /// The consumer group; old clients do not say.
    pub group: Option<String>,
}

impl SubAfterTrace {
    /// The handler acknowledged the message.
    pub const SUCCESS: i32 = 0;
    /// The handler took too long.
    pub const TIME_OUT: i32 = 1;
    /// The handler failed.
    pub const EXCEPTION: i32 = 2;
    /// The handler decided nothing; no client but Java's has that.
    pub const RETURN_NULL: i32 = 3;
    /// The handler wants the message again.
    pub const FAILED: i32 = 4;
}

/// A transaction was ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndTransactionTrace {
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
    /// The region of the broker.
    pub region: String,
    /// The producer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The id that the producer gave the message.
    pub message_id: String,
    /// The tag.
    pub tags: Option<String>,
    /// The keys, separated by a space.
    pub keys: Option<String>,
    /// The address of the broker.
    pub store_host: String,
    /// The kind of the message: [`TraceMessageType::COMMIT`], whatever the outcome.
    pub message_type: TraceMessageType,
    /// The id of the transaction.
    pub transaction_id: Option<String>,
    /// The outcome: `COMMIT_MESSAGE`, `ROLLBACK_MESSAGE` or `UNKNOW`.
    pub state: String,
    /// Whether the broker had asked for the outcome.
    pub from_check: bool,
}

/// A delayed message was recalled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecallTrace {
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
    /// The region of the broker.
    pub region: String,
    /// The producer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The id that the producer gave the message.
    pub message_id: String,
    /// Whether the broker took it back.
    pub success: bool,
}

impl TraceRecord {
    /// Appends the record.
    pub fn encode(&self, out: &mut String) {
        let mut line = Line { out, first: true };
        match self {
            Self::Pub(it) => {
                line.put("Pub").put(it.timestamp).put(&it.region).put(&it.group);
                line.put(&it.topic).put(&it.message_id);
                line.text(it.tags.as_deref()).text(it.keys.as_deref());
                line.put(&it.store_host).put(it.body_length).put(it.cost);
                line.put(it.message_type.0);
                line.text(it.offset_message_id.as_deref()).put(it.success);
            }
            Self::SubBefore(it) => {
                line.put("SubBefore").put(it.timestamp).put(&it.region);
                line.put(&it.group).put(&it.request_id).put(&it.message_id);
                line.put(it.retry_times).text(it.keys.as_deref());
            }
            Self::SubAfter(it) => {
                line.put("SubAfter").put(&it.request_id).put(&it.message_id);
                line.put(it.cost).put(it.success).text(it.keys.as_deref());
                line.put(it.context_code);
                match it.timestamp {
                    Some(timestamp) => line.put(timestamp).text(it.group.as_deref()),
                    // The separator is written all the same.
                    None => line.put(""),
                };
            }
            Self::EndTransaction(it) => {
                line.put("EndTransaction").put(it.timestamp).put(&it.region);
                line.put(&it.group).put(&it.topic).put(&it.message_id);
                line.text(it.tags.as_deref()).text(it.keys.as_deref());
                line.put(&it.store_host).put(it.message_type.0);
                line.text(it.transaction_id.as_deref())
                    .put(&it.state)
                    .put(it.from_check);
            }
            Self::Recall(it) => {
                line.put("Recall")
                    .put(it.timestamp)
                    .put(&it.region)
                    .put(&it.group);
                line.put(&it.topic).put(&it.message_id).put(it.success);
            }
        }
        out.push(END);
    }

    /// Reads the records of a trace message.
    ///
    /// Records of kinds that are not known here are left out, as Java does.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] with the place of the first record that cannot be read.
    pub fn decode_all(body: &str) -> Result<Vec<Self>, CodecError> {
        let mut records = Vec::new();
        let mut offset = 0;
        for text in body.split_terminator(END) {
            let fields = Row {
                fields: text.split(FIELD).collect(),
                offset,
            };
            records.extend(Self::read(&fields)?);
            offset += text.len() + END.len_utf8();
        }
        Ok(records)
    }

    fn read(row: &Row<'_>) -> Result<Option<Self>, CodecError> {
        Ok(Some(match row.fields.first().copied().unwrap_or_default() {
            "Pub" => Self::Pub(PubTrace {
                timestamp: row.number(1)?,
                region: row.text(2)?,
                group: row.text(3)?,
                topic: row.text(4)?,
                message_id: row.text(5)?,
                tags: row.optional(6),
                keys: row.optional(7),
                store_host: row.text(8)?,
                body_length: row.number(9)?,
                cost: row.number(10)?,
                message_type: TraceMessageType(row.number(11)?),
                // Before 4.6 there was no id between type and success.
                offset_message_id: (row.len() > 13).then(|| row.optional(12)).flatten(),
                success: row.bool(if row.len() > 13 { 13 } else { 12 }),
            }),
            "SubBefore" => Self::SubBefore(SubBeforeTrace {
                timestamp: row.number(1)?,
                region: row.text(2)?,
                group: row.text(3)?,
                request_id: row.text(4)?,
                message_id: row.text(5)?,
                retry_times: row.number(6)?,
                keys: row.optional(7),
            }),
            "SubAfter" => Self::SubAfter(SubAfterTrace {
                request_id: row.text(1)?,
                message_id: row.text(2)?,
                cost: row.number(3)?,
                success: row.bool(4),
                keys: row.optional(5),
                context_code: match row.optional(6) {
                    Some(_) => row.number(6)?,
                    None => 0,
                },
                timestamp: (row.len() > 8).then(|| row.number(7)).transpose()?,
                group: row.optional(8),
            }),
            "EndTransaction" => Self::EndTransaction(EndTransactionTrace {
                timestamp: row.number(1)?,
                region: row.text(2)?,
                group: row.text(3)?,
                topic: row.text(4)?,
                message_id: row.text(5)?,
                tags: row.optional(6),
                keys: row.optional(7),
                store_host: row.text(8)?,
                message_type: TraceMessageType(row.number(9)?),
                transaction_id: row.optional(10),
                state: row.text(11)?,
                from_check: row.bool(12),
            }),
            "Recall" => Self::Recall(RecallTrace {
                timestamp: row.number(1)?,
                region: row.text(2)?,
                group: row.text(3)?,
                topic: row.text(4)?,
                message_id: row.text(5)?,
                success: row.bool(6),
            }),
            _ => return Ok(None),
        }))
    }

    /// The id of the message that the record is about.
    #[must_use]
    pub fn message_id(&self) -> &str {
        match self {
            Self::Pub(it) => &it.message_id,
            Self::SubBefore(it) => &it.message_id,
            Self::SubAfter(it) => &it.message_id,
            Self::EndTransaction(it) => &it.message_id,
            Self::Recall(it) => &it.message_id,
        }
    }

    /// The keys of the message that the record is about, separated by a space.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        match self {
            Self::Pub(it) => it.keys.as_deref(),
            Self::SubBefore(it) => it.keys.as_deref(),
            Self::SubAfter(it) => it.keys.as_deref(),
            Self::EndTransaction(it) => it.keys.as_deref(),
            Self::Recall(_) => None,
        }
    }
}

struct Line<'a> {
    out: &'a mut String,
    first: bool,
}

impl Line<'_> {
    fn put(&mut self, value: impl fmt::Display) -> &mut Self {
        if !self.first {
            self.out.push(FIELD);
        }
        self.first = false;
        // Writing to a string does not fail.
        let _ = write!(self.out, "{value}");
        self
    }

    fn text(&mut self, value: Option<&str>) -> &mut Self {
        // An empty last field is lost on Java's readers.
        self.put(value.filter(|text| !text.is_empty()).unwrap_or(NULL))
    }
}

struct Row<'a> {
    fields: Vec<&'a str>,
    /// Where the record starts in the body.
    offset: usize,
}

impl Row<'_> {
    fn len(&self) -> usize {
        self.fields.len()
    }

    fn field(&self, index: usize) -> Result<&str, CodecError> {
        self.fields.get(index).copied().ok_or_else(|| {
            let reason = format!("it has {} fields, one more is needed", self.len());
            CodecError::invalid("trace record", self.offset, reason)
        })
    }

    fn text(&self, index: usize) -> Result<String, CodecError> {
        self.field(index).map(str::to_owned)
    }

    fn optional(&self, index: usize) -> Option<String> {
        let text = self.fields.get(index)?;
        (!text.is_empty() && *text != NULL).then(|| (*text).to_owned())
    }

    fn number<T: FromStr>(&self, index: usize) -> Result<T, CodecError> {
        let text = self.field(index)?;
        text.parse().map_err(|_| {
            let reason = format!("field {index} is no number: {text:?}");
            CodecError::invalid("trace record", self.offset, reason)
        })
    }

    /// Java: `Boolean.parseBoolean`.
    fn bool(&self, index: usize) -> bool {
        let text = self.fields.get(index).copied().unwrap_or_default();
        text.eq_ignore_ascii_case("true")
    }
}

#[cfg(test)]
mod tests;
