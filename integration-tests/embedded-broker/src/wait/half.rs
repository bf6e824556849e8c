//! Half messages: they wait in `RMQ_SYS_TRANS_HALF_TOPIC` until their producer says what became of the transaction, and
//! producers that say nothing are asked.
//!
//! As on a real broker a half message is stored anew before each question, and the question names the new place; a
//! question goes to one connection of the group. What differs: which half messages are done is kept in a set instead of
//! being written to a topic of its own.
//! Protocol source: `TransactionalMessageServiceImpl`, `TransactionalMessageBridge`,
//! `DefaultTransactionalMessageCheckListener`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::frame::Head;
use rocketmq_client::protocol::names::{CHECKED_TOO_OFTEN_TOPIC, HALF_TOPIC};
use rocketmq_client::protocol::requests::CheckTransactionState;
use rocketmq_client::protocol::{
    CodecError, Fields, HeaderFormat, Properties, PropertiesBuf, Record, Request, property,
};
use tokio::time::Instant;

use super::timer::Event;
use crate::broker::Broker;
use crate::lock::lock;
use crate::store::Appended;

/// The one queue of half messages.
const QUEUE: i32 = 0;
/// Half messages older than a real broker keeps its files are given up, in milliseconds. Java: `fileReservedTime`.
const RESERVED: i64 = 72 * 3_600_000;

/// How far half messages have been looked at.
#[derive(Debug, Default)]
pub(crate) struct Halves(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// All before this offset are done, stored anew, or given up.
    next: i64,
    /// Those from `next` on that are done.
    done: BTreeSet<i64>,
    /// First places of half messages that were stored anew because nobody may be asked about them yet: who ends such a
    /// transaction names its first place.
    immune: BTreeSet<i64>,
    timer_is_set: bool,
}

impl Halves {
    /// Stores a half message. Its properties must say where it goes when it is committed.
    pub(crate) fn put(broker: &Broker, record: Record) -> Result<Appended, CodecError> {
        let appended = append(broker, record)?;
        let mut inner = lock(&broker.halves.0);
        set_timer(broker, &mut inner);
        Ok(appended)
    }

    /// Notes that a half message is committed or rolled back.
    pub(crate) fn done(&self, queue_offset: i64) {
        let mut inner = lock(&self.0);
        if queue_offset >= inner.next || inner.immune.contains(&queue_offset) {
            inner.done.insert(queue_offset);
        }
    }

    /// Sets the timer, after a restart.
    pub(crate) fn resume(broker: &Broker) {
        let mut inner = lock(&broker.halves.0);
        inner.timer_is_set = false;
        if inner.next < broker.store.range(HALF_TOPIC, QUEUE).max {
            set_timer(broker, &mut inner);
        }
    }
}

fn set_timer(broker: &Broker, inner: &mut Inner) {
    if !inner.timer_is_set {
        inner.timer_is_set = true;
        let at = Instant::now() + broker.options.transaction_check_interval;
        broker.timers.set(at, Event::CheckHalves);
    }
}

fn append(broker: &Broker, record: Record) -> Result<Appended, CodecError> {
    let topic = broker.topics.get(HALF_TOPIC);
    let topic = topic.ok_or_else(|| CodecError::Field(format!("topic {HALF_TOPIC} is gone")))?;
    broker.append(
        &topic,
        Record {
            topic: topic.text.clone(),
            queue_id: QUEUE,
            ..record
        },
    )
}

/// What is to be done with a half message that is not done.
enum Verdict {
    /// It is too young: so are those behind it.
    NotYet,
    /// Its producer wants no questions yet, so it moves out of the way of those behind it.
    Renew,
    /// Its producer is asked.
    Ask,
    GiveUp,
}

/// Looks at the half messages that are not done, in their order.
pub(super) fn check(broker: &Arc<Broker>) {
    let started = broker.clock.now();
    let mut inner = lock(&broker.halves.0);
    inner.timer_is_set = false;
    let range = broker.store.range(HALF_TOPIC, QUEUE);
    inner.next = inner.next.max(range.min);
    // Those that are stored anew meanwhile are for the next time.
    while inner.next < range.max {
        let offset = inner.next;
        if !inner.done.remove(&offset)
            && let Some(stored) = broker.store.at(HALF_TOPIC, QUEUE, offset)
        {
            match Record::decode(stored.record) {
                Ok(record) if is_done_already(&mut inner, &record) => {}
                Ok(record) => match verdict(broker, &record, started) {
                    Verdict::NotYet => break,
                    Verdict::Renew => renew(broker, &mut inner, record),
                    Verdict::Ask => ask(broker, &mut inner, record),
                    Verdict::GiveUp => give_up(broker, record),
                },
                Err(error) => tracing::error!(%error, "a half message cannot be read, it is dropped"),
            }
        }
        inner.next = offset + 1;
    }
    if inner.next < broker.store.range(HALF_TOPIC, QUEUE).max {
        set_timer(broker, &mut inner);
    }
}

fn verdict(broker: &Broker, record: &Record, now: i64) -> Verdict {
    let age = now.saturating_sub(record.born_timestamp);
    if checks(record) >= broker.options.transaction_check_max || age > RESERVED {
        return Verdict::GiveUp;
    }
    let immune = record.properties.get(property::CHECK_IMMUNITY_TIME_IN_SECONDS);
    match immune {
        Some(seconds) if age < immunity(seconds, broker.options.transaction_timeout) => Verdict::Renew,
        Some(_) => Verdict::Ask,
        None if (0..millis(broker.options.transaction_timeout)).contains(&age) => Verdict::NotYet,
        None => Verdict::Ask,
    }
}

