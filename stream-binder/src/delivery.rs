//! One received message with everything known about it.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::headers::{Headers, names};

/// A received message before decoding: payload, headers and metadata.
///
/// Layers see deliveries; functions usually take [extractors](crate::FromDelivery) that read one. Cloning
/// copies the headers and shares the payload.
///
/// Build one by hand to call a layer or an extractor in a unit test:
///
/// ```
/// use stream_binder::Delivery;
///
/// let delivery = Delivery::builder("orders-in-0", "orders", "42").tags("vip").header("colour", "red").build();
/// assert_eq!(delivery.meta().topic(), "orders");
/// assert_eq!(delivery.header("ROCKET_TAGS").as_deref(), Some("vip"));
/// ```
#[derive(Clone, Debug)]
pub struct Delivery {
    payload: Bytes,
    headers: Headers,
    meta: Meta,
}

impl Delivery {
    /// Starts a delivery of `payload` from `topic` to `binding`.
    pub fn builder(
        binding: impl Into<Arc<str>>,
        topic: impl Into<Arc<str>>,
        payload: impl Into<Bytes>,
    ) -> DeliveryBuilder {
        DeliveryBuilder {
            delivery: Self {
                payload: payload.into(),
                headers: Headers::new(),
                meta: Meta::new(binding.into(), topic.into()),
            },
        }
    }

    /// The body as stored by the broker, decompressed.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The user's headers: properties that the sender set, without RocketMQ's own.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The user's headers, for a layer that adds or removes some.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// One header. The Java binder's names for metadata (`ROCKET_TAGS`, `ROCKET_MQ_TOPIC`, ..) are answered
    /// from the metadata, so a sender cannot forge them with a property of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let meta = &self.meta;
        match name {
            names::ROCKET_TAGS => meta.tags().map(Cow::Borrowed),
            names::ROCKET_KEYS => meta.keys().map(Cow::Borrowed),
            names::ROCKET_MQ_TOPIC => Some(Cow::Borrowed(meta.topic())),
            names::ROCKET_MQ_MESSAGE_ID => Some(Cow::Borrowed(meta.message_id())),
            names::ROCKET_MQ_BORN_TIMESTAMP => Some(Cow::Owned(meta.born_timestamp.to_string())),
            names::ROCKET_MQ_BORN_HOST => meta.born_host.map(|host| Cow::Owned(host.to_string())),
            names::ROCKET_MQ_QUEUE_ID => Some(Cow::Owned(meta.queue_id.to_string())),
            names::ROCKET_MQ_FLAG => Some(Cow::Owned(meta.flag.to_string())),
            name => self.headers.get(name).map(Cow::Borrowed),
        }
    }

    /// Media type that the sender stated.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(names::CONTENT_TYPE)
    }

    /// What is known about the message beside its content.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}

/// Where a message comes from, its ids, and how often it was tried. Also an extractor.
#[derive(Clone, Debug)]
pub struct Meta {
    binding: Arc<str>,
    topic: Arc<str>,
    message_id: Arc<str>,
    tags: Option<Arc<str>>,
    keys: Option<Arc<str>>,
    broker: Option<Arc<str>>,
    queue_id: i32,
    queue_offset: i64,
    flag: i32,
    born_timestamp: i64,
    born_host: Option<IpAddr>,
    attempt: u32,
    max_attempts: Option<u32>,
    local_attempt: u32,
}

impl Meta {
    fn new(binding: Arc<str>, topic: Arc<str>) -> Self {
        Self {
            binding,
            topic,
            message_id: Arc::default(),
            tags: None,
            keys: None,
            broker: None,
            queue_id: 0,
            queue_offset: 0,
            flag: 0,
            born_timestamp: 0,
            born_host: None,
            attempt: 1,
            max_attempts: None,
            local_attempt: 1,
        }
    }

    /// Name of the binding that delivers, for instance `orders-in-0`.
    #[must_use]
    pub fn binding(&self) -> &str {
        &self.binding
    }

    /// The topic to which the message was sent, also when it comes back through a retry topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The id that the producer gave the message; the same on every attempt.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// The tag.
    #[must_use]
    pub fn tags(&self) -> Option<&str> {
        self.tags.as_deref()
    }

