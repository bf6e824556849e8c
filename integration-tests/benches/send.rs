//! Sends of the official Java and Go clients, of ours, and of the bare minimum, beside each other: on a broker that
//! answers at once, so that the client's own cost shows, and on Apache RocketMQ 5.5.0.
//!
//! ```sh
//! bash integration-tests/peers/install                                    # once: the Java and Go programs, the servers
//! cargo bench -p integration-tests --bench send                           # a minute: one round, 1 KiB, instant broker
//! FULL=1 cargo bench -p integration-tests --bench send                    # forty minutes: everything, three rounds
//! SERVERS=real MODES=async,one-way SIZES=128 ROUNDS=5 cargo bench -p integration-tests --bench send
//! ```
//!
//! Senders are processes of their own (see [`integration_tests::load`]), run one after the other in every round, so
//! that all see the same machine; the table has medians over the rounds with their spread. `SENDERS` chooses among
//! `java,go,ours,limit`: Java with the defaults of its JVM, ours on the runtime that `#[tokio::main]` gives.
//! `WARM_UP_MS` and `RUN_MS` say how long each warms up and measures. A sender that is not installed is a skip, which is
//! printed and counted. The ratios are ours to the better peer's median; beside them stands what they are meant to reach.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr;

use integration_tests::load::{Mode, Outcome, Plan, Sender};
use integration_tests::real::{RealCluster, Version};
use integration_tests::report::{Report, Spread};
use integration_tests::wishes::{installed, list, number};
use integration_tests::{Failure, wire};
use rocketmq_client::protocol::RequestCode;
use serde_json::json;

const OURS: &str = env!("CARGO_BIN_EXE_send-load");
const INSTANT_BROKER: &str = env!("CARGO_BIN_EXE_instant-broker");
const TOPIC: &str = "send-load";

fn main() -> Result<(), Failure> {
    let full = std::env::var_os("FULL").is_some();
    let series = Series {
        sizes: list("SIZES", if full { "128,1024,4096" } else { "1024" })?,
        modes: list("MODES", "awaited,awaited-64,async,one-way,batch-32")?,
        rounds: number("ROUNDS", if full { 3 } else { 1 })?,
        warm_up_ms: number("WARM_UP_MS", if full { 3_000 } else { 500 })?,
        run_ms: number("RUN_MS", if full { 3_000 } else { 1_000 })?,
        senders: installed(
            list("SENDERS", "java,go,ours,limit")?,
            Sender::name,
            Sender::installed,
        ),
    };
    for server in list::<Server>("SERVERS", if full { "instant,real" } else { "instant" })? {
        series.run(server)?;
    }
    Ok(())
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Instant,
    Real,
}

impl FromStr for Server {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        match name {
            "instant" => Ok(Self::Instant),
            "real" => Ok(Self::Real),
            _ => Err(format!("{name:?} is no server: instant, real").into()),
        }
    }
}

impl Server {
    /// How much of the better peer's CPU time ours is meant to need, at most.
    fn target(self, mode: Mode) -> f64 {
        match (self, mode) {
            (Self::Instant, Mode::Async | Mode::OneWay) => 0.2,
            (Self::Instant, Mode::Awaited64) => 1.0 / 3.0,
            _ => 0.5,
        }
    }
}

/// What is measured.
struct Series {
    sizes: Vec<usize>,
    modes: Vec<Mode>,
    rounds: usize,
    warm_up_ms: u64,
    run_ms: u64,
    senders: Vec<Sender>,
}

/// What one sender did in all rounds.
type Rounds = Vec<Outcome>;

impl Series {
    fn run(&self, server: Server) -> Result<(), Failure> {
        // The bare minimum knows no routes: it sends to the name server, which is also the broker in one case only.
        let senders = self.senders.iter().copied();
        let senders: Vec<_> = senders
            .filter(|sender| server == Server::Instant || *sender != Sender::Limit)
            .collect();
        let mut columns: Vec<_> = senders.iter().map(|sender| sender.name()).collect();
        columns.push("ours to the better peer");
        let name = match server {
            Server::Instant => "send-instant",
            Server::Real => "send-real",
        };
        let mut report = Report::new(name, &columns);
        for &size in &self.sizes {
            // A fresh one for each size, so that what was stored does not add up.
            let target = Target::start(server)?;
            for &mode in &self.modes {
                let outcomes = self.measure(&target, &senders, mode, size)?;
                add_rows(&mut report, &senders, &outcomes, server, mode, size);
            }
        }
        report.note(format!(
            "{} rounds of {} ms after {} ms",
            self.rounds, self.run_ms, self.warm_up_ms
        ));
        report.finish();
        Ok(())
    }

