//! Messages that come again: delay levels, messages given back, dead letters.

use std::time::Duration;

use rocketmq_client::protocol::Record;
use rocketmq_client::protocol::names::DELAY_LEVEL_SECONDS;
use rocketmq_client::protocol::requests::{
    ConsumerSendMsgBack, EarliestStoreTime, MaxOffset, PullMessage, SendMessageV2, UpdateConsumerOffset,
};

use crate::client::{Wire, message, properties, pull, start, waiting};

/// Below the two minutes after which a silent connection is closed.
const A_MINUTE: Duration = Duration::from_secs(60);

fn delayed(level: &str) -> SendMessageV2 {
    SendMessageV2 {
        properties: Some(properties(&[("DELAY", level), ("TAGS", "a"), ("UNIQ_KEY", "U")])),
        ..message("t", 1, level.to_owned())
    }
}

/// Waits for the message at an offset, however long it takes by the paused clock.
async fn next(wire: &mut Wire, topic: &str, queue_id: i32, offset: i64) -> Record {
    loop {
        let request = PullMessage {
            max_msg_nums: 1,
            ..waiting(pull(topic, queue_id, offset), A_MINUTE)
        };
        let pulled = wire.call(&request).await.unwrap();
        if !pulled.messages.is_empty() {
            return Record::decode(pulled.messages).unwrap();
        }
    }
}

fn give_back(record: &Record, delay_level: i32, max_reconsume_times: Option<i32>) -> ConsumerSendMsgBack {
    ConsumerSendMsgBack {
        offset: record.physical_offset,
        group: "g".into(),
        delay_level,
        origin_msg_id: None,
        origin_topic: None,
        unit_mode: None,
        max_reconsume_times,
    }
}

