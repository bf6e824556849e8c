//! Wall time on tokio's clock: a test that pauses or advances tokio's time moves store times and delays alike.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since 1970, never going back while the broker lives.
///
/// The wall clock is read once; later changes of it (or a machine that sleeps) are not followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started_at: i64,
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started_at: millis(since_1970),
            started: Instant::now(),
        }
    }

    /// When the broker started.
    pub(crate) fn started_at(&self) -> i64 {
        self.started_at
    }

    /// Now.
    pub(crate) fn now(&self) -> i64 {
        self.started_at.saturating_add(millis(self.started.elapsed()))
    }

    /// How long ago a client says that something was, by the wall clock of this moment: in milliseconds, negative for what
    /// is to come. Clients do not know that a test moves the time of the broker.
    pub(crate) fn age(&self, at: i64) -> i64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        millis(since_1970).saturating_sub(at)
    }

    /// The moment at which [`now`](Self::now) reaches `at`.
    pub(crate) fn instant(&self, at: i64) -> Instant {
        let after_start = u64::try_from(at.saturating_sub(self.started_at)).unwrap_or(0);
        // A century away at the most: beyond that an `Instant` may overflow.
        self.started + Duration::from_millis(after_start.min(100 * 366 * 86_400_000))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
