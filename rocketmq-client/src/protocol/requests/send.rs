//! Sending messages, and giving them back.
//!
//! Protocol source: `SendMessageRequestHeader`, `SendMessageRequestHeaderV2`, `SendMessageResponseHeader`,
//! `ConsumerSendMsgBackRequestHeader`.

use serde::{Deserialize, Serialize};

use crate::protocol::request::{Response, ResponseError, requests, responses};
use crate::protocol::{CodecError, Done, Fields, Frame, ResponseCode};

requests! {
    /// Stores a message; the body is the message's. Field names are single letters on the wire.
    pub struct SendMessageV2 = SEND_MESSAGE_V2, body => SendResult {
        /// The producer group.
        #[serde(rename = "a")]
        pub producer_group: String,
        /// The topic.
        #[serde(rename = "b")]
        pub topic: String,
        /// The topic that is the template if `topic` has to be created.
        #[serde(rename = "c")]
        pub default_topic: String,
        /// How many queues `topic` gets if it has to be created.
        #[serde(rename = "d")]
        pub default_topic_queue_nums: i32,
        /// The queue; negative lets the broker choose.
        #[serde(rename = "e")]
        pub queue_id: i32,
        /// See [`SysFlag`](crate::protocol::SysFlag).
        #[serde(rename = "f")]
        pub sys_flag: i32,
        /// When the message was made: milliseconds since 1970.
        #[serde(rename = "g")]
        pub born_timestamp: i64,
        /// The user's flag.
        #[serde(rename = "h")]
        pub flag: i32,
        /// The property string.
        #[serde(rename = "i")]
        pub properties: Option<String>,
        /// How often the message was consumed before; only on retry topics.
        #[serde(rename = "j")]
        pub reconsume_times: Option<i32>,
        /// Whether the sender is a unit's.
        #[serde(rename = "k")]
        pub unit_mode: Option<bool>,
        /// The limit that belongs to `reconsume_times`.
        #[serde(rename = "l")]
        pub max_reconsume_times: Option<i32>,
        /// Whether the body holds several messages.
        #[serde(rename = "m")]
        pub batch: Option<bool>,
        /// The name of the broker.
        #[serde(rename = "n")]
        pub broker_name: Option<String>,
    }

    /// Stores a message; the long form that old clients use.
    pub struct SendMessageV1 = SEND_MESSAGE, body => SendResult {
        /// The producer group.
        pub producer_group: String,
        /// The topic.
        pub topic: String,
        /// The topic that is the template if `topic` has to be created.
        pub default_topic: String,
        /// How many queues `topic` gets if it has to be created.
        pub default_topic_queue_nums: i32,
        /// The queue; negative lets the broker choose.
        pub queue_id: i32,
        /// See [`SysFlag`](crate::protocol::SysFlag).
        pub sys_flag: i32,
        /// When the message was made: milliseconds since 1970.
        pub born_timestamp: i64,
        /// The user's flag.
        pub flag: i32,
        /// The property string.
        pub properties: Option<String>,
        /// How often the message was consumed before; only on retry topics.
        pub reconsume_times: Option<i32>,
        /// Whether the sender is a unit's.
        pub unit_mode: Option<bool>,
        /// The limit that belongs to `reconsume_times`.
        pub max_reconsume_times: Option<i32>,
        /// Whether the body holds several messages.
        pub batch: Option<bool>,
    }

    /// Takes back a message that waits for its delivery time. Brokers know it from 5.3.2 on, and do it only where it is
    /// turned on.
    pub struct RecallMessage = RECALL_MESSAGE => Recalled {
        /// The producer group.
        pub producer_group: Option<String>,
        /// The topic.
        pub topic: String,
        /// See [`RecallHandle`](crate::protocol::RecallHandle).
        pub recall_handle: String,
        /// The name of the broker.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }

    /// Gives a message back: the broker delivers it again after a delay, or calls it dead.
    pub struct ConsumerSendMsgBack = CONSUMER_SEND_MSG_BACK => Done {
        /// The position of the message in the broker's log.
        pub offset: i64,
        /// The consumer group.
        pub group: String,
        /// 0: the broker chooses; negative: dead at once; else the level.
        pub delay_level: i32,
        /// The id of the message, for logs.
        pub origin_msg_id: Option<String>,
        /// The topic of the message, for logs.
        pub origin_topic: Option<String>,
        /// Whether the group is a unit's.
        pub unit_mode: Option<bool>,
        /// After how many retries the message is dead; absent: the group's setting.
        pub max_reconsume_times: Option<i32>,
    }
}

responses! {
    /// Says which message will not be delivered.
    pub struct Recalled {
        /// The id that the client gave the message.
        pub msg_id: String,
    }
}

impl From<SendMessageV1> for SendMessageV2 {
    fn from(v1: SendMessageV1) -> Self {
        Self {
            producer_group: v1.producer_group,
            topic: v1.topic,
            default_topic: v1.default_topic,
            default_topic_queue_nums: v1.default_topic_queue_nums,
            queue_id: v1.queue_id,
            sys_flag: v1.sys_flag,
            born_timestamp: v1.born_timestamp,
            flag: v1.flag,
            properties: v1.properties,
            reconsume_times: v1.reconsume_times,
            unit_mode: v1.unit_mode,
            max_reconsume_times: v1.max_reconsume_times,
            batch: v1.batch,
            broker_name: None,
            body: v1.body,
        }
    }
}

/// Where a message was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendResult {
    /// `SUCCESS`, or one of three codes that say: stored here, but not (yet) flushed or replicated.
    pub code: ResponseCode,
    /// The position.
    pub header: SendResultHeader,
}

/// The header of [`SendResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendResultHeader {
    /// The id that the broker derived from the position; comma-separated for a batch.
    pub msg_id: String,
    /// The queue.
    pub queue_id: i32,
    /// The position in the queue; that of the first message for a batch.
    pub queue_offset: i64,
    /// The client's own id of the message.
    pub transaction_id: Option<String>,
    /// The id of the batch, where the broker stored it as one record.
    pub batch_uniq_id: Option<String>,
    /// By which a message with a delivery time can be taken back; see [`RecallMessage`].
    pub recall_handle: Option<String>,
    /// The region of the broker.
    #[serde(rename = "MSG_REGION")]
    pub region: Option<String>,
    /// Whether the broker wants traces; absent means yes.
    #[serde(rename = "TRACE_ON")]
    pub trace_on: Option<String>,
}

impl SendResult {
    /// The codes that mean that the message was stored. Java: `MQClientAPIImpl#processSendResponse`.
    pub const STORED: [ResponseCode; 4] = [
        ResponseCode::SUCCESS,
        ResponseCode::FLUSH_DISK_TIMEOUT,
        ResponseCode::SLAVE_NOT_AVAILABLE,
        ResponseCode::FLUSH_SLAVE_TIMEOUT,
    ];
}

impl Response for SendResult {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        let code = ResponseCode(frame.code);
        if !Self::STORED.contains(&code) {
            return Err(ResponseError::refused(&frame));
        }
        Ok(Self {
            code,
            header: frame.fields.header()?,
        })
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            fields: Fields::from_header(&self.header)?,
            ..Frame::response(self.code, opaque)
        })
    }
}
