//! What is known of an owned queue beside its messages: how far it reaches on the broker, and when something happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Call, TopicMeter};
use crate::error::Error;
use crate::protocol::bodies::MessageQueue;
use crate::telemetry::LagGauge;

/// How far one owned queue is consumed, and what of it is in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueProgress {
    /// The queue.
    pub queue: MessageQueue,
    /// The lowest offset that is not consumed: what is committed next. `None` until it is known where to begin.
    pub consumed: Option<i64>,
    /// One past the newest message on the broker, as far as is known.
    pub max_offset: Option<i64>,
    /// Messages in the cache, handlers in progress included.
    pub cached: usize,
    /// Bytes held for them.
    pub cached_bytes: usize,
    /// When a broker last answered a pull; or when the queue was assigned, if that is later.
    pub last_pull: Option<SystemTime>,
    /// When a handler last ended; or when the queue was assigned, if that is later.
    pub last_consumed: Option<SystemTime>,
}

impl QueueProgress {
    /// How many messages are not consumed yet, those in the cache included. Those that no filter lets through count
    /// until they are passed.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        let behind = self.max_offset?.saturating_sub(self.consumed?);
        Some(u64::try_from(behind).unwrap_or(0))
    }
}

/// Watches one owned queue. A task may ask while others tell: all of it is atomic.
#[derive(Debug)]
pub(in crate::consumer) struct QueueWatch {
    pub(in crate::consumer) meter: Arc<TopicMeter>,
    queue_id: i32,
    lag: LagGauge,
    /// Negative until a broker has said it.
    max_offset: AtomicI64,
    since: Instant,
    /// In milliseconds since then.
    pulled: AtomicU64,
    consumed: AtomicU64,
}

impl QueueWatch {
    pub(in crate::consumer) fn new(group: &str, queue: &MessageQueue, meter: Arc<TopicMeter>) -> Self {
        Self {
            meter,
            queue_id: queue.queue_id,
            lag: LagGauge::new(group, &queue.topic, &queue.broker_name, queue.queue_id),
            max_offset: AtomicI64::new(-1),
            since: Instant::now(),
            pulled: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
        }
    }

    /// A broker answered a pull and said where the queue ends.
    pub(in crate::consumer) fn answered(&self, max_offset: i64) {
        self.pulled.store(self.millis(Instant::now()), Ordering::Relaxed);
        self.set_max_offset(max_offset);
    }

    /// An answer brought messages.
    pub(in crate::consumer) fn received(&self, began: Instant, messages: usize) {
        let took = began.elapsed();
        self.meter.pulled(messages, took);
        self.meter.telemetry.received(messages as u64, took);
    }

    /// A pull failed.
    pub(in crate::consumer) fn not_received(&self, began: Instant, error: &Error) {
        self.meter.telemetry.not_received(began.elapsed(), error.kind());
    }

    /// A handler has ended that had messages of this queue.
    pub(in crate::consumer) fn called(&self, ended: Instant, call: Call) {
        self.consumed.store(self.millis(ended), Ordering::Relaxed);
        self.meter.called(self.queue_id, call);
    }

    pub(in crate::consumer) fn max_offset(&self) -> Option<i64> {
        Some(self.max_offset.load(Ordering::Relaxed)).filter(|&offset| offset >= 0)
    }

    pub(in crate::consumer) fn set_max_offset(&self, offset: i64) {
        self.max_offset.store(offset, Ordering::Relaxed);
    }

    /// Tells how far the queue is behind, as far as it is known.
    pub(in crate::consumer) fn tell_lag(&self, consumed: i64) {
        if let Some(max_offset) = self.max_offset() {
            self.lag
                .set(u64::try_from(max_offset.saturating_sub(consumed)).unwrap_or(0));
        }
    }

    /// The queue is somebody else's now.
    pub(in crate::consumer) fn lost(&self) {
        self.lag.set(0);
    }

    pub(in crate::consumer) fn last_pull(&self) -> Option<SystemTime> {
        self.time(&self.pulled)
    }

    pub(in crate::consumer) fn last_consumed(&self) -> Option<SystemTime> {
        self.time(&self.consumed)
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.since);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// By the clock on the wall, which may have been set since.
    fn time(&self, millis: &AtomicU64) -> Option<SystemTime> {
        let at = Duration::from_millis(millis.load(Ordering::Relaxed));
        let ago = self.since.elapsed().saturating_sub(at);
        SystemTime::now().checked_sub(ago)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::stats::Meters;

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_what_lies_between_the_consumed_and_the_newest() {
        let queue = MessageQueue::new("orders", "broker-a", 3);
        let progress = |consumed, max_offset| QueueProgress {
            queue: queue.clone(),
            consumed,
            max_offset,
            cached: 0,
            cached_bytes: 0,
            last_pull: None,
            last_consumed: None,
        };
        assert_eq!(progress(Some(3), Some(10)).lag(), Some(7));
        assert_eq!(
            progress(Some(12), Some(10)).lag(),
            Some(0),
            "an answer from the past"
        );
        assert_eq!(progress(None, Some(10)).lag(), None);
        assert_eq!(progress(Some(3), None).lag(), None);

        let meters = Meters::new("billing".into());
        let watch = QueueWatch::new("billing", &queue, meters.of(&queue.topic));
        assert_eq!(watch.max_offset(), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        watch.answered(10);
        assert_eq!(watch.max_offset(), Some(10));
        tokio::time::advance(Duration::from_secs(3)).await;
        let (pull, consumed) = (watch.last_pull().unwrap(), watch.last_consumed().unwrap());
        let between = pull.duration_since(consumed).unwrap();
        assert!(between > Duration::from_millis(1900), "{between:?}");
    }
}
