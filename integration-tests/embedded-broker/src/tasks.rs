//! The only place that spawns: every task of a running broker can be stopped and awaited.

use std::future::Future;
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks. Dropping it cuts them off; [`stop`](Self::stop) also waits for them.
#[derive(Debug)]
pub(crate) struct Tasks(Spawner);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self(Spawner {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
        })
    }

    /// Something that can spawn into this group without owning it: dropping it stops nothing.
    pub(crate) fn spawner(&self) -> Spawner {
        self.0.clone()
    }

    /// Stops all tasks and waits until they are gone, at most `grace`.
    pub(crate) async fn stop(&self, grace: Duration) {
        self.0.stop.cancel();
        self.0.tracker.close();
        if time::timeout(grace, self.0.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.0.tracker.len(), "tasks still run after the grace");
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

/// Spawns into a group. See [`Tasks::spawner`].
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Spawner {
    /// Runs `task` until it ends or the group is stopped; it is then dropped where it waits, so a connection is cut
    /// in the middle of what it does, as by a crash.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}
