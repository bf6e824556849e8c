//! From a message to what goes on the wire: checked, named, compressed; made once for all attempts.

use std::mem;

use bytes::Bytes;
use serde::Serialize;

use super::Core;
use super::builder::Options;
use crate::cluster::outbound_parts;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Delivery, Message};
use crate::protocol::names::{Namespace, RETRY_PREFIX};
use crate::protocol::requests::{SendMessageV2, SendReplyMessageV2};
use crate::protocol::{
    BrokerVersion, Compression, Fields, MAX_PROPERTIES_BYTES, PropertiesBuf, RequestCode, SysFlag, compress,
    java_hash, property,
};
use crate::trace::now_millis;
use crate::transport::Outbound;

/// From this size on, bodies are compressed on another thread: it takes about a millisecond.
const COMPRESSED_ELSEWHERE: usize = 64 * 1024;

/// A message ready to be sent, as often as it takes.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) topic: String,
    /// The topic as brokers know it, if that differs.
    wire_topic: Option<String>,
    pub(super) body: Bytes,
    pub(super) message_id: String,
    /// Java's hash of the key that orders messages, if there is one.
    pub(super) sharding_hash: Option<i32>,
    kind: Kind,
    pub(super) needs: Needs,
    /// Only a batch has it.
    envelope: Option<Envelope>,
    to_compress: bool,
    properties: String,
    sys_flag: i32,
    flag: i32,
    pub(super) born_timestamp: i64,
    reconsume_times: Option<i32>,
    max_reconsume_times: Option<i32>,
}

/// Which request carries the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    /// The broker passes it on to the client that waits for it.
    Reply,
    /// Several messages in one.
    Batch,
}

/// What a broker must know of, because it would silently ignore it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// Only to be told apart: batches go to all brokers, but not in quite the same form.
    Version,
    DeliveryTime,
    Priority,
}

/// What a batch says of itself, besides what its messages say of themselves.
#[derive(Debug)]
struct Envelope {
    /// The properties with an id of the batch. Brokers from 5.0 on want one for some topics; older ones would write it
    /// over those of the messages.
    properties: String,
    is_told: bool,
}

/// The header of [`SendMessageV2`](crate::protocol::requests::SendMessageV2), borrowed: nothing is copied but into
/// the connection's buffer. The names are those of the wire; what a broker takes for false or 0 when it is absent
/// (no unit mode, batch, reconsume times) is left out.
#[derive(Serialize)]
pub(super) struct SendHeader<'a> {
    #[serde(rename = "a")]
    producer_group: &'a str,
    #[serde(rename = "b")]
    topic: &'a str,
    #[serde(rename = "c")]
    default_topic: &'a str,
    #[serde(rename = "d")]
    default_topic_queue_nums: i32,
    #[serde(rename = "e")]
    queue_id: i32,
    #[serde(rename = "f")]
    sys_flag: i32,
    #[serde(rename = "g")]
    born_timestamp: i64,
    #[serde(rename = "h")]
    flag: i32,
    #[serde(rename = "i")]
    properties: &'a str,
    #[serde(rename = "j")]
    reconsume_times: Option<i32>,
    #[serde(rename = "k")]
    unit_mode: Option<bool>,
    #[serde(rename = "l")]
    max_reconsume_times: Option<i32>,
    #[serde(rename = "m")]
    batch: Option<bool>,
    #[serde(rename = "n")]
    broker_name: &'a str,
}

