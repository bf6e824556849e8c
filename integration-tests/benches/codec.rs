//! What the codec costs: nanoseconds and allocations for each message.
//!
//! `cargo bench -p integration-tests --bench codec`

use std::alloc::System;
use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use integration_tests::report::{Report, Spread};
use rocketmq_client::protocol::frame::{Head, next_frame};
use rocketmq_client::protocol::requests::{PullResult, PullResultHeader, PullStatus, SendMessageV2};
use rocketmq_client::protocol::{
    Fields, Frame, HeaderFormat, PropertiesBuf, Record, Request, Response, SysFlag, Text,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SAMPLES: usize = 15;
const ROUNDS: u32 = 20_000;
const PULLED: usize = 32;

fn main() {
    let mut report = Report::new("codec", &["ns per message", "allocations per message"]);
    for format in [HeaderFormat::Json, HeaderFormat::Binary] {
        let request = send_request();
        let mut buffer = BytesMut::with_capacity(4096);
        measure(
            &mut report,
            format!("encode send 1 KiB, {format:?}"),
            1,
            ROUNDS,
            || {
                buffer.clear();
                encode_send(&request, format, &mut buffer);
                black_box(&buffer);
            },
        );
        let wire = buffer.clone().freeze();
        measure(
            &mut report,
            format!("decode send 1 KiB, {format:?}"),
            1,
            ROUNDS,
            || {
                let frame = Frame::decode(wire.slice(4..)).expect("a frame");
                black_box(SendMessageV2::from_frame(frame).expect("a send"));
            },
        );
    }
    let record = record();
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    measure(
        &mut report,
        "encode pull response of 32",
        PULLED,
        ROUNDS / 10,
        || {
            buffer.clear();
            encode_pulled(&record, &mut buffer);
            black_box(&buffer);
        },
    );
    let wire = buffer.freeze();
    measure(
        &mut report,
        "decode pull response of 32",
        PULLED,
        ROUNDS / 10,
        || {
            let frame = Frame::decode(wire.slice(4..)).expect("a frame");
            let pulled = PullResult::from_frame(frame).expect("a pull result");
            black_box(Record::decode_all(pulled.messages).expect("records"));
        },
    );
    let mut stream = BytesMut::from(&wire[..]);
    assert!(
        next_frame(&mut stream).expect("a frame").is_some(),
        "what was measured is what the stream carries"
    );
    report.finish();
}

fn measure(
    report: &mut Report,
    label: impl Into<String>,
    messages: usize,
    rounds: u32,
    mut work: impl FnMut(),
) {
    work();
    let region = Region::new(ALLOCATOR);
    for _ in 0..rounds {
        work();
    }
    let counted = region.change();
    let allocations = (counted.allocations + counted.reallocations) as f64;
    let total = f64::from(rounds) * messages as f64;
    let nanos = (0..SAMPLES).map(|_| {
        let start = Instant::now();
        for _ in 0..rounds {
            work();
        }
        start.elapsed().as_nanos() as f64 / total
    });
    report.row(label, [Spread::of(nanos), Spread::of([allocations / total])]);
}

fn properties() -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    for (name, value) in [
        ("TAGS", "TagA"),
        ("KEYS", "order-4711"),
        ("UNIQ_KEY", "7F0000010001ABCDEF0100001234002A"),
        ("WAIT", "true"),
    ] {
        properties.set(name, value).expect("legal");
    }
    properties
}

fn send_request() -> SendMessageV2 {
    SendMessageV2 {
        producer_group: "bench-group".into(),
        topic: "bench-topic".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 3,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties: Some(properties().into_string()),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: Some(false),
        broker_name: Some("broker-a".into()),
        body: Bytes::from(vec![b'x'; 1024]),
    }
}

fn encode_send(request: &SendMessageV2, format: HeaderFormat, out: &mut BytesMut) {
    let head = Head::request(SendMessageV2::CODE.0, 7, false);
    head.encode(format, request, &Fields::new(), request.body.len(), out)
        .expect("fits");
    out.extend_from_slice(&request.body);
}

fn record() -> Record {
    Record {
        queue_id: 3,
        flag: 0,
        queue_offset: 42,
        physical_offset: 4660,
        sys_flag: SysFlag(0),
        born_timestamp: 1_700_000_000_000,
        born_host: ([127, 0, 0, 1], 50_000).into(),
        store_timestamp: 1_700_000_000_001,
        store_host: ([127, 0, 0, 1], 10_911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from(vec![b'x'; 1024]),
        topic: Text::from_static("bench-topic"),
        properties: properties().into(),
    }
}

fn encode_pulled(record: &Record, out: &mut BytesMut) {
    let mut messages = BytesMut::with_capacity(PULLED * record.encoded_len());
    for _ in 0..PULLED {
        record.encode(&mut messages).expect("fits");
    }
    let header = PullResultHeader {
        next_begin_offset: 74,
        max_offset: 100,
        ..PullResultHeader::default()
    };
    let result = PullResult {
        status: PullStatus::Found,
        header,
        messages: messages.freeze(),
        remark: Some("FOUND".into()),
    };
    result
        .into_frame(7)
        .and_then(|frame| frame.encode(HeaderFormat::Json, out))
        .expect("fits");
}
