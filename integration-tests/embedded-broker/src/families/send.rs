//! Sends: the checks of a real broker in its order, then the append.
//!
//! Protocol source: `SendMessageProcessor`, `AbstractSendMessageProcessor`, `HookUtils`.

mod batch;
mod header;
mod properties;
mod reply;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::TopicFilterType;
use rocketmq_client::protocol::names::{self, HALF_TOPIC, RETRY_PREFIX};
use rocketmq_client::protocol::{
    BrokerVersion, Frame, Properties, RecallHandle, Record, ResponseCode, SysFlag, Text, java_hash, property,
};

use self::header::{SendAnswer, SendHeader};
use self::properties::{SentProperties, Timer};
pub(crate) use self::reply::answer as answer_reply;
pub(super) use self::reply::reply;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::state::{CreateTopicError, Topic};
use crate::wait::{Halves, Wheel};

/// The longest topic name of a batch, and the longest property string, in bytes.
const MAX_BATCH_TOPIC_BYTES: usize = 127;
/// Clients from this version on (3.4.9) say after how many retries a message is dead.
const MAX_RECONSUME_VERSION: i32 = 121;
/// The region of a broker with default settings.
const REGION: &str = "DefaultRegion";

/// Serves a send in any of its forms; the names of the fields tell them apart.
pub(super) fn send(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let Frame { fields, body, .. } = frame;
    let sent = match SendHeader::read(&fields) {
        Ok(sent) => sent,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let stored = if sent.is_batch {
        batch::store(context, sent, body)
    } else {
        store(context, sent, body)
    };
    match stored {
        Ok(answer) => reply.typed(ResponseCode::SUCCESS, None, &answer, &[]),
        Err(refusal) => {
            reply.refuse(&refusal.with([(property::MSG_REGION, REGION), (property::TRACE_ON, "true")]));
        }
    }
}

fn store<'a>(context: Context<'_>, sent: SendHeader<'a>, body: Bytes) -> Result<SendAnswer<'a>, Refusal> {
    let broker = context.broker;
    let mut topic = find_topic(context, sent)?;
    let requested_queue = queue_of(broker, &topic, sent)?;
    let mut queue_id = requested_queue;
    let mut properties = SentProperties::read(sent.properties);
    let version = broker.options.version;
    if version < BrokerVersion::V5_0_0 {
        properties.timer = None;
    }
    if version >= BrokerVersion::V5_5_0
        && let Some(queue) = properties.queue_of_priority(topic.config.write_queue_nums)
    {
        queue_id = queue;
    }
    if topic.name.starts_with(RETRY_PREFIX)
        && let Some(dead_letters) = dead_letter_topic(context, sent)?
    {
        topic = dead_letters;
        queue_id = 0;
        properties.is_dead();
    }
    let is_half = properties.is_transaction && !(sent.reconsume_times > 0 && properties.delay_level > 0);
    if is_half && broker.options.reject_transactions {
        let remark = format!(
            "the broker[{}] sending transaction message is forbidden",
            broker.address.ip()
        );
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    check_size(broker, &body)?;
    if properties.has_unreadable_delay {
        return Err(Refusal::new(
            ResponseCode::SYSTEM_ERROR,
            "the property DELAY is no number",
        ));
    }
    let due = match properties.timer {
        Some(timer) if !is_half => due(timer, broker.clock.now())?,
        _ => None,
    };
    let unique_key = match properties.unique_key {
        Some(key) => Cow::Borrowed(key),
        None => Cow::Owned(broker.unique_ids.next()),
    };
    let delay_level = usize::try_from(properties.delay_level).unwrap_or(0);
    let destination = match (delay_level > 0, is_half) {
        // A delayed half message is lost when it is due, here as on a real broker.
        (true, true) => Some((HALF_TOPIC, 0)),
        (false, false) if due.is_none() => None,
        _ => Some((&*topic.name, queue_id)),
    };
    let tag_code = properties.tags.map_or(0, |tag| i64::from(java_hash(tag)));
    let mut text = properties.stored(&unique_key, &broker.options.cluster_name, destination);
    if is_half {
        properties::push(&mut text, property::TRANSACTION_ID, &unique_key);
    }
    let told = due.map(Wheel::told);
    if let Some(told) = told {
        properties::push(&mut text, property::TIMER_OUT_MS, &told.to_string());
    }
    check_properties(broker, &text)?;
    let mut record = record_of(context, sent, &topic, queue_id, body, text.into());
    if is_half {
        record.sys_flag = record.sys_flag.with(SysFlag::TRANSACTION_MASK, false);
    }
    let appended = if is_half && delay_level == 0 {
        Halves::put(broker, record)
    } else if delay_level > 0 {
        broker.append_delayed(delay_level, record)
    } else if let Some(due) = due {
        Wheel::put(broker, due, record)
    } else {
        broker.append_tagged(&topic, record, tag_code)
    };
    let appended = appended.map_err(unreadable)?;
    let id = broker.offset_id(appended.physical_offset);
    let recall_handle = told
        .filter(|_| version >= BrokerVersion::V5_3_2 && !topic.name.starts_with(RETRY_PREFIX))
        .map(|told| recall_handle(broker, &topic, told, &unique_key));
    let answer = SendAnswer::new(id, requested_queue, appended.queue_offset, Some(unique_key));
    Ok(answer.with_recall_handle(recall_handle))
}

/// When a timed message is due; none if that is past, and the message goes to its queue at once.
fn due(timer: Timer<'_>, now: i64) -> Result<Option<i64>, Refusal> {
    match timer.due(now) {
        Some(due) if due <= now => Ok(None),
        Some(due) if due.saturating_sub(now) <= Wheel::MAX_DELAY => Ok(Some(due)),
        _ => {
            let remark = format!(
                "timer message illegal, the delay time should not be bigger than the max delay {}ms; or if set del msg, \
                 the delay time should be bigger than the current time",
                Wheel::MAX_DELAY
            );
            Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark))
        }
    }
}

