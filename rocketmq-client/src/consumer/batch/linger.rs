//! Queues whose batches are not full yet: somebody has to look at them again, should nothing more come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::consumer::process_queue::ProcessQueue;
use crate::consumer::ready::Ready;
use crate::sync::lock;

/// The looks that are due, the earliest first. Each queue has one at the most.
#[derive(Debug)]
pub(super) struct Linger {
    pub(super) time: Duration,
    looks: Mutex<Looks>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Looks {
    /// The number tells looks of the same instant apart.
    due: BTreeMap<(Instant, u64), Arc<ProcessQueue>>,
    next: u64,
}

impl Linger {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            looks: Mutex::default(),
            added: Notify::new(),
        }
    }

    pub(super) fn look_again(&self, queue: Arc<ProcessQueue>, due: Instant) {
        {
            let mut looks = lock(&self.looks);
            let number = looks.next;
            looks.next = number.wrapping_add(1);
            looks.due.insert((due, number), queue);
        }
        self.added.notify_one();
    }

    /// Puts queues in line as their time comes.
    pub(super) async fn run(&self, ready: &Ready, stop: &CancellationToken) {
        loop {
            let first = lock(&self.looks).due.first_key_value().map(|(key, _)| key.0);
            let waited = stop.run_until_cancelled(async {
                match first {
                    Some(due) => tokio::select! {
                        () = sleep_until(due) => {}
                        // One that came later may be due earlier.
                        () = self.added.notified() => {}
                    },
                    None => self.added.notified().await,
                }
            });
            if waited.await.is_none() {
                return;
            }
            let now = Instant::now();
            while let Some(queue) = self.pop_due(now) {
                queue.look_again();
                ready.offer(&queue);
            }
        }
    }

    fn pop_due(&self, now: Instant) -> Option<Arc<ProcessQueue>> {
        let mut looks = lock(&self.looks);
        let first = looks.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
