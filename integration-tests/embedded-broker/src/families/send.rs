//! Sends: the checks of a real broker in its order, then the append.
//!
//! Protocol source: `SendMessageProcessor`, `AbstractSendMessageProcessor`, `HookUtils`.

mod batch;
mod properties;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::TopicFilterType;
use rocketmq_client::protocol::names::{self, RETRY_PREFIX};
use rocketmq_client::protocol::requests::{SendMessageV1, SendMessageV2, SendResultHeader};
use rocketmq_client::protocol::{
    Frame, OffsetMessageId, Properties, Record, Request, ResponseCode, SysFlag, Text, java_hash,
};

use self::properties::SentProperties;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::state::{CreateTopicError, Topic};
use crate::store::Appended;

/// The longest topic name of a batch, and the longest property string, in bytes.
const MAX_BATCH_TOPIC_BYTES: usize = 127;
/// Clients from this version on (3.4.9) say after how many retries a message is dead.
const MAX_RECONSUME_VERSION: i32 = 121;
/// The region of a broker with default settings.
const REGION: &str = "DefaultRegion";

pub(super) fn send_v2(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    match SendMessageV2::from_frame(frame) {
        Ok(request) => send(context, request, reply),
        Err(error) => reply.refuse(&unreadable(error)),
    }
}

pub(super) fn send_v1(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    match SendMessageV1::from_frame(frame) {
        Ok(request) => send(context, request.into(), reply),
        Err(error) => reply.refuse(&unreadable(error)),
    }
}

fn send(context: Context<'_>, request: SendMessageV2, reply: Reply<'_>) {
    let stored = if request.batch == Some(true) {
        batch::store(context, request)
    } else {
        store(context, request)
    };
    match stored {
        Ok(header) => reply.typed(ResponseCode::SUCCESS, None, &header, &[]),
        Err(refusal) => reply.refuse(&refusal),
    }
}

fn store(context: Context<'_>, request: SendMessageV2) -> Result<SendResultHeader, Refusal> {
    let broker = context.broker;
    let mut topic = find_topic(context, &request)?;
    let requested_queue = queue_of(broker, &topic, &request)?;
    let mut queue_id = requested_queue;
    let sent = request.properties.as_deref().unwrap_or_default();
    let mut properties = SentProperties::read(sent);
    if topic.name.starts_with(RETRY_PREFIX)
        && let Some(dead_letters) = dead_letter_topic(context, &request)?
    {
        topic = dead_letters;
        queue_id = 0;
        properties.is_dead();
    }
    if properties.is_transaction && !(request.reconsume_times.unwrap_or(0) > 0 && properties.delay_level > 0)
    {
        let remark = format!(
            "the broker[{}] sending transaction message is forbidden",
            broker.address.ip()
        );
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    check_size(broker, &request.body)?;
    if properties.is_timer {
        let remark = "accurate timer message is not enabled, timerWheelEnable is false";
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let made_id = properties.unique_key.is_none().then(|| broker.unique_ids.next());
    let delay_level = usize::try_from(properties.delay_level).unwrap_or(0);
    let destination = (delay_level > 0).then_some((&*topic.name, queue_id));
    let tag_code = properties.tags.map_or(0, |tag| i64::from(java_hash(tag)));
    let text = properties.stored(made_id.as_deref(), &broker.options.cluster_name, destination);
    let unique_key = made_id.or_else(|| properties.unique_key.map(str::to_owned));
    check_properties(broker, &text)?;
    let record = record_of(context, &request, &topic, queue_id, request.body.clone(), text);
    let appended = if delay_level > 0 {
        broker.append_delayed(delay_level, record)
    } else {
        broker.append_tagged(&topic, record, tag_code)
    };
    let appended = appended.map_err(unreadable)?;
    let id = offset_id(broker.address, appended);
    Ok(answer(id, requested_queue, appended.queue_offset, unique_key))
}

/// The topic of a send, made if it is new and may be made.
fn find_topic(context: Context<'_>, request: &SendMessageV2) -> Result<Arc<Topic>, Refusal> {
    let broker = context.broker;
    if let Some(topic) = broker.topics.get(&request.topic)
        && !names::is_forbidden_topic(&request.topic)
    {
        return Ok(topic);
    }
    if let Err(error) = names::check_topic(&request.topic) {
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, error.to_string()));
    }
    if names::is_forbidden_topic(&request.topic) {
        let remark = format!("Sending message to topic[{}] is forbidden.", request.topic);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let now = broker.clock.now();
    let queues = request.default_topic_queue_nums;
    let made = broker
        .topics
        .find_or_inherit(&request.topic, &request.default_topic, queues, now);
    let made = match made {
        Err(CreateTopicError::NoTemplate) if request.topic.starts_with(RETRY_PREFIX) => {
            broker.topics.find_or_create(&request.topic, 1, now)
        }
        made => made,
    };
    made.map_err(|error| match error {
        CreateTopicError::NoTemplate => {
            let remark = format!("topic[{}] not exist, apply first please!", request.topic);
            Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
        }
        CreateTopicError::TooMany => too_many_topics(),
    })
}

pub(super) fn too_many_topics() -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, "too many topics on this broker")
}

