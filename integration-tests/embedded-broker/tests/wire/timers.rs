//! Messages that wait for their delivery time, and taking them back.

use std::time::Duration;

use rocketmq_client::protocol::requests::{MaxOffset, RecallMessage, SendMessageV2};
use rocketmq_client::protocol::{BrokerVersion, RecallHandle, Record, ResponseCode};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::time;

use crate::client::{Wire, message, properties, pull};

fn timed(pairs: &[(&str, &str)]) -> SendMessageV2 {
    let mut all = vec![("UNIQ_KEY", "U"), ("TAGS", "late")];
    all.extend(pairs);
    SendMessageV2 {
        properties: Some(properties(&all)),
        ..message("t", 2, "later")
    }
}

async fn max_offset(wire: &mut Wire, queue_id: i32) -> i64 {
    let request = MaxOffset {
        topic: "t".into(),
        queue_id,
    };
    wire.call(&request).await.unwrap().offset
}

async fn start() -> (EmbeddedBroker, Wire) {
    let broker = EmbeddedBroker::builder()
        .recall_messages(true)
        .start()
        .await
        .unwrap();
    let wire = Wire::connect(&broker.name_server()).await;
    (broker, wire)
}

#[tokio::test(start_paused = true)]
async fn a_timed_message_comes_when_it_is_due_and_shows_what_it_was() {
    let (_broker, mut wire) = start().await;
    for (index, pairs) in [[("TIMER_DELAY_SEC", "100")], [("TIMER_DELAY_MS", "100000")]]
        .into_iter()
        .enumerate()
    {
        let sent = wire.call(&timed(&pairs)).await.unwrap();
        assert_eq!(sent.header.queue_id, 2, "the queue that was asked for");
        let before = i64::try_from(index).unwrap();
        time::sleep(Duration::from_millis(99_999)).await;
        assert_eq!(max_offset(&mut wire, 2).await, before);
        time::sleep(Duration::from_millis(2)).await;
        assert_eq!(max_offset(&mut wire, 2).await, before + 1);
    }
    let pulled = wire.call(&pull("t", 2, 0)).await.unwrap();
    let records = Record::decode_all(pulled.messages).unwrap();
    let record = &records[0];
    assert_eq!((&record.body[..], &*record.topic), (&b"later"[..], "t"));
    let shown = |name| record.properties.get(name);
    assert_eq!((shown("TAGS"), shown("UNIQ_KEY")), (Some("late"), Some("U")));
    assert_eq!((shown("REAL_TOPIC"), shown("REAL_QID")), (Some("t"), Some("2")));
    assert_eq!(shown("TIMER_DELAY_SEC"), Some("100"));
    let told: i64 = shown("TIMER_OUT_MS").unwrap().parse().unwrap();
    let due = record.store_timestamp;
    assert!(
        told % 1000 == 0 && told <= due && due - told <= 1001,
        "{told} {due}"
    );
    for name in ["TIMER_ENQUEUE_MS", "TIMER_DEQUEUE_MS"] {
        assert!(shown(name).unwrap().parse::<i64>().unwrap() <= due, "{name}");
    }
}

