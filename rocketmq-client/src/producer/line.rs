//! The line behind a large body: compressing it takes a while on another thread, and what the same task detaches
//! meanwhile must not overtake it.
//!
//! Other tasks are not held up, and nobody is as long as no large body is being compressed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Core;
use crate::sync::lock;

/// The sends that stand in line, by the task that detached them; those outside of any task are in one.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// How many are in the table: one look at it tells a send that it need not look there.
    standing: AtomicUsize,
    /// The last one of each task, with the token that it cancels when it has gone.
    last: Mutex<HashMap<Option<task::Id>, (u64, CancellationToken)>>,
    numbers: std::sync::atomic::AtomicU64,
}

/// A place in line, or behind it.
#[derive(Debug)]
pub(super) struct Place {
    ahead: Option<CancellationToken>,
    /// Held for its end.
    _own: Option<Own>,
}

/// What those behind wait for. Given up with the place, however the send ends.
#[derive(Debug)]
struct Own {
    core: Arc<Core>,
    task: Option<task::Id>,
    number: u64,
    gone: CancellationToken,
}

impl Line {
    /// Whether anybody stands in line.
    pub(super) fn is_busy(&self) -> bool {
        self.standing.load(Ordering::Relaxed) > 0
    }

    /// Whether something that this task detached stands in line.
    pub(super) fn is_ahead(&self) -> bool {
        lock(&self.last).contains_key(&task::try_id())
    }

    /// A place that nobody waits for, behind all that this task detached.
    pub(super) fn behind(&self) -> Place {
        let ahead = match self.is_busy() {
            true => lock(&self.last)
                .get(&task::try_id())
                .map(|(_, gone)| gone.clone()),
            false => None,
        };
        Place { ahead, _own: None }
    }

    /// The place behind all that this task detached, for a send that more may be detached after.
    pub(super) fn join(core: &Arc<Core>) -> Place {
        let line = &core.line;
        let own = Own {
            core: Arc::clone(core),
            task: task::try_id(),
            number: line.numbers.fetch_add(1, Ordering::Relaxed),
            gone: CancellationToken::new(),
        };
        let before = lock(&line.last).insert(own.task, (own.number, own.gone.clone()));
        line.standing.fetch_add(1, Ordering::Relaxed);
        Place {
            ahead: before.map(|(_, gone)| gone),
            _own: Some(own),
        }
    }
}

impl Place {
    /// Waits until what is ahead has gone, at most to the deadline.
    pub(super) async fn wait(&self, deadline: Instant) {
        if let Some(ahead) = &self.ahead {
            // Past the deadline the send fails by itself.
            let _ = timeout_at(deadline, ahead.cancelled()).await;
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let line = &self.core.line;
        let mut last = lock(&line.last);
        if last
            .get(&self.task)
            .is_some_and(|(number, _)| *number == self.number)
        {
            last.remove(&self.task);
        }
        drop(last);
        line.standing.fetch_sub(1, Ordering::Relaxed);
        self.gone.cancel();
    }
}

#[cfg(test)]
mod tests;
