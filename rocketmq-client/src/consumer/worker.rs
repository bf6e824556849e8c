//! Workers: each takes one message at a time, calls the handler, and settles what it decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::coop::consume_budget;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, error, warn};

use super::engine::{Counters, Engine};
use super::handler::{Fault, Handler, attempt};
use super::outcome::{GiveBack, Outcome};
use super::process_queue::{Claim, ProcessQueue};
use crate::message::MessageView;
use crate::sync::lock;

impl Engine {
    /// Starts workers with these numbers.
    pub(super) fn spawn_workers<H: Handler>(self: &Arc<Self>, handler: &Arc<H>, numbers: Vec<usize>) {
        for number in numbers {
            let (engine, handler) = (Arc::clone(self), Arc::clone(handler));
            self.workers.spawn("consume", move |stop| async move {
                engine.work(&*handler, number, &stop).await;
            });
        }
    }

    /// Changes how many workers there are: starts those that are missing, lets those end that are too many.
    pub(super) fn resize(&self, wanted: usize, spawn: &(dyn Fn(Vec<usize>) + Send + Sync)) {
        let missing: Vec<usize> = {
            let mut alive = lock(&self.alive);
            self.concurrency.store(wanted, Ordering::Relaxed);
            // A worker that was to end and has not done so yet just goes on.
            (0..wanted).filter(|&number| alive.insert(number)).collect()
        };
        spawn(missing);
        self.ready.wake_all();
    }

    fn is_wanted(&self, number: usize) -> bool {
        number < self.concurrency.load(Ordering::Relaxed)
    }

    async fn work<H: Handler>(self: &Arc<Self>, handler: &H, number: usize, stop: &CancellationToken) {
        loop {
            let next = match self.is_wanted(number).then(|| self.ready.take()).flatten() {
                Some(next) => Some(next),
                None => {
                    let next = self.ready.next(|| self.is_wanted(number));
                    match stop.run_until_cancelled(next).await {
                        Some(next) => next,
                        None => return,
                    }
                }
            };
            if let Some((process, claim)) = next {
                self.consume(handler, process, claim).await;
                if stop.is_cancelled() {
                    return;
                }
                // A handler that never waits must not keep the pull loops from running.
                consume_budget().await;
                continue;
            }
            let mut alive = lock(&self.alive);
            // Under the lock, or it could be wanted again just now and counted as alive.
            if !self.is_wanted(number) {
                alive.remove(&number);
                return;
            }
        }
    }

    async fn consume<H: Handler>(&self, handler: &H, process: Arc<ProcessQueue>, claim: Claim) {
        let Claim {
            number,
            record,
            undelivered,
        } = claim;
        let message =
            MessageView::in_namespace(record, process.queue.clone(), self.remote.cluster().namespace());
        let give_back = match undelivered {
            Some(give_back) => Some(give_back),
            None => self.decide(handler, &message).await,
        };
        let Some(give_back) = give_back else {
            Counters::add(&self.counters.acknowledged, 1);
            process.finish(number);
            return;
        };
        if self.is_abandoned() {
            return;
        }
        if self.give_back(&message, give_back).await {
            process.finish(number);
            return;
        }
        Counters::add(&self.counters.not_given_back, 1);
        let mut record = message.record().clone();
        let undelivered = match give_back {
            // The handler has given the message up: only telling so is repeated.
            GiveBack::Dead => Some(give_back),
            // Another attempt is what was asked for, so it may as well be made here.
            GiveBack::Later(_) => {
                record.reconsume_times = record.reconsume_times.saturating_add(1);
                None
            }
        };
        let claim = Claim {
            number,
            record,
            undelivered,
        };
        self.requeue.add(process, claim);
    }

    /// Runs the handler; `None` is an acknowledgement.
    async fn decide<H: Handler>(&self, handler: &H, message: &MessageView) -> Option<GiveBack> {
        let span = debug_span!(
            "process",
            topic = message.topic(),
            queue = %message.queue(),
            offset = message.queue_offset(),
        );
        let tracer = self.remote.cluster().trace();
        let traced = tracer.and_then(|tracer| self.trace_before(tracer, message));
        let outcome = attempt(handler, message.clone(), self.options.consume_timeout)
            .instrument(span)
            .await;
        if let (Some(tracer), Some(traced)) = (tracer, traced) {
            self.trace_after(tracer, traced, &outcome);
        }
        let fault = match outcome {
            Ok(Outcome::Ack) => return None,
            Ok(Outcome::Retry(retry)) => {
                debug!(group = %self.group, ?message, ?retry, "the handler wants the message again");
                Counters::add(&self.counters.retried, 1);
                return Some(GiveBack::Later(retry.delay_level()));
            }
            Ok(Outcome::Reject(reason)) => {
                warn!(group = %self.group, ?message, %reason, "the handler rejected the message, it becomes a dead letter");
                Counters::add(&self.counters.rejected, 1);
                return Some(GiveBack::Dead);
            }
            Err(fault) => fault,
        };
        Counters::add(&self.counters.retried, 1);
        match &fault {
            Fault::Panicked(_) => {
                Counters::add(&self.counters.panicked, 1);
                error!(group = %self.group, ?message, %fault, "a delivery failed, the message comes again");
            }
            Fault::TimedOut(_) => {
                Counters::add(&self.counters.timed_out, 1);
                error!(group = %self.group, ?message, %fault, "a delivery failed, the message comes again");
            }
            Fault::Failed(_) | Fault::Unreadable(_) => {
                warn!(group = %self.group, ?message, %fault, "a delivery failed, the message comes again");
            }
        }
        Some(GiveBack::Later(0))
    }
}
