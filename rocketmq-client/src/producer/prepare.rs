//! From a message to what goes on the wire: checked, named, compressed; made once for all attempts.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use super::Core;
use crate::cluster::outbound_parts;
use crate::error::{Error, ErrorKind, Result};
use crate::message::Message;
use crate::protocol::names::{AUTO_CREATE_TOPIC, Namespace, RETRY_PREFIX};
use crate::protocol::requests::{SendMessageV2, SendReplyMessageV2};
use crate::protocol::{Fields, MAX_PROPERTIES_BYTES, PropertiesBuf, SysFlag, java_hash, property};
use crate::transport::Outbound;

/// The bits of a body compressed with zlib, as clients write them from 4.9.4 on.
const ZLIB: i32 = SysFlag::COMPRESSED | 3 << 8;

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
    #[serde(rename = "n")]
    broker_name: &'a str,
}

impl Prepared {
    /// Checks the message, gives it an id, and compresses its body if it is large.
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let born_timestamp = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let message_id = match properties.get(property::UNIQUE_KEY) {
            Some(id) => id.to_owned(),
            None => {
                let id = core.cluster.unique_ids().at(born_timestamp);
                properties
                    .set(property::UNIQUE_KEY, &id)
                    .map_err(|error| Error::from_encode("message", error))?;
                id
            }
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
        if properties.len() > MAX_PROPERTIES_BYTES {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "message to topic {topic}: its properties have {} bytes, a broker stores {MAX_PROPERTIES_BYTES}; \
                     put what is large into the body",
                    properties.len()
                ),
            ));
        }
        let (body, sys_flag) = match options.compress_from_bytes {
            Some(from) if body.len() >= from => compress(body, options.compression_level),
            _ => (body, 0),
        };
        Ok(Self {
            topic,
            wire_topic,
            body,
            message_id,
            sharding_hash,
            kind,
            properties,
            sys_flag,
            flag,
            born_timestamp,
            reconsume_times,
            max_reconsume_times,
        })
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
            default_topic: AUTO_CREATE_TOPIC,
            default_topic_queue_nums: core.options.default_topic_queue_nums,
            queue_id,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            flag: self.flag,
            properties: &self.properties,
            reconsume_times: self.reconsume_times,
            unit_mode: core.cluster.unit_mode().then_some(true),
            max_reconsume_times: self.max_reconsume_times,
            broker_name,
        }
    }
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

/// The compressed body, unless that is no gain.
fn compress(body: Bytes, level: u32) -> (Bytes, i32) {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(body.len() / 2), Level::new(level));
    // Writing to memory does not fail; if it did, the body would go as it is.
    let compressed = encoder.write_all(&body).and_then(|()| encoder.finish());
    match compressed {
        Ok(compressed) if compressed.len() < body.len() => (compressed.into(), ZLIB),
        _ => (body, 0),
    }
}

#[cfg(test)]
mod tests;
