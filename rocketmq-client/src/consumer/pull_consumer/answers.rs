//! The consumer as its client's brokers see it.
//!
//! Protocol source: `DefaultMQPullConsumerImpl#consumerRunningInfo`, `ClientRemotingProcessor`, `MQClientInstance`.

use std::sync::Arc;

use tracing::info;

use super::engine::Puller;
use crate::cluster::{BoxFuture, GroupMember};
use crate::consumer::division::Divides;
use crate::consumer::member::{answer, unreadable};
use crate::protocol::bodies::{
    ConsumeFrom, ConsumeType, ConsumerData, ConsumerRunningInfo, ConsumerStatus, OffsetTable,
    SubscriptionData,
};
use crate::protocol::requests::{
    ConsumerStatusFromClient, GetConsumerRunningInfo, ResetConsumerClientOffset,
};
use crate::protocol::{Frame, JsonBody, Request, RequestCode, ResponseCode};
use crate::sync::lock;

/// A member as the cluster holds it: requests need the consumer as something that can be shared.
#[derive(Debug)]
pub(super) struct PullMember(pub(super) Arc<Puller>);

impl GroupMember for PullMember {
    fn group(&self) -> &str {
        &self.0.group
    }

    fn topics(&self) -> Vec<String> {
        let topics = self.0.known_topics();
        topics.iter().map(|topic| topic.to_string()).collect()
    }

    fn heartbeat(&self) -> ConsumerData {
        ConsumerData {
            // Whatever the consumer does: so does Java.
            consume_from_where: ConsumeFrom::Last,
            consume_type: ConsumeType::Actively,
            group_name: self.0.group.to_string(),
            message_model: self.0.options.message_model,
            subscription_data_set: self.0.registered.data(),
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
            let puller = &self.0;
            match RequestCode(frame.code) {
                RequestCode::RESET_CONSUMER_CLIENT_OFFSET => puller.reset_offsets(frame),
                RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT => puller.status(frame),
                RequestCode::GET_CONSUMER_RUNNING_INFO => puller.running_info(frame),
                RequestCode::CONSUME_MESSAGE_DIRECTLY => {
                    // There is no handler that could be shown a message. Java: `ClientRemotingProcessor`.
                    let remark = format!("The Consumer Group <{}> not exist in this consumer", puller.group);
                    Frame::refusal(ResponseCode::SYSTEM_ERROR, frame.opaque, remark)
                }
                code => {
                    let remark = format!(" request type {} not supported", code.0);
                    Frame::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, frame.opaque, remark)
                }
            }
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.shut_down().await;
        })
    }
}

impl Puller {
    /// An operator moved the group: what was noted of these queues does not count any more. The user pulls where he
    /// likes.
    fn reset_offsets(&self, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        let read = ResetConsumerClientOffset::from_frame(frame)
            .and_then(|request| OffsetTable::from_body(&request.body));
        let table = match read {
            Ok(table) => table,
            Err(error) => return unreadable(&self.group, opaque, "reset of offsets", &error),
        };
        for (queue, offset) in table.offset_table.0 {
            let queue = self.remote.user_queue(queue);
            let known = lock(&self.offsets).offset(&queue).is_some();
            if known && offset >= 0 {
                info!(group = %self.group, %queue, offset, "an operator reset the offset");
                self.update_offset(&queue, offset);
            }
        }
        Frame::response(ResponseCode::SUCCESS, opaque)
    }

    fn status(&self, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        let request = match ConsumerStatusFromClient::from_frame(frame) {
            Ok(request) => request,
            Err(error) => return unreadable(&self.group, opaque, "question for the status", &error),
        };
        let topic = self.remote.cluster().user_name(&request.topic);
        let message_queue_table = lock(&self.offsets)
            .iter()
            .filter(|(queue, _)| *queue.topic == topic)
            .map(|(queue, offset)| (self.remote.wire_queue(queue), offset))
            .collect();
        answer(
            opaque,
            ConsumerStatus {
                message_queue_table,
                ..ConsumerStatus::default()
            },
        )
    }

    fn running_info(&self, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        if let Err(error) = GetConsumerRunningInfo::from_frame(frame) {
            return unreadable(&self.group, opaque, "question for running information", &error);
        }
        let options = &self.options;
        let model = if self.is_broadcasting() {
            "BROADCASTING"
        } else {
            "CLUSTERING"
        };
        let properties = [
            (
                "consumerGroup",
                self.remote.cluster().wire_name(&self.group).into_owned(),
            ),
            ("messageModel", model.to_owned()),
            ("PROP_CONSUMEORDERLY", "false".to_owned()),
            ("PROP_CONSUME_TYPE", "CONSUME_ACTIVELY".to_owned()),
            ("PROP_CLIENT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
            ("PROP_CONSUMER_START_TIMESTAMP", self.started.to_string()),
            ("enableRebalance", options.rebalance.to_string()),
            ("maxReconsumeTimes", options.max_reconsume_times.to_string()),
            (
                "brokerSuspendMaxTimeMillis",
                options.broker_suspend.as_millis().to_string(),
            ),
            (
                "consumerPullTimeoutMillis",
                options.pull_timeout.as_millis().to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let subscriptions: Vec<SubscriptionData> = self.registered.data();
        let info = ConsumerRunningInfo {
            properties: properties.into(),
            subscription_set: self.remote.wire_subscriptions(subscriptions),
            ..ConsumerRunningInfo::default()
        };
        answer(opaque, info)
    }
}
