//! Messages that a consumer gives back: to the retry topic after a delay, or to the dead letters.
//!
//! Protocol source: `AbstractSendMessageProcessor#consumerSendMsgBack`.

use rocketmq_client::protocol::names::{dlq_topic, retry_topic};
use rocketmq_client::protocol::requests::ConsumerSendMsgBack;
use rocketmq_client::protocol::{
    CodecError, Done, OffsetMessageId, Properties, PropertiesBuf, Record, ResponseCode, property,
};

use super::send::{no_group, too_many_topics};
use crate::server::{Context, Refusal, unreadable};

/// The first retry waits for this delay level; each further one for the next.
const FIRST_RETRY_LEVEL: i32 = 3;

pub(super) fn consumer_send_back(
    context: Context<'_>,
    request: ConsumerSendMsgBack,
) -> Result<Done, Refusal> {
    let broker = context.broker;
    let now = broker.clock.now();
    let Some(group) = broker.groups.find_or_create(&request.group, now) else {
        return Err(no_group(&request.group));
    };
    if group.retry_queue_nums <= 0 {
        return Ok(Done);
    }
    let retry_topic = retry_topic(&request.group);
    let topic = broker
        .topics
        .find_or_create(&retry_topic, group.retry_queue_nums, now);
    let mut topic = topic.map_err(|_| too_many_topics())?;
    let Some(stored) = broker.store.at_physical(request.offset) else {
        let remark = format!("look message by offset failed, {}", request.offset);
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    let record = Record::decode(stored).map_err(unreadable)?;
    let limit = request.max_reconsume_times.unwrap_or(group.retry_max_times);
    let is_dead = record.reconsume_times >= limit || request.delay_level < 0;
    let (level, queue_id) = if is_dead {
        topic = broker
            .topics
            .find_or_create(&dlq_topic(&request.group), 1, now)
            .map_err(|_| too_many_topics())?;
        (0, 0)
    } else {
        let level = match request.delay_level {
            0 => FIRST_RETRY_LEVEL.saturating_add(record.reconsume_times),
            level => level,
        };
        (
            level,
            broker.any_queue(topic.config.write_queue_nums).unwrap_or(0),
        )
    };
    let properties = properties_of_retry(&record, level, (&topic.name, queue_id)).map_err(unreadable)?;
    let again = Record {
        queue_id,
        topic: topic.text.clone(),
        reconsume_times: record.reconsume_times.saturating_add(1),
        prepared_transaction_offset: 0,
        properties,
        ..record
    };
    let appended = match usize::try_from(level) {
        Ok(level) if level > 0 => broker.append_delayed(level, again),
        _ => broker.append(&topic, again),
    };
    appended.map_err(unreadable)?;
    Ok(Done)
}

fn properties_of_retry(record: &Record, level: i32, to: (&str, i32)) -> Result<Properties, CodecError> {
    let mut properties = PropertiesBuf::from(&record.properties);
    if properties.get(property::RETRY_TOPIC).is_none() {
        properties.set(property::RETRY_TOPIC, &record.topic)?;
    }
    if properties.get(property::ORIGIN_MESSAGE_ID).is_none() {
        let id = OffsetMessageId {
            store_host: record.store_host,
            physical_offset: record.physical_offset,
        };
        properties.set(property::ORIGIN_MESSAGE_ID, &id.to_string())?;
    }
    properties.set(property::WAIT, "false")?;
    properties.set(property::DELAY, &level.to_string())?;
    if level > 0 {
        properties.set(property::REAL_TOPIC, to.0)?;
        properties.set(property::REAL_QUEUE_ID, &to.1.to_string())?;
    }
    Ok(properties.into())
}
