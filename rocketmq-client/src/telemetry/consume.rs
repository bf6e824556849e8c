//! What is told of consuming.

use std::fmt;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use tracing::field::Empty;
use tracing::{Span, debug_span};

use super::{
    DESTINATION_NAME, ERROR_TYPE, OPERATION_DURATION, OPERATION_NAME, OPERATION_TYPE, SYSTEM, SYSTEM_NAME,
    error_type,
};
use crate::error::{Error, ErrorKind};
use crate::message::{MessageView, TraceContext};

/// How many messages handlers were called with, those that failed included.
pub const CONSUMED_MESSAGES: &str = "messaging.client.consumed.messages";
/// How long handlers took.
pub const PROCESS_DURATION: &str = "messaging.process.duration";
/// How many messages were received into the cache.
pub const RECEIVED_MESSAGES: &str = "rocketmq.client.received.messages";
/// How long messages were on their way: from the broker's storing them to the start of the handler.
pub const DELIVERY_DURATION: &str = "rocketmq.client.delivery.duration";
/// How many messages of a queue that this member owns are not consumed yet.
pub const CONSUMER_LAG: &str = "rocketmq.client.consumer.lag";
/// How many messages of a consumer are in its cache.
pub const CACHED_MESSAGES: &str = "rocketmq.client.consumer.cached.messages";
/// How many bytes a consumer holds for messages.
pub const CACHED_BYTES: &str = "rocketmq.client.consumer.cached.bytes";

/// The consumer group.
pub const CONSUMER_GROUP: &str = "messaging.consumer.group.name";
/// The number of a queue on its broker.
pub const PARTITION_ID: &str = "messaging.destination.partition.id";
/// The name of a broker.
pub const BROKER_NAME: &str = "rocketmq.broker.name";

/// The target of the spans of pulls, of calls of handlers, and of messages given back.
pub const RECEIVE_SPAN_TARGET: &str = "rocketmq_client::receive";

const RECEIVE: &str = "receive";
const PROCESS: &str = "process";
const SETTLE: &str = "settle";

/// The error type of a message that no broker took back.
pub(crate) const NOT_GIVEN_BACK: &str = "not_given_back";

pub(super) fn describe() {
    describe_counter!(
        CONSUMED_MESSAGES,
        Unit::Count,
        "Messages handed to handlers, with success or without"
    );
    describe_histogram!(PROCESS_DURATION, Unit::Seconds, "How long handlers took");
    describe_counter!(RECEIVED_MESSAGES, Unit::Count, "Messages received");
    describe_histogram!(
        DELIVERY_DURATION,
        Unit::Seconds,
        "From the broker's storing a message to the start of its handler"
    );
    describe_gauge!(
        CONSUMER_LAG,
        Unit::Count,
        "Messages of an owned queue that are not consumed yet"
    );
    describe_gauge!(CACHED_MESSAGES, Unit::Count, "Messages in the cache");
    describe_gauge!(CACHED_BYTES, Unit::Bytes, "Bytes held for messages");
}

/// What is counted of one topic that a group consumes.
pub(crate) struct ConsumeMeters {
    group: String,
    topic: String,
    consumed: Counter,
    process: Histogram,
    delivery: Histogram,
    received: Counter,
    receive: Histogram,
}

