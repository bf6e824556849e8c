//! Programs that send as fast as they can, in several languages, with one command line and one line of JSON as their
//! answer.
//!
//! ```text
//! --name-server HOST:PORT --topic NAME --mode MODE --body BYTES --warm-up-ms MS --run-ms MS
//! ```
//!
//! A program warms up, then measures itself: [`Outcome`] says what each number is. All of them send uncompressed
//! bodies with a unique id and no other property, leave every other setting of their client at its default, never
//! start more asynchronous sends than [`IN_FLIGHT`], and end each part of the run with one awaited send, so that all
//! that came before has left.
//!
//! The Java client alone also awaits one of 10000 one-way sends: beyond 65535 that wait to be written, it gets stuck.
//!
//! The sources are `src/bin/send-load` (ours, and the limit beside it), `peers/java/.../Load.java`, and
//! `peers/go/cmd/load`.

mod histogram;

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use histogram::Histogram;

use crate::Failure;
use crate::measured::{Program, Running};
use crate::real::Scratch;

/// How many asynchronous sends a program has in flight, at most.
pub const IN_FLIGHT: usize = 1024;
/// How many tasks or threads await their sends in [`Mode::Awaited64`].
pub const AWAITING: usize = 64;
/// How many messages a batch has.
pub const BATCH: usize = 32;

/// How a program sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One send at a time, each awaited.
    Awaited,
    /// [`AWAITING`] tasks or threads, each awaiting its own send.
    Awaited64,
    /// [`IN_FLIGHT`] at a time, each with a callback.
    Async,
    /// Without an answer. The latency is that of the call.
    OneWay,
    /// [`BATCH`] messages in each request, one request at a time, awaited. The latency is that of the request.
    Batch,
}

impl Mode {
    /// Every one of them.
    pub const ALL: [Self; 5] = [
        Self::Awaited,
        Self::Awaited64,
        Self::Async,
        Self::OneWay,
        Self::Batch,
    ];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Awaited => "awaited",
            Self::Awaited64 => "awaited-64",
            Self::Async => "async",
            Self::OneWay => "one-way",
            Self::Batch => "batch-32",
        }
    }
}

impl FromStr for Mode {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let mode = Self::ALL.into_iter().find(|mode| mode.name() == name);
        mode.ok_or_else(|| {
            format!("{name:?} is no mode: awaited, awaited-64, async, one-way, batch-32").into()
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The Java client 5.5.0.
    Java,
    /// The Go client.
    Go,
    /// `rocketmq-client` of this repository.
    Ours,
    /// The leanest program that still hands each caller its own reply: what the machine allows.
    Limit,
}

impl Sender {
    /// Every one of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Java, Self::Go, Self::Ours, Self::Limit];

    /// As in the table and in `SENDERS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Go => "go",
            Self::Ours => "ours",
            Self::Limit => "limit",
        }
    }

    /// Ready to run, or the skip that says what to install.
    ///
    /// # Errors
    /// A [`skip`](crate::scenario::skip) when the program is not installed.
    pub fn installed(self) -> Result<(), Failure> {
        self.peer().map_or(Ok(()), Program::installed)
    }

    fn peer(self) -> Option<Program> {
        match self {
            Self::Java => Some(Program::Java("Load")),
            Self::Go => Some(Program::Go("load")),
            Self::Ours | Self::Limit => None,
        }
    }

    fn command(self, ours: &Path, home: &Path) -> Command {
        match self.peer() {
            Some(peer) => peer.command(home),
            None => {
                let mut command = Command::new(ours);
                command.args(["--client", self.name()]);
                command
            }
        }
    }
}

impl FromStr for Sender {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let sender = Self::ALL.into_iter().find(|sender| sender.name() == name);
        sender.ok_or_else(|| format!("{name:?} is no sender: java, go, ours, limit").into())
    }
}

/// What a program is to do.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// `host:port`.
    pub name_server: &'a str,
    /// A topic that can be written.
    pub topic: &'a str,
    /// How to send.
    pub mode: Mode,
    /// Bytes of each body.
    pub body: usize,
    /// How long to send before measuring, in milliseconds.
    pub warm_up_ms: u64,
    /// How long to start sends while measuring, in milliseconds.
    pub run_ms: u64,
}

/// What a program says of its measured part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How many messages were sent; acknowledged ones, except one-way.
    pub messages: u64,
    /// How many were refused, by the client or the broker.
    pub failures: u64,
    /// From the first send to the last answer.
    pub seconds: f64,
    /// The median time of a send, in microseconds.
    pub p50_us: f64,
    /// The time that one in a hundred sends exceeds, in microseconds.
    pub p99_us: f64,
    /// User and system time of the process.
    pub cpu_seconds: f64,
    /// The most memory that was ever resident, warm-up included, in MiB.
    pub peak_mib: f64,
}

impl Plan<'_> {
    /// Runs a program to its end; `ours` is the program of this repository.
    ///
    /// # Errors
    /// When it does not start, fails, or does not answer with one line; with the end of what it complained about.
    pub fn run(&self, sender: Sender, ours: &Path) -> Result<Outcome, Failure> {
        let home = Scratch::new("load")?;
        let mut command = sender.command(ours, home.path());
        command
            .args(["--name-server", self.name_server, "--topic", self.topic])
            .args(["--mode", self.mode.name(), "--body", &self.body.to_string()])
            .args(["--warm-up-ms", &self.warm_up_ms.to_string()])
            .args(["--run-ms", &self.run_ms.to_string()]);
        Running::start(format!("{} {}", sender.name(), self.mode), command, home)?.figures()
    }
}
