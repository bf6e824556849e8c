//! Apache RocketMQ's own command line, `mqadmin` 5.5.0, as a child process: what it reads of a cluster is what an
//! operator reads.
//!
//! It comes with the jars of the servers. Each call is a JVM of its own and takes seconds.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{
    Failure,
    real::{Scratch, Version, tool_command},
    scenario::skip,
};

/// A JVM on two busy cores needs a while to start, and a client's first look-ups too.
const LIMIT: Duration = Duration::from_secs(120);

/// The command line of a cluster's operator.
#[derive(Debug)]
pub struct MqAdmin {
    name_server: String,
    home: Scratch,
}

impl MqAdmin {
    /// The tool for the cluster of this name server (`host:port`).
    ///
    /// # Errors
    /// A [`skip`] when the jars are not installed.
    pub fn new(name_server: impl Into<String>) -> Result<Self, Failure> {
        Version::V5.jars().map_err(|error| skip(error.to_string()))?;
        Ok(Self {
            name_server: name_server.into(),
            home: Scratch::new("mqadmin")?,
        })
    }

    /// Runs one command, for instance `run("topicList", &[])`; the name server is added. Gives what it prints.
    ///
    /// The tool ends well after most failures too, so the caller looks for what it expects in the text.
    ///
    /// # Errors
    /// With all that it printed when it fails, and when it does not end in two minutes.
    pub async fn run(&self, command: &str, arguments: &[&str]) -> Result<String, Failure> {
        Ok(self.run_aloud(command, arguments).await?.0)
    }

    /// The same, with what it complains of.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_aloud(&self, command: &str, arguments: &[&str]) -> Result<(String, String), Failure> {
        let mut main = vec!["org.apache.rocketmq.tools.command.MQAdminStartup", command];
        main.extend(["-n", &self.name_server]);
        main.extend(arguments);
        let line = tool_command(Version::V5, self.home.path(), &main)?;
        let (program, arguments) = line.split_first().ok_or("no command")?;
        let running = Command::new(program)
            .args(arguments)
            // Some commands write files where they are.
            .current_dir(self.home.path())
            .env("ROCKETMQ_HOME", self.home.path())
            .env_remove("NAMESRV_ADDR")
            .env_remove("JAVA_TOOL_OPTIONS")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT, running)
            .await
            .map_err(|_| format!("mqadmin {command} does not end"))??;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok((printed, complaint));
        }
        let status = output.status;
        Err(format!("mqadmin {command} ended with {status}\n{printed}\n{complaint}").into())
    }
}
