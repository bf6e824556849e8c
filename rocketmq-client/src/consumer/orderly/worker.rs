//! Workers of a consumer that keeps an order: each takes a lane at a time and goes through its messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{InOrder, Order, Place};
use crate::consumer::engine::{Counters, Engine};
use crate::consumer::handler::Fault;
use crate::consumer::outcome::{GiveBack, Outcome};
use crate::consumer::process_queue::{Claim, ProcessQueue};
use crate::consumer::worker::{Numbered, Work};
use crate::message::MessageView;

/// After so many messages, or so much time, a lane goes to the end of the line.
const TURN: (usize, Duration) = (32, Duration::from_millis(20));

/// What became of a message.
enum Settled {
    Done,
    /// It is tried again after a pause.
    Again(Duration),
    /// What the broker has to be told is told again after a pause.
    Undelivered(GiveBack, Duration),
    /// It comes again with one before it.
    Behind,
}

impl Engine {
    pub(in crate::consumer) async fn work_in_order<W: Work>(
        self: &Arc<Self>,
        order: &Order,
        work: &W,
        number: usize,
        stop: &CancellationToken,
    ) {
        loop {
            let next = order.line.next(|| self.is_wanted(number));
            let Some(next) = stop.run_until_cancelled(next).await else {
                return;
            };
            match next {
                Some(place) => {
                    self.take_turn(order, work, place, stop).await;
                    if stop.is_cancelled() {
                        return;
                    }
                    // A handler that never waits must not keep the pull loops from running.
                    consume_budget().await;
                }
                None => {
                    if self.retires(number) {
                        return;
                    }
                }
            }
        }
    }

    async fn take_turn<W: Work>(&self, order: &Order, work: &W, place: Place, stop: &CancellationToken) {
        let mut turn = Turn::begin(order, place);
        let started = Instant::now();
        let mut handled = 0;
        while let Some((process, claims)) = turn.next(work.at_a_time()) {
            let Some(InOrder { queue, epoch }) = process.in_order() else {
                return;
            };
            handled += claims.len();
            // The handler first: it may have ended when the loss is noticed.
            let settled = tokio::select! {
                biased;
                settled = self.settle_in_order(work, &process, &claims) => settled,
                () = queue.lost(*epoch) => {
                    warn!(
                        group = %self.group, queue = %process.queue,
                        "the lock of the queue is lost, the handler is cut off and its messages come again"
                    );
                    return turn.keep(&process, claims);
                }
            };
            let (mut again, mut pause) = (Vec::new(), Duration::ZERO);
            for (claim, settled) in claims.into_iter().zip(settled) {
                match settled {
                    Settled::Done => process.finish(claim.number),
                    Settled::Behind => again.push(claim),
                    Settled::Again(wanted) => {
                        pause = wanted;
                        again.push(claim.once_more());
                    }
                    Settled::Undelivered(give_back, wanted) => {
                        pause = wanted;
                        let undelivered = Some(give_back);
                        again.push(Claim { undelivered, ..claim });
                    }
                }
            }
            if !again.is_empty() {
                return turn.suspend(&process, again, pause);
            }
            if stop.is_cancelled() || handled >= TURN.0 || started.elapsed() > TURN.1 {
                return;
            }
            consume_budget().await;
        }
    }

    /// What becomes of messages that follow each other. The first that fails holds up those behind it that failed, too:
    /// it alone has used up an attempt.
    async fn settle_in_order<W: Work>(
        &self,
        work: &W,
        process: &ProcessQueue,
        claims: &[Claim],
    ) -> Vec<Settled> {
        let message = |claim: &Claim| (claim.number, self.view(claim.record.clone(), process));
        let messages: Vec<Numbered> = claims.iter().map(message).collect();
        let mut settled = Vec::with_capacity(claims.len());
        if let [(_, message)] = &messages[..]
            && let Some(give_back) = claims.first().and_then(|claim| claim.undelivered)
        {
            settled.push(self.give_back_in_order(process, message, give_back).await);
            return settled;
        }
        let outcomes = work.deliver(self, process, &messages).await;
        let mut held_up = false;
        for ((_, message), outcome) in messages.iter().zip(outcomes) {
            // Also one that is out of the way now: how many of those behind it were tried, nobody has said.
            let failed = !matches!(outcome, Ok(Outcome::Ack | Outcome::Reject(_)));
            let one = match self.judge_in_order(message, outcome, held_up) {
                Ok(settled) => settled,
                Err(give_back) => self.give_back_in_order(process, message, give_back).await,
            };
            held_up |= failed || !matches!(one, Settled::Done);
            settled.push(one);
        }
        settled
    }