impl Prepared {
    /// Checks the message and gives it an id. A body that is worth it is still to be [compressed](Self::compress).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] or [`ErrorKind::TooLarge`] with what cannot be sent and why.
    pub(super) fn new(message: Message, core: &Core) -> Result<Self> {
        let options = &core.options;
        message.check(options.max_message_bytes)?;
        let Message {
            mut topic,
            body,
            mut properties,
            flag,
            delivery,
            has_priority,
            ..
        } = message;
        let kind = match properties.get(property::MESSAGE_TYPE) {
            Some("reply") => Kind::Reply,
            _ => Kind::Message,
        };
        let mut wire_topic = None;
        // The reply topic is the cluster's own; there is one for all namespaces.
        if kind == Kind::Message
            && let Some(namespace) = core.cluster.namespace()
        {
            wire_topic = Some(put_in_namespace(namespace, &mut topic, &mut properties)?);
        }
        let born_timestamp = now_millis();
        let message_id = match identify(&mut properties, core, born_timestamp)? {
            Some(new) => new,
            None => properties
                .get(property::UNIQUE_KEY)
                .unwrap_or_default()
                .to_owned(),
        };
        let (mut reconsume_times, mut max_reconsume_times) = (None, None);
        if topic.starts_with(RETRY_PREFIX) {
            let number = |name| properties.get(name).and_then(|text| text.parse::<i32>().ok());
            reconsume_times = number(property::RECONSUME_TIME);
            max_reconsume_times = number(property::MAX_RECONSUME_TIMES);
        }
        let sharding_hash = properties.get(property::SHARDING_KEY).map(java_hash);
        let is_half = properties.get(property::TRANSACTION_PREPARED) == Some("true");
        let properties = properties.into_string();
        check_properties(&properties, &topic)?;
        let needs = match delivery {
            Delivery::Delay | Delivery::Time => Needs::DeliveryTime,
            _ if has_priority => Needs::Priority,
            _ => Needs::Nothing,
        };
        Ok(Self {
            topic,
            wire_topic,
            to_compress: options.compress_from_bytes.is_some_and(|from| body.len() >= from),
            body,
            message_id,
            sharding_hash,
            kind,
            needs,
            envelope: None,
            properties,
            sys_flag: if is_half { SysFlag::TRANSACTION_PREPARED } else { 0 },
            flag,
            born_timestamp,
            reconsume_times,
            max_reconsume_times,
        })
    }

    /// Gives a message of a batch what each message has of its own: namespace and id.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn admit(message: &mut Message, core: &Core, born_timestamp: i64) -> Result<()> {
        if let Some(namespace) = core.cluster.namespace() {
            put_in_namespace(namespace, &mut message.topic, &mut message.properties)?;
        }
        identify(&mut message.properties, core, born_timestamp)?;
        check_properties(message.properties.as_str(), &message.topic)
    }

    /// What is common to the messages of a batch, which are in `body`; `first` is one of them and `ids` are the ids of
    /// all, separated by commas.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn batch(first: &Message, ids: String, body: Bytes, core: &Core) -> Result<Self> {
        let mut topic = first.topic.clone();
        let mut properties = PropertiesBuf::new();
        if let Some(wait) = first.properties.get(property::WAIT) {
            properties
                .set(property::WAIT, wait)
                .map_err(|error| Error::from_encode("batch", error))?;
        }
        let mut wire_topic = None;
        if let Some(namespace) = core.cluster.namespace() {
            wire_topic = Some(put_in_namespace(namespace, &mut topic, &mut properties)?);
        }
        let born_timestamp = now_millis();
        let without_id = properties.clone().into_string();
        identify(&mut properties, core, born_timestamp)?;
        Ok(Self {
            topic,
            wire_topic,
            body,
            message_id: ids,
            sharding_hash: first.properties.get(property::SHARDING_KEY).map(java_hash),
            kind: Kind::Batch,
            needs: Needs::Version,
            envelope: Some(Envelope {
                properties: properties.into_string(),
                is_told: false,
            }),
            to_compress: false,
            properties: without_id,
            sys_flag: 0,
            flag: 0,
            born_timestamp,
            reconsume_times: None,
            max_reconsume_times: None,
        })
    }

    /// How many messages these are.
    pub(super) fn messages(&self) -> u64 {
        match self.kind {
            Kind::Batch => self.message_id.split(',').count() as u64,
            Kind::Message | Kind::Reply => 1,
        }
    }

    /// The value of a property, if the message has it.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        let mut pairs = self
            .properties
            .split('\u{2}')
            .filter_map(|pair| pair.split_once('\u{1}'));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub(super) fn header<'a>(
        &'a self,
        core: &'a Core,
        broker_name: &'a str,
        queue_id: i32,
    ) -> SendHeader<'a> {
        SendHeader {
            producer_group: &core.wire_group,
            topic: self.wire_topic.as_deref().unwrap_or(&self.topic),
            default_topic: &core.options.template.topic,
            default_topic_queue_nums: core.options.template.queues,
            queue_id,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            flag: self.flag,
            properties: self.properties(),
            reconsume_times: self.reconsume_times,
            unit_mode: core.cluster.unit_mode().then_some(true),
            max_reconsume_times: self.max_reconsume_times,
            batch: self.is_batch().then_some(true),
            broker_name,
        }
    }

    /// The request with this header.
    pub(super) fn outbound<'a>(
        &self,
        header: &'a SendHeader<'a>,
        extra: &'a Fields,
    ) -> Outbound<'a, SendHeader<'a>> {
        let body = self.body.clone();
        match self.kind {
            Kind::Message => outbound_parts::<SendMessageV2, _>(header, extra, body),
            Kind::Reply => outbound_parts::<SendReplyMessageV2, _>(header, extra, body),
            Kind::Batch => Outbound {
                code: RequestCode::SEND_BATCH_MESSAGE.0,
                name: "SendBatch",
                ..outbound_parts::<SendMessageV2, _>(header, extra, body)
            },
        }
    }

    pub(super) fn is_batch(&self) -> bool {
        self.kind == Kind::Batch
    }

    fn properties(&self) -> &str {
        match &self.envelope {
            Some(envelope) if envelope.is_told => &envelope.properties,
            _ => &self.properties,
        }
    }

    /// Whether the body is large enough that compressing it would hold up what else runs on the thread.
    pub(super) fn is_compressed_elsewhere(&self) -> bool {
        self.to_compress && self.body.len() >= COMPRESSED_ELSEWHERE
    }

    /// Compresses the body if it is to be, unless that is no gain.
    pub(super) fn compress(&mut self, options: &Options) {
        if mem::take(&mut self.to_compress) {
            let compressed = compress(&self.body, options.compression, options.compression_level);
            self.use_compressed(compressed.ok(), options.compression);
        }
    }

    /// The same on another thread, where it holds up nothing.
    pub(super) async fn compress_elsewhere(&mut self, core: &Core) {
        if mem::take(&mut self.to_compress) {
            let (compression, level) = (core.options.compression, core.options.compression_level);
            let body = self.body.clone();
            let work = move || compress(&body, compression, level).ok();
            let compressed = core.tasks.compute(work).await.flatten();
            self.use_compressed(compressed, compression);
        }
    }

    /// A body that cannot be compressed, or does not become smaller, goes as it is.
    fn use_compressed(&mut self, compressed: Option<Bytes>, compression: Compression) {
        if let Some(compressed) = compressed.filter(|compressed| compressed.len() < self.body.len()) {
            self.body = compressed;
            self.sys_flag |= compression.sys_flag();
        }
    }

    /// Makes sure that the broker honours what the message asks for.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with what an older broker would do instead.
    pub(super) fn fit(&mut self, version: BrokerVersion) -> Result<()> {
        if let Some(envelope) = &mut self.envelope {
            envelope.is_told = version >= BrokerVersion::V5_0_0;
        }
        let (since, what, instead) = match self.needs {
            Needs::DeliveryTime if version < BrokerVersion::V5_0_0 => (
                BrokerVersion::V5_0_0,
                "delivery times",
                "deliver the message at once; use delay_level, which it knows",
            ),
            Needs::Priority if version < BrokerVersion::V5_5_0 => (
                BrokerVersion::V5_5_0,
                "priorities",
                "ignore that of the message; send it without",
            ),
            _ => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the broker has version {version}, which is before {what} ({since}): it would {instead}"),
        ))
    }
}

