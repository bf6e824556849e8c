//! Messages in memory: one log for all, and for each queue the positions of its messages in that log.
//!
//! A message is encoded once, with its final offsets, into the chunk that is being filled; pulls are served from
//! those bytes. When the log is above its limit the oldest messages go, whatever their topic, as the files of a real
//! broker's commit log do. Everything is behind one lock, held for a copy of a message at most: appends are one
//! sequence anyway, because each has to know where the last one ended.

mod log;
mod queue;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rocketmq_client::protocol::{CodecError, Record};

use crate::clock::Clock;
use crate::lock::lock;
use crate::wait::HeldPull;

use self::log::Log;
pub(crate) use self::log::Stored;
use self::queue::QueueLog;
pub(crate) use self::queue::{Batch, BatchStatus, TagFilter, Wanted};

/// All messages of a broker.
#[derive(Debug)]
pub(crate) struct Store {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    topics: HashMap<Arc<str>, BTreeMap<i32, QueueLog>>,
    evicted: u64,
    put: u64,
    got: u64,
}

/// Where a message was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) physical_offset: i64,
    pub(crate) queue_offset: i64,
    pub(crate) store_timestamp: i64,
}

/// The offsets of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueRange {
    pub(crate) min: i64,
    pub(crate) max: i64,
    /// When the newest message was stored, 0 if none is left.
    pub(crate) last_stored: i64,
}

/// What the store holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreStats {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) evicted: u64,
    pub(crate) put: u64,
    pub(crate) got: u64,
    pub(crate) min_physical: i64,
    pub(crate) max_physical: i64,
    pub(crate) earliest_stored: i64,
}

impl Store {
    pub(crate) fn new(clock: Clock, limit: usize) -> Self {
        Self {
            clock,
            inner: Mutex::new(Inner {
                log: Log::new(limit),
                topics: HashMap::new(),
                evicted: 0,
                put: 0,
                got: 0,
            }),
        }
    }

    /// Puts a message at the end of its queue. Offsets, store time and store host of `record` are filled in.
    ///
    /// Returns where it is and the pulls that waited for it; the caller lets them go on.
    pub(crate) fn append(
        &self,
        topic: &Arc<str>,
        record: Record,
        tag_code: i64,
        store_host: SocketAddr,
    ) -> Result<(Appended, Vec<HeldPull>), CodecError> {
        let mut inner = lock(&self.inner);
        // Read under the lock, so that store times never go back along the log.
        let now = self.clock.now();
        inner.append(topic, record, tag_code, store_host, now)
    }

    /// Puts messages one behind the other, with nothing in between. What came before an error stays.
    pub(crate) fn append_all(
        &self,
        topic: &Arc<str>,
        records: Vec<(Record, i64)>,
        store_host: SocketAddr,
    ) -> (Result<Vec<Appended>, CodecError>, Vec<HeldPull>) {
        let mut all_woken = Vec::new();
        let mut inner = lock(&self.inner);
        let now = self.clock.now();
        let appended = records.into_iter().map(|(record, tag_code)| {
            let (appended, mut woken) = inner.append(topic, record, tag_code, store_host, now)?;
            all_woken.append(&mut woken);
            Ok(appended)
        });
        (appended.collect(), all_woken)
    }

    /// Messages of one queue from `offset` on.
    ///
    /// A pull that found nothing at the very end of the queue and may wait is made by `hold` and kept in the queue
    /// under the same lock, so no message can slip in between.
    pub(crate) fn read(
        &self,
        topic: &str,
        queue_id: i32,
        offset: i64,
        max_messages: i32,
        filter: &TagFilter,
        hold: impl FnOnce() -> Option<HeldPull>,
    ) -> Batch {
        let wanted = Wanted {
            offset,
            max_messages,
            filter,
            horizon: None,
        };
        self.read_within(topic, queue_id, wanted, hold)
    }

    /// The same for a reader who may not see everything.
    pub(crate) fn read_within(
        &self,
        topic: &str,
        queue_id: i32,
        wanted: Wanted<'_>,
        hold: impl FnOnce() -> Option<HeldPull>,
    ) -> Batch {
        let mut inner = lock(&self.inner);
        let Inner { log, topics, got, .. } = &mut *inner;
        let offset = wanted.offset;
        let Some(queue) = topics.get_mut(topic).and_then(|queues| queues.get_mut(&queue_id)) else {
            let batch = Batch::of_empty_queue(offset);
            if batch.status == BatchStatus::NoMessageInQueue
                && offset == 0
                && let Some(held) = hold()
            {
                let topic: Arc<str> = Arc::from(topic);
                topics
                    .entry(topic)
                    .or_default()
                    .entry(queue_id)
                    .or_default()
                    .wait(held);
                return Batch { held: true, ..batch };
            }
            return batch;
        };
        let mut batch = queue.read(log, wanted);
        *got += batch.messages.len() as u64;
        if batch.is_at_the_end(offset)
            && let Some(held) = hold()
        {
            queue.wait(held);
            batch.held = true;
        }
        batch
    }

    /// Takes one waiting pull out of its queue, if it still waits.
    pub(crate) fn take_waiting(&self, topic: &str, queue_id: i32, id: u64) -> Option<HeldPull> {
        let mut inner = lock(&self.inner);
        inner.topics.get_mut(topic)?.get_mut(&queue_id)?.take_waiting(id)
    }

    /// Takes all pulls that wait out of their queues.
    pub(crate) fn take_all_waiting(&self) -> Vec<HeldPull> {
        let mut inner = lock(&self.inner);
        let queues = inner.topics.values_mut().flat_map(BTreeMap::values_mut);
        queues.flat_map(QueueLog::take_all_waiting).collect()
    }

