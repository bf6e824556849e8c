//! The only place that spawns: every background task belongs to a group that can be stopped and awaited.
//!
//! Groups form a tree. Stopping a group stops and awaits what is below it; dropping the last handle of a group asks
//! its tasks to stop, without waiting.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{EnterGuard, Handle};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, debug_span, error};

/// A handle to a group of tasks; clones share the group.
#[derive(Clone)]
pub(crate) struct Tasks(Arc<Group>);

struct Group {
    runtime: Handle,
    stop: CancellationToken,
    /// Cancelled when the grace is over: the futures of tasks that did not stop by themselves are dropped.
    abandon: CancellationToken,
    tracker: TaskTracker,
    parent: Option<Tasks>,
}

/// How many tasks had not ended when the grace was over; they were cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StillRunning(pub(crate) usize);

impl Tasks {
    /// The root of a tree, on this runtime. With a handle, tasks can be spawned from any thread.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self(Arc::new(Group {
            runtime,
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            tracker: TaskTracker::new(),
            parent: None,
        }))
    }

    /// A group below this one.
    pub(crate) fn child(&self) -> Self {
        Self(Arc::new(Group {
            runtime: self.0.runtime.clone(),
            stop: self.0.stop.child_token(),
            abandon: self.0.abandon.child_token(),
            tracker: TaskTracker::new(),
            parent: Some(self.clone()),
        }))
    }

    /// Cancelled once the group is asked to stop.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Lets what the caller polls meanwhile use the timers and sockets of the runtime, wherever the caller is.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.0.runtime.enter()
    }

    /// Asks all tasks to stop without waiting for them.
    pub(crate) fn cancel(&self) {
        self.0.stop.cancel();
    }

    /// How many tasks are running in this group and below.
    pub(crate) fn running(&self) -> usize {
        self.0.tracker.len()
    }

    /// Runs `task` until it ends. It is handed the token that asks it to stop; a panic is logged and ends this task
    /// alone.
    pub(crate) fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = task(self.0.stop.clone());
        let abandon = self.0.abandon.clone();
        let above = self.above();
        let guarded = async move {
            let _above = above;
            if let Some(Err(panic)) = abandon.run_until_cancelled(catch(future)).await {
                error!(task = name, %panic, "a background task panicked");
            }
        };
        self.0
            .tracker
            .spawn_on(guarded.instrument(debug_span!("task", name)), &self.0.runtime);
    }

    /// Computes something on a thread where that holds up nothing else. `None` if it panicked, or the runtime is being
    /// shut down.
    ///
    /// # Cancellation
    /// The computation goes on; nobody gets its result.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.0.runtime.spawn_blocking(work).await.ok()
    }

    /// Runs a future that ends by itself soon: it is awaited when the group stops, but neither asked to stop nor cut
    /// off. So little is wrapped around it that a task for each message can be afforded.
    pub(crate) fn spawn_brief<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + Unpin + 'static,
    {
        let brief = Brief {
            name,
            future,
            _above: self.above(),
        };
        self.0.tracker.spawn_on(brief, &self.0.runtime);
    }

    /// What makes the groups above wait for a task of this one.
    fn above(&self) -> Vec<TaskTrackerToken> {
        let mut above = Vec::new();
        let mut parent = self.0.parent.as_ref();
        while let Some(Self(group)) = parent {
            above.push(group.tracker.token());
            parent = group.parent.as_ref();
        }
        above
    }

    /// Asks all tasks to stop and waits for them, at most `grace`; those still running are then cut off.
    /// Calling it again is harmless.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<(), StillRunning> {
        self.0.stop.cancel();
        self.0.tracker.close();
        if time::timeout(grace, self.0.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let left = self.0.tracker.len();
        self.0.abandon.cancel();
        match left {
            0 => Ok(()),
            left => Err(StillRunning(left)),
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("running", &self.running())
            .field("stopping", &self.0.stop.is_cancelled())
            .finish()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A future whose panic is logged. It is polled in place: an async block around it would hold it twice.
struct Brief<F> {
    name: &'static str,
    future: F,
    _above: Vec<TaskTrackerToken>,
}

impl<F: Future<Output = ()> + Unpin> Future for Brief<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.future).poll(context))) {
            Ok(poll) => poll,
            Err(panic) => {
                let panic = panic_text(&*panic);
                error!(task = self.name, %panic, "a background task panicked");
                Poll::Ready(())
            }
        }
    }
}

/// Runs a future; a panic becomes the text it was raised with.
pub(crate) async fn catch<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        },
    )
    .await
}

/// Runs futures side by side in the task of the caller and gives their outputs in order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut outputs: Vec<_> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (slot, output) in running.iter_mut().zip(&mut outputs) {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(context) {
                Poll::Pending => pending = true,
                Poll::Ready(value) => {
                    *output = Some(value);
                    *slot = None;
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// The text of a panic, if it has one.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
        .to_owned()
}

#[cfg(test)]
mod tests;
