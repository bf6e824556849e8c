//! The offsets of a member that broadcasts: in memory, and in its file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::file::{OffsetFile, Refused, Table};
use super::unusable;
use crate::error::{Error, Result};
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::Tasks;

/// How long somebody else may still hold the file: an instance that is just ending.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What this member has consumed of each queue, as brokers name it.
#[derive(Debug)]
pub(in super::super) struct LocalOffsets {
    path: PathBuf,
    retries: u32,
    known: Arc<Mutex<Known>>,
    /// Writers take turns; none once it is closed.
    file: Arc<Mutex<Option<OffsetFile>>>,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Known {
    offsets: Table,
    /// Something is not in the file.
    changed: bool,
    failures: u32,
    closed: bool,
}

/// Why offsets are not in the file.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    pub(super) in_a_row: u32,
}

impl LocalOffsets {
    pub(super) async fn open(path: PathBuf, retries: u32, tasks: Tasks) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let (file, offsets) = loop {
            let wanted = path.clone();
            match tasks.compute(move || OffsetFile::open(&wanted)).await {
                Some(Ok(opened)) => break opened,
                Some(Err(Refused::InUse)) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                Some(Err(Refused::InUse)) => {
                    return Err(unusable(
                        &path,
                        format_args!(
                            "another consumer that runs on this machine uses it; give each its own \
                             Broadcasting::identity or instance name"
                        ),
                    ));
                }
                Some(Err(Refused::Unusable(error))) => return Err(error),
                None => return Err(Error::closed("the client")),
            }
        };
        Ok(Self {
            path,
            retries,
            known: Arc::new(Mutex::new(Known {
                offsets,
                ..Known::default()
            })),
            file: Arc::new(Mutex::new(Some(file))),
            tasks,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Where to go on in a queue.
    pub(in super::super) fn offset(&self, queue: &MessageQueue) -> Option<i64> {
        let known = lock(&self.known);
        // Java reads a negative offset as none.
        known.offsets.get(queue).copied().filter(|&offset| offset >= 0)
    }

    /// Whether any queue of a topic has been consumed.
    pub(in super::super) fn knows(&self, topic: &str) -> bool {
        let known = lock(&self.known);
        known.offsets.keys().any(|queue| *queue.topic == *topic)
    }

    /// Takes over how far queues are consumed.
    pub(super) fn note(&self, progress: impl IntoIterator<Item = (MessageQueue, i64)>) {
        let mut known = lock(&self.known);
        for (queue, offset) in progress {
            if known.offsets.get(&queue) != Some(&offset) {
                known.offsets.insert(queue, offset);
                known.changed = true;
            }
        }
    }

    /// Whether something is known that is not in the file.
    pub(super) fn is_behind(&self) -> bool {
        lock(&self.known).changed
    }

    /// Brings the file up to date, on a thread that may wait for the disk. Returns whether there was anything to write.
    pub(super) async fn store(&self) -> Result<bool, Failure> {
        let (known, file) = (Arc::clone(&self.known), Arc::clone(&self.file));
        let stored = self.tasks.compute(move || {
            // Under the lock of the file, or an older table could be written after a newer one.
            let mut file = lock(&file);
            let Some(open) = file.as_mut() else {
                return Ok(false);
            };
            let offsets = {
                let mut known = lock(&known);
                if !std::mem::take(&mut known.changed) {
                    return Ok(false);
                }
                known.offsets.clone()
            };
            let written = open.write(&offsets);
            let mut known = lock(&known);
            if known.closed {
                *file = None;
            }
            match written {
                Ok(()) => {
                    known.failures = 0;
                    Ok(true)
                }
                Err(error) => {
                    known.changed = true;
                    known.failures = known.failures.saturating_add(1);
                    let in_a_row = known.failures;
                    Err(Failure { error, in_a_row })
                }
            }
        });
        // Nothing was written if the runtime is being shut down.
        stored.await.unwrap_or(Ok(false))
    }

    /// Lets somebody else have the file; while it is being written, as soon as it is.
    pub(in super::super) fn close(&self) {
        lock(&self.known).closed = true;
        if let Ok(mut file) = self.file.try_lock() {
            file.take();
        }
    }
}

#[cfg(test)]
mod tests;
