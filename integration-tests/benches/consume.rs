//! Consumers of the official Java and Go clients and ours, beside each other on one Apache RocketMQ 5.5.0.
//!
//! ```sh
//! bash integration-tests/peers/install                           # once: the Java and Go programs, the servers
//! cargo bench -p integration-tests --bench consume               # a minute: one round, 1 KiB, a tenth of the messages
//! FULL=1 cargo bench -p integration-tests --bench consume        # half an hour: everything, three rounds
//! WORKS=latency RATES=1000 CONSUMERS=go-push,push ROUNDS=5 cargo bench -p integration-tests --bench consume
//! ```
//!
//! Consumers are processes of their own (see [`integration_tests::consume_load`]), run one after the other in every
//! round, so that all see the same machine; the table has medians over the rounds with their spread. What they do:
//!
//! - `drain`: a backlog of `MESSAGES` messages of `SIZES` bytes, by a new group from the oldest on;
//! - `latency`: messages sent on a fixed schedule, `RATES` a second: their age when the handler gets them, counted from
//!   when they were due;
//! - `first`: from the start of a new group's consumer to its first message;
//! - `idle`: 64 queues without messages;
//! - `scale`: our push consumer alone, idle, with more and more queues, and with more and more groups in one process.
//!
//! A consumer that is not installed is a skip, which is printed and counted. The ratios are ours to the better peer's
//! median: the push consumer's to the better push consumer, the lite-pull consumer's to Java's.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use integration_tests::consume_load::{Consumer, Outcome, Plan, Work};
use integration_tests::real::{RealCluster, Version};
use integration_tests::report::{Report, Spread};
use integration_tests::wishes::{installed, list, number};
use integration_tests::{Failure, wire};
use rocketmq_client::protocol::RequestCode;
use rocketmq_client::{Client, Message};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const OURS: &str = env!("CARGO_BIN_EXE_consume-load");
/// The queues of a topic, except the idle one's.
const QUEUES: u32 = 8;
const IDLE_QUEUES: u32 = 64;
/// Messages in each request that fills a backlog.
const BATCH: u64 = 32;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let full = std::env::var_os("FULL").is_some();
    let cluster = RealCluster::start_for_measuring(Version::V5)?;
    let series = Series {
        consumers: installed(
            list("CONSUMERS", "java-push,java-lite-pull,go-push,push,lite-pull")?,
            Consumer::name,
            Consumer::installed,
        ),
        rounds: number("ROUNDS", if full { 3 } else { 1 })?,
        messages: number("MESSAGES", if full { 1_000_000 } else { 100_000 })?,
        noted: number("NOTED", if full { 10_000 } else { 2_000 })?,
        idle_ms: number("IDLE_MS", if full { 20_000 } else { 2_000 })?,
        name_server: cluster.name_server(),
        cluster,
    };
    let parts: Vec<Part> = list("WORKS", "drain,latency,first,idle,scale")?;
    let sizes: Vec<usize> = list("SIZES", if full { "128,1024" } else { "1024" })?;
    let rates: Vec<u64> = list("RATES", if full { "1000,10000" } else { "1000" })?;
    let mut report = Report::new("consume", &series.columns());
    let mut scale = Report::new("consume-scale", &["ours"]);
    for part in parts {
        match part {
            Part::Of(Work::Drain) => {
                for &size in &sizes {
                    series.drain(&mut report, size).await?;
                }
            }
            Part::Of(Work::Latency) => {
                for &rate in &rates {
                    series.latency(&mut report, rate).await?;
                }
            }
            Part::Of(Work::First) => series.first(&mut report).await?,
            Part::Of(Work::Idle) => series.idle(&mut report)?,
            Part::Scale => series.scale(&mut scale)?,
        }
    }
    report.note(format!(
        "{} rounds; {} messages drained, {} messages noted of each latency",
        series.rounds, series.messages, series.noted
    ));
    for report in [report, scale] {
        report.finish();
    }
    Ok(())
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// All consumers do this.
    Of(Work),
    Scale,
}

impl FromStr for Part {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        match name {
            "scale" => Ok(Self::Scale),
            _ => name.parse().map(Self::Of),
        }
    }
}

/// What is measured, and where.
struct Series {
    consumers: Vec<Consumer>,
    rounds: usize,
    messages: u64,
    noted: u64,
    idle_ms: u64,
    name_server: String,
    cluster: RealCluster,
}

/// What one consumer did in all rounds.
type Rounds = Vec<Outcome>;

