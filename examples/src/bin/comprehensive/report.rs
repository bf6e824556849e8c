//! What the user sees.

use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

/// Lines per second that a human can follow; the others are counted.
const LINES_PER_SECOND: u32 = 30;

/// What is logged unless `RUST_LOG` says otherwise: what is bound and what fails. What the client repairs by
/// itself is not.
const QUIET: &str = "warn,stream_binder=info,rocketmq_client=error";

/// Logs go to standard error, so that standard output holds what flows and the summary.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(QUIET));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(io::stderr)
        .init();
}

/// Prints an error with all its causes.
pub(crate) fn error(error: &dyn Error) {
    let mut text = format!("comprehensive: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    eprintln!("{text}");
}

/// Standard output, shared by the functions. A closed pipe is no reason to fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console(Arc<Mutex<Pace>>);

#[derive(Debug, Default)]
struct Pace {
    second: Option<Instant>,
    printed: u32,
    left_out: u64,
}

impl Console {
    /// A record at one of its stations; left out, and counted, where there are too many.
    pub(crate) fn flow(&self, station: &str, what: impl fmt::Display) {
        let Some(left_out) = self.0.lock().unwrap_or_else(PoisonError::into_inner).admit() else {
            return;
        };
        let mut out = io::stdout().lock();
        if left_out > 0 {
            let _ = writeln!(out, "  .. and {left_out} more");
        }
        let _ = writeln!(out, "{station} {what}");
    }

    /// Something about the run as a whole.
    pub(crate) fn note(&self, what: impl fmt::Display) {
        let _ = writeln!(io::stderr().lock(), "comprehensive: {what}");
    }

    /// The last line.
    pub(crate) fn summary(&self, summary: &Summary, json: bool) {
        let mut out = io::stdout().lock();
        let _ = if json {
            let line = serde_json::to_string(summary).unwrap_or_default();
            writeln!(out, "{line}")
        } else {
            writeln!(out, "{summary}")
        };
    }
}

impl Pace {
    /// Whether a line may be printed now, and how many were left out before it.
    fn admit(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self
            .second
            .is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1))
        {
            self.second = Some(now);
            self.printed = 0;
        }
        if self.printed >= LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.printed += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// What a run came to. Latencies are from the supplier to the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) failed: u64,
    pub(crate) mean_us: u64,
    pub(crate) p99_us: u64,
}

impl Summary {
    /// Whether everything that was sent was received, and nothing failed on the way or before it.
    pub(crate) fn is_complete(&self) -> bool {
        self.received == self.sent && self.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            received,
            failed,
            mean_us,
            p99_us,
        } = self;
        let lost = sent.saturating_sub(received + failed);
        write!(f, "sent {sent}, received {received}, failed {failed}")?;
        if lost > 0 {
            write!(f, ", still on their way {lost}")?;
        }
        write!(f, "; end to end mean {mean_us} us, p99 {p99_us} us")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_lines_is_thinned_out_and_counted() {
        let mut pace = Pace::default();
        let shown = (0..100).filter_map(|_| pace.admit()).count();
        assert_eq!(shown, 30);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pace.admit(), Some(70));
        assert_eq!(pace.admit(), Some(0));
    }

    #[test]
    fn the_summary_in_json_has_its_five_fields() {
        let summary = Summary {
            sent: 3,
            received: 2,
            failed: 1,
            mean_us: 40,
            p99_us: 50,
        };
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(
            json,
            r#"{"sent":3,"received":2,"failed":1,"mean_us":40,"p99_us":50}"#
        );
        assert!(!summary.is_complete());
    }
}
