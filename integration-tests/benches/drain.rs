//! A backlog of a million messages of 1 KiB, drained by the push consumer: speed, CPU time and peak memory.
//!
//! The consumer is a process of its own, so that its figures are its own; every round is a new group that starts at
//! the oldest message. The broker is the embedded one as a process of its own too, or the cluster that
//! `NAMESRV_ADDR` names.
//!
//! `cargo bench -p integration-tests --bench drain`. `MESSAGES` and `ROUNDS` change the size.

use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use integration_tests::Failure;
use integration_tests::program::BrokerProcess;
use integration_tests::report::{Report, Spread};
use integration_tests::usage::{cpu_seconds, peak_resident_mib, resident_mib};
use rocketmq_client::{Client, ConsumeFrom, Message, MessageView};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

const BODY: usize = 1_024;
const IN_FLIGHT: usize = 256;
/// Tells a process of this program that it is the consumer; the value is name server, topic, group and count.
const CONSUMER: &str = "DRAIN_CONSUMER";

type Result<T> = std::result::Result<T, Failure>;

/// What the consumer process says of itself.
#[derive(Serialize, Deserialize)]
struct Drained {
    seconds: f64,
    cpu_seconds: f64,
    resident_before_mib: f64,
    peak_mib: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    if let Ok(order) = std::env::var(CONSUMER) {
        println!("{}", serde_json::to_string(&consume(&order).await?)?);
        return Ok(());
    }
    let messages: u64 = setting("MESSAGES", 1_000_000)?;
    let rounds: usize = setting("ROUNDS", 3)?;
    let Ok(cluster) = std::env::var("NAMESRV_ADDR") else {
        // Room for the backlog with its headers.
        let memory = (messages * (BODY as u64 + 512)).max(64 << 20).to_string();
        let broker = BrokerProcess::start(&BrokerProcess::build()?, &["--memory-limit", &memory])?;
        return measure(broker.name_server(), messages, rounds).await;
    };
    measure(&cluster, messages, rounds).await
}

async fn measure(name_server: &str, messages: u64, rounds: usize) -> Result<()> {
    let run = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    let topic = format!("drain-{run}");
    let filled = fill(name_server, &topic, messages).await?;
    let (mut rates, mut cpu, mut peaks, mut growth) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let order = format!("{name_server} {topic} drain-{run}-{round} {messages}");
        let output = Command::new(std::env::current_exe()?)
            .env(CONSUMER, order)
            .stderr(Stdio::inherit())
            .output()?;
        let drained: Drained = serde_json::from_slice(&output.stdout)?;
        rates.push(messages as f64 / drained.seconds);
        cpu.push(drained.cpu_seconds * 1e6 / messages as f64);
        peaks.push(drained.peak_mib);
        growth.push(drained.peak_mib - drained.resident_before_mib);
    }
    let mut report = Report::new("drain", &["push consumer"]);
    report.row("messages per second", [Spread::of(rates)]);
    report.row("CPU seconds per million", [Spread::of(cpu)]);
    report.row("peak resident, MiB", [Spread::of(peaks)]);
    report.row("growth over the idle process, MiB", [Spread::of(growth)]);
    report.note(format!(
        "{messages} messages of {BODY} bytes, stored at {filled:.0} messages per second"
    ));
    report.finish();
    Ok(())
}

/// Stores the backlog; messages per second.
async fn fill(name_server: &str, topic: &str, messages: u64) -> Result<f64> {
    let client = Client::connect(name_server).await?;
    let producer = client.producer("drain-bench").start().await?;
    let body = Bytes::from(vec![b'x'; BODY]);
    let left = Arc::new(AtomicU64::new(messages));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (producer, topic, body, left) = (
            producer.clone(),
            topic.to_owned(),
            body.clone(),
            Arc::clone(&left),
        );
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                producer.send(Message::new(&topic, body.clone())).await?;
            }
            Ok::<(), rocketmq_client::Error>(())
        });
    }
    for sent in tasks.join_all().await {
        sent?;
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    producer.shutdown().await;
    client.shutdown().await;
    Ok(rate)
}

async fn consume(order: &str) -> Result<Drained> {
    let mut words = order.split(' ');
    let mut word = || words.next().ok_or("an order of four words");
    let (name_server, topic, group, messages) = (word()?, word()?, word()?, word()?.parse::<u64>()?);
    let client = Client::connect(name_server).await?;
    let (seen, done) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let resident_before_mib = resident_mib()?;
    let (start, cpu_before) = (Instant::now(), cpu_seconds()?);
    let handler = {
        let (seen, done) = (Arc::clone(&seen), Arc::clone(&done));
        move |message: MessageView| {
            assert_eq!(message.body().len(), BODY, "what was sent is what arrives");
            if seen.fetch_add(1, Ordering::Relaxed) + 1 == messages {
                done.notify_one();
            }
            std::future::ready(())
        }
    };
    let consumer = client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(handler)
        .await?;
    done.notified().await;
    let drained = Drained {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds()? - cpu_before,
        resident_before_mib,
        peak_mib: peak_resident_mib()?,
    };
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(drained)
}

fn setting<T: std::str::FromStr<Err: Error + Send + Sync + 'static>>(name: &str, default: T) -> Result<T> {
    Ok(std::env::var(name)
        .ok()
        .map(|value| value.parse())
        .transpose()?
        .unwrap_or(default))
}
