//! Programs that consume, in several languages, with one command line and one line of JSON as their answer.
//!
//! ```text
//! --name-server HOST:PORT --topic NAME --group NAME --kind KIND --work WORK --messages COUNT --settle-ms MS --run-ms MS
//! ```
//!
//! Ours also takes `--groups COUNT`: so many consumers in one process, each of a group of its own.
//!
//! A program starts one consumer of a group that nobody has used, measures itself, and ends: [`Work`] says what it does,
//! [`Outcome`] what each number is. Beside that every setting of its client stays at its default.
//!
//! The sources are `src/bin/consume-load` (ours), `peers/java/.../ConsumeLoad.java`, and `peers/go/cmd/consume-load`.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::measured::{Program, Running};
use crate::real::Scratch;

/// What a program does with its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Takes so many messages of a backlog, from the oldest on.
    Drain,
    /// Notes how old messages are when they come. Their bodies begin with the time at which they were due to be sent, in
    /// nanoseconds since 1970, and a blank; those that were due before all had settled do not count.
    Latency,
    /// Notes how long it takes from the start of the consumer to the first message of a backlog.
    First,
    /// Waits for messages that do not come.
    Idle,
}

impl Work {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Drain, Self::Latency, Self::First, Self::Idle];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Latency => "latency",
            Self::First => "first",
            Self::Idle => "idle",
        }
    }
}

impl FromStr for Work {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let work = Self::ALL.into_iter().find(|work| work.name() == name);
        work.ok_or_else(|| format!("{name:?} is no work: drain, latency, first, idle").into())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who consumes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// The Java push consumer 5.5.0.
    JavaPush,
    /// The Java lite-pull consumer 5.5.0.
    JavaLitePull,
    /// The Go push consumer.
    GoPush,
    /// Ours.
    Push,
    /// Ours.
    LitePull,
}

impl Consumer {
    /// Every one of them, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::JavaPush,
        Self::JavaLitePull,
        Self::GoPush,
        Self::Push,
        Self::LitePull,
    ];

    /// As in the table and in `CONSUMERS`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JavaPush => "java-push",
            Self::JavaLitePull => "java-lite-pull",
            Self::GoPush => "go-push",
            Self::Push => "push",
            Self::LitePull => "lite-pull",
        }
    }

    /// Whether it is of this repository.
    #[must_use]
    pub fn is_ours(self) -> bool {
        self.peer().is_none()
    }

    /// As on the command line of a program.
    fn kind(self) -> &'static str {
        match self {
            Self::JavaPush | Self::GoPush | Self::Push => "push",
            Self::JavaLitePull | Self::LitePull => "lite-pull",
        }
    }

    fn peer(self) -> Option<Program> {
        match self {
            Self::JavaPush | Self::JavaLitePull => Some(Program::Java("ConsumeLoad")),
            Self::GoPush => Some(Program::Go("consume-load")),
            Self::Push | Self::LitePull => None,
        }
    }

    /// Ready to run, or the skip that says what to install.
    ///
    /// # Errors
    /// A [`skip`](crate::scenario::skip) when the program is not installed.
    pub fn installed(self) -> Result<(), Failure> {
        self.peer().map_or(Ok(()), Program::installed)
    }
}

impl FromStr for Consumer {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let consumer = Self::ALL.into_iter().find(|consumer| consumer.name() == name);
        consumer.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|consumer| consumer.name()).collect();
            format!("{name:?} is no consumer: {}", names.join(", ")).into()
        })
    }
}

/// What a program is to do.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// `host:port`.
    pub name_server: &'a str,
    /// A topic that exists.
    pub topic: &'a str,
    /// A group that nobody has used.
    pub group: &'a str,
    /// What to do.
    pub work: Work,
    /// How many messages to take ([`Work::Drain`]) or to note ([`Work::Latency`]).
    pub messages: u64,
    /// How long after its start the first message is due that counts ([`Work::Latency`]), in milliseconds.
    pub settle_ms: u64,
    /// How long to wait ([`Work::Idle`]), in milliseconds; before that, half as long for all to settle.
    pub run_ms: u64,
    /// How many consumers of as many groups there are in one process; more than one with ours only.
    pub groups: u32,
}

/// What a program says of itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How many messages it took or noted.
    pub messages: u64,
    /// From the first of them to the last; of [`Work::Idle`], how long it waited.
    pub seconds: f64,
    /// The median age of a message, in microseconds; of [`Work::First`], the time to the first one.
    pub p50_us: f64,
    /// The age that one in a hundred messages exceeds, in microseconds.
    pub p99_us: f64,
    /// User and system time of the process; from the start of the consumer on for [`Work::Drain`] and [`Work::First`],
    /// for `seconds` otherwise.
    pub cpu_seconds: f64,
    /// The most memory that was ever resident, in MiB.
    pub peak_mib: f64,
}

/// A consuming program that runs.
#[derive(Debug)]
pub struct Consuming(Running);

impl Consuming {
    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    /// What it says once it has ended.
    ///
    /// # Errors
    /// When it failed or did not answer with one line; with the end of what it complained about.
    pub fn outcome(self) -> Result<Outcome, Failure> {
        self.0.figures()
    }
}

impl Plan<'_> {
    /// Starts a program; `ours` is that of this repository.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, consumer: Consumer, ours: &Path) -> Result<Consuming, Failure> {
        let home = Scratch::new("consume")?;
        let mut command = match consumer.peer() {
            Some(peer) => peer.command(home.path()),
            None => Command::new(ours),
        };
        command
            .args(["--name-server", self.name_server, "--topic", self.topic])
            .args(["--group", self.group, "--kind", consumer.kind()])
            .args(["--work", self.work.name()])
            .args(["--messages", &self.messages.to_string()])
            .args(["--settle-ms", &self.settle_ms.to_string()])
            .args(["--run-ms", &self.run_ms.to_string()]);
        if consumer.is_ours() {
            command.args(["--groups", &self.groups.to_string()]);
        }
        let what = format!("{} {}", consumer.name(), self.work);
        Running::start(what, command, home).map(Consuming)
    }
}