/// Gives a message an id and returns it, unless it has one.
fn identify(properties: &mut PropertiesBuf, core: &Core, born_timestamp: i64) -> Result<Option<String>> {
    if properties.get(property::UNIQUE_KEY).is_some() {
        return Ok(None);
    }
    let id = core.cluster.unique_ids().at(born_timestamp);
    properties
        .set(property::UNIQUE_KEY, &id)
        .map_err(|error| Error::from_encode("message", error))?;
    Ok(Some(id))
}

/// Refuses more properties than a broker stores.
fn check_properties(properties: &str, topic: &str) -> Result<()> {
    if properties.len() <= MAX_PROPERTIES_BYTES {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooLarge,
        format!(
            "message to topic {topic}: its properties have {} bytes, a broker stores {MAX_PROPERTIES_BYTES}; put what is \
             large into the body",
            properties.len()
        ),
    ))
}

/// The topic as brokers know it. `topic` becomes the user's name, should it be the brokers' one; the message says which
/// namespace it is of. Java: `Message#setInstanceId`.
fn put_in_namespace(
    namespace: &Namespace,
    topic: &mut String,
    properties: &mut PropertiesBuf,
) -> Result<String> {
    *topic = namespace.unwrap(topic).into_owned();
    namespace
        .check_topic(topic)
        .map_err(|error| Error::config(format!("message cannot be sent: {error}")).caused_by(error))?;
    properties
        .set(property::INSTANCE_ID, namespace.name())
        .map_err(|error| Error::from_encode("message", error))?;
    Ok(namespace.wrap(topic).into_owned())
}

#[cfg(test)]
mod tests;
