//! Consumes and prints what that took: our program of [`integration_tests::consume_load`].

mod tally;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use integration_tests::consume_load::{Outcome, Work};
use integration_tests::{Failure, usage};
use rocketmq_client::{Client, ConsumeFrom, MessageView};
use tokio::time::{Instant, sleep};

use crate::tally::Tally;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut options = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
        options.insert(name, value);
    }
    let option = |name: &str| options.get(name).ok_or_else(|| format!("{name} is missing"));
    let work: Work = option("--work")?.parse()?;
    let tally = Arc::new(Tally::new(
        work,
        Duration::from_millis(option("--settle-ms")?.parse()?),
        option("--messages")?.parse()?,
    ));
    let consuming = Consuming {
        name_server: option("--name-server")?.clone(),
        topic: option("--topic")?.clone(),
        group: option("--group")?.clone(),
        groups: option("--groups")?.parse()?,
        from: match work {
            Work::Latency => ConsumeFrom::Last,
            _ => ConsumeFrom::First,
        },
        tally: Arc::clone(&tally),
    };
    let run = Duration::from_millis(option("--run-ms")?.parse()?);
    let outcome = match option("--kind")?.as_str() {
        "push" => measure(work, run, &tally, consuming.push()).await?,
        kind => return Err(format!("{kind:?} is no kind: push").into()),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    // What a graceful stop would take is not measured.
    std::process::exit(0)
}

/// Starts a consumer and waits until it has done its work.
async fn measure<C>(
    work: Work,
    run: Duration,
    tally: &Tally,
    start: impl Future<Output = Result<C, Failure>>,
) -> Result<Outcome, Failure> {
    let (mut started, mut cpu_before) = (Instant::now(), usage::cpu_seconds()?);
    let _consumer = start.await?;
    let (mut p50_us, mut p99_us) = (tally.ages.quantile_us(0.5), tally.ages.quantile_us(0.99));
    let seconds = if work == Work::Idle {
        sleep(run / 2).await;
        (started, cpu_before) = (Instant::now(), usage::cpu_seconds()?);
        sleep(run).await;
        started.elapsed().as_secs_f64()
    } else {
        let (first, last) = tally.done().await;
        match work {
            Work::First => {
                let took = (first.at - started).as_secs_f64();
                (p50_us, p99_us) = (took * 1e6, took * 1e6);
                took
            }
            _ => {
                (p50_us, p99_us) = (tally.ages.quantile_us(0.5), tally.ages.quantile_us(0.99));
                if work == Work::Latency {
                    cpu_before = first.cpu_seconds;
                }
                (last.at - first.at).as_secs_f64()
            }
        }
    };
    Ok(Outcome {
        messages: tally.noted(),
        seconds,
        p50_us,
        p99_us,
        cpu_seconds: usage::cpu_seconds()? - cpu_before,
        peak_mib: usage::peak_resident_mib()?,
    })
}

/// What to consume.
struct Consuming {
    name_server: String,
    topic: String,
    group: String,
    groups: u32,
    from: ConsumeFrom,
    tally: Arc<Tally>,
}

impl Consuming {
    async fn push(self) -> Result<impl Sized, Failure> {
        let client = Client::connect(&self.name_server).await?;
        let mut consumers = Vec::new();
        for number in 0..self.groups {
            let tally = Arc::clone(&self.tally);
            let consumer = client
                .push_consumer(format!("{}-{number}", self.group))
                .subscribe(&self.topic, "*")
                .consume_from(self.from)
                .start(move |message: MessageView| {
                    tally.note(message.body());
                    std::future::ready(())
                })
                .await?;
            consumers.push(consumer);
        }
        Ok(consumers)
    }
}
