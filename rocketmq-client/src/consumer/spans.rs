//! One pull, one call of a handler, one return of a message: its span, and what is measured of it.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::engine::Engine;
use super::handler::Fault;
use super::outcome::{GiveBack, Outcome};
use super::process_queue::ProcessQueue;
use super::stats::{Call, QueueWatch};
use crate::error::Result;
use crate::message::{MessageView, TraceContext};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::PullResult;
use crate::telemetry::{self, Source};

/// Links the span of a handler with the span that its message was sent in.
///
/// It is asked for each message with a [trace](MessageView::trace_parent), before its handler runs, if the span is
/// recorded. Every `Fn(&tracing::Span, &TraceContext)` is one: with `tracing-opentelemetry` it adds a link with the ids of
/// the context to the span, or makes it the span's parent.
pub trait SpanLinker: Send + Sync + 'static {
    /// `span` is about to handle a message that was sent in the span that `producer` names.
    fn link(&self, span: &Span, producer: &TraceContext);
}

impl<F> SpanLinker for F
where
    F: Fn(&Span, &TraceContext) + Send + Sync + 'static,
{
    fn link(&self, span: &Span, producer: &TraceContext) {
        self(span, producer);
    }
}

/// The linker of one consumer, if it has one.
#[derive(Clone, Default)]
pub(super) struct Link(Option<Arc<dyn SpanLinker>>);

impl Link {
    pub(super) fn by(linker: impl SpanLinker) -> Self {
        Self(Some(Arc::new(linker)))
    }

    fn link<'m>(&self, span: &Span, messages: impl Iterator<Item = &'m MessageView>) {
        let mut contexts = messages.filter_map(MessageView::trace_parent);
        let Some(first) = contexts.next() else { return };
        telemetry::sent_in(span, &first);
        if let Some(linker) = &self.0 {
            linker.link(span, &first);
            contexts.for_each(|context| linker.link(span, &context));
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.is_some()).finish()
    }
}

/// A pull that has begun.
#[derive(Debug)]
pub(super) struct Pulling {
    span: Span,
    began: Instant,
}

/// A call of a handler that has begun.
#[derive(Debug)]
pub(super) struct Handling<'a> {
    watch: Option<&'a QueueWatch>,
    span: Span,
    messages: u64,
    delivery_millis: u64,
    began: Instant,
}

impl Engine {
    /// Messages of a queue are about to be asked for.
    pub(super) fn begin_pulling(&self, queue: &MessageQueue, offset: i64) -> Pulling {
        Pulling {
            span: telemetry::receive_span(self.source(queue), offset),
            began: Instant::now(),
        }
    }

    /// A handler is about to be called with messages of one queue: one, or a batch.
    pub(super) fn begin_handling<'a, 'm>(
        &self,
        process: &'a ProcessQueue,
        messages: impl ExactSizeIterator<Item = &'m MessageView> + Clone,
    ) -> Handling<'a> {
        let count = messages.len();
        let span = telemetry::process_span(self.source(&process.queue), messages.clone());
        if !span.is_disabled() {
            self.options.link.link(&span, messages.clone());
        }
        let began = Instant::now();
        let now = self.meters.wall_millis(began);
        let on_their_way = messages.map(|message| {
            // Clocks differ, and there may be no time at all.
            u64::try_from(now.saturating_sub(message.store_timestamp())).unwrap_or(0)
        });
        let delivery_millis = on_their_way.fold(0, u64::saturating_add);
        let watch = process.watch();
        if let Some(watch) = watch {
            watch.meter.telemetry.delivered(delivery_millis, count);
        }
        Handling {
            watch,
            span,
            messages: count as u64,
            delivery_millis,
            began,
        }
    }

    /// Gives a message back within a span, and measures how long that took.
    pub(super) async fn give_back_watched(
        &self,
        process: &ProcessQueue,
        message: &MessageView,
        give_back: GiveBack,
    ) -> bool {
        let span = telemetry::settle_span(self.source(&process.queue), message, give_back.delay_level());
        let began = Instant::now();
        let given = self.give_back(message, give_back).instrument(span.clone()).await;
        if !given {
            telemetry::failed_because(&span, telemetry::NOT_GIVEN_BACK);
        }
        if let Some(watch) = process.watch() {
            watch.meter.telemetry.settled(began.elapsed(), given);
        }
        given
    }

    /// Where messages of a queue come from, for telemetry.
    pub(super) fn source<'a>(&'a self, queue: &'a MessageQueue) -> Source<'a> {
        Source {
            group: &self.group,
            client_id: self.remote.client_id(),
            topic: &queue.topic,
            broker_name: &queue.broker_name,
            queue_id: queue.queue_id,
        }
    }
}

