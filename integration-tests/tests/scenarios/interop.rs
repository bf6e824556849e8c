//! Messages between languages: what one client writes, every client reads, equal in every part.

use std::collections::{BTreeMap, BTreeSet};

use integration_tests::{
    Failure,
    peer::{Language, Order, PeerConsumer, PeerProducer, Subscription},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, Message, SendStatus,
    protocol::{names::dlq_topic, property},
};

use crate::{
    inbox::{Inbox, expect},
    raw,
};

scenarios![
    every_client_reads_what_every_client_writes,
    a_message_that_a_client_keeps_refusing_comes_again_and_dies_at_the_limit,
    members_of_different_languages_share_the_queues_of_a_group,
];

/// Everything of a message that must arrive as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Content {
    unique_id: String,
    tag: Option<String>,
    keys: Option<String>,
    properties: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Content {
    fn of(order: &Order, unique_id: String) -> Self {
        Self {
            unique_id,
            tag: order.tag.clone(),
            keys: order.keys.clone(),
            properties: order.properties.clone(),
            body: order.body.clone(),
        }
    }
}

/// Plain and not so plain messages, so that each part is present in one and absent from another.
fn orders(topic: &str, sender: &str) -> Vec<Order> {
    let plain = |text: &str| Order {
        topic: topic.to_owned(),
        body: format!("{text} of {sender}").into_bytes(),
        ..Order::default()
    };
    let properties = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    vec![
        plain("nothing but a body"),
        Order {
            tag: Some("vip".to_owned()),
            ..plain("tag")
        },
        Order {
            keys: Some(format!("order-1 {sender}")),
            ..plain("two keys")
        },
        Order {
            tag: Some("größe".to_owned()),
            properties: properties(&[
                ("price", "3.50"),
                ("città", "Forlì 東京 🚀"),
                ("a b=c:d", "{\"json\": [1, 2]}"),
            ]),
            ..plain("ünïcödé 東京 🚀")
        },
        Order {
            body: (0..=255).collect(),
            ..plain("")
        },
        Order {
            delay_level: Some(1),
            tag: Some("late".to_owned()),
            ..plain("delayed")
        },
        // Above 4 KiB, where Java and Go compress; once so regular that it shrinks, once not.
        Order {
            body: b"0123456789".repeat(2_000),
            properties: properties(&[("kind", "zlib")]),
            ..plain("")
        },
        Order {
            body: noise(20_000),
            properties: properties(&[("kind", "noise")]),
            ..plain("")
        },
    ]
}

/// Bytes without a pattern that a compressor finds.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// The properties that the sender set: the protocol adds its own, in capitals, and brokers and clients differ in which.
fn users_own(properties: &BTreeMap<String, String>, sent: &BTreeSet<String>) -> BTreeMap<String, String> {
    properties
        .iter()
        .filter(|(name, _)| sent.contains(*name))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

async fn every_client_reads_what_every_client_writes(target: &Target) -> TestResult {
    for language in Language::ALL {
        language.installed()?;
    }
    let topic = target.topic("interop");
    target.create_topic(&topic, 4).await?;

    let mut sent = sent_by_rust(target, &topic).await?;
    for language in Language::ALL {
        sent.extend(sent_by(target, &topic, language).await?);
    }
    let names: BTreeSet<String> = sent
        .iter()
        .flat_map(|content| content.properties.keys().cloned())
        .collect();

    compare(
        "Rust",
        &sent,
        read_by_rust(target, &topic, sent.len(), &names).await?,
    )?;
    for language in Language::ALL {
        compare(
            &language.to_string(),
            &sent,
            read_by(target, &topic, language, sent.len(), &names).await?,
        )?;
    }
    Ok(())
}

async fn sent_by(target: &Target, topic: &str, language: Language) -> Result<Vec<Content>, Failure> {
    let group = target.group(&format!("from-{language:?}"));
    let mut producer = PeerProducer::start(language, target.name_server(), &group).await?;
    let mut sent = Vec::new();
    for order in orders(topic, &language.to_string()) {
        let receipt = producer.send(&order).await?;
        expect("status", receipt.status.as_str(), "SEND_OK")?;
        sent.push(Content::of(&order, receipt.msg_id));
    }
    producer.shutdown().await?;
    Ok(sent)
}

async fn sent_by_rust(target: &Target, topic: &str) -> Result<Vec<Content>, Failure> {
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("from-Rust")).start().await?;
    let mut sent = Vec::new();
    for order in orders(topic, "Rust") {
        let mut message = Message::new(&order.topic, order.body.clone());
        if let Some(tag) = &order.tag {
            message = message.tag(tag);
        }
        for key in order.keys.iter().flat_map(|keys| keys.split(' ')) {
            message = message.key(key);
        }
        if let Some(level) = order.delay_level {
            message = message.delay_level(level);
        }
        for (name, value) in &order.properties {
            message = message.property(name, value);
        }
        let receipt = producer.send(message).await?;
        expect("status", receipt.status, SendStatus::Ok)?;
        sent.push(Content::of(&order, receipt.message_id.clone()));
    }
    client.shutdown().await;
    Ok(sent)
}

