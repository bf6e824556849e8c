//! Messages that were popped and not acknowledged in time: they go to the group's retry topic, and are popped from
//! there.
//!
//! A real broker finds out a second or two after the time is over; here they come back when it is.
//! Protocol source: `PopReviveService`.

use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::{CodecError, PopTopic, Properties, PropertiesBuf, Record, property};

use super::super::timer::Event;
use crate::broker::Broker;
use crate::state::{CheckPoint, Handed};

/// How long after a failure it is tried again, in seconds.
const RETRY_AFTER: [i64; 17] = [
    10, 20, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// Lets messages come back unless they are acknowledged for `invisible` milliseconds.
pub(crate) fn launch(broker: &Broker, point: CheckPoint, invisible: i64) {
    let due = point.handed.pop_time.saturating_add(invisible);
    set_timer(broker, broker.flight.put(point, due));
}

/// The same for one message whose time was changed; tells the time from which it counts, which is part of its name.
pub(crate) fn launch_alone(broker: &Broker, point: CheckPoint, invisible: i64) -> i64 {
    let (timer, pop_time) = broker.flight.put_alone(point, invisible);
    set_timer(broker, timer);
    pop_time
}

fn set_timer(broker: &Broker, at: Option<i64>) {
    if let Some(at) = at {
        broker.timers.set(broker.clock.instant(at), Event::Revive(at));
    }
}

/// Sets the timers, after a restart.
pub(crate) fn resume(broker: &Broker) {
    broker.flight.disarm_all();
    set_timer(broker, broker.flight.arm());
    for place in broker.orders.disarm_all() {
        super::watch_order(broker, &place);
    }
}

/// Brings back what is due and sets the timer for the rest.
pub(in crate::wait) fn revive_due(broker: &Broker, at: i64) {
    if !broker.flight.disarm(at) {
        return;
    }
    while let Some(point) = broker.flight.take_due(broker.clock.now()) {
        revive(broker, point);
    }
    set_timer(broker, broker.flight.arm());
}

fn revive(broker: &Broker, point: CheckPoint) {
    let Handed { place, .. } = &point.handed;
    // Of a group or a topic that is gone nothing comes back.
    let topic = normal_topic(&place.topic, &place.group);
    if broker.topics.get(topic).is_none() || !broker.groups.contains(&place.group) {
        return;
    }
    for &offset in &point.pending {
        // Messages that were evicted meanwhile are lost, like any other that was evicted.
        let Some(stored) = broker.store.at(&place.topic, place.queue_id, offset) else {
            continue;
        };
        let revived = Record::decode(stored.record).and_then(|record| put_back(broker, &point, record));
        if let Err(error) = revived {
            tracing::error!(%error, group = &*place.group, topic = &*place.topic, offset, "a popped message cannot come back yet");
            try_later(broker, &point, offset);
        }
    }
}

fn normal_topic<'a>(topic: &'a str, group: &str) -> &'a str {
    let retries = topic
        .strip_prefix(RETRY_PREFIX)
        .and_then(|rest| rest.strip_prefix(group));
    // Behind the group is one separator.
    retries.and_then(|rest| rest.get(1..)).unwrap_or(topic)
}

fn put_back(broker: &Broker, point: &CheckPoint, record: Record) -> Result<(), CodecError> {
    let Handed { place, pop_time, .. } = &point.handed;
    let name = match place.topic.starts_with(RETRY_PREFIX) {
        true => place.topic.to_string(),
        false => retry_version(broker).name(&place.topic, &place.group),
    };
    let known = broker.topics.get(&name);
    let topic = match known {
        Some(topic) => topic,
        None => {
            let topic = broker.topics.find_or_create(&name, 1, broker.clock.now());
            let topic = topic.map_err(|_| CodecError::Field("too many topics on this broker".into()))?;
            if broker.offsets.committed(&place.group, &name, 0).is_none() {
                broker.offsets.commit(&place.group, &name, 0, 0);
            }
            topic
        }
    };
    let mut properties = PropertiesBuf::from(&record.properties);
    if record.reconsume_times == 0 || properties.get(property::FIRST_POP_TIME).is_none() {
        properties.set(property::FIRST_POP_TIME, &pop_time.to_string())?;
    }
    properties.set(property::ORIGIN_GROUP, &place.group)?;
    let again = Record {
        queue_id: 0,
        topic: topic.text.clone(),
        born_host: broker.address,
        reconsume_times: record.reconsume_times.saturating_add(i32::from(point.counts)),
        prepared_transaction_offset: 0,
        properties: Properties::from(properties),
        ..record
    };
    broker.append(&topic, again).map(drop)
}

/// Which version of retry topics new messages go to.
pub(crate) fn retry_version(broker: &Broker) -> PopTopic {
    match broker.settings.is_on("enableRetryTopicV2") {
        true => PopTopic::RetryV2,
        false => PopTopic::RetryV1,
    }
}

fn try_later(broker: &Broker, point: &CheckPoint, offset: i64) {
    let last = RETRY_AFTER.len() - 1;
    let after = RETRY_AFTER.get(point.failures.min(last)).copied().unwrap_or(7200);
    let handed = Handed {
        start_offset: offset,
        pop_time: broker.clock.now(),
        ..point.handed.clone()
    };
    let again = CheckPoint {
        handed,
        pending: vec![offset],
        counts: point.counts,
        failures: point.failures.saturating_add(1),
    };
    launch_alone(broker, again, after * 1000);
}
