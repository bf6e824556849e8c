//! Things that are due at different times.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// What waits, the earliest first. Not bounded by itself: each lane waits at most once.
#[derive(Debug)]
pub(super) struct Later<T> {
    waiting: Mutex<BinaryHeap<Reverse<Due<T>>>>,
    /// Something is due earlier than anything was.
    earlier: Notify,
}

#[derive(Debug)]
struct Due<T> {
    at: Instant,
    item: T,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(BinaryHeap::new()),
            earlier: Notify::new(),
        }
    }
}

impl<T> Later<T> {
    pub(super) fn add(&self, at: Instant, item: T) {
        let is_first = {
            let mut waiting = lock(&self.waiting);
            let is_first = waiting.peek().is_none_or(|Reverse(first)| at < first.at);
            waiting.push(Reverse(Due { at, item }));
            is_first
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Hands out what is due until it is told to stop.
    pub(super) async fn run(&self, hand_out: impl Fn(T), stop: &CancellationToken) {
        loop {
            let first = lock(&self.waiting).peek().map(|Reverse(first)| first.at);
            let waited = stop.run_until_cancelled(async {
                match first {
                    Some(at) => tokio::select! {
                        () = sleep_until(at) => {}
                        () = self.earlier.notified() => {}
                    },
                    None => self.earlier.notified().await,
                }
            });
            if waited.await.is_none() {
                return;
            }
            let now = Instant::now();
            while let Some(item) = self.pop_due(now) {
                hand_out(item);
            }
        }
    }

    fn pop_due(&self, now: Instant) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        let is_due = waiting.peek().is_some_and(|Reverse(first)| first.at <= now);
        if !is_due {
            return None;
        }
        waiting.pop().map(|Reverse(due)| due.item)
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_first_comes_first() {
        let later = Arc::new(Later::default());
        let (sender, mut receiver) = mpsc::channel(10);
        let stop = CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        let start = Instant::now();
        later.add(start + Duration::from_secs(3), 3);
        let (looked_after, stopped) = (Arc::clone(&later), stop.clone());
        running.spawn(async move {
            looked_after
                .run(|item| sender.try_send(item).unwrap(), &stopped)
                .await;
        });
        tokio::task::yield_now().await;
        // Comes to wait when a later one is waited for already.
        later.add(start + Duration::from_secs(1), 1);
        later.add(start + Duration::from_secs(2), 2);
        for expected in 1..=3 {
            assert_eq!(receiver.recv().await, Some(expected));
            assert_eq!(start.elapsed().as_secs(), expected);
        }
        stop.cancel();
        running.join_all().await;
    }
}
