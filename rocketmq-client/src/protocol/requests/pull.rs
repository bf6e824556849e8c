//! Pulling messages.
//!
//! Protocol source: `PullMessageRequestHeader`, `PullMessageResponseHeader`, `PullSysFlag`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::request::{Response, ResponseError, requests};
use crate::protocol::{CodecError, Fields, Frame, ResponseCode};

/// Bits of [`PullMessage::sys_flag`].
pub mod pull_flag {
    /// `commit_offset` is valid.
    pub const COMMIT_OFFSET: i32 = 0x1;
    /// The broker may hold the request until a message arrives.
    pub const SUSPEND: i32 = 0x2;
    /// The subscription is in the request.
    pub const SUBSCRIPTION: i32 = 0x4;
    /// The pull is a lite consumer's. 5.x.
    pub const LITE_PULL: i32 = 0x10;
}

requests! {
    /// Messages of one queue from an offset on. With [`pull_flag::SUSPEND`] the broker answers when there are some.
    pub struct PullMessage = PULL_MESSAGE => PullResult {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// The first offset wanted.
        pub queue_offset: i64,
        /// How many messages at the most.
        pub max_msg_nums: i32,
        /// See [`pull_flag`].
        pub sys_flag: i32,
        /// What the group has consumed, if the flag says so.
        pub commit_offset: i64,
        /// How long the broker may hold the request, in milliseconds.
        pub suspend_timeout_millis: i64,
        /// The tags or the SQL expression, if the flag says so.
        pub subscription: Option<String>,
        /// The version of the subscription that the client heartbeated.
        pub sub_version: i64,
        /// `TAG` or `SQL92`; absent means tags.
        pub expression_type: Option<String>,
        /// How many bytes at the most. 5.x.
        pub max_msg_bytes: Option<i32>,
    }

    /// The same for a lite consumer, with [`pull_flag::LITE_PULL`]: the broker serves it with threads of its own. 5.x.
    pub struct LitePullMessage = LITE_PULL_MESSAGE => PullResult {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// The first offset wanted.
        pub queue_offset: i64,
        /// How many messages at the most.
        pub max_msg_nums: i32,
        /// See [`pull_flag`].
        pub sys_flag: i32,
        /// What the group has consumed, if the flag says so.
        pub commit_offset: i64,
        /// How long the broker may hold the request, in milliseconds.
        pub suspend_timeout_millis: i64,
        /// The tags or the SQL expression, if the flag says so.
        pub subscription: Option<String>,
        /// The version of the subscription that the client heartbeated.
        pub sub_version: i64,
        /// `TAG` or `SQL92`; absent means tags.
        pub expression_type: Option<String>,
        /// How many bytes at the most. 5.x.
        pub max_msg_bytes: Option<i32>,
    }
}

/// What a pull found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullResult {
    /// What the numbers mean.
    pub status: PullStatus,
    /// The numbers.
    pub header: PullResultHeader,
    /// The stored messages, back to back; see [`Record::decode_all`](crate::protocol::Record::decode_all).
    pub messages: Bytes,
    /// The name of the status, for people.
    pub remark: Option<String>,
}

/// How a pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullStatus {
    /// There are messages.
    Found,
    /// There is none yet.
    NoNewMessage,
    /// There are some, but none that matches.
    NoMatchedMessage,
    /// The offset is outside the queue; the next one is not.
    OffsetIllegal,
}

impl PullStatus {
    const fn code(self) -> ResponseCode {
        match self {
            Self::Found => ResponseCode::SUCCESS,
            Self::NoNewMessage => ResponseCode::PULL_NOT_FOUND,
            Self::NoMatchedMessage => ResponseCode::PULL_RETRY_IMMEDIATELY,
            Self::OffsetIllegal => ResponseCode::PULL_OFFSET_MOVED,
        }
    }
}

/// The header of [`PullResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullResultHeader {
    /// The broker id to pull from next time; 0 is the master.
    pub suggest_which_broker_id: i64,
    /// The offset to pull from next time.
    pub next_begin_offset: i64,
    /// The oldest offset of the queue.
    pub min_offset: i64,
    /// One past the newest offset of the queue.
    pub max_offset: i64,
}

impl Response for PullResult {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        let status = match ResponseCode(frame.code) {
            ResponseCode::SUCCESS => PullStatus::Found,
            ResponseCode::PULL_NOT_FOUND => PullStatus::NoNewMessage,
            ResponseCode::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatchedMessage,
            ResponseCode::PULL_OFFSET_MOVED => PullStatus::OffsetIllegal,
            _ => return Err(ResponseError::refused(&frame)),
        };
        Ok(Self {
            status,
            header: frame.fields.header()?,
            messages: frame.body,
            remark: frame.remark,
        })
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            fields: Fields::from_header(&self.header)?,
            body: self.messages,
            remark: self.remark,
            ..Frame::response(self.status.code(), opaque)
        })
    }
}
