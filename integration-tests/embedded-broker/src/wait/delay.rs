//! Delay levels: a delayed message is put into `SCHEDULE_TOPIC_XXXX`, one queue for each level, and from there to
//! its real topic when it is due. All messages of a level wait equally long, so only the first one of a queue needs
//! a timer.
//!
//! As on a real broker the delivered message still shows DELAY, REAL_TOPIC and REAL_QID.
//! Protocol source: `ScheduleMessageService`, `HookUtils`.

use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::names::{DELAY_LEVEL_SECONDS, HALF_TOPIC, SCHEDULE_TOPIC};
use rocketmq_client::protocol::{Record, property};

use super::timer::Event;
use crate::broker::Broker;
use crate::lock::lock;
use crate::store::{Appended, Stored};

/// How far each level has been delivered.
#[derive(Debug)]
pub(crate) struct Delays {
    next: [Mutex<i64>; DELAY_LEVEL_SECONDS.len()],
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            next: [const { Mutex::new(0) }; DELAY_LEVEL_SECONDS.len()],
        }
    }
}

impl Delays {
    /// How many levels there are.
    pub(crate) const LEVELS: usize = DELAY_LEVEL_SECONDS.len();

    /// The queue of the delay topic that holds a level, counted from 1.
    pub(crate) fn queue_of(level: usize) -> i32 {
        i32::try_from(level).unwrap_or(1) - 1
    }

    /// Sets the timer for a message that was just put, if it is the first of its level that waits.
    pub(crate) fn put(broker: &Broker, level: usize, appended: Appended) {
        let Some(next) = level
            .checked_sub(1)
            .and_then(|index| broker.delays.next.get(index))
        else {
            return;
        };
        if *lock(next) == appended.queue_offset {
            let at = broker.clock.instant(due_at(level, appended.store_timestamp));
            broker.timers.set(at, Event::DelayLevel(level));
        }
    }

    /// Sets all timers, after a restart.
    pub(crate) fn resume(broker: &Arc<Broker>) {
        for level in 1..=Self::LEVELS {
            deliver_due(broker, level);
        }
    }
}

fn due_at(level: usize, store_timestamp: i64) -> i64 {
    let seconds = level
        .checked_sub(1)
        .and_then(|index| DELAY_LEVEL_SECONDS.get(index))
        .copied()
        .unwrap_or(0);
    store_timestamp.saturating_add(i64::try_from(seconds * 1000).unwrap_or(0))
}

/// Delivers what is due of a level and sets the timer for the rest.
pub(super) fn deliver_due(broker: &Broker, level: usize) {
    let Some(next) = level
        .checked_sub(1)
        .and_then(|index| broker.delays.next.get(index))
    else {
        return;
    };
    let queue_id = Delays::queue_of(level);
    let mut next = lock(next);
    // Messages that were evicted before they were due are lost, like any other that was evicted.
    *next = (*next).max(broker.store.range(SCHEDULE_TOPIC, queue_id).min);
    while let Some(stored) = broker.store.at(SCHEDULE_TOPIC, queue_id, *next) {
        let due = due_at(level, stored.store_timestamp);
        if due > broker.clock.now() {
            broker
                .timers
                .set(broker.clock.instant(due), Event::DelayLevel(level));
            return;
        }
        deliver(broker, &stored);
        *next += 1;
    }
}

fn deliver(broker: &Broker, stored: &Stored) {
    let record = match Record::decode(stored.record.clone()) {
        Ok(record) => record,
        Err(error) => {
            tracing::error!(%error, "a delayed message cannot be read, it is dropped");
            return;
        }
    };
    let topic = record
        .properties
        .get(property::REAL_TOPIC)
        .and_then(|name| broker.topics.get(name));
    let queue_id = record
        .properties
        .get(property::REAL_QUEUE_ID)
        .and_then(|id| id.parse().ok());
    let topic = topic.filter(|topic| *topic.name != *HALF_TOPIC);
    let (Some(topic), Some(queue_id)) = (topic, queue_id) else {
        // Half messages cannot be delayed: a real broker drops them too when they are due.
        tracing::warn!(properties = ?record.properties, "the topic of a delayed message is gone, it is dropped");
        return;
    };
    let record = Record {
        queue_id,
        topic: topic.text.clone(),
        ..record
    };
    if let Err(error) = broker.append(&topic, record) {
        tracing::error!(%error, "a delayed message cannot be delivered, it is dropped");
    }
}
