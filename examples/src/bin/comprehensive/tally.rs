//! Which records are on their way, and what became of the others.
//!
//! Topics outlive runs: a second run on the same cluster may find records of the first. Each record carries
//! the run and its number, so that those of other runs, and repeated deliveries, are not counted.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use stream_binder::{Delivery, DeliveryHandler, Outcome, Settlement};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tower::{Layer, Service};

use crate::{histogram::Histogram, report::Summary};

/// Most records on their way at one time.
const WINDOW: usize = 1_000;

pub(crate) struct Tally {
    run: String,
    state: Mutex<State>,
    changed: Notify,
    all_sent: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    under_way: HashMap<u64, Instant>,
    sent: u64,
    received: u64,
    failed: u64,
    latency: Histogram,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let started = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let run = format!("{:x}-{:x}", started.as_micros(), process::id());
        Self {
            run,
            state: Mutex::default(),
            changed: Notify::new(),
            all_sent: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another record may be sent now.
    pub(crate) fn has_room(&self) -> bool {
        self.state().under_way.len() < WINDOW
    }

    /// A record leaves; the name under which it travels.
    pub(crate) fn departure(&self) -> String {
        let mut state = self.state();
        let number = state.sent;
        state.sent += 1;
        state.under_way.insert(number, Instant::now());
        format!("{}-{number}", self.run)
    }

    /// A record arrived; says whether it is one of this run, for the first time.
    pub(crate) fn arrival(&self, name: Option<&str>) -> bool {
        self.end(name, |state, left| {
            state.received += 1;
            let latency = left.elapsed().as_micros();
            state.latency.record(u64::try_from(latency).unwrap_or(u64::MAX));
        })
    }

    /// A record was dead-lettered; says whether it is one of this run, for the first time.
    pub(crate) fn failure(&self, name: Option<&str>) -> bool {
        self.end(name, |state, _| state.failed += 1)
    }

    fn end(&self, name: Option<&str>, count: impl FnOnce(&mut State, Instant)) -> bool {
        let number = name.and_then(|name| name.strip_prefix(&*self.run)?.strip_prefix('-')?.parse().ok());
        let mut state = self.state();
        let Some(left) = number.and_then(|number: u64| state.under_way.remove(&number)) else {
            return false;
        };
        count(&mut state, left);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// A record could not even be read.
    pub(crate) fn unreadable(&self) {
        self.state().failed += 1;
    }

    /// Nothing else will be sent.
    pub(crate) fn no_more(&self) {
        self.all_sent.send_replace(true);
        self.changed.notify_one();
    }

    /// Waits until nothing else will be sent.
    pub(crate) async fn all_sent(&self) {
        // The sender is `self`, so the channel cannot be closed.
        let _ = self.all_sent.subscribe().wait_for(|all_sent| *all_sent).await;
    }

    /// Waits until everything was sent and has ended, or, once everything was sent, nothing ended for `stalled`.
    pub(crate) async fn finished(&self, stalled: Duration) {
        loop {
            let all_sent = *self.all_sent.borrow();
            let on_their_way = self.state().under_way.len();
            if all_sent && on_their_way == 0 {
                return;
            }
            let change = timeout(stalled, self.changed.notified()).await;
            if all_sent && change.is_err() {
                return;
            }
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let state = self.state();
        Summary {
            sent: state.sent,
            received: state.received,
            failed: state.failed,
            mean_us: state.latency.mean(),
            p99_us: state.latency.percentile(99),
        }
    }
}

/// A layer around every function that counts records for which there is no other attempt.
#[derive(Clone)]
pub(crate) struct CountFailures {
    tally: Arc<Tally>,
}

impl CountFailures {
    pub(crate) fn new(tally: Arc<Tally>) -> Self {
        Self { tally }
    }
}

impl Layer<DeliveryHandler> for CountFailures {
    type Service = CountingHandler;

    fn layer(&self, inner: DeliveryHandler) -> CountingHandler {
        CountingHandler {
            inner,
            tally: Arc::clone(&self.tally),
        }
    }
}

#[derive(Clone)]
pub(crate) struct CountingHandler {
    inner: DeliveryHandler,
    tally: Arc<Tally>,
}

impl Service<Delivery> for CountingHandler {
    type Response = Outcome;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let Self { inner, tally } = self.clone();
        Box::pin(async move {
            let name = delivery.headers().get("correlationId").map(str::to_owned);
            let last = delivery.meta().is_last_attempt();
            let outcome = inner.handle(delivery).await;
            let given_up = match outcome.settlement() {
                Settlement::Reject => true,
                Settlement::Retry(_) => last,
                _ => false,
            };
            if given_up {
                tally.failure(name.as_deref());
            }
            Ok(outcome)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn records_of_other_runs_and_repeated_ones_do_not_count() {
        let (tally, other) = (
            Tally::new(),
            Tally {
                run: "other".to_owned(),
                ..Tally::new()
            },
        );
        let (name, foreign) = (tally.departure(), other.departure());
        assert!(!tally.arrival(Some(&foreign)));
        assert!(!tally.arrival(None));
        assert!(tally.arrival(Some(&name)));
        assert!(!tally.arrival(Some(&name)));
        assert!(!tally.failure(Some(&name)));
        let summary = tally.summary();
        assert_eq!((summary.sent, summary.received, summary.failed), (1, 1, 0));
        assert!(summary.is_complete());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_when_the_last_record_arrived_or_nothing_moves() {
        let tally = Tally::new();
        let (first, _lost) = (tally.departure(), tally.departure());
        tally.no_more();
        let start = Instant::now();
        let arrival = async {
            tokio::time::sleep(Duration::from_secs(50)).await;
            tally.arrival(Some(&first));
        };
        tokio::join!(tally.finished(Duration::from_secs(60)), arrival);
        assert_eq!(start.elapsed().as_secs(), 110);
        assert!(!tally.summary().is_complete());
    }

    #[test]
    fn the_window_bounds_what_is_under_way() {
        let tally = Tally::new();
        let names: Vec<_> = (0..WINDOW).map(|_| tally.departure()).collect();
        assert!(!tally.has_room());
        assert!(tally.failure(names.first().map(String::as_str)));
        assert!(tally.has_room());
    }
}
