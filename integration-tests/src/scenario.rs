//! One test per scenario and target.
//!
//! A scenario is an asynchronous function of a [`Target`]. [`scenarios!`](crate::scenarios) makes of its name a module
//! with one test per kind of target: `name::embedded`, `name::rocketmq_5`, `name::rocketmq_4`, `name::address`. The
//! environment variable `TARGETS` says which of them run; the others are counted and printed as skips, once per
//! target. A target that is selected and cannot be had is a failure.

use std::{
    env,
    error::Error,
    fmt,
    io::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Failure,
    target::{Kind, Target},
};

/// How a scenario ends.
pub type TestResult = Result<(), Failure>;

/// Longer than the longest wait of any scenario: only a hang gets here. A [`long`] run may take as many times longer.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes the tests of the scenarios of one file.
///
/// ```
/// # use integration_tests::{scenario::TestResult, scenarios, target::Target};
/// async fn the_brokers_are_listed(target: &Target) -> TestResult {
///     assert!(!target.brokers().await?.is_empty());
///     Ok(())
/// }
///
/// scenarios![the_brokers_are_listed];
/// # fn main() {}
/// ```
/// A scenario missing from the list is dead code, which the compiler reports.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        /// For the count of skips.
        const SCENARIOS: usize = [$(stringify!($name)),+].len();
        $(
            mod $name {
                use $crate::{scenario::run, target::Kind};

                use super::SCENARIOS;

                #[test]
                fn embedded() {
                    run(Kind::Embedded, module_path!(), SCENARIOS, super::$name);
                }

                #[test]
                fn rocketmq_5() {
                    run(Kind::Rocketmq5, module_path!(), SCENARIOS, super::$name);
                }

                #[test]
                fn rocketmq_4() {
                    run(Kind::Rocketmq4, module_path!(), SCENARIOS, super::$name);
                }

                #[test]
                fn address() {
                    run(Kind::Address, module_path!(), SCENARIOS, super::$name);
                }

                #[cfg(feature = "docker")]
                #[test]
                fn docker_5() {
                    run(Kind::Docker5, module_path!(), SCENARIOS, super::$name);
                }

                #[cfg(feature = "docker")]
                #[test]
                fn docker_4() {
                    run(Kind::Docker4, module_path!(), SCENARIOS, super::$name);
                }
            }
        )+
    };
}

/// The reason not to run, as an error: the scenario passes, and the skip is counted and printed.
#[must_use]
pub fn skip(reason: impl Into<String>) -> Failure {
    Box::new(Skip(reason.into()))
}

#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Skip {}

/// Runs one scenario on one kind of target. Called by [`scenarios!`](crate::scenarios).
///
/// # Panics
/// When the scenario fails or hangs, or the target is selected and cannot be had: this is a test.
pub fn run(
    kind: Kind,
    module: &'static str,
    scenarios_in_file: usize,
    scenario: impl AsyncFn(&Target) -> TestResult,
) {
    // crate::file::scenario
    let (file, name) = module.rsplit_once("::").unwrap_or(("", module));
    let wanted = match kind.selected() {
        Ok(wanted) => wanted,
        Err(error) => panic!("{error}"),
    };
    if wanted.is_empty() {
        report_unselected(kind, file, scenarios_in_file);
        return;
    }
    for choice in wanted {
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => panic!("no runtime: {error}"),
        };
        let result = runtime.block_on(async {
            let target = Target::open(&choice, name).await?;
            let limit = LIMIT * long();
            tokio::time::timeout(limit, scenario(&target))
                .await
                .unwrap_or_else(|_| Err(format!("no end after {limit:?}").into()))
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        match result {
            Ok(()) => {}
            Err(reason) if reason.is::<Skip>() => report_skip(&format!("{name} on {choice}: {reason}")),
            Err(reason) => panic!("{name} on {choice}: {}", chain(&*reason)),
        }
    }
}

/// How many times longer than usual faults go on: the environment variable `LONG`, or once. A scenario takes seconds, so
/// that all of them can run for each change; with `LONG=100` it repeats what it does a hundred times.
///
/// ```sh
/// LONG=100 TARGETS=embedded,rocketmq-5 cargo test -p integration-tests --test scenarios faults::answers
/// ```
#[must_use]
pub fn long() -> u32 {
    let factor = env::var("LONG").ok().and_then(|factor| factor.parse().ok());
    factor.unwrap_or(1).max(1)
}

/// Polls until the condition holds: for what a cluster does in its own time and announces to nobody.
///
/// # Errors
/// When it does not hold within a minute, or cannot be tested.
pub async fn eventually(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let deadline = Instant::now() + PATIENCE;
    while !condition().await? {
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} in vain for {what}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Prints a skip with its number, past the test harness, which shows nothing of tests that pass.
pub fn report_skip(reason: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    print_line(&format!("skip: {reason} (skip {count} of this process)"));
}

/// Prints a figure that is recorded and not judged: on a busy machine a time proves nothing.
pub fn report_figure(target: &Target, text: &str) {
    print_line(&format!(
        "figure: {} on {}: {text}",
        target.scenario(),
        target.kind()
    ));
}

/// One line for all scenarios of a file.
fn report_unselected(kind: Kind, file: &'static str, scenarios: usize) {
    static REPORTED: Mutex<Vec<(Kind, &str)>> = Mutex::new(Vec::new());
    {
        let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.contains(&(kind, file)) {
            return;
        }
        reported.push((kind, file));
    }
    print_line(&format!(
        "skip: {scenarios} scenarios of {file} on {kind}: not in TARGETS"
    ));
}

fn print_line(line: &str) {
    // A closed standard error is no reason to fail a test.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