impl Pulling {
    /// What the pull is to run in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The broker has answered, or not.
    pub(super) fn answered(&self, process: &ProcessQueue, result: &Result<PullResult>) {
        let watch = process.watch();
        match result {
            Ok(result) => {
                if let Some(watch) = watch {
                    watch.answered(result.header.max_offset);
                    watch.tell_lag(process.commit_offset());
                }
            }
            Err(error) => {
                telemetry::received(&self.span, Err(error));
                if let Some(watch) = watch {
                    watch.not_received(self.began, error);
                }
            }
        }
    }

    /// The answer brought messages.
    pub(super) fn brought(&self, process: &ProcessQueue, messages: usize) {
        telemetry::received(&self.span, Ok(messages));
        if let Some(watch) = process.watch() {
            watch.received(self.began, messages);
        }
    }
}

impl Handling<'_> {
    /// What the handler is to run in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The handler has ended, with one outcome for all its messages.
    pub(super) fn end(self, outcome: &Result<Outcome, Fault>) {
        let reason = reason(outcome);
        let acknowledged = if reason.is_none() { self.messages } else { 0 };
        self.end_with(acknowledged, reason);
    }

    /// The handler has ended, with an outcome for each message.
    pub(super) fn end_each(self, outcomes: &[Result<Outcome, Fault>]) {
        let failed = outcomes.iter().filter_map(reason);
        let acknowledged = outcomes.len().saturating_sub(failed.clone().count());
        let first = failed.clone().next();
        self.end_with(acknowledged as u64, first);
    }

    /// The handler has ended: it acknowledged so many of the messages, and not the others for this reason.
    pub(super) fn end_with(self, acknowledged: u64, reason: Option<&'static str>) {
        let failed = self.messages.saturating_sub(acknowledged);
        let ended = Instant::now();
        let took = ended.saturating_duration_since(self.began);
        if failed > 0
            && let Some(reason) = reason
        {
            telemetry::failed_because(&self.span, reason);
        }
        let Some(watch) = self.watch else { return };
        watch.called(
            ended,
            Call {
                acknowledged,
                failed,
                took,
                delivery_millis: self.delivery_millis,
            },
        );
        let telemetry = &watch.meter.telemetry;
        if acknowledged > 0 {
            telemetry.processed(acknowledged, took);
        }
        if failed > 0 {
            telemetry.not_processed(failed, took, reason.unwrap_or("retry"));
        }
    }
}

/// Why messages were not acknowledged, as telemetry names it.
pub(super) fn reason(outcome: &Result<Outcome, Fault>) -> Option<&'static str> {
    Some(match outcome {
        Ok(Outcome::Ack) => return None,
        Ok(Outcome::Retry(_)) => "retry",
        Ok(Outcome::Reject(_)) => "rejected",
        Err(Fault::Failed(_)) => "failed",
        Err(Fault::Panicked(_)) => "panicked",
        Err(Fault::TimedOut(_)) => "timed_out",
        Err(Fault::Unreadable(_)) => "unreadable",
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::consumer::outcome::Retry;

    #[test]
    fn each_way_not_to_be_acknowledged_has_a_name() {
        for (outcome, expected) in [
            (Ok(Outcome::Ack), None),
            (Ok(Outcome::Retry(Retry::Broker)), Some("retry")),
            (Ok(Outcome::Reject("no".into())), Some("rejected")),
            (Err(Fault::Failed("no".into())), Some("failed")),
            (Err(Fault::Panicked("no".into())), Some("panicked")),
            (Err(Fault::TimedOut(Duration::ZERO)), Some("timed_out")),
            (Err(Fault::Unreadable("no".into())), Some("unreadable")),
        ] {
            assert_eq!(reason(&outcome), expected);
        }
    }
}
