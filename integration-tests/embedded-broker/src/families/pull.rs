//! Pulls: the checks of a real broker in its order, then the read, or the wait.
//!
//! Protocol source: `PullMessageProcessor`, `DefaultPullMessageResultHandler`.

use std::sync::Arc;

use rocketmq_client::protocol::bodies::{MessageModel, SubscriptionData, permission};
use rocketmq_client::protocol::requests::{PullMessage, PullResultHeader, pull_flag};
use rocketmq_client::protocol::{Frame, Request, ResponseCode};

use super::send::no_group;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, Session, unreadable};
use crate::store::{Batch, BatchStatus, TagFilter};
use crate::wait::HeldPull;

pub(super) fn pull(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match PullMessage::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let broker = context.broker;
    let filter = match check(broker, &request) {
        Ok(filter) => filter,
        Err(refusal) => return reply.refuse(&refusal),
    };
    let suspends = request.sys_flag & pull_flag::SUSPEND != 0 && !context.head.one_way;
    let batch = read(broker, &request, &filter, || {
        suspends
            .then(|| HeldPull::new(broker, context.session, context.head, &request, &filter))
            .flatten()
    });
    if request.sys_flag & pull_flag::COMMIT_OFFSET != 0 {
        broker.offsets.commit(
            &request.consumer_group,
            &request.topic,
            request.queue_id,
            request.commit_offset,
        );
    }
    if !batch.held {
        answer(&request, &batch, reply);
    }
}

/// Runs a pull that was held once more; now it is answered whatever there is.
pub(crate) fn resume(broker: &Arc<Broker>, _: &Arc<Session>, held: &HeldPull, reply: Reply<'_>) {
    match check(broker, &held.request) {
        Ok(filter) => answer(
            &held.request,
            &read(broker, &held.request, &filter, || None),
            reply,
        ),
        Err(refusal) => reply.refuse(&refusal),
    }
}

fn read(
    broker: &Broker,
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
    let batch = broker
        .store
        .read(topic, *queue_id, *queue_offset, *max_msg_nums, filter, hold);
    broker
        .offsets
        .pulled(&request.consumer_group, topic, *queue_id, batch.next);
    batch
}

fn check(broker: &Broker, request: &PullMessage) -> Result<TagFilter, Refusal> {
    let PullMessage {
        consumer_group,
        topic,
        queue_id,
        ..
    } = request;
    let forbidden = |remark: String| Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    let Some(group) = broker.groups.find_or_create(consumer_group, broker.clock.now()) else {
        return Err(no_group(consumer_group));
    };
    if !group.consume_enable {
        return forbidden(format!("subscription group no permission, {consumer_group}"));
    }
    let Some(topic) = broker.topics.get(topic) else {
        let remark = format!("topic[{topic}] not exist, apply first please!");
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    if topic.config.perm & permission::READ == 0 {
        return forbidden(format!("the topic[{}] pulling message is forbidden", topic.name));
    }
    let queues = topic.config.read_queue_nums;
    if !(0..queues).contains(queue_id) {
        let name = &topic.name;
        let remark =
            format!("queueId[{queue_id}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{queues}]");
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    if request.sys_flag & pull_flag::SUBSCRIPTION != 0 {
        return filter_of_request(request);
    }
    let Some(subscribed) = broker.members.subscribed(consumer_group, &topic.name) else {
        let remark = "the consumer's group info not exist";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark));
    };
    if !group.consume_broadcast_enable && subscribed.message_model == MessageModel::Broadcasting {
        return forbidden(format!(
            "the consumer group[{consumer_group}] can not consume by broadcast way"
        ));
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
    Ok(TagFilter::from(&*subscription))
}

fn filter_of_request(request: &PullMessage) -> Result<TagFilter, Refusal> {
    check_expression_type(request.expression_type.as_deref().unwrap_or_default())?;
    let expression = request.subscription.as_deref().unwrap_or_default();
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

fn answer(request: &PullMessage, batch: &Batch, reply: Reply<'_>) {
    let code = match batch.status {
        BatchStatus::Found => ResponseCode::SUCCESS,
        BatchStatus::NoMatchedMessage => ResponseCode::PULL_RETRY_IMMEDIATELY,
        BatchStatus::OffsetOverflowOne => ResponseCode::PULL_NOT_FOUND,
        BatchStatus::NoMessageInQueue if request.queue_offset == 0 => ResponseCode::PULL_NOT_FOUND,
        BatchStatus::NoMessageInQueue | BatchStatus::OffsetOverflowBadly | BatchStatus::OffsetTooSmall => {
            ResponseCode::PULL_OFFSET_MOVED
        }
    };
    let header = PullResultHeader {
        suggest_which_broker_id: 0,
        next_begin_offset: batch.next,
        min_offset: batch.min,
        max_offset: batch.max,
    };
    reply.typed(code, Some(batch.status.name()), &header, &batch.messages);
}
