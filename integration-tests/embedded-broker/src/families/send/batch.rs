//! Batches: the body is several messages, each stored as one of its own.
//!
//! Protocol source: `MessageDecoder#decodeMessages`, `SendMessageProcessor#sendBatchMessage`.

use bytes::{Buf, Bytes};
use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::requests::{SendMessageV2, SendResultHeader};
use rocketmq_client::protocol::{ResponseCode, Text, java_hash};

use super::properties::SentProperties;
use super::{
    MAX_BATCH_TOPIC_BYTES, answer, check_properties, check_size, find_topic, illegal_message, offset_id,
    queue_of, record_of,
};
use crate::server::{Context, Refusal, unreadable};

struct Element {
    flag: i32,
    body: Bytes,
    properties: Text,
}

pub(super) fn store(context: Context<'_>, request: SendMessageV2) -> Result<SendResultHeader, Refusal> {
    let broker = context.broker;
    let topic = find_topic(context, &request)?;
    let queue_id = queue_of(broker, &topic, &request)?;
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
    check_size(broker, &request.body)?;
    let Some(elements) = elements(request.body.clone()) else {
        return Err(illegal_message(broker));
    };
    // All are checked before the first is stored.
    let mut records = Vec::with_capacity(elements.len());
    let mut unique_keys = Vec::with_capacity(elements.len());
    for element in elements {
        check_size(broker, &element.body)?;
        let properties = SentProperties::read(&element.properties);
        let made_id = properties.unique_key.is_none().then(|| broker.unique_ids.next());
        let text = properties.stored(made_id.as_deref(), &broker.options.cluster_name, None);
        check_properties(broker, &text)?;
        let tag_code = properties.tags.map_or(0, |tag| i64::from(java_hash(tag)));
        unique_keys.extend(made_id.or_else(|| properties.unique_key.map(str::to_owned)));
        let mut record = record_of(context, &request, &topic, queue_id, element.body, text);
        record.flag = element.flag;
        records.push((record, tag_code));
    }
    let mut first = None;
    let mut ids = Vec::with_capacity(records.len());
    for (record, tag_code) in records {
        let appended = broker
            .append_tagged(&topic, record, tag_code)
            .map_err(unreadable)?;
        first.get_or_insert(appended.queue_offset);
        ids.push(offset_id(broker.address, appended));
    }
    let first = first.ok_or_else(|| illegal_message(broker))?;
    Ok(answer(
        ids.join(","),
        queue_id,
        first,
        Some(unique_keys.join(",")),
    ))
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
