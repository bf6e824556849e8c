//! How far topics and groups are, and who is connected.
//!
//! Protocol source: `AdminBrokerProcessor`.

use rocketmq_client::protocol::bodies::{
    ConsumeStats, ConsumerConnection, GroupList, MessageQueue, OffsetWrapper, ProducerConnection,
    TopicOffset, TopicStatsTable,
};
use rocketmq_client::protocol::requests::{
    ConsumerConnectionList, GetConsumeStats, ProducerConnectionList, TopicConsumeByWho, TopicStats,
};
use rocketmq_client::protocol::{Json, ResponseCode};

use super::config::no_topic;
use crate::broker::Broker;
use crate::server::{Context, Refusal};

pub(super) fn topic(context: Context<'_>, request: TopicStats) -> Result<Json<TopicStatsTable>, Refusal> {
    let broker = context.broker;
    let Some(topic) = broker.topics.get(&request.topic) else {
        return Err(no_topic(&request.topic));
    };
    let queues = 0..topic.config.write_queue_nums.max(topic.config.read_queue_nums);
    let offsets = queues.map(|queue_id| {
        let range = broker.store.range(&topic.name, queue_id);
        let offset = TopicOffset {
            last_update_timestamp: range.last_stored,
            max_offset: range.max,
            min_offset: range.min,
        };
        (queue(broker, &topic.name, queue_id), offset)
    });
    Ok(Json(TopicStatsTable {
        offset_table: offsets.collect(),
        ..TopicStatsTable::default()
    }))
}

pub(super) fn consume(context: Context<'_>, request: GetConsumeStats) -> Result<Json<ConsumeStats>, Refusal> {
    let broker = context.broker;
    let group = &request.consumer_group;
    let topics = match request.topic.filter(|topic| !topic.is_empty()) {
        Some(topic) => std::iter::once(topic).collect(),
        None => broker.offsets.topics_of(group),
    };
    let mut stats = ConsumeStats::default();
    for topic in topics.iter().filter_map(|name| broker.topics.get(name)) {
        for queue_id in 0..topic.config.read_queue_nums {
            let offset = offset_wrapper(broker, group, &topic.name, queue_id);
            stats
                .offset_table
                .0
                .insert(queue(broker, &topic.name, queue_id), offset);
        }
    }
    Ok(Json(stats))
}

pub(super) fn offset_wrapper(broker: &Broker, group: &str, topic: &str, queue_id: i32) -> OffsetWrapper {
    let range = broker.store.range(topic, queue_id);
    let progress = broker.offsets.progress(group, topic, queue_id);
    let consumed = progress.committed.unwrap_or(0).max(0);
    let last = broker.store.at(topic, queue_id, consumed - 1);
    OffsetWrapper {
        broker_offset: range.max.max(0),
        consumer_offset: consumed,
        last_timestamp: last.map_or(0, |stored| stored.store_timestamp),
        pull_offset: progress.pulled.max(consumed),
    }
}

pub(super) fn queue(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue::new(topic, broker.options.broker_name.as_str(), queue_id)
}

pub(super) fn consumers(
    context: Context<'_>,
    request: ConsumerConnectionList,
) -> Result<Json<ConsumerConnection>, Refusal> {
    match context
        .broker
        .members
        .consumer_connection(&request.consumer_group)
    {
        Some(connection) => Ok(Json(connection)),
        None => {
            let remark = format!("the consumer group[{}] not online", request.consumer_group);
            Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark))
        }
    }
}

pub(super) fn producers(
    context: Context<'_>,
    request: ProducerConnectionList,
) -> Result<Json<ProducerConnection>, Refusal> {
    match context
        .broker
        .members
        .producer_connection(&request.producer_group)
    {
        Some(connection) => Ok(Json(connection)),
        None => {
            let remark = format!("the producer group[{}] not exist", request.producer_group);
            Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}

pub(super) fn consume_by_who(
    context: Context<'_>,
    request: TopicConsumeByWho,
) -> Result<Json<GroupList>, Refusal> {
    let broker = context.broker;
    let mut group_list = broker.members.groups_of(&request.topic);
    group_list.extend(broker.offsets.groups_of(&request.topic));
    Ok(Json(GroupList { group_list }))
}
