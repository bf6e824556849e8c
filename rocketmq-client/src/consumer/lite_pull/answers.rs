//! The consumer as its client's brokers see it: heartbeats, and requests that a broker makes of its members.
//!
//! Protocol source: `DefaultLitePullConsumerImpl#consumerRunningInfo`, `ClientRemotingProcessor`, `MQClientInstance`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::engine::Lite;
use crate::cluster::{BoxFuture, GroupMember};
use crate::consumer::member::{answer, unreadable};
use crate::protocol::bodies::{
    ConsumeFrom, ConsumeType, ConsumerData, ConsumerRunningInfo, ConsumerStatus, OffsetTable,
    ProcessQueueInfo,
};
use crate::protocol::requests::{
    ConsumerStatusFromClient, GetConsumerRunningInfo, ResetConsumerClientOffset,
};
use crate::protocol::{Frame, JsonBody, Request, RequestCode, ResponseCode};
use crate::sync::lock;

/// A member as the cluster holds it: requests need the consumer as something that can be shared.
#[derive(Debug)]
pub(super) struct LiteMember(pub(super) Arc<Lite>);

impl GroupMember for LiteMember {
    fn group(&self) -> &str {
        &self.0.group
    }

    fn topics(&self) -> Vec<String> {
        self.0.topics().iter().map(|topic| topic.to_string()).collect()
    }

    fn heartbeat(&self) -> ConsumerData {
        ConsumerData {
            // Whatever the consumer does: so does Java.
            consume_from_where: ConsumeFrom::Last,
            consume_type: ConsumeType::Actively,
            group_name: self.0.group.to_string(),
            message_model: self.0.options.message_model,
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
            let lite = &self.0;
            match RequestCode(frame.code) {
                RequestCode::RESET_CONSUMER_CLIENT_OFFSET => lite.reset_offsets(frame),
                RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT => lite.status(frame),
                RequestCode::GET_CONSUMER_RUNNING_INFO => lite.running_info(frame),
                RequestCode::CONSUME_MESSAGE_DIRECTLY => {
                    // There is no handler that could be shown a message. Java: `ClientRemotingProcessor`.
                    let remark = format!("The Consumer Group <{}> not exist in this consumer", lite.group);
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
            self.0.shut_down(false).await;
        })
    }
}

impl Lite {
    /// An operator moved the group. Java's lite-pull consumer lets that pass, and overwrites it with its next commit.
    fn reset_offsets(self: &Arc<Self>, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        let read = ResetConsumerClientOffset::from_frame(frame)
            .and_then(|request| Ok((OffsetTable::from_body(&request.body)?, request)));
        let (table, request) = match read {
            Ok(read) => read,
            Err(error) => return unreadable(&self.group, opaque, "reset of offsets", &error),
        };
        let offsets = table.offset_table.0.into_iter();
        for (queue, offset) in offsets.filter(|(queue, _)| *queue.topic == *request.topic) {
            if offset < 0 {
                continue;
            }
            let queue = self.remote.user_queue(queue);
            if self.restart_at(&queue, offset, None) {
                info!(group = %self.group, %queue, offset, "an operator reset the offset");
                lock(&self.held).commit(&queue, Some(offset));
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
        let message_queue_table = lock(&self.held)
            .standings()
            .filter(|(queue, _)| *queue.topic == topic)
            .filter_map(|(queue, standing)| Some((self.remote.wire_queue(queue), standing.committed?)))
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
        let mq_table = {
            let held = lock(&self.held);
            let infos = held.standings().map(|(queue, standing)| {
                let (min, max) = standing.cached.unwrap_or_default();
                let info = ProcessQueueInfo {
                    commit_offset: standing.committed.unwrap_or(-1),
                    cached_msg_min_offset: min,
                    cached_msg_max_offset: max,
                    cached_msg_count: i32::try_from(standing.messages).unwrap_or(i32::MAX),
                    cached_msg_size_in_mib: i32::try_from(standing.bytes / (1024 * 1024)).unwrap_or(i32::MAX),
                    ..ProcessQueueInfo::default()
                };
                (self.remote.wire_queue(queue), info)
            });
            infos.collect()
        };
        let info = ConsumerRunningInfo {
            properties: self.properties(),
            subscription_set: self.remote.wire_subscriptions(self.subscriptions.data()),
            mq_table,
            ..ConsumerRunningInfo::default()
        };
        answer(opaque, info)
    }

    /// The settings, under the names that Java's tools show.
    fn properties(&self) -> BTreeMap<String, String> {
        let millis = |time: Duration| time.as_millis().to_string();
        let options = &self.options;
        let model = if self.is_broadcasting() {
            "BROADCASTING"
        } else {
            "CLUSTERING"
        };
        let group = self.remote.cluster().wire_name(&self.group).into_owned();
        [
            ("consumerGroup", group),
            ("messageModel", model.to_owned()),
            ("PROP_CONSUMEORDERLY", "false".to_owned()),
            ("PROP_CONSUME_TYPE", "CONSUME_ACTIVELY".to_owned()),
            ("PROP_CLIENT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
            ("PROP_CONSUMER_START_TIMESTAMP", self.started.to_string()),
            ("autoCommit", options.automatic.to_string()),
            ("autoCommitIntervalMillis", millis(options.commit_interval)),
            ("brokerSuspendMaxTimeMillis", millis(options.broker_suspend)),
            ("consumerTimeoutMillisWhenSuspend", millis(options.pull_timeout)),
            ("consumeMaxSpan", options.limits.span.to_string()),
            ("pullBatchSize", options.pull_batch_size.to_string()),
            ("pullThresholdForAll", options.max_cached_messages.to_string()),
            ("pullThresholdForQueue", options.limits.messages.to_string()),
            (
                "pullThresholdSizeForQueue",
                (options.limits.bytes / (1024 * 1024)).to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
