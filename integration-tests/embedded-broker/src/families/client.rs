//! Clients say who they are, ask who else is there, and lock queues.
//!
//! Protocol source: `ClientManageProcessor`, `ConsumerManageProcessor`, `AdminBrokerProcessor`.

use rocketmq_client::protocol::bodies::{ConsumerList, HeartbeatData, LockBatch, LockedQueues};
use rocketmq_client::protocol::names::retry_topic;
use rocketmq_client::protocol::requests::{
    CheckClientConfig, ConsumerListByGroup, HeartBeat, HeartBeatResult, HeartBeatResultHeader, LockQueues,
    UnlockQueues, UnregisterClient,
};
use rocketmq_client::protocol::{Done, Json, JsonBody, ResponseCode};
use serde::Deserialize;

use super::pull::check_expression_type;
use crate::server::{Context, Refusal, unreadable};
use crate::state::Member;

pub(super) fn heartbeat(context: Context<'_>, request: HeartBeat) -> Result<HeartBeatResult, Refusal> {
    let data = HeartbeatData::from_body(&request.body).map_err(unreadable)?;
    let broker = context.broker;
    let now = broker.clock.now();
    let member = Member {
        session: std::sync::Arc::clone(context.session),
        client_id: data.client_id,
        language: context.head.language,
        version: context.head.version,
        seen: now,
    };
    for consumer in data.consumer_data_set {
        let Some(config) = broker.groups.find_or_create(&consumer.group_name, now) else {
            continue;
        };
        let retry_topic = retry_topic(&consumer.group_name);
        if broker
            .topics
            .find_or_create(&retry_topic, config.retry_queue_nums, now)
            .is_err()
        {
            tracing::warn!(
                group = consumer.group_name,
                "too many topics, the group gets no retry topic"
            );
        }
        let notify = config.notify_consumer_ids_changed_enable;
        context
            .members()
            .register_consumer(&member, consumer, data.without_sub, notify);
    }
    for producer in data.producer_data_set {
        context.members().register_producer(&member, &producer.group_name);
    }
    Ok(HeartBeatResult {
        version: context.broker.options.version.0,
        // "Changed" makes a client that would leave out its subscriptions send them each time.
        header: HeartBeatResultHeader {
            supports_v2: Some(true),
            subscription_changed: Some(true),
        },
    })
}

pub(super) fn unregister(context: Context<'_>, request: UnregisterClient) -> Result<Done, Refusal> {
    let broker = context.broker;
    if let Some(group) = request.producer_group {
        context.members().unregister_producer(context.session, &group);
    }
    if let Some(group) = request.consumer_group {
        context
            .members()
            .unregister_consumer(context.session, &group, broker.notifies(&group));
    }
    Ok(Done)
}

/// The body of a [`CheckClientConfig`], as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ClientConfig {
    subscription_data: Option<ExpressionType>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ExpressionType {
    expression_type: Option<String>,
}

pub(super) fn check_config(_: Context<'_>, request: CheckClientConfig) -> Result<Done, Refusal> {
    let config: ClientConfig = serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
    let expression_type = config
        .subscription_data
        .and_then(|subscription| subscription.expression_type);
    check_expression_type(&expression_type.unwrap_or_default())?;
    Ok(Done)
}

pub(super) fn consumer_list(
    context: Context<'_>,
    request: ConsumerListByGroup,
) -> Result<Json<ConsumerList>, Refusal> {
    let consumer_id_list = context.members().client_ids(&request.consumer_group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {}", request.consumer_group);
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    Ok(Json(ConsumerList { consumer_id_list }))
}

pub(super) fn lock_queues(context: Context<'_>, request: LockQueues) -> Result<Json<LockedQueues>, Refusal> {
    let LockBatch {
        consumer_group,
        client_id,
        mq_set,
        ..
    } = LockBatch::from_body(&request.body).map_err(unreadable)?;
    // A lock on a queue that does not exist would only take room.
    let exists = |queue: &rocketmq_client::protocol::bodies::MessageQueue| {
        let topic = context.broker.topics.get(&queue.topic);
        topic.is_some_and(|topic| (0..topic.config.read_queue_nums).contains(&queue.queue_id))
    };
    let queues = mq_set.into_iter().filter(exists).collect();
    let lock_ok_mq_set = context.broker.locks.lock(&consumer_group, &client_id, queues);
    Ok(Json(LockedQueues { lock_ok_mq_set }))
}

pub(super) fn unlock_queues(context: Context<'_>, request: UnlockQueues) -> Result<Done, Refusal> {
    let LockBatch {
        consumer_group,
        client_id,
        mq_set,
        ..
    } = LockBatch::from_body(&request.body).map_err(unreadable)?;
    context.broker.locks.unlock(&consumer_group, &client_id, &mq_set);
    Ok(Done)
}