    /// What an outcome means. An error is what the broker has to be told.
    fn judge_in_order(
        &self,
        message: &MessageView,
        outcome: Result<Outcome, Fault>,
        held_up: bool,
    ) -> Result<Settled, GiveBack> {
        let retry = match outcome {
            Ok(Outcome::Ack) => {
                Counters::add(&self.counters.acknowledged, 1);
                return Ok(Settled::Done);
            }
            _ if held_up => return Ok(Settled::Behind),
            Ok(Outcome::Reject(reason)) => {
                warn!(group = %self.group, ?message, %reason, "the handler rejected the message, it becomes a dead letter");
                Counters::add(&self.counters.rejected, 1);
                return Err(GiveBack::Dead);
            }
            Ok(Outcome::Retry(retry)) => {
                debug!(group = %self.group, ?message, ?retry, "the handler wants the message again");
                Counters::add(&self.counters.retried, 1);
                retry
            }
            Err(fault) => {
                self.count_fault(message, &fault);
                self.options.retry.after(message.attempt())
            }
        };
        let (options, times) = (&self.options.order, message.reconsume_times());
        if times < options.times() {
            return Ok(Settled::Again(options.pause(retry)));
        }
        let poison = options.poison;
        error!(group = %self.group, ?message, times, ?poison, "the message failed as often as it may");
        match poison.give_back() {
            Some(give_back) => Err(give_back),
            None => {
                Counters::add(&self.counters.skipped, 1);
                Ok(Settled::Done)
            }
        }
    }

    async fn give_back_in_order(
        &self,
        process: &ProcessQueue,
        message: &MessageView,
        give_back: GiveBack,
    ) -> Settled {
        let pause = self.options.requeue_delay;
        // A consumer that was dropped gives nothing back any more.
        if self.is_abandoned() {
            return Settled::Undelivered(give_back, pause);
        }
        if self.give_back_watched(process, message, give_back).await {
            return Settled::Done;
        }
        // What comes after it waits: neither is it lost, nor is the order.
        Counters::add(&self.counters.not_given_back, 1);
        Settled::Undelivered(give_back, pause)
    }
}

impl Claim {
    /// The same message, once more.
    fn once_more(mut self) -> Self {
        self.record.reconsume_times = self.record.reconsume_times.saturating_add(1);
        self
    }
}

/// A lane in the hands of a worker. Dropping it lets the lane go.
struct Turn<'a> {
    order: &'a Order,
    /// Absent once the lane is out of the worker's hands.
    place: Option<Place>,
}

impl<'a> Turn<'a> {
    fn begin(order: &'a Order, place: Place) -> Self {
        place.queue.begin(place.lane);
        Self {
            order,
            place: Some(place),
        }
    }

    fn next(&mut self, at_a_time: usize) -> Option<(Arc<ProcessQueue>, Vec<Claim>)> {
        let place = self.place.as_ref()?;
        let next = place.queue.next(place.lane, at_a_time);
        if next.is_none() {
            self.place = None;
        }
        next
    }

    fn suspend(mut self, process: &Arc<ProcessQueue>, claims: Vec<Claim>, pause: Duration) {
        if let Some(place) = self.place.take() {
            place.queue.suspend(place.lane, process, claims);
            self.order.suspended.add(Instant::now() + pause, place);
        }
    }

    fn keep(self, process: &Arc<ProcessQueue>, claims: Vec<Claim>) {
        if let Some(place) = &self.place {
            place.queue.keep(place.lane, process, claims);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take()
            && place.queue.end(place.lane)
        {
            self.order.line.push([place]);
        }
    }
}
