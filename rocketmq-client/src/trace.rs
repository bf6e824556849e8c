//! Message trace: telling what happens to messages, in the form that Apache RocketMQ's tools read.
//!
//! Whoever sends or consumes hands a record to the client's [`Tracer`] and goes on; a dispatcher gathers them and
//! sends them to the trace topic. Nothing waits for it: what it cannot keep up with is dropped and counted.
//!
//! Protocol source: `AsyncTraceDispatcher`, `SendMessageTraceHookImpl`, `ConsumeMessageTraceHookImpl`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::protocol::names;
use crate::protocol::trace::{TRACE_TOPIC, TraceRecord};
use crate::sync::lock;
use crate::telemetry;

/// How message trace is written; see [`ClientBuilder::trace`](crate::ClientBuilder::trace).
#[derive(Clone, Debug)]
#[must_use = "message trace does nothing until it is given to a client"]
pub struct Trace {
    topic: String,
    pub(crate) batch_size: usize,
    pub(crate) max_wait: Duration,
    queue_size: usize,
}

impl Trace {
    /// With the defaults of its setters.
    pub fn new() -> Self {
        Self {
            topic: TRACE_TOPIC.to_owned(),
            batch_size: 10,
            max_wait: Duration::from_secs(5),
            queue_size: 2048,
        }
    }

    /// The topic that records go to. Default `RMQ_SYS_TRACE_TOPIC`, which brokers have with `traceTopicEnable`. Java:
    /// `customizedTraceTopic`.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// How many records one message holds; from 1 to 100. Default 10. Java: `traceMsgBatchNum`, at most 20.
    pub fn batch_size(mut self, records: usize) -> Self {
        self.batch_size = records;
        self
    }

    /// How long a record may wait for others. Default 5 s. Java: `flushTraceInterval`, fixed.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// How many records may wait to be sent; more are dropped and counted. Default 2048. Java: fixed.
    pub fn queue_size(mut self, records: usize) -> Self {
        self.queue_size = records;
        self
    }

    /// Everything that cannot be used.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(error) = names::check_topic(&self.topic) {
            faults.push(format!("trace: {error}"));
        }
        if !(1..=100).contains(&self.batch_size) {
            faults.push("trace: batch_size must be from 1 to 100".to_owned());
        }
        if self.max_wait.is_zero() {
            faults.push("trace: max_wait must be longer than nothing".to_owned());
        }
        if !(1..=1_000_000).contains(&self.queue_size) {
            faults.push("trace: queue_size must be from 1 to 1000000".to_owned());
        }
        faults
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of the trace records of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceStats {
    /// Stored by a broker.
    pub sent: u64,
    /// Dropped because too many waited.
    pub dropped: u64,
    /// Given up because no broker took them.
    pub failed: u64,
}

/// Where the records of one client are handed in.
#[derive(Debug)]
pub(crate) struct Tracer {
    options: Trace,
    records: mpsc::Sender<TraceRecord>,
    /// For the dispatcher, which takes it once.
    waiting: Mutex<Option<mpsc::Receiver<TraceRecord>>>,
    /// Cancelled when the rest has to be sent.
    closing: CancellationToken,
    /// Whether the rest was sent.
    closed: watch::Sender<bool>,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Tracer {
    pub(crate) fn new(options: Trace) -> Arc<Self> {
        let (records, waiting) = mpsc::channel(options.queue_size.max(1));
        Arc::new(Self {
            options,
            records,
            waiting: Mutex::new(Some(waiting)),
            closing: CancellationToken::new(),
            closed: watch::Sender::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    pub(crate) fn options(&self) -> &Trace {
        &self.options
    }

    pub(crate) fn topic(&self) -> &str {
        &self.options.topic
    }

    /// Whether what happens to messages of this topic is recorded: trace is not traced.
    pub(crate) fn covers(&self, topic: &str) -> bool {
        topic != self.options.topic && topic != TRACE_TOPIC
    }

    /// Hands a record in. Never waits.
    pub(crate) fn record(&self, record: TraceRecord) {
        if self.records.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            telemetry::trace_dropped();
        }
    }

    /// What was handed in; to be taken once.
    pub(crate) fn take_waiting(&self) -> Option<mpsc::Receiver<TraceRecord>> {
        lock(&self.waiting).take()
    }

    pub(crate) fn note_sent(&self, records: usize) {
        self.sent.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_failed(&self, records: usize) {
        self.failed.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> TraceStats {
        TraceStats {
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) fn note_closed(&self) {
        self.closed.send_replace(true);
    }

    /// Lets the rest be sent and waits for that.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        // The sender lives as long as this.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// How long ago that was, as Java's readers can read it.
pub(crate) fn cost_since(millis: i64) -> i64 {
    now_millis().saturating_sub(millis).clamp(0, i64::from(i32::MAX))
}
