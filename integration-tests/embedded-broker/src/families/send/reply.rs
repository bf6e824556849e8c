//! Replies to requests: sends that are passed on to the client that waits for them, and stored besides.
//!
//! Protocol source: `ReplyMessageProcessor`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::frame::Head;
use rocketmq_client::protocol::requests::PushReplyMessage;
use rocketmq_client::protocol::{
    CodecError, Fields, Frame, HeaderFormat, Properties, PropertiesBuf, Record, Request, ResponseCode,
    SysFlag, Text, property,
};

use super::header::{SendAnswer, SendHeader};
use super::{REGION, find_topic, queue_of, record_of};
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::store::Appended;
use crate::wait::{PendingReply, Replies};

/// Serves a reply. A good answer waits until the requester has confirmed it.
pub(in crate::families) fn reply(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let Frame { fields, body, .. } = frame;
    let sent = match SendHeader::read(&fields) {
        Ok(sent) => sent,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    if let Err(refusal) = pass_on(context, sent, body) {
        reply.refuse(&refusal.with([(property::MSG_REGION, REGION), (property::TRACE_ON, "true")]));
    }
}

fn pass_on(context: Context<'_>, sent: SendHeader<'_>, body: Bytes) -> Result<(), Refusal> {
    let broker = context.broker;
    let topic = find_topic(context, sent)?;
    let queue_id = queue_of(broker, &topic, sent)?;
    let properties = Properties::new(Text::from(sent.properties));
    let record = record_of(context, sent, &topic, queue_id, body, Text::from(sent.properties));
    let stored = broker.options.store_replies.then(|| {
        // As a real broker does: without the flag that says that the body is compressed, and without a tag.
        let record = Record {
            sys_flag: SysFlag(0),
            ..record.clone()
        };
        broker.append_tagged(&topic, record, 0)
    });
    let stored = stored.transpose().map_err(unreadable)?;
    let Some(requester) = properties.get(property::REPLY_TO_CLIENT) else {
        let remark = "reply message properties[REPLY_TO_CLIENT] is null";
        return Err(failed(broker, remark, queue_id, stored));
    };
    let Some(session) = broker.members.producer_of(requester) else {
        let remark = format!("push reply message fail, channel of <{requester}> not found.");
        return Err(failed(broker, remark, queue_id, stored));
    };
    let opaque = session.next_opaque();
    let frame = push(broker, sent, &record, opaque).map_err(unreadable)?;
    let pending = PendingReply {
        replier: Arc::clone(context.session),
        head: context.head,
        requester: requester.to_owned(),
        queue_id,
        stored,
    };
    // Before the push: the confirmation may be quicker than this function.
    let waits = Replies::wait(broker, &session, opaque, pending);
    let pushed = waits.is_ok() && session.push(frame);
    let taken_back = match waits {
        Ok(()) if pushed => return Ok(()),
        Ok(()) => Replies::take(broker, session.id(), opaque),
        Err(pending) => Some(pending),
    };
    match taken_back {
        Some(pending) => Err(refusal(broker, &pending)),
        // Its connection was closed meanwhile, and that has answered it.
        None => Ok(()),
    }
}

/// The request that carries a reply to its requester.
fn push(broker: &Broker, sent: SendHeader<'_>, record: &Record, opaque: i32) -> Result<Bytes, CodecError> {
    let now = broker.clock.now();
    let mut properties = PropertiesBuf::from(&record.properties);
    properties.set(property::PUSH_REPLY_TIME, &now.to_string())?;
    let request = PushReplyMessage {
        producer_group: sent.producer_group.to_owned(),
        topic: sent.topic.to_owned(),
        default_topic: sent.default_topic.to_owned(),
        default_topic_queue_nums: sent.default_topic_queue_nums,
        queue_id: sent.queue_id,
        sys_flag: sent.sys_flag,
        born_timestamp: sent.born_timestamp,
        flag: sent.flag,
        properties: Some(properties.into_string()),
        reconsume_times: Some(sent.reconsume_times),
        unit_mode: Some(false),
        born_host: record.born_host.to_string(),
        store_host: broker.address.to_string(),
        store_timestamp: now,
        body: Bytes::new(),
    };
    let mut frame = BytesMut::new();
    let head = Head::request(PushReplyMessage::CODE.0, opaque, false);
    let length = record.body.len();
    head.encode(HeaderFormat::Json, &request, &Fields::new(), length, &mut frame)?;
    frame.extend_from_slice(&record.body);
    Ok(frame.freeze())
}

/// Answers who sent a reply.
pub(crate) fn answer(broker: &Broker, pending: &PendingReply, confirmed: bool, reply: Reply<'_>) {
    if !confirmed {
        let refusal = refusal(broker, pending);
        return reply.refuse(&refusal.with([(property::MSG_REGION, REGION), (property::TRACE_ON, "true")]));
    }
    let answer = match pending.stored {
        Some(stored) => {
            let id = broker.offset_id(stored.physical_offset);
            SendAnswer::new(id, pending.queue_id, stored.queue_offset, None)
        }
        None => SendAnswer::new("0".to_owned(), pending.queue_id, 0, None),
    };
    reply.typed(ResponseCode::SUCCESS, None, &answer, &[]);
}

fn refusal(broker: &Broker, pending: &PendingReply) -> Refusal {
    let remark = format!("push reply message to {}fail.", pending.requester);
    failed(broker, remark, pending.queue_id, pending.stored)
}

/// The reply did not get there; it may be stored all the same.
fn failed(broker: &Broker, remark: impl Into<String>, queue_id: i32, stored: Option<Appended>) -> Refusal {
    let refusal = Refusal::new(ResponseCode::SYSTEM_ERROR, remark);
    let Some(stored) = stored else {
        return refusal;
    };
    let id = broker.offset_id(stored.physical_offset);
    let (queue_id, offset) = (queue_id.to_string(), stored.queue_offset.to_string());
    refusal.with([
        ("msgId", id.as_str()),
        ("queueId", queue_id.as_str()),
        ("queueOffset", offset.as_str()),
    ])
}