/// For how long nobody is asked about a half message, in milliseconds: at least the timeout of all of them.
pub(crate) fn immunity(seconds: &str, timeout: Duration) -> i64 {
    let wanted = seconds.parse::<i64>().unwrap_or(0).saturating_mul(1000);
    wanted.max(millis(timeout))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn checks(record: &Record) -> u32 {
    let times = record.properties.get(property::TRANSACTION_CHECK_TIMES);
    times.and_then(|times| times.parse().ok()).unwrap_or(0)
}

fn with_property(record: &mut Record, name: &str, value: &str) {
    let mut properties = PropertiesBuf::from(&record.properties);
    match properties.set(name, value) {
        Ok(()) => record.properties = Properties::from(properties),
        Err(error) => tracing::error!(%error, name, "a property of a half message cannot be set"),
    }
}

/// Whether a half message that was stored anew is done under its first place.
fn is_done_already(inner: &mut Inner, record: &Record) -> bool {
    let Some(first) = first_place(record) else {
        return false;
    };
    let done = inner.done.remove(&first);
    if done {
        inner.immune.remove(&first);
    }
    done
}

fn first_place(record: &Record) -> Option<i64> {
    let first = record
        .properties
        .get(property::TRANSACTION_PREPARED_QUEUE_OFFSET)?;
    first.parse().ok()
}

fn renew(broker: &Broker, inner: &mut Inner, mut record: Record) {
    let first = first_place(&record).unwrap_or(record.queue_offset);
    inner.immune.insert(first);
    with_property(
        &mut record,
        property::TRANSACTION_PREPARED_QUEUE_OFFSET,
        &first.to_string(),
    );
    store_again(broker, record);
}

fn store_again(broker: &Broker, record: Record) -> Option<Record> {
    match append(broker, record.clone()) {
        Ok(appended) => Some(Record {
            queue_offset: appended.queue_offset,
            physical_offset: appended.physical_offset,
            store_timestamp: appended.store_timestamp,
            ..record
        }),
        Err(error) => {
            tracing::error!(%error, "a half message cannot be stored again, it is dropped");
            None
        }
    }
}

fn ask(broker: &Broker, inner: &mut Inner, mut record: Record) {
    if let Some(first) = first_place(&record) {
        inner.immune.remove(&first);
    }
    let times = checks(&record) + 1;
    with_property(&mut record, property::TRANSACTION_CHECK_TIMES, &times.to_string());
    let Some(record) = store_again(broker, record) else {
        return;
    };
    let group = record
        .properties
        .get(property::PRODUCER_GROUP)
        .unwrap_or_default();
    let Some(session) = broker.members.any_producer(group) else {
        tracing::debug!(group, "no producer is there to be asked about a half message");
        return;
    };
    match question(broker, &record, session.next_opaque()) {
        Ok(frame) => {
            if !session.push(frame) {
                tracing::debug!(group, "a producer that reads nothing is not asked");
            }
        }
        Err(error) => tracing::error!(%error, group, "a question about a half message cannot be encoded"),
    }
}

/// The question with the half message, which shows its real destination.
fn question(broker: &Broker, record: &Record, opaque: i32) -> Result<Bytes, CodecError> {
    let properties = &record.properties;
    let unique_key = properties.get(property::UNIQUE_KEY).map(str::to_owned);
    let request = CheckTransactionState {
        topic: Some(HALF_TOPIC.to_owned()),
        tran_state_table_offset: record.queue_offset,
        commit_log_offset: record.physical_offset,
        msg_id: unique_key.clone(),
        transaction_id: unique_key,
        offset_msg_id: Some(broker.offset_id(record.physical_offset)),
        broker_name: Some(broker.options.broker_name.clone()),
        body: Bytes::new(),
    };
    let real_queue = properties.get(property::REAL_QUEUE_ID);
    let half = Record {
        topic: properties.get(property::REAL_TOPIC).unwrap_or_default().into(),
        queue_id: real_queue.and_then(|id| id.parse().ok()).unwrap_or(0),
        ..record.clone()
    };
    let mut body = BytesMut::new();
    half.encode(&mut body)?;
    let mut frame = BytesMut::new();
    let head = Head::request(CheckTransactionState::CODE.0, opaque, true);
    head.encode(
        HeaderFormat::Json,
        &request,
        &Fields::new(),
        body.len(),
        &mut frame,
    )?;
    frame.extend_from_slice(&body);
    Ok(frame.freeze())
}

fn give_up(broker: &Broker, record: Record) {
    tracing::warn!(
        times = checks(&record),
        "a half message whose transaction has no end is put away into {CHECKED_TOO_OFTEN_TOPIC}"
    );
    let topic = broker
        .topics
        .find_or_create(CHECKED_TOO_OFTEN_TOPIC, 1, broker.clock.now());
    let Ok(topic) = topic else {
        tracing::error!("too many topics, a half message is dropped");
        return;
    };
    let put_away = Record {
        topic: topic.text.clone(),
        queue_id: 0,
        ..record
    };
    if let Err(error) = broker.append(&topic, put_away) {
        tracing::error!(%error, "a half message cannot be put away, it is dropped");
    }
}