    fn measure(
        &self,
        target: &Target,
        senders: &[Sender],
        mode: Mode,
        size: usize,
    ) -> Result<Vec<Rounds>, Failure> {
        let plan = Plan {
            name_server: target.name_server(),
            topic: TOPIC,
            mode,
            body: size,
            warm_up_ms: self.warm_up_ms,
            run_ms: self.run_ms,
        };
        let mut outcomes = vec![Rounds::new(); senders.len()];
        for _ in 0..self.rounds {
            for (sender, rounds) in senders.iter().zip(&mut outcomes) {
                rounds.push(plan.run(*sender, Path::new(OURS))?);
            }
        }
        Ok(outcomes)
    }
}

fn add_rows(
    report: &mut Report,
    senders: &[Sender],
    outcomes: &[Rounds],
    server: Server,
    mode: Mode,
    size: usize,
) {
    let per_million = |outcome: &Outcome| outcome.cpu_seconds * 1e6 / outcome.messages.max(1) as f64;
    let rate = |outcome: &Outcome| outcome.messages as f64 / outcome.seconds;
    let cpu_target = server.target(mode);
    let mut row = |what: &str, figure: &dyn Fn(&Outcome) -> f64, better: fn(f64, f64) -> f64| {
        let spreads: Vec<_> = outcomes
            .iter()
            .map(|rounds| Spread::of(rounds.iter().map(figure)))
            .collect();
        let cells = senders.iter().zip(&spreads);
        let peers = cells.filter(|(sender, _)| matches!(sender, Sender::Java | Sender::Go));
        let best = peers.map(|(_, spread)| spread.median).reduce(better);
        let ours = senders.iter().position(|sender| *sender == Sender::Ours);
        let ours = ours.and_then(|index| outcomes.get(index));
        let ratio = best.zip(ours).map(|(best, ours)| {
            // Nothing to compare, such as failures of none, is equal.
            let ratio = |value: f64| if best == 0.0 { 1.0 } else { value / best };
            Spread::of(ours.iter().map(|outcome| ratio(figure(outcome))))
        });
        report.row(
            format!("{mode}, {size} B: {what}"),
            spreads.into_iter().chain(ratio),
        );
    };
    row(
        &format!("CPU s per million, target {cpu_target:.2}"),
        &per_million,
        f64::min,
    );
    row("messages per second, target 1", &rate, f64::max);
    row("p50 in us", &|outcome| outcome.p50_us, f64::min);
    row("p99 in us, target 1", &|outcome| outcome.p99_us, f64::min);
    row(
        "peak memory in MiB, target 1",
        &|outcome| outcome.peak_mib,
        f64::min,
    );
    for (sender, rounds) in senders.iter().zip(outcomes) {
        let failures: u64 = rounds.iter().map(|outcome| outcome.failures).sum();
        if failures > 0 {
            let name = sender.name();
            report.note(format!("{mode}, {size} B: {failures} sends of {name} failed"));
        }
    }
}

/// A server that runs.
enum Target {
    Instant {
        process: Child,
        name_server: String,
        /// The process ends when this is closed.
        _stdin: Option<ChildStdin>,
    },
    Real {
        name_server: String,
        _cluster: RealCluster,
    },
}

impl Target {
    fn start(server: Server) -> Result<Self, Failure> {
        match server {
            Server::Instant => {
                let mut process = Command::new(INSTANT_BROKER)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let stdin = process.stdin.take();
                let mut line = String::new();
                if let Some(output) = process.stdout.take() {
                    BufReader::new(output).read_line(&mut line)?;
                }
                let name_server = line.trim().strip_prefix("ready name_server=");
                Ok(Self::Instant {
                    name_server: name_server.ok_or("the instant broker is not ready")?.to_owned(),
                    process,
                    _stdin: stdin,
                })
            }
            Server::Real => {
                let cluster = RealCluster::start_for_measuring(Version::V5)?;
                let topic = json!({
                    "topic": TOPIC, "defaultTopic": "TBW102", "readQueueNums": "8", "writeQueueNums": "8",
                    "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
                });
                let code = RequestCode::UPDATE_AND_CREATE_TOPIC.0;
                wire::request(cluster.broker_address(0)?, code, &topic, b"")?.success()?;
                Ok(Self::Real {
                    name_server: cluster.name_server(),
                    _cluster: cluster,
                })
            }
        }
    }

    fn name_server(&self) -> &str {
        match self {
            Self::Instant { name_server, .. } | Self::Real { name_server, .. } => name_server,
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::Instant { process, .. } = self {
            // It may have ended by itself; either way nothing is left to do about it here.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