impl ConsumeMeters {
    pub(crate) fn new(group: &str, topic: &str) -> Self {
        let process = labels(PROCESS, group, topic);
        let receive = labels(RECEIVE, group, topic);
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            consumed: counter!(CONSUMED_MESSAGES, &process),
            process: histogram!(PROCESS_DURATION, &process),
            delivery: histogram!(DELIVERY_DURATION, &process),
            received: counter!(RECEIVED_MESSAGES, &receive),
            receive: histogram!(OPERATION_DURATION, &receive),
        }
    }

    /// A pull brought messages.
    pub(crate) fn received(&self, messages: u64, took: Duration) {
        self.received.increment(messages);
        self.receive.record(took);
    }

    /// A pull failed.
    pub(crate) fn not_received(&self, took: Duration, kind: ErrorKind) {
        let labels = failed(labels(RECEIVE, &self.group, &self.topic), error_type(kind));
        histogram!(OPERATION_DURATION, &labels).record(took);
    }

    /// Messages are about to be handled that were on their way for so many milliseconds, added up.
    pub(crate) fn delivered(&self, millis: u64, messages: usize) {
        if messages > 0 {
            self.delivery
                .record_many(millis as f64 / 1000.0 / messages as f64, messages);
        }
    }

    /// A handler acknowledged its messages.
    pub(crate) fn processed(&self, messages: u64, took: Duration) {
        self.consumed.increment(messages);
        self.process.record(took);
    }

    /// It did not, for this reason.
    pub(crate) fn not_processed(&self, messages: u64, took: Duration, reason: &'static str) {
        // Not often enough to keep a handle for each reason.
        let labels = failed(labels(PROCESS, &self.group, &self.topic), reason);
        counter!(CONSUMED_MESSAGES, &labels).increment(messages);
        histogram!(PROCESS_DURATION, &labels).record(took);
    }

    /// A message was given back to a broker, or could not be.
    pub(crate) fn settled(&self, took: Duration, given_back: bool) {
        let labels = labels(SETTLE, &self.group, &self.topic);
        if given_back {
            histogram!(OPERATION_DURATION, &labels).record(took);
        } else {
            histogram!(OPERATION_DURATION, &failed(labels, NOT_GIVEN_BACK)).record(took);
        }
    }
}

impl fmt::Debug for ConsumeMeters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeMeters")
            .field("group", &self.group)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

type Label = (&'static str, String);

fn labels(operation: &str, group: &str, topic: &str) -> [Label; 5] {
    [
        (SYSTEM, SYSTEM_NAME.to_owned()),
        (OPERATION_NAME, operation.to_owned()),
        (OPERATION_TYPE, operation.to_owned()),
        (DESTINATION_NAME, topic.to_owned()),
        (CONSUMER_GROUP, group.to_owned()),
    ]
}

fn failed([system, name, kind, topic, group]: [Label; 5], reason: &str) -> [Label; 6] {
    [system, name, kind, topic, group, (ERROR_TYPE, reason.to_owned())]
}

/// How far a group is behind in one queue.
pub(crate) struct LagGauge(Gauge);

impl LagGauge {
    pub(crate) fn new(group: &str, topic: &str, broker_name: &str, queue_id: i32) -> Self {
        let labels = [
            (SYSTEM, SYSTEM_NAME.to_owned()),
            (CONSUMER_GROUP, group.to_owned()),
            (DESTINATION_NAME, topic.to_owned()),
            (BROKER_NAME, broker_name.to_owned()),
            (PARTITION_ID, queue_id.to_string()),
        ];
        Self(gauge!(CONSUMER_LAG, &labels))
    }

    pub(crate) fn set(&self, messages: u64) {
        self.0.set(messages as f64);
    }
}

impl fmt::Debug for LagGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LagGauge")
    }
}

/// What is in the cache of one consumer.
pub(crate) struct CacheGauges {
    messages: Gauge,
    bytes: Gauge,
}

impl CacheGauges {
    pub(crate) fn new(group: &str) -> Self {
        let labels = [
            (SYSTEM, SYSTEM_NAME.to_owned()),
            (CONSUMER_GROUP, group.to_owned()),
        ];
        Self {
            messages: gauge!(CACHED_MESSAGES, &labels),
            bytes: gauge!(CACHED_BYTES, &labels),
        }
    }

    pub(crate) fn set(&self, messages: usize, bytes: usize) {
        self.messages.set(messages as f64);
        self.bytes.set(bytes as f64);
    }
}

impl fmt::Debug for CacheGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheGauges")
    }
}

/// Where messages come from and who consumes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) group: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) broker_name: &'a str,
    pub(crate) queue_id: i32,
}

