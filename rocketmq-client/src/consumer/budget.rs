//! How many bytes of messages one consumer may hold, over all its queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes of pull responses from before they are asked for until their last message is done with.
///
/// Messages share the buffer of the response they came in, so a buffer lives as long as any of its messages. What is
/// counted is therefore whole responses, never single messages.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

/// Bytes set aside for a response that is on its way.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            freed: Notify::new(),
        })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }

    /// Sets `bytes` aside as soon as they fit. An empty budget takes anything, so that a response above the limit
    /// is slow instead of stuck.
    ///
    /// # Cancellation
    /// Safe: nothing is set aside.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        loop {
            // Registered before the look at the counter: a release in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let fits = |used: usize| match used.checked_add(bytes) {
                Some(total) if used == 0 || total <= self.limit && used < self.limit => Some(total),
                _ => None,
            };
            if self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
                .is_ok()
            {
                return Reservation {
                    budget: Arc::clone(self),
                    bytes,
                };
            }
            freed.await;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        matches!(
            future.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(_)
        )
    }

    #[test]
    fn who_does_not_fit_waits_for_a_release() {
        let budget = Budget::new(100);
        budget.charge(60);
        let mut fits = pin!(budget.reserve(40));
        assert!(is_ready(fits.as_mut()));
        assert_eq!(budget.used(), 60, "a dropped reservation is given back");

        let mut waits = pin!(budget.reserve(41));
        assert!(!is_ready(waits.as_mut()));
        budget.release(1);
        assert!(is_ready(waits.as_mut()));
    }

    #[test]
    fn a_full_budget_lets_nobody_in_and_an_empty_one_anybody() {
        let budget = Budget::new(100);
        let all = pin!(budget.reserve(1000));
        assert!(is_ready(all));
        budget.charge(100);
        let mut nothing_wanted = pin!(budget.reserve(0));
        assert!(!is_ready(nothing_wanted.as_mut()));
        budget.release(100);
        assert!(is_ready(nothing_wanted));
    }
}
