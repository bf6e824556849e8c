//! What a broker says of messages that it popped: where they are, and the handle by which each is acknowledged.
//!
//! All of it travels as text: numbers separated by spaces, elements separated by semicolons.
//! Protocol source: `ExtraInfoUtil`, `KeyBuilder`, `MQClientAPIImpl#processPopResponse`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::CodecError;
use super::names::{RETRY_PREFIX, retry_topic};

/// The revive queue in handles of messages that were popped in order.
pub const ORDERED_REVIVE_QUEUE: i32 = 999;

/// Which of the topics that a pop looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PopTopic {
    /// The one that was asked for.
    #[default]
    Normal,
    /// The topic through which the group gets its messages again: `%RETRY%<group>_<topic>`.
    RetryV1,
    /// The same for brokers with `enableRetryTopicV2`: `%RETRY%<group>+<topic>`.
    RetryV2,
}

impl PopTopic {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Normal, Self::RetryV1, Self::RetryV2];

    /// How it is written.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Normal => "0",
            Self::RetryV1 => "1",
            Self::RetryV2 => "2",
        }
    }

    /// Of which kind a topic is, by its name. A `+` makes a retry topic one of the second version.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        match topic.strip_prefix(RETRY_PREFIX) {
            None => Self::Normal,
            Some(rest) if rest.contains('+') => Self::RetryV2,
            Some(_) => Self::RetryV1,
        }
    }

    /// The name of this topic for a topic and a group, each as the broker names it.
    #[must_use]
    pub fn name(self, topic: &str, group: &str) -> String {
        match self {
            Self::Normal => topic.to_owned(),
            Self::RetryV1 => format!("{}_{topic}", retry_topic(group)),
            Self::RetryV2 => format!("{}+{topic}", retry_topic(group)),
        }
    }
}

impl fmt::Display for PopTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl FromStr for PopTopic {
    type Err = CodecError;

    fn from_str(token: &str) -> Result<Self, CodecError> {
        let known = Self::ALL.into_iter().find(|topic| topic.token() == token);
        known.ok_or_else(|| CodecError::invalid("kind of a popped topic", 0, format!("{token:?} is none")))
    }
}

/// Says which delivery of which message is meant. Java: the "extra info" of `ExtraInfoUtil`, which is the property
/// `POP_CK` of a popped message.
///
/// A handle belongs to one delivery: when the invisible time is over, or was changed, a broker does not know it any
/// more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptHandle {
    /// The offset from which the queue was read.
    pub start_offset: i64,
    /// When the message was popped, by the broker's clock: milliseconds since 1970.
    pub pop_time: i64,
    /// For how long nobody else gets it, in milliseconds.
    pub invisible_time: i64,
    /// Where the broker notes that; [`ORDERED_REVIVE_QUEUE`] for messages popped in order.
    pub revive_queue_id: i32,
    /// Of which topic the queue is.
    pub topic: PopTopic,
    /// The broker.
    pub broker_name: Arc<str>,
    /// The queue.
    pub queue_id: i32,
    /// The offset of the message.
    pub offset: i64,
}

impl ReceiptHandle {
    /// Whether the message was popped in order.
    #[must_use]
    pub const fn is_ordered(&self) -> bool {
        self.revive_queue_id == ORDERED_REVIVE_QUEUE
    }

    /// The handle after a change of the invisible time, which the broker answered with these numbers.
    #[must_use]
    pub fn changed(&self, pop_time: i64, invisible_time: i64, revive_queue_id: i32) -> Self {
        Self {
            start_offset: self.offset,
            pop_time,
            invisible_time,
            revive_queue_id,
            ..self.clone()
        }
    }
}

impl fmt::Display for ReceiptHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start_offset,
            pop_time,
            invisible_time,
            revive_queue_id,
            topic,
            broker_name,
            queue_id,
            offset,
        } = self;
        write!(
            f,
            "{start_offset} {pop_time} {invisible_time} {revive_queue_id} {topic} {broker_name} {queue_id} {offset}"
        )
    }
}

impl FromStr for ReceiptHandle {
    type Err = CodecError;

    fn from_str(handle: &str) -> Result<Self, CodecError> {
        const WHAT: &str = "receipt handle";
        let parts: Vec<&str> = handle.split(' ').collect();
        let [
            start_offset,
            pop_time,
            invisible_time,
            revive_queue_id,
            topic,
            broker_name,
            queue_id,
            offset,
        ] = parts[..]
        else {
            return Err(CodecError::invalid(
                WHAT,
                0,
                format!("{} parts instead of 8", parts.len()),
            ));
        };
        Ok(Self {
            start_offset: number(WHAT, start_offset)?,
            pop_time: number(WHAT, pop_time)?,
            invisible_time: number(WHAT, invisible_time)?,
            revive_queue_id: number(WHAT, revive_queue_id)?,
            topic: topic.parse()?,
            broker_name: broker_name.into(),
            queue_id: number(WHAT, queue_id)?,
            offset: number(WHAT, offset)?,
        })
    }
}

/// A queue of a broker that was popped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PopQueue {
    /// Of which topic it is.
    pub topic: PopTopic,
    /// Its number.
    pub queue_id: i32,
}

impl fmt::Display for PopQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.queue_id)
    }
}

/// From which offset each queue was read: `<topic> <queue> <offset>;..`. Java: `startOffsetInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartOffsets(pub Vec<(PopQueue, i64)>);

impl StartOffsets {
    /// The offset from which a queue was read.
    #[must_use]
    pub fn get(&self, queue: PopQueue) -> Option<i64> {
        find(&self.0, queue).copied()
    }
}

