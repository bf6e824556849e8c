//! What this client tells of itself through [`metrics`] and [`tracing`], and under which names.
//!
//! The names are those of OpenTelemetry's conventions for messaging, which still move: this is their one home. Install a
//! recorder of [`metrics`] before the client is made: handles are made once for each topic and producer, not for each
//! message. Without a recorder and without a subscriber all of it costs next to nothing.
//!
//! # Metrics
//!
//! | Name | Kind | Labels |
//! |---|---|---|
//! | [`OPERATION_DURATION`] | histogram, seconds | system, operation, topic; [`ERROR_TYPE`] of a failure |
//! | [`SENT_MESSAGES`] | counter | the same |
//! | [`SEND_RETRIES`] | counter | system, operation, topic |
//! | [`IN_FLIGHT_MESSAGES`], [`IN_FLIGHT_BYTES`] | gauges | system, producer group |
//! | [`LATE_REPLIES`] | counter | system, broker address |
//! | [`TRACE_DROPPED`] | counter | system |
//! | [`RECEIVED_MESSAGES`] | counter | system, operation `receive`, topic, consumer group |
//! | [`OPERATION_DURATION`] of a pull that brought messages or failed | histogram, seconds | the same; [`ERROR_TYPE`] of a failure |
//! | [`CONSUMED_MESSAGES`] | counter | system, operation `process`, topic, consumer group; [`ERROR_TYPE`] of a failure |
//! | [`PROCESS_DURATION`] | histogram, seconds | the same |
//! | [`DELIVERY_DURATION`] | histogram, seconds | system, operation `process`, topic, consumer group |
//! | [`OPERATION_DURATION`] of a message given back | histogram, seconds | system, operation `settle`, topic, consumer group; [`ERROR_TYPE`] of a failure |
//! | [`CONSUMER_LAG`] | gauge | system, consumer group, topic, [`BROKER_NAME`], [`PARTITION_ID`] |
//! | [`CACHED_MESSAGES`], [`CACHED_BYTES`] | gauges | system, consumer group |
//! | [`OFFSET_FILE_FAILURES`] | counter | system, consumer group |
//!
//! A send that reached no broker, because there was no route or no room, is none and not counted. The error type of a
//! call of a handler is `retry` or `rejected` if the handler said so, and `failed`, `panicked`, `timed_out` or
//! `unreadable` if it did not get to say anything. Retried messages are those of the retry topic. The lag is that of the
//! last answer of the broker, and 0 for a queue that has gone to another member. Gauges of consumers are set every ten
//! seconds, the lag with each pull too.
//!
//! # Spans
//!
//! Each send has a span `send` of level debug and target [`SPAN_TARGET`], so that it can be switched on by itself
//! (`rocketmq_client::send=debug`); OpenTelemetry shows it as `send {topic}`. It ends with the ids, the broker and the
//! queue of the message, or with [`ERROR_TYPE`]. Keys, properties and bodies are in none.
//!
//! A consumer has spans of level debug and target [`RECEIVE_SPAN_TARGET`]: `receive` for each pull, `process` for each
//! call of a handler, in which the handler runs, and `settle` for each message that is given back. `process` is the
//! beginning of a trace of its own, as OpenTelemetry recommends, and names the span that the message was sent in as
//! `rocketmq.producer.trace_id` and `rocketmq.producer.span_id`; a [`SpanLinker`](crate::SpanLinker) makes that a link
//! in whatever tracing system there is.
//!
//! How the context of a trace travels with the message: [`Propagator`](crate::Propagator) where it is sent,
//! [`MessageView::trace_parent`](crate::MessageView::trace_parent) where it is received.

mod consume;

use std::sync::Arc;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use tracing::field::Empty;
use tracing::{Span, debug_span};

pub use self::consume::{
    BROKER_NAME, CACHED_BYTES, CACHED_MESSAGES, CONSUMED_MESSAGES, CONSUMER_GROUP, CONSUMER_LAG,
    DELIVERY_DURATION, PARTITION_ID, PROCESS_DURATION, RECEIVE_SPAN_TARGET, RECEIVED_MESSAGES,
};
pub(crate) use self::consume::{
    CacheGauges, ConsumeMeters, LagGauge, NOT_GIVEN_BACK, Source, failed_because, process_span, receive_span,
    received, sent_in, settle_span,
};
use crate::error::ErrorKind;

