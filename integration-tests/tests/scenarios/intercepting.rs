//! What is around a send: layers that see, change and forbid, and the trace that a message carries to others.

use std::sync::{Arc, Mutex, PoisonError};

use integration_tests::{
    Failure,
    peer::{Language, PeerConsumer, Subscription},
    scenario::TestResult,
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ErrorKind, Message, SendMode, SendReceipt, SendStack, Sending, TraceContext, forbid,
};
use tower::{ServiceExt, layer::layer_fn, service_fn};

use crate::inbox::{Inbox, expect};

scenarios![
    a_layer_sees_and_changes_every_kind_of_send,
    what_a_layer_forbids_never_reaches_the_broker,
    the_trace_of_a_message_reaches_a_java_consumer,
];

/// What the layer saw of each send: how it was sent, how many messages, and the offset afterwards.
type Seen = Arc<Mutex<Vec<(SendMode, usize, Option<i64>)>>>;

async fn a_layer_sees_and_changes_every_kind_of_send(target: &Target) -> TestResult {
    let topic = target.topic("layers");
    target.create_topic(&topic, 1).await?;
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let layer = layer_fn(move |inner: SendStack| {
        let noted = Arc::clone(&noted);
        service_fn(move |sending: Sending| {
            let (noted, inner) = (Arc::clone(&noted), inner.clone());
            async move {
                let (mode, messages) = (sending.context().mode, sending.messages().len());
                let changed = sending.map(|message| message.property("seen", "yes"));
                let result: Result<SendReceipt, _> = inner.oneshot(changed).await;
                let offset = result.as_ref().ok().map(|receipt| receipt.queue_offset);
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push((mode, messages, offset));
                result
            }
        })
    });
    let client = Client::connect(target.name_server()).await?;
    let producer = client
        .producer(target.group("producer"))
        .layer(layer)
        .start()
        .await?;
    producer.send(Message::new(&topic, "awaited")).await?;
    producer.send(Message::new(&topic, "detached")).detach().await?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    producer
        .send(Message::new(&topic, "callback"))
        .on_complete(move |result| {
            // The scenario may have ended.
            let _ = sender.send(result);
        });
    receiver.await??;
    producer
        .send_batch([Message::new(&topic, "batch 1"), Message::new(&topic, "batch 2")])
        .await?;
    producer.send(Message::new(&topic, "one-way")).one_way().await?;
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    expect(
        "seen",
        seen,
        vec![
            (SendMode::Awaited, 1, Some(0)),
            (SendMode::Detached, 1, Some(1)),
            (SendMode::Callback, 1, Some(2)),
            (SendMode::Awaited, 2, Some(3)),
            (SendMode::OneWay, 1, Some(-1)),
        ],
    )?;
    let mut inbox = Inbox::open(&client, &target.group("consumer"), &topic, "*").await?;
    for _ in 0..6 {
        let message = inbox.next().await?;
        expect("changed", message.property("seen"), Some("yes"))?;
    }
    client.shutdown().await;
    Ok(())
}

async fn what_a_layer_forbids_never_reaches_the_broker(target: &Target) -> TestResult {
    let topic = target.topic("forbidden");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let careful = forbid(|message, _context| match message.get("TAGS") {
        Some("secret") => Err("secrets stay here"),
        _ => Ok(()),
    });
    let producer = client
        .producer(target.group("producer"))
        .layer(careful)
        .start()
        .await?;
    let secret = || Message::new(&topic, "secret").tag("secret");
    let refusals: [Result<(), rocketmq_client::Error>; 4] = [
        producer.send(secret()).await.map(drop),
        producer.send(secret()).detach().await.map(drop),
        producer.send(secret()).one_way().await,
        producer
            .send_batch([Message::new(&topic, "open"), secret()])
            .await
            .map(drop),
    ];
    for refusal in refusals {
        let Err(error) = refusal else {
            return Err("a secret was sent".into());
        };
        expect("kind", error.kind(), ErrorKind::Rejected)?;
    }
    let receipt = producer.send(Message::new(&topic, "open")).await?;
    expect("the first message of the queue", receipt.queue_offset, 0)?;
    client.shutdown().await;
    Ok(())
}

async fn the_trace_of_a_message_reaches_a_java_consumer(target: &Target) -> TestResult {
    let topic = target.topic("traced");
    target.create_topic(&topic, 1).await?;
    let context = TraceContext::new(0x4bf9_2f35_77b3_4da6, 0x00f0_67aa, true).ok_or("no context")?;
    let current = context.clone().with_state("vendor=1");
    let client = Client::connect(target.name_server()).await?;
    let producer = client
        .producer(target.group("producer"))
        .propagator(move || Some(current.clone()))
        .start()
        .await?;
    producer.send(Message::new(&topic, "traced")).await?;
    let mut inbox = Inbox::open(&client, &target.group("consumer"), &topic, "*").await?;
    let parent = inbox.next().await?.trace_parent();
    expect("context", parent, Some(context.clone().with_state("vendor=1")))?;
    let group = target.group("java");
    let mut java = PeerConsumer::start(
        Language::Java5,
        target.name_server(),
        &Subscription::all(&group, &topic),
    )
    .await?;
    let delivery = java.next().await?;
    let property = |name: &str| -> Result<String, Failure> {
        let value = delivery.properties.get(name);
        Ok(value.ok_or_else(|| format!("no {name}"))?.clone())
    };
    expect("traceparent", property("traceparent")?, context.to_string())?;
    expect("tracestate", property("tracestate")?, "vendor=1".to_owned())?;
    java.shutdown().await?;
    client.shutdown().await;
    Ok(())
}
