//! How fast the embedded broker is there and how little it needs when idle.
//!
//! Build the binary first: `cargo build --release -p rocketmq-embedded-broker`, then
//! `cargo bench -p integration-tests --bench startup`

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::report::{Report, Spread};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::time::Instant;

const STARTS: usize = 50;
const PROCESSES: usize = 5;
/// Long enough for everything that a start leaves behind to have settled.
const SETTLE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut in_process = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let broker = EmbeddedBroker::start().await?;
        in_process.push(start.elapsed().as_secs_f64() * 1_000.0);
        broker.shutdown().await;
    }
    let (mut binary, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..PROCESSES {
        let start = Instant::now();
        let mut process = Command::new(binary_path())
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        binary.push(start.elapsed().as_secs_f64() * 1_000.0);
        assert!(line.starts_with("ready name_server=127.0.0.1:"), "{line}");
        tokio::time::sleep(SETTLE).await;
        resident.push(resident_mib(process.id())?);
        process.kill()?;
        process.wait()?;
    }
    let mut report = Report::new("startup", &["embedded broker"]);
    report.row("in process: start to ready, ms", [Spread::of(in_process)]);
    report.row("binary: spawn to ready line, ms", [Spread::of(binary)]);
    report.row("binary: resident when idle, MiB", [Spread::of(resident)]);
    report.note("bars: at most 10 ms in process, at most 30 MiB resident");
    report.finish();
    Ok(())
}

/// The binary beside this benchmark, in the same profile's directory.
fn binary_path() -> PathBuf {
    let benchmark = std::env::current_exe().unwrap_or_default();
    let path = benchmark
        .ancestors()
        .nth(2)
        .map(|directory| directory.join("rocketmq-embedded-broker"));
    let path = path.unwrap_or_default();
    assert!(
        path.is_file(),
        "{} is not there: cargo build --release -p rocketmq-embedded-broker",
        path.display()
    );
    path
}

fn resident_mib(process: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
