use bytes::BytesMut;

use super::*;
use crate::protocol::requests::PopStatus;
use crate::protocol::{Properties, SysFlag};

fn stored(topic: &'static str, queue_id: i32, offset: i64, properties: &str) -> Record {
    Record {
        queue_id,
        flag: 0,
        queue_offset: offset,
        physical_offset: offset * 1000,
        sys_flag: SysFlag::default(),
        born_timestamp: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_timestamp: 0,
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        topic: Text::from_static(topic),
        properties: Properties::new(Text::from(properties)),
    }
}

fn answer(records: &[Record], starts: &str, offsets: &str, counts: &str) -> PopResult {
    let mut body = BytesMut::new();
    for record in records {
        record.encode(&mut body).unwrap();
    }
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PopResult {
        status: PopStatus::Found,
        header: PopResultHeader {
            pop_time: 5000,
            invisible_time: 60_000,
            revive_qid: 3,
            rest_num: 0,
            start_offset_info: some(starts),
            msg_offset_info: some(offsets),
            order_count_info: some(counts),
        },
        messages: body.freeze(),
        remark: None,
    }
}

fn handles(result: PopResult, ordered: bool) -> Vec<String> {
    let queue = MessageQueue::new("orders", "b", -1);
    let popped = read(result, &queue, "orders", ordered).unwrap();
    popped
        .messages
        .iter()
        .map(|(_, handle)| handle.to_string())
        .collect()
}

#[test]
fn each_message_gets_the_start_of_its_queue() {
    let records = [
        stored("orders", 2, 100, ""),
        stored("orders", 2, 104, ""),
        stored("orders", 5, 7, ""),
    ];
    assert_eq!(
        handles(answer(&records, "0 2 98;0 5 7", "0 2 100,104;0 5 7", ""), false),
        [
            "98 5000 60000 3 0 b 2 100",
            "98 5000 60000 3 0 b 2 104",
            "7 5000 60000 3 0 b 5 7",
        ]
    );
}

#[test]
fn a_retried_message_carries_the_handle_that_the_broker_wrote() {
    let own = "POP_CK\u{1}40 5000 60000 3 1 b 0 41\u{2}";
    let records = [stored("orders", 0, 41, own), stored("orders", 0, 9, "")];
    assert_eq!(
        handles(answer(&records, "1 0 40;0 0 9", "1 0 41;0 0 9", ""), false),
        ["40 5000 60000 3 1 b 0 41", "9 5000 60000 3 0 b 0 9"]
    );
}

#[test]
fn a_handle_that_a_producer_wrote_is_not_taken() {
    for forged in [
        "POP_CK\u{1}40 4999 60000 3 1 b 0 41\u{2}",
        "POP_CK\u{1}40 5000 60000 3 1 other 0 41\u{2}",
        "POP_CK\u{1}40 5000 60000 3 0 b 0 41\u{2}",
        "POP_CK\u{1}nonsense\u{2}",
    ] {
        let records = [stored("orders", 0, 41, forged)];
        let result = answer(&records, "1 0 40", "1 0 41", "");
        assert_eq!(handles(result, false), ["40 5000 60000 3 1 b 0 41"], "{forged}");
    }
}

#[test]
fn a_shown_retry_topic_is_hidden_from_the_user() {
    let records = [stored("%RETRY%g+orders", 0, 41, "")];
    let queue = MessageQueue::new("orders", "b", -1);
    let popped = read(answer(&records, "2 0 40", "2 0 41", ""), &queue, "orders", false).unwrap();
    let (record, handle) = &popped.messages[0];
    assert_eq!(record.topic, *"orders");
    assert_eq!(handle.to_string(), "40 5000 60000 3 2 b 0 41");
}

#[test]
fn a_queue_of_many_topics_is_read_by_rank() {
    let records = [stored("orders", 0, 900, ""), stored("orders", 0, 950, "")];
    assert_eq!(
        handles(answer(&records, "0 0 3", "0 0 3,4", ""), false),
        ["3 5000 60000 3 0 b 0 3", "3 5000 60000 3 0 b 0 4"]
    );
}

#[test]
fn the_counts_of_an_ordered_pop_say_how_often_a_message_was_delivered() {
    let records = [stored("orders", 2, 100, ""), stored("orders", 2, 101, "")];
    let queue = MessageQueue::new("orders", "b", 2);
    let result = answer(&records, "0 2 100", "0 2 100,101", "0 qo2%100 3;0 2 0");
    let popped = read(result, &queue, "orders", true).unwrap();
    let times: Vec<_> = popped
        .messages
        .iter()
        .map(|(record, _)| record.reconsume_times)
        .collect();
    assert_eq!(times, [3, 0]);
}

#[test]
fn messages_without_a_start_are_left_out_and_a_bad_header_is_an_error() {
    let records = [stored("orders", 2, 100, ""), stored("orders", 3, 5, "")];
    let result = answer(&records, "0 2 100", "0 2 100", "");
    assert_eq!(handles(result, false), ["100 5000 60000 3 0 b 2 100"]);
    let queue = MessageQueue::new("orders", "b", 2);
    assert!(read(answer(&records, "nonsense", "", ""), &queue, "orders", false).is_err());
}

#[test]
fn without_any_offsets_a_queue_starts_at_its_first_message() {
    let records = [stored("orders", 2, 100, ""), stored("orders", 2, 103, "")];
    assert_eq!(
        handles(answer(&records, "", "", ""), false),
        ["100 5000 60000 3 0 b 2 100", "100 5000 60000 3 0 b 2 103"]
    );
}