/// How long sends took, all attempts included; pulls that brought messages or failed; and giving messages back.
pub const OPERATION_DURATION: &str = "messaging.client.operation.duration";
/// How many messages were sent to brokers, those that failed included.
pub const SENT_MESSAGES: &str = "messaging.client.sent.messages";
/// How many further attempts were made after one had failed.
pub const SEND_RETRIES: &str = "rocketmq.client.send.retries";
/// How many messages of a producer are in flight.
pub const IN_FLIGHT_MESSAGES: &str = "rocketmq.client.send.in_flight.messages";
/// How many bytes of bodies of a producer are in flight.
pub const IN_FLIGHT_BYTES: &str = "rocketmq.client.send.in_flight.bytes";
/// How many replies came after their requests had ended.
pub const LATE_REPLIES: &str = "rocketmq.client.late_replies";
/// How many records of message trace were dropped, because more came than could be sent.
pub const TRACE_DROPPED: &str = "rocketmq.client.trace.dropped";
/// How often a consumer that broadcasts could not write its offsets.
pub const OFFSET_FILE_FAILURES: &str = "rocketmq.client.offset_file.failures";

/// The messaging system, which is always [`SYSTEM_NAME`].
pub const SYSTEM: &str = "messaging.system";
/// See [`SYSTEM`].
pub const SYSTEM_NAME: &str = "rocketmq";
/// What was done, in RocketMQ's words.
pub const OPERATION_NAME: &str = "messaging.operation.name";
/// What was done, in words that all messaging systems share.
pub const OPERATION_TYPE: &str = "messaging.operation.type";
/// The topic.
pub const DESTINATION_NAME: &str = "messaging.destination.name";
/// Why it failed: an [`ErrorKind`] in lower case.
pub const ERROR_TYPE: &str = "error.type";
/// The address of a broker.
pub const SERVER_ADDRESS: &str = "server.address";
/// The producer group.
pub const PRODUCER_GROUP: &str = "rocketmq.producer.group";

/// The target of the spans of sends.
pub const SPAN_TARGET: &str = "rocketmq_client::send";

const SEND: &str = "send";

/// Tells a recorder what the metrics mean.
pub(crate) fn describe() {
    describe_histogram!(
        OPERATION_DURATION,
        Unit::Seconds,
        "How long sends, pulls and returns of messages took"
    );
    describe_counter!(
        SENT_MESSAGES,
        Unit::Count,
        "Messages sent to brokers, with success or without"
    );
    describe_counter!(SEND_RETRIES, Unit::Count, "Further attempts to send");
    describe_gauge!(IN_FLIGHT_MESSAGES, Unit::Count, "Messages in flight");
    describe_gauge!(IN_FLIGHT_BYTES, Unit::Bytes, "Bytes of bodies in flight");
    describe_counter!(
        LATE_REPLIES,
        Unit::Count,
        "Replies that came after their requests had ended"
    );
    describe_counter!(
        OFFSET_FILE_FAILURES,
        Unit::Count,
        "Failed writes of the offsets of consumers that broadcast"
    );
    describe_counter!(
        TRACE_DROPPED,
        Unit::Count,
        "Records of message trace that were dropped"
    );
    consume::describe();
}

/// What is counted of the sends to one topic.
pub(crate) struct SendMeters {
    topic: String,
    sent: Counter,
    duration: Histogram,
    retries: Counter,
}

impl SendMeters {
    pub(crate) fn new(topic: &str) -> Self {
        let labels = send_labels(topic);
        Self {
            topic: topic.to_owned(),
            sent: counter!(SENT_MESSAGES, &labels),
            duration: histogram!(OPERATION_DURATION, &labels),
            retries: counter!(SEND_RETRIES, &labels),
        }
    }

    pub(crate) fn succeeded(&self, messages: u64, took: Duration) {
        self.sent.increment(messages);
        self.duration.record(took);
    }

