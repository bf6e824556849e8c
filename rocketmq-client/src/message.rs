//! Messages: [`Message`] is what a user sends, [`MessageView`] what a user receives.

mod trace_context;
mod view;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::protocol::{CodecError, PropertiesBuf, names, property};

pub use trace_context::{InvalidTraceParent, TraceContext};
pub(crate) use trace_context::{TRACEPARENT, TRACESTATE};
pub use view::MessageView;

/// When a message is to be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Delivery {
    #[default]
    AtOnce,
    /// After the time of a level of the broker's table.
    Level,
    /// After a time of the sender's choice.
    Delay,
    /// At a time of the sender's choice.
    Time,
}

impl Delivery {
    /// The setter that asks for it.
    const fn setter(self) -> &'static str {
        match self {
            Self::AtOnce => "none",
            Self::Level => "delay_level",
            Self::Delay => "delay",
            Self::Time => "deliver_at",
        }
    }
}

/// A message to send.
///
/// Setters never fail; what cannot be sent (a blank property, a reserved name) is reported by the send, before
/// anything is on the wire.
///
/// ```
/// use rocketmq_client::Message;
///
/// let message = Message::new("orders", "paid").tag("vip").key("order-42").property("region", "eu");
/// assert_eq!(message.topic(), "orders");
/// assert_eq!(message.get("region"), Some("eu"));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a message does nothing until it is sent"]
pub struct Message {
    pub(crate) topic: String,
    pub(crate) body: Bytes,
    /// Already in the form of the wire.
    pub(crate) properties: PropertiesBuf,
    pub(crate) flag: i32,
    pub(crate) delivery: Delivery,
    /// Whether consumers of 5.5.0 get it before or after others.
    pub(crate) has_priority: bool,
    /// The first setter call that cannot be honoured; boxed because it almost never exists.
    fault: Option<Box<Error>>,
}

