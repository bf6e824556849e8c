//! Where a queue goes on, by the user's will.
//!
//! Protocol source: `DefaultLitePullConsumerImpl#seek`.

use std::sync::Arc;
use std::time::SystemTime;

use super::engine::Lite;
use crate::error::{Error, Result};
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// Where a queue goes on; see [`LitePullHandle::seek`](super::LitePullHandle::seek).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// At this offset, which has to be one of the queue's, or the one behind its newest message.
    Offset(i64),
    /// At the oldest message.
    Begin,
    /// Behind the newest message.
    End,
    /// At the first message stored at this time or later. Brokers of 4.9 take the message nearest to it.
    Timestamp(SystemTime),
}

impl Lite {
    pub(super) async fn seek(self: &Arc<Self>, queue: &MessageQueue, to: SeekTo) -> Result<i64> {
        self.check_open()?;
        if !lock(&self.held).contains(queue) {
            return Err(self.not_assigned("seek", queue));
        }
        let offset = match to {
            SeekTo::Offset(offset) => {
                let min = self.remote.min_offset(queue).await?;
                let max = self.remote.max_offset(queue).await?;
                if !(min..=max).contains(&offset) {
                    return Err(Error::config(format!(
                        "seek of queue {queue} to {offset}: it has the offsets {min} to {max}"
                    )));
                }
                offset
            }
            SeekTo::Begin => self.remote.min_offset(queue).await?,
            SeekTo::End => self.remote.max_offset(queue).await?,
            SeekTo::Timestamp(time) => self.remote.offset_stored_at(queue, time).await?,
        };
        if !self.restart_at(queue, offset, None) {
            return Err(self.not_assigned("seek", queue));
        }
        Ok(offset)
    }

    pub(super) fn not_assigned(&self, what: &str, queue: &MessageQueue) -> Error {
        Error::config(format!(
            "{what}: queue {queue} is not assigned to this consumer of group {}; it may have gone to another member",
            self.group
        ))
    }
}