/// The span of a pull; none unless somebody wants it.
pub(crate) fn receive_span(source: Source<'_>, offset: i64) -> Span {
    debug_span!(
        target: RECEIVE_SPAN_TARGET,
        parent: None,
        RECEIVE,
        "otel.name" = format_args!("{RECEIVE} {}", source.topic),
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "messaging.system" = SYSTEM_NAME,
        "messaging.operation.name" = RECEIVE,
        "messaging.operation.type" = RECEIVE,
        "messaging.destination.name" = source.topic,
        "messaging.consumer.group.name" = source.group,
        "messaging.client.id" = source.client_id,
        "messaging.destination.partition.id" = source.queue_id,
        "rocketmq.broker.name" = source.broker_name,
        "rocketmq.queue.offset" = offset,
        "messaging.batch.message_count" = Empty,
        "error.type" = Empty,
    )
}

/// What a pull came to, told to its span.
pub(crate) fn received(span: &Span, result: Result<usize, &Error>) {
    match result {
        Ok(messages) => {
            span.record("messaging.batch.message_count", messages);
        }
        Err(error) => failed_because(span, error_type(error.kind())),
    }
}

/// The span of a call of a handler with these messages; none unless somebody wants it. It tells of the first message, and
/// of the trace that the first one with a trace was sent in.
pub(crate) fn process_span<'m>(
    source: Source<'_>,
    mut messages: impl ExactSizeIterator<Item = &'m MessageView>,
) -> Span {
    let span = debug_span!(
        target: RECEIVE_SPAN_TARGET,
        parent: None,
        PROCESS,
        "otel.name" = format_args!("{PROCESS} {}", source.topic),
        "otel.kind" = "consumer",
        "otel.status_code" = Empty,
        "messaging.system" = SYSTEM_NAME,
        "messaging.operation.name" = PROCESS,
        "messaging.operation.type" = PROCESS,
        "messaging.destination.name" = source.topic,
        "messaging.consumer.group.name" = source.group,
        "messaging.client.id" = source.client_id,
        "messaging.destination.partition.id" = source.queue_id,
        "rocketmq.broker.name" = source.broker_name,
        "messaging.batch.message_count" = messages.len(),
        "messaging.message.id" = Empty,
        "messaging.message.body.size" = Empty,
        "rocketmq.queue.offset" = Empty,
        "rocketmq.message.attempt" = Empty,
        "rocketmq.producer.trace_id" = Empty,
        "rocketmq.producer.span_id" = Empty,
        "error.type" = Empty,
    );
    if let Some(first) = messages.next().filter(|_| !span.is_disabled()) {
        span.record("messaging.message.id", first.message_id());
        span.record("messaging.message.body.size", first.body().len());
        span.record("rocketmq.queue.offset", first.queue_offset());
        span.record("rocketmq.message.attempt", first.attempt());
    }
    span
}

/// The span that a message was sent in, told to the span of its handler.
pub(crate) fn sent_in(span: &Span, producer: &TraceContext) {
    span.record(
        "rocketmq.producer.trace_id",
        format_args!("{:032x}", producer.trace_id()),
    );
    span.record(
        "rocketmq.producer.span_id",
        format_args!("{:016x}", producer.span_id()),
    );
}

/// The span of a message's being given back; none unless somebody wants it.
pub(crate) fn settle_span(source: Source<'_>, message: &MessageView, delay_level: i32) -> Span {
    let span = debug_span!(
        target: RECEIVE_SPAN_TARGET,
        SETTLE,
        "otel.name" = format_args!("{SETTLE} {}", source.topic),
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "messaging.system" = SYSTEM_NAME,
        "messaging.operation.name" = SETTLE,
        "messaging.operation.type" = SETTLE,
        "messaging.destination.name" = source.topic,
        "messaging.consumer.group.name" = source.group,
        "messaging.client.id" = source.client_id,
        "messaging.destination.partition.id" = source.queue_id,
        "rocketmq.broker.name" = source.broker_name,
        "messaging.message.id" = Empty,
        "rocketmq.queue.offset" = message.queue_offset(),
        "rocketmq.delay_level" = delay_level,
        "error.type" = Empty,
    );
    if !span.is_disabled() {
        span.record("messaging.message.id", message.message_id());
    }
    span
}

/// Tells a span that what it is of has failed.
pub(crate) fn failed_because(span: &Span, reason: &str) {
    span.record("otel.status_code", "ERROR");
    span.record(ERROR_TYPE, reason);
}
