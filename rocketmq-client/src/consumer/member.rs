//! The consumer as its client's brokers see it: heartbeats, and requests that a broker makes of its members.
//!
//! Protocol source: `ClientRemotingProcessor`, `MQClientInstance`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::engine::Engine;
use super::handler::Fault;
use super::outcome::Outcome;
use super::pull::Start;
use crate::cluster::{BoxFuture, GroupMember};
use crate::message::MessageView;
use crate::protocol::bodies::{
    ConsumeDirectlyResult, ConsumeType, ConsumerData, ConsumerRunningInfo, ConsumerStatus, MessageModel,
    MessageQueue, OffsetTable, ProcessQueueInfo, QueueMap,
};
use crate::protocol::requests::{
    ConsumeMessageDirectly, ConsumerStatusFromClient, GetConsumerRunningInfo, ResetConsumerClientOffset,
};
use crate::protocol::{Frame, Json, JsonBody, Record, Request, RequestCode, Response, ResponseCode};
use crate::sync::lock;

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
            message_model: MessageModel::Clustering,
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
    /// An operator moved the group. Java waits ten seconds for what is in progress; here what is in progress cannot
    /// move an offset any more.
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
            let taken = lock(&self.assignment).take_again(&queue, self.intake.token());
            if let Some(stop) = taken {
                info!(group = %self.group, %queue, offset, "an operator reset the offset");
                self.spawn_pull(queue, Start::At(offset), stop);
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
        let message_queue_table = lock(&self.assignment)
            .offsets()
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
        let properties: BTreeMap<String, String> = [
            (
                "consumerGroup",
                self.remote.cluster().wire_name(&self.group).into_owned(),
            ),
            ("messageModel", "CLUSTERING".to_owned()),
            ("PROP_CONSUMEORDERLY", "false".to_owned()),
            ("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY".to_owned()),
            ("PROP_CLIENT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
            ("PROP_THREADPOOL_CORE_SIZE", options.concurrency.to_string()),
            ("PROP_CONSUMER_START_TIMESTAMP", self.started.to_string()),
            ("maxReconsumeTimes", options.max_reconsume_times.to_string()),
            ("pullBatchSize", options.pull_batch_size.to_string()),
            ("pullThresholdForQueue", options.limits.messages.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let mq_table: QueueMap<ProcessQueueInfo> = {
            let assignment = lock(&self.assignment);
            let queue_info = |(queue, process): (&MessageQueue, Option<&Arc<_>>)| {
                let process: Option<&Arc<super::process_queue::ProcessQueue>> = process;
                let (messages, bytes) = process.map_or((0, 0), |process| process.cached());
                let info = ProcessQueueInfo {
                    commit_offset: assignment.offsets().offset(queue).unwrap_or(-1),
                    cached_msg_count: i32::try_from(messages).unwrap_or(i32::MAX),
                    cached_msg_size_in_mib: i32::try_from(bytes / (1024 * 1024)).unwrap_or(i32::MAX),
                    ..ProcessQueueInfo::default()
                };
                (self.remote.wire_queue(queue), info)
            };
            assignment.iter().map(queue_info).collect()
        };
        answer(
            opaque,
            ConsumerRunningInfo {
                properties,
                subscription_set: self.remote.wire_subscriptions(self.subscriptions.data()),
                mq_table,
                ..ConsumerRunningInfo::default()
            },
        )
    }

    /// An operator wants to see what the handler makes of one message. Its offset does not move, and it does not go
    /// back to the broker.
    async fn consume_directly(&self, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        let read = ConsumeMessageDirectly::from_frame(frame)
            .and_then(|request| Ok((Record::decode(request.body.clone())?, request)));
        let (record, request) = match read {
            Ok(read) => read,
            Err(error) => return unreadable(&self.group, opaque, "message to consume directly", &error),
        };
        let Some(handler) = self.direct.get() else {
            return Frame::refusal(
                ResponseCode::SYSTEM_ERROR,
                opaque,
                "the consumer is not running yet",
            );
        };
        let cluster = self.remote.cluster();
        let queue = MessageQueue::new(
            &*cluster.user_name(&record.topic),
            request.broker_name.unwrap_or_default(),
            record.queue_id,
        );
        let message = MessageView::in_namespace(record, queue, cluster.namespace());
        info!(group = %self.group, ?message, "an operator lets a message be consumed directly");
        let started = Instant::now();
        let (consume_result, remark) = match handler(message).await {
            Ok(Outcome::Ack) => ("CR_SUCCESS", None),
            Ok(Outcome::Retry(_)) => ("CR_LATER", None),
            Ok(Outcome::Reject(reason)) => ("CR_LATER", Some(format!("rejected: {reason}"))),
            Err(fault @ Fault::TimedOut(_)) => ("CR_LATER", Some(fault.to_string())),
            Err(fault) => ("CR_THROW_EXCEPTION", Some(fault.to_string())),
        };
        answer(opaque, direct_result(consume_result, remark, started.elapsed()))
    }
}

fn direct_result(consume_result: &str, remark: Option<String>, spent: Duration) -> ConsumeDirectlyResult {
    ConsumeDirectlyResult {
        order: false,
        auto_commit: true,
        consume_result: consume_result.to_owned(),
        remark,
        spent_time_mills: i64::try_from(spent.as_millis()).unwrap_or(i64::MAX),
    }
}

fn answer<T: JsonBody + Serialize>(opaque: i32, body: T) -> Frame {
    Json(body)
        .into_frame(opaque)
        .unwrap_or_else(|error| Frame::refusal(ResponseCode::SYSTEM_ERROR, opaque, error.to_string()))
}

fn unreadable(group: &str, opaque: i32, what: &str, error: &dyn std::error::Error) -> Frame {
    warn!(group, what, %error, "a broker's request cannot be read");
    Frame::refusal(
        ResponseCode::SYSTEM_ERROR,
        opaque,
        format!("{what} cannot be read: {error}"),
    )
}
