//! Message trace: what happened to a message, as Apache RocketMQ's own tools read it.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use integration_tests::{
    Failure,
    mqadmin::MqAdmin,
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Client, ConsumeFrom, Message, MessageView, Outcome, Retry, Trace, TransactionState,
    protocol::trace::{SubAfterTrace, TraceMessageType, TraceRecord},
};
use tokio::sync::mpsc::channel;

use crate::inbox::{Inbox, expect};

scenarios![
    the_operators_tool_reads_the_cluster,
    the_operators_tool_reads_what_happened_to_a_message,
    every_step_of_a_message_is_told_in_a_topic_of_ones_own,
    ends_of_transactions_and_recalls_are_told,
];

async fn the_operators_tool_reads_the_cluster(target: &Target) -> TestResult {
    let listed = MqAdmin::new(target.name_server())?
        .run("clusterList", &[])
        .await?;
    let broker = target.first_broker().await?.to_string();
    if listed.contains(&broker) {
        return Ok(());
    }
    Err(format!("{broker} is not in\n{listed}").into())
}

async fn traced(target: &Target, trace: Trace) -> Result<Client, Failure> {
    let builder = Client::builder(target.name_server()).trace(trace);
    Ok(builder.connect().await?)
}

async fn the_operators_tool_reads_what_happened_to_a_message(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("traced"), target.group("reader"));
    let admin = MqAdmin::new(target.name_server())?;
    target.create_topic(&topic, 1).await?;
    let client = traced(target, Trace::new()).await?;
    let producer = client.producer(target.group("writer")).start().await?;
    let receipt = producer
        .send(Message::new(&topic, "x").tag("vip").key("k1"))
        .await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("id", inbox.next().await?.message_id(), receipt.message_id.clone())?;
    // Sends what is left.
    client.shutdown().await;
    let stats = client.trace_stats().ok_or("no message trace")?;
    expect("records", (stats.sent, stats.dropped, stats.failed), (3, 0, 0))?;

    let mut printed = String::new();
    eventually("the trace in the index", async || {
        printed = admin
            .run("queryMsgTraceById", &["-i", &receipt.message_id])
            .await?;
        let told = [producer.group(), &group, "success"];
        Ok(told.iter().all(|text| printed.contains(text)))
    })
    .await
    .map_err(|error| format!("{error}; the tool printed\n{printed}").into())
}

async fn every_step_of_a_message_is_told_in_a_topic_of_ones_own(target: &Target) -> TestResult {
    let (topic, group, traces) = (
        target.topic("steps"),
        target.group("steps"),
        target.topic("traces"),
    );
    for topic in [&topic, &traces] {
        target.create_topic(topic, 1).await?;
    }
    let trace = Trace::new().topic(&traces).max_wait(Duration::from_millis(50));
    let client = traced(target, trace).await?;
    let producer = client.producer(target.group("writer")).start().await?;
    let (sender, mut deliveries) = channel(16);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let outcome = match message.reconsume_times() {
                    0 => Outcome::Retry(Retry::Level(1)),
                    _ => Outcome::Ack,
                };
                // The scenario may have seen enough.
                let _ = sender.send(message).await;
                outcome
            }
        })
        .await?;
    let receipt = producer
        .send(Message::new(&topic, "now").key("k1").key("k2"))
        .await?;
    for _ in 0..2 {
        deliveries.recv().await.ok_or("the consumer is gone")?;
    }
    let later = producer
        .send(Message::new(&topic, "later").delay_level(1))
        .await?;
    consumer.shutdown().await;
    client.shutdown().await;

    let reader = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&reader, &target.group("trace-reader"), &traces, "*").await?;
    let mut told: BTreeMap<String, Vec<TraceRecord>> = BTreeMap::new();
    let enough = |told: &BTreeMap<String, Vec<TraceRecord>>| {
        let count = |id| told.get(id).map_or(0, Vec::len);
        count(&receipt.message_id) >= 5 && count(&later.message_id) >= 1
    };
    while !enough(&told) {
        let message = inbox.next().await?;
        for record in TraceRecord::decode_all(std::str::from_utf8(message.body())?)? {
            let found = message.keys().any(|key| key == record.message_id());
            expect("whether the record can be found by its message", found, true)?;
            told.entry(record.message_id().to_owned())
                .or_default()
                .push(record);
        }
    }
    reader.shutdown().await;

    let (mut requests, mut outcomes) = (Vec::new(), Vec::new());
    for record in told.remove(&receipt.message_id).unwrap_or_default() {
        match record {
            TraceRecord::Pub(sent) => {
                expect("topic", &*sent.topic, &*topic)?;
                expect("group", &*sent.group, producer.group())?;
                expect("region", &*sent.region, "DefaultRegion")?;
                expect("keys", sent.keys.as_deref(), Some("k1 k2"))?;
                expect(
                    "offset id",
                    sent.offset_message_id,
                    Some(receipt.offset_message_id.clone()),
                )?;
                expect(
                    "broker",
                    sent.store_host,
                    target.first_broker().await?.to_string(),
                )?;
                expect("success", sent.success, true)?;
            }
            TraceRecord::SubBefore(before) => {
                expect("consumer group", &*before.group, &*group)?;
                requests.push((before.request_id, before.retry_times));
            }
            TraceRecord::SubAfter(after) => {
                outcomes.push((after.request_id, after.context_code, after.success));
            }
            other => return Err(format!("{other:?} is not expected").into()),
        }
    }
    requests.sort_by_key(|(_, retry_times)| *retry_times);
    let [(first, 0), (second, 1)] = &requests[..] else {
        return Err(format!("deliveries {requests:?}").into());
    };
    for outcome in [
        (first.clone(), SubAfterTrace::FAILED, false),
        (second.clone(), SubAfterTrace::SUCCESS, true),
    ] {
        expect("outcome is told", outcomes.contains(&outcome), true)?;
    }
    match told.remove(&later.message_id).unwrap_or_default().first() {
        Some(TraceRecord::Pub(sent)) => expect("kind", sent.message_type, TraceMessageType::DELAY),
        other => Err(format!("{other:?} is told of the delayed message").into()),
    }
}

