//! The main path on the wire: routes, sends, pulls.

use std::time::Duration;

use rocketmq_client::protocol::requests::{PullMessage, PullStatus, RouteInfo, SendMessageV2};
use rocketmq_client::protocol::{HeaderFormat, Record};

use crate::client::{Wire, frame_of, message, properties, pull, start, tagged, waiting};

#[tokio::test]
async fn a_message_is_stored_once_and_pulled_as_it_was_sent() {
    let (broker, mut wire) = start().await;
    let sent = SendMessageV2 {
        flag: 7,
        properties: Some(properties(&[
            ("KEYS", "k1 k2"),
            ("TAGS", "a"),
            ("user", "x"),
            ("UNIQ_KEY", "U1"),
        ])),
        ..message("orders", 2, "hello")
    };
    let receipt = wire.call(&sent).await.unwrap().header;
    assert_eq!((receipt.queue_id, receipt.queue_offset), (2, 0));
    assert_eq!(receipt.transaction_id.as_deref(), Some("U1"));
    assert_eq!(receipt.region.as_deref(), Some("DefaultRegion"));
    assert_eq!(receipt.trace_on.as_deref(), Some("true"));

    let pulled = wire.call(&pull("orders", 2, 0)).await.unwrap();
    assert_eq!(pulled.status, PullStatus::Found);
    assert_eq!(pulled.remark.as_deref(), Some("FOUND"));
    assert_eq!(
        (pulled.header.next_begin_offset, pulled.header.max_offset),
        (1, 1)
    );
    let record = Record::decode(pulled.messages).unwrap();
    assert_eq!(
        (&record.body[..], record.flag, record.born_timestamp),
        (&b"hello"[..], 7, 1_700_000_000_000)
    );
    assert_eq!(
        (record.topic.as_str(), record.queue_id, record.queue_offset),
        ("orders", 2, 0)
    );
    assert_eq!(record.store_host.to_string(), broker.broker_address());
    for (name, value) in [
        ("KEYS", "k1 k2"),
        ("TAGS", "a"),
        ("user", "x"),
        ("UNIQ_KEY", "U1"),
        ("MSG_REGION", "DefaultRegion"),
        ("TRACE_ON", "true"),
        ("CLUSTER", "DefaultCluster"),
    ] {
        assert_eq!(record.properties.get(name), Some(value), "{name}");
    }
    let id: rocketmq_client::protocol::OffsetMessageId = receipt.msg_id.parse().unwrap();
    assert_eq!(
        (id.store_host, id.physical_offset),
        (record.store_host, record.physical_offset)
    );
}

#[tokio::test]
async fn a_topic_that_a_send_creates_has_a_route_at_once() {
    let (broker, mut wire) = start().await;
    let route = RouteInfo {
        topic: "new".into(),
        accept_standard_json_only: None,
    };
    assert_eq!(wire.ask(&route).await.code, 17);
    wire.call(&message("new", 0, "x")).await.unwrap();
    let data = wire.call(&route).await.unwrap().0;
    assert_eq!(data.broker_datas[0].broker_addrs[&0], broker.broker_address());
    assert_eq!(
        (data.queue_datas[0].write_queue_nums, data.queue_datas[0].perm),
        (4, 6)
    );
}

#[tokio::test]
async fn an_old_client_reads_a_route_with_bare_keys_and_a_new_one_with_quotes() {
    let (_broker, mut wire) = start().await;
    for (version, standard, quoted) in [(317, None, false), (401, None, true), (317, Some(true), true)] {
        let mut frame = frame_of(&RouteInfo {
            topic: "TBW102".into(),
            accept_standard_json_only: standard,
        });
        frame.version = version;
        let body = wire.ask_frame(frame).await.body;
        let text = std::str::from_utf8(&body).unwrap();
        assert_eq!(text.contains("{\"0\":\""), quoted, "{version}: {text}");
        assert_eq!(text.contains("{0:\""), !quoted, "{version}: {text}");
    }
}

#[tokio::test]
async fn a_pull_waits_for_a_message_with_a_tag_that_it_wants() {
    let (broker, mut wire) = start().await;
    let mut other = Wire::connect(&broker.name_server()).await;
    other.call(&message("t", 0, "first")).await.unwrap();
    let wanted = PullMessage {
        subscription: Some("b".into()),
        ..pull("t", 0, 1)
    };
    let opaque = wire.send(&waiting(wanted, Duration::from_secs(600))).await;
    // The same connection serves other requests meanwhile; and one answer proves that the pull was seen.
    assert_eq!(
        wire.call(&pull("t", 0, 0)).await.unwrap().status,
        PullStatus::Found
    );
    other.call(&tagged("t", 0, "a")).await.unwrap();
    other.call(&tagged("t", 0, "b")).await.unwrap();
    let answer = wire.next().await.unwrap();
    assert_eq!((answer.opaque, answer.code), (opaque, 0));
    let records = Record::decode_all(answer.body).unwrap();
    assert_eq!(
        records
            .iter()
            .map(|record| record.queue_offset)
            .collect::<Vec<_>>(),
        [2]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_waits_in_vain_is_told_so() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "first")).await.unwrap();
    let answer = wire
        .call(&waiting(pull("t", 0, 1), Duration::from_secs(15)))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.header.next_begin_offset),
        (PullStatus::NoNewMessage, 1)
    );
}

#[tokio::test]
async fn requests_in_the_binary_form_are_answered_in_it() {
    let (_broker, mut wire) = start().await;
    wire.format = HeaderFormat::Binary;
    assert_eq!(
        wire.call(&message("t", 0, "x"))
            .await
            .unwrap()
            .header
            .queue_offset,
        0
    );
    assert_eq!(
        wire.call(&pull("t", 0, 0)).await.unwrap().status,
        PullStatus::Found
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_broker, mut wire) = start().await;
    let mut sent = Vec::new();
    for number in 0..300 {
        sent.push(wire.send(&message("t", 0, number.to_string())).await);
    }
    for (at, opaque) in sent.into_iter().enumerate() {
        let answer = wire.next().await.unwrap();
        assert_eq!(answer.opaque, opaque);
        assert_eq!(answer.fields.get("queueOffset"), Some(at.to_string().as_str()));
    }
}
