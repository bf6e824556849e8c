//! Delivery times of the sender's choice: a message waits in `rmq_sys_wheel_timer` and goes to its real topic when it is
//! due. One that is called back is forgotten.
//!
//! A real broker cuts delivery times to whole seconds and so delivers early; here a message comes when it is due, to the
//! millisecond, though `TIMER_OUT_MS` says the same as there. As there, the delivered message still shows what the sender
//! asked for, REAL_TOPIC and REAL_QID. A real broker stores messages that wait for more than two days anew each time
//! those are over (TIMER_ROLL_TIMES); here they stay where they are.
//! Protocol source: `TimerMessageStore`, `HookUtils#transformTimerMessage`, `RecallMessageProcessor`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::names::TIMER_TOPIC;
use rocketmq_client::protocol::{CodecError, Properties, PropertiesBuf, Record, property};

use super::timer::Event;
use crate::broker::Broker;
use crate::lock::lock;
use crate::store::Appended;

/// The messages that wait: when they are due and where they are in the timer topic.
#[derive(Debug, Default)]
pub(crate) struct Wheel(Mutex<BTreeSet<(i64, i64)>>);

impl Wheel {
    /// How far away a delivery time may be, in milliseconds: three days. Java: `timerMaxDelaySec`.
    pub(crate) const MAX_DELAY: i64 = 3 * 24 * 3600 * 1000;
    /// What delivery times are cut to, in milliseconds. Java: `timerPrecisionMs`.
    const PRECISION: i64 = 1000;

    /// What the broker says of when it will deliver.
    pub(crate) fn told(due: i64) -> i64 {
        match due % Self::PRECISION {
            0 => due - Self::PRECISION,
            rest => due - rest,
        }
    }

    /// Puts a message where it waits. The record's properties must say where it goes then.
    pub(crate) fn put(broker: &Broker, due: i64, record: Record) -> Result<Appended, CodecError> {
        let Some(topic) = broker.topics.get(TIMER_TOPIC) else {
            return Err(CodecError::Field(format!("topic {TIMER_TOPIC} is gone")));
        };
        let record = Record {
            topic: topic.text.clone(),
            queue_id: 0,
            ..record
        };
        let appended = broker.append_tagged(&topic, record, 0)?;
        let is_first = {
            let mut waiting = lock(&broker.wheel.0);
            let entry = (due, appended.queue_offset);
            waiting.insert(entry);
            waiting.first() == Some(&entry)
        };
        if is_first {
            broker.timers.set(broker.clock.instant(due), Event::Wheel);
        }
        Ok(appended)
    }

    /// Forgets the message with this unique key that goes to `topic` and is due in the second that the broker told of.
    /// As on a real broker nobody hears whether there was one.
    pub(crate) fn forget(broker: &Broker, told: i64, topic: &str, unique_key: &str) {
        let range = (told, i64::MIN)..=(told.saturating_add(Self::PRECISION), i64::MAX);
        let candidates: Vec<_> = lock(&broker.wheel.0).range(range).copied().collect();
        let meant = candidates.into_iter().find(|(_, offset)| {
            let stored = broker.store.at(TIMER_TOPIC, 0, *offset);
            let record = stored.and_then(|stored| Record::decode(stored.record).ok());
            record.is_some_and(|record| {
                record.properties.get(property::UNIQUE_KEY) == Some(unique_key)
                    && record.properties.get(property::REAL_TOPIC) == Some(topic)
            })
        });
        if let Some(entry) = meant {
            lock(&broker.wheel.0).remove(&entry);
        }
    }

    /// Sets the timer, after a restart.
    pub(crate) fn resume(broker: &Arc<Broker>) {
        deliver_due(broker);
    }
}

/// Delivers what is due and sets the timer for the rest.
pub(super) fn deliver_due(broker: &Broker) {
    loop {
        let (due, offset) = {
            let mut waiting = lock(&broker.wheel.0);
            let Some(first) = waiting.first().copied() else {
                return;
            };
            if first.0 > broker.clock.now() {
                broker.timers.set(broker.clock.instant(first.0), Event::Wheel);
                return;
            }
            waiting.pop_first();
            first
        };
        // A message that was evicted before it was due is lost, like any other that was evicted.
        let Some(stored) = broker.store.at(TIMER_TOPIC, 0, offset) else {
            continue;
        };
        if let Err(error) = deliver(broker, stored.record.clone(), stored.store_timestamp) {
            tracing::error!(%error, due, "a message with a delivery time cannot be delivered, it is dropped");
        }
    }
}

fn deliver(broker: &Broker, stored: bytes::Bytes, put_at: i64) -> Result<(), CodecError> {
    let record = Record::decode(stored)?;
    let topic = record.properties.get(property::REAL_TOPIC);
    let queue_id = record.properties.get(property::REAL_QUEUE_ID);
    let topic = topic.and_then(|name| broker.topics.get(name));
    let (Some(topic), Some(queue_id)) = (topic, queue_id.and_then(|id| id.parse().ok())) else {
        return Err(CodecError::Field("its topic is gone".into()));
    };
    let mut properties = PropertiesBuf::from(&record.properties);
    properties.set(property::TIMER_ENQUEUE_MS, &put_at.to_string())?;
    properties.set(property::TIMER_DEQUEUE_MS, &broker.clock.now().to_string())?;
    let record = Record {
        queue_id,
        topic: topic.text.clone(),
        properties: Properties::from(properties),
        ..record
    };
    broker.append(&topic, record).map(drop)
}
