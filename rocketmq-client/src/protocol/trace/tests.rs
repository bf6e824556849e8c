use proptest::prelude::*;

use super::*;

/// What Java's 5.5.0 encoder makes of the same records; `|` and `$` stand for the separators.
fn vectors() -> Vec<(TraceRecord, &'static str)> {
    let id = || "7F00000100002A139A550000".to_owned();
    let some = |text: &str| Some(text.to_owned());
    let published = PubTrace {
        timestamp: 1_700_000_000_123,
        region: "DefaultRegion".into(),
        group: "shop".into(),
        topic: "orders".into(),
        message_id: id(),
        tags: some("vip"),
        keys: some("k1 k2"),
        store_host: "127.0.0.1:10911".into(),
        body_length: 42,
        cost: 7,
        message_type: TraceMessageType::DELAY,
        offset_message_id: some("7F00000100002A9F0000000000001234"),
        success: true,
    };
    let before = SubBeforeTrace {
        timestamp: 1_700_000_000_123,
        region: "DefaultRegion".into(),
        group: "shop".into(),
        request_id: "REQ1".into(),
        message_id: id(),
        retry_times: 3,
        keys: some("k1 k2"),
    };
    let after = SubAfterTrace {
        request_id: "REQ1".into(),
        message_id: id(),
        cost: 7,
        success: true,
        keys: some("k1 k2"),
        context_code: SubAfterTrace::FAILED,
        timestamp: Some(1_700_000_000_123),
        group: some("shop"),
    };
    let ended = EndTransactionTrace {
        timestamp: 1_700_000_000_123,
        region: "DefaultRegion".into(),
        group: "shop".into(),
        topic: "orders".into(),
        message_id: id(),
        tags: some("vip"),
        keys: some("k1 k2"),
        store_host: "127.0.0.1:10911".into(),
        message_type: TraceMessageType::COMMIT,
        transaction_id: some("T1"),
        state: "ROLLBACK_MESSAGE".into(),
        from_check: true,
    };
    let recalled = RecallTrace {
        timestamp: 1_700_000_000_123,
        region: "DefaultRegion".into(),
        group: "shop".into(),
        topic: "orders".into(),
        message_id: id(),
        success: true,
    };
    vec![
        (
            TraceRecord::Pub(published.clone()),
            "Pub|1700000000123|DefaultRegion|shop|orders|7F00000100002A139A550000|vip|k1 k2|127.0.0.1:10911|42|7|3|\
             7F00000100002A9F0000000000001234|true$",
        ),
        (
            TraceRecord::Pub(PubTrace {
                tags: None,
                keys: None,
                offset_message_id: None,
                message_type: TraceMessageType::NORMAL,
                ..published
            }),
            "Pub|1700000000123|DefaultRegion|shop|orders|7F00000100002A139A550000|null|null|127.0.0.1:10911|42|7|0|\
             null|true$",
        ),
        (
            TraceRecord::SubBefore(before.clone()),
            "SubBefore|1700000000123|DefaultRegion|shop|REQ1|7F00000100002A139A550000|3|k1 k2$",
        ),
        (
            TraceRecord::SubBefore(SubBeforeTrace { keys: None, ..before }),
            "SubBefore|1700000000123|DefaultRegion|shop|REQ1|7F00000100002A139A550000|3|null$",
        ),
        (
            TraceRecord::SubAfter(after.clone()),
            "SubAfter|REQ1|7F00000100002A139A550000|7|true|k1 k2|4|1700000000123|shop$",
        ),
        (
            TraceRecord::SubAfter(SubAfterTrace {
                keys: None,
                ..after.clone()
            }),
            "SubAfter|REQ1|7F00000100002A139A550000|7|true|null|4|1700000000123|shop$",
        ),
        // Java's access channel "cloud".
        (
            TraceRecord::SubAfter(SubAfterTrace {
                timestamp: None,
                group: None,
                ..after
            }),
            "SubAfter|REQ1|7F00000100002A139A550000|7|true|k1 k2|4|$",
        ),
        (
            TraceRecord::EndTransaction(ended.clone()),
            "EndTransaction|1700000000123|DefaultRegion|shop|orders|7F00000100002A139A550000|vip|k1 k2|\
             127.0.0.1:10911|2|T1|ROLLBACK_MESSAGE|true$",
        ),
        (
            TraceRecord::EndTransaction(EndTransactionTrace {
                tags: None,
                keys: None,
                transaction_id: None,
                state: "UNKNOW".into(),
                ..ended
            }),
            "EndTransaction|1700000000123|DefaultRegion|shop|orders|7F00000100002A139A550000|null|null|\
             127.0.0.1:10911|2|null|UNKNOW|true$",
        ),
        (
            TraceRecord::Recall(recalled),
            "Recall|1700000000123|DefaultRegion|shop|orders|7F00000100002A139A550000|true$",
        ),
    ]
}

fn on_the_wire(text: &str) -> String {
    text.replace('|', "\u{1}").replace('$', "\u{2}")
}

#[test]
fn records_are_written_as_java_writes_them_and_read_again() {
    let mut all = String::new();
    for (record, java) in vectors() {
        let mut written = String::new();
        record.encode(&mut written);
        assert_eq!(written, on_the_wire(java));
        assert_eq!(
            TraceRecord::decode_all(&written).unwrap(),
            std::slice::from_ref(&record)
        );
        all.push_str(&written);
    }
    let records: Vec<_> = vectors().into_iter().map(|(record, _)| record).collect();
    assert_eq!(TraceRecord::decode_all(&all).unwrap(), records);
}

#[test]
fn records_of_older_and_newer_clients_are_read() {
    let read = |text: &str| TraceRecord::decode_all(&on_the_wire(text)).unwrap();
    let [TraceRecord::Pub(old)] = &read("Pub|1|r|g|t|id|tag|key|host|2|3|0|true$")[..] else {
        panic!("one record")
    };
    assert_eq!((old.success, old.offset_message_id.as_deref()), (true, None));
    let [TraceRecord::Pub(new)] = &read("Pub|1|r|g|t|id|tag|key|host|2|3|0|off|true|client$")[..] else {
        panic!("one record")
    };
    assert_eq!(
        (new.success, new.offset_message_id.as_deref()),
        (true, Some("off"))
    );
    let [TraceRecord::SubAfter(after)] = &read("SubAfter|q|id|5|false|key$")[..] else {
        panic!("one record")
    };
    assert_eq!((after.cost, after.context_code, after.timestamp), (5, 0, None));
    assert_eq!(read("Future|1|2$"), []);
    assert_eq!(read(""), []);
}

#[test]
fn what_is_no_record_is_refused_with_its_place() {
    let good = "Recall|1|r|g|t|id|true$";
    let error = TraceRecord::decode_all(&on_the_wire(&format!("{good}Pub|1|r$"))).unwrap_err();
    assert_eq!(
        error,
        CodecError::invalid("trace record", good.len(), "it has 3 fields, one more is needed")
    );
    assert!(TraceRecord::decode_all(&on_the_wire("Recall|x|r|g|t|id|true$")).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-zA-Z0-9|$ ]{0,200}", kind in 0usize..5) {
        let kind = ["Pub", "SubBefore", "SubAfter", "EndTransaction", "Recall"][kind];
        let _ = TraceRecord::decode_all(&on_the_wire(&format!("{kind}|{text}")));
    }
}
