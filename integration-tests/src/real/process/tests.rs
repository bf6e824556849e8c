use std::fs;

use super::*;
use crate::real::Scratch;

const LIMIT: Duration = Duration::from_secs(20);

fn start(scratch: &Scratch, script: &str) -> Process {
    let command = ["sh", "-c", script].map(str::to_owned);
    Process::spawn("test", &command, scratch.path(), &scratch.path().join("log")).unwrap()
}

#[test]
fn the_child_ends_when_its_handle_is_dropped() {
    let scratch = Scratch::new("drop").unwrap();
    let process = start(&scratch, "exec sleep 600");
    let pid = process.pid;
    assert!(exists(pid).unwrap());
    drop(process);
    assert!(!exists(pid).unwrap());
}

#[test]
fn the_child_ends_when_the_process_that_started_it_is_killed() {
    let scratch = Scratch::new("orphan").unwrap();
    let script = scratch.path().join("guard.sh");
    fs::write(&script, format!("exec 4>/dev/null\n{GUARD}")).unwrap();
    // A sleeper stands for the test process: it holds the writing end of the guard's pipe, and is killed.
    let mut owner = Command::new("sleep")
        .arg("600")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut guard = Command::new("sh")
        .arg(&script)
        .args(["sleep", "600"])
        .stdin(owner.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(guard.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    assert!(exists(pid).unwrap());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + LIMIT;
    while exists(pid).unwrap() {
        assert!(Instant::now() < deadline, "the orphan {pid} lives on");
        thread::sleep(POLL);
    }
    guard.wait().unwrap();
}

#[test]
fn a_signal_reaches_the_child_and_its_end_is_seen() {
    let scratch = Scratch::new("signal").unwrap();
    let mut process = start(
        &scratch,
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    );
    process
        .wait_until("up", LIMIT, |log| Ok(fs::read_to_string(log)?.contains("up")))
        .unwrap();
    process.signal("TERM").unwrap();
    process.wait(LIMIT).unwrap();
    assert!(
        fs::read_to_string(scratch.path().join("log"))
            .unwrap()
            .contains("bye")
    );
    assert!(process.signal("TERM").is_err());
}

#[test]
fn a_child_that_ends_early_is_reported_with_the_end_of_its_log() {
    let scratch = Scratch::new("early").unwrap();
    let mut process = start(&scratch, "echo the reason; exit 3");
    let error = process
        .wait_until("readiness", LIMIT, |_| Ok(false))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("before readiness") && error.contains("the reason"),
        "{error}"
    );
}
