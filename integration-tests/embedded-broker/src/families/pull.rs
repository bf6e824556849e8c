//! Pulls: the checks of a real broker in its order, then the read, or the wait.
//!
//! Protocol source: `PullMessageProcessor`, `DefaultPullMessageResultHandler`.

use rocketmq_client::protocol::bodies::{MASTER_ID, MessageModel, SubscriptionData, permission};
use rocketmq_client::protocol::requests::{PullMessage, pull_flag};
use rocketmq_client::protocol::{Frame, Request, ResponseCode};
use serde::Serialize;

use super::send::no_group;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, Session, unreadable};
use crate::store::{Batch, BatchStatus, TagFilter, Wanted};
use crate::wait::HeldPull;

/// What forbids a pull, in the header of the refusal. Java: `ForbiddenType`.
const GROUP_FORBIDDEN: &str = "2";
const TOPIC_FORBIDDEN: &str = "3";
const BROADCASTING_DISABLED: &str = "4";
const SUBSCRIPTION_FORBIDDEN: &str = "5";

/// A pull that has passed the checks.
struct Allowed {
    filter: TagFilter,
    topic_sys_flag: i32,
    group_sys_flag: i32,
    /// The broker to pull from next time.
    suggestion: i64,
}

/// The header of the answer: a `PullResultHeader` and what only 5.x brokers say.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerHeader {
    suggest_which_broker_id: i64,
    next_begin_offset: i64,
    min_offset: i64,
    max_offset: i64,
    topic_sys_flag: i32,
    group_sys_flag: i32,
}

pub(super) fn pull(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match PullMessage::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let broker = context.broker;
    let allowed = match check(broker, context.session, &request) {
        Ok(allowed) => allowed,
        Err(refusal) => return reply.refuse(&refusal),
    };
    let of_slave = context.session.is_of_slave();
    if let Some(offset) = reset_of(broker, of_slave, &request) {
        return answer_reset(broker, &request, &allowed, offset, reply);
    }
    let suspends = request.sys_flag & pull_flag::SUSPEND != 0 && !context.head.one_way;
    let batch = read(broker, of_slave, &request, &allowed.filter, || {
        suspends
            .then(|| HeldPull::new(broker, context.session, context.head, &request, &allowed.filter))
            .flatten()
    });
    // A slave takes no offsets with pulls.
    if request.sys_flag & pull_flag::COMMIT_OFFSET != 0 && !of_slave {
        broker.offsets.commit(
            &request.consumer_group,
            &request.topic,
            request.queue_id,
            request.commit_offset,
        );
    }
    if !batch.held {
        answer(&request, &allowed, of_slave, &batch, reply);
    }
}

/// Runs a pull that was held once more; now it is answered whatever there is.
pub(crate) fn resume(broker: &Broker, session: &Session, held: &HeldPull, reply: Reply<'_>) {
    let of_slave = session.is_of_slave();
    match check(broker, session, &held.request) {
        Ok(allowed) => match reset_of(broker, of_slave, &held.request) {
            Some(offset) => answer_reset(broker, &held.request, &allowed, offset, reply),
            None => {
                let batch = read(broker, of_slave, &held.request, &allowed.filter, || None);
                answer(&held.request, &allowed, of_slave, &batch, reply);
            }
        },
        Err(refusal) => reply.refuse(&refusal),
    }
}

/// Where a tool has moved the group to, unless a pull has been told already.
fn reset_of(broker: &Broker, of_slave: bool, request: &PullMessage) -> Option<i64> {
    if of_slave {
        return None;
    }
    broker
        .offsets
        .take_reset(&request.consumer_group, &request.topic, request.queue_id)
}

fn answer_reset(broker: &Broker, request: &PullMessage, allowed: &Allowed, offset: i64, reply: Reply<'_>) {
    let range = broker.store.range(&request.topic, request.queue_id);
    let header = AnswerHeader {
        suggest_which_broker_id: allowed.suggestion,
        next_begin_offset: offset,
        min_offset: range.min,
        max_offset: range.max,
        topic_sys_flag: allowed.topic_sys_flag,
        group_sys_flag: allowed.group_sys_flag,
    };
    let remark = Some("OFFSET_RESET");
    reply.typed(ResponseCode::PULL_OFFSET_MOVED, remark, &header, &[]);
}

fn read(
    broker: &Broker,
    of_slave: bool,
    request: &PullMessage,
    filter: &TagFilter,
    hold: impl FnOnce() -> Option<HeldPull>,
) -> Batch {
    let PullMessage {
        topic,
        queue_id,
        queue_offset,
        max_msg_nums,
        ..
    } = request;
    let horizon = if of_slave { broker.slave.horizon() } else { None };
    let wanted = Wanted {
        offset: *queue_offset,
        max_messages: *max_msg_nums,
        filter,
        horizon,
    };
    let batch = broker.store.read_within(topic, *queue_id, wanted, hold);
    broker
        .offsets
        .pulled(&request.consumer_group, topic, *queue_id, batch.next);
    batch
}

