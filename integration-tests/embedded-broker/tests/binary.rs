//! The program: its one line, its signals, its exit codes, its memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Started {
    child: Child,
    line: String,
    rest: BufReader<std::process::ChildStdout>,
}

impl Started {
    fn new(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rocketmq-embedded-broker"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        rest.read_line(&mut line).unwrap();
        Self { child, line, rest }
    }

    fn value(&self, name: &str) -> &str {
        let value = self
            .line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} in {:?}", self.line))
    }

    /// Sends a signal and returns the exit code and what was printed after the first line.
    fn signal(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut rest = String::new();
        self.rest.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Only after a failed assertion is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn it_says_when_it_is_ready_and_ends_with_zero_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let started = Started::new(&["--port", "0"]);
        let words: Vec<_> = started.line.split_whitespace().collect();
        assert!(
            matches!(words[..], ["ready", _, _, "in", _, "ms"]),
            "{:?}",
            started.line
        );
        assert_eq!(started.value("name_server"), started.value("broker"));
        TcpStream::connect(started.value("name_server")).unwrap();
        assert_eq!(started.signal(signal), (Some(0), String::new()));
    }
}

#[cfg(unix)]
#[test]
fn it_takes_a_port_for_each_role() {
    let started = Started::new(&["--port", "0", "--broker-port=0", "--memory-limit", "64MiB"]);
    assert_ne!(started.value("name_server"), started.value("broker"));
    TcpStream::connect(started.value("broker")).unwrap();
    assert_eq!(started.signal("-TERM").0, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn at_idle_it_takes_less_than_30_mib() {
    let started = Started::new(&["--port", "0"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 30 * 1024, "{line}");
}

#[test]
fn wrong_arguments_end_it_with_two_and_a_taken_port_with_one() {
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_rocketmq-embedded-broker");
        let output = Command::new(program).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = run(&["--prot", "1"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        error,
        "rocketmq-embedded-broker: unknown argument \"--prot\"\nTry --help.\n"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, error) = run(&["--port", &port]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&format!("cannot bind 127.0.0.1:{port}")),
        "{error}"
    );
    assert_eq!(run(&["--version"]).0, Some(0));
}
