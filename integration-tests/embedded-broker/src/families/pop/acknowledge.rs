//! What clients say of messages that they popped: done, or hide it for longer.
//!
//! A handle that the broker does not know (any more) is taken with success, as on a real broker: the message comes again
//! then.
//! Protocol source: `AckMessageProcessor`, `ChangeInvisibleTimeProcessor`.

use std::sync::Arc;

use rocketmq_client::protocol::bodies::{BatchAck, BatchAcks};
use rocketmq_client::protocol::requests::{
    AckMessage, BatchAckMessage, ChangeInvisibleTime, InvisibleTimeChanged,
};
use rocketmq_client::protocol::{
    Done, Frame, JsonBody, ORDERED_REVIVE_QUEUE, PopTopic, Request, ResponseCode,
};

use super::{find_topic, no_queue};
use crate::broker::Broker;
use crate::lock::lock;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::state::{CheckPoint, Committed, Handed, Place, Topic};
use crate::wait::pop::{launch_alone, wake_group, watch_order};

/// The parts of a handle that say which delivery is meant. Java reads them one by one and does not look at the others.
struct Handle<'a> {
    start_offset: i64,
    pop_time: i64,
    revive_queue_id: i32,
    broker_name: &'a str,
}

impl<'a> Handle<'a> {
    fn read(text: &'a str) -> Result<Self, Refusal> {
        let mut parts = text.split(' ');
        let mut part = |what: &str| {
            let part = parts.next();
            part.and_then(|part| part.parse::<i64>().ok()).ok_or_else(|| {
                let remark = format!("{what} of the handle {text:?} is missing or no number");
                Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
            })
        };
        let start_offset = part("the offset")?;
        let pop_time = part("the pop time")?;
        part("the invisible time")?;
        let revive_queue_id = part("the revive queue")?;
        let Some(broker_name) = parts.nth(1) else {
            let remark = format!("the broker of the handle {text:?} is missing");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        Ok(Self {
            start_offset,
            pop_time,
            revive_queue_id: i32::try_from(revive_queue_id).unwrap_or(-1),
            broker_name,
        })
    }

    fn is_ordered(&self) -> bool {
        self.revive_queue_id == ORDERED_REVIVE_QUEUE
    }
}

pub(in crate::families) fn acknowledge(context: Context<'_>, request: AckMessage) -> Result<Done, Refusal> {
    let broker = context.broker;
    let AckMessage { queue_id, offset, .. } = request;
    let topic = find_queue(context, &request.topic, queue_id)?;
    let range = broker.store.range(&topic.name, queue_id);
    if !(range.min..=range.max).contains(&offset) {
        let remark = format!(
            "offset is illegal, key:{}@{queue_id}, commit:{offset}, store:{}~{}",
            topic.name, range.min, range.max
        );
        return Err(Refusal::new(ResponseCode::NO_MESSAGE, remark));
    }
    let handle = Handle::read(&request.extra_info)?;
    let place = Place {
        group: request.consumer_group.as_str().into(),
        topic: Arc::clone(&topic.name),
        queue_id,
    };
    if handle.is_ordered() {
        acknowledge_in_order(context, &place, offset, handle.pop_time)?;
    } else {
        acknowledge_delivery(broker, place, &handle, offset);
    }
    Ok(Done)
}

fn find_queue(context: Context<'_>, topic: &str, queue_id: i32) -> Result<Arc<Topic>, Refusal> {
    let topic = find_topic(context.broker, topic)?;
    if !(0..topic.config.read_queue_nums).contains(&queue_id) {
        return Err(no_queue(context, &topic, queue_id, ResponseCode::MESSAGE_ILLEGAL));
    }
    Ok(topic)
}

/// A handle of another broker is none of a message here.
fn acknowledge_delivery(broker: &Broker, place: Place, handle: &Handle<'_>, offset: i64) {
    if handle.broker_name == broker.options.broker_name {
        broker.flight.acknowledge(&handed(place, handle), &[offset]);
    }
}

fn handed(place: Place, handle: &Handle<'_>) -> Handed {
    Handed {
        place,
        start_offset: handle.start_offset,
        pop_time: handle.pop_time,
    }
}

pub(in crate::families) fn acknowledge_batch(
    context: Context<'_>,
    request: BatchAckMessage,
) -> Result<Done, Refusal> {
    let no_message = || Refusal::new(ResponseCode::NO_MESSAGE, String::new());
    if request.body.is_empty() {
        return Err(no_message());
    }
    let BatchAcks { acks, broker_name } = BatchAcks::from_body(&request.body).map_err(unreadable)?;
    if acks.is_empty() {
        return Err(no_message());
    }
    let is_own = broker_name.trim().is_empty() || broker_name == context.broker.options.broker_name;
    // One that is refused does not keep the others from being taken; the last refusal is the answer.
    let mut refused = Ok(Done);
    for ack in acks {
        let kind: PopTopic = ack.retry.parse().map_err(unreadable)?;
        if let Err(refusal) = acknowledge_all(context, &ack, kind, is_own) {
            refused = Err(refusal);
        }
    }
    refused
}

fn acknowledge_all(
    context: Context<'_>,
    ack: &BatchAck,
    kind: PopTopic,
    is_own: bool,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let place = Place {
        group: ack.consumer_group.as_str().into(),
        topic: kind.name(&ack.topic, &ack.consumer_group).into(),
        queue_id: ack.queue_id,
    };
    let range = broker.store.range(&place.topic, place.queue_id);
    let offsets = ack.offsets.iter().filter_map(|number| {
        let offset = ack.start_offset.checked_add(i64::try_from(number).ok()?)?;
        (range.min..=range.max).contains(&offset).then_some(offset)
    });
    if ack.revive_queue_id == ORDERED_REVIVE_QUEUE {
        let mut refused = Ok(());
        for offset in offsets {
            if let Err(refusal) = acknowledge_in_order(context, &place, offset, ack.pop_time) {
                refused = Err(refusal);
            }
        }
        return refused;
    }
    let offsets: Vec<i64> = offsets.collect();
    let handed = Handed {
        place,
        start_offset: ack.start_offset,
        pop_time: ack.pop_time,
    };
    // Acknowledgements for another broker are none of messages here.
    if is_own {
        broker.flight.acknowledge(&handed, &offsets);
    }
    Ok(())
}

fn acknowledge_in_order(
    context: Context<'_>,
    place: &Place,
    offset: i64,
    pop_time: i64,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let turn = lock(&broker.popping);
    let committed = committed(broker, place);
    if offset < committed {
        return Ok(());
    }
    match broker.orders.acknowledge(place, offset, pop_time) {
        Committed::At(next) => {
            // A reset that is on its way stays.
            broker
                .offsets
                .commit(&place.group, &place.topic, place.queue_id, next);
        }
        Committed::Late => return Ok(()),
        Committed::Unknown => {
            let Place {
                group,
                topic,
                queue_id,
            } = place;
            let peer = context.session.peer();
            let remark = format!(
                "offset is illegal, key:{topic}@{group}@{queue_id}, old:{committed}, commit:{offset}, next:-1, /{peer}"
            );
            return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark));
        }
    }
    drop(turn);
    go_on(broker, place);
    Ok(())
}

