//! What a broker refuses of sends, and the kinds of sends besides the plain one.

use bytes::{BufMut, Bytes, BytesMut};
use rocketmq_client::protocol::bodies::{LockBatch, MessageQueue, permission};
use rocketmq_client::protocol::requests::{
    LockQueues, MaxOffset, RouteInfo, SendMessageV1, SendMessageV2, UnlockQueues,
};
use rocketmq_client::protocol::{Fields, Frame, JsonBody, Record, RequestCode, ResponseCode};
use rocketmq_embedded_broker::EmbeddedBroker;

use crate::client::{Wire, frame_of, message, properties, pull, start};

#[tokio::test]
async fn each_send_that_is_not_right_gets_the_code_of_a_real_broker() {
    let broker = EmbeddedBroker::builder()
        .auto_create_groups(false)
        .max_message_bytes(1000)
        .reject_transactions(true)
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    wire.call(&message("known", 0, "x")).await.unwrap();
    let with = |pairs: &[(&str, &str)]| SendMessageV2 {
        properties: Some(properties(pairs)),
        ..message("known", 0, "x")
    };
    let no_template = SendMessageV2 {
        default_topic: "known".into(),
        ..message("unknown", 0, "x")
    };
    let cases = [
        (message("bad topic", 0, "x"), 29, "' ' is not allowed"),
        (message("", 0, "x"), 29, "it is empty"),
        (message(&"t".repeat(128), 0, "x"), 29, "128 bytes"),
        (message("SCHEDULE_TOPIC_XXXX", 0, "x"), 16, "is forbidden"),
        (message("SELF_TEST_TOPIC", 0, "x"), 16, "is forbidden"),
        (no_template, 17, "topic[unknown] not exist"),
        (message("known", 4, "x"), 29, "queueId[4] is illegal"),
        (message("known", 0, ""), 13, "the message is illegal"),
        (
            message("known", 0, "x".repeat(1001)),
            13,
            "body length limit 1000B",
        ),
        (
            with(&[("p", &"x".repeat(32_700))]),
            13,
            "properties length limit 32KB",
        ),
        (message("%RETRY%nobody", 0, "x"), 26, "nobody"),
        (
            with(&[("TRAN_MSG", "true")]),
            16,
            "transaction message is forbidden",
        ),
        (with(&[("DELAY", "soon")]), 1, "DELAY is no number"),
        (
            with(&[("TIMER_DELAY_SEC", "259201")]),
            13,
            "should not be bigger than the max delay 259200000ms",
        ),
        (with(&[("TIMER_DELAY_MS", "soon")]), 13, "timer message illegal"),
    ];
    for (request, code, part) in cases {
        let (got, remark) = wire.code(&request).await;
        assert_eq!(got.0, code, "{} {remark}", request.topic);
        assert!(remark.contains(part), "{remark}");
    }
    // Refusals say as much of the broker as receipts do.
    let refused = wire.ask(&message("bad topic", 0, "x")).await;
    assert_eq!(refused.fields.get("MSG_REGION"), Some("DefaultRegion"));
    assert_eq!(refused.fields.get("TRACE_ON"), Some("true"));
    // Nothing of it was stored, and the connection is as good as new.
    let max = MaxOffset {
        topic: "known".into(),
        queue_id: 0,
    };
    assert_eq!(wire.call(&max).await.unwrap().offset, 1);
}

#[tokio::test]
async fn without_automatic_topics_a_send_creates_none() {
    let broker = EmbeddedBroker::builder()
        .auto_create_topics(false)
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    assert_eq!(
        wire.code(&message("new", 0, "x")).await.0,
        ResponseCode::TOPIC_NOT_EXIST
    );
    let template = RouteInfo {
        topic: "TBW102".into(),
        accept_standard_json_only: None,
    };
    assert_eq!(wire.code(&template).await.0, ResponseCode::TOPIC_NOT_EXIST);
    // The cluster's own topic is a template too, and a client may name it.
    let request = SendMessageV2 {
        default_topic: "DefaultCluster".into(),
        ..message("new", 0, "x")
    };
    wire.call(&request).await.unwrap();
}