fn recall_handle(broker: &Broker, topic: &Topic, told: i64, unique_key: &str) -> String {
    let handle = RecallHandle {
        topic: topic.name.to_string(),
        broker_name: broker.options.broker_name.clone(),
        // What is told is cut; the handle must not be past before the message is delivered.
        deliver_timestamp: told.saturating_add(1),
        unique_key: unique_key.to_owned(),
    };
    handle.to_string()
}

/// The topic of a send, made if it is new and may be made.
fn find_topic(context: Context<'_>, sent: SendHeader<'_>) -> Result<Arc<Topic>, Refusal> {
    let broker = context.broker;
    if let Some(topic) = broker.topics.get(sent.topic)
        && !names::is_forbidden_topic(sent.topic)
    {
        return Ok(topic);
    }
    if let Err(error) = names::check_topic(sent.topic) {
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, error.to_string()));
    }
    if names::is_forbidden_topic(sent.topic) {
        let remark = format!("Sending message to topic[{}] is forbidden.", sent.topic);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let now = broker.clock.now();
    let queues = sent.default_topic_queue_nums;
    let made = broker
        .topics
        .find_or_inherit(sent.topic, sent.default_topic, queues, now);
    let made = match made {
        Err(CreateTopicError::NoTemplate) if sent.topic.starts_with(RETRY_PREFIX) => {
            broker.topics.find_or_create(sent.topic, 1, now)
        }
        made => made,
    };
    made.map_err(|error| match error {
        CreateTopicError::NoTemplate => {
            let remark = format!("topic[{}] not exist, apply first please!", sent.topic);
            Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
        }
        CreateTopicError::TooMany => too_many_topics(),
    })
}

pub(super) fn too_many_topics() -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, "too many topics on this broker")
}

/// The queue that is asked for; a negative one is the broker's choice.
fn queue_of(broker: &Broker, topic: &Topic, sent: SendHeader<'_>) -> Result<i32, Refusal> {
    let valid = topic.config.write_queue_nums.max(topic.config.read_queue_nums);
    if sent.queue_id >= valid {
        let remark = format!(
            "request queueId[{}] is illegal, topic {} has {valid}",
            sent.queue_id, topic.name
        );
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    if sent.queue_id >= 0 {
        return Ok(sent.queue_id);
    }
    broker.any_queue(topic.config.write_queue_nums).ok_or_else(|| {
        let remark = format!("topic {} has no queue that can be written", topic.name);
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })
}

/// The dead-letter topic, if a message that a client itself sends to a retry topic has been tried often enough, or
/// its group consumes in order: that group's client sends here only what it gives up.
fn dead_letter_topic(context: Context<'_>, sent: SendHeader<'_>) -> Result<Option<Arc<Topic>>, Refusal> {
    let broker = context.broker;
    let group = sent.topic.strip_prefix(RETRY_PREFIX).unwrap_or_default();
    let now = broker.clock.now();
    let Some(config) = broker.groups.find_or_create(group, now) else {
        return Err(no_group(group));
    };
    let asked = sent
        .max_reconsume_times
        .filter(|_| context.head.version >= MAX_RECONSUME_VERSION);
    let limit = asked.unwrap_or(config.retry_max_times);
    if sent.reconsume_times <= limit && !broker.locks.is_any_held(group) {
        return Ok(None);
    }
    let made = broker.topics.find_or_create(&names::dlq_topic(group), 1, now);
    made.map(Some).map_err(|_| too_many_topics())
}

pub(super) fn no_group(group: &str) -> Refusal {
    Refusal::new(
        ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
        format!("subscription group not exist, {group}"),
    )
}

fn check_size(broker: &Broker, body: &Bytes) -> Result<(), Refusal> {
    if body.is_empty() || body.len() > broker.options.max_message_bytes {
        return Err(illegal_message(broker));
    }
    Ok(())
}

fn check_properties(broker: &Broker, text: &str) -> Result<(), Refusal> {
    if text.len() > rocketmq_client::protocol::MAX_PROPERTIES_BYTES {
        return Err(illegal_message(broker));
    }
    Ok(())
}

fn illegal_message(broker: &Broker) -> Refusal {
    let limit = broker.options.max_message_bytes;
    let remark = format!(
        "the message is illegal, maybe msg body or properties length not matched. msg body length limit {limit}B, msg \
         properties length limit 32KB."
    );
    Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
}

fn record_of(
    context: Context<'_>,
    sent: SendHeader<'_>,
    topic: &Topic,
    queue_id: i32,
    body: Bytes,
    properties: Text,
) -> Record {
    let multi_tags = topic.config.topic_filter_type == TopicFilterType::MultiTag;
    let sys_flag = SysFlag(sent.sys_flag);
    Record {
        queue_id,
        flag: sent.flag,
        // These four are the store's to fill in.
        queue_offset: 0,
        physical_offset: 0,
        store_timestamp: 0,
        store_host: context.broker.address,
        sys_flag: if multi_tags {
            sys_flag.with(SysFlag::MULTI_TAGS, true)
        } else {
            sys_flag
        },
        born_timestamp: sent.born_timestamp,
        born_host: context.session.peer(),
        reconsume_times: sent.reconsume_times,
        prepared_transaction_offset: 0,
        body,
        topic: topic.text.clone(),
        properties: Properties::new(properties),
    }
}
