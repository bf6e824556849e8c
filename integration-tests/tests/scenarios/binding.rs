//! Functions bound by YAML, on every target.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    peer::{Language, Order, PeerConsumer, PeerProducer, Subscription},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::protocol::{names::dlq_topic, property};
use stream_binder::{App, Config, Function, Json, Message, Meta, Payload, Text};
use tokio::{sync::mpsc::channel, time::timeout};

use crate::{inbox::expect, raw};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

scenarios![
    functions_bound_by_yaml_pass_messages_on,
    a_java_program_and_a_bound_function_work_together,
    what_cannot_be_decoded_and_what_keeps_failing_become_dead_letters,
];

/// The configuration of an application whose new groups read from the start and whose retries are quick.
pub(crate) fn config(target: &Target, yaml: &str) -> Result<Config, Failure> {
    let common = "
        spring.cloud.stream.rocketmq.default.consumer:
          consume-from-where: CONSUME_FROM_FIRST_OFFSET
          push: { max-reconsume-times: 2, delay-level-when-next-consume: 1 }";
    Ok(Config::builder()
        .yaml(common)
        .yaml(yaml)
        .environment([(
            "SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESERVER",
            target.name_server(),
        )])
        .load()?)
}

async fn functions_bound_by_yaml_pass_messages_on(target: &Target) -> TestResult {
    let (numbers, squares) = (target.topic("num"), target.topic("square"));
    target.create_topic(&numbers, 2).await?;
    target.create_topic(&squares, 2).await?;
    let yaml = format!(
        "
        spring.cloud.function.definition: producer;processor;consumer
        spring.cloud.stream.bindings:
          producer-out-0: {{ destination: {numbers}, producer.poller.fixed-delay: 20 }}
          processor-in-0: {{ destination: {numbers}, group: {} }}
          processor-out-0: {{ destination: {squares} }}
          consumer-in-0: {{ destination: {squares}, group: {} }}",
        target.group("processor"),
        target.group("consumer"),
    );
    let (counter, mut next) = (Arc::new(AtomicU64::new(1)), Vec::new());
    let (sender, mut received) = channel(100);
    let producer = move || {
        let count = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            (count <= 20).then(|| {
                Message::text(count.to_string())
                    .tag("number")
                    .key(count.to_string())
            })
        }
    };
    let app = App::new(config(target, &yaml)?)
        .without_discovery()
        .register(Function::supplier("producer", producer))
        .register(Function::function(
            "processor",
            |Payload(n): Payload<u64>| async move { Json(n * n) },
        ))
        .register(Function::consumer("consumer", move |Json(n): Json<u64>| {
            let sender = sender.clone();
            async move {
                sender
                    .send(n)
                    .await
                    .map_err(|_| io::Error::other("the scenario has ended"))
            }
        }))
        .start()
        .await?;
    while next.len() < 20 {
        next.push(
            timeout(PATIENCE, received.recv())
                .await?
                .ok_or("the consumer is gone")?,
        );
    }
    next.sort_unstable();
    expect("squares", next, (1..=20).map(|n| n * n).collect::<Vec<u64>>())?;
    expect("a clean stop", app.shutdown().await.is_clean(), true)
}

async fn a_java_program_and_a_bound_function_work_together(target: &Target) -> TestResult {
    let (words, shouts) = (target.topic("words"), target.topic("shouts"));
    for language in [Language::Java5, Language::Go] {
        language.installed()?;
    }
    target.create_topic(&words, 1).await?;
    target.create_topic(&shouts, 1).await?;
    let yaml = format!(
        "
        spring.cloud.stream.bindings:
          shout-in-0: {{ destination: {words}, group: {} }}
          shout-out-0: {{ destination: {shouts} }}
        spring.cloud.stream.rocketmq.bindings.shout-in-0.consumer.subscription: loud || louder",
        target.group("shout"),
    );
    let app = App::new(config(target, &yaml)?)
        .without_discovery()
        .register(Function::function(
            "shout",
            |Text(text): Text, meta: Meta| async move {
                Message::text(text.to_uppercase())
                    .tag(meta.tags().unwrap_or_default())
                    .key(meta.keys().unwrap_or_default())
                    .header("origin", meta.message_id())
            },
        ))
        .start()
        .await?;
    let mut producer =
        PeerProducer::start(Language::Java5, target.name_server(), &target.group("java")).await?;
    let order = |tag: &str, body: &str| Order {
        topic: words.clone(),
        tag: Some(tag.to_owned()),
        keys: Some(format!("key-{tag}")),
        body: body.as_bytes().to_vec(),
        ..Order::default()
    };
    let mut ids = BTreeMap::new();
    for (tag, body) in [("quiet", "no"), ("loud", "größer 🚀"), ("louder", "ja")] {
        ids.insert(tag, producer.send(&order(tag, body)).await?.msg_id);
    }
    producer.shutdown().await?;

    let group = target.group("go");
    let mut consumer = PeerConsumer::start(
        Language::Go,
        target.name_server(),
        &Subscription::all(&group, &shouts),
    )
    .await?;
    // The function runs concurrently, so they come in any order.
    let mut wanted = BTreeMap::from([("GRÖSSER 🚀", "loud"), ("JA", "louder")]);
    while !wanted.is_empty() {
        let delivery = consumer.next().await?;
        let body = String::from_utf8(delivery.body)?;
        let tag = wanted
            .remove(body.as_str())
            .ok_or_else(|| format!("{body} came unexpectedly"))?;
        expect("tag", delivery.tag.as_deref(), Some(tag))?;
        expect("keys", delivery.keys, Some(format!("key-{tag}")))?;
        expect("header", delivery.properties.get("origin"), ids.get(tag))?;
    }
    consumer.shutdown().await?;
    expect("a clean stop", app.shutdown().await.is_clean(), true)
}

async fn what_cannot_be_decoded_and_what_keeps_failing_become_dead_letters(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("mixed"), target.group("mixed"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for body in ["1", "two", "3", "4"] {
        raw::send(
            broker,
            &topic,
            0,
            body.as_bytes(),
            &[(property::UNIQUE_KEY, body)],
        )
        .await?;
    }
    let yaml = format!("spring.cloud.stream.bindings.odd-in-0: {{ destination: {topic}, group: {group} }}");
    let (sender, mut received) = channel(100);
    let odd = move |Json(n): Json<u64>, meta: Meta| {
        let sender = sender.clone();
        async move {
            let _ = sender.send((n, meta.attempt())).await;
            if n % 2 == 1 {
                Ok(())
            } else {
                Err(io::Error::other(format!("{n} is even")))
            }
        }
    };
    let app = App::new(config(target, &yaml)?)
        .without_discovery()
        .register(Function::consumer("odd", odd))
        .start()
        .await?;
    let mut letters = Vec::new();
    eventually("two dead letters", async || {
        if let Ok(pulled) = raw::pull(broker, &group, &dlq_topic(&group), 0, 0, "*").await {
            letters = raw::records(&pulled)?
                .into_iter()
                .map(|record| String::from_utf8_lossy(&record.body).into_owned())
                .collect();
        }
        Ok(letters.len() >= 2)
    })
    .await?;
    letters.sort_unstable();
    expect("dead letters", letters, ["4", "two"])?;
    expect("a clean stop", app.shutdown().await.is_clean(), true)?;
    let mut deliveries: Vec<(u64, u32)> = std::iter::from_fn(|| received.try_recv().ok()).collect();
    deliveries.sort_unstable();
    expect("deliveries", deliveries, [(1, 1), (3, 1), (4, 1), (4, 2), (4, 3)])
}