/// How long after `from` a message was stored, in whole seconds: the timer may be late by some milliseconds.
fn seconds_after(from: i64, record: &Record) -> i64 {
    (record.store_timestamp - from) / 1000
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_comes_when_its_level_says_and_shows_where_it_waited() {
    let (_broker, mut wire) = start().await;
    for (level, seconds) in [("1", 1), ("3", 10), ("18", 7200), ("99", 7200)] {
        let receipt = wire.call(&delayed(level)).await.unwrap().header;
        assert_eq!(receipt.queue_id, 1);
        let queue = i32::try_from(level.parse::<usize>().unwrap().min(18)).unwrap() - 1;
        let earliest = wire
            .call(&MaxOffset {
                topic: "SCHEDULE_TOPIC_XXXX".into(),
                queue_id: queue,
            })
            .await
            .unwrap();
        assert_eq!(earliest.offset, receipt.queue_offset + 1);
        let sent = wire
            .call(&pull("SCHEDULE_TOPIC_XXXX", queue, receipt.queue_offset))
            .await
            .unwrap();
        let sent = Record::decode(sent.messages).unwrap();

        let offset = wire
            .call(&MaxOffset {
                topic: "t".into(),
                queue_id: 1,
            })
            .await
            .unwrap()
            .offset;
        let record = next(&mut wire, "t", 1, offset).await;
        assert_eq!(
            seconds_after(sent.store_timestamp, &record),
            seconds,
            "level {level}"
        );
        assert_eq!(
            (record.topic.as_str(), record.queue_id, &record.body[..]),
            ("t", 1, level.as_bytes())
        );
        assert_eq!(
            (record.born_timestamp, record.born_host),
            (sent.born_timestamp, sent.born_host)
        );
        for (name, value) in [
            ("DELAY", level),
            ("REAL_TOPIC", "t"),
            ("REAL_QID", "1"),
            ("TAGS", "a"),
            ("UNIQ_KEY", "U"),
        ] {
            assert_eq!(record.properties.get(name), Some(value), "{name}");
        }
    }
    // The tag counts again.
    let by_tag = PullMessage {
        subscription: Some("a".into()),
        ..pull("t", 1, 0)
    };
    assert_eq!(wire.code(&by_tag).await.0.0, 0);
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_level_come_in_order_and_a_short_one_passes_a_long_one() {
    let (_broker, mut wire) = start().await;
    wire.call(&delayed("3")).await.unwrap();
    wire.call(&delayed("2")).await.unwrap();
    wire.call(&delayed("2")).await.unwrap();
    let mut bodies = Vec::new();
    for offset in 0..3 {
        bodies.push(next(&mut wire, "t", 1, offset).await.body);
    }
    assert_eq!(bodies, ["2", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_given_back_comes_16_times_later_and_later_and_then_is_dead() {
    let (_broker, mut wire) = start().await;
    wire.call(&SendMessageV2 {
        properties: Some(properties(&[("KEYS", "k")])),
        ..message("t", 0, "x")
    })
    .await
    .unwrap();
    let first = next(&mut wire, "t", 0, 0).await;
    let mut last = first.clone();
    for retry in 1..=16 {
        let now = wire
            .call(&message("clock", 0, "x"))
            .await
            .unwrap()
            .header
            .queue_offset;
        let clock = next(&mut wire, "clock", 0, now).await.store_timestamp;
        wire.call(&give_back(&last, 0, None)).await.unwrap();
        let again = next(&mut wire, "%RETRY%g", 0, i64::from(retry) - 1).await;
        let seconds = DELAY_LEVEL_SECONDS[usize::try_from(retry).unwrap() + 1];
        assert_eq!(
            seconds_after(clock, &again),
            i64::try_from(seconds).unwrap(),
            "retry {retry}"
        );
        assert_eq!((again.reconsume_times, &again.body[..]), (retry, &b"x"[..]));
        assert_eq!(again.properties.get("RETRY_TOPIC"), Some("t"));
        assert_eq!(again.properties.get("KEYS"), Some("k"));
        let origin = again.properties.get("ORIGIN_MESSAGE_ID").unwrap();
        let origin: rocketmq_client::protocol::OffsetMessageId = origin.parse().unwrap();
        assert_eq!(origin.physical_offset, first.physical_offset);
        last = again;
    }
    wire.call(&give_back(&last, 0, None)).await.unwrap();
    let dead = next(&mut wire, "%DLQ%g", 0, 0).await;
    assert_eq!(
        (dead.reconsume_times, dead.properties.get("RETRY_TOPIC")),
        (17, Some("t"))
    );
    assert_eq!(
        wire.call(&MaxOffset {
            topic: "%RETRY%g".into(),
            queue_id: 0
        })
        .await
        .unwrap()
        .offset,
        16
    );
}

#[tokio::test(start_paused = true)]
async fn the_consumer_may_name_the_level_and_the_limit() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let first = next(&mut wire, "t", 0, 0).await;
    wire.call(&give_back(&first, 1, Some(1))).await.unwrap();
    let again = next(&mut wire, "%RETRY%g", 0, 0).await;
    assert_eq!(seconds_after(first.store_timestamp, &again), 1);
    wire.call(&give_back(&again, 1, Some(1))).await.unwrap();
    assert_eq!(next(&mut wire, "%DLQ%g", 0, 0).await.reconsume_times, 2);
    // A negative level: dead at once.
    wire.call(&give_back(&first, -1, None)).await.unwrap();
    assert_eq!(next(&mut wire, "%DLQ%g", 0, 1).await.reconsume_times, 1);
}

#[tokio::test]
async fn giving_back_what_is_not_there_is_an_error() {
    let (_broker, mut wire) = start().await;
    let nothing = ConsumerSendMsgBack {
        offset: 4711,
        group: "g".into(),
        delay_level: 0,
        origin_msg_id: None,
        origin_topic: None,
        unit_mode: None,
        max_reconsume_times: None,
    };
    let (code, remark) = wire.code(&nothing).await;
    assert_eq!(
        (code.0, remark.as_str()),
        (1, "look message by offset failed, 4711")
    );
    let illegal = ConsumerSendMsgBack {
        group: "bad group".into(),
        ..nothing
    };
    assert_eq!(wire.code(&illegal).await.0.0, 26);
    // The retry topic is there now, and takes commits.
    let commit = UpdateConsumerOffset {
        consumer_group: "g".into(),
        topic: "%RETRY%g".into(),
        queue_id: 0,
        commit_offset: 0,
    };
    wire.call(&commit).await.unwrap();
    let earliest = EarliestStoreTime {
        topic: "%RETRY%g".into(),
        queue_id: 0,
    };
    assert_eq!(wire.call(&earliest).await.unwrap().timestamp, -1);
}