#[tokio::test]
async fn a_time_that_is_past_is_now_and_a_level_wins_over_a_time() {
    let (_broker, mut wire) = start().await;
    let sent = wire.call(&timed(&[("TIMER_DELIVER_MS", "1000")])).await.unwrap();
    assert_eq!((sent.header.queue_offset, sent.header.recall_handle), (0, None));
    assert_eq!(max_offset(&mut wire, 2).await, 1);
    let level = timed(&[("TIMER_DELIVER_MS", "1000"), ("DELAY", "3")]);
    assert_eq!(wire.call(&level).await.unwrap().header.recall_handle, None);
    assert_eq!(max_offset(&mut wire, 2).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_taken_back_does_not_come() {
    let (_broker, mut wire) = start().await;
    let first = wire.call(&timed(&[("TIMER_DELAY_SEC", "10")])).await.unwrap();
    let handle = first.header.recall_handle.unwrap();
    let parsed: RecallHandle = handle.parse().unwrap();
    assert_eq!((parsed.topic.as_str(), parsed.unique_key.as_str()), ("t", "U"));
    let mut other = timed(&[("TIMER_DELAY_SEC", "10")]);
    other.properties = Some(other.properties.unwrap().replace("\u{1}U\u{2}", "\u{1}V\u{2}"));
    wire.call(&other).await.unwrap();
    let recall = |topic: &str, recall_handle: &str| RecallMessage {
        producer_group: Some("producers".into()),
        topic: topic.into(),
        recall_handle: recall_handle.into(),
        broker_name: None,
    };
    let recalled = wire.call(&recall("t", &handle)).await.unwrap();
    assert_eq!(recalled.msg_id, "U");
    let elsewhere = RecallHandle {
        broker_name: "elsewhere".into(),
        ..parsed.clone()
    };
    let too_late = RecallHandle {
        deliver_timestamp: 1000,
        ..parsed
    };
    wire.call(&message("other", 0, "x")).await.unwrap();
    for (request, code, part) in [
        (recall("t", "nonsense"), 604, "handle"),
        (recall("other", &handle), 604, "topic not match"),
        (recall("nowhere", &handle), 17, "not exist"),
        (recall("t", &elsewhere.to_string()), 604, "not available"),
        (recall("t", &too_late.to_string()), 604, "timestamp invalid"),
    ] {
        let (got, remark) = wire.code(&request).await;
        assert_eq!(got.0, code, "{remark}");
        assert!(remark.contains(part), "{remark}");
    }
    time::sleep(Duration::from_secs(11)).await;
    let pulled = wire.call(&pull("t", 2, 0)).await.unwrap();
    let records = Record::decode_all(pulled.messages).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].properties.get("UNIQ_KEY"), Some("V"));
}

#[tokio::test]
async fn a_timed_message_survives_a_crash() {
    let (broker, mut wire) = start().await;
    wire.call(&timed(&[("TIMER_DELAY_MS", "1")])).await.unwrap();
    wire.call(&timed(&[("TIMER_DELAY_MS", "3600000")])).await.unwrap();
    broker.kill().await;
    broker.restart().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    while max_offset(&mut wire, 2).await == 0 {
        time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(max_offset(&mut wire, 2).await, 1);
}

#[tokio::test]
async fn a_priority_is_a_queue_unless_something_stands_against_it() {
    let (_broker, mut wire) = start().await;
    let with = |pairs: &[(&str, &str)]| SendMessageV2 {
        properties: Some(properties(pairs)),
        ..message("t", 0, "urgent")
    };
    wire.call(&with(&[("_SYS_MSG_PRIORITY_", "2")])).await.unwrap();
    wire.call(&with(&[("_SYS_MSG_PRIORITY_", "99")])).await.unwrap();
    assert_eq!(
        (max_offset(&mut wire, 2).await, max_offset(&mut wire, 3).await),
        (1, 1)
    );
    let fifo = with(&[("_SYS_MSG_PRIORITY_", "2"), ("__SHARDINGKEY", "k")]);
    wire.call(&fifo).await.unwrap();
    let pulled = wire.call(&pull("t", 0, 0)).await.unwrap();
    let records = Record::decode_all(pulled.messages).unwrap();
    assert_eq!(records[0].properties.get("_SYS_MSG_PRIORITY_"), None);
    assert_eq!(records[0].properties.get("__SHARDINGKEY"), Some("k"));
}

#[tokio::test]
async fn an_older_broker_ignores_what_it_does_not_know() {
    let broker = EmbeddedBroker::builder()
        .recall_messages(true)
        .version(BrokerVersion(407))
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let pairs = [("TIMER_DELAY_SEC", "3600"), ("_SYS_MSG_PRIORITY_", "1")];
    let sent = wire.call(&timed(&pairs)).await.unwrap();
    assert_eq!((sent.header.queue_offset, sent.header.recall_handle), (0, None));
    assert_eq!(
        max_offset(&mut wire, 2).await,
        1,
        "at once, and where it was sent to"
    );
    let recall = RecallMessage {
        producer_group: None,
        topic: "t".into(),
        recall_handle: "x".into(),
        broker_name: None,
    };
    assert_eq!(
        wire.code(&recall).await.0,
        ResponseCode::REQUEST_CODE_NOT_SUPPORTED
    );
}