    pub(crate) fn failed(&self, messages: u64, took: Duration, kind: ErrorKind) {
        // Not often enough to keep a handle for each kind.
        let [system, operation, operation_type, topic] = send_labels(&self.topic);
        let labels = [
            system,
            operation,
            operation_type,
            topic,
            (ERROR_TYPE, error_type(kind).to_owned()),
        ];
        counter!(SENT_MESSAGES, &labels).increment(messages);
        histogram!(OPERATION_DURATION, &labels).record(took);
    }

    pub(crate) fn retried(&self) {
        self.retries.increment(1);
    }
}

impl std::fmt::Debug for SendMeters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendMeters")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

fn send_labels(topic: &str) -> [(&'static str, String); 4] {
    [
        (SYSTEM, SYSTEM_NAME.to_owned()),
        (OPERATION_NAME, SEND.to_owned()),
        (OPERATION_TYPE, SEND.to_owned()),
        (DESTINATION_NAME, topic.to_owned()),
    ]
}

/// What is in flight of one producer.
pub(crate) struct InFlightGauges {
    messages: Gauge,
    bytes: Gauge,
}

impl InFlightGauges {
    pub(crate) fn new(group: &str) -> Self {
        let labels = [
            (SYSTEM, SYSTEM_NAME.to_owned()),
            (PRODUCER_GROUP, group.to_owned()),
        ];
        Self {
            messages: gauge!(IN_FLIGHT_MESSAGES, &labels),
            bytes: gauge!(IN_FLIGHT_BYTES, &labels),
        }
    }

    pub(crate) fn set(&self, messages: u32, bytes: u32) {
        self.messages.set(messages);
        self.bytes.set(bytes);
    }
}

impl std::fmt::Debug for InFlightGauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlightGauges")
    }
}

pub(crate) fn late_replies(peer: &Arc<str>, count: u64) {
    let labels = [
        (SYSTEM, SYSTEM_NAME.to_owned()),
        (SERVER_ADDRESS, peer.to_string()),
    ];
    counter!(LATE_REPLIES, &labels).increment(count);
}

pub(crate) fn trace_dropped() {
    counter!(TRACE_DROPPED, SYSTEM => SYSTEM_NAME).increment(1);
}

/// The span of a send; none unless somebody wants it.
pub(crate) fn send_span(topic: &str, client_id: &str, body_bytes: usize) -> Span {
    debug_span!(
        target: SPAN_TARGET,
        SEND,
        "otel.name" = format_args!("{SEND} {topic}"),
        "otel.kind" = "producer",
        "otel.status_code" = Empty,
        "messaging.system" = SYSTEM_NAME,
        "messaging.operation.name" = SEND,
        "messaging.operation.type" = SEND,
        "messaging.destination.name" = topic,
        "messaging.client.id" = client_id,
        "messaging.message.body.size" = body_bytes,
        "messaging.message.id" = Empty,
        "messaging.destination.partition.id" = Empty,
        "rocketmq.broker.name" = Empty,
        "rocketmq.send.attempts" = Empty,
        "error.type" = Empty,
    )
}

/// What a send came to, told to its span.
pub(crate) fn sent(span: &Span, message_id: &str, broker_name: &str, queue_id: i32, attempts: u32) {
    span.record("messaging.message.id", message_id);
    span.record("messaging.destination.partition.id", queue_id);
    span.record("rocketmq.broker.name", broker_name);
    span.record("rocketmq.send.attempts", attempts);
}

/// Why a send failed, told to its span.
pub(crate) fn not_sent(span: &Span, kind: ErrorKind, attempts: u32) {
    span.record("otel.status_code", "ERROR");
    span.record(ERROR_TYPE, error_type(kind));
    span.record("rocketmq.send.attempts", attempts);
}

fn error_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "config",
        ErrorKind::NameServer => "name_server",
        ErrorKind::TopicNotFound => "topic_not_found",
        ErrorKind::Connect => "connect",
        ErrorKind::Tls => "tls",
        ErrorKind::Auth => "auth",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Busy => "busy",
        ErrorKind::Rejected => "rejected",
        ErrorKind::TooLarge => "too_large",
        ErrorKind::NotDurable => "not_durable",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Protocol => "protocol",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::Closed => "closed",
    }
}
