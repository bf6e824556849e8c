//! Latencies of a run of any length in 15 KiB: buckets that are narrow for small values and wide for large
//! ones, never more than 3 % off.

const BITS: u32 = 5;
const PER_OCTAVE: usize = 1 << BITS;
const BUCKETS: usize = PER_OCTAVE * (64 - BITS as usize + 1);

/// Counts of values in microseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        if let Some(bucket) = self.buckets.get_mut(index(value)) {
            *bucket += 1;
            self.count += 1;
            self.sum += u128::from(value);
        }
    }

    /// 0 when nothing was recorded.
    pub(crate) fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or_default();
        u64::try_from(mean).unwrap_or(u64::MAX)
    }

    /// The smallest value that at least `percent` of all values do not exceed; 0 when nothing was recorded.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += u128::from(*bucket);
            if *bucket > 0 && seen >= rank {
                return highest(index);
            }
        }
        0
    }
}

/// Values below `PER_OCTAVE` have a bucket each; above, each power of two has `PER_OCTAVE` buckets.
fn index(value: u64) -> usize {
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    let within = usize::try_from(value >> octave).unwrap_or_default();
    octave as usize * PER_OCTAVE + within
}

/// The largest value of a bucket.
fn highest(index: usize) -> u64 {
    let octave = (index / PER_OCTAVE).saturating_sub(1);
    let within = (index - octave * PER_OCTAVE) as u128;
    let next = (within + 1) << octave;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_at_most_three_percent_wide() {
        assert!((0..2_000).is_sorted_by_key(index));
        let large = (1..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, u64::MAX >> bit]);
        for value in (0..2_000).chain(large) {
            let (at, top) = (index(value), highest(index(value)));
            assert!(at < BUCKETS);
            assert!(
                top >= value && u128::from(top - value) * 32 <= u128::from(value),
                "{value} in {at} up to {top}"
            );
        }
        assert_eq!(highest(index(u64::MAX)), u64::MAX);
    }

    #[test]
    fn mean_and_percentiles_of_a_thousand_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.mean(), histogram.percentile(99)), (0, 0));
        for value in 1..=1_000 {
            histogram.record(value);
        }
        assert_eq!(histogram.mean(), 500);
        assert!(
            (990..=1_021).contains(&histogram.percentile(99)),
            "{}",
            histogram.percentile(99)
        );
        assert!((500..=515).contains(&histogram.percentile(50)));
    }
}
