//! How many bytes may be held at a time, by whoever shares a limit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// After how long something that was set aside and is not there yet is called in, if somebody waits for its room.
pub(crate) const HELD: Duration = Duration::from_millis(200);

/// One limit on the bytes of received messages for several consumers, of several clients too: for a whole process.
///
/// Clones are handles to the same limit. Give it to each client with
/// [`ClientBuilder::memory_limit`](crate::ClientBuilder::memory_limit), or to single consumers. What is counted is what
/// [`max_cached_bytes`](crate::PushConsumerBuilder::max_cached_bytes) counts, and each consumer still keeps to that.
///
/// Who finds no room waits in line, so no consumer and no queue starves another. Of a response that is larger than an
/// eighth of the limit only that eighth has to fit, and who is alone may hold anything: a limit below the size of one
/// message makes consumers take turns and does not stop them. The limit is exceeded by at most one response, and by as
/// much as responses outgrow the ones before them.
///
/// ```
/// use rocketmq_client::{Client, MemoryLimit};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
/// let limit = MemoryLimit::new(64 * 1024 * 1024);
/// let client = Client::builder(broker.name_server()).memory_limit(&limit).connect().await?;
/// let other = Client::builder(broker.name_server()).memory_limit(&limit).connect().await?;
/// // All consumers of both hold at most 64 MiB together.
/// assert_eq!(limit.used(), 0);
/// # client.shutdown().await;
/// # other.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryLimit(Arc<Gate>);

impl MemoryLimit {
    /// So many bytes; of 0, one response at a time.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Gate::new(bytes)))
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.limit
    }

    /// How many bytes are held at the moment, or set aside for responses on their way.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used()
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0
    }
}

impl fmt::Debug for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLimit")
            .field("bytes", &self.bytes())
            .field("used", &self.used())
            .finish()
    }
}

/// A counter of bytes with a line before it.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: usize,
    used: AtomicUsize,
    /// Who has it is first in line; the semaphore hands it on in turn.
    turn: Semaphore,
    /// For the first in line alone, so a notification without a waiter is kept.
    freed: Notify,
    called: Notify,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            turn: Semaphore::new(1),
            freed: Notify::new(),
            called: Notify::new(),
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts bytes that are there, whether there is room or not.
    pub(crate) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.freed.notify_one();
        }
    }

    /// Counts bytes as soon as there is room for them, in turn.
    ///
    /// # Cancellation
    /// Safe: nothing is counted, and the next in line has the turn.
    pub(crate) async fn admit(&self, bytes: usize) {
        // Nobody closes it.
        let _turn = self.turn.acquire().await;
        while !self.try_admit(bytes) {
            if timeout(HELD, self.freed.notified()).await.is_err() {
                self.called.notify_waiters();
            }
        }
    }

    /// Ends when the first in line has waited for a while.
    pub(crate) async fn called(&self) {
        self.called.notified().await;
    }

    fn try_admit(&self, bytes: usize) -> bool {
        let needed = bytes.min(self.limit / 8);
        let admit = |used: usize| {
            let fits = used < self.limit && needed <= self.limit - used;
            (used == 0 || fits).then(|| used.saturating_add(bytes))
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_ok()
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
    async fn who_does_not_fit_waits_for_a_release_and_who_comes_later_waits_behind() {
        let gate = Gate::new(800);
        gate.charge(750);
        let mut large = pin!(gate.admit(100));
        let mut small = pin!(gate.admit(1));
        assert!(!is_ready(large.as_mut()));
        assert!(!is_ready(small.as_mut()), "it would fit, but it is not its turn");
        gate.release(49);
        assert!(!is_ready(large.as_mut()));
        gate.release(1);
        assert!(is_ready(large.as_mut()));
        assert_eq!(gate.used(), 800);
        assert!(!is_ready(small.as_mut()));
        gate.release(1);
        assert!(is_ready(small.as_mut()));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_turn_to_the_next() {
        let gate = Gate::new(800);
        gate.charge(800);
        let mut second = pin!(gate.admit(1));
        {
            let mut first = pin!(gate.admit(1));
            assert!(!is_ready(first.as_mut()));
            assert!(!is_ready(second.as_mut()));
            gate.release(1);
        }
        assert!(is_ready(second.as_mut()));
    }

    #[tokio::test]
    async fn a_full_gate_lets_nobody_in_and_an_empty_one_anybody() {
        let gate = Gate::new(100);
        assert!(is_ready(pin!(gate.admit(1000))));
        let mut nothing_wanted = pin!(gate.admit(0));
        assert!(!is_ready(nothing_wanted.as_mut()));
        gate.release(1000);
        assert!(is_ready(nothing_wanted.as_mut()));
    }

    #[tokio::test]
    async fn more_than_an_eighth_needs_no_more_room_than_that() {
        let gate = Gate::new(800);
        gate.charge(700);
        assert!(is_ready(pin!(gate.admit(5000))));
        assert!(!is_ready(pin!(gate.admit(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_long_calls_in_what_others_have_set_aside() {
        let gate = Gate::new(100);
        gate.admit(100).await;
        let holder = async {
            gate.called().await;
            gate.release(100);
        };
        tokio::join!(holder, gate.admit(10));
        assert_eq!(gate.used(), 10);
    }
}
