use std::collections::HashSet;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::protocol::frame::next_frame;
use crate::protocol::{Fields, Frame, HeaderFormat, Request, Response, ResponseCode, ResponseError};

#[test]
fn every_request_has_a_named_code_of_its_own() {
    let mut codes = HashSet::new();
    for meta in REQUESTS.iter().copied().flatten() {
        assert!(meta.code.name().is_some(), "{}", meta.name);
        assert!(codes.insert(meta.code), "{} shares its code", meta.name);
    }
}

#[test]
fn single_letters_carry_a_send() {
    let request = SendMessageV2 {
        producer_group: "pg".into(),
        topic: "t".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: -1,
        sys_flag: 1,
        born_timestamp: 5,
        flag: 6,
        properties: Some("TAGS\u{1}a\u{2}".into()),
        reconsume_times: None,
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: None,
        broker_name: Some("broker-a".into()),
        body: "hello".into(),
    };
    let fields = Fields::from_header(&request).unwrap();
    let keys: String = fields.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, "abcdefghikn");
    let frame = Frame {
        fields,
        body: request.body(),
        ..Frame::request(SendMessageV2::CODE)
    };
    assert_eq!(SendMessageV2::from_frame(frame).unwrap(), request);
}

#[test]
fn a_store_that_did_not_flush_is_a_result_and_busy_is_a_refusal() {
    let header = SendResultHeader {
        msg_id: "7F".into(),
        queue_id: 1,
        queue_offset: 2,
        ..Default::default()
    };
    let sent = SendResult {
        code: ResponseCode::FLUSH_DISK_TIMEOUT,
        header,
    };
    assert_eq!(
        SendResult::from_frame(sent.clone().into_frame(3).unwrap()).unwrap(),
        sent
    );
    let busy = Frame::refusal(ResponseCode::SYSTEM_BUSY, 3, "later");
    let error = SendResult::from_frame(busy).unwrap_err();
    assert_eq!(
        error,
        ResponseError::Refused {
            code: ResponseCode::SYSTEM_BUSY,
            remark: "later".into()
        }
    );
    assert_eq!(error.to_string(), "SYSTEM_BUSY(2): later");
}

#[test]
fn a_success_without_its_fields_is_malformed_not_a_panic() {
    let error = Offset::from_frame(Frame::response(ResponseCode::SUCCESS, 1)).unwrap_err();
    assert_eq!(error.to_string(), "unreadable response: missing field `offset`");
    let error = Offset::from_frame(Frame::response(ResponseCode(4711), 1)).unwrap_err();
    assert!(matches!(
        error,
        ResponseError::Refused {
            code: ResponseCode(4711),
            ..
        }
    ));
}

#[test]
fn a_huge_remark_is_cut() {
    let frame = Frame::refusal(ResponseCode::SYSTEM_ERROR, 1, "x".repeat(1 << 20));
    let ResponseError::Refused { remark, .. } = ResponseError::refused(&frame) else {
        panic!("a refusal")
    };
    assert_eq!(remark.len(), 1024);
}

proptest! {
    #[test]
    fn every_request_survives_a_round_trip_in_both_header_forms(number in 0..i32::MAX, text in "[ -~]{1,12}") {
        for meta in REQUESTS.iter().copied().flatten() {
            let mut fields = Fields::new();
            for name in NEEDED_FIELDS {
                fields.push(name, &number.to_string());
            }
            fields.push("topicFilterType", "MULTI_TAG");
            // Optional text that some requests have, and a field that none has.
            fields.push("properties", &text);
            fields.push("noSuchField", &text);
            let frame = Frame { fields, body: "{}".into(), ..Frame::request(meta.code) };
            let first = (meta.round_trip)(frame).unwrap();
            prop_assert_eq!(first.fields.get("noSuchField"), None);
            for format in [HeaderFormat::Json, HeaderFormat::Binary] {
                let mut wire = BytesMut::new();
                first.encode(format, &mut wire).unwrap();
                let read = next_frame(&mut wire).unwrap().unwrap();
                prop_assert_eq!(&(meta.round_trip)(read).unwrap(), &first, "{}", meta.name);
            }
        }
    }
}

/// Every field name that any request must have.
const NEEDED_FIELDS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "producerGroup",
    "topic",
    "defaultTopic",
    "defaultTopicQueueNums",
    "queueId",
    "sysFlag",
    "bornTimestamp",
    "flag",
    "offset",
    "group",
    "delayLevel",
    "consumerGroup",
    "queueOffset",
    "maxMsgNums",
    "commitOffset",
    "suspendTimeoutMillis",
    "subVersion",
    "timestamp",
    "clientID",
    "cluster",
    "brokerName",
    "brokerAddr",
    "clusterName",
    "haServerAddr",
    "brokerId",
    "namespace",
    "key",
    "value",
    "maxNum",
    "beginTimestamp",
    "endTimestamp",
    "readQueueNums",
    "writeQueueNums",
    "perm",
    "order",
    "groupName",
    "tranStateTableOffset",
    "commitLogOffset",
    "isForce",
    "clientId",
    "recallHandle",
    "commitOrRollback",
    "msgId",
    "bornHost",
    "storeHost",
    "storeTimestamp",
    "index",
    "count",
    "srcGroup",
    "destGroup",
    "offline",
    "isOrder",
    "statsName",
    "statsKey",
    "accessKey",
    "secretKey",
    "admin",
    "globalWhiteAddrs",
    "username",
    "subject",
    "invisibleTime",
    "pollTime",
    "bornTime",
    "initMode",
    "extraInfo",
];
