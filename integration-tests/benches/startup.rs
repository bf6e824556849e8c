//! How fast the embedded broker is there and how little it needs when idle.
//!
//! `cargo bench -p integration-tests --bench startup`

use std::time::Duration;

use integration_tests::Failure;
use integration_tests::program::BrokerProcess;
use integration_tests::report::{Report, Spread};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::time::Instant;

const STARTS: usize = 50;
const PROCESSES: usize = 5;
/// Long enough for everything that a start leaves behind to have settled.
const SETTLE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut in_process = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let broker = EmbeddedBroker::start().await?;
        in_process.push(start.elapsed().as_secs_f64() * 1_000.0);
        broker.shutdown().await;
    }
    let program = BrokerProcess::build()?;
    let (mut binary, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..PROCESSES {
        let start = Instant::now();
        let process = BrokerProcess::start(&program, &[])?;
        binary.push(start.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(SETTLE).await;
        resident.push(resident_mib(process.id())?);
    }
    let mut report = Report::new("startup", &["embedded broker"]);
    report.row("in process: start to ready, ms", [Spread::of(in_process)]);
    report.row("binary: spawn to ready line, ms", [Spread::of(binary)]);
    report.row("binary: resident when idle, MiB", [Spread::of(resident)]);
    report.note("bars: at most 10 ms in process, at most 30 MiB resident");
    report.finish();
    Ok(())
}

fn resident_mib(process: u32) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
