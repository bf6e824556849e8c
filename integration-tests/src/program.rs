//! The embedded broker as a program, for what only a process of its own can show.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// The embedded broker in a process of its own; dropping it ends the process.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    name_server: String,
}

impl BrokerProcess {
    /// Builds the program in release mode, where Cargo runs the caller. Done once, it costs a moment.
    ///
    /// # Errors
    /// When Cargo fails or there is no program afterwards.
    pub fn build() -> Result<PathBuf, Failure> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = [
            "build",
            "--quiet",
            "--release",
            "--package",
            "rocketmq-embedded-broker",
        ];
        let built = Command::new(cargo)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?;
        // A benchmark lies in <build directory>/release/deps.
        let program = env::current_exe()?;
        let directory = program
            .ancestors()
            .nth(2)
            .ok_or("the caller is in no build directory")?;
        let binary = directory.join("rocketmq-embedded-broker");
        if built.success() && binary.is_file() {
            Ok(binary)
        } else {
            Err(format!("{} was not built", binary.display()).into())
        }
    }

    /// Starts the program on a free port and waits for its ready line.
    ///
    /// # Errors
    /// When it does not start or says something else.
    pub fn start(binary: &PathBuf, arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(binary)
            .args(["--port", "0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line
            .strip_prefix("ready name_server=")
            .and_then(|rest| rest.split(' ').next());
        let name_server = address
            .ok_or_else(|| format!("no ready line but {line:?}"))?
            .to_owned();
        Ok(Self { child, name_server })
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> &str {
        &self.name_server
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to do about it here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
