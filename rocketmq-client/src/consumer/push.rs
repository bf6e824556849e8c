//! The handle to a running push consumer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use super::engine::{Engine, FAREWELL};
use super::options::clamp_concurrency;
use super::pop::Pop;
use crate::cluster::Client;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// A running consumer of a group: it takes its share of the queues, pulls, calls the handler and commits.
///
/// Clones are handles to the same consumer. [`shutdown`](Self::shutdown) ends it in order; when the last handle is
/// dropped without that, it ends at once and what was unfinished comes again, here or elsewhere.
///
/// Made by [`Client::push_consumer`](crate::Client::push_consumer).
#[derive(Clone)]
pub struct PushConsumer(Arc<Running>);

struct Running {
    engine: Arc<Engine>,
    /// Starts workers with these numbers; knows the type of the handler.
    spawn_workers: Box<dyn Fn(Vec<usize>) + Send + Sync>,
    /// Keeps the client alive as long as the consumer.
    _client: Client,
}

/// What was left when a consumer had shut down. Nothing of it is lost: it comes again, here or elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Handlers that did not end within the grace and were cut off.
    pub handlers_cut_off: usize,
    /// Queues whose last commit was not confirmed: what was handled since the commit before may come again.
    pub commits_unconfirmed: usize,
}

/// What a consumer has done since it started, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Messages received.
    pub received: u64,
    /// Messages acknowledged by the handler.
    pub acknowledged: u64,
    /// Deliveries that failed or were to be retried, including the next two.
    pub retried: u64,
    /// Deliveries whose handler panicked.
    pub panicked: u64,
    /// Deliveries whose handler did not end within the consume timeout.
    pub timed_out: u64,
    /// Messages rejected by the handler: dead letters at once.
    pub rejected: u64,
    /// Failed deliveries that no broker would take back; the messages stay here and are tried again.
    pub not_given_back: u64,
    /// Messages that failed as often as they may and were left out, as [`Poison::Skip`](super::Poison::Skip) asks for.
    pub skipped: u64,
    /// Messages dropped because their handler kept failing; only by
    /// [broadcasting](super::PushConsumerBuilder::broadcasting).
    pub dropped: u64,
    /// How often the file of offsets could not be written; only by
    /// [broadcasting](super::PushConsumerBuilder::broadcasting).
    pub offset_writes_failed: u64,
    /// Differences found between what this member and the rest of its group subscribe to; each is logged. Should be 0.
    pub subscription_conflicts: u64,
    /// Messages in the cache, handlers in progress included.
    pub cached: usize,
    /// Bytes held for them: whole pull responses with unfinished messages, and those about to come.
    pub cached_bytes: usize,
    /// Queues owned, in order; then what is [popped](super::PushConsumerBuilder::pop), where the number -1 stands for all
    /// queues of a broker.
    pub queues: Vec<MessageQueue>,
    /// Why brokers refuse this member, while they do: what the last one said. `None` as soon as one permits something.
    pub refused: Option<String>,
}

impl PushConsumer {
    pub(super) fn new(
        engine: Arc<Engine>,
        spawn_workers: Box<dyn Fn(Vec<usize>) + Send + Sync>,
        client: Client,
    ) -> Self {
        Self(Arc::new(Running {
            engine,
            spawn_workers,
            _client: client,
        }))
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0.engine.group
    }

    /// Stops pulling; messages that are in the cache are still handled. Idempotent. Java: `suspend`.
    pub fn pause(&self) {
        self.0.engine.paused.send_replace(true);
    }

    /// Pulls again after [`pause`](Self::pause). Idempotent.
    pub fn resume(&self) {
        self.0.engine.paused.send_replace(false);
    }