/// The queue that is asked for; a negative one is the broker's choice.
fn queue_of(broker: &Broker, topic: &Topic, request: &SendMessageV2) -> Result<i32, Refusal> {
    let valid = topic.config.write_queue_nums.max(topic.config.read_queue_nums);
    if request.queue_id >= valid {
        let remark = format!(
            "request queueId[{}] is illegal, topic {} has {valid}",
            request.queue_id, topic.name
        );
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    if request.queue_id >= 0 {
        return Ok(request.queue_id);
    }
    broker.any_queue(topic.config.write_queue_nums).ok_or_else(|| {
        let remark = format!("topic {} has no queue that can be written", topic.name);
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })
}

/// The dead-letter topic, if a message that a client itself sends to a retry topic has been tried often enough, or
/// its group consumes in order: that group's client sends here only what it gives up.
fn dead_letter_topic(context: Context<'_>, request: &SendMessageV2) -> Result<Option<Arc<Topic>>, Refusal> {
    let broker = context.broker;
    let group = request.topic.strip_prefix(RETRY_PREFIX).unwrap_or_default();
    let now = broker.clock.now();
    let Some(config) = broker.groups.find_or_create(group, now) else {
        return Err(no_group(group));
    };
    let asked = request
        .max_reconsume_times
        .filter(|_| context.head.version >= MAX_RECONSUME_VERSION);
    let limit = asked.unwrap_or(config.retry_max_times);
    if request.reconsume_times.unwrap_or(0) <= limit && !broker.locks.is_any_held(group) {
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
    request: &SendMessageV2,
    topic: &Topic,
    queue_id: i32,
    body: Bytes,
    properties: String,
) -> Record {
    let multi_tags = topic.config.topic_filter_type == TopicFilterType::MultiTag;
    let sys_flag = SysFlag(request.sys_flag);
    Record {
        queue_id,
        flag: request.flag,
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
        born_timestamp: request.born_timestamp,
        born_host: context.session.peer(),
        reconsume_times: request.reconsume_times.unwrap_or(0),
        prepared_transaction_offset: 0,
        body,
        topic: topic.text.clone(),
        properties: Properties::new(Text::from(properties)),
    }
}

fn offset_id(store_host: SocketAddr, appended: Appended) -> String {
    let id = OffsetMessageId {
        store_host,
        physical_offset: appended.physical_offset,
    };
    id.to_string()
}

fn answer(
    msg_id: String,
    queue_id: i32,
    queue_offset: i64,
    transaction_id: Option<String>,
) -> SendResultHeader {
    SendResultHeader {
        msg_id,
        queue_id,
        queue_offset,
        transaction_id,
        region: Some(REGION.to_owned()),
        trace_on: Some("true".to_owned()),
    }
}