impl Message {
    /// A message for this topic. The body is shared, never copied: pass `Bytes`, `Vec<u8>`, `String` or a literal.
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            body: body.into(),
            properties: PropertiesBuf::new(),
            flag: 0,
            delivery: Delivery::AtOnce,
            has_priority: false,
            fault: None,
        }
    }

    /// The reply to a message that was sent by [`Producer::request`](crate::Producer::request): send it with any
    /// producer, awaited, and the client that asked gets it. It has a topic of its own; tag, keys and properties can be
    /// set as on any message. Java: `MessageUtil.createReplyMessage`.
    ///
    /// The send reports [`ErrorKind::Config`](crate::ErrorKind::Config) if `request` is no request: it lacks who asks,
    /// or the name of the cluster that stored it (Java's error 10007). It reports
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if the client that asked is gone.
    pub fn reply_to(request: &MessageView, body: impl Into<Bytes>) -> Self {
        let cluster = request.property(property::CLUSTER);
        let mut reply = Self::new(names::reply_topic(cluster.unwrap_or_default()), body);
        for name in [
            property::CLUSTER,
            property::CORRELATION_ID,
            property::REPLY_TO_CLIENT,
        ] {
            if request.property(name).is_none() {
                let id = request.message_id();
                reply.refuse(|| {
                    Error::config(format!(
                        "message {id} cannot be replied to: it has no property {name}; reply to messages that were \
                         sent as requests"
                    ))
                });
            }
        }
        for name in [property::CORRELATION_ID, property::REPLY_TO_CLIENT, property::TTL] {
            if let Some(value) = request.property(name) {
                reply = reply.set(name, value);
            }
        }
        reply.set(property::MESSAGE_TYPE, "reply")
    }

    /// Sets the tag, by which consumers can subscribe. Java: `setTags`.
    pub fn tag(self, tag: impl AsRef<str>) -> Self {
        self.set(property::TAGS, tag.as_ref())
    }

    /// Adds a key, by which brokers index the message. Several keys are separated by a space on the wire, so a key
    /// cannot contain one. Java: `setKeys`.
    pub fn key(self, key: impl AsRef<str>) -> Self {
        let key = key.as_ref();
        match self.properties.get(property::KEYS) {
            Some(keys) => {
                let keys = format!("{keys} {key}");
                self.set(property::KEYS, &keys)
            }
            None => self.set(property::KEYS, key),
        }
    }

    /// Sets a property of the user's own; an earlier value is replaced. Java: `putUserProperty`.
    ///
    /// Names that the protocol uses itself ([`property::RESERVED`]) are refused by the send.
    pub fn property(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        if property::is_reserved(name) {
            self.refuse(|| {
                Error::config(format!(
                    "property {name} is one of the protocol's own; use the setter of that meaning or another name"
                ))
            });
            return self;
        }
        self.set(name, value.as_ref())
    }

    /// Delivers the message later: level 1 to 18 of the broker's table (1 s, 5 s, 10 s, 30 s, 1 m .. 10 m, 20 m, 30 m,
    /// 1 h, 2 h unless configured otherwise); 0 means at once. Every broker knows them. Java: `setDelayTimeLevel`.
    pub fn delay_level(self, level: u8) -> Self {
        if level == 0 {
            return self.deliver(Delivery::Level, property::DELAY, None);
        }
        self.deliver(Delivery::Level, property::DELAY, Some(u64::from(level)))
    }

    /// Delivers the message after this time, counted by the broker from when it stores it; zero means at once. Java:
    /// `setDelayTimeMs`.
    ///
    /// Brokers know it from 5.0 on; older ones would deliver at once, so the send to one fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). Brokers deliver up to a second early unless
    /// configured otherwise (`timerPrecisionMs`), and refuse more than three days (`timerMaxDelaySec`).
    pub fn delay(self, delay: Duration) -> Self {
        // Not even a part of a millisecond is "at once".
        let millis = delay.as_nanos().div_ceil(1_000_000);
        let millis = (millis > 0).then(|| u64::try_from(millis).unwrap_or(u64::MAX));
        self.deliver(Delivery::Delay, property::TIMER_DELAY_MS, millis)
    }

    /// Delivers the message at this time by the broker's clock; at once if that is past. Java: `setDeliverTimeMs`.
    ///
    /// As with [`delay`](Self::delay), brokers know it from 5.0 on, deliver up to a second early, and refuse times that
    /// are more than three days away.
    pub fn deliver_at(self, time: SystemTime) -> Self {
        // A time before 1970 is past like any other.
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX).max(1);
        self.deliver(Delivery::Time, property::TIMER_DELIVER_MS, Some(millis))
    }

    /// How urgent the message is, from 0. It goes to the queue of that number, or to the last one if there are fewer;
    /// by default consumers in POP mode take the highest queues first. Java: `setPriority`.
    ///
    /// Brokers know it from 5.5 on; the send to an older one fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). The broker drops it from messages that have a delay,
    /// a sharding key or a transaction, so the send of such a message fails.
    pub fn priority(mut self, priority: u32) -> Self {
        let Ok(priority) = i32::try_from(priority) else {
            self.refuse(|| Error::config(format!("priority {priority} is above the highest, {}", i32::MAX)));
            return self;
        };
        self.has_priority = true;
        self.set(property::PRIORITY, itoa::Buffer::new().format(priority))
    }

    /// Sets or removes one way of delivering later; there can be only one.
    fn deliver(mut self, delivery: Delivery, name: &str, value: Option<u64>) -> Self {
        let Some(value) = value else {
            if self.delivery == delivery {
                self.delivery = Delivery::AtOnce;
                self.properties.remove(name);
            }
            return self;
        };
        if self.delivery != Delivery::AtOnce && self.delivery != delivery {
            let (one, other) = (self.delivery.setter(), delivery.setter());
            self.refuse(|| {
                Error::config(format!(
                    "{one} and {other} are both set, of which a broker honours one; set only that"
                ))
            });
            return self;
        }
        self.delivery = delivery;
        self.set(name, itoa::Buffer::new().format(value))
    }

    /// Sets the key that orders messages: those with one key go to one queue of the topic.
    ///
    /// The producer then chooses the queue by the key instead of in turn. Java: `MessageQueueSelector` with the key
    /// as its argument; brokers of 5.x see it as the message group.
    pub fn sharding_key(self, key: impl AsRef<str>) -> Self {
        self.set(property::SHARDING_KEY, key.as_ref())
    }

    /// Sets the user's flag: a number that travels with the message and that the broker does not look at. Default 0.
    pub fn flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Whether the broker answers only when the message is flushed and replicated as it is configured to. Default
    /// true. Java: `setWaitStoreMsgOK`.
    pub fn wait_store(self, wait: bool) -> Self {
        self.set(property::WAIT, if wait { "true" } else { "false" })
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The value of a property, also of one that the protocol uses itself (`TAGS`, `KEYS`, ..).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }

    /// Sets a property without asking who it belongs to: for this crate itself.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        if let Err(error) = self.properties.set(name, value) {
            self.refuse(|| unusable_property(name, error));
        }
        self
    }

    fn refuse(&mut self, error: impl FnOnce() -> Error) {
        if self.fault.is_none() {
            self.fault = Some(Box::new(error()));
        }
    }

    /// Checks all that can be checked without a broker.
    pub(crate) fn check(&self, max_body_bytes: usize) -> Result<()> {
        if let Some(fault) = &self.fault {
            return Err((**fault)
                .clone()
                .context(format_args!("message to topic {}", self.topic)));
        }
        if self.delivery != Delivery::AtOnce || self.has_priority {
            self.check_combination()?;
        }
        names::check_topic(&self.topic)
            .map_err(|error| Error::config(format!("message cannot be sent: {error}")).caused_by(error))?;
        if names::is_forbidden_topic(&self.topic) {
            return Err(Error::config(format!(
                "message to topic {}: the topic belongs to the broker and cannot be sent to; use one of your own",
                self.topic
            )));
        }
        if self.body.is_empty() {
            return Err(Error::config(format!(
                "message to topic {}: the body is empty, which brokers refuse; send at least one byte",
                self.topic
            )));
        }
        if self.body.len() > max_body_bytes {
            return Err(Error::new(
                crate::ErrorKind::TooLarge,
                format!(
                    "message to topic {}: the body of {} bytes is above the limit of {max_body_bytes}; send less, or \
                     raise max_message_bytes here and maxMessageSize on the broker",
                    self.topic,
                    self.body.len()
                ),
            ));
        }
        Ok(())
    }
}

impl Message {
    /// Refuses what a broker would silently leave out.
    fn check_combination(&self) -> Result<()> {
        let later = self.delivery != Delivery::AtOnce;
        let transaction = self.get(property::TRANSACTION_PREPARED).is_some();
        let (one, other) = match (self.has_priority, later) {
            (_, true) if transaction => (self.delivery.setter(), "a transaction"),
            (true, true) => ("priority", self.delivery.setter()),
            (true, false) if transaction => ("priority", "a transaction"),
            (true, false) if self.get(property::SHARDING_KEY).is_some() => ("priority", "sharding_key"),
            _ => return Ok(()),
        };
        Err(Error::config(format!(
            "message to topic {}: {one} and {other} do not go together, a broker would leave one out; set only one",
            self.topic
        )))
    }
}

fn unusable_property(name: &str, error: CodecError) -> Error {
    Error::config(format!("property {name:?} cannot be sent: {error}")).caused_by(error)
}

#[cfg(test)]
mod tests;
