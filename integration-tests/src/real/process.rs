//! A child process that never outlives the test process, however that ends.
//!
//! The child runs below a few lines of `sh` that hold a pipe from the test process. When the pipe closes (the value
//! is dropped, the test panics and the process exits, the process is killed) the child gets SIGKILL. Asking the
//! kernel for the same would take `unsafe` code.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::Failure;

/// `$@` is the child's command line. Descriptor 3 is the pipe whose end means "the test process is gone".
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >&4 2>&4 &
child=$!
echo "$child"
{ cat <&3 >/dev/null; kill -9 "$child" 2>/dev/null; } >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$child"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;

const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Process {
    name: String,
    guard: Child,
    pid: u32,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with its standard output and error in the file `log`.
    pub(super) fn spawn(name: &str, command: &[String], home: &Path, log: &Path) -> Result<Self, Failure> {
        File::create(log)?;
        let mut guard = Command::new("sh")
            // Opened by the shell, because a descriptor above 2 cannot be handed over without `unsafe`.
            .args(["-c", &format!("exec 4>>\"$LOG\"\n{GUARD}"), "guard"])
            .args(command)
            .env("LOG", log)
            .env("ROCKETMQ_HOME", home)
            .env_remove("NAMESRV_ADDR")
            .env_remove("JAVA_TOOL_OPTIONS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // the shell itself has nothing to say but "Killed"
            .spawn()
            .map_err(|error| format!("{name}: cannot start sh: {error}"))?;
        let lifeline = guard.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = guard.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line
            .trim()
            .parse()
            .map_err(|_| format!("{name}: no process id, but {line:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            guard,
            pid,
            lifeline,
            log: log.to_owned(),
        })
    }

    /// Sends a signal by its name, such as `TERM`. A process that has ended cannot be signalled.
    pub(super) fn signal(&mut self, signal: &str) -> Result<(), Failure> {
        if let Some(status) = self.guard.try_wait()? {
            return Err(format!("{} has ended already ({status}), no SIG{signal}", self.name).into());
        }
        let done = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid.to_string())
            .status()?;
        if done.success() {
            Ok(())
        } else {
            Err(format!("{}: SIG{signal} failed: {done}", self.name).into())
        }
    }

    /// Waits for the end, which a signal has ordered.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        while self.guard.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(format!(
                    "{} still runs {limit:?} after the signal{}",
                    self.name,
                    self.log_tail()
                )
                .into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Polls until `ready` says true, the process ends, or the limit is over.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut(&Path) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        let mut last: Result<bool, Failure>;
        loop {
            if let Some(status) = self.guard.try_wait()? {
                return Err(format!(
                    "{} ended with {status} before {what}{}",
                    self.name,
                    self.log_tail()
                )
                .into());
            }
            last = ready(&self.log);
            if matches!(last, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                break;
            }
            thread::sleep(POLL);
        }
        let why = last.err().map(|error| format!(" ({error})")).unwrap_or_default();
        Err(format!(
            "{} waited {limit:?} in vain for {what}{why}{}",
            self.name,
            self.log_tail()
        )
        .into())
    }

    fn log_tail(&self) -> String {
        const LINES: usize = 15;
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(LINES);
        let tail: Vec<&str> = text.lines().skip(skip).collect();
        format!(
            "\n--- end of {} ---\n{}\n---",
            self.log.display(),
            tail.join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lifeline.take(); // the guard answers with SIGKILL
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.guard.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
    }
}

/// Whether a process of this id exists.
pub(super) fn exists(pid: u32) -> io::Result<bool> {
    Path::new("/proc").join(pid.to_string()).try_exists()
}

#[cfg(test)]
mod tests;
