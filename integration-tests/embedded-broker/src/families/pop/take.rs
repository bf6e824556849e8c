//! Taking messages out of queues: which queues in which order, and what the client is told of each.
//!
//! Protocol source: `PopMessageProcessor#popMsgFromTopic`, `#popMsgFromQueue`, `#getPopOffset`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::requests::{PopMessage, PopResultHeader, init_mode};
use rocketmq_client::protocol::{
    CodecError, MessageOffsets, ORDERED_REVIVE_QUEUE, PopQueue, PopTopic, Properties, PropertiesBuf,
    ReceiptHandle, Record, StartOffsets, property,
};

use super::Allowed;
use crate::broker::Broker;
use crate::lock::lock;
use crate::state::{CheckPoint, Handed, HandedOut, Place, REVIVE_QUEUES, Topic};
use crate::store::{Batch, BatchStatus};
use crate::wait::pop::{launch, retry_version, watch_order};

/// What a pop took, and what the client has to know of it.
#[derive(Debug, Default)]
pub(super) struct Popped {
    pub(super) messages: Vec<Bytes>,
    /// How many messages are left in the queues that were looked at.
    pub(super) rest: i64,
    /// Whether the group's offset of any queue was moved.
    pub(super) moved: bool,
    pop_time: i64,
    revive_queue_id: i32,
    start_offsets: StartOffsets,
    message_offsets: MessageOffsets,
    order_counts: Option<String>,
}

impl Popped {
    pub(super) fn header(&self, request: &PopMessage) -> PopResultHeader {
        PopResultHeader {
            pop_time: self.pop_time,
            invisible_time: request.invisible_time,
            revive_qid: self.revive_queue_id,
            rest_num: self.rest,
            start_offset_info: Some(self.start_offsets.to_string()),
            msg_offset_info: Some(self.message_offsets.to_string()),
            order_count_info: self.order_counts.clone(),
        }
    }
}

/// Takes what there is: mostly first from the topic and then from its retries, now and then the other way round, so
/// that neither starves. In order there are no retries.
pub(super) fn take(broker: &Broker, request: &PopMessage, allowed: &Allowed) -> Popped {
    let _turn = lock(&broker.popping);
    let in_order = request.order.unwrap_or(false);
    let random = broker.random(100);
    let has_priority = !in_order && pops_by_priority(allowed, random);
    let mut taking = Taking {
        broker,
        request,
        allowed,
        in_order,
        popped: Popped {
            pop_time: broker.clock.now(),
            revive_queue_id: match in_order {
                true => ORDERED_REVIVE_QUEUE,
                false => broker.any_queue(REVIVE_QUEUES).unwrap_or(0),
            },
            order_counts: in_order.then(String::new),
            ..Popped::default()
        },
    };
    let probability = match has_priority {
        true => broker.settings.number("popFromRetryProbabilityForPriority"),
        false => broker.settings.number("popFromRetryProbability"),
    };
    let version = match retry_version(broker) {
        PopTopic::RetryV2
            if random.is_multiple_of(2) && broker.settings.is_on("retrieveMessageFromPopRetryTopicV1") =>
        {
            PopTopic::RetryV1
        }
        version => version,
    };
    let retries_first = i64::from(random) < probability;
    let first_queue = if has_priority { 0 } else { random };
    if retries_first && !in_order {
        taking.look_at_retries(version, first_queue);
    }
    match request.queue_id {
        ..0 => taking.look_at_topic(&allowed.topic, first_queue),
        queue_id => taking.look_at_queue(&allowed.topic, queue_id),
    }
    if !retries_first && !in_order && !taking.is_full() {
        taking.look_at_retries(version, first_queue);
    }
    taking.popped
}

