//! The comprehensive sample as its user runs it: a process, its output and its exit code.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use rocketmq_embedded_broker::EmbeddedBroker;
use serde_json::Value;

fn sample(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comprehensive"));
    // Neither a broker nor a configuration of the developer's machine may change the result.
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// The last line of standard output as JSON, after a check that it says `sent`, `received`, `failed`.
fn summary(output: &Output, counts: [u64; 3]) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let summary: Value =
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{last:?}: {e}\n{}", errors(output)));
    let found = ["sent", "received", "failed"].map(|key| summary[key].as_u64());
    assert_eq!(found, counts.map(Some), "{}", errors(output));
    summary
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_count_of_numbers_goes_all_the_way_through_the_embedded_broker() {
    let output = sample(&["--count", "200", "--json"]).output().unwrap();
    let summary = summary(&output, [200, 200, 0]);
    assert!(summary["mean_us"].as_u64() <= summary["p99_us"].as_u64());
    assert!(summary["p99_us"].as_u64() > Some(0));
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("processor 3 -> 9\n"), "{text}");
}

#[test]
fn records_from_standard_input_are_squared_and_those_that_cannot_be_are_failures() {
    let mut child = sample(&["--input", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let records = b"3\n2.5\n\n\"three\"\nno json\n-18446744073709551615\n18446744073709551615\n";
    child.stdin.take().unwrap().write_all(records).unwrap();
    let output = child.wait_with_output().unwrap();
    summary(&output, [5, 4, 2]);
    assert_eq!(output.status.code(), Some(1));
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        errors(&output),
    );
    assert!(text.contains("processor 2.5 -> 6.25\n"), "{text}");
    assert!(
        text.contains("18446744073709551615 -> 340282366920938463426481119284349108225\n"),
        "{text}"
    );
    assert!(errors.contains("line 5 is no JSON value"), "{errors}");
    assert!(errors.contains("payload is no"), "{errors}");
}

#[test]
fn a_count_limits_the_records_that_are_read() {
    let file = std::env::temp_dir().join(format!("comprehensive-{}.jsonl", std::process::id()));
    std::fs::write(&file, "1\n2\n3\n4\n5\n").unwrap();
    let output = sample(&["--count=3", "--json", "--input"])
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    summary(&output, [3, 3, 0]);
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_on_a_cluster_counts_only_its_own_records() {
    let broker = EmbeddedBroker::start().await.unwrap();
    let run = |records: &'static str| {
        let name_server = broker.name_server();
        tokio::task::spawn_blocking(move || {
            let mut command = sample(&["--count", records, "--json"]);
            command.env("NAMESRV_ADDR", name_server).output().unwrap()
        })
    };
    // What an earlier run, or anybody else, left in the topic of numbers.
    let client = rocketmq_client::Client::connect(broker.name_server())
        .await
        .unwrap();
    let producer = client.producer("somebody").start().await.unwrap();
    for text in ["7", "8", "no number"] {
        producer
            .send(rocketmq_client::Message::new("num", text))
            .await
            .unwrap();
    }
    client.shutdown().await;
    for records in ["20", "30"] {
        let output = run(records).await.unwrap();
        let count = records.parse().unwrap();
        summary(&output, [count, count, 0]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    }
    broker.shutdown().await;
}

#[test]
fn mistakes_are_explained_on_standard_error() {
    // A port on which nobody listens.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    for (arguments, name_server, code, expected) in [
        (&["--conut", "3"][..], "", 2, "unknown argument --conut"),
        (&["--count", "none"], "", 2, "--count is \"none\""),
        (&["--input", "/no/such/file"], "", 1, "cannot open /no/such/file"),
        (&["--config", "/no/such/file"], "", 1, "/no/such/file"),
        (&["--count", "1"], closed.as_str(), 1, closed.as_str()),
    ] {
        let output = sample(arguments)
            .env("NAMESRV_ADDR", name_server)
            .output()
            .unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    let output = sample(&["--help"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("Numbers go"),
        "{}",
        errors(&output)
    );
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_that_has_no_end_with_its_summary() {
    use std::io::{BufRead, BufReader, Read};

    let mut child = sample(&["--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("consumer") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(summary["sent"], summary["received"]);
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_that_waits_for_a_line() {
    use std::io::{BufRead, BufReader};

    let mut child = sample(&["--input", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"6\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().starts_with("consumer")));
    // The pipe stays open: another line could come.
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last = lines.last().unwrap().unwrap();
    assert!(
        last.starts_with(r#"{"sent":1,"received":1,"failed":0,"#),
        "{last}"
    );
    drop(input);
}
