//! The small programs do what their first line says, each with a broker inside its own process.

use std::process::{Command, Output};

fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    // No broker of the developer's machine.
    command.env_clear();
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_client_receives_what_it_sent() {
    let output = program(env!("CARGO_BIN_EXE_client")).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}{err}");
    for line in [
        "received \"hello number 1\", tag Some(\"hello\")",
        "received \"goodbye number 3\", tag Some(\"goodbye\")",
    ] {
        assert!(out.contains(line), "{out}");
    }
}

#[test]
fn the_bridge_sends_in_every_way_and_refuses_a_mistyped_name() {
    let output = program(env!("CARGO_BIN_EXE_bridge")).output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(
        out.contains("received Bill { order: 2, total: 12.0 }, tag Some(\"vip\"), keys Some(\"2\")"),
        "{out}"
    );
    assert!(
        out.contains("refused: no output binding `bill-out-0`; did you mean `bills-out-0`?"),
        "{out}"
    );
    assert_eq!(out.matches("received").count(), 3, "{out}");
}

#[cfg(unix)]
#[test]
fn the_consumer_runs_until_it_is_told_to_stop() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::Stdio,
    };

    let mut child = program(env!("CARGO_BIN_EXE_consumer"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for Ctrl-C or SIGTERM") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("stopped"), "{rest}");
}