/// Whether queues of messages with higher priorities come first. Java: `SubscriptionGroupConfig#getPriorityFactor`.
fn pops_by_priority(allowed: &Allowed, random: u32) -> bool {
    let message_type = allowed.topic.config.attributes.get("message.type");
    let factor = allowed.group.attributes.get("priority.factor");
    let factor = factor.and_then(|factor| factor.parse().ok()).unwrap_or(100);
    message_type.is_some_and(|kind| kind.eq_ignore_ascii_case("PRIORITY")) && random < factor
}

struct Taking<'a> {
    broker: &'a Broker,
    request: &'a PopMessage,
    allowed: &'a Allowed,
    in_order: bool,
    popped: Popped,
}

impl Taking<'_> {
    /// How many more messages are wanted.
    fn wanted(&self) -> i32 {
        let taken = i32::try_from(self.popped.messages.len()).unwrap_or(i32::MAX);
        self.request.max_msg_nums.saturating_sub(taken)
    }

    fn is_full(&self) -> bool {
        self.wanted() <= 0
    }

    fn look_at_retries(&mut self, version: PopTopic, first_queue: u32) {
        let name = version.name(&self.allowed.topic.name, &self.request.consumer_group);
        if let Some(topic) = self.broker.topics.get(&name) {
            self.look_at_topic(&topic, first_queue);
        }
    }

    /// All queues of a topic, from a random one on, downwards: there the higher priorities are first.
    fn look_at_topic(&mut self, topic: &Arc<Topic>, first_queue: u32) {
        let queues = i64::from(topic.config.read_queue_nums);
        for step in (0..queues).rev() {
            let queue_id = (i64::from(first_queue) + step) % queues;
            self.look_at_queue(topic, i32::try_from(queue_id).unwrap_or(0));
        }
    }

    fn look_at_queue(&mut self, topic: &Arc<Topic>, queue_id: i32) {
        let Self { broker, request, .. } = *self;
        let place = Place {
            group: request.consumer_group.as_str().into(),
            topic: Arc::clone(&topic.name),
            queue_id,
        };
        let start = self.start_offset(&place);
        let is_blocked = self.in_order
            && broker.orders.is_blocked(
                &place,
                request.attempt_id.as_deref(),
                request.invisible_time,
                broker.clock.now(),
            );
        // What is behind a queue that waits is not counted: nobody could get it.
        if is_blocked {
            return;
        }
        if self.is_full() || !(self.in_order || broker.flight.has_room()) {
            self.popped.rest += broker.store.range(&topic.name, queue_id).max - start;
            return;
        }
        let batch = self.read(&place, start);
        if batch.messages.is_empty() {
            if batch.status == BatchStatus::NoMatchedMessage {
                self.commit(&place, batch.next);
            }
        } else {
            self.hand_out(&place, start, &batch);
        }
        self.popped.rest += batch.max - batch.next;
    }

    /// Where the group goes on in a queue.
    fn start_offset(&mut self, place: &Place) -> i64 {
        let Self { broker, request, .. } = *self;
        let Place {
            group,
            topic,
            queue_id,
        } = place;
        if let Some(offset) = broker.offsets.take_reset(group, topic, *queue_id) {
            broker.orders.clear(place);
            self.commit(place, offset);
            return offset;
        }
        if let Some(offset) = broker
            .offsets
            .committed(group, topic, *queue_id)
            .filter(|offset| *offset >= 0)
        {
            return offset;
        }
        let range = broker.store.range(topic, *queue_id);
        let offset = match request.init_mode {
            init_mode::MIN => range.min,
            _ if topic.starts_with(RETRY_PREFIX) => range.min,
            // A young queue is read from its start, also by a group that starts at the end: all of it is in memory.
            _ if range.min <= 0 => 0,
            // One message is read again.
            _ => (range.max - 1).max(0),
        };
        self.commit(place, offset);
        offset
    }

    fn commit(&mut self, place: &Place, offset: i64) {
        let known = self
            .broker
            .offsets
            .committed(&place.group, &place.topic, place.queue_id);
        self.broker
            .offsets
            .commit(&place.group, &place.topic, place.queue_id, offset);
        self.popped.moved |= known != Some(offset);
    }

    fn read(&mut self, place: &Place, start: i64) -> Batch {
        let wanted = self.wanted();
        let filter = &self.allowed.filter;
        let read = |offset| {
            self.broker
                .store
                .read(&place.topic, place.queue_id, offset, wanted, filter, || None)
        };
        let batch = read(start);
        if !matches!(
            batch.status,
            BatchStatus::OffsetTooSmall | BatchStatus::OffsetOverflowBadly
        ) {
            return batch;
        }
        // Messages were evicted, or a tool has put the group somewhere else.
        let again = read(batch.next);
        self.commit(place, batch.next);
        again
    }

    fn hand_out(&mut self, place: &Place, start: i64, batch: &Batch) {
        let offsets: Vec<i64> = batch
            .messages
            .iter()
            .filter_map(|record| queue_offset(record))
            .collect();
        let kind = PopTopic::of(&place.topic);
        let handle = |offset| ReceiptHandle {
            start_offset: start,
            pop_time: self.popped.pop_time,
            invisible_time: self.request.invisible_time,
            revive_queue_id: self.popped.revive_queue_id,
            topic: kind,
            broker_name: self.broker.options.broker_name.as_str().into(),
            queue_id: place.queue_id,
            offset,
        };
        let shows_retries = self.broker.settings.is_on("popResponseReturnActualRetryTopic");
        if kind == PopTopic::Normal || shows_retries {
            self.popped.messages.extend(batch.messages.iter().cloned());
        } else {
            for (record, &offset) in batch.messages.iter().zip(&offsets) {
                match disguised(record, &self.allowed.topic, &handle(offset)) {
                    Ok(message) => self.popped.messages.push(message),
                    // It comes back with the others that are not acknowledged.
                    Err(error) => {
                        tracing::error!(%error, topic = &*place.topic, offset, "a message cannot be popped");
                    }
                }
            }
        }
        let queue = PopQueue {
            topic: kind,
            queue_id: place.queue_id,
        };
        if self.in_order {
            let handed = HandedOut {
                attempt_id: self.request.attempt_id.as_deref(),
                pop_time: self.popped.pop_time,
                invisible: self.request.invisible_time,
                offsets: &offsets,
            };
            let told = self.popped.order_counts.get_or_insert_default();
            self.broker.orders.hand_out(place, handed, kind.token(), told);
            watch_order(self.broker, place);
            self.commit(place, start);
        } else {
            let point = CheckPoint {
                handed: Handed {
                    place: place.clone(),
                    start_offset: start,
                    pop_time: self.popped.pop_time,
                },
                pending: offsets.clone(),
                counts: true,
                failures: 0,
            };
            launch(self.broker, point, self.request.invisible_time);
            self.commit(place, batch.next);
        }
        self.popped.start_offsets.0.push((queue, start));
        self.popped.message_offsets.0.push((queue, offsets));
    }
}

/// The offset that an encoded message has in its queue.
fn queue_offset(record: &[u8]) -> Option<i64> {
    let bytes = record.get(20..28)?.try_into().ok()?;
    Some(i64::from_be_bytes(bytes))
}

/// A message of the retry topic, looking as if it were in the topic of which it is a retry. The client could not tell
/// where it is, so it bears its handle.
fn disguised(record: &Bytes, topic: &Topic, handle: &ReceiptHandle) -> Result<Bytes, CodecError> {
    let record = Record::decode(record.clone())?;
    let mut properties = PropertiesBuf::from(&record.properties);
    if properties.get(property::POP_CK).is_none() {
        properties.set(property::POP_CK, &handle.to_string())?;
    }
    let shown = Record {
        topic: topic.text.clone(),
        properties: Properties::from(properties),
        ..record
    };
    let mut encoded = BytesMut::with_capacity(shown.encoded_len());
    shown.encode(&mut encoded)?;
    Ok(encoded.freeze())
}
