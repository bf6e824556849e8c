use proptest::prelude::*;

use super::*;

const V1: PopQueue = PopQueue {
    topic: PopTopic::RetryV1,
    queue_id: 0,
};

fn normal(queue_id: i32) -> PopQueue {
    PopQueue {
        topic: PopTopic::Normal,
        queue_id,
    }
}

#[test]
fn a_handle_reads_as_the_java_client_writes_it() {
    let text = "100 1763000000123 60000 3 0 broker-a 2 104";
    let handle: ReceiptHandle = text.parse().unwrap();
    assert_eq!((handle.start_offset, handle.offset), (100, 104));
    assert_eq!(
        (handle.pop_time, handle.invisible_time),
        (1_763_000_000_123, 60_000)
    );
    assert_eq!((handle.revive_queue_id, handle.queue_id), (3, 2));
    assert_eq!(
        (handle.topic, &*handle.broker_name),
        (PopTopic::Normal, "broker-a")
    );
    assert_eq!(handle.to_string(), text);
    assert!(!handle.is_ordered());
}

#[test]
fn a_changed_handle_stands_for_its_message_alone() {
    let handle: ReceiptHandle = "100 5 60000 3 1 broker-a 2 104".parse().unwrap();
    let changed = handle.changed(9, 30_000, 3);
    assert_eq!(changed.to_string(), "104 9 30000 3 1 broker-a 2 104");
    let ordered: ReceiptHandle = "100 5 60000 999 0 broker-a 2 104".parse().unwrap();
    assert!(ordered.is_ordered());
}

#[test]
fn a_handle_that_is_none_is_an_error() {
    for (text, reason) in [
        ("", "receipt handle at byte 0: 1 parts instead of 8"),
        ("1 2 3 4 0 b 5", "receipt handle at byte 0: 7 parts instead of 8"),
        ("1 2 3 4 0 b 5 x", "receipt handle at byte 0: \"x\" is no number"),
        (
            "1 2 3 4 7 b 5 6",
            "kind of a popped topic at byte 0: \"7\" is none",
        ),
    ] {
        assert_eq!(text.parse::<ReceiptHandle>().unwrap_err().to_string(), reason);
    }
}

#[test]
fn retry_topics_have_the_names_of_the_broker() {
    assert_eq!(PopTopic::Normal.name("orders", "billing"), "orders");
    let v1 = PopTopic::RetryV1.name("orders", "billing");
    let v2 = PopTopic::RetryV2.name("orders", "billing");
    assert_eq!(
        (v1.as_str(), v2.as_str()),
        ("%RETRY%billing_orders", "%RETRY%billing+orders")
    );
    assert_eq!(PopTopic::of(&v1), PopTopic::RetryV1);
    assert_eq!(PopTopic::of(&v2), PopTopic::RetryV2);
    assert_eq!(PopTopic::of("a+b"), PopTopic::Normal);
}

#[test]
fn offsets_of_several_queues_are_told_apart() {
    let starts: StartOffsets = "0 3 1000;1 0 7;0 4 9".parse().unwrap();
    assert_eq!(starts.get(normal(3)), Some(1000));
    assert_eq!(starts.get(V1), Some(7));
    assert_eq!(starts.get(normal(9)), None);
    assert_eq!(starts.to_string(), "0 3 1000;1 0 7;0 4 9");

    let offsets: MessageOffsets = "0 3 1000,1002;1 0 7".parse().unwrap();
    assert_eq!(offsets.get(normal(3)), Some(&[1000, 1002][..]));
    assert_eq!(offsets.get(V1), Some(&[7][..]));
    assert_eq!(offsets.to_string(), "0 3 1000,1002;1 0 7");

    assert_eq!("".parse::<StartOffsets>().unwrap(), StartOffsets::default());
}

#[test]
fn the_count_of_a_message_goes_before_that_of_its_queue() {
    let text = "0 qo0%1234 2;0 0 1";
    let counts: OrderCounts = text.parse().unwrap();
    assert_eq!(counts.get(normal(0), 1234), Some(2));
    assert_eq!(counts.get(normal(0), 1235), Some(1));
    assert_eq!(counts.get(normal(1), 1234), None);
    assert_eq!(counts.to_string(), text);
}

#[test]
fn what_java_refuses_is_refused() {
    for text in ["0 1", "0 1 2 3", "0 1 x", "x 1 2", "0 1 2;0 1 3"] {
        assert!(text.parse::<StartOffsets>().is_err(), "{text}");
    }
    for text in ["0 1 2,", "0 1 2,x", "0 1 2;0 1 3"] {
        assert!(text.parse::<MessageOffsets>().is_err(), "{text}");
    }
    for text in ["0 qo1 2", "0 qox%1 2", "0 1 2;0 1 2"] {
        assert!(text.parse::<OrderCounts>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[0-2 ;,%qox-]{0,40}") {
        let _ = text.parse::<ReceiptHandle>();
        let _ = text.parse::<StartOffsets>();
        let _ = text.parse::<MessageOffsets>();
        let _ = text.parse::<OrderCounts>();
    }

    #[test]
    fn every_handle_survives_a_round_trip(
        numbers in prop::array::uniform4(any::<i64>()),
        ids in prop::array::uniform2(any::<i32>()),
        topic in 0..3usize,
        broker in "[!-~]{1,20}",
    ) {
        let handle = ReceiptHandle {
            start_offset: numbers[0],
            pop_time: numbers[1],
            invisible_time: numbers[2],
            revive_queue_id: ids[0],
            topic: PopTopic::ALL[topic],
            broker_name: broker.into(),
            queue_id: ids[1],
            offset: numbers[3],
        };
        prop_assert_eq!(handle.to_string().parse::<ReceiptHandle>().unwrap(), handle);
    }
}
