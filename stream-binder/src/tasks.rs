//! The only place that spawns: every background task belongs to a group that can be stopped and awaited.

use std::{future::Future, time::Duration};

use tokio::time;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug_span, error};

use crate::layers::panic::catch;

/// A group of tasks. Dropping it asks its tasks to stop; [`stop`](Self::stop) also awaits them.
#[derive(Debug)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    // Cancelled when the grace is over: the futures of tasks that did not stop by themselves are dropped.
    abandon: CancellationToken,
    tracker: TaskTracker,
}

/// How many tasks had not ended when the grace was over; they were cut off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StillRunning(pub(crate) usize);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            tracker: TaskTracker::new(),
        }
    }

    /// Runs `task` until it ends. It is handed the token that asks it to stop; a panic is logged and ends
    /// this task alone.
    pub(crate) fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = task(self.stop.clone());
        let abandon = self.abandon.clone();
        let guarded = async move {
            if let Some(Err(panic)) = abandon.run_until_cancelled(catch(future)).await {
                error!(task = name, %panic, "a background task panicked");
            }
        };
        self.tracker.spawn(guarded.instrument(debug_span!("task", name)));
    }

    /// Asks all tasks to stop and waits for them, at most `grace`; those still running are then cut off.
    /// Calling it again is harmless.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<(), StillRunning> {
        self.stop.cancel();
        self.tracker.close();
        if time::timeout(grace, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let left = self.tracker.len();
        self.abandon.cancel();
        if left == 0 {
            Ok(())
        } else {
            Err(StillRunning(left))
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abandon.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_waits_for_tasks_that_finish_in_time() {
        let tasks = Tasks::new();
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        tasks.spawn("worker", |stop| async move {
            stop.cancelled().await;
            time::sleep(Duration::from_secs(1)).await;
            flag.store(true, Ordering::SeqCst);
        });
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Ok(()));
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_stop_is_counted_and_cut_off() {
        struct SetOnDrop(Arc<AtomicBool>);
        impl Drop for SetOnDrop {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let tasks = Tasks::new();
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = SetOnDrop(Arc::clone(&dropped));
        tasks.spawn("deaf", |_stop| async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Err(StillRunning(1)));
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Ok(()));
        assert!(dropped.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_one_task_and_not_its_neighbour() {
        let tasks = Tasks::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("bad", |_stop| async { panic!("on purpose") });
        tasks.spawn("good", |stop| async move {
            stop.cancelled().await;
            sender.send(()).unwrap();
        });
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Ok(()));
        receiver.await.unwrap();
    }
}
