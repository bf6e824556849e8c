use std::io::Write;

use super::*;
use crate::ErrorKind;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::{Properties, Record, SysFlag};

fn record(topic: &str, properties: &PropertiesBuf) -> Record {
    Record {
        queue_id: 3,
        flag: 7,
        queue_offset: 42,
        physical_offset: 0x1234,
        sys_flag: SysFlag(0),
        born_timestamp: 1_000,
        born_host: "10.0.0.1:5000".parse().unwrap(),
        store_timestamp: 2_000,
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 2,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        topic: topic.into(),
        properties: Properties::from(properties.clone()),
    }
}

fn view(record: Record) -> MessageView {
    MessageView::new(record, MessageQueue::new("t", "broker-a", 3))
}

#[test]
fn setters_fill_the_properties_of_the_wire() {
    let message = Message::new("orders", vec![1, 2])
        .tag("vip")
        .key("a")
        .key("b")
        .property("x", "1")
        .delay_level(3)
        .sharding_key("user-1");
    assert_eq!(
        message.properties.iter().collect::<Vec<_>>(),
        [
            ("TAGS", "vip"),
            ("KEYS", "a b"),
            ("x", "1"),
            ("DELAY", "3"),
            ("__SHARDINGKEY", "user-1")
        ]
    );
    assert_eq!(message.delay_level(0).get("DELAY"), None);
}

#[test]
fn there_is_one_way_to_be_late() {
    let message = Message::new("t", "x").delay(Duration::from_micros(1));
    assert_eq!(
        message.get("TIMER_DELAY_MS"),
        Some("1"),
        "a part of a millisecond is not at once"
    );
    let message = message.delay(Duration::from_secs(2));
    assert_eq!(message.get("TIMER_DELAY_MS"), Some("2000"), "the last one counts");
    let message = message.delay(Duration::ZERO).delay_level(4);
    assert_eq!(
        (message.get("TIMER_DELAY_MS"), message.get("DELAY")),
        (None, Some("4"))
    );
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let message = message.delay_level(0).deliver_at(at);
    assert_eq!(message.get("TIMER_DELIVER_MS"), Some("1700000000123"));
    message.check(100).unwrap();
    let error = message.delay_level(2).check(100).unwrap_err();
    assert_eq!(
        error.to_string(),
        "message to topic t: deliver_at and delay_level are both set, of which a broker honours one; set only that"
    );
}

#[test]
fn what_a_broker_would_leave_out_is_refused() {
    let message = || Message::new("t", "x");
    for (message, parts) in [
        (message().priority(1).delay_level(2), "priority and delay_level"),
        (
            message().priority(1).sharding_key("k"),
            "priority and sharding_key",
        ),
        (
            message().delay(Duration::from_secs(1)).set("TRAN_MSG", "true"),
            "delay and a transaction",
        ),
        (
            message().priority(1).set("TRAN_MSG", "true"),
            "priority and a transaction",
        ),
        (
            message().priority(u32::MAX),
            "priority 4294967295 is above the highest",
        ),
    ] {
        let error = message.check(100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(parts), "{error}");
    }
    let urgent = message().priority(7);
    urgent.check(100).unwrap();
    assert_eq!(urgent.get("_SYS_MSG_PRIORITY_"), Some("7"));
}

#[test]
fn what_cannot_be_sent_is_named_before_anything_is_sent() {
    let large = Message::new("orders", vec![0; 11]);
    for (message, kind, text) in [
        (
            Message::new("orders", "x").property("TAGS", "y"),
            ErrorKind::Config,
            "message to topic orders: property TAGS is one of the protocol's own; use the setter of that meaning or \
             another name",
        ),
        (
            Message::new("orders", "x").property("a", "b\u{1}"),
            ErrorKind::Config,
            "message to topic orders: property \"a\" cannot be sent: property value at byte 1: a separator character \
             in property \"a\"",
        ),
        (
            Message::new("bad topic", "x"),
            ErrorKind::Config,
            "message cannot be sent: topic \"bad topic\" is not legal: ' ' is not allowed, only letters, digits, '%', \
             '|', '_' and '-' are",
        ),
        (
            Message::new("SCHEDULE_TOPIC_XXXX", "x"),
            ErrorKind::Config,
            "message to topic SCHEDULE_TOPIC_XXXX: the topic belongs to the broker and cannot be sent to; use one of \
             your own",
        ),
        (
            Message::new("orders", ""),
            ErrorKind::Config,
            "message to topic orders: the body is empty, which brokers refuse; send at least one byte",
        ),
        (
            large,
            ErrorKind::TooLarge,
            "message to topic orders: the body of 11 bytes is above the limit of 10; send less, or raise \
             max_message_bytes here and maxMessageSize on the broker",
        ),
    ] {
        let error = message.check(10).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_string(), text);
    }
    Message::new("orders", vec![0; 10]).check(10).unwrap();
}

#[test]
fn a_view_gives_back_what_was_sent() {
    let message = Message::new("orders", "body")
        .tag("vip")
        .key("a")
        .key("b")
        .property("x", "1");
    let mut properties = message.properties;
    properties.set(property::UNIQUE_KEY, "0A0B").unwrap();
    let view = view(record("orders", &properties));
    assert_eq!(view.topic(), "orders");
    assert_eq!(view.tag(), Some("vip"));
    assert_eq!(view.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(view.property("x"), Some("1"));
    assert_eq!(view.message_id(), "0A0B");
    assert_eq!(view.body(), "body");
    assert_eq!((view.reconsume_times(), view.attempt()), (2, 3));
    assert_eq!((view.queue_offset(), view.flag(), view.delay_level()), (42, 7, 0));
    assert_eq!(
        view.store_time()
            .duration_since(view.born_time())
            .unwrap()
            .as_secs(),
        1
    );
}

#[test]
fn a_message_without_an_id_of_its_own_goes_by_its_place() {
    let view = view(record("orders", &PropertiesBuf::new()));
    assert_eq!(view.message_id(), "7F00000100002A9F0000000000001234");
}

#[test]
fn a_retried_message_keeps_the_topic_it_was_sent_to() {
    let mut properties = PropertiesBuf::new();
    properties.set(property::RETRY_TOPIC, "orders").unwrap();
    assert_eq!(view(record("%RETRY%billing", &properties)).topic(), "orders");
    assert_eq!(view(record("other", &properties)).topic(), "other");
}

#[test]
fn a_compressed_body_is_read_as_it_was_written_and_a_broken_one_says_so() {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(5));
    encoder.write_all(&[b'x'; 5000]).unwrap();
    let mut compressed = record("orders", &PropertiesBuf::new());
    compressed.sys_flag = SysFlag(SysFlag::COMPRESSED);
    compressed.body = encoder.finish().unwrap().into();
    let whole = view(compressed.clone());
    assert_eq!(whole.body().len(), 5000);
    assert_eq!(whole.body_error(), None);

    compressed.body = Bytes::from_static(b"noise");
    let broken = view(compressed);
    assert_eq!(broken.body(), "noise");
    assert!(broken.body_error().is_some());
}

#[test]
fn a_view_in_a_log_line_shows_no_content() {
    let mut properties = PropertiesBuf::new();
    properties.set("secret", "value-of-property").unwrap();
    let text = format!("{:?}", view(record("orders", &properties)));
    assert!(!text.contains("value-of-property"), "{text}");
    assert!(text.contains("queue_offset: 42"), "{text}");
}
