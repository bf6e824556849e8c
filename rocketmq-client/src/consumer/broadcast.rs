//! Broadcasting: every member of a group consumes every queue, and keeps its own offsets in a file.
//!
//! Brokers know such a member by its heartbeats, and no more: they keep no offset of it, take nothing back from it, and
//! tell it of no other member. What a handler fails at is tried again here, and then dropped.
//!
//! Protocol source: `LocalFileOffsetStore`, `ConsumeMessageConcurrentlyService#processConsumeResult`.

mod file;
mod offsets;

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, error, info};

pub(super) use offsets::LocalOffsets;

use super::assignment::Removed;
use super::engine::{Counters, Engine};
use super::outcome::GiveBack;
use super::remote::Remote;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::sync::lock;
use crate::telemetry;

/// How a consumer consumes by broadcasting: where it keeps its offsets, and what becomes of messages that fail.
///
/// # The file
/// Offsets are in `<directory>/<identity>/<group>/offsets.json`, the one before in `offsets.json.bak`, in Java's format:
/// either client goes on where the other stopped. A new file is written completely and flushed to the disk before it
/// replaces the old one, so that neither a crash nor a full disk leaves half a file. If writing fails, that is logged and
/// counted ([`OFFSET_FILE_FAILURES`](crate::telemetry::OFFSET_FILE_FAILURES),
/// [`ConsumerStats::offset_writes_failed`](crate::ConsumerStats::offset_writes_failed)), the old file stays, and the next
/// commit tries again.
///
/// A file that cannot be read is replaced by the one before it, with a warning. If that cannot be read either, the
/// consumer does not start: it would have to skip messages or to repeat all of them, which is not for it to decide.
///
/// Offsets of queues that are gone stay in the file, and count again if the queues come back.
///
/// # The identity
/// It tells members on one machine, or on one shared directory, apart, and has to be the same at the next start. By
/// default it is what Java's consumer has: `<ip>@<instance name>`, or `<ip>@DEFAULT` without an
/// [instance name](crate::ClientBuilder::instance_name). Where addresses change, as in containers, set one. Two members
/// of one group that run at the same time need two identities; the second one with the same does not start.
///
/// # Failures
/// A message whose handler fails is handed to it again [`retries`](Self::retries) times, each time after
/// [`retry_delay`](Self::retry_delay); other messages of the queue go on meanwhile. Then it is dropped, which is logged
/// as an error and counted ([`ConsumerStats::dropped`](crate::ConsumerStats::dropped)). Java drops it after the first
/// failure. [`Outcome::Reject`](crate::Outcome::Reject) drops it at once. There is no retry topic and no dead letter;
/// a [layer](crate::PushConsumerBuilder::layer) that sees the last failure can send the message elsewhere.
#[derive(Clone, Debug)]
pub struct Broadcasting {
    directory: Option<PathBuf>,
    identity: Option<String>,
    retries: u32,
    retry_delay: Duration,
}

impl Default for Broadcasting {
    fn default() -> Self {
        Self {
            directory: None,
            identity: None,
            retries: 3,
            retry_delay: Duration::from_secs(5),
        }
    }
}

impl Broadcasting {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The directory of all offset files; made if it does not exist. Default `.rocketmq_offsets` in the user's home.
    /// Java: the property `rocketmq.client.localOffsetStoreDir`.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What tells this member apart; one name of a directory. Default as above. Java: the client id.
    ///
    /// To go on where a Java consumer stopped, give its client id: `<ip>@DEFAULT` unless it has an instance name.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// How often a message is handed out again before it is dropped. Default 3; 0 as in Java.
    #[must_use]
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times;
        self
    }

    /// How long a message waits before it is handed out again. Default 5 s.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    pub(super) fn delay(&self) -> Duration {
        self.retry_delay
    }

    /// What is wrong with them.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(identity) = &self.identity {
            let mut parts = Path::new(identity).components();
            let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            if !is_name || identity.contains(['/', '\\', '\0']) || identity.len() > 255 {
                faults.push(format!(
                    "the identity {identity:?} for broadcasting cannot be the name of a directory"
                ));
            }
        }
        if self.directory.is_none() && std::env::home_dir().is_none() {
            faults.push(
                "broadcasting needs a directory for its offsets, and the user has no home; set one".into(),
            );
        }
        faults
    }

    /// Where the offsets of a group, as brokers know it, are.
    fn path(&self, cluster: &Cluster, wire_group: &str) -> PathBuf {
        let home = || std::env::home_dir().unwrap_or_default().join(".rocketmq_offsets");
        let mut path = self.directory.clone().unwrap_or_else(home);
        path.push(match &self.identity {
            Some(identity) => identity.clone(),
            None => cluster.stable_id(),
        });
        path.push(wire_group);
        path.push("offsets.json");
        path
    }
}

