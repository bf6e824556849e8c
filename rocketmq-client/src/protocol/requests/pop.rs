//! Popping messages: the broker hands them out one by one and keeps them from everybody else for a time. 5.x.
//!
//! The codes do not fit the binary header, so these requests always travel with one of JSON. Where a request names a
//! queue of a retry topic, its topic is that retry topic; see [`PopTopic::name`](crate::protocol::PopTopic::name).
//!
//! Protocol source: `PopMessageRequestHeader`, `PopMessageResponseHeader`, `AckMessageRequestHeader`,
//! `ChangeInvisibleTimeRequestHeader`, `NotificationRequestHeader`, `PeekMessageRequestHeader`,
//! `PollingInfoRequestHeader`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::bodies::Assignments;
use crate::protocol::request::{Response, ResponseError, requests, responses};
use crate::protocol::{CodecError, Done, Fields, Frame, Json, ResponseCode};

/// [`PopMessage::init_mode`].
pub mod init_mode {
    /// A group without an offset starts at the oldest message.
    pub const MIN: i32 = 0;
    /// A group without an offset starts behind the newest message.
    pub const MAX: i32 = 1;
}

requests! {
    /// Messages that nobody else in the group has, and that nobody else gets for some time. The broker may hold the
    /// request until there are some.
    pub struct PopMessage = POP_MESSAGE => PopResult {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue; -1 means any of this broker.
        pub queue_id: i32,
        /// How many messages at the most: up to 32.
        pub max_msg_nums: i32,
        /// For how long nobody else gets them, in milliseconds.
        pub invisible_time: i64,
        /// How long the broker may hold the request, in milliseconds; 0 means not at all.
        pub poll_time: i64,
        /// When the client made the request: milliseconds since 1970. The broker takes its own clock for 0.
        pub born_time: i64,
        /// Where a group without an offset starts; see [`init_mode`].
        pub init_mode: i32,
        /// `TAG` or `SQL92`; absent means tags.
        pub exp_type: Option<String>,
        /// The tags or the SQL expression; absent means everything.
        pub exp: Option<String>,
        /// Whether a queue is popped only when all of it that was popped before is done with; absent means no.
        pub order: Option<bool>,
        /// Says that an ordered pop is the same as one before whose answer was lost.
        pub attempt_id: Option<String>,
        /// The broker.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }

    /// A popped message is done with. `NO_MESSAGE` (208) for an offset that the queue does not have; unknown handles are
    /// taken as well.
    pub struct AckMessage = ACK_MESSAGE => Done {
        /// The group.
        pub consumer_group: String,
        /// The topic of the queue.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// A [`ReceiptHandle`](crate::protocol::ReceiptHandle).
        pub extra_info: String,
        /// The offset of the message.
        pub offset: i64,
        /// The broker.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }

    /// Popped messages are done with. Body: [`BatchAcks`](crate::protocol::bodies::BatchAcks). `NO_MESSAGE` (208) when
    /// it names none. 5.1.
    pub struct BatchAckMessage = BATCH_ACK_MESSAGE, body => Done {}

    /// Changes when somebody else gets a popped message: from now on after this time. Its handle is not valid any more,
    /// the answer makes the next one. `NO_MESSAGE` (208) for an offset that the queue does not have.
    pub struct ChangeInvisibleTime = CHANGE_MESSAGE_INVISIBLETIME => InvisibleTimeChanged {
        /// The group.
        pub consumer_group: String,
        /// The topic of the queue.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// A [`ReceiptHandle`](crate::protocol::ReceiptHandle).
        pub extra_info: String,
        /// The offset of the message.
        pub offset: i64,
        /// For how long nobody else gets it from now on, in milliseconds.
        pub invisible_time: i64,
        /// The broker.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }

    /// Whether there is something to pop. The broker may hold the request until there is.
    pub struct Notification = NOTIFICATION => Notified {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue; -1 means any of this broker.
        pub queue_id: i32,
        /// How long the broker may hold the request, in milliseconds.
        pub poll_time: i64,
        /// When the client made the request: milliseconds since 1970.
        pub born_time: i64,
        /// Whether queues of which popped messages are not done with count as empty; absent means no.
        pub order: Option<bool>,
        /// See [`PopMessage::attempt_id`].
        pub attempt_id: Option<String>,
        /// The broker.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }

    /// What a pop would give, without popping it.
    pub struct PeekMessage = PEEK_MESSAGE => PopResult {
        /// The topic.
        pub topic: String,
        /// The queue; -1 means any of this broker.
        pub queue_id: i32,
        /// How many messages at the most.
        pub max_msg_nums: i32,
        /// The group.
        pub consumer_group: String,
    }

    /// How many pops the broker holds.
    pub struct PollingInfo = POLLING_INFO => PollingNumber {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue; -1 means any of this broker.
        pub queue_id: i32,
    }

    /// The queues that a member is to consume, as the broker divides them. Body:
    /// [`AssignmentQuery`](crate::protocol::bodies::AssignmentQuery).
    pub struct QueryAssignment = QUERY_ASSIGNMENT, body => Json<Assignments> {}
}

responses! {
    /// The parts of the next [`ReceiptHandle`](crate::protocol::ReceiptHandle).
    pub struct InvisibleTimeChanged {
        /// When it was changed, by the broker's clock: milliseconds since 1970; of messages popped in order, when they
        /// were popped. 0 when the message is done with already.
        pub pop_time: i64,
        /// For how long nobody else gets it after that, in milliseconds.
        pub invisible_time: i64,
        /// Where the broker notes that.
        pub revive_qid: i32,
    }

    /// Whether there is something to pop.
    pub struct Notified {
        /// Whether there is.
        pub has_msg: bool,
        /// Whether the broker holds too many requests to hold this one; absent means no.
        pub polling_full: Option<bool>,
    }

    /// How many pops the broker holds.
    pub struct PollingNumber {
        /// How many.
        pub polling_num: i32,
    }
}

/// What a pop gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopResult {
    /// What there is.
    pub status: PopStatus,
    /// The numbers.
    pub header: PopResultHeader,
    /// The stored messages, back to back; see [`Record::decode_all`](crate::protocol::Record::decode_all).
    pub messages: Bytes,
    /// The name of the status, for people.
    pub remark: Option<String>,
}

/// How a pop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PopStatus {
    /// There are messages.
    Found,
    /// There is none.
    NotFound,
    /// There is none, and the broker holds too many requests to hold this one.
    PollingFull,
}

impl PopStatus {
    const fn code(self) -> ResponseCode {
        match self {
            Self::Found => ResponseCode::SUCCESS,
            Self::NotFound => ResponseCode::POLLING_TIMEOUT,
            Self::PollingFull => ResponseCode::POLLING_FULL,
        }
    }
}

/// The header of [`PopResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PopResultHeader {
    /// When the messages were popped, by the broker's clock: milliseconds since 1970.
    pub pop_time: i64,
    /// For how long nobody else gets them, in milliseconds.
    pub invisible_time: i64,
    /// Where the broker notes that.
    pub revive_qid: i32,
    /// How many messages are left, roughly.
    pub rest_num: i64,
    /// [`StartOffsets`](crate::protocol::StartOffsets).
    pub start_offset_info: Option<String>,
    /// [`MessageOffsets`](crate::protocol::MessageOffsets).
    pub msg_offset_info: Option<String>,
    /// [`OrderCounts`](crate::protocol::OrderCounts), if the messages were popped in order.
    pub order_count_info: Option<String>,
}

impl Response for PopResult {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        let (status, header) = match ResponseCode(frame.code) {
            ResponseCode::SUCCESS => (PopStatus::Found, frame.fields.header()?),
            // Where nothing was popped, nothing is read from the numbers.
            ResponseCode::POLLING_TIMEOUT | ResponseCode::PULL_NOT_FOUND => {
                (PopStatus::NotFound, frame.fields.header().unwrap_or_default())
            }
            ResponseCode::POLLING_FULL => (PopStatus::PollingFull, frame.fields.header().unwrap_or_default()),
            _ => return Err(ResponseError::refused(&frame)),
        };
        Ok(Self {
            status,
            header,
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
