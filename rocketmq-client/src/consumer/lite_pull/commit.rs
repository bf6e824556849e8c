//! Commits by the user.
//!
//! Protocol source: `DefaultLitePullConsumerImpl#commit`.

use std::future::IntoFuture;
use std::sync::Arc;

use tracing::debug;

use super::engine::Lite;
use crate::cluster::BoxFuture;
use crate::consumer::confirm::commit_confirmed;
use crate::error::{Error, Result};
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// A commit that is being put together; see [`LitePullHandle::commit`](super::LitePullHandle::commit).
///
/// Awaited, it is sent at once, and done when the brokers have confirmed it. [`later`](Self::later) leaves it to the
/// next regular commit.
#[must_use = "a commit does nothing until it is awaited, or left for later"]
#[derive(Debug)]
pub struct Commit {
    lite: Arc<Lite>,
    what: What,
}

#[derive(Debug)]
enum What {
    All,
    Queues(Vec<MessageQueue>),
    Offsets(Vec<(MessageQueue, i64)>),
}

/// What is to be committed.
#[derive(Debug)]
struct Noted {
    offsets: Vec<(MessageQueue, i64)>,
    /// Why some of it cannot be.
    refused: Option<Error>,
}

impl Commit {
    pub(super) fn new(lite: &Arc<Lite>) -> Self {
        Self {
            lite: Arc::clone(lite),
            what: What::All,
        }
    }

    /// Only what was polled of these queues. Java: `commit(Set<MessageQueue>, persist)`.
    pub fn queues<'a>(mut self, queues: impl IntoIterator<Item = &'a MessageQueue>) -> Self {
        self.what = What::Queues(queues.into_iter().cloned().collect());
        self
    }

    /// These offsets, each one past the last message that was handled, whatever was polled. Java:
    /// `commit(Map<MessageQueue, Long>, persist)`.
    pub fn offsets(mut self, offsets: impl IntoIterator<Item = (MessageQueue, i64)>) -> Self {
        self.what = What::Offsets(offsets.into_iter().collect());
        self
    }

    /// Leaves the commit to the next regular one, at most a
    /// [`commit_interval`](super::LitePullConsumerBuilder::commit_interval) away, or to the shutdown. Java: `commit` with
    /// `persist` false.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a queue that is not assigned (any more) or an offset below 0;
    /// the other queues are committed all the same. [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the consumer was
    /// shut down.
    pub fn later(self) -> Result<()> {
        let Noted { refused, .. } = self.note()?;
        refused.map_or(Ok(()), Err)
    }

    /// Takes the offsets over.
    fn note(&self) -> Result<Noted> {
        let lite = &self.lite;
        lite.check_open()?;
        let mut refused = None;
        let mut offsets = Vec::new();
        let mut held = lock(&lite.held);
        match &self.what {
            What::All => {
                let queues: Vec<_> = held.queues().cloned().collect();
                for queue in queues {
                    // One whose position is not known yet has nothing to commit.
                    if let Some(offset) = held.commit(&queue, None) {
                        offsets.push((queue, offset));
                    }
                }
            }
            What::Queues(queues) => {
                for queue in queues {
                    match held.commit(queue, None) {
                        Some(offset) => offsets.push((queue.clone(), offset)),
                        None if held.contains(queue) => {}
                        None => refused = Some(lite.not_assigned("commit", queue)),
                    }
                }
            }
            What::Offsets(wanted) => {
                for (queue, offset) in wanted {
                    if *offset < 0 {
                        refused = Some(Error::config(format!(
                            "commit: offset {offset} of queue {queue} is below 0"
                        )));
                        continue;
                    }
                    match held.commit(queue, Some(*offset)) {
                        Some(offset) => offsets.push((queue.clone(), offset)),
                        None => refused = Some(lite.not_assigned("commit", queue)),
                    }
                }
            }
        }
        Ok(Noted { offsets, refused })
    }

    async fn confirm(self) -> Result<()> {
        let Noted { offsets, refused } = self.note()?;
        let mut failed = refused;
        let lite = &self.lite;
        for (queue, offset, result) in commit_confirmed(&lite.remote, offsets, Lite::patience()).await {
            match result {
                Ok(()) => {
                    debug!(group = %lite.group, %queue, offset, "committed");
                    lock(&lite.held).committed(&queue, offset);
                }
                Err(error) => {
                    failed = Some(error.context(format_args!("commit of {offset} of queue {queue}")));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

impl IntoFuture for Commit {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'static, Result<()>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.confirm())
    }
}
