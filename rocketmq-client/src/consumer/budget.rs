//! How many bytes of messages one consumer may hold, over all its queues, and its part in a limit that it shares.

use std::sync::Arc;

use tokio::time::Instant;

use crate::memory::{Gate, HELD, MemoryLimit};

/// Counts the bytes of pull responses from before they are asked for until their last message is done with.
///
/// Messages share the buffer of the response they came in, so a buffer lives as long as any of its messages. What is
/// counted is therefore whole responses, never single messages.
#[derive(Debug)]
pub(super) struct Budget {
    own: Gate,
    shared: Option<MemoryLimit>,
}

/// Bytes set aside for a response that is on its way.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    since: Instant,
}

impl Budget {
    /// A limit of its own.
    #[cfg(test)]
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Self::within(limit, None)
    }

    /// A limit of its own within one that others share.
    pub(super) fn within(limit: usize, shared: Option<MemoryLimit>) -> Arc<Self> {
        Arc::new(Self {
            own: Gate::new(limit),
            shared,
        })
    }

    pub(super) fn used(&self) -> usize {
        self.own.used()
    }

    pub(super) fn charge(&self, bytes: usize) {
        for gate in self.gates() {
            gate.charge(bytes);
        }
    }

    pub(super) fn release(&self, bytes: usize) {
        for gate in self.gates() {
            gate.release(bytes);
        }
    }

    /// Sets `bytes` aside as soon as they fit, in turn.
    ///
    /// # Cancellation
    /// Safe: nothing is set aside.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.own.admit(bytes).await;
        let mut reserved = Reserved {
            gate: &self.own,
            bytes,
        };
        if let Some(shared) = &self.shared {
            shared.gate().admit(bytes).await;
        }
        reserved.bytes = 0;
        Reservation {
            budget: Arc::clone(self),
            bytes,
            since: Instant::now(),
        }
    }

    fn gates(&self) -> impl Iterator<Item = &Gate> {
        let shared = self.shared.as_ref().map(MemoryLimit::gate);
        std::iter::once(&self.own).chain(shared)
    }
}

/// Gives the first of two reservations back when the wait for the second is cut off.
struct Reserved<'a> {
    gate: &'a Gate,
    bytes: usize,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.gate.release(self.bytes);
    }
}

impl Reservation {
    /// Ends when somebody waits for room although these bytes have been set aside for a while: the broker has nothing
    /// to send then and holds the pull, so that whoever has something to receive goes first.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn called_in(&self) {
        if self.bytes == 0 {
            return std::future::pending().await;
        }
        loop {
            match &self.budget.shared {
                None => self.budget.own.called().await,
                Some(shared) => tokio::select! {
                    () = self.budget.own.called() => {}
                    () = shared.gate().called() => {}
                },
            }
            if self.since.elapsed() >= HELD {
                return;
            }
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
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready<F: Future>(future: Pin<&mut F>) -> bool {
        matches!(
            future.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(_)
        )
    }

    #[tokio::test]
    async fn a_dropped_reservation_is_given_back() {
        let budget = Budget::new(100);
        budget.charge(60);
        let reservation = budget.reserve(12).await;
        assert_eq!(budget.used(), 72);
        drop(reservation);
        assert_eq!(budget.used(), 60);
    }

    #[tokio::test]
    async fn a_shared_limit_counts_what_all_hold_and_makes_them_wait_for_each_other() {
        let shared = MemoryLimit::new(100);
        let (one, other) = (
            Budget::within(1000, Some(shared.clone())),
            Budget::within(1000, Some(shared.clone())),
        );
        one.charge(60);
        other.charge(40);
        assert_eq!((one.used(), other.used(), shared.used()), (60, 40, 100));
        let mut waiting = pin!(one.reserve(5));
        assert!(!is_ready(waiting.as_mut()));
        other.release(40);
        assert!(is_ready(waiting.as_mut()));
    }

    #[tokio::test]
    async fn a_wait_for_the_shared_limit_that_is_cut_off_gives_back_the_own_part() {
        let shared = MemoryLimit::new(100);
        shared.gate().charge(100);
        let budget = Budget::within(1000, Some(shared.clone()));
        {
            let mut waiting = pin!(budget.reserve(5));
            assert!(!is_ready(waiting.as_mut()));
            assert_eq!(budget.used(), 5);
        }
        assert_eq!((budget.used(), shared.used()), (0, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_that_nothing_comes_for_yields_to_who_waits() {
        let shared = MemoryLimit::new(100);
        let idle = Budget::within(1000, Some(shared.clone()));
        let busy = Budget::within(1000, Some(shared.clone()));
        let reservation = idle.reserve(100).await;
        let holder = async move {
            reservation.called_in().await;
            drop(reservation);
        };
        let (_, reservation) = tokio::join!(holder, busy.reserve(50));
        assert_eq!((idle.used(), busy.used()), (0, 50));
        drop(reservation);
        assert_eq!(shared.used(), 0);
    }
}
