//! What a consumer measures of its work: rates and times by topic, over sliding windows.
//!
//! A message costs a few additions to counters that belong to its queue's part of the topic: no lock, no allocation, and
//! workers of different queues seldom meet. Every ten seconds a task notes where the counters are; what is reported is
//! how far they have come since the oldest note of the last minute, or of the last hour.
//!
//! Protocol source: `ConsumerStatsManager`, `StatsItem` (the same windows; Java reports up to the last note, this up to
//! now).

mod queue;
mod report;
mod window;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

pub use self::queue::QueueProgress;
pub(super) use self::queue::QueueWatch;
use self::window::Windows;
use crate::protocol::bodies::ConsumeStatus;
use crate::sync::lock;
use crate::telemetry::{CacheGauges, ConsumeMeters};
use crate::trace::now_millis;

/// How often the counters are noted.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// Into how many parts the counters of a topic are split, by the numbers of its queues.
const PARTS: usize = 8;

/// How fast messages of one topic are received and handled, over the last minute or since the topic's first queue was
/// assigned. Retried messages are those of the retry topic.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TopicRates {
    /// The topic.
    pub topic: String,
    /// Messages received per second. Java: pull TPS.
    pub received_per_second: f64,
    /// How long a pull took that brought messages, the wait for the first of them included; the mean. Java: pull RT.
    pub pull_time: Duration,
    /// Messages acknowledged per second. Java: consume OK TPS.
    pub acknowledged_per_second: f64,
    /// Deliveries per second that failed, were to be retried or were rejected. Java: consume failed TPS.
    pub failed_per_second: f64,
    /// How long the handler took; the mean, of the last hour if it had nothing to do in the last minute. Java: consume
    /// RT.
    pub handle_time: Duration,
    /// How long a message was on its way, from the broker's storing it to the start of the handler; the mean. As good
    /// as the two clocks agree.
    pub delivery_time: Duration,
    /// Failed deliveries in the last hour.
    pub failed_last_hour: u64,
}

impl TopicRates {
    /// The same as members tell it to operators.
    pub(super) fn to_status(&self) -> ConsumeStatus {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        ConsumeStatus {
            pull_rt: millis(self.pull_time),
            pull_tps: self.received_per_second,
            consume_rt: millis(self.handle_time),
            consume_ok_tps: self.acknowledged_per_second,
            consume_failed_tps: self.failed_per_second,
            consume_failed_msgs: i64::try_from(self.failed_last_hour).unwrap_or(i64::MAX),
        }
    }
}

/// The meters of one consumer, by topic. A topic that is no longer consumed keeps its meter.
#[derive(Debug)]
pub(super) struct Meters {
    group: Arc<str>,
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicMeter>>>,
    cache: CacheGauges,
    since: Instant,
    /// When that was: milliseconds since 1970, as the clock on the wall says now.
    since_millis: AtomicI64,
}

impl Meters {
    pub(super) fn new(group: Arc<str>) -> Self {
        let since = Instant::now();
        Self {
            cache: CacheGauges::new(&group),
            group,
            topics: Mutex::default(),
            since,
            since_millis: AtomicI64::new(wall_millis_of(since)),
        }
    }

    /// What the clock on the wall said then, or will; without asking it each time.
    pub(super) fn wall_millis(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.since).as_millis();
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        self.since_millis.load(Ordering::Relaxed).saturating_add(since)
    }

    /// The meter of a topic, for as long as somebody counts with it.
    pub(super) fn of(&self, topic: &Arc<str>) -> Arc<TopicMeter> {
        let mut topics = lock(&self.topics);
        if let Some(meter) = topics.get(topic) {
            return Arc::clone(meter);
        }
        let meter = Arc::new(TopicMeter::new(&self.group, topic));
        topics.insert(Arc::clone(topic), Arc::clone(&meter));
        meter
    }

    /// Notes where all counters are, and follows a clock that was set.
    pub(super) fn sample(&self) {
        let now = Instant::now();
        self.since_millis
            .store(wall_millis_of(self.since), Ordering::Relaxed);
        for meter in self.all() {
            lock(&meter.windows).note(now, meter.counts());
        }
    }

    /// The rates of all topics, in the order of their names.
    pub(super) fn rates(&self) -> Vec<TopicRates> {
        let now = Instant::now();
        self.all().iter().map(|meter| meter.rates(now)).collect()
    }

    /// Tells a recorder what is in the cache.
    pub(super) fn tell_cached(&self, messages: usize, bytes: usize) {
        self.cache.set(messages, bytes);
    }

    fn all(&self) -> Vec<Arc<TopicMeter>> {
        lock(&self.topics).values().map(Arc::clone).collect()
    }
}

