//! Workers: each takes some work out of the line, calls the handler, and settles what it decided.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, warn};

use super::engine::{Counters, Engine};
use super::handler::{Fault, Handler, attempt};
use super::outcome::{GiveBack, Outcome};
use super::process_queue::{Claim, ProcessQueue};
use super::ready::Ready;
use crate::message::MessageView;
use crate::protocol::Record;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// What workers take out of the line, and what they do with it.
pub(super) trait Work: Send + Sync + 'static {
    /// What one worker has in hand.
    type Taken: Send;

    fn take(&self, ready: &Ready) -> Option<Self::Taken>;

    /// Runs to its end; a worker that is to stop waits for it.
    fn consume(&self, engine: &Engine, taken: Self::Taken) -> impl Future<Output = ()> + Send;

    /// How many messages of a queue the handler takes at a time, where order is kept.
    fn at_a_time(&self) -> usize;

    /// Runs the handler on messages of one queue and topic. Returns an outcome for each.
    fn deliver(
        &self,
        engine: &Engine,
        process: &ProcessQueue,
        messages: &[Numbered],
    ) -> impl Future<Output = Vec<Result<Outcome, Fault>>> + Send;

    /// What the handler makes of one message that an operator wants consumed, outside of the line.
    fn try_one(
        &self,
        message: MessageView,
        limit: Duration,
    ) -> impl Future<Output = Result<Outcome, Fault>> + Send;
}

/// A message, and the number by which it comes back.
pub(super) type Numbered = (u64, MessageView);

/// One message at a time.
pub(super) struct Singly<H>(pub(super) H);

impl<H: Handler> Work for Singly<H> {
    type Taken = (Arc<ProcessQueue>, Claim);

    fn take(&self, ready: &Ready) -> Option<Self::Taken> {
        ready.take()
    }

    async fn consume(&self, engine: &Engine, (process, claim): Self::Taken) {
        engine.consume(&self.0, process, claim).await;
    }

    fn at_a_time(&self) -> usize {
        1
    }

    async fn deliver(
        &self,
        engine: &Engine,
        process: &ProcessQueue,
        messages: &[Numbered],
    ) -> Vec<Result<Outcome, Fault>> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for (_, message) in messages {
            outcomes.push(engine.deliver(&self.0, process, message).await);
        }
        outcomes
    }

    async fn try_one(&self, message: MessageView, limit: Duration) -> Result<Outcome, Fault> {
        attempt(&self.0, message, limit).await
    }
}

