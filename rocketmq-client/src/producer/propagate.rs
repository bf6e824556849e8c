//! The context of a trace, put into messages as they are sent.

use std::fmt;
use std::sync::Arc;

use crate::message::{Message, TRACEPARENT, TRACESTATE, TraceContext};

/// Says which span a message is sent in, so that who consumes it can go on with the trace.
///
/// It is asked for each message, in the span of its send (see [`telemetry`](crate::telemetry)) if that is recorded.
/// Every `Fn() -> Option<TraceContext>` is one: with OpenTelemetry it reads the current span context and makes a
/// [`TraceContext`] of its ids. [`NewTraces`] needs no tracing system.
pub trait Propagator: Send + Sync + 'static {
    /// The context of the current span; `None` if there is none.
    fn current(&self) -> Option<TraceContext>;
}

impl<F> Propagator for F
where
    F: Fn() -> Option<TraceContext> + Send + Sync + 'static,
{
    fn current(&self) -> Option<TraceContext> {
        self()
    }
}

/// Begins a trace of its own for each message that has none yet, for systems where the first to trace is the consumer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NewTraces {
    /// Whether the traces say that they are recorded.
    pub sampled: bool,
}

impl NewTraces {
    /// With traces that say whether they are recorded.
    #[must_use]
    pub fn new(sampled: bool) -> Self {
        Self { sampled }
    }
}

impl Propagator for NewTraces {
    fn current(&self) -> Option<TraceContext> {
        Some(TraceContext::root(self.sampled))
    }
}

/// The propagator of one producer, if it has one.
#[derive(Clone, Default)]
pub(super) struct Propagate(Option<Arc<dyn Propagator>>);

impl Propagate {
    pub(super) fn by(propagator: impl Propagator) -> Self {
        Self(Some(Arc::new(propagator)))
    }

    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Puts the current context into a message that has none.
    pub(super) fn inject(&self, message: Message) -> Message {
        let Some(propagator) = &self.0 else {
            return message;
        };
        if message.get(TRACEPARENT).is_some() {
            return message;
        }
        let Some(context) = propagator.current() else {
            return message;
        };
        let message = message.set(TRACEPARENT, &context.to_string());
        match context.state() {
            Some(state) => message.set(TRACESTATE, state),
            None => message,
        }
    }
}

impl fmt::Debug for Propagate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Propagate").field(&self.0.is_some()).finish()
    }
}
