//! The programs of `examples`, as users run them, against each target.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use integration_tests::{
    Failure,
    scenario::{TestResult, skip},
    scenarios,
    target::Target,
};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::inbox::expect;

scenarios![the_comprehensive_sample_takes_all_records_through];

/// A program of `examples`, which `cargo test --workspace` builds beside this test.
fn program(name: &str) -> Result<PathBuf, Failure> {
    let test = env::current_exe()?;
    let directory = test
        .parent()
        .and_then(|dependencies| dependencies.parent())
        .ok_or("a test outside a build")?;
    let path = directory.join(name).with_extension(env::consts::EXE_EXTENSION);
    if path.is_file() {
        Ok(path)
    } else {
        Err(skip(format!(
            "no {}: run `cargo build -p examples`, or the tests of the whole workspace",
            path.display()
        )))
    }
}

async fn the_comprehensive_sample_takes_all_records_through(target: &Target) -> TestResult {
    let program = program("comprehensive")?;
    // Two kinds of records: the counter's, and the user's own.
    for (arguments, records, count) in [
        (["--count", "25"], String::new(), 25),
        (["--input", "-"], "1\n2\n-3\n4.5\n".repeat(10), 40),
    ] {
        let mut child = Command::new(&program)
            .args(arguments)
            .arg("--json")
            .env("NAMESRV_ADDR", target.name_server())
            // Groups and topics of this run's own, where others may be at work on the same cluster.
            .env(
                "SPRING_CLOUD_STREAM_BINDINGS_PRODUCEROUT0_DESTINATION",
                target.topic(&format!("num{count}")),
            )
            .env(
                "SPRING_CLOUD_STREAM_BINDINGS_PROCESSORIN0_DESTINATION",
                target.topic(&format!("num{count}")),
            )
            .env(
                "SPRING_CLOUD_STREAM_BINDINGS_PROCESSOROUT0_DESTINATION",
                target.topic(&format!("square{count}")),
            )
            .env(
                "SPRING_CLOUD_STREAM_BINDINGS_CONSUMERIN0_DESTINATION",
                target.topic(&format!("square{count}")),
            )
            .env(
                "SPRING_CLOUD_STREAM_BINDINGS_PROCESSORIN0_GROUP",
                target.group("processor"),
            )
            .env(
                "SPRING_CLOUD_STREAM_BINDINGS_CONSUMERIN0_GROUP",
                target.group("consumer"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        stdin.write_all(records.as_bytes()).await?;
        drop(stdin);
        let output = timeout(Duration::from_secs(120), child.wait_with_output()).await??;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        let summary = out.lines().last().unwrap_or_default();
        let summary: Value =
            serde_json::from_str(summary).map_err(|error| format!("{error} in {summary:?}\n{out}\n{err}"))?;
        for (name, wanted) in [("sent", count), ("received", count), ("failed", 0)] {
            expect(
                &format!("{name} of {arguments:?}\n{out}\n{err}\n"),
                summary[name].as_u64(),
                Some(wanted),
            )?;
        }
        expect(
            "a mean latency",
            summary["mean_us"].is_number() && summary["p99_us"].is_number(),
            true,
        )?;
        expect("exit code", output.status.code(), Some(0))?;
    }
    Ok(())
}