impl Engine {
    /// Starts workers with these numbers.
    pub(super) fn spawn_workers<W: Work>(self: &Arc<Self>, work: &Arc<W>, numbers: Vec<usize>) {
        for number in numbers {
            let (engine, work) = (Arc::clone(self), Arc::clone(work));
            self.workers.spawn("consume", move |stop| async move {
                match &engine.order {
                    None => engine.work(&*work, number, &stop).await,
                    Some(order) => engine.work_in_order(order, &*work, number, &stop).await,
                }
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
        if let Some(order) = &self.order {
            order.wake_all();
        }
    }

    pub(super) fn is_wanted(&self, number: usize) -> bool {
        number < self.concurrency.load(Ordering::Relaxed)
    }

    /// Whether the worker of this number, which found nothing to do, ends for good.
    pub(super) fn retires(&self, number: usize) -> bool {
        let mut alive = lock(&self.alive);
        // Under the lock, or it could be wanted again just now and counted as alive.
        let retires = !self.is_wanted(number);
        if retires {
            alive.remove(&number);
        }
        retires
    }

    async fn work<W: Work>(self: &Arc<Self>, work: &W, number: usize, stop: &CancellationToken) {
        loop {
            let next = match self.is_wanted(number).then(|| work.take(&self.ready)).flatten() {
                Some(next) => Some(next),
                None => {
                    let take = |ready: &Ready| work.take(ready);
                    let next = self.ready.next(take, || self.is_wanted(number));
                    match stop.run_until_cancelled(next).await {
                        Some(next) => next,
                        None => return,
                    }
                }
            };
            if let Some(taken) = next {
                work.consume(self, taken).await;
                if stop.is_cancelled() {
                    return;
                }
                // A handler that never waits must not keep the pull loops from running.
                consume_budget().await;
                continue;
            }
            if self.retires(number) {
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
        if !self.starts(&process, number) {
            return;
        }
        let message = self.view(record, &process);
        let decision = match undelivered {
            Some(give_back) => Some(give_back),
            None => {
                let outcome = self.deliver(handler, &process, &message).await;
                self.judge(&message, outcome)
            }
        };
        self.settle(&process, number, &message, decision).await;
    }

    /// A received message as the user sees it.
    pub(super) fn view(&self, record: Record, process: &ProcessQueue) -> MessageView {
        // What is popped comes from any queue of its broker.
        let queue = match process.popping() {
            None => process.queue.clone(),
            Some(_) => MessageQueue {
                queue_id: record.queue_id,
                ..process.queue.clone()
            },
        };
        MessageView::in_namespace(record, queue, self.remote.cluster().namespace())
    }

    /// Carries out what was decided about a message; `None` is an acknowledgement.
    pub(super) async fn settle(
        &self,
        process: &Arc<ProcessQueue>,
        number: u64,
        message: &MessageView,
        decision: Option<GiveBack>,
    ) {
        if let Some(popping) = process.popping() {
            let settle = self.settle_popped(process, popping, number, message, decision);
            return settle.await;
        }
        let Some(give_back) = decision else {
            Counters::add(&self.counters.acknowledged, 1);
            process.finish(number);
            return;
        };
        if self.is_abandoned() {
            return;
        }
        if self.give_back_watched(process, message, give_back).await {
            process.finish(number);
            return;
        }
        if self.local.is_none() {
            Counters::add(&self.counters.not_given_back, 1);
        }
        let mut record = message.record().clone();
        let undelivered = match give_back {
            // The handler has given the message up: only telling so is repeated.
            GiveBack::Dead => Some(give_back),
            // Another attempt is what was asked for, so it may as well be made here.
            GiveBack::Later(_) | GiveBack::Timed(_) => {
                record.reconsume_times = record.reconsume_times.saturating_add(1);
                None
            }
        };
        let claim = Claim {
            number,
            record,
            undelivered,
        };
        self.requeue.add(Arc::clone(process), claim);
    }

    /// Runs the handler.
    async fn deliver<H: Handler>(
        &self,
        handler: &H,
        process: &ProcessQueue,
        message: &MessageView,
    ) -> Result<Outcome, Fault> {
        let handling = self.begin_handling(process, std::iter::once(message));
        let tracer = self.remote.cluster().trace();
        let traced = tracer.and_then(|tracer| self.remote.trace_before(tracer, message));
        let outcome = attempt(handler, message.clone(), self.options.consume_timeout)
            .instrument(handling.span())
            .await;
        handling.end(&outcome);
        if let (Some(tracer), Some(traced)) = (tracer, traced) {
            self.remote.trace_after(tracer, traced, &outcome);
        }
        outcome
    }

    /// What becomes of a message after this outcome; `None` is an acknowledgement. Counts and logs it.
    pub(super) fn judge(&self, message: &MessageView, outcome: Result<Outcome, Fault>) -> Option<GiveBack> {
        let fault = match outcome {
            Ok(Outcome::Ack) => return None,
            Ok(Outcome::Retry(retry)) => {
                debug!(group = %self.group, ?message, ?retry, "the handler wants the message again");
                Counters::add(&self.counters.retried, 1);
                return Some(GiveBack::from(retry));
            }
            Ok(Outcome::Reject(reason)) => {
                warn!(group = %self.group, ?message, %reason, "the handler rejected the message, it becomes a dead letter");
                Counters::add(&self.counters.rejected, 1);
                return Some(GiveBack::Dead);
            }
            Err(fault) => fault,
        };
        self.count_fault(message, &fault);
        Some(GiveBack::from(self.options.retry.after(message.attempt())))
    }

    /// A delivery failed without a decision.
    pub(super) fn count_fault(&self, message: &MessageView, fault: &Fault) {
        Counters::add(&self.counters.retried, 1);
        match fault {
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
    }
}
