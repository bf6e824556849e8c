//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(1);

/// The wait after so many failures in a row: doubles from 50 ms to one second, and a random part of up to half is
/// taken off, so that clients of one broker do not come back all at once.
pub(crate) fn backoff(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let full = FIRST.saturating_mul(1 << doublings).min(LAST);
    let per_mille = u32::try_from(random % 501).unwrap_or(0);
    full - full * per_mille / 1000
}

/// A random number.
pub(crate) fn random() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    // Each half has a few fixed bits where the other one has none.
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_cap_and_is_jittered_by_at_most_half() {
        let full = |failures| backoff(failures, 0).as_millis();
        let millis: Vec<_> = (1..8).map(full).collect();
        assert_eq!(millis, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(full(u32::MAX), 1000);
        assert_eq!(backoff(0, 0), FIRST);
        for random in 0..1000 {
            let wait = backoff(3, random).as_millis();
            assert!((100..=200).contains(&wait), "{wait}");
        }
    }
}
