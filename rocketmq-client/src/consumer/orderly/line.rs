//! The line in which lanes with messages wait for a worker.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::Place;
use crate::sync::lock;

/// Lanes that can be worked on, in turn. A lane is in it once at the most, which the lane itself sees to.
#[derive(Debug, Default)]
pub(super) struct Line {
    line: Mutex<VecDeque<Place>>,
    wake: Notify,
    idle: AtomicUsize,
}

impl Line {
    pub(super) fn push(&self, places: impl IntoIterator<Item = Place>) {
        let any = {
            let mut line = lock(&self.line);
            line.extend(places);
            !line.is_empty()
        };
        if any {
            self.wake.notify_one();
        }
    }

    /// The next lane, if there is one. Wakes another worker when there are more.
    fn take(&self) -> Option<Place> {
        let mut line = lock(&self.line);
        let place = line.pop_front()?;
        if !line.is_empty() && self.idle.load(Ordering::Relaxed) > 0 {
            self.wake.notify_one();
        }
        Some(place)
    }

    /// Waits for the next lane, as long as `wanted` says that the worker is.
    ///
    /// # Cancellation
    /// Safe: no lane is taken.
    pub(super) async fn next(&self, wanted: impl Fn() -> bool) -> Option<Place> {
        while wanted() {
            if let Some(place) = self.take() {
                return Some(place);
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            let _idle = Idle(&self.idle);
            // Once more, now that it is counted: who fills the line after this look sees the counter and notifies,
            // and a notification without a waiter is kept.
            if let Some(place) = self.take() {
                return Some(place);
            }
            self.wake.notified().await;
        }
        // What woke this worker may have been meant for one that stays.
        self.wake.notify_one();
        None
    }

    /// Lets all workers look again whether they are wanted.
    pub(super) fn wake_all(&self) {
        self.wake.notify_waiters();
    }
}

/// Uncounts a waiting worker.
struct Idle<'a>(&'a AtomicUsize);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