fn committed(broker: &Broker, place: &Place) -> i64 {
    broker
        .offsets
        .committed(&place.group, &place.topic, place.queue_id)
        .unwrap_or(-1)
}

/// Lets a queue be popped that does not wait for its batch any more, now or when its time has come.
fn go_on(broker: &Broker, place: &Place) {
    if broker.orders.is_blocked(place, None, 0, broker.clock.now()) {
        watch_order(broker, place);
    } else {
        wake_group(broker, &place.group, &place.topic, place.queue_id);
    }
}

/// The answer of a real broker shows that its writer forgot the remark; clients that log it should see the same.
const FORGOTTEN_REMARK: &str = "not set any response code";

/// The numbers that a real broker sends with a refusal too.
const NOTHING_CHANGED: [(&str, &str); 3] = [("popTime", "0"), ("invisibleTime", "0"), ("reviveQid", "0")];

pub(in crate::families) fn change_invisible_time(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    // 5.5: the next delivery does not count as one more attempt.
    let counts = frame.fields.get("suspend") != Some("true");
    let request = match ChangeInvisibleTime::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    match change(context, &request, counts) {
        Ok(changed) => reply.typed(ResponseCode::SUCCESS, Some(FORGOTTEN_REMARK), &changed, &[]),
        Err(refusal) => reply.refuse(&refusal.with(NOTHING_CHANGED)),
    }
}

fn change(
    context: Context<'_>,
    request: &ChangeInvisibleTime,
    counts: bool,
) -> Result<InvisibleTimeChanged, Refusal> {
    let broker = context.broker;
    let &ChangeInvisibleTime {
        queue_id,
        offset,
        invisible_time,
        ..
    } = request;
    let topic = find_queue(context, &request.topic, queue_id)?;
    let range = broker.store.range(&topic.name, queue_id);
    if !(range.min..range.max).contains(&offset) {
        return Err(Refusal::new(ResponseCode::NO_MESSAGE, FORGOTTEN_REMARK));
    }
    let handle = Handle::read(&request.extra_info)?;
    let place = Place {
        group: request.consumer_group.as_str().into(),
        topic: Arc::clone(&topic.name),
        queue_id,
    };
    let now = broker.clock.now();
    if handle.is_ordered() {
        let turn = lock(&broker.popping);
        if offset < committed(broker, &place) {
            return Ok(InvisibleTimeChanged {
                pop_time: 0,
                invisible_time: 0,
                revive_qid: 0,
            });
        }
        let visible_at = now.saturating_add(invisible_time);
        broker
            .orders
            .set_visible_at(&place, offset, handle.pop_time, visible_at);
        drop(turn);
        go_on(broker, &place);
        return Ok(InvisibleTimeChanged {
            pop_time: handle.pop_time,
            invisible_time: visible_at.saturating_sub(handle.pop_time),
            revive_qid: handle.revive_queue_id,
        });
    }
    let point = CheckPoint {
        handed: Handed {
            place: place.clone(),
            start_offset: offset,
            pop_time: now,
        },
        pending: vec![offset],
        counts,
        failures: 0,
    };
    let pop_time = launch_alone(broker, point, invisible_time);
    acknowledge_delivery(broker, place, &handle, offset);
    Ok(InvisibleTimeChanged {
        pop_time,
        invisible_time,
        revive_qid: handle.revive_queue_id,
    })
}