#[tokio::test]
async fn a_new_topic_has_the_queues_that_client_and_broker_agree_on() {
    let broker = EmbeddedBroker::builder().default_queues(6).start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    for (topic, wanted, queues) in [("few", 2, 2), ("many", 100, 6)] {
        let request = SendMessageV2 {
            default_topic_queue_nums: wanted,
            ..message(topic, 0, "x")
        };
        wire.call(&request).await.unwrap();
        let route = RouteInfo {
            topic: topic.into(),
            accept_standard_json_only: None,
        };
        let data = wire.call(&route).await.unwrap().0;
        assert_eq!(
            (
                data.queue_datas[0].read_queue_nums,
                data.queue_datas[0].write_queue_nums
            ),
            (queues, queues)
        );
        assert_eq!(data.queue_datas[0].perm, permission::READ | permission::WRITE);
    }
}

#[tokio::test]
async fn unknown_requests_and_unreadable_headers_are_answered_as_on_a_real_broker() {
    let (_broker, mut wire) = start().await;
    let frame = wire.ask_frame(Frame::request(4711)).await;
    assert_eq!(
        (frame.code, frame.remark.as_deref()),
        (3, Some(" request type 4711 not supported"))
    );
    let frame = wire.ask_frame(Frame::request(RequestCode::SEND_MESSAGE_V2)).await;
    assert_eq!(
        (frame.code, frame.remark.as_deref()),
        (1, Some("missing field `producerGroup` or `a`"))
    );
    let mut wrong = frame_of(&message("t", 0, "x"));
    wrong.fields = wrong
        .fields
        .iter()
        .map(|(k, v)| (k, if k == "e" { "two" } else { v }))
        .collect::<Fields>();
    assert_eq!(wire.ask_frame(wrong).await.code, 1);
}

#[tokio::test]
async fn a_one_way_send_is_stored_and_never_answered_not_even_with_an_error() {
    let (_broker, mut wire) = start().await;
    wire.send_frame(frame_of(&message("t", 0, "x")).one_way()).await;
    wire.send_frame(frame_of(&message("bad topic", 0, "x")).one_way())
        .await;
    wire.send_frame(Frame::request(4711).one_way()).await;
    // Whatever would have been answered would come first: a connection is served in order.
    let opaque = wire
        .send(&MaxOffset {
            topic: "t".into(),
            queue_id: 0,
        })
        .await;
    let answer = wire.next().await.unwrap();
    assert_eq!((answer.opaque, answer.fields.get("offset")), (opaque, Some("1")));
}

#[tokio::test]
async fn the_long_form_of_old_clients_is_stored_alike() {
    let (_broker, mut wire) = start().await;
    let request = SendMessageV1 {
        producer_group: "p".into(),
        topic: "t".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 1,
        sys_flag: 0,
        born_timestamp: 5,
        flag: 0,
        properties: None,
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: None,
        body: "old".into(),
    };
    assert_eq!(wire.call(&request).await.unwrap().header.queue_offset, 0);
    let pulled = wire.call(&pull("t", 1, 0)).await.unwrap();
    let record = Record::decode(pulled.messages).unwrap();
    assert_eq!((&record.body[..], record.born_timestamp), (&b"old"[..], 5));
    // A message that came without an id of its own was given one, as by a 5.x broker.
    assert_eq!(record.properties.get("UNIQ_KEY").map(str::len), Some(32));
}

