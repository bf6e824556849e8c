//! Batches: the body is several messages, each stored as one of its own.
//!
//! Protocol source: `MessageDecoder#decodeMessages`, `SendMessageProcessor#sendBatchMessage`.

use std::borrow::Cow;

use bytes::{Buf, Bytes};
use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::{ResponseCode, Text, java_hash};

use super::header::{SendAnswer, SendHeader};
use super::properties::SentProperties;
use super::{MAX_BATCH_TOPIC_BYTES, check_size, find_topic, illegal_message, queue_of, record_of};
use crate::server::{Context, Refusal, unreadable};

struct Element {
    flag: i32,
    body: Bytes,
    properties: Text,
}

pub(super) fn store<'a>(
    context: Context<'_>,
    sent: SendHeader<'a>,
    body: Bytes,
) -> Result<SendAnswer<'a>, Refusal> {
    let broker = context.broker;
    let topic = find_topic(context, sent)?;
    let queue_id = queue_of(broker, &topic, sent)?;
    if topic.name.len() > MAX_BATCH_TOPIC_BYTES {
        return Err(Refusal::new(
            ResponseCode::MESSAGE_ILLEGAL,
            format!("message topic length too long {}", topic.name.len()),
        ));
    }
    if topic.name.starts_with(RETRY_PREFIX) {
        let remark = format!("batch request does not support retry group {}", topic.name);
        return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
    }
    check_size(broker, &body)?;
    let Some(elements) = elements(body) else {
        return Err(illegal_message(broker));
    };
    // All are checked before the first is stored. Their properties stay as they are: only single messages are told
    // where they were stored.
    let mut records = Vec::with_capacity(elements.len());
    for element in elements {
        check_size(broker, &element.body)?;
        let tags = SentProperties::read(&element.properties).tags;
        let tag_code = tags.map_or(0, |tag| i64::from(java_hash(tag)));
        let mut record = record_of(context, sent, &topic, queue_id, element.body, element.properties);
        record.flag = element.flag;
        records.push((record, tag_code));
    }
    let appended = broker.append_all(&topic, records).map_err(unreadable)?;
    let first = appended
        .first()
        .ok_or_else(|| illegal_message(broker))?
        .queue_offset;
    let ids: Vec<_> = appended
        .iter()
        .map(|one| broker.offset_id(one.physical_offset))
        .collect();
    // The batch itself may have a unique key, besides those of its messages.
    let unique_key = SentProperties::read(sent.properties)
        .unique_key
        .map(Cow::Borrowed);
    Ok(SendAnswer::new(ids.join(","), queue_id, first, unique_key))
}

/// Cuts a batch into its messages; none if it is no batch.
fn elements(mut batch: Bytes) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    while batch.has_remaining() {
        let size = usize::try_from(batch.try_get_i32().ok()?).ok()?.checked_sub(4)?;
        if size > batch.len() {
            return None;
        }
        let mut element = batch.split_to(size);
        let _magic = element.try_get_i32().ok()?;
        let _crc = element.try_get_i32().ok()?;
        let flag = element.try_get_i32().ok()?;
        let body_len = usize::try_from(element.try_get_i32().ok()?).ok()?;
        if body_len > element.len() {
            return None;
        }
        let body = element.split_to(body_len);
        let properties_len = usize::try_from(element.try_get_i16().ok()?).ok()?;
        if properties_len != element.len() {
            return None;
        }
        let properties = Text::from_utf8(element).ok()?;
        elements.push(Element {
            flag,
            body,
            properties,
        });
    }
    Some(elements)
}
