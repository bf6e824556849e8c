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

impl Engine {
    /// Starts the workers that are missing for the present concurrency.
    pub(super) fn spawn_workers<H: Handler>(
        self: &Arc<Self>,
        handler: &Arc<H>,
        numbers: std::ops::Range<usize>,
    ) {
        for number in numbers {
            let (engine, handler) = (Arc::clone(self), Arc::clone(handler));
            self.workers.spawn("consume", move |stop| async move {
                engine.work(&*handler, number, &stop).await;
            });
        }
    }

    async fn work<H: Handler>(self: &Arc<Self>, handler: &H, number: usize, stop: &CancellationToken) {
        while number < self.concurrency.load(Ordering::Relaxed) {
            let next = match self.ready.take() {
                Some(next) => next,
                None => match stop.run_until_cancelled(self.ready.next()).await {
                    Some(next) => next,
                    None => return,
                },
            };
            self.consume(handler, next.0, next.1).await;
            // A handler that never waits must not keep the pull loops from running.
            consume_budget().await;
        }
    }

    async fn consume<H: Handler>(&self, handler: &H, process: Arc<ProcessQueue>, claim: Claim) {
        let Claim {
            number,
            record,
            undelivered,
        } = claim;
        let message = MessageView::new(record, process.queue.clone());
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
        let outcome = attempt(handler, message.clone(), self.options.consume_timeout)
            .instrument(span)
            .await;
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
