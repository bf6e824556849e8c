//! The consumer as its client's brokers see it: heartbeats, and requests that a broker makes of its members.
//!
//! Protocol source: `ClientRemotingProcessor`, `MQClientInstance`.

mod operate;
mod running_info;

use std::sync::Arc;

use serde::Serialize;
use tracing::warn;

use super::engine::Engine;
use crate::cluster::{BoxFuture, GroupMember};
use crate::protocol::bodies::{ConsumeType, ConsumerData, MessageModel};
use crate::protocol::{Frame, Json, JsonBody, RequestCode, Response, ResponseCode};

/// A member as the cluster holds it: requests need the engine as something that can be shared.
#[derive(Debug)]
pub(super) struct Member(pub(super) Arc<Engine>);

impl GroupMember for Member {
    fn group(&self) -> &str {
        &self.0.group
    }

    fn topics(&self) -> Vec<String> {
        let topics = self.0.subscriptions.table();
        topics.keys().map(|topic| topic.to_string()).collect()
    }

    fn heartbeat(&self) -> ConsumerData {
        ConsumerData {
            consume_from_where: self.0.options.consume_from.announced(),
            consume_type: ConsumeType::Passively,
            group_name: self.0.group.to_string(),
            message_model: self.0.message_model(),
            subscription_data_set: self.0.subscriptions.data(),
            unit_mode: false,
        }
    }

    fn on_members_changed(&self) {
        self.0.rebalance.notify_one();
    }

    fn on_route_changed(&self) {
        self.0.rebalance.notify_one();
    }

    fn handle(&self, frame: Frame) -> BoxFuture<'_, Frame> {
        Box::pin(async move {
            let engine = &self.0;
            match RequestCode(frame.code) {
                RequestCode::RESET_CONSUMER_CLIENT_OFFSET => engine.reset_offsets(frame),
                RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT => engine.status(frame),
                RequestCode::GET_CONSUMER_RUNNING_INFO => engine.running_info(frame),
                RequestCode::CONSUME_MESSAGE_DIRECTLY => engine.consume_directly(frame).await,
                code => {
                    let remark = format!(" request type {} not supported", code.0);
                    Frame::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, frame.opaque, remark)
                }
            }
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The client gives all of this one grace: what handlers do not get of it is for the last commits.
            let limit = self.0.remote.cluster().options().shutdown_grace;
            let grace = self.0.options.shutdown_grace.min(limit.mul_f32(0.6));
            self.0.shutdown(grace).await;
        })
    }
}

impl Engine {
    pub(super) fn message_model(&self) -> MessageModel {
        match self.local {
            Some(_) => MessageModel::Broadcasting,
            None => MessageModel::Clustering,
        }
    }

    /// As Java names it.
    fn message_model_name(&self) -> &'static str {
        match self.message_model() {
            MessageModel::Broadcasting => "BROADCASTING",
            MessageModel::Clustering => "CLUSTERING",
        }
    }
}

pub(super) fn answer<T: JsonBody + Serialize>(opaque: i32, body: T) -> Frame {
    Json(body)
        .into_frame(opaque)
        .unwrap_or_else(|error| Frame::refusal(ResponseCode::SYSTEM_ERROR, opaque, error.to_string()))
}

pub(super) fn unreadable(group: &str, opaque: i32, what: &str, error: &dyn std::error::Error) -> Frame {
    warn!(group, what, %error, "a broker's request cannot be read");
    Frame::refusal(
        ResponseCode::SYSTEM_ERROR,
        opaque,
        format!("{what} cannot be read: {error}"),
    )
}
