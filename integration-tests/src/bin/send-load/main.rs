//! Sends as fast as it can and prints what that took: our program of [`integration_tests::load`].
//!
//! `--client ours` (the default) sends with `rocketmq-client`, `--client limit` with the bare minimum of
//! [`limit`]. `--runtime many` (the default) is tokio's runtime with a worker per core, what
//! `#[tokio::main]` gives; `--runtime one` is its runtime of one thread.

#![expect(
    clippy::disallowed_methods,
    reason = "a user's program, which spawns its own tasks as it likes"
)]

mod limit;
mod ours;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::load::{Histogram, Mode, Outcome};
use integration_tests::{Failure, usage};
use tokio::runtime::Builder;
use tokio::time::Instant;

fn main() -> Result<(), Failure> {
    let mut options = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
        options.insert(name, value);
    }
    let option = |name: &str| options.get(name).ok_or_else(|| format!("{name} is missing"));
    let load = Load {
        name_server: option("--name-server")?.clone(),
        topic: option("--topic")?.clone(),
        mode: option("--mode")?.parse()?,
        body: option("--body")?.parse()?,
        warm_up: Duration::from_millis(option("--warm-up-ms")?.parse()?),
        run: Duration::from_millis(option("--run-ms")?.parse()?),
    };
    let runtime = match options.get("--runtime").map(String::as_str) {
        Some("one") => Builder::new_current_thread().enable_all().build()?,
        _ => Builder::new_multi_thread().enable_all().build()?,
    };
    let outcome = match options.get("--client").map(String::as_str) {
        Some("limit") => runtime.block_on(on_a_task(limit::run(load)))?,
        _ => runtime.block_on(on_a_task(ours::run(load)))?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// As most of a service's code: on a worker of the runtime, not on the thread that waits for its end.
async fn on_a_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    tokio::spawn(work).await?
}

/// What is to be done.
#[derive(Debug)]
struct Load {
    name_server: String,
    topic: String,
    mode: Mode,
    body: usize,
    warm_up: Duration,
    run: Duration,
}

/// What has been done in one part of the run.
#[derive(Debug)]
struct Tally {
    until: Instant,
    messages: AtomicU64,
    failures: AtomicU64,
    latency: Histogram,
}

impl Tally {
    fn new(length: Duration) -> Arc<Self> {
        Arc::new(Self {
            until: Instant::now() + length,
            messages: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            latency: Histogram::new(),
        })
    }

    /// Notes the end of a send that was started at `start`.
    fn note<T, E: std::fmt::Display>(&self, start: Instant, messages: u64, result: Result<T, E>) {
        match result {
            Ok(_) => {
                self.messages.fetch_add(messages, Ordering::Relaxed);
                self.latency.record(start.elapsed());
            }
            Err(error) => {
                if self.failures.fetch_add(messages, Ordering::Relaxed) == 0 {
                    eprintln!("the first failure: {error}");
                }
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

impl Load {
    /// Warms up, measures.
    async fn measure<F: Future<Output = Result<(), Failure>>>(
        &self,
        mut part: impl FnMut(Arc<Tally>) -> F,
    ) -> Result<Outcome, Failure> {
        part(Tally::new(self.warm_up)).await?;
        let (start, cpu_before) = (Instant::now(), usage::cpu_seconds()?);
        let tally = Tally::new(self.run);
        part(Arc::clone(&tally)).await?;
        Ok(Outcome {
            messages: tally.messages.load(Ordering::Relaxed),
            failures: tally.failures.load(Ordering::Relaxed),
            seconds: start.elapsed().as_secs_f64(),
            p50_us: tally.latency.quantile_us(0.5),
            p99_us: tally.latency.quantile_us(0.99),
            cpu_seconds: usage::cpu_seconds()? - cpu_before,
            peak_mib: usage::peak_resident_mib()?,
        })
    }
}
