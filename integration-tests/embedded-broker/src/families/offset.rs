//! Offsets of groups and of queues.
//!
//! Protocol source: `ConsumerManageProcessor`, `AdminBrokerProcessor`.

use rocketmq_client::protocol::requests::{
    EarliestStoreTime, MaxOffset, MinOffset, Offset, QueryConsumerOffset, SearchOffset, StoreTime,
    UpdateConsumerOffset,
};
use rocketmq_client::protocol::{BrokerVersion, Done, ResponseCode};

use crate::server::{Context, Refusal};

pub(super) fn query(context: Context<'_>, request: QueryConsumerOffset) -> Result<Offset, Refusal> {
    let QueryConsumerOffset {
        consumer_group,
        topic,
        queue_id,
        set_zero_if_not_found,
    } = request;
    let broker = context.broker;
    if let Some(offset) = broker.offsets.committed(&consumer_group, &topic, queue_id) {
        return Ok(Offset { offset });
    }
    let not_found = |remark: &str| Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
    if set_zero_if_not_found == Some(false) {
        return not_found("Not found, do not set to zero, maybe this group boot first");
    }
    // A young queue is read from its start, also by a group that starts at the end: all of it is in memory.
    let range = broker.store.range(&topic, queue_id);
    if range.min <= 0 && range.max > 0 {
        return Ok(Offset { offset: 0 });
    }
    not_found("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
}

pub(super) fn update(context: Context<'_>, request: UpdateConsumerOffset) -> Result<Done, Refusal> {
    let UpdateConsumerOffset {
        consumer_group,
        topic,
        queue_id,
        commit_offset,
    } = request;
    let broker = context.broker;
    if broker.options.version < BrokerVersion::V5_0_0 {
        // Brokers of 4.9 keep offsets of groups and topics that they do not know.
        broker.groups.find_or_create(&consumer_group, broker.clock.now());
        if broker.topics.get(&topic).is_none() {
            return Ok(Done);
        }
    }
    if !broker.groups.contains(&consumer_group) {
        let remark = format!("Group {consumer_group} not exist!");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let Some(config) = broker.topics.get(&topic) else {
        let remark = format!("Topic {topic} not exist!");
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    // A real broker keeps an offset of any queue; one that cannot exist would only take room here.
    if (0..config.config.read_queue_nums.max(config.config.write_queue_nums)).contains(&queue_id) {
        // One that comes before its member has heard of a reset is passed over, with success.
        broker
            .offsets
            .commit(&consumer_group, &topic, queue_id, commit_offset);
    }
    Ok(Done)
}

pub(super) fn max(context: Context<'_>, request: MaxOffset) -> Result<Offset, Refusal> {
    let offset = context.broker.store.range(&request.topic, request.queue_id).max;
    Ok(Offset { offset })
}

pub(super) fn min(context: Context<'_>, request: MinOffset) -> Result<Offset, Refusal> {
    let offset = context.broker.store.range(&request.topic, request.queue_id).min;
    Ok(Offset { offset })
}

pub(super) fn search(context: Context<'_>, request: SearchOffset) -> Result<Offset, Refusal> {
    let upper = request
        .boundary_type
        .is_some_and(|boundary| boundary.eq_ignore_ascii_case("UPPER"));
    let offset = context
        .broker
        .offset_of_time(&request.topic, request.queue_id, request.timestamp, upper);
    Ok(Offset { offset })
}

pub(super) fn earliest(context: Context<'_>, request: EarliestStoreTime) -> Result<StoreTime, Refusal> {
    let store = &context.broker.store;
    let min = store.range(&request.topic, request.queue_id).min;
    let oldest = store.at(&request.topic, request.queue_id, min);
    Ok(StoreTime {
        timestamp: oldest.map_or(-1, |stored| stored.store_timestamp),
    })
}