#[tokio::test]
async fn a_negative_queue_lets_the_broker_choose_among_all() {
    let (_broker, mut wire) = start().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        seen.insert(wire.call(&message("t", -1, "x")).await.unwrap().header.queue_id);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

fn batch(elements: &[(&str, &str)]) -> Bytes {
    let mut body = BytesMut::new();
    for (text, properties) in elements {
        body.put_i32(i32::try_from(4 * 5 + text.len() + 2 + properties.len()).unwrap());
        body.put_i32(0);
        body.put_i32(0);
        body.put_i32(9);
        body.put_i32(i32::try_from(text.len()).unwrap());
        body.put_slice(text.as_bytes());
        body.put_i16(i16::try_from(properties.len()).unwrap());
        body.put_slice(properties.as_bytes());
    }
    body.freeze()
}

fn batch_frame(topic: &str, body: Bytes) -> Frame {
    let request = SendMessageV2 {
        batch: Some(true),
        ..message(topic, 0, body)
    };
    Frame {
        code: RequestCode::SEND_BATCH_MESSAGE.0,
        ..frame_of(&request)
    }
}

#[tokio::test]
async fn a_batch_becomes_messages_with_following_offsets_or_nothing() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "before")).await.unwrap();
    let (a, b) = (
        properties(&[("TAGS", "a"), ("UNIQ_KEY", "A")]),
        properties(&[("UNIQ_KEY", "B")]),
    );
    let answer = wire
        .ask_frame(batch_frame("t", batch(&[("one", &a), ("two", &b)])))
        .await;
    assert_eq!((answer.code, answer.fields.get("queueOffset")), (0, Some("1")));
    assert_eq!(
        answer.fields.get("msgId").map(|ids| ids.split(',').count()),
        Some(2)
    );
    let pulled = wire.call(&pull("t", 0, 1)).await.unwrap();
    let records = Record::decode_all(pulled.messages).unwrap();
    let bodies: Vec<_> = records.iter().map(|record| &record.body[..]).collect();
    assert_eq!(bodies, [b"one", b"two"]);
    assert_eq!(
        (records[0].flag, records[0].queue_offset, records[1].queue_offset),
        (9, 1, 2)
    );
    assert_eq!(records[0].properties.get("TAGS"), Some("a"));
    // As on a real broker: only single messages are told where they were stored.
    assert_eq!(records[1].properties.as_str(), b);
    assert_eq!(answer.fields.get("transactionId"), None);

    let whole = batch(&[("one", &a), ("two", &b)]);
    for (topic, body, code) in [
        ("t", whole.slice(..whole.len() - 1), 13),
        ("t", Bytes::from_static(b"noise"), 13),
        ("t", Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]), 13),
        ("%RETRY%g", whole.clone(), 13),
    ] {
        assert_eq!(wire.ask_frame(batch_frame(topic, body)).await.code, code);
    }
    let max = MaxOffset {
        topic: "t".into(),
        queue_id: 0,
    };
    assert_eq!(wire.call(&max).await.unwrap().offset, 3);
}

#[tokio::test]
async fn what_a_client_sends_to_a_retry_topic_too_often_is_dead() {
    let (_broker, mut wire) = start().await;
    let retry = |times, max| SendMessageV2 {
        reconsume_times: Some(times),
        max_reconsume_times: max,
        properties: Some(properties(&[("RETRY_TOPIC", "t")])),
        ..message("%RETRY%g", 0, "again")
    };
    for (times, max) in [(2, Some(2)), (16, None)] {
        wire.call(&retry(times, max)).await.unwrap();
    }
    let max_offset = |topic: &str| MaxOffset {
        topic: topic.into(),
        queue_id: 0,
    };
    assert_eq!(wire.call(&max_offset("%RETRY%g")).await.unwrap().offset, 2);
    assert_eq!(wire.call(&max_offset("%DLQ%g")).await.unwrap().offset, 0);
    for (times, max) in [(3, Some(2)), (17, None)] {
        wire.call(&retry(times, max)).await.unwrap();
    }
    let dead = wire.call(&pull("%DLQ%g", 0, 0)).await.unwrap();
    let dead = Record::decode_all(dead.messages).unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].properties.get("DELAY"), Some("-1"));
}

#[tokio::test]
async fn what_a_group_in_order_sends_to_its_retry_topic_is_dead_at_once() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let locks = LockBatch {
        consumer_group: "g".into(),
        client_id: "c".into(),
        only_this_broker: false,
        mq_set: vec![MessageQueue::new("t", "broker-a", 0)],
    };
    let body = locks.to_body().unwrap();
    wire.call(&LockQueues { body: body.clone() }).await.unwrap();
    wire.call(&message("%RETRY%g", 0, "x")).await.unwrap();
    let max_offset = MaxOffset {
        topic: "%DLQ%g".into(),
        queue_id: 0,
    };
    assert_eq!(wire.call(&max_offset).await.unwrap().offset, 1);
    wire.call(&UnlockQueues { body }).await.unwrap();
    wire.call(&message("%RETRY%g", 0, "x")).await.unwrap();
    assert_eq!(wire.call(&max_offset).await.unwrap().offset, 1);
}