async fn ends_of_transactions_and_recalls_are_told(target: &Target) -> TestResult {
    let (topic, traces) = (target.topic("ends"), target.topic("traces"));
    for topic in [&topic, &traces] {
        target.create_topic(topic, 1).await?;
    }
    let client = traced(target, Trace::new().topic(&traces)).await?;
    let group = target.group("payments");
    let payments = client
        .producer(&group)
        .start_transactional(|_: MessageView| async { TransactionState::Unknown })
        .await?;
    let work = |_| async { Ok::<_, Infallible>(()) };
    let paid = payments.send(Message::new(&topic, "paid"), work).await?.receipt;
    let mut wanted = vec![paid.message_id.clone(), paid.message_id.clone()];
    let mut recalled = None;
    // 4.9 knows no delivery times.
    if target.kind() != Kind::Rocketmq4 {
        let producer = client.producer(&group).start().await?;
        let late = Message::new(&topic, "late").delay(Duration::from_secs(3600));
        let receipt = producer.send(late).await?;
        let handle = receipt.recall_handle.ok_or("no handle")?;
        producer.recall(&topic, &handle).await?;
        wanted.extend([receipt.message_id.clone(), receipt.message_id.clone()]);
        recalled = Some(receipt.message_id);
    }
    client.shutdown().await;

    let reader = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&reader, &target.group("trace-reader"), &traces, "*").await?;
    let (mut ends, mut recalls) = (Vec::new(), Vec::new());
    while !wanted.is_empty() {
        let message = inbox.next().await?;
        for record in TraceRecord::decode_all(std::str::from_utf8(message.body())?)? {
            let id = record.message_id();
            if let Some(index) = wanted.iter().position(|wanted| wanted == id) {
                wanted.swap_remove(index);
            }
            match record {
                TraceRecord::Pub(sent) if sent.message_id == paid.message_id => {
                    expect("kind", sent.message_type, TraceMessageType::HALF)?;
                }
                TraceRecord::Pub(sent) => expect("kind", sent.message_type, TraceMessageType::DELAY)?,
                TraceRecord::EndTransaction(end) => {
                    expect("topic", &*end.topic, &*topic)?;
                    expect("group", &*end.group, &*group)?;
                    ends.push((end.message_id, end.state, end.from_check));
                }
                TraceRecord::Recall(recall) => recalls.push((recall.message_id, recall.success)),
                other => return Err(format!("{other:?} is not expected").into()),
            }
        }
    }
    reader.shutdown().await;
    expect(
        "ends",
        ends,
        [(paid.message_id, "COMMIT_MESSAGE".to_owned(), false)],
    )?;
    let told: Vec<_> = recalled.map(|id| (id, true)).into_iter().collect();
    expect("recalls", recalls, told)
}
