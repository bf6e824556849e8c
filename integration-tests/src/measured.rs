//! How a program of one of the languages is run for its figures.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::de::DeserializeOwned;

use crate::peer::Language;
use crate::real::Scratch;
use crate::scenario::skip;
use crate::{Failure, peers_directory};

/// A program of the Java or the Go peers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// A class of the package `peers`, with the client 5.5.0.
    Java(&'static str),
    /// A command.
    Go(&'static str),
}

impl Program {
    /// Ready to run, or the skip that says what to install.
    pub(crate) fn installed(self) -> Result<(), Failure> {
        let (language, program) = match self {
            Self::Java(class) => (Language::Java5, format!("java-5.5.0/classes/peers/{class}.class")),
            Self::Go(command) => (Language::Go, format!("go/{command}")),
        };
        language.installed()?;
        let program = peers_directory().join(program);
        if program.is_file() {
            return Ok(());
        }
        let program = program.display();
        Err(skip(format!(
            "no {program}: run `bash integration-tests/peers/install`"
        )))
    }

    /// The command; `home` is where the Java client writes its log.
    pub(crate) fn command(self, home: &Path) -> Command {
        match self {
            Self::Java(class) => {
                let mut command = Command::new("java");
                let directory = peers_directory().join("java-5.5.0");
                command
                    .arg(format!("-Duser.home={}", home.display()))
                    .args(["-cp", &format!("{0}/classes:{0}/lib/*", directory.display())])
                    .arg(format!("peers.{class}"));
                command
            }
            Self::Go(command) => Command::new(peers_directory().join("go").join(command)),
        }
    }
}

/// A program that runs and will say its figures in one line of JSON.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    complaints: PathBuf,
    /// Goes away with it.
    _home: Scratch,
}

impl Running {
    /// Starts a program. `what` names it and what it does; `home` is a directory of its own.
    pub(crate) fn start(what: String, mut command: Command, home: Scratch) -> Result<Self, Failure> {
        let complaints = home.path().join("stderr");
        let child = command
            .env_remove("NAMESRV_ADDR")
            .env_remove("JAVA_TOOL_OPTIONS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints)?)
            .spawn()
            .map_err(|error| format!("{what}: {error}"))?;
        Ok(Self {
            name: what,
            child,
            complaints,
            _home: home,
        })
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its figures, once it has ended; with the end of what it complained about if it has none.
    pub(crate) fn figures<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        match serde_json::from_str(&said) {
            Ok(figures) if output.status.success() => Ok(figures),
            _ => {
                let complaints = std::fs::read_to_string(&self.complaints).unwrap_or_default();
                let skipped = complaints.lines().count().saturating_sub(15);
                let tail: Vec<&str> = complaints.lines().skip(skipped).collect();
                let (name, status, tail) = (self.name, output.status, tail.join("\n"));
                Err(format!("{name}: {status}, said {said:?}\n{tail}").into())
            }
        }
    }
}
