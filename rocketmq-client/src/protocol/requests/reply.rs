//! Replies to requests: sends that a broker passes on to the client that waits for them.
//!
//! Protocol source: `ReplyMessageProcessor`, `SendMessageRequestHeaderV2`.

use crate::protocol::request::requests;
use crate::protocol::requests::SendResult;

requests! {
    /// Answers a request; the body is the reply's. The fields are those of
    /// [`SendMessageV2`](super::SendMessageV2), the properties say who waits for it.
    pub struct SendReplyMessageV2 = SEND_REPLY_MESSAGE_V2, body => SendResult {
        /// The producer group.
        #[serde(rename = "a")]
        pub producer_group: String,
        /// The reply topic of the cluster that stored the request.
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
        /// When the reply was made: milliseconds since 1970.
        #[serde(rename = "g")]
        pub born_timestamp: i64,
        /// The user's flag.
        #[serde(rename = "h")]
        pub flag: i32,
        /// The property string; it has to hold who waits for the reply.
        #[serde(rename = "i")]
        pub properties: Option<String>,
        /// Not used for replies.
        #[serde(rename = "j")]
        pub reconsume_times: Option<i32>,
        /// Whether the sender is a unit's.
        #[serde(rename = "k")]
        pub unit_mode: Option<bool>,
        /// Not used for replies.
        #[serde(rename = "l")]
        pub max_reconsume_times: Option<i32>,
        /// Not used for replies.
        #[serde(rename = "m")]
        pub batch: Option<bool>,
        /// The name of the broker.
        #[serde(rename = "n")]
        pub broker_name: Option<String>,
    }
}
