//! How much of a topic may be in the cache: limits that its queues share, and pulls that keep to what is set aside.
//!
//! Protocol source: `RebalancePushImpl#messageQueueChanged` (there the shares are counted over the queues of all
//! topics, here over those of the topic).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::budget::Reservation;
use super::engine::Engine;
use super::process_queue::Limits;
use crate::sync::lock;

/// How much of one topic may be in the cache; each queue that this member owns may have an equal part of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TopicLimits {
    /// Messages.
    pub(super) messages: Option<usize>,
    /// Bytes of pull responses.
    pub(super) bytes: Option<usize>,
}

/// What of each topic one queue may have.
#[derive(Debug, Default)]
pub(super) struct Flow {
    limits: TopicLimits,
    shares: Mutex<BTreeMap<Arc<str>, Arc<Share>>>,
}

/// What one queue of a topic may have at the moment.
#[derive(Debug)]
pub(super) struct Share {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Flow {
    pub(super) fn new(limits: TopicLimits) -> Self {
        Self {
            limits,
            shares: Mutex::default(),
        }
    }

    fn is_limited(&self) -> bool {
        self.limits.messages.is_some() || self.limits.bytes.is_some()
    }

    /// The share of a queue of this topic; none without limits for topics.
    pub(super) fn share(&self, topic: &Arc<str>) -> Option<Arc<Share>> {
        if !self.is_limited() {
            return None;
        }
        let mut shares = lock(&self.shares);
        let share = shares
            .entry(Arc::clone(topic))
            .or_insert_with(|| Arc::new(Share::of(self.limits, 1)));
        Some(Arc::clone(share))
    }
}

impl Share {
    fn of(limits: TopicLimits, queues: usize) -> Self {
        let [messages, bytes] = parts(limits, queues).map(AtomicUsize::new);
        Self { messages, bytes }
    }

    /// These limits, and what of the topic's remains for one queue.
    pub(super) fn narrow(&self, limits: Limits) -> Limits {
        Limits {
            messages: limits.messages.min(self.messages.load(Ordering::Relaxed)),
            bytes: limits.bytes.min(self.bytes.load(Ordering::Relaxed)),
            ..limits
        }
    }
}

/// At least one message and one byte: a share that lets nothing in would stop its queue.
fn parts(limits: TopicLimits, queues: usize) -> [usize; 2] {
    [limits.messages, limits.bytes].map(|limit| {
        limit.map_or(usize::MAX, |limit| {
            limit.checked_div(queues).unwrap_or(limit).max(1)
        })
    })
}

impl Engine {
    /// This member owns so many queues of a topic now.
    pub(super) fn share_topic(&self, topic: &Arc<str>, queues: usize) {
        let Some(share) = self.flow.share(topic) else {
            return;
        };
        let [messages, bytes] = parts(self.flow.limits, queues);
        share.messages.store(messages, Ordering::Relaxed);
        share.bytes.store(bytes, Ordering::Relaxed);
        // A larger share may have room for a pull that waits.
        for (queue, process) in lock(&self.assignment).iter() {
            if queue.topic == *topic
                && let Some(process) = process
            {
                process.look_for_room();
            }
        }
    }
}

/// Awaits a pull. What was set aside for its response goes to others if they wait while the broker holds the pull.
///
/// # Cancellation
/// As the pull.
pub(super) async fn pull_within<F: Future>(
    reservation: Reservation,
    // Pinned where it was made: a future that is handed on takes its size once more, for each queue.
    mut pull: Pin<&mut F>,
) -> (F::Output, Option<Reservation>) {
    tokio::select! {
        biased;
        result = &mut pull => return (result, Some(reservation)),
        () = reservation.called_in() => {}
    }
    drop(reservation);
    (pull.await, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        messages: 1000,
        bytes: 5000,
        span: 7,
    };

    #[test]
    fn queues_have_equal_parts_of_what_the_topic_may_have_and_at_least_one() {
        for (messages, bytes, queues, expected) in [
            (Some(1200), Some(8000), 4, (300, 2000)),
            (Some(1200), None, 7, (171, 5000)),
            (Some(3), Some(3), 4, (1, 1)),
            (Some(8000), Some(80_000), 2, (1000, 5000)),
            (Some(10), Some(10), 0, (10, 10)),
        ] {
            let limits = Share::of(TopicLimits { messages, bytes }, queues).narrow(LIMITS);
            assert_eq!((limits.messages, limits.bytes), expected);
            assert_eq!(limits.span, 7);
        }
    }

    #[test]
    fn without_limits_for_topics_there_is_nothing_to_share() {
        assert!(Flow::default().share(&"orders".into()).is_none());
        let flow = Flow::new(TopicLimits {
            messages: Some(8),
            bytes: None,
        });
        let share = flow.share(&"orders".into()).unwrap();
        assert!(Arc::ptr_eq(&share, &flow.share(&"orders".into()).unwrap()));
    }
}
