use super::*;
use crate::Message;
use crate::cluster::testing::{FakeRoutes, builder, name_server_and_broker, route};
use crate::protocol::trace::{PubTrace, RecallTrace, TRACE_TOPIC};
use crate::protocol::{Properties, ResponseCode, Text};
use crate::transport::fake::{Answer, FakeServer, fields};

fn record(id: &str) -> TraceRecord {
    TraceRecord::Recall(RecallTrace {
        message_id: id.into(),
        ..RecallTrace::default()
    })
}

fn stored() -> Answer {
    fields([
        ("msgId", "M"),
        ("queueId", "0"),
        ("queueOffset", "7"),
        ("MSG_REGION", "south"),
        ("TRACE_ON", "true"),
    ])
}

async fn server(routes: &FakeRoutes, answer: impl Fn() -> Answer + Send + Sync + 'static) -> FakeServer {
    let server = name_server_and_broker(routes, move |_| answer()).await;
    for topic in [TRACE_TOPIC, "orders"] {
        routes.set(topic, route(&[("broker-a", &server.address())], 1));
    }
    server
}

/// The records of all messages to the trace topic, and their keys.
fn told(server: &FakeServer) -> Vec<(Vec<TraceRecord>, String)> {
    let sends = server.requests_of::<SendMessageV2>().into_iter();
    let trace = sends.filter(|send| send.topic == TRACE_TOPIC);
    trace
        .map(|send| {
            let properties = Properties::new(Text::from(send.properties.unwrap()));
            let records = TraceRecord::decode_all(std::str::from_utf8(&send.body).unwrap()).unwrap();
            (
                records,
                properties.get(property::KEYS).unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_send_is_told_with_all_that_is_known_of_it() {
    let routes = FakeRoutes::default();
    let server = server(&routes, stored).await;
    let client = builder(&server.address())
        .namespace("ns")
        .trace(Trace::new())
        .connect()
        .await
        .unwrap();
    routes.set("ns%orders", route(&[("broker-a", &server.address())], 1));
    let producer = client.producer("shop").start().await.unwrap();
    let message = Message::new("orders", "paid").tag("vip").key("k1").key("k2");
    let receipt = producer.send(message).await.unwrap();
    let later = producer
        .send(Message::new("orders", "x").delay_level(3))
        .await
        .unwrap();
    client.shutdown().await;

    let told = told(&server);
    let [(records, keys)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        *keys,
        format!("{} k1 k2 {}", receipt.message_id, later.message_id)
    );
    let [TraceRecord::Pub(first), TraceRecord::Pub(second)] = &records[..] else {
        panic!("{records:?}")
    };
    assert!(first.timestamp > 0 && (0..60_000).contains(&first.cost));
    assert_eq!(
        *first,
        PubTrace {
            timestamp: first.timestamp,
            region: "south".into(),
            group: "shop".into(),
            topic: "orders".into(),
            message_id: receipt.message_id,
            tags: Some("vip".into()),
            keys: Some("k1 k2".into()),
            store_host: server.address(),
            body_length: 4,
            cost: first.cost,
            message_type: crate::protocol::trace::TraceMessageType::NORMAL,
            offset_message_id: Some("M".into()),
            success: true,
        }
    );
    assert_eq!(
        second.message_type,
        crate::protocol::trace::TraceMessageType::DELAY
    );
    assert_eq!(client.trace_stats().unwrap().sent, 2);
}

#[tokio::test]
async fn each_message_of_a_batch_is_told_by_its_own_id() {
    let routes = FakeRoutes::default();
    let server = server(&routes, || {
        fields([("msgId", "A,B"), ("queueId", "0"), ("queueOffset", "7")])
    })
    .await;
    let client = builder(&server.address())
        .trace(Trace::new())
        .connect()
        .await
        .unwrap();
    let producer = client.producer("shop").start().await.unwrap();
    let batch = [Message::new("orders", "1"), Message::new("orders", "2")];
    let receipts = producer.send_batch(batch).await.unwrap().into_receipts();
    client.shutdown().await;
    let told: Vec<_> = told(&server)
        .into_iter()
        .flat_map(|(records, _)| records)
        .collect();
    let ids: Vec<_> = told
        .iter()
        .map(|record| match record {
            TraceRecord::Pub(sent) => (&*sent.message_id, sent.offset_message_id.as_deref()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        ids,
        [
            (&*receipts[0].message_id, Some("A")),
            (&*receipts[1].message_id, Some("B"))
        ]
    );
}

#[tokio::test]
async fn a_broker_that_wants_no_trace_and_a_send_that_fails_are_left_out() {
    let routes = FakeRoutes::default();
    let server = server(&routes, || {
        fields([
            ("msgId", "M"),
            ("queueId", "0"),
            ("queueOffset", "7"),
            ("TRACE_ON", "false"),
        ])
    })
    .await;
    let client = builder(&server.address())
        .trace(Trace::new())
        .connect()
        .await
        .unwrap();
    let producer = client.producer("shop").start().await.unwrap();
    producer.send(Message::new("orders", "x")).await.unwrap();
    producer.send(Message::new(TRACE_TOPIC, "x")).await.unwrap();
    producer.send(Message::new("unknown", "x")).await.unwrap_err();
    client.shutdown().await;
    assert_eq!(client.trace_stats(), Some(TraceStats::default()));
    assert_eq!(server.requests_of::<SendMessageV2>().len(), 2);
}

#[tokio::test]
async fn records_go_out_when_there_are_enough_of_them_and_when_they_have_waited() {
    let routes = FakeRoutes::default();
    let server = server(&routes, stored).await;
    let trace = Trace::new().batch_size(2).max_wait(Duration::from_millis(20));
    let client = builder(&server.address()).trace(trace).connect().await.unwrap();
    let tracer = client.cluster().trace().unwrap();
    for id in ["a", "b", "c"] {
        tracer.record(record(id));
    }
    server.asked::<SendMessageV2>(2).await;
    let mut sizes: Vec<_> = told(&server).iter().map(|(records, _)| records.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
    client.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_kept_up_with_is_dropped_and_what_nobody_takes_is_lost_and_both_are_counted() {
    let routes = FakeRoutes::default();
    let server = server(&routes, || Answer::code(ResponseCode::NO_PERMISSION)).await;
    let trace = Trace::new().queue_size(3);
    let client = builder(&server.address()).trace(trace).connect().await.unwrap();
    let tracer = client.cluster().trace().unwrap();
    // The dispatcher gets no turn in between.
    for id in 0..10 {
        tracer.record(record(&id.to_string()));
    }
    client.shutdown().await;
    let stats = client.trace_stats().unwrap();
    assert_eq!((stats.sent, stats.failed, stats.dropped), (0, 3, 7));
}

#[test]
fn keys_for_which_there_is_no_room_are_left_out() {
    let mut batch = Batch::default();
    let long = PubTrace {
        message_id: "ID".into(),
        keys: Some(format!("short {}", "k".repeat(MAX_KEYS_BYTES))),
        ..PubTrace::default()
    };
    batch.add(&TraceRecord::Pub(long.clone()));
    batch.add(&TraceRecord::Pub(long));
    assert_eq!(batch.keys().1, "ID short");
}

#[tokio::test]
async fn options_that_cannot_be_used_are_all_told() {
    let trace = Trace::new()
        .topic("no topic")
        .batch_size(0)
        .max_wait(Duration::ZERO)
        .queue_size(0);
    let error = builder("127.0.0.1:1").trace(trace).connect().await.unwrap_err();
    for fault in [
        "\"no topic\" is not legal",
        "batch_size",
        "max_wait",
        "queue_size",
    ] {
        assert!(error.to_string().contains(fault), "{error}");
    }
}