    /// The keys as sent, separated by blanks.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.keys.as_deref()
    }

    /// Name of the broker that stores the message.
    #[must_use]
    pub fn broker(&self) -> Option<&str> {
        self.broker.as_deref()
    }

    /// The queue from which this attempt came.
    #[must_use]
    pub fn queue_id(&self) -> i32 {
        self.queue_id
    }

    /// Position in that queue.
    #[must_use]
    pub fn queue_offset(&self) -> i64 {
        self.queue_offset
    }

    /// The sender's application flag.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.flag
    }

    /// When the producer made the message, milliseconds since 1970 by the producer's clock.
    #[must_use]
    pub fn born_timestamp(&self) -> i64 {
        self.born_timestamp
    }

    /// When the producer made the message, by the producer's clock.
    #[must_use]
    pub fn born_at(&self) -> SystemTime {
        let millis = u64::try_from(self.born_timestamp).unwrap_or(0);
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(millis))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Host of the producer.
    #[must_use]
    pub fn born_host(&self) -> Option<IpAddr> {
        self.born_host
    }

    /// Which delivery by the broker this is, from 1 (RocketMQ's reconsume times plus one).
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The attempt after which the broker gives up, where the binder knows it.
    #[must_use]
    pub fn max_attempts(&self) -> Option<u32> {
        self.max_attempts
    }

    /// Which try this is within one delivery, from 1; above 1 only with the core key `max-attempts`.
    #[must_use]
    pub fn local_attempt(&self) -> u32 {
        self.local_attempt
    }

    /// Whether another failure sends the message to the dead letters. `false` where the binder does not know.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.max_attempts.is_some_and(|max| self.attempt >= max)
    }

    pub(crate) fn set_local_attempt(&mut self, attempt: u32) {
        self.local_attempt = attempt;
    }
}

/// Puts a [`Delivery`] together; for binders and for unit tests.
#[derive(Clone, Debug)]
#[must_use]
pub struct DeliveryBuilder {
    delivery: Delivery,
}

impl DeliveryBuilder {
    /// One user header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.delivery.headers.insert(name, value);
        self
    }

    /// All user headers at once, replacing earlier ones.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.delivery.headers = headers;
        self
    }

    /// The producer's message id.
    pub fn message_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.delivery.meta.message_id = id.into();
        self
    }

    /// The tag.
    pub fn tags(mut self, tags: impl Into<Arc<str>>) -> Self {
        self.delivery.meta.tags = Some(tags.into());
        self
    }

    /// The keys, separated by blanks.
    pub fn keys(mut self, keys: impl Into<Arc<str>>) -> Self {
        self.delivery.meta.keys = Some(keys.into());
        self
    }

    /// Name of the storing broker.
    pub fn broker(mut self, broker: impl Into<Arc<str>>) -> Self {
        self.delivery.meta.broker = Some(broker.into());
        self
    }

    /// Queue and position in it.
    pub fn queue(mut self, id: i32, offset: i64) -> Self {
        self.delivery.meta.queue_id = id;
        self.delivery.meta.queue_offset = offset;
        self
    }

    /// The sender's application flag.
    pub fn flag(mut self, flag: i32) -> Self {
        self.delivery.meta.flag = flag;
        self
    }

    /// When (milliseconds since 1970) and where the message was made.
    pub fn born(mut self, timestamp: i64, host: Option<IpAddr>) -> Self {
        self.delivery.meta.born_timestamp = timestamp;
        self.delivery.meta.born_host = host;
        self
    }

    /// Which delivery this is, from 1, and the last one that the broker makes, where known.
    pub fn attempt(mut self, attempt: u32, max_attempts: Option<u32>) -> Self {
        self.delivery.meta.attempt = attempt.max(1);
        self.delivery.meta.max_attempts = max_attempts;
        self
    }

    /// The finished delivery.
    #[must_use]
    pub fn build(self) -> Delivery {
        self.delivery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_headers_cannot_be_forged_by_the_sender() {
        let delivery = Delivery::builder("in", "orders", "x")
            .header("ROCKET_MQ_TOPIC", "forged")
            .header("ROCKET_TAGS", "forged")
            .queue(3, 9)
            .build();
        assert_eq!(delivery.header("ROCKET_MQ_TOPIC").as_deref(), Some("orders"));
        assert_eq!(delivery.header("ROCKET_TAGS"), None);
        assert_eq!(delivery.header("ROCKET_MQ_QUEUE_ID").as_deref(), Some("3"));
    }

    #[test]
    fn the_last_attempt_is_known_only_with_a_maximum() {
        let build = |attempt, max| Delivery::builder("in", "t", "").attempt(attempt, max).build();
        assert!(!build(16, None).meta().is_last_attempt());
        assert!(!build(2, Some(3)).meta().is_last_attempt());
        assert!(build(3, Some(3)).meta().is_last_attempt());
    }
}