impl Series {
    async fn drain(&self, report: &mut Report, size: usize) -> Result<(), Failure> {
        let topic = format!("drain-{size}");
        self.create(&topic, QUEUES)?;
        self.fill(&topic, size, self.messages).await?;
        let plan = self.plan(&topic, Work::Drain, self.messages);
        let outcomes = self.rounds(&plan)?;
        let rate = |outcome: &Outcome| outcome.messages as f64 / outcome.seconds;
        let name = format!("drain, {size} B");
        self.row(
            report,
            &format!("{name}: CPU s per million, target 0.33"),
            &outcomes,
            &per_million,
            f64::min,
        );
        self.row(
            report,
            &format!("{name}: messages per second"),
            &outcomes,
            &rate,
            f64::max,
        );
        self.memory(report, &name, &outcomes);
        Ok(())
    }

    async fn latency(&self, report: &mut Report, rate: u64) -> Result<(), Failure> {
        let topic = format!("latency-{rate}");
        self.create(&topic, QUEUES)?;
        let sender = Sender::start(&self.name_server, topic.clone(), rate).await?;
        let mut plan = self.plan(&topic, Work::Latency, self.noted);
        // Java takes seven seconds to its first message; the rest is for its compiler.
        plan.settle_ms = 12_000;
        let outcomes = self.rounds(&plan)?;
        sender.stop().await?;
        let name = format!("latency, {rate} a second, 1024 B");
        self.row(
            report,
            &format!("{name}: p50 in us, target 1"),
            &outcomes,
            &|o| o.p50_us,
            f64::min,
        );
        self.row(
            report,
            &format!("{name}: p99 in us, target 1"),
            &outcomes,
            &|o| o.p99_us,
            f64::min,
        );
        self.row(
            report,
            &format!("{name}: CPU s per million"),
            &outcomes,
            &per_million,
            f64::min,
        );
        self.memory(report, &name, &outcomes);
        Ok(())
    }

    async fn first(&self, report: &mut Report) -> Result<(), Failure> {
        self.create("first", QUEUES)?;
        self.fill("first", 1024, BATCH * u64::from(QUEUES)).await?;
        let plan = self.plan("first", Work::First, 1);
        let outcomes = self.rounds(&plan)?;
        let millis = |outcome: &Outcome| outcome.p50_us / 1_000.0;
        self.row(
            report,
            "first message of a new group: ms",
            &outcomes,
            &millis,
            f64::min,
        );
        Ok(())
    }

    fn idle(&self, report: &mut Report) -> Result<(), Failure> {
        self.create("idle", IDLE_QUEUES)?;
        let plan = self.plan("idle", Work::Idle, 0);
        let outcomes = self.rounds(&plan)?;
        let share = |outcome: &Outcome| 100.0 * outcome.cpu_seconds / outcome.seconds;
        let name = format!("idle, {IDLE_QUEUES} queues");
        self.row(
            report,
            &format!("{name}: % of a core"),
            &outcomes,
            &share,
            f64::min,
        );
        self.memory(report, &name, &outcomes);
        Ok(())
    }

    /// What a queue and a group cost that have nothing to do.
    fn scale(&self, report: &mut Report) -> Result<(), Failure> {
        for (queues, groups) in [(8, 1), (64, 1), (512, 1), (4096, 1), (8, 16), (8, 128)] {
            let topic = format!("scale-{queues}");
            self.create(&topic, queues)?;
            let group = format!("scale-{queues}-{groups}");
            let plan = Plan {
                group: &group,
                groups,
                ..self.plan(&topic, Work::Idle, 0)
            };
            let mut outcomes = Rounds::new();
            for _ in 0..self.rounds {
                outcomes.push(plan.start(Consumer::Push, Path::new(OURS))?.outcome()?);
            }
            let owned = f64::from(queues * groups);
            let mut row = |what: &str, figure: &dyn Fn(&Outcome) -> f64| {
                let name = format!("{queues} queues, {groups} groups: {what}");
                report.row(name, [Spread::of(outcomes.iter().map(figure))]);
            };
            row("CPU us per second and queue", &|outcome| {
                1e6 * outcome.cpu_seconds / outcome.seconds / owned
            });
            row("peak memory in MiB", &|outcome| outcome.peak_mib);
        }
        Ok(())
    }

    fn plan<'a>(&'a self, topic: &'a str, work: Work, messages: u64) -> Plan<'a> {
        Plan {
            name_server: &self.name_server,
            topic,
            group: "",
            work,
            messages,
            settle_ms: 0,
            run_ms: self.idle_ms,
            groups: 1,
        }
    }

    /// Every consumer in turn, as often as there are rounds, each time as a new group.
    fn rounds(&self, plan: &Plan<'_>) -> Result<Vec<Rounds>, Failure> {
        let mut outcomes = vec![Rounds::new(); self.consumers.len()];
        for round in 0..self.rounds {
            for (consumer, rounds) in self.consumers.iter().zip(&mut outcomes) {
                let group = format!("{}-{}-{round}", plan.topic, consumer.name());
                let plan = Plan {
                    group: &group,
                    ..plan.clone()
                };
                rounds.push(plan.start(*consumer, Path::new(OURS))?.outcome()?);
            }
        }
        Ok(outcomes)
    }