    /// Whether pulling is stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.0.engine.paused.borrow()
    }

    /// Changes how many handlers run at a time, from 1 to 10000. Handlers that run are not interrupted: a smaller
    /// number is reached as they end. Java: `updateCorePoolSize`.
    pub fn set_concurrency(&self, concurrency: usize) {
        let engine = &self.0.engine;
        let concurrency = clamp_concurrency(concurrency);
        engine.resize(concurrency, &self.0.spawn_workers);
    }

    /// How many handlers may run at a time.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.0.engine.concurrency.load(Ordering::Relaxed)
    }

    /// What the consumer has done so far, and what it holds at the moment.
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        self.0.engine.stats()
    }

    /// Shuts the consumer down: stops pulling, lets running handlers end for up to the
    /// [grace](super::PushConsumerBuilder::shutdown_grace), commits, and leaves the group. Messages that were
    /// received but not started are let go; they come again, here or elsewhere.
    ///
    /// Calling it again, also at the same time, gives the same report.
    ///
    /// # Cancellation
    /// The shutdown stops where it is and is taken up by the next call; dropping the last handle ends it hard.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.shutdown_within(self.0.engine.options.shutdown_grace).await
    }

    /// [`shutdown`](Self::shutdown) with a grace of its own.
    pub async fn shutdown_within(&self, grace: Duration) -> ShutdownReport {
        self.0.engine.shutdown(grace).await
    }

    /// Ends without waiting, unless it is shut down.
    pub(super) fn end_hard(&self) {
        self.0.end_hard();
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }
}

impl Engine {
    /// Shuts down once; who comes later or at the same time gets the same report.
    pub(super) async fn shutdown(&self, grace: Duration) -> ShutdownReport {
        *self
            .shut_down
            .get_or_init(|| self.shut_down_in_order(grace))
            .await
    }

    async fn shut_down_in_order(&self, grace: Duration) -> ShutdownReport {
        // From here on no worker takes another message.
        self.workers.cancel();
        // Nothing is in flight there that is not safe to drop.
        let _ = self.intake.stop(FAREWELL).await;
        let handlers_cut_off = match self.workers.stop(grace).await {
            Ok(()) => 0,
            Err(still_running) => still_running.0,
        };
        if let Some(pop) = &self.pop {
            pop.end(FAREWELL).await;
        }
        let _ = self.upkeep.stop(FAREWELL).await;
        let commits_unconfirmed = self.commit_finally(FAREWELL).await;
        self.unlock_all(FAREWELL).await;
        self.remote.leave(FAREWELL).await;
        let report = ShutdownReport {
            handlers_cut_off,
            commits_unconfirmed,
        };
        if report == ShutdownReport::default() {
            info!(group = %self.group, "consumer shut down");
        } else {
            warn!(group = %self.group, ?report, "consumer shut down with unfinished work, it comes again");
        }
        report
    }

    pub(super) fn stats(&self) -> ConsumerStats {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = ConsumerStats {
            received: count(&self.counters.received),
            acknowledged: count(&self.counters.acknowledged),
            retried: count(&self.counters.retried),
            panicked: count(&self.counters.panicked),
            timed_out: count(&self.counters.timed_out),
            rejected: count(&self.counters.rejected),
            not_given_back: count(&self.counters.not_given_back),
            skipped: count(&self.counters.skipped),
            dropped: count(&self.counters.dropped),
            offset_writes_failed: count(&self.counters.offset_writes_failed),
            subscription_conflicts: count(&self.counters.subscription_conflicts),
            cached_bytes: self.budget.used(),
            refused: self.refusal.text(),
            ..ConsumerStats::default()
        };
        let assignment = lock(&self.assignment);
        for (queue, process) in assignment.iter() {
            stats.cached += process.map_or(0, |process| process.cached().0);
            stats.queues.push(queue.clone());
        }
        for (queue, waiting) in self.pop.iter().flat_map(Pop::waiting) {
            stats.cached += waiting;
            stats.queues.push(queue);
        }
        stats
    }
}

impl fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumer")
            .field("group", &self.group())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Running {
    fn end_hard(&self) {
        if self.engine.shut_down.initialized() || self.engine.is_abandoned() {
            return;
        }
        let (group, cached) = (&self.engine.group, self.engine.stats().cached);
        warn!(
            %group, cached,
            "a consumer was dropped without a shutdown: its last commits are not sent and what is unfinished comes again"
        );
        self.engine.end_hard();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_hard();
    }
}