impl fmt::Display for StartOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, ';', &self.0, |f, (queue, offset)| {
            write!(f, "{queue} {offset}")
        })
    }
}

impl FromStr for StartOffsets {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<Self, CodecError> {
        const WHAT: &str = "start offsets of a pop";
        let mut offsets = Self::default();
        for [topic, queue_id, offset] in elements(WHAT, text)? {
            let queue = queue(WHAT, topic, queue_id)?;
            offsets.0.push((queue, number(WHAT, offset)?));
        }
        Ok(offsets)
    }
}

/// The offsets of the messages of each queue: `<topic> <queue> <offset>,<offset>..;..`. Java: `msgOffsetInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageOffsets(pub Vec<(PopQueue, Vec<i64>)>);

impl MessageOffsets {
    /// The offsets of the messages of one queue, in the order of the messages.
    #[must_use]
    pub fn get(&self, queue: PopQueue) -> Option<&[i64]> {
        find(&self.0, queue).map(Vec::as_slice)
    }
}

impl fmt::Display for MessageOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, ';', &self.0, |f, (queue, offsets)| {
            write!(f, "{queue} ")?;
            join(f, ',', offsets, |f, offset| write!(f, "{offset}"))
        })
    }
}

impl FromStr for MessageOffsets {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<Self, CodecError> {
        const WHAT: &str = "message offsets of a pop";
        let mut all = Self::default();
        for [topic, queue_id, offsets] in elements(WHAT, text)? {
            let offsets = offsets.split(',').map(|offset| number(WHAT, offset));
            let offsets = offsets.collect::<Result<_, _>>()?;
            all.0.push((queue(WHAT, topic, queue_id)?, offsets));
        }
        Ok(all)
    }
}

/// How often messages that were popped in order had been delivered before. Java: `orderCountInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderCounts {
    /// For single messages: `<topic> qo<queue>%<offset> <count>`. Messages that are new are left out.
    pub messages: Vec<(PopQueue, i64, i32)>,
    /// The lowest count of each queue: `<topic> <queue> <count>`.
    pub queues: Vec<(PopQueue, i32)>,
}

/// What comes before the queue in the count of a single message.
const OF_MESSAGE: &str = "qo";

impl OrderCounts {
    /// How often the message at an offset had been delivered before.
    #[must_use]
    pub fn get(&self, queue: PopQueue, offset: i64) -> Option<i32> {
        let of_message = self
            .messages
            .iter()
            .find(|(known, at, _)| *known == queue && *at == offset);
        match of_message {
            Some((_, _, count)) => Some(*count),
            None => find(&self.queues, queue).copied(),
        }
    }
}

impl fmt::Display for OrderCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, ';', &self.messages, |f, (queue, offset, count)| {
            let PopQueue { topic, queue_id } = queue;
            write!(f, "{topic} {OF_MESSAGE}{queue_id}%{offset} {count}")
        })?;
        if !self.messages.is_empty() && !self.queues.is_empty() {
            f.write_str(";")?;
        }
        join(f, ';', &self.queues, |f, (queue, count)| {
            write!(f, "{queue} {count}")
        })
    }
}

impl FromStr for OrderCounts {
    type Err = CodecError;

    fn from_str(text: &str) -> Result<Self, CodecError> {
        const WHAT: &str = "delivery counts of a pop";
        let mut counts = Self::default();
        for [topic, key, count] in elements(WHAT, text)? {
            let count = number(WHAT, count)?;
            match key.strip_prefix(OF_MESSAGE).and_then(|key| key.split_once('%')) {
                Some((queue_id, offset)) => {
                    let queue = queue(WHAT, topic, queue_id)?;
                    counts.messages.push((queue, number(WHAT, offset)?, count));
                }
                None => counts.queues.push((queue(WHAT, topic, key)?, count)),
            }
        }
        Ok(counts)
    }
}

fn find<T>(pairs: &[(PopQueue, T)], queue: PopQueue) -> Option<&T> {
    pairs
        .iter()
        .find_map(|(known, value)| (*known == queue).then_some(value))
}

fn join<T>(
    f: &mut fmt::Formatter<'_>,
    separator: char,
    values: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            write!(f, "{separator}")?;
        }
        write(f, value)?;
    }
    Ok(())
}

/// The elements of a text, of three parts each. Java takes no element twice.
fn elements<'a>(what: &'static str, text: &'a str) -> Result<Vec<[&'a str; 3]>, CodecError> {
    let mut keys = BTreeSet::new();
    let mut elements = Vec::new();
    for element in text.split(';').filter(|element| !element.is_empty()) {
        let parts: Vec<&str> = element.split(' ').collect();
        let [topic, key, value] = parts[..] else {
            let reason = format!("{} parts instead of 3", parts.len());
            return Err(CodecError::invalid(what, 0, reason));
        };
        if !keys.insert((topic, key)) {
            return Err(CodecError::invalid(
                what,
                0,
                format!("{topic:?} {key:?} is there twice"),
            ));
        }
        elements.push([topic, key, value]);
    }
    Ok(elements)
}

fn queue(what: &'static str, topic: &str, queue_id: &str) -> Result<PopQueue, CodecError> {
    Ok(PopQueue {
        topic: topic.parse()?,
        queue_id: number(what, queue_id)?,
    })
}

fn number<T: FromStr>(what: &'static str, text: &str) -> Result<T, CodecError> {
    text.parse()
        .map_err(|_| CodecError::invalid(what, 0, format!("{text:?} is no number")))
}

#[cfg(test)]
mod tests;