impl LocalOffsets {
    /// Reads the offsets of a group and keeps everybody else from writing them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the directory cannot be used, somebody else uses it, or what is
    /// there cannot be read.
    pub(super) async fn of_group(settings: &Broadcasting, remote: &Remote) -> Result<Self> {
        let path = settings.path(remote.cluster(), remote.wire_group());
        Self::open(path, settings.retries, remote.cluster().tasks().clone())
            .await
            .map_err(|error| error.context(format_args!("offsets of group {}", remote.wire_group())))
    }
}

impl Engine {
    /// Writes how far all queues are consumed.
    pub(super) async fn store_progress(&self, local: &LocalOffsets) {
        let progress = lock(&self.assignment).progress();
        local.note(
            progress
                .into_iter()
                .map(|(queue, offset)| (self.remote.wire_queue(&queue), offset)),
        );
        self.store(local).await;
    }

    /// Writes how far lost queues were consumed.
    pub(super) async fn store_removed(&self, local: &LocalOffsets, removed: &[Removed]) {
        for Removed {
            queue,
            offset,
            released,
            ..
        } in removed
        {
            info!(group = %self.group, %queue, offset, released, "queue released");
        }
        local.note(
            removed
                .iter()
                .filter_map(|removed| Some((self.remote.wire_queue(&removed.queue), removed.offset?))),
        );
        self.store(local).await;
    }

    /// Writes everything for the last time. Returns how many queues that failed for.
    pub(super) async fn store_finally(&self, local: &LocalOffsets, limit: Duration) -> usize {
        let removed = lock(&self.assignment).clear();
        let stored = timeout(limit, self.store_removed(local, &removed)).await;
        let failed = stored.is_err() || local.is_behind();
        local.close();
        if failed { removed.len() } else { 0 }
    }

    async fn store(&self, local: &LocalOffsets) {
        match local.store().await {
            Ok(false) => {}
            Ok(true) => debug!(group = %self.group, file = %local.path().display(), "offsets stored"),
            Err(failure) => {
                Counters::add(&self.counters.offset_writes_failed, 1);
                let labels = [
                    (telemetry::SYSTEM, telemetry::SYSTEM_NAME.to_owned()),
                    (telemetry::CONSUMER_GROUP, self.group.to_string()),
                ];
                metrics::counter!(telemetry::OFFSET_FILE_FAILURES, &labels).increment(1);
                // A line for each doubling: a disk that is full for an hour does not get fuller by the log.
                if failure.in_a_row.is_power_of_two() {
                    error!(
                        group = %self.group, file = %local.path().display(), error = %failure.error,
                        failures = failure.in_a_row,
                        "offsets cannot be stored, the file stays as it was and messages since then would come \
                         again after a restart; trying again"
                    );
                }
            }
        }
    }

    /// What becomes of a message that was not acknowledged. Returns whether it is done with; else it is handed out
    /// again.
    pub(super) fn give_up(&self, local: &LocalOffsets, message: &MessageView, give_back: GiveBack) -> bool {
        let tried = u32::try_from(message.record().reconsume_times).unwrap_or(0);
        // In order, a message has been tried often enough before it comes here.
        if self.order.is_none() && give_back != GiveBack::Dead && tried < local.retries() {
            return false;
        }
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        error!(
            group = %self.group, ?message, retries = tried,
            "a message is dropped: its handler failed, and by broadcasting nobody takes it back"
        );
        true
    }
}

/// Why a consumer cannot use its offset file.
fn unusable(path: &Path, text: std::fmt::Arguments<'_>) -> Error {
    Error::config(format!("{}: {text}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_one_name_of_a_directory() {
        for (identity, fine) in [
            ("10.0.0.1@DEFAULT", true),
            ("billing-0", true),
            ("größe", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a\\b", false),
            ("/etc", false),
            ("a\0", false),
        ] {
            let settings = Broadcasting::new().directory("/tmp").identity(identity);
            assert_eq!(settings.faults().is_empty(), fine, "{identity:?}");
        }
    }
}
