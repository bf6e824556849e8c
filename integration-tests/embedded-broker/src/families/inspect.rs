//! What tools ask about groups, producers and queues.
//!
//! Protocol source: `AdminBrokerProcessor`.

use std::collections::BTreeMap;

use rocketmq_client::protocol::bodies::{
    BrokerConsumeStats, BrokerStatsData, ConsumeQueueEntry, ConsumeQueuePage, ConsumeStats, ConsumeTimeSpans,
    GroupForbidden, GroupSubscription, ProducerTable, QueueTimeSpan, SubscriptionData, TopicList,
};
use rocketmq_client::protocol::names::is_system_topic;
use rocketmq_client::protocol::requests::{
    AllConsumeStats, AllProducers, CleanExpiredConsumeQueues, CleanUnusedTopics, ConsumeTimeSpan,
    DeleteExpiredCommitLogs, QueryConsumeQueue, SubscriptionByConsumer, SystemTopicsOfBroker,
    TopicsByConsumer, UpdateGroupForbidden, ViewBrokerStats,
};
use rocketmq_client::protocol::{Done, Json, ResponseCode};

use super::config::no_topic;
use super::stats::{offset_wrapper, queue};
use crate::broker::Broker;
use crate::server::{Context, Refusal};

/// How many entries of a consume queue one answer has at the most.
const MAX_ENTRIES: i32 = 16 * 1024;

pub(super) fn time_spans(
    context: Context<'_>,
    request: ConsumeTimeSpan,
) -> Result<Json<ConsumeTimeSpans>, Refusal> {
    let broker = context.broker;
    let Some(topic) = broker.topics.get(&request.topic) else {
        return Err(no_topic(&request.topic));
    };
    let stored_at = |queue_id, offset| {
        let stored = broker.store.at(&topic.name, queue_id, offset);
        stored.map_or(-1, |stored| stored.store_timestamp)
    };
    let spans = (0..topic.config.write_queue_nums).map(|queue_id| {
        let range = broker.store.range(&topic.name, queue_id);
        let oldest = stored_at(queue_id, range.min);
        let committed = broker
            .offsets
            .committed(&request.group, &topic.name, queue_id)
            .unwrap_or(-1);
        QueueTimeSpan {
            message_queue: queue(broker, &topic.name, queue_id),
            min_time_stamp: oldest,
            max_time_stamp: stored_at(queue_id, range.max - 1),
            consume_time_stamp: if committed > 0 {
                stored_at(queue_id, committed - 1)
            } else {
                oldest
            },
            // Of a group that has committed nothing a real broker too counts from the year 1970.
            delay_time: if committed < range.max {
                broker.clock.now() - stored_at(queue_id, committed)
            } else {
                0
            },
        }
    });
    Ok(Json(ConsumeTimeSpans {
        consume_time_span_set: spans.collect(),
    }))
}

pub(super) fn all_consume_stats(
    context: Context<'_>,
    request: AllConsumeStats,
) -> Result<Json<BrokerConsumeStats>, Refusal> {
    let broker = context.broker;
    let (groups, _) = broker.groups.all();
    let mut all = BrokerConsumeStats {
        broker_addr: broker.address.to_string(),
        ..BrokerConsumeStats::default()
    };
    for group in groups.into_keys() {
        let topics = broker.offsets.topics_of(&group);
        let topics = topics.iter().filter_map(|name| broker.topics.get(name));
        let wanted = topics.filter(|topic| {
            (topic.config.order || !request.order) && !broker.members.does_not_want(&group, &topic.name)
        });
        let stats: Vec<_> = wanted
            .map(|topic| stats_of(broker, &group, &topic.name, topic.config.write_queue_nums))
            .collect();
        all.total_diff += stats.iter().map(ConsumeStats::lag).sum::<i64>();
        all.total_inflight_diff += stats.iter().map(ConsumeStats::in_flight).sum::<i64>();
        all.consume_stats_list.push(BTreeMap::from([(group, stats)]));
    }
    Ok(Json(all))
}

fn stats_of(broker: &Broker, group: &str, topic: &str, queues: i32) -> ConsumeStats {
    let offsets = (0..queues).map(|queue_id| {
        let offset = offset_wrapper(broker, group, topic, queue_id);
        (queue(broker, topic, queue_id), offset)
    });
    ConsumeStats {
        offset_table: offsets.collect(),
        ..ConsumeStats::default()
    }
}

pub(super) fn topics_of_group(
    context: Context<'_>,
    request: TopicsByConsumer,
) -> Result<Json<TopicList>, Refusal> {
    let broker = context.broker;
    Ok(Json(TopicList {
        broker_addr: Some(broker.address.to_string()),
        topic_list: broker.offsets.topics_of(&request.group).into_iter().collect(),
    }))
}