async fn read_by(
    target: &Target,
    topic: &str,
    language: Language,
    count: usize,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Content>, Failure> {
    let group = target.group(&format!("to-{language:?}"));
    let mut consumer =
        PeerConsumer::start(language, target.name_server(), &Subscription::all(&group, topic)).await?;
    let mut received = BTreeMap::new();
    while received.len() < count {
        let delivery = consumer.next().await?;
        let content = Content {
            unique_id: delivery.msg_id.clone(),
            tag: delivery.tag,
            keys: delivery.keys,
            properties: users_own(&delivery.properties, names),
            body: delivery.body,
        };
        received.insert(delivery.msg_id, content);
    }
    consumer.shutdown().await?;
    Ok(received)
}

async fn read_by_rust(
    target: &Target,
    topic: &str,
    count: usize,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, Content>, Failure> {
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &target.group("to-Rust"), topic, "*").await?;
    let mut received = BTreeMap::new();
    while received.len() < count {
        let message = inbox.next().await?;
        let properties = message
            .properties()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        let content = Content {
            unique_id: message.message_id(),
            tag: message.tag().map(str::to_owned),
            keys: message.property(property::KEYS).map(str::to_owned),
            properties: users_own(&properties, names),
            body: message.body().to_vec(),
        };
        received.insert(message.message_id(), content);
    }
    client.shutdown().await;
    Ok(received)
}

fn compare(reader: &str, sent: &[Content], received: BTreeMap<String, Content>) -> Result<(), Failure> {
    for content in sent {
        match received.get(&content.unique_id) {
            Some(found) if found == content => {}
            Some(found) => return Err(format!("{reader} read {found:?}, sent was {content:?}").into()),
            None => return Err(format!("{reader} did not read {content:?}").into()),
        }
    }
    Ok(())
}

async fn a_message_that_a_client_keeps_refusing_comes_again_and_dies_at_the_limit(
    target: &Target,
) -> TestResult {
    for language in Language::ALL {
        language.installed()?;
    }
    let [java_5, java_4, go] = Language::ALL.map(|language| refuse_to_the_end(target, language));
    tokio::try_join!(java_5, java_4, go)?;
    Ok(())
}

async fn refuse_to_the_end(target: &Target, language: Language) -> TestResult {
    const LIMIT: u32 = 2;
    let (topic, group) = (
        target.topic(&format!("refused-{language:?}")),
        target.group(&format!("refused-{language:?}")),
    );
    target.create_topic(&topic, 1).await?;
    let broker = target.brokers().await?.first().copied().ok_or("no broker")?;
    // The broker makes the retry topic for the first member. The Go client looks for its route at its start and then
    // every 30 s, so it is spared to be that member.
    raw::join(broker, "first", &group, &topic).await?;
    let subscription = Subscription {
        fail: 99,
        delay_level: 1,
        max_reconsume_times: LIMIT,
        ..Subscription::all(&group, &topic)
    };
    let mut consumer = PeerConsumer::start(language, target.name_server(), &subscription).await?;
    let sent = raw::send(
        broker,
        &topic,
        0,
        b"refused",
        &[(property::UNIQUE_KEY, "U"), (property::TAGS, "t")],
    )
    .await?;

    for reconsume_times in 0..=LIMIT {
        let delivery = consumer.next().await?;
        let facts = (
            delivery.msg_id.as_str(),
            delivery.body.as_slice(),
            delivery.tag.as_deref(),
            delivery.topic.as_str(),
        );
        if facts != ("U", b"refused", Some("t"), &topic)
            || i64::from(delivery.reconsume_times) != i64::from(reconsume_times)
        {
            return Err(format!("{language}: delivery {reconsume_times} is {delivery:?}").into());
        }
    }
    let dead = raw::first_record(broker, &group, &dlq_topic(&group)).await?;
    consumer.shutdown().await?;
    let origin = dead.properties.get(property::ORIGIN_MESSAGE_ID);
    if dead.body == "refused" && origin == Some(sent.header.msg_id.as_str()) {
        Ok(())
    } else {
        Err(format!("{language}: dead is {dead:?}").into())
    }
}

async fn members_of_different_languages_share_the_queues_of_a_group(target: &Target) -> TestResult {
    const QUEUES: i32 = 6;
    for language in [Language::Java5, Language::Go] {
        language.installed()?;
    }
    let (topic, group) = (target.topic("mixed"), target.group("mixed"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    let subscription = Subscription::all(&group, &topic);
    let mut java = PeerConsumer::start(Language::Java5, target.name_server(), &subscription).await?;
    let mut go = PeerConsumer::start(Language::Go, target.name_server(), &subscription).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut rust = Inbox::open(&client, &group, &topic, "*").await?;

    // All divide by the same rule, each for itself: two queues each, and no queue twice. Until all have heard of each
    // other, a queue may change hands; a round is only good when each member got its two queues' messages.
    let mut round = 0;
    eventually("two queues for each member", async || {
        round += 1;
        for queue in 0..QUEUES {
            raw::send(broker, &topic, queue, format!("{round}").as_bytes(), &[]).await?;
        }
        let mut owners: BTreeMap<i32, BTreeSet<&str>> = BTreeMap::new();
        let this = round.to_string();
        while owners.len() < usize::try_from(QUEUES)? {
            let (owner, queue, body) = tokio::select! {
                delivery = java.next() => delivery.map(|d| ("Java", d.queue_id, d.body))?,
                delivery = go.next() => delivery.map(|d| ("Go", d.queue_id, d.body))?,
                message = rust.next() => message.map(|m| ("Rust", m.queue().queue_id, m.body().to_vec()))?,
            };
            if body == this.as_bytes() {
                owners.entry(queue).or_default().insert(owner);
            }
        }
        let of = |member| owners.values().filter(|names| names.contains(member)).count();
        Ok((of("Java"), of("Go"), of("Rust")) == (2, 2, 2))
    })
    .await?;
    java.shutdown().await?;
    go.shutdown().await?;
    client.shutdown().await;
    Ok(())
}