fn check(broker: &Broker, session: &Session, request: &PullMessage) -> Result<Allowed, Refusal> {
    let PullMessage {
        consumer_group,
        topic,
        queue_id,
        ..
    } = request;
    let forbidden = |what: &str, remark: String| {
        Err(Refusal::new(ResponseCode::NO_PERMISSION, remark).with([("forbiddenType", what)]))
    };
    let Some(group) = broker.groups.find_or_create(consumer_group, broker.clock.now()) else {
        return Err(no_group(consumer_group));
    };
    if !group.consume_enable {
        return forbidden(
            GROUP_FORBIDDEN,
            format!("subscription group no permission, {consumer_group}"),
        );
    }
    let Some(topic) = broker.topics.get(topic) else {
        let remark = format!("topic[{topic}] not exist, apply first please!");
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    if topic.config.perm & permission::READ == 0 {
        return forbidden(
            TOPIC_FORBIDDEN,
            format!("the topic[{}] pulling message is forbidden", topic.name),
        );
    }
    let queues = topic.config.read_queue_nums;
    if !(0..queues).contains(queue_id) {
        let name = &topic.name;
        let remark =
            format!("queueId[{queue_id}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{queues}]");
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    let allowed = |filter| Allowed {
        filter,
        topic_sys_flag: topic.config.topic_sys_flag,
        group_sys_flag: group.group_sys_flag,
        // Nobody is sent to a slave because of lagging: everything is in memory here.
        suggestion: if broker.slave.exists() {
            group.broker_id
        } else {
            MASTER_ID
        },
    };
    if request.sys_flag & pull_flag::SUBSCRIPTION != 0 {
        return Ok(allowed(filter_of_request(request)?));
    }
    let Some(subscribed) = session.members(broker).subscribed(consumer_group, &topic.name) else {
        let remark = "the consumer's group info not exist";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark));
    };
    if !group.consume_broadcast_enable && subscribed.message_model == MessageModel::Broadcasting {
        let remark = format!("the consumer group[{consumer_group}] can not consume by broadcast way");
        return forbidden(BROADCASTING_DISABLED, remark);
    }
    if broker.groups.is_reading_forbidden(consumer_group, &topic.name) {
        let remark = format!(
            "the consumer group[{consumer_group}] is forbidden for topic[{}]",
            topic.name
        );
        return forbidden(SUBSCRIPTION_FORBIDDEN, remark);
    }
    let Some(subscription) = subscribed.subscription else {
        let remark = "the consumer's subscription not exist";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark));
    };
    if subscription.sub_version < request.sub_version {
        let remark = "the consumer's subscription not latest";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, remark));
    }
    check_expression_type(&subscription.expression_type)?;
    Ok(allowed(TagFilter::from(&*subscription)))
}

fn filter_of_request(request: &PullMessage) -> Result<TagFilter, Refusal> {
    check_expression_type(request.expression_type.as_deref().unwrap_or_default())?;
    let expression = request.subscription.as_deref().unwrap_or_default();
    // Separators and nothing between them; Java's `split` leaves nothing of that.
    if !expression.is_empty() && expression.split("||").all(str::is_empty) {
        let remark = "parse the consumer's subscription failed";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark));
    }
    let subscription = SubscriptionData::by_tags(&request.topic, expression, request.sub_version);
    Ok(TagFilter::from(&subscription))
}

/// Only tags; SQL is refused as by a broker with default settings.
pub(super) fn check_expression_type(expression_type: &str) -> Result<(), Refusal> {
    if expression_type.is_empty() || expression_type == SubscriptionData::TAG {
        return Ok(());
    }
    let remark = format!("The broker does not support consumer to filter message by {expression_type}");
    Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
}

fn answer(request: &PullMessage, allowed: &Allowed, of_slave: bool, batch: &Batch, reply: Reply<'_>) {
    let code = match batch.status {
        BatchStatus::Found => ResponseCode::SUCCESS,
        BatchStatus::NoMatchedMessage => ResponseCode::PULL_RETRY_IMMEDIATELY,
        BatchStatus::OffsetOverflowOne => ResponseCode::PULL_NOT_FOUND,
        BatchStatus::NoMessageInQueue if request.queue_offset == 0 => ResponseCode::PULL_NOT_FOUND,
        // A slave leaves corrections to the master. Java: `offsetCheckInSlave`.
        _ if of_slave => ResponseCode::PULL_RETRY_IMMEDIATELY,
        BatchStatus::NoMessageInQueue | BatchStatus::OffsetOverflowBadly | BatchStatus::OffsetTooSmall => {
            ResponseCode::PULL_OFFSET_MOVED
        }
    };
    let header = AnswerHeader {
        suggest_which_broker_id: allowed.suggestion,
        next_begin_offset: batch.next,
        min_offset: batch.min,
        max_offset: batch.max,
        topic_sys_flag: allowed.topic_sys_flag,
        group_sys_flag: allowed.group_sys_flag,
    };
    reply.typed(code, Some(batch.status.name()), &header, &batch.messages);
}