pub(super) fn subscription(
    context: Context<'_>,
    request: SubscriptionByConsumer,
) -> Result<Json<GroupSubscription>, Refusal> {
    let SubscriptionByConsumer { group, topic } = request;
    Ok(Json(GroupSubscription {
        subscription_data: subscribed(context.broker, &group, &topic),
        group,
        topic,
    }))
}

fn subscribed(broker: &Broker, group: &str, topic: &str) -> Option<SubscriptionData> {
    let subscribed = broker.members.subscribed(group, topic)?;
    subscribed
        .subscription
        .map(|subscription| SubscriptionData::clone(&subscription))
}

pub(super) fn producers(context: Context<'_>, _: AllProducers) -> Result<Json<ProducerTable>, Refusal> {
    Ok(Json(context.broker.members.producers()))
}

pub(super) fn group_forbidden(
    context: Context<'_>,
    request: UpdateGroupForbidden,
) -> Result<Json<GroupForbidden>, Refusal> {
    let UpdateGroupForbidden {
        group,
        topic,
        readable,
    } = request;
    let broker = context.broker;
    if let Some(readable) = readable {
        broker
            .groups
            .forbid_reading(&group, &topic, !readable, broker.clock.now());
    }
    Ok(Json(GroupForbidden {
        readable: Some(!broker.groups.is_reading_forbidden(&group, &topic)),
        topic,
        group,
        writeable: None,
    }))
}

pub(super) fn consume_queue(
    context: Context<'_>,
    request: QueryConsumeQueue,
) -> Result<Json<ConsumeQueuePage>, Refusal> {
    let QueryConsumeQueue {
        topic,
        queue_id,
        index,
        count,
        consumer_group,
    } = request;
    let broker = context.broker;
    let known = broker.topics.get(&topic).filter(|known| {
        let queues = known.config.read_queue_nums.max(known.config.write_queue_nums);
        (0..queues).contains(&queue_id)
    });
    if known.is_none() {
        let remark = format!("{queue_id}@{topic} is not exist!");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let range = broker.store.range(&topic, queue_id);
    let end = index
        .saturating_add(i64::from(count.clamp(0, MAX_ENTRIES)))
        .min(range.max);
    let entries = (index.max(range.min)..end).filter_map(|offset| {
        let stored = broker.store.at(&topic, queue_id, offset)?;
        Some(ConsumeQueueEntry {
            physic_offset: stored.physical_offset,
            physic_size: i32::try_from(stored.record.len()).unwrap_or(i32::MAX),
            tags_code: stored.tag_code,
            ..ConsumeQueueEntry::default()
        })
    });
    let mut page = ConsumeQueuePage {
        queue_data: entries.collect(),
        max_queue_index: range.max,
        min_queue_index: range.min,
        ..ConsumeQueuePage::default()
    };
    if let Some(group) = consumer_group {
        page.subscription_data = subscribed(broker, &group, &topic);
        page.filter_data = Some(match &page.subscription_data {
            None => format!("{group}@{topic} is not online!"),
            Some(_) => "null".to_owned(),
        });
    }
    Ok(Json(page))
}

/// Only the total since the start is kept here, so nothing can be said of the last minute, hour or day.
pub(super) fn broker_stats(
    _: Context<'_>,
    request: ViewBrokerStats,
) -> Result<Json<BrokerStatsData>, Refusal> {
    let ViewBrokerStats {
        stats_name,
        stats_key,
    } = request;
    let remark = format!("The stats <{stats_name}> <{stats_key}> not exist");
    Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
}

pub(super) fn system_topics(
    context: Context<'_>,
    _: SystemTopicsOfBroker,
) -> Result<Json<TopicList>, Refusal> {
    let broker = context.broker;
    let own = [
        broker.options.cluster_name.clone(),
        broker.options.broker_name.clone(),
        format!("{}_REPLY_TOPIC", broker.options.cluster_name),
    ];
    let all = broker
        .topics
        .all()
        .into_iter()
        .map(|topic| topic.name.to_string());
    let topic_list = all
        .filter(|name| is_system_topic(name) || own.contains(name))
        .collect();
    Ok(Json(TopicList {
        topic_list,
        ..TopicList::default()
    }))
}

/// A topic that is deleted leaves nothing here.
pub(super) fn clean_unused_topics(_: Context<'_>, _: CleanUnusedTopics) -> Result<Done, Refusal> {
    Ok(Done)
}

/// Queues whose messages are gone keep no room here.
pub(super) fn clean_consume_queues(_: Context<'_>, _: CleanExpiredConsumeQueues) -> Result<Done, Refusal> {
    Ok(Done)
}

/// There are no files.
pub(super) fn delete_commit_logs(_: Context<'_>, _: DeleteExpiredCommitLogs) -> Result<Done, Refusal> {
    Ok(Done)
}
