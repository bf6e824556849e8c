//! What a send gives back.

use crate::protocol::ResponseCode;
use crate::protocol::bodies::MessageQueue;

/// Where a message was stored, and how safely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// The id that this client gave the message; a consumer sees the same one. Java: `getMsgId`.
    pub message_id: String,
    /// The id that says where the broker stored it. Java: `getOffsetMsgId`.
    pub offset_message_id: String,
    /// The queue. For a delayed message it is the one it will be delivered to.
    pub queue: MessageQueue,
    /// The position in the queue. For a delayed message it is the position in the broker's own delay queue.
    pub queue_offset: i64,
    /// How safely it is stored. Anything but [`SendStatus::Ok`] can still be lost with one machine.
    pub status: SendStatus,
    /// How many attempts it took.
    pub attempts: u32,
    /// By which [`Producer::recall`](crate::Producer::recall) takes the message back before it is delivered; only for
    /// messages with a delay or a delivery time, from brokers of 5.3.2 on.
    pub recall_handle: Option<String>,
}

/// How safely a message is stored. Java: `SendStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendStatus {
    /// As safely as the broker is configured to.
    Ok,
    /// Stored, but not flushed to disk in time.
    FlushDiskTimeout,
    /// Stored, but not replicated in time.
    FlushSlaveTimeout,
    /// Stored, but there is no slave to replicate to.
    SlaveNotAvailable,
}

impl SendStatus {
    /// Java's name of it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "SEND_OK",
            Self::FlushDiskTimeout => "FLUSH_DISK_TIMEOUT",
            Self::FlushSlaveTimeout => "FLUSH_SLAVE_TIMEOUT",
            Self::SlaveNotAvailable => "SLAVE_NOT_AVAILABLE",
        }
    }

    /// The response code that it comes from.
    pub(super) const fn code(self) -> ResponseCode {
        match self {
            Self::Ok => ResponseCode::SUCCESS,
            Self::FlushDiskTimeout => ResponseCode::FLUSH_DISK_TIMEOUT,
            Self::FlushSlaveTimeout => ResponseCode::FLUSH_SLAVE_TIMEOUT,
            Self::SlaveNotAvailable => ResponseCode::SLAVE_NOT_AVAILABLE,
        }
    }

    /// The status that a response code stands for; `None` if the message was not stored.
    pub(super) const fn of(code: ResponseCode) -> Option<Self> {
        match code {
            ResponseCode::SUCCESS => Some(Self::Ok),
            ResponseCode::FLUSH_DISK_TIMEOUT => Some(Self::FlushDiskTimeout),
            ResponseCode::FLUSH_SLAVE_TIMEOUT => Some(Self::FlushSlaveTimeout),
            ResponseCode::SLAVE_NOT_AVAILABLE => Some(Self::SlaveNotAvailable),
            _ => None,
        }
    }
}
