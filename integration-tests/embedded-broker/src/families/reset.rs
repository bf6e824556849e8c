//! Tools move groups to other offsets.
//!
//! The broker keeps the new offsets and sends the next pull of each queue there, or tells the members if it is
//! configured not to (`useServerSideResetOffset=false`), as brokers of 4.9 do.
//! Protocol source: `AdminBrokerProcessor#resetOffset`, `Broker2Client#resetOffset`.

use bytes::BytesMut;
use rocketmq_client::protocol::bodies::OffsetTable;
use rocketmq_client::protocol::frame::Head;
use rocketmq_client::protocol::requests::{CloneGroupOffset, ResetConsumerClientOffset, ResetOffset};
use rocketmq_client::protocol::{Done, Fields, HeaderFormat, Json, JsonBody, Request, ResponseCode};

use super::stats::queue;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Session, unreadable};
use crate::state::Topic;

pub(super) fn reset(context: Context<'_>, request: ResetOffset) -> Result<Json<OffsetTable>, Refusal> {
    let broker = context.broker;
    let by_broker = broker.settings.is_on("useServerSideResetOffset");
    let Some(topic) = broker.topics.get(&request.topic) else {
        let remark = match by_broker {
            true => format!("Topic {} does not exist", request.topic),
            false => format!(
                "[reset-offset] reset offset failed, no topic in this broker. topic={}",
                request.topic
            ),
        };
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    match by_broker {
        true => reset_here(broker, &topic, &request),
        false => tell_members(broker, &topic, &request),
    }
}

fn failed<T>(remark: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
}

fn offset_of(broker: &Broker, topic: &Topic, queue_id: i32, timestamp: i64) -> i64 {
    match timestamp {
        ..0 => broker.store.range(&topic.name, queue_id).max,
        _ => broker.offset_of_time(&topic.name, queue_id, timestamp, false),
    }
}

fn reset_here(broker: &Broker, topic: &Topic, request: &ResetOffset) -> Result<Json<OffsetTable>, Refusal> {
    let group = &request.group;
    if !broker.groups.contains(group) {
        let remark = format!("Group {group} does not exist");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let queues = 0..topic.config.read_queue_nums;
    let targets: Vec<(i32, i64)> = match request.queue_id.filter(|&queue_id| queue_id >= 0) {
        None => queues
            .map(|queue_id| (queue_id, offset_of(broker, topic, queue_id, request.timestamp)))
            .collect(),
        // A real broker resets any queue; one that cannot exist would only take room here.
        Some(queue_id) if !queues.contains(&queue_id) => Vec::new(),
        Some(queue_id) => match request.offset.filter(|&offset| offset != -1) {
            None => vec![(queue_id, offset_of(broker, topic, queue_id, request.timestamp))],
            Some(offset) => {
                let range = broker.store.range(&topic.name, queue_id);
                if offset < range.min || offset > range.max + 1 {
                    return failed(format!(
                        "Target offset {offset} not in consume queue range [{}-{}]",
                        range.min, range.max
                    ));
                }
                vec![(queue_id, offset)]
            }
        },
    };
    if targets.is_empty() {
        return failed("No queues to reset.");
    }
    let moved = targets.into_iter().map(|(queue_id, offset)| {
        broker.offsets.reset(group, &topic.name, queue_id, offset);
        (queue(broker, &topic.name, queue_id), offset)
    });
    Ok(Json(OffsetTable {
        offset_table: moved.collect(),
    }))
}

fn tell_members(broker: &Broker, topic: &Topic, request: &ResetOffset) -> Result<Json<OffsetTable>, Refusal> {
    let group = &request.group;
    let mut table = OffsetTable::default();
    for queue_id in 0..topic.config.write_queue_nums {
        let Some(consumed) = broker.offsets.committed(group, &topic.name, queue_id) else {
            return failed(format!("THe consumer group <{group}> not exist"));
        };
        let target = offset_of(broker, topic, queue_id, request.timestamp);
        let moved = if request.force || target < consumed {
            target
        } else {
            consumed
        };
        table
            .offset_table
            .0
            .insert(queue(broker, &topic.name, queue_id), moved);
    }
    let Some(members) = broker.members.consumers_of(group) else {
        let remark = format!(
            "Consumer not online, so can not reset offset, Group: {group} Topic: {} Timestamp: {}",
            topic.name, request.timestamp
        );
        return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
    };
    let notice = ResetConsumerClientOffset {
        topic: topic.name.to_string(),
        group: group.clone(),
        timestamp: request.timestamp,
        force: request.force,
        body: table.to_body().map_err(unreadable)?,
    };
    for (_, session) in members {
        tell(&session, &notice)?;
    }
    Ok(Json(table))
}

fn tell(session: &Session, notice: &ResetConsumerClientOffset) -> Result<(), Refusal> {
    let mut frame = BytesMut::new();
    let head = Head::request(ResetConsumerClientOffset::CODE.0, session.next_opaque(), true);
    head.encode(
        HeaderFormat::Json,
        notice,
        &Fields::new(),
        notice.body.len(),
        &mut frame,
    )
    .map_err(unreadable)?;
    frame.extend_from_slice(&notice.body);
    // A member that is going needs no new offsets.
    session.push(frame.freeze());
    Ok(())
}

pub(super) fn clone_offsets(context: Context<'_>, request: CloneGroupOffset) -> Result<Done, Refusal> {
    let broker = context.broker;
    let CloneGroupOffset {
        src_group,
        dest_group,
        topic,
        offline,
    } = request;
    // Without a topic a real broker goes through all of them and then copies those of no topic.
    let Some(topic) = topic.filter(|topic| broker.topics.get(topic).is_some()) else {
        return Ok(Done);
    };
    if offline || !broker.members.does_not_want(&src_group, &topic) {
        broker.offsets.copy(&src_group, &dest_group, &topic);
    }
    Ok(Done)
}