    fn create(&self, topic: &str, queues: u32) -> Result<(), Failure> {
        let queues = queues.to_string();
        let topic = json!({
            "topic": topic, "defaultTopic": "TBW102", "readQueueNums": queues, "writeQueueNums": queues,
            "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
        });
        let code = RequestCode::UPDATE_AND_CREATE_TOPIC.0;
        wire::request(self.cluster.broker_address(0)?, code, &topic, b"")?.success()?;
        Ok(())
    }

    /// Stores a backlog, as much in each queue.
    async fn fill(&self, topic: &str, size: usize, messages: u64) -> Result<(), Failure> {
        let client = Client::connect(&self.name_server).await?;
        let producer = client.producer("fill").compress_from_bytes(None).start().await?;
        let body = Bytes::from(vec![b'x'; size]);
        let mut tasks = JoinSet::new();
        for queue in 0..QUEUES {
            let (producer, body, topic) = (producer.clone(), body.clone(), topic.to_owned());
            let share = messages / u64::from(QUEUES);
            tasks.spawn(async move {
                let mut left = share;
                while left > 0 {
                    let count = BATCH.min(left);
                    let batch = (0..count).map(|_| Message::new(&topic, body.clone()));
                    producer
                        .send_batch(batch)
                        .select_queue(move |_| queue as usize)
                        .await?;
                    left -= count;
                }
                Ok::<(), Failure>(())
            });
        }
        for filled in tasks.join_all().await {
            filled?;
        }
        client.shutdown().await;
        Ok(())
    }

    fn columns(&self) -> Vec<&'static str> {
        let mut columns: Vec<_> = self.consumers.iter().map(|consumer| consumer.name()).collect();
        columns.extend(["push to the better", "lite pull to Java's"]);
        columns
    }

    fn memory(&self, report: &mut Report, name: &str, outcomes: &[Rounds]) {
        let name = format!("{name}: peak memory in MiB");
        self.row(report, &name, outcomes, &|outcome| outcome.peak_mib, f64::min);
    }

    fn row(
        &self,
        report: &mut Report,
        what: &str,
        outcomes: &[Rounds],
        figure: &dyn Fn(&Outcome) -> f64,
        better: fn(f64, f64) -> f64,
    ) {
        let spreads: Vec<_> = outcomes
            .iter()
            .map(|rounds| Spread::of(rounds.iter().map(figure)))
            .collect();
        let ratio = |ours: Consumer, peers: &[Consumer]| {
            let cells = self.consumers.iter().zip(&spreads);
            let peers = cells.filter(|(consumer, _)| peers.contains(consumer));
            let best = peers.map(|(_, spread)| spread.median).reduce(better);
            let ours = self.consumers.iter().position(|consumer| *consumer == ours);
            let ours = ours.and_then(|index| outcomes.get(index));
            let ratio = best.zip(ours).filter(|(best, _)| *best > 0.0);
            ratio.map(|(best, ours)| Spread::of(ours.iter().map(|outcome| figure(outcome) / best)))
        };
        let push = ratio(Consumer::Push, &[Consumer::JavaPush, Consumer::GoPush]);
        let lite_pull = ratio(Consumer::LitePull, &[Consumer::JavaLitePull]);
        report.row(what, spreads.iter().copied().chain(push).chain(lite_pull));
    }
}

fn per_million(outcome: &Outcome) -> f64 {
    outcome.cpu_seconds * 1e6 / outcome.messages.max(1) as f64
}

/// Sends on a fixed schedule, whatever becomes of the sends.
struct Sender {
    client: Client,
    stop: Arc<Notify>,
    task: JoinSet<Result<(), Failure>>,
}

impl Sender {
    async fn start(name_server: &str, topic: String, rate: u64) -> Result<Self, Failure> {
        const TICK: Duration = Duration::from_millis(1);
        let client = Client::connect(name_server).await?;
        let producer = client.producer("schedule").start().await?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let sending = async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let mut sent = 0_u64;
            for tick in 1_u64.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stopped.notified() => break,
                }
                while sent < tick * rate / 1_000 {
                    let due = began + Duration::from_nanos(sent * 1_000_000_000 / rate);
                    let mut body = format!("{} ", due.as_nanos());
                    body.extend(std::iter::repeat_n('x', 1024 - body.len()));
                    // A message that cannot be sent never comes, and counts for nobody.
                    drop(producer.send(Message::new(&topic, body)).detach());
                    sent += 1;
                }
            }
            Ok(())
        };
        let mut task = JoinSet::new();
        task.spawn(sending);
        Ok(Self { client, stop, task })
    }

    async fn stop(mut self) -> Result<(), Failure> {
        self.stop.notify_one();
        while let Some(ended) = self.task.join_next().await {
            ended??;
        }
        self.client.shutdown().await;
        Ok(())
    }
}
