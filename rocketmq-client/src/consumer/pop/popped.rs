//! The answer to a pop: its messages, each with the handle by which it is acknowledged.
//!
//! Protocol source: `MQClientAPIImpl#processPopResponse`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

use crate::consumer::received::{Damaged, Received};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::{PopResult, PopResultHeader};
use crate::protocol::{
    CodecError, MessageOffsets, OrderCounts, PopQueue, PopTopic, ReceiptHandle, Record, StartOffsets, Text,
    property,
};

/// What was popped.
#[derive(Debug)]
pub(in crate::consumer) struct Popped {
    pub(in crate::consumer) messages: Vec<(Record, ReceiptHandle)>,
    /// The first message that cannot be read. It comes again.
    pub(in crate::consumer) damaged: Option<Damaged>,
}

/// Reads the answer to a pop of this queue, whose topic `wire_topic` is as brokers name it.
///
/// # Errors
/// [`CodecError`] when the header cannot be read: then no message of the answer can be acknowledged.
pub(in crate::consumer) fn read(
    result: PopResult,
    queue: &MessageQueue,
    wire_topic: &str,
    ordered: bool,
) -> Result<Popped, CodecError> {
    let header = result.header;
    let offsets = Offsets {
        starts: header.start_offset_info.as_deref().unwrap_or_default().parse()?,
        messages: header.msg_offset_info.as_deref().unwrap_or_default().parse()?,
        counts: header.order_count_info.as_deref().unwrap_or_default().parse()?,
        header: &header,
        broker: &queue.broker_name,
    };
    // The copy lets go of the connection's read buffer; see the pull loop.
    let received = Received::read(Bytes::copy_from_slice(&result.messages));
    let mut seen: HashMap<PopQueue, Seen> = HashMap::new();
    let mut messages = Vec::with_capacity(received.records.len());
    for mut record in received.records {
        let Some(handle) = offsets.handle_of(&record, &mut seen) else {
            warn!(%queue, offset = record.queue_offset, "the broker does not say how a message is acknowledged, it comes again");
            continue;
        };
        if ordered {
            let of = PopQueue {
                topic: handle.topic,
                queue_id: handle.queue_id,
            };
            if let Some(count) = offsets.counts.get(of, handle.offset).filter(|&count| count > 0) {
                record.reconsume_times = count;
            }
        }
        if record.topic != *wire_topic {
            // Some brokers show the retry topic that it is stored in.
            record.topic = Text::from(wire_topic);
        }
        messages.push((record, handle));
    }
    Ok(Popped {
        messages,
        damaged: received.damaged,
    })
}

/// What came out of a queue so far.
struct Seen {
    messages: usize,
    /// The offset of the first message.
    first: i64,
}

/// What the header says of all messages together.
struct Offsets<'a> {
    starts: StartOffsets,
    messages: MessageOffsets,
    counts: OrderCounts,
    header: &'a PopResultHeader,
    broker: &'a Arc<str>,
}

impl Offsets<'_> {
    fn handle_of(&self, record: &Record, seen: &mut HashMap<PopQueue, Seen>) -> Option<ReceiptHandle> {
        if let Some(handle) = self.handle_in(record) {
            return Some(handle);
        }
        let queue = self.queue_of(record);
        let seen = seen.entry(queue).or_insert(Seen {
            messages: 0,
            first: record.queue_offset,
        });
        let at = seen.messages;
        seen.messages += 1;
        let (start_offset, offset) = match (self.starts.get(queue), self.messages.get(queue)) {
            // As Java reads a broker that says nothing: the queue was read from its first message on.
            (None, _) if self.starts.0.is_empty() => (seen.first, record.queue_offset),
            (None, _) => return None,
            (Some(start), None) => (start, record.queue_offset),
            (Some(start), Some(offsets)) if offsets.contains(&record.queue_offset) => {
                (start, record.queue_offset)
            }
            // The stored offset is not the one in the queue that was popped: a queue of many topics.
            (Some(start), Some(offsets)) => (start, offsets.get(at).copied()?),
        };
        Some(ReceiptHandle {
            start_offset,
            pop_time: self.header.pop_time,
            invisible_time: self.header.invisible_time,
            revive_queue_id: self.header.revive_qid,
            topic: queue.topic,
            broker_name: Arc::clone(self.broker),
            queue_id: queue.queue_id,
            offset,
        })
    }

    /// The handle that the broker wrote into a message of a retry topic, which it shows under the original topic.
    ///
    /// A producer may have written one as well; only one that this very answer can have made is taken.
    fn handle_in(&self, record: &Record) -> Option<ReceiptHandle> {
        let handle: ReceiptHandle = record.properties.get(property::POP_CK)?.parse().ok()?;
        let is_of_this_answer = handle.pop_time == self.header.pop_time
            && handle.invisible_time == self.header.invisible_time
            && handle.broker_name == *self.broker
            && handle.queue_id == record.queue_id
            && handle.offset == record.queue_offset
            && handle.topic != PopTopic::Normal;
        is_of_this_answer.then_some(handle)
    }

    /// The queue that a message came out of: of the topic that its name says, or of a retry topic that is not shown.
    fn queue_of(&self, record: &Record) -> PopQueue {
        let shown = PopQueue {
            topic: PopTopic::of(&record.topic),
            queue_id: record.queue_id,
        };
        let has = |queue: PopQueue| {
            let offsets = self.messages.get(queue);
            offsets.is_some_and(|offsets| offsets.contains(&record.queue_offset))
        };
        let others = PopTopic::ALL.map(|topic| PopQueue { topic, ..shown });
        std::iter::once(shown)
            .chain(others)
            .find(|&queue| has(queue))
            .unwrap_or(shown)
    }
}

#[cfg(test)]
mod tests;