/// What is counted of one topic.
#[derive(Debug)]
pub(super) struct TopicMeter {
    topic: Arc<str>,
    pulls: Pulls,
    parts: [Part; PARTS],
    windows: Mutex<Windows>,
    /// The same for a recorder, if there is one.
    pub(super) telemetry: ConsumeMeters,
}

#[derive(Debug, Default)]
struct Pulls {
    messages: AtomicU64,
    times: AtomicU64,
    micros: AtomicU64,
}

/// A part of its own cache lines, which processors fetch in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    /// Calls of the handler; a batch is one.
    calls: AtomicU64,
    call_micros: AtomicU64,
    /// Of the messages, from their storing to the call.
    delivery_millis: AtomicU64,
}

/// Where the counters are, or how far they have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    received: u64,
    pulls: u64,
    pull_micros: u64,
    acknowledged: u64,
    failed: u64,
    calls: u64,
    call_micros: u64,
    delivery_millis: u64,
}

/// One call of a handler, once it has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) acknowledged: u64,
    pub(super) failed: u64,
    pub(super) took: Duration,
    /// How long the messages were on their way, added up, in milliseconds.
    pub(super) delivery_millis: u64,
}

impl TopicMeter {
    fn new(group: &str, topic: &Arc<str>) -> Self {
        Self {
            topic: Arc::clone(topic),
            pulls: Pulls::default(),
            parts: Default::default(),
            windows: Mutex::new(Windows::from(Instant::now())),
            telemetry: ConsumeMeters::new(group, topic),
        }
    }

    /// A pull brought messages.
    pub(super) fn pulled(&self, messages: usize, took: Duration) {
        add(&self.pulls.messages, messages as u64);
        add(&self.pulls.times, 1);
        add(&self.pulls.micros, micros(took));
    }

    /// A handler has ended that had messages of this queue.
    pub(super) fn called(&self, queue_id: i32, call: Call) {
        let Some(part) = self.parts.get(queue_id.unsigned_abs() as usize % PARTS) else {
            return;
        };
        for (counter, count) in [
            (&part.acknowledged, call.acknowledged),
            (&part.failed, call.failed),
            (&part.calls, 1),
            (&part.call_micros, micros(call.took)),
            (&part.delivery_millis, call.delivery_millis),
        ] {
            if count > 0 {
                add(counter, count);
            }
        }
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut counts = Counts {
            received: read(&self.pulls.messages),
            pulls: read(&self.pulls.times),
            pull_micros: read(&self.pulls.micros),
            ..Counts::default()
        };
        for part in &self.parts {
            counts.acknowledged += read(&part.acknowledged);
            counts.failed += read(&part.failed);
            counts.calls += read(&part.calls);
            counts.call_micros += read(&part.call_micros);
            counts.delivery_millis += read(&part.delivery_millis);
        }
        counts
    }

    fn rates(&self, now: Instant) -> TopicRates {
        let counts = self.counts();
        let (minute, hour) = lock(&self.windows).since(now, counts);
        let handled = if minute.counts.calls > 0 { minute } else { hour };
        TopicRates {
            topic: self.topic.to_string(),
            received_per_second: minute.per_second(minute.counts.received),
            pull_time: mean(minute.counts.pull_micros, minute.counts.pulls),
            acknowledged_per_second: minute.per_second(minute.counts.acknowledged),
            failed_per_second: minute.per_second(minute.counts.failed),
            handle_time: mean(handled.counts.call_micros, handled.counts.calls),
            delivery_time: mean(
                minute.counts.delivery_millis.saturating_mul(1000),
                minute.counts.acknowledged + minute.counts.failed,
            ),
            failed_last_hour: hour.counts.failed,
        }
    }
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            received: self.received.saturating_sub(before.received),
            pulls: self.pulls.saturating_sub(before.pulls),
            pull_micros: self.pull_micros.saturating_sub(before.pull_micros),
            acknowledged: self.acknowledged.saturating_sub(before.acknowledged),
            failed: self.failed.saturating_sub(before.failed),
            calls: self.calls.saturating_sub(before.calls),
            call_micros: self.call_micros.saturating_sub(before.call_micros),
            delivery_millis: self.delivery_millis.saturating_sub(before.delivery_millis),
        }
    }
}

/// Milliseconds since 1970, by the clock on the wall of now.
fn wall_millis_of(at: Instant) -> i64 {
    let ago = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
    now_millis().saturating_sub(ago)
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn mean(micros: u64, times: u64) -> Duration {
    Duration::from_micros(micros.checked_div(times).unwrap_or(0))
}

#[cfg(test)]
mod tests;
