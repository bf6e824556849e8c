//! Durations counted in buckets that are wider the longer they are: 64 to each doubling, so that none is off by more
//! than two percent, in 30 KiB whatever is recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PRECISION: u32 = 6;
/// Nanoseconds below twice this have a bucket each.
const HALF: u64 = 1 << PRECISION;
const BUCKETS: usize = ((64 - PRECISION + 1) as usize) << PRECISION;

/// Counts of durations; any thread may record.
#[derive(Debug)]
pub struct Histogram(Box<[AtomicU64]>);

impl Histogram {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Counts one.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.0.get(bucket(nanos)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The time that this share of the recorded ones does not exceed, in microseconds; 0 without any.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in counts.into_iter().enumerate() {
            seen += count;
            if count > 0 && seen >= wanted {
                return middle(index as u64) / 1_000.0;
            }
        }
        0.0
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (64 - nanos.leading_zeros()).saturating_sub(PRECISION + 1);
    (u64::from(shift) * HALF + (nanos >> shift)) as usize
}

/// The middle of what a bucket counts, in nanoseconds.
fn middle(bucket: u64) -> f64 {
    let shift = (bucket / HALF).saturating_sub(1);
    let low = (bucket - shift * HALF) << shift;
    low as f64 + ((1_u64 << shift) - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_put_into_it() {
        for nanos in [0, 1, 127, 128, 129, 1_000, 123_456_789, u64::MAX / 3, u64::MAX] {
            let middle = middle(bucket(nanos) as u64);
            assert!(
                (middle - nanos as f64).abs() <= nanos as f64 / 64.0,
                "{nanos} is counted as {middle}"
            );
            assert!(bucket(nanos) < BUCKETS);
        }
    }

    #[test]
    fn quantiles_are_those_of_the_recorded() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile_us(0.5), 0.0);
        for micros in 1..=100 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, exact) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = histogram.quantile_us(share);
            assert!((found - exact).abs() < exact * 0.02, "{share}: {found}");
        }
    }
}
