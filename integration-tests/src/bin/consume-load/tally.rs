//! What has come so far.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use integration_tests::consume_load::Work;
use integration_tests::load::Histogram;
use integration_tests::usage;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Counts the messages, and ages them where that is the work.
pub(crate) struct Tally {
    work: Work,
    /// Messages that were due before, since 1970, do not count.
    from: Duration,
    messages: u64,
    seen: AtomicU64,
    pub(crate) ages: Histogram,
    first: OnceLock<Mark>,
    last: OnceLock<Mark>,
    done: Notify,
}

/// A moment, and the CPU time of the process until then.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) cpu_seconds: f64,
}

impl Mark {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu_seconds: usage::cpu_seconds().unwrap_or(f64::NAN),
        }
    }
}

impl Tally {
    pub(crate) fn new(work: Work, settle: Duration, messages: u64) -> Self {
        Self {
            work,
            from: since_1970() + settle,
            messages: if work == Work::First { 1 } else { messages },
            seen: AtomicU64::new(0),
            ages: Histogram::new(),
            first: OnceLock::new(),
            last: OnceLock::new(),
            done: Notify::new(),
        }
    }

    pub(crate) fn note(&self, body: &[u8]) {
        if self.work == Work::Latency {
            let due = due(body);
            if due < self.from {
                return;
            }
            self.ages.record(since_1970().saturating_sub(due));
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if number == 1 {
            let _ = self.first.set(Mark::now());
        }
        if number == self.messages {
            let _ = self.last.set(Mark::now());
            self.done.notify_one();
        }
    }

    /// The first and the last message of those that count, once the last one has come.
    pub(crate) async fn done(&self) -> (Mark, Mark) {
        loop {
            if let (Some(first), Some(last)) = (self.first.get(), self.last.get()) {
                return (*first, *last);
            }
            self.done.notified().await;
        }
    }

    pub(crate) fn noted(&self) -> u64 {
        self.seen.load(Ordering::Relaxed).min(self.messages)
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time that a body begins with, since 1970.
fn due(body: &[u8]) -> Duration {
    let digits = body.iter().take_while(|byte| byte.is_ascii_digit());
    let nanos = digits.fold(0_u64, |nanos, byte| {
        nanos.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'))
    });
    Duration::from_nanos(nanos)
}
