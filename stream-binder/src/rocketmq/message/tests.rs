use std::time::Duration;

use bytes::Bytes;
use rocketmq_client::MessageQueue;
use rocketmq_client::protocol::{Properties, PropertiesBuf, Record, SysFlag};

use super::*;

fn view(topic: &str, properties: &[(&str, &str)]) -> MessageView {
    let mut buffer = PropertiesBuf::new();
    for (name, value) in properties {
        buffer.set(name, value).expect("legal");
    }
    let record = Record {
        queue_id: 3,
        flag: 7,
        queue_offset: 42,
        physical_offset: 0x1234,
        sys_flag: SysFlag(0),
        born_timestamp: 1_000,
        born_host: "10.0.0.1:5000".parse().expect("an address"),
        store_timestamp: 2_000,
        store_host: "127.0.0.1:10911".parse().expect("an address"),
        reconsume_times: 2,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        topic: topic.into(),
        properties: Properties::from(buffer),
    };
    MessageView::new(record, MessageQueue::new(topic, "broker-a", 3))
}

fn deliver(view: &MessageView) -> Delivery {
    incoming(&"orders-in-0".into(), &"orders".into(), view, 17)
}

#[test]
fn fields_and_headers_go_where_the_java_binder_puts_them() {
    let message = Message::text("hi")
        .tag("vip")
        .key("a")
        .key("b")
        .delay_level(2)
        .flag(7)
        .header("colour", "red")
        .header("WAIT", "false");
    let out = outgoing("orders", &message).expect("legal");
    assert_eq!((out.topic(), out.body().as_ref()), ("orders", b"hi".as_slice()));
    let expected = [
        ("TAGS", "vip"),
        ("KEYS", "a b"),
        ("DELAY", "2"),
        ("contentType", "text/plain;charset=UTF-8"),
        ("colour", "red"),
        ("WAIT", "false"),
    ];
    for (name, value) in expected {
        assert_eq!(out.get(name), Some(value), "{name}");
    }
}

#[test]
fn what_cannot_be_honoured_is_an_error_and_not_an_immediate_send() {
    for (message, text) in [
        (
            Message::new("x").delay(Duration::from_secs(42)),
            "a delay of 42s is not supported",
        ),
        (Message::new("x").header("WAIT", "maybe"), "`WAIT` is \"maybe\""),
    ] {
        let error = outgoing("orders", &message).expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!((error.persisted(), error.is_retryable()), (Persisted::No, false));
    }
}

#[test]
fn metadata_comes_from_the_message_and_headers_from_its_properties() {
    let delivery = deliver(&view(
        "orders",
        &[
            ("TAGS", "vip"),
            ("KEYS", "a b"),
            ("UNIQ_KEY", "id-1"),
            ("contentType", "text/csv"),
            ("colour", "red"),
        ],
    ));
    let meta = delivery.meta();
    assert_eq!(
        (meta.binding(), meta.topic(), meta.message_id()),
        ("orders-in-0", "orders", "id-1")
    );
    assert_eq!(
        (meta.tags(), meta.keys(), meta.broker()),
        (Some("vip"), Some("a b"), Some("broker-a"))
    );
    assert_eq!((meta.queue_id(), meta.queue_offset(), meta.flag()), (3, 42, 7));
    assert_eq!((meta.attempt(), meta.max_attempts()), (3, Some(17)));
    assert_eq!(
        (
            meta.born_timestamp(),
            meta.born_host().map(|host| host.to_string())
        ),
        (1_000, Some("10.0.0.1".into()))
    );
    assert_eq!(delivery.payload().as_ref(), b"body");
    assert_eq!(
        delivery.headers().iter().collect::<Vec<_>>(),
        [("contentType", "text/csv"), ("colour", "red")]
    );
}

#[test]
fn a_property_of_the_sender_never_replaces_metadata() {
    let delivery = deliver(&view(
        "orders",
        &[
            ("ROCKET_TAGS", "fake"),
            ("ROCKET_MQ_TOPIC", "fake"),
            ("id", "x"),
            ("timestamp", "1"),
            ("ROCKET_FUEL", "kept"),
        ],
    ));
    assert_eq!(delivery.header("ROCKET_TAGS"), None);
    assert_eq!(delivery.header("ROCKET_MQ_TOPIC").as_deref(), Some("orders"));
    assert_eq!(
        delivery.headers().iter().collect::<Vec<_>>(),
        [("ROCKET_FUEL", "kept")]
    );
}

#[test]
fn a_retried_message_keeps_the_topic_it_was_sent_to() {
    let delivery = deliver(&view(
        "%RETRY%billing",
        &[("RETRY_TOPIC", "orders"), ("DELAY", "4")],
    ));
    assert_eq!(delivery.meta().topic(), "orders");
    assert!(delivery.headers().is_empty());
}
