//! Workers that take several messages at a time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tracing::{Instrument, warn};

use super::linger::Linger;
use super::outcome::{BatchOutcome, IntoBatchOutcome};
use crate::consumer::engine::Engine;
use crate::consumer::handler::{Fault, guard};
use crate::consumer::outcome::{BoxError, GiveBack, Outcome};
use crate::consumer::process_queue::{Claim, Found, ProcessQueue};
use crate::consumer::ready::Ready;
use crate::consumer::worker::{Numbered, Work};
use crate::message::MessageView;
use crate::tasks::join_all;

/// How many messages of one batch are given back at a time.
const GIVEN_BACK_AT_A_TIME: usize = 16;

/// What layers are put around.
pub(in crate::consumer) type BatchService = BoxCloneSyncService<Vec<MessageView>, BatchOutcome, BoxError>;

/// One attempt to consume several messages, run to its end.
pub(in crate::consumer) trait BatchHandler: Send + Sync + 'static {
    fn handle(
        &self,
        messages: Vec<MessageView>,
    ) -> impl Future<Output = Result<BatchOutcome, BoxError>> + Send;
}

/// A function of the user's, called directly.
pub(super) struct BatchFunction<H>(pub(super) H);

impl<H, F> BatchHandler for BatchFunction<H>
where
    H: Fn(Vec<MessageView>) -> F + Send + Sync + 'static,
    F: Future<Output: IntoBatchOutcome> + Send,
{
    async fn handle(&self, messages: Vec<MessageView>) -> Result<BatchOutcome, BoxError> {
        (self.0)(messages).await.into_batch_outcome()
    }
}

/// A function with layers around it.
pub(super) struct LayeredBatch(pub(super) BatchService);

impl BatchHandler for LayeredBatch {
    async fn handle(&self, messages: Vec<MessageView>) -> Result<BatchOutcome, BoxError> {
        self.0.clone().oneshot(messages).await
    }
}

/// Batches of up to so many messages.
pub(super) struct Batches<H> {
    pub(super) handler: H,
    pub(super) size: usize,
    /// How long a batch may wait to be filled, if it may.
    pub(super) linger: Option<Arc<Linger>>,
}

impl<H: BatchHandler> Work for Batches<H> {
    type Taken = (Arc<ProcessQueue>, Vec<Claim>);

    fn take(&self, ready: &Ready) -> Option<Self::Taken> {
        let Some(linger) = &self.linger else {
            return ready.take_by(|queue| queue.take_batch(self.size));
        };
        ready.take_by(
            |queue| match queue.take_full_batch(self.size, linger.time, Instant::now()) {
                (Found::Batch(batch), more) => (Some(batch), more),
                (Found::LookAgain(due), more) => {
                    linger.look_again(Arc::clone(queue), due);
                    (None, more)
                }
                (Found::Nothing, more) => (None, more),
            },
        )
    }

    async fn consume(&self, engine: &Engine, (process, batch): Self::Taken) {
        let mut messages = Vec::with_capacity(batch.len());
        let mut decided = Vec::new();
        for claim in batch {
            if !engine.starts(&process, claim.number) {
                continue;
            }
            let message = (claim.number, engine.view(claim.record, &process));
            match claim.undelivered {
                Some(give_back) => decided.push((message, Some(give_back))),
                None => messages.push(message),
            }
        }
        let outcomes = self.deliver(engine, &process, &messages).await;
        let judged = messages.into_iter().zip(outcomes);
        decided.extend(judged.map(|(message, outcome)| {
            let decision = engine.judge(&message.1, outcome);
            (message, decision)
        }));
        settle(engine, &process, decided).await;
    }

    fn at_a_time(&self) -> usize {
        self.size
    }

    async fn deliver(
        &self,
        engine: &Engine,
        process: &ProcessQueue,
        messages: &[Numbered],
    ) -> Vec<Result<Outcome, Fault>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let handling = engine.begin_handling(process, messages.iter().map(|(_, message)| message));
        let tracer = engine.remote.cluster().trace();
        let mut traced = Vec::new();
        if let Some(tracer) = tracer {
            let trace = |(_, message): &Numbered| engine.remote.trace_before(tracer, message);
            traced.extend(messages.iter().map(trace));
        }
        let outcomes = self
            .attempt(messages, engine.options.consume_timeout)
            .instrument(handling.span())
            .await;
        handling.end_each(&outcomes);
        if let Some(tracer) = tracer {
            for (traced, outcome) in traced.into_iter().zip(&outcomes) {
                if let Some(traced) = traced {
                    engine.remote.trace_after(tracer, traced, outcome);
                }
            }
        }
        outcomes
    }

    async fn try_one(&self, message: MessageView, limit: Duration) -> Result<Outcome, Fault> {
        let mut outcomes = self.attempt(&[(0, message)], limit).await;
        let missing = || Err(Fault::Failed("the handler gave no outcome".into()));
        outcomes.pop().unwrap_or_else(missing)
    }
}

impl<H: BatchHandler> Batches<H> {
    /// The outcome of each message: the handler gets those that can be read.
    async fn attempt(&self, messages: &[Numbered], limit: Duration) -> Vec<Result<Outcome, Fault>> {
        let readable = |message: &&Numbered| message.1.body_error().is_none();
        let batch: Vec<_> = messages
            .iter()
            .filter(readable)
            .map(|(_, message)| message.clone())
            .collect();
        let handled = batch.len();
        let outcomes = if handled == 0 {
            Vec::new()
        } else {
            match guard(|| self.handler.handle(batch), limit).await {
                Ok(outcome) => {
                    if let BatchOutcome::Each(outcomes) = &outcome
                        && outcomes.len() != handled
                    {
                        warn!(
                            messages = handled,
                            outcomes = outcomes.len(),
                            "the handler of a batch gave not one outcome for each message"
                        );
                    }
                    outcome.of_each(handled)
                }
                Err(fault) => (0..handled).map(|_| Err(fault.again())).collect(),
            }
        };
        let mut outcomes = outcomes.into_iter();
        let of = |(_, message): &Numbered| match message.body_error() {
            Some(error) => Err(Fault::Unreadable(error.to_string())),
            // There is one for each that can be read.
            None => outcomes
                .next()
                .unwrap_or_else(|| Err(Fault::Failed("the handler gave no outcome".into()))),
        };
        messages.iter().map(of).collect()
    }
}

/// Acknowledges at once, then gives back.
async fn settle(engine: &Engine, process: &Arc<ProcessQueue>, decided: Vec<(Numbered, Option<GiveBack>)>) {
    let mut given_back = Vec::new();
    for ((number, message), decision) in decided {
        match decision {
            None => engine.settle(process, number, &message, None).await,
            Some(_) => given_back.push((number, message, decision)),
        }
    }
    for some in given_back.chunks(GIVEN_BACK_AT_A_TIME) {
        let some = some.iter();
        join_all(some.map(|(number, message, decision)| engine.settle(process, *number, message, *decision)))
            .await;
    }
}
