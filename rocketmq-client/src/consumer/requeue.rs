//! Messages that could be neither acknowledged nor given back: they wait here and come again, their offset pinned.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::process_queue::{Claim, ProcessQueue};
use super::ready::Ready;
use crate::sync::lock;

/// Waiting messages, the earliest first. Bounded by the limits of the caches, where they still count.
#[derive(Debug)]
pub(super) struct Requeue {
    delay: Duration,
    waiting: Mutex<VecDeque<(Instant, Arc<ProcessQueue>, Claim)>>,
    added: Notify,
}

impl Requeue {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay,
            waiting: Mutex::default(),
            added: Notify::new(),
        }
    }

    pub(super) fn add(&self, process: Arc<ProcessQueue>, claim: Claim) {
        lock(&self.waiting).push_back((Instant::now() + self.delay, process, claim));
        self.added.notify_one();
    }

    /// Hands messages out again as their time comes.
    pub(super) async fn run(&self, ready: &Ready, stop: &CancellationToken) {
        loop {
            let head = lock(&self.waiting).front().map(|(due, ..)| *due);
            let waited = stop.run_until_cancelled(async {
                match head {
                    Some(due) => sleep_until(due).await,
                    None => self.added.notified().await,
                }
            });
            if waited.await.is_none() {
                return;
            }
            let now = Instant::now();
            while let Some((_, process, claim)) = self.pop_due(now) {
                if process.put_back(claim) {
                    ready.offer(&process);
                }
            }
        }
    }

    fn pop_due(&self, now: Instant) -> Option<(Instant, Arc<ProcessQueue>, Claim)> {
        let mut waiting = lock(&self.waiting);
        let is_due = waiting.front().is_some_and(|(due, ..)| *due <= now);
        if is_due { waiting.pop_front() } else { None }
    }
}
