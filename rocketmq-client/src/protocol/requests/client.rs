//! Clients say who they are and ask who else is there.
//!
//! Protocol source: `UnregisterClientRequestHeader`, `GetConsumerListByGroupRequestHeader`, `HeartbeatData`,
//! `LockBatchRequestBody`.

use serde::{Deserialize, Serialize};

use crate::protocol::bodies::{ConsumerList, LockedQueues};
use crate::protocol::request::{Response, ResponseError, expect_success, requests};
use crate::protocol::{CodecError, Done, Fields, Frame, Json, ResponseCode};

requests! {
    /// Registers the groups of a client, or keeps them registered. Body:
    /// [`HeartbeatData`](crate::protocol::bodies::HeartbeatData).
    pub struct HeartBeat = HEART_BEAT, body => HeartBeatResult {}

    /// Takes groups off the broker at once.
    pub struct UnregisterClient = UNREGISTER_CLIENT => Done {
        /// The client.
        #[serde(rename = "clientID")]
        pub client_id: String,
        /// The producer group that goes.
        pub producer_group: Option<String>,
        /// The consumer group that goes.
        pub consumer_group: Option<String>,
    }

    /// The members of a group. `SYSTEM_ERROR` (1) when there is none.
    pub struct ConsumerListByGroup = GET_CONSUMER_LIST_BY_GROUP => Json<ConsumerList> {
        /// The group.
        pub consumer_group: String,
    }

    /// Whether the broker can serve a subscription. Body: JSON with `clientId`, `group` and `subscriptionData`.
    pub struct CheckClientConfig = CHECK_CLIENT_CONFIG, body => Done {}

    /// Locks queues for a member. Body: [`LockBatch`](crate::protocol::bodies::LockBatch).
    pub struct LockQueues = LOCK_BATCH_MQ, body => Json<LockedQueues> {}

    /// Unlocks queues. Body: [`LockBatch`](crate::protocol::bodies::LockBatch).
    pub struct UnlockQueues = UNLOCK_BATCH_MQ, body => Done {}
}

/// The broker has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartBeatResult {
    /// The broker's version.
    pub version: i32,
    /// What else it says.
    pub header: HeartBeatResultHeader,
}

/// The header of [`HeartBeatResult`]. 5.x.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartBeatResultHeader {
    /// Whether later heartbeats may leave out subscriptions.
    #[serde(rename = "IS_SUPPORT_HEART_BEAT_V2")]
    pub supports_v2: Option<bool>,
    /// Whether subscriptions changed.
    #[serde(rename = "IS_SUB_CHANGE")]
    pub subscription_changed: Option<bool>,
}

impl Response for HeartBeatResult {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        Ok(Self {
            version: frame.version,
            header: frame.fields.header()?,
        })
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            version: self.version,
            fields: Fields::from_header(&self.header)?,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}