    /// The offsets of one queue; zeros if nothing was ever put there.
    pub(crate) fn range(&self, topic: &str, queue_id: i32) -> QueueRange {
        let inner = lock(&self.inner);
        let queue = inner.topics.get(topic).and_then(|queues| queues.get(&queue_id));
        queue.map_or_else(QueueRange::default, |queue| queue.range(&inner.log))
    }

    /// The message at an offset of a queue.
    pub(crate) fn at(&self, topic: &str, queue_id: i32, offset: i64) -> Option<Stored> {
        let inner = lock(&self.inner);
        let position = inner.topics.get(topic)?.get(&queue_id)?.position(offset)?;
        inner.log.get(position).cloned()
    }

    /// The first offset stored at `timestamp` or later, or the last one stored then or earlier.
    pub(crate) fn search(&self, topic: &str, queue_id: i32, timestamp: i64, upper: bool) -> i64 {
        let inner = lock(&self.inner);
        let queue = inner.topics.get(topic).and_then(|queues| queues.get(&queue_id));
        queue.map_or(0, |queue| queue.search(&inner.log, timestamp, upper))
    }

    /// As [`search`](Self::search) in a broker of 4.9: the offset stored nearest to `timestamp`.
    pub(crate) fn search_nearest(&self, topic: &str, queue_id: i32, timestamp: i64) -> i64 {
        let inner = lock(&self.inner);
        let queue = inner.topics.get(topic).and_then(|queues| queues.get(&queue_id));
        queue.map_or(0, |queue| queue.search_nearest(&inner.log, timestamp))
    }

    /// The message at a position of the log.
    pub(crate) fn at_physical(&self, physical_offset: i64) -> Option<Bytes> {
        let inner = lock(&self.inner);
        inner
            .log
            .find(physical_offset)
            .map(|stored| stored.record.clone())
    }

    /// Newest first, the messages of a topic that were stored within a range of time and that `wanted` accepts; at
    /// most `max` of them and about `max_bytes`.
    ///
    /// This walks the log: a query is a tool's, so it pays for itself instead of making every send feed an index.
    /// The lock is let go after each stretch, so a long walk does not stop sends.
    pub(crate) fn query(
        &self,
        topic: &str,
        times: std::ops::RangeInclusive<i64>,
        max: usize,
        max_bytes: usize,
        wanted: impl Fn(&Stored) -> bool,
    ) -> Vec<Bytes> {
        const STRETCH: u64 = 4096;
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut below = u64::MAX;
        loop {
            let inner = lock(&self.inner);
            let mut seen = 0;
            for (position, stored) in inner.log.newest_first(below) {
                below = position;
                seen += 1;
                if stored.store_timestamp < *times.start() {
                    return found;
                }
                if *stored.topic == *topic && times.contains(&stored.store_timestamp) && wanted(stored) {
                    bytes += stored.record.len();
                    if bytes > max_bytes && !found.is_empty() {
                        return found;
                    }
                    found.push(stored.record.clone());
                    if found.len() >= max {
                        return found;
                    }
                }
                if seen == STRETCH {
                    break;
                }
            }
            if seen < STRETCH {
                return found;
            }
        }
    }

    /// Forgets a topic and its messages. Returns the pulls that waited there.
    pub(crate) fn delete_topic(&self, topic: &str) -> Vec<HeldPull> {
        let mut inner = lock(&self.inner);
        let Some(queues) = inner.topics.remove(topic) else {
            return Vec::new();
        };
        let mut woken = Vec::new();
        for mut queue in queues.into_values() {
            for position in queue.positions() {
                inner.log.bury(position);
            }
            woken.append(&mut queue.take_all_waiting());
        }
        inner.evict();
        woken
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let inner = lock(&self.inner);
        StoreStats {
            messages: inner.log.messages(),
            bytes: inner.log.bytes(),
            evicted: inner.evicted,
            put: inner.put,
            got: inner.got,
            min_physical: inner.log.min_physical(),
            max_physical: inner.log.max_physical(),
            earliest_stored: inner.log.oldest().map_or(-1, |stored| stored.store_timestamp),
        }
    }
}

impl Inner {
    fn append(
        &mut self,
        topic: &Arc<str>,
        mut record: Record,
        tag_code: i64,
        store_host: SocketAddr,
        now: i64,
    ) -> Result<(Appended, Vec<HeldPull>), CodecError> {
        let Self { log, topics, .. } = self;
        let queues = match topics.get_mut(topic) {
            Some(queues) => queues,
            None => topics.entry(Arc::clone(topic)).or_default(),
        };
        let queue = queues.entry(record.queue_id).or_default();
        record.queue_offset = queue.max();
        record.physical_offset = log.max_physical();
        record.store_timestamp = now;
        record.store_host = store_host;
        let appended = Appended {
            physical_offset: record.physical_offset,
            queue_offset: record.queue_offset,
            store_timestamp: now,
        };
        queue.push(log.append(topic, &record, tag_code)?);
        let woken = queue.take_waiting_for(tag_code);
        self.put += 1;
        self.evict();
        Ok((appended, woken))
    }

    /// Lets the oldest messages go until the log is within its limit.
    fn evict(&mut self) {
        while let Some((topic, queue_id)) = self.log.pop_if_above_limit() {
            if let Some(queue) = self
                .topics
                .get_mut(&topic)
                .and_then(|queues| queues.get_mut(&queue_id))
            {
                queue.pop_oldest();
            }
            self.evicted += 1;
            // Powers of two: the first is told at once, a steady stream does not fill the log.
            if self.evicted.is_power_of_two() {
                tracing::warn!(
                    evicted = self.evicted,
                    bytes = self.log.bytes(),
                    topic = &*topic,
                    "the memory limit is reached, the oldest messages go"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
