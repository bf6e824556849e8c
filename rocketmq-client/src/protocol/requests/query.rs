//! Finding single messages.
//!
//! Protocol source: `QueryMessageRequestHeader`, `ViewMessageRequestHeader`.

use bytes::Bytes;

use serde::{Deserialize, Serialize};

use crate::protocol::bodies::ConsumeQueuePage;
use crate::protocol::request::{Response, ResponseError, expect_success, requests};
use crate::protocol::{CodecError, Done, Fields, Frame, Json, ResponseCode};

requests! {
    /// Messages by key or by unique key. `QUERY_NOT_FOUND` (22) when there is none.
    pub struct QueryMessage = QUERY_MESSAGE => QueryResult {
        /// The topic.
        pub topic: String,
        /// The key.
        pub key: String,
        /// How many messages at the most.
        pub max_num: i32,
        /// The earliest store time: milliseconds since 1970.
        pub begin_timestamp: i64,
        /// The latest store time: milliseconds since 1970.
        pub end_timestamp: i64,
        /// Whether `key` is a unique key.
        #[serde(rename = "_UNIQUE_KEY_QUERY")]
        pub unique_key_query: Option<bool>,
    }

    /// The message at a position in the broker's log.
    pub struct ViewMessage = VIEW_MESSAGE_BY_ID => StoredMessages {
        /// The topic. 5.x.
        pub topic: Option<String>,
        /// The position.
        pub offset: i64,
    }

    /// Entries of a consume queue.
    pub struct QueryConsumeQueue = QUERY_CONSUME_QUEUE => Json<ConsumeQueuePage> {
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// The first offset.
        pub index: i64,
        /// How many entries.
        pub count: i32,
        /// The group whose filter is tried on the entries.
        pub consumer_group: Option<String>,
    }

    /// Puts a half message that was checked too often back among those that are checked.
    pub struct ResumeCheckHalfMessage = RESUME_CHECK_HALF_MESSAGE => Done {
        /// The topic. 5.x.
        pub topic: Option<String>,
        /// The id of its place.
        pub msg_id: String,
    }
}

/// The body is stored messages, back to back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMessages(pub Bytes);

impl Response for StoredMessages {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        Ok(Self(frame.body))
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            body: self.0,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryResult {
    /// How far the index is.
    pub header: QueryResultHeader,
    /// The stored messages, back to back.
    pub messages: Bytes,
}

/// The header of [`QueryResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryResultHeader {
    /// When the index last grew: milliseconds since 1970.
    pub index_last_update_timestamp: i64,
    /// The position in the log that the index has reached.
    pub index_last_update_phyoffset: i64,
}

impl Response for QueryResult {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        Ok(Self {
            header: frame.fields.header()?,
            messages: frame.body,
        })
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        let fields = Fields::from_header(&self.header)?;
        Ok(Frame {
            fields,
            body: self.messages,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}
