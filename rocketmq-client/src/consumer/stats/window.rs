//! What the counters of a topic came to in the last minute and in the last hour.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Counts;

/// Notes of a window, the newest included. Java: seven, ten seconds or ten minutes apart.
const NOTES: usize = 7;

/// Every how many notes one is kept for the hour.
const HOURLY: u32 = 60;

/// Below this no rate is computed: one message in the first millisecond is not a thousand a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// Where the counters were, some times ago.
#[derive(Debug)]
pub(super) struct Windows {
    minute: VecDeque<(Instant, Counts)>,
    hour: VecDeque<(Instant, Counts)>,
    /// Notes since the last one that was kept for the hour.
    since_hourly: u32,
}

/// How far the counters came in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) counts: Counts,
    time: Duration,
}

impl Windows {
    /// Counters that begin now.
    pub(super) fn from(now: Instant) -> Self {
        let beginning = (now, Counts::default());
        Self {
            minute: VecDeque::from([beginning]),
            hour: VecDeque::from([beginning]),
            since_hourly: 0,
        }
    }

    /// Notes where the counters are.
    pub(super) fn note(&mut self, now: Instant, counts: Counts) {
        push(&mut self.minute, (now, counts));
        self.since_hourly += 1;
        if self.since_hourly >= HOURLY {
            self.since_hourly = 0;
            push(&mut self.hour, (now, counts));
        }
    }

    /// How far the counters came in the last minute and in the last hour.
    pub(super) fn since(&self, now: Instant, counts: Counts) -> (Passed, Passed) {
        let passed = |notes: &VecDeque<(Instant, Counts)>| {
            let (at, before) = notes.front().copied().unwrap_or((now, counts));
            Passed {
                counts: counts.since(before),
                time: now.saturating_duration_since(at).max(SHORTEST),
            }
        };
        (passed(&self.minute), passed(&self.hour))
    }
}

fn push(notes: &mut VecDeque<(Instant, Counts)>, note: (Instant, Counts)) {
    if notes.len() >= NOTES {
        notes.pop_front();
    }
    notes.push_back(note);
}

impl Passed {
    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64()
    }
}
