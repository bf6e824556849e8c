//! Replies: passed on to the client that waits for them, which has to confirm.

use std::time::Duration;

use rocketmq_client::protocol::bodies::{HeartbeatData, ProducerData};
use rocketmq_client::protocol::requests::{
    HeartBeat, MaxOffset, PushReplyMessage, SendReplyMessageV2, SendResultHeader,
};
use rocketmq_client::protocol::{
    Frame, JsonBody, Properties, Record, Request, RequestCode, ResponseCode, SysFlag, Text, property,
};
use rocketmq_embedded_broker::EmbeddedBroker;

use crate::client::{Wire, frame_of, properties, pull, start};

const REPLY_TOPIC: &str = "DefaultCluster_REPLY_TOPIC";

fn reply(to: Option<&str>, body: &'static str) -> SendReplyMessageV2 {
    let mut pairs = vec![("MSG_TYPE", "reply"), ("CORRELATION_ID", "c-1"), ("TTL", "3000")];
    pairs.extend(to.map(|to| ("REPLY_TO_CLIENT", to)));
    SendReplyMessageV2 {
        producer_group: "repliers".into(),
        topic: REPLY_TOPIC.into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 0,
        sys_flag: SysFlag::COMPRESSED,
        born_timestamp: 5,
        flag: 6,
        properties: Some(properties(&pairs)),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: Some(false),
        broker_name: None,
        body: body.into(),
    }
}

/// A connection that waits for replies as this client.
async fn requester(broker: &EmbeddedBroker, client_id: &str) -> Wire {
    let mut wire = Wire::connect(&broker.name_server()).await;
    let data = HeartbeatData {
        client_id: client_id.into(),
        producer_data_set: vec![ProducerData {
            group_name: "requesters".into(),
        }],
        ..HeartbeatData::default()
    };
    let body = data.to_body().unwrap();
    wire.call(&HeartBeat { body }).await.unwrap();
    wire
}

async fn confirm(wire: &mut Wire, pushed: &Frame, code: ResponseCode) {
    let mut out = bytes::BytesMut::new();
    Frame::response(code, pushed.opaque)
        .encode(wire.format, &mut out)
        .unwrap();
    wire.send_bytes(&out).await;
}

async fn stored(wire: &mut Wire) -> i64 {
    let max = MaxOffset {
        topic: REPLY_TOPIC.into(),
        queue_id: 0,
    };
    wire.call(&max).await.unwrap().offset
}

#[tokio::test]
async fn a_reply_is_passed_on_and_answered_when_it_is_confirmed() {
    let (broker, mut replier) = start().await;
    let mut requester = requester(&broker, "r").await;
    let opaque = replier.send(&reply(Some("r"), "pong")).await;
    let pushed = requester.next().await.unwrap();
    assert_eq!(pushed.code, RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT.0);
    assert!(!pushed.is_one_way());
    let push = PushReplyMessage::from_frame(pushed.clone()).unwrap();
    assert_eq!(
        (push.topic.as_str(), push.producer_group.as_str()),
        (REPLY_TOPIC, "repliers")
    );
    assert_eq!(
        (push.sys_flag, push.flag, push.born_timestamp),
        (SysFlag::COMPRESSED, 6, 5)
    );
    assert_eq!(push.body, "pong");
    assert_eq!(push.store_host, broker.broker_address());
    let carried = Properties::new(Text::from(push.properties.unwrap()));
    assert_eq!(carried.get(property::CORRELATION_ID), Some("c-1"));
    assert!(carried.get(property::PUSH_REPLY_TIME).is_some());

    confirm(&mut requester, &pushed, ResponseCode::SUCCESS).await;
    let answer = replier.next().await.unwrap();
    assert_eq!(
        (answer.opaque, answer.code),
        (opaque, ResponseCode::SUCCESS.0),
        "{answer:?}"
    );
    let header: SendResultHeader = answer.fields.header().unwrap();
    assert_eq!((header.queue_id, header.queue_offset), (0, 0));
    // What is stored is what was sent, without the flag.
    let record = Record::decode(replier.call(&pull(REPLY_TOPIC, 0, 0)).await.unwrap().messages).unwrap();
    assert_eq!((record.body, record.sys_flag), ("pong".into(), SysFlag(0)));
    assert_eq!(record.properties.get(property::PUSH_REPLY_TIME), None);
}

#[tokio::test]
async fn a_reply_that_does_not_get_there_is_refused_with_the_reason() {
    let (broker, mut replier) = start().await;
    let (code, remark) = replier.code(&reply(None, "x")).await;
    assert_eq!(code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(remark, "reply message properties[REPLY_TO_CLIENT] is null");
    let answer = replier.ask(&reply(Some("nobody"), "x")).await;
    assert_eq!(
        answer.remark.as_deref(),
        Some("push reply message fail, channel of <nobody> not found.")
    );
    // It is stored all the same.
    assert_eq!(answer.fields.get("queueOffset"), Some("1"));

    // Refused by the requester.
    let mut requester = requester(&broker, "r").await;
    replier.send(&reply(Some("r"), "x")).await;
    let pushed = requester.next().await.unwrap();
    confirm(&mut requester, &pushed, ResponseCode::SYSTEM_ERROR).await;
    let answer = replier.next().await.unwrap();
    assert_eq!(answer.remark.as_deref(), Some("push reply message to rfail."));

    // The requester goes away while the reply is on its way to it.
    replier.send(&reply(Some("r"), "x")).await;
    requester.next().await.unwrap();
    drop(requester);
    let answer = replier.next().await.unwrap();
    assert_eq!(answer.remark.as_deref(), Some("push reply message to rfail."));
}

#[tokio::test(start_paused = true)]
async fn a_requester_that_does_not_confirm_is_waited_for_ten_seconds() {
    let (broker, mut replier) = start().await;
    let mut requester = requester(&broker, "r").await;
    let opaque = replier.send(&reply(Some("r"), "x")).await;
    let pushed = requester.next().await.unwrap();
    let before = tokio::time::Instant::now();
    let answer = replier.next().await.unwrap();
    assert_eq!(
        (answer.opaque, answer.code),
        (opaque, ResponseCode::SYSTEM_ERROR.0)
    );
    assert_eq!(before.elapsed().as_secs(), Duration::from_secs(10).as_secs());
    // A late confirmation is nobody's.
    confirm(&mut requester, &pushed, ResponseCode::SUCCESS).await;
    assert_eq!(broker.stats().messages, 1);
}

#[tokio::test]
async fn replies_are_not_stored_if_they_are_not_to_be() {
    let broker = EmbeddedBroker::builder()
        .store_replies(false)
        .start()
        .await
        .unwrap();
    let mut replier = Wire::connect(&broker.name_server()).await;
    let mut requester = requester(&broker, "r").await;
    // The long form of old clients.
    let mut frame = frame_of(&reply(Some("r"), "x"));
    frame.code = RequestCode::SEND_REPLY_MESSAGE_V2.0;
    let opaque = replier.send_frame(frame).await;
    let pushed = requester.next().await.unwrap();
    confirm(&mut requester, &pushed, ResponseCode::SUCCESS).await;
    let answer = replier.next().await.unwrap();
    assert_eq!(answer.opaque, opaque);
    let header: SendResultHeader = answer.fields.header().unwrap();
    assert_eq!((header.msg_id.as_str(), header.queue_offset), ("0", 0));
    assert_eq!(stored(&mut replier).await, 0);
}
