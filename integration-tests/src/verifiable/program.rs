//! A program as a child process whose lines go into a history.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Failure,
    history::{Event, History, Line, Member},
    scenario::eventually,
    usage,
};

/// Longer than any program takes to end, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(120);

/// A running program. It ends when this is dropped, and with the process that started it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// The program ends with this. To wait for a child closes what is left with it.
    _lifeline: Option<ChildStdin>,
    history: Arc<History>,
    /// Reads what it says.
    reader: JoinSet<Result<(), Failure>>,
}

impl Program {
    /// Starts an executable under a name that no other process of the history has. Its lines go into the history as
    /// they come.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        executable: impl AsRef<Path>,
        name: &str,
        options: &[(&str, &str)],
        history: &Arc<History>,
    ) -> Result<Self, Failure> {
        Self::start_with(executable, name, options, &[], history)
    }

    /// The same with further variables of the environment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(
        executable: impl AsRef<Path>,
        name: &str,
        options: &[(&str, &str)],
        environment: &[(&str, &str)],
        history: &Arc<History>,
    ) -> Result<Self, Failure> {
        let executable = executable.as_ref();
        let mut child = Command::new(executable)
            .args(["--proc", name])
            .args(options.iter().flat_map(|(option, value)| [option, value]))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", executable.display()))?;
        let lifeline = child.stdin.take();
        let output = child.stdout.take().ok_or("no standard output")?;
        let mut reader = JoinSet::new();
        let into = Arc::clone(history);
        reader.spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Some(line) = lines.next_segment().await? {
                match serde_json::from_slice::<Line>(&line) {
                    Ok(line) => into.push(line),
                    // The last line of a process that was killed while it wrote.
                    Err(error) if error.is_eof() => {}
                    Err(error) => {
                        let line = String::from_utf8_lossy(&line);
                        return Err(format!("{line:?} is no line of a history: {error}").into());
                    }
                }
            }
            Ok(())
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            _lifeline: lifeline,
            history: Arc::clone(history),
            reader,
        })
    }

    /// Its name in the lines.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most memory that it ever had, in MiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak_resident_mib(&self) -> Result<f64, Failure> {
        let id = self
            .child
            .id()
            .ok_or_else(|| format!("{} has ended", self.name))?;
        usage::peak_resident_mib_of(id)
    }

    /// Waits until it has joined its group.
    ///
    /// # Errors
    /// When it ends before, or does not within a minute.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let what = format!("{} to be ready", self.name);
        eventually(&what, async || {
            let ended = self.child.try_wait()?;
            if ended.is_some() {
                self.read_to_the_end().await?;
            }
            match (self.has_said(Member::Ready), ended) {
                // One that has little to do may have done it by now.
                (true, _) => Ok(true),
                (false, None) => Ok(false),
                (false, Some(status)) => {
                    Err(format!("{} ended before it was ready: {status}", self.name).into())
                }
            }
        })
        .await
    }

    fn has_said(&self, wanted: Member) -> bool {
        let is_it = |line: &Line| {
            line.proc == self.name && matches!(&line.event, Event::Member { state, .. } if *state == wanted)
        };
        self.history.count(is_it) > 0
    }

    /// Kills it with SIGKILL, and returns when all that it had said is in the history.
    ///
    /// # Errors
    /// When it has ended before: then there was nothing to kill.
    pub async fn kill(mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{} has ended already: {status}", self.name).into());
        }
        self.history.fault("kill", Some(&self.name));
        self.child.start_kill()?;
        self.end().await?;
        Ok(())
    }

    /// Asks it to stop, with SIGTERM.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn terminate(&self) -> Result<(), Failure> {
        self.signal("TERM").await
    }

    /// Asks it to stop with SIGTERM and waits until it has.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn stop(self) -> Result<(), Failure> {
        self.terminate().await?;
        self.ended_well().await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in two minutes, or not well.
    pub async fn ended_well(mut self) -> Result<(), Failure> {
        let status = self.end().await?;
        if !status.success() {
            return Err(format!("{} ended with {status}", self.name).into());
        }
        if !self.has_said(Member::Left) {
            return Err(format!("{} ended without saying so", self.name).into());
        }
        Ok(())
    }

    /// Sends a signal by its name, such as `STOP`.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn signal(&self, signal: &str) -> Result<(), Failure> {
        let id = self
            .child
            .id()
            .ok_or_else(|| format!("{} has ended", self.name))?;
        let done = Command::new("kill")
            .args([format!("-{signal}"), id.to_string()])
            .status()
            .await?;
        if done.success() {
            Ok(())
        } else {
            Err(format!("{}: SIG{signal} failed: {done}", self.name).into())
        }
    }

    async fn end(&mut self) -> Result<ExitStatus, Failure> {
        let end = async {
            let status = self.child.wait().await?;
            self.read_to_the_end().await?;
            Ok(status)
        };
        timeout(LIMIT, end)
            .await
            .unwrap_or_else(|_| Err(format!("{} does not end in {LIMIT:?}", self.name).into()))
    }

    /// Waits until all that it has said, and left to say by its end, is in the history.
    async fn read_to_the_end(&mut self) -> Result<(), Failure> {
        while let Some(read) = self.reader.join_next().await {
            read??;
        }
        Ok(())
    }
}
