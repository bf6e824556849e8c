//! The context of a trace, as messages carry it: W3C Trace Context, in the properties `traceparent` and `tracestate`.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The property that names the trace and the span a message was sent in.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The property in which tracing systems keep what is their own.
pub(crate) const TRACESTATE: &str = "tracestate";

/// The longest `tracestate` that is passed on, in bytes: what the recommendation asks for at least.
const MAX_STATE: usize = 512;

/// The trace that something belongs to, and the span in it.
///
/// ```
/// use rocketmq_client::TraceContext;
///
/// let parent: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
/// assert_eq!(parent.trace_id(), 0x4bf92f3577b34da6a3ce929d0e0e4736);
/// assert!(parent.is_sampled());
/// let child = parent.child();
/// assert_eq!(child.trace_id(), parent.trace_id());
/// assert_ne!(child.span_id(), parent.span_id());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<String>,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTraceParent;

impl fmt::Display for InvalidTraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a traceparent: it has to be version, trace id, span id and flags in lower-case hex digits",
        )
    }
}

impl std::error::Error for InvalidTraceParent {}

impl TraceContext {
    /// The context of a span. `None` if one of the ids is 0, which names nothing.
    #[must_use]
    pub fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then(|| Self {
            trace_id,
            span_id,
            flags: u8::from(sampled),
            state: None,
        })
    }

    /// The first span of a new trace, with random ids.
    #[must_use]
    pub fn root(sampled: bool) -> Self {
        Self {
            trace_id: Uuid::new_v4().as_u128(),
            span_id: random_span_id(),
            flags: u8::from(sampled),
            state: None,
        }
    }

    /// Another span of the same trace, with a random id.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: random_span_id(),
            ..self.clone()
        }
    }

    /// With what tracing systems keep of their own. What is longer than 512 bytes, or is no visible ASCII, is left out.
    #[must_use]
    pub fn with_state(mut self, state: &str) -> Self {
        let legal = state.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        self.state = (legal && !state.is_empty() && state.len() <= MAX_STATE).then(|| state.to_owned());
        self
    }

    /// Which trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// Which span.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether the trace is recorded by whoever began it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }

    /// What tracing systems keep of their own: the property `tracestate`.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// What the properties of a message say.
    pub(crate) fn of_properties<'a>(property: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let context: Self = property(TRACEPARENT)?.parse().ok()?;
        Some(match property(TRACESTATE) {
            Some(state) => context.with_state(state),
            None => context,
        })
    }
}

/// The property `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        )
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            part.bytes().all(hex).then_some(part)
        };
        let read = || -> Option<Self> {
            let version = part(2)?;
            let trace_id = u128::from_str_radix(part(32)?, 16).ok()?;
            let span_id = u64::from_str_radix(part(16)?, 16).ok()?;
            let flags = u8::from_str_radix(part(2)?, 16).ok()?;
            // A later version may have more parts, the first one has none.
            let known = version != "ff" && (version != "00" || text.len() == 55);
            let context = Self::new(trace_id, span_id, false)?;
            known.then_some(Self { flags, ..context })
        };
        let mut read = read;
        read().ok_or(InvalidTraceParent)
    }
}

fn random_span_id() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Each half has a few fixed bits where the other one has none; 0 names nothing.
    (high ^ low).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_what_is_no_traceparent_is_not() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().unwrap();
        assert_eq!(context.to_string(), text);
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
        let root = TraceContext::root(false);
        assert!(!root.is_sampled());
        assert_eq!(root.to_string().parse::<TraceContext>().unwrap(), root);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes-later";
        assert!(!later.parse::<TraceContext>().unwrap().is_sampled());
        for wrong in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(wrong.parse::<TraceContext>(), Err(InvalidTraceParent), "{wrong}");
        }
    }

    #[test]
    fn a_state_that_cannot_travel_is_left_out() {
        let context = TraceContext::new(1, 2, true).unwrap();
        assert_eq!(context.clone().with_state("vendor=1").state(), Some("vendor=1"));
        for wrong in ["", "a\u{1}b", "ä", &"x".repeat(513)] {
            assert_eq!(context.clone().with_state(wrong).state(), None, "{wrong}");
        }
        assert_eq!(TraceContext::new(0, 2, true), None);
        let property = |name: &str| match name {
            TRACEPARENT => Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            _ => Some("vendor=1"),
        };
        let read = TraceContext::of_properties(property).unwrap();
        assert_eq!((read.is_sampled(), read.state()), (true, Some("vendor=1")));
        assert_eq!(TraceContext::of_properties(|_| None), None);
    }
}
