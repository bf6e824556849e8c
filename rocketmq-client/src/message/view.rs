//! A received message.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::TraceContext;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::names::{Namespace, RETRY_PREFIX};
use crate::protocol::{CodecError, OffsetMessageId, Record, decompress, property};

/// The largest body that a view decompresses, in bytes: no honest producer compresses more, and a hostile one gets no
/// more memory than this.
const MAX_DECOMPRESSED_BYTES: usize = 32 * 1024 * 1024;

/// A message as it was received. Topic, properties and body share the buffer they arrived in; cloning copies nothing.
#[derive(Clone)]
pub struct MessageView(Arc<Inner>);

struct Inner {
    record: Record,
    queue: MessageQueue,
    namespace: Option<Namespace>,
    /// The body as the producer wrote it.
    body: Bytes,
    body_error: Option<CodecError>,
}

impl MessageView {
    /// The view of a stored message that came out of this queue. Decompresses the body if it has to be.
    #[must_use]
    pub fn new(record: Record, queue: MessageQueue) -> Self {
        Self::in_namespace(record, queue, None)
    }

    /// The same for a client whose names are in a namespace: the view shows the user's names. `queue` has them already.
    pub(crate) fn in_namespace(record: Record, queue: MessageQueue, namespace: Option<&Namespace>) -> Self {
        let (body, body_error) = match body_of(&record) {
            Ok(body) => (body, None),
            Err(error) => (record.body.clone(), Some(error)),
        };
        Self(Arc::new(Inner {
            record,
            queue,
            namespace: namespace.cloned(),
            body,
            body_error,
        }))
    }

    /// The topic that the producer named. A retried message is stored in the retry topic of its group, but this is
    /// still the topic it was first sent to.
    #[must_use]
    pub fn topic(&self) -> &str {
        let stored = self.0.record.topic.as_str();
        let is_retry = stored.starts_with(RETRY_PREFIX);
        let original = self.property(property::RETRY_TOPIC).filter(|_| is_retry);
        match (&self.0.namespace, original) {
            (None, original) => original.unwrap_or(stored),
            (Some(namespace), Some(original)) => namespace.unwrap_plain(original),
            (Some(_), None) => &self.0.queue.topic,
        }
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.property(property::TAGS)
    }

    /// The keys, in the order the producer gave them.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.property(property::KEYS).unwrap_or_default();
        keys.split(' ').filter(|key| !key.is_empty())
    }

    /// The value of a property: one of the user's own, or one that the protocol uses itself.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.0.record.properties.get(name)
    }

    /// All properties, the user's and the protocol's.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.record.properties.iter()
    }

    /// The body as the producer wrote it, decompressed if it was compressed on the way.
    ///
    /// If that failed, this is the body as stored, and [`body_error`](Self::body_error) says why.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// Why the body could not be decompressed; `None` for a body that is what the producer wrote.
    #[must_use]
    pub fn body_error(&self) -> Option<&CodecError> {
        self.0.body_error.as_ref()
    }

    /// The id that the producer gave the message; one that has none goes by its
    /// [`offset_message_id`](Self::offset_message_id). Java: `getMsgId`.
    #[must_use]
    pub fn message_id(&self) -> String {
        match self.property(property::UNIQUE_KEY) {
            Some(id) => id.to_owned(),
            None => self.offset_message_id().to_string(),
        }
    }

    /// The id that says where this copy is stored: the broker and the position in its log.
    #[must_use]
    pub fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId {
            store_host: self.0.record.store_host,
            physical_offset: self.0.record.physical_offset,
        }
    }

    /// The queue that the message came out of; of the retry topic for a retried message.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.0.queue
    }

    /// The position in the queue.
    #[must_use]
    pub fn queue_offset(&self) -> i64 {
        self.0.record.queue_offset
    }

    /// How often the group gave the message back before this delivery.
    #[must_use]
    pub fn reconsume_times(&self) -> i32 {
        self.0.record.reconsume_times
    }

    /// Which attempt to consume the message this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.0.record.reconsume_times)
            .unwrap_or(0)
            .saturating_add(1)
    }

    /// The delay level that the message was sent with; 0 for none.
    #[must_use]
    pub fn delay_level(&self) -> u8 {
        self.property(property::DELAY)
            .and_then(|level| level.parse().ok())
            .unwrap_or(0)
    }

    /// When the broker was to deliver the message, if the producer chose a time: cut to whole seconds by brokers with
    /// default settings.
    #[must_use]
    pub fn deliver_time(&self) -> Option<SystemTime> {
        self.property(property::TIMER_OUT_MS)
            .and_then(|millis| millis.parse().ok())
            .map(time)
    }

    /// How urgent the producer said the message is.
    #[must_use]
    pub fn priority(&self) -> Option<u32> {
        self.property(property::PRIORITY)
            .and_then(|priority| priority.parse().ok())
    }

    /// The key that orders messages, if the producer gave one.
    #[must_use]
    pub fn sharding_key(&self) -> Option<&str> {
        self.property(property::SHARDING_KEY)
    }

    /// The trace and the span that the message was sent in, if its producer [said so](crate::Propagator): the
    /// properties `traceparent` and `tracestate`.
    #[must_use]
    pub fn trace_parent(&self) -> Option<TraceContext> {
        TraceContext::of_properties(|name| self.property(name))
    }

    /// The user's flag.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.0.record.flag
    }

    /// When the producer made the message, by its clock.
    #[must_use]
    pub fn born_time(&self) -> SystemTime {
        time(self.0.record.born_timestamp)
    }

    /// The same in milliseconds since 1970.
    #[must_use]
    pub fn born_timestamp(&self) -> i64 {
        self.0.record.born_timestamp
    }

    /// The producer's address as the broker saw it.
    #[must_use]
    pub fn born_host(&self) -> SocketAddr {
        self.0.record.born_host
    }

    /// When the broker stored this copy, by its clock.
    #[must_use]
    pub fn store_time(&self) -> SystemTime {
        time(self.0.record.store_timestamp)
    }

    /// The same in milliseconds since 1970.
    #[must_use]
    pub fn store_timestamp(&self) -> i64 {
        self.0.record.store_timestamp
    }

    /// The broker that stored this copy.
    #[must_use]
    pub fn store_host(&self) -> SocketAddr {
        self.0.record.store_host
    }

    /// The stored message as it came, for tools: with the broker's names, should there be a namespace.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.0.record
    }
}

impl fmt::Debug for MessageView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies, keys and properties may hold what must not be in a log file.
        f.debug_struct("MessageView")
            .field("message_id", &self.message_id())
            .field("queue", &self.0.queue)
            .field("queue_offset", &self.0.record.queue_offset)
            .field("reconsume_times", &self.0.record.reconsume_times)
            .field("body_bytes", &self.0.body.len())
            .finish_non_exhaustive()
    }
}

fn body_of(record: &Record) -> Result<Bytes, CodecError> {
    match record.sys_flag.compression() {
        Ok(None) => Ok(record.body.clone()),
        Ok(Some(compression)) => decompress(&record.body, compression, MAX_DECOMPRESSED_BYTES),
        Err(kind) => Err(CodecError::Invalid {
            what: "body",
            offset: 0,
            reason: format!("compression {kind} is unknown to this version").into(),
        }),
    }
}

fn time(millis: i64) -> SystemTime {
    let since_1970 = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    SystemTime::UNIX_EPOCH
        .checked_add(since_1970)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
