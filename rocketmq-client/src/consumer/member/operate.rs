//! What an operator lets a member do: go on elsewhere, tell its offsets, consume one message.
//!
//! Protocol source: `ClientRemotingProcessor#resetOffset`, `#getConsumeStatus`, `#consumeMessageDirectly`.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::{answer, unreadable};
use crate::consumer::engine::Engine;
use crate::consumer::handler::Fault;
use crate::consumer::outcome::Outcome;
use crate::consumer::pull::Start;
use crate::message::MessageView;
use crate::protocol::bodies::{ConsumeDirectlyResult, ConsumerStatus, MessageQueue, OffsetTable};
use crate::protocol::requests::{
    ConsumeMessageDirectly, ConsumerStatusFromClient, ResetConsumerClientOffset,
};
use crate::protocol::{Frame, JsonBody, Record, Request, ResponseCode};
use crate::sync::lock;

impl Engine {
    /// An operator moved the group. Java waits ten seconds for what is in progress; here what is in progress cannot
    /// move an offset any more.
    pub(super) fn reset_offsets(self: &Arc<Self>, frame: Frame) -> Frame {
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

    /// What is consumed of each queue of a topic.
    pub(super) fn status(&self, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        let request = match ConsumerStatusFromClient::from_frame(frame) {
            Ok(request) => request,
            Err(error) => return unreadable(&self.group, opaque, "question for the status", &error),
        };
        let topic = self.remote.cluster().user_name(&request.topic);
        let consumed = self
            .progress()
            .into_iter()
            .filter(|progress| *progress.queue.topic == topic)
            .filter_map(|progress| Some((self.remote.wire_queue(&progress.queue), progress.consumed?)));
        answer(
            opaque,
            ConsumerStatus {
                message_queue_table: consumed.collect(),
                ..ConsumerStatus::default()
            },
        )
    }

    /// An operator wants to see what the handler makes of one message. Its offset does not move, and it does not go
    /// back to the broker.
    pub(super) async fn consume_directly(&self, frame: Frame) -> Frame {
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
        let spent = started.elapsed();
        let result = ConsumeDirectlyResult {
            order: self.order.is_some(),
            auto_commit: true,
            consume_result: consume_result.to_owned(),
            remark,
            spent_time_mills: i64::try_from(spent.as_millis()).unwrap_or(i64::MAX),
        };
        answer(opaque, result)
    }
}
