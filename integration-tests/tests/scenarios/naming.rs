//! Names: what users call topics and groups, what brokers call them, and how name servers are found.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use integration_tests::{
    Failure,
    peer::{Language, Order, PeerConsumer, PeerProducer, Subscription},
    scenario::TestResult,
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Call, Client, ConsumeFrom, ErrorKind, Message, MessageView, Outcome, Retry,
    protocol::{
        names::{dlq_topic, retry_topic},
        property,
    },
};
use tokio::sync::mpsc::channel;
use tower::{layer::layer_fn, util::MapRequest};

use crate::{
    inbox::{Inbox, expect},
    raw,
};

scenarios![
    users_see_bare_names_and_brokers_those_with_the_namespace,
    tenants_do_not_see_each_other,
    a_message_of_a_namespace_comes_again_and_dies_within_it,
    java_clients_of_a_namespace_and_ours_read_each_other,
    a_namespace_in_the_requests_leaves_names_alone,
    a_client_of_one_zone_leaves_brokers_of_others_out,
    the_vip_channel_takes_all_but_pulls_and_heartbeats,
];

const NAMESPACE: &str = "MQ_INST_1_tenant";

async fn tenant(target: &Target, namespace: &str) -> Result<Client, Failure> {
    let builder = Client::builder(target.name_server()).namespace(namespace);
    Ok(builder.connect().await?)
}

async fn users_see_bare_names_and_brokers_those_with_the_namespace(target: &Target) -> TestResult {
    let topic = target.topic("bare");
    let wire_topic = format!("{NAMESPACE}%{topic}");
    target.create_topic(&wire_topic, 2).await?;
    let client = tenant(target, NAMESPACE).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    expect("group", producer.group(), target.group("producer"))?;
    let first = producer.send(Message::new(&topic, "0")).await?;
    expect("topic of the receipt", &*first.queue.topic, &*topic)?;
    // Who names it as brokers do means the same topic.
    let queue = first.queue.clone();
    producer
        .send(Message::new(&wire_topic, "1"))
        .to_queue(queue)
        .await?;
    let chosen = producer.send(Message::new(&topic, "2")).select_queue({
        let topic = topic.clone();
        move |queues| {
            if queues.iter().all(|queue| *queue.topic == *topic) {
                1
            } else {
                99
            }
        }
    });
    expect("chosen queue", chosen.await?.queue.queue_id, 1)?;

    let mut inbox = Inbox::open(&client, &target.group("reader"), &topic, "*").await?;
    let mut bodies = BTreeSet::new();
    for _ in 0..3 {
        let message = inbox.next().await?;
        expect("topic", message.topic(), &*topic)?;
        expect("topic of the queue", &*message.queue().topic, &*topic)?;
        expect("topic of the broker", &*message.record().topic, &*wire_topic)?;
        expect(
            "namespace",
            message.property(property::INSTANCE_ID),
            Some(NAMESPACE),
        )?;
        bodies.insert(message.body().clone());
    }
    expect("bodies", bodies.len(), 3)?;

    let nobody = target.topic("nobody");
    let unknown = tenant(target, "x").await?;
    let refused = unknown.push_consumer("").subscribe(&nobody, "*").stream().await;
    let refused = refused.err().ok_or("an empty group was taken")?;
    expect("kind", refused.kind(), ErrorKind::Config)?;
    unknown.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn tenants_do_not_see_each_other(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("shared"), target.group("shared"));
    let mut inboxes = Vec::new();
    for namespace in ["tenant-a", "tenant-b"] {
        target.create_topic(&format!("{namespace}%{topic}"), 1).await?;
        let client = tenant(target, namespace).await?;
        let producer = client.producer(&group).start().await?;
        producer.send(Message::new(&topic, namespace)).await?;
        inboxes.push((
            namespace,
            Inbox::open(&client, &group, &topic, "*").await?,
            client,
        ));
    }
    for (namespace, mut inbox, client) in inboxes {
        expect("body", &inbox.next().await?.body()[..], namespace.as_bytes())?;
        client.shutdown().await;
        expect("beyond that", inbox.rest().len(), 0)?;
    }
    Ok(())
}

async fn a_message_of_a_namespace_comes_again_and_dies_within_it(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("again"), target.group("again"));
    target.create_topic(&format!("{NAMESPACE}%{topic}"), 1).await?;
    let client = tenant(target, NAMESPACE).await?;
    let (sender, mut deliveries) = channel(16);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let outcome = match message.reconsume_times() {
                    0 => Outcome::Retry(Retry::After(std::time::Duration::from_secs(1))),
                    _ => Outcome::Reject("seen enough".into()),
                };
                // The scenario may have seen enough too.
                let _ = sender.send(message).await;
                outcome
            }
        })
        .await?;
    let producer = client.producer(target.group("producer")).start().await?;
    producer.send(Message::new(&topic, "again")).await?;
    for retried in [0, 1] {
        let message = deliveries.recv().await.ok_or("the consumer is gone")?;
        expect("deliveries before", message.reconsume_times(), retried)?;
        expect("topic", message.topic(), &*topic)?;
        let from = if retried == 0 {
            topic.clone()
        } else {
            retry_topic(&group)
        };
        expect("topic of the queue", &*message.queue().topic, &*from)?;
    }
    let wire_group = format!("{NAMESPACE}%{group}");
    let broker = target.first_broker().await?;
    let dead = raw::first_record(broker, &wire_group, &dlq_topic(&wire_group)).await?;
    expect("body", &dead.body[..], b"again".as_slice())?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

/// One message each way between a client of Java's and one of ours, both with a namespace.
async fn both_ways(
    target: &Target,
    language: Language,
    client: &Client,
    topic: &str,
    options: &[&str],
) -> TestResult {
    let name_server = target.name_server();
    let group = target.group(&format!("java-{language:?}"));
    let mut theirs = PeerProducer::start_with(language, name_server, &group, options).await?;
    let order = Order {
        topic: topic.to_owned(),
        body: b"from Java".to_vec(),
        ..Order::default()
    };
    let sent = theirs.send(&order).await?;
    let mut inbox = Inbox::open(client, &target.group("ours"), topic, "*").await?;
    let message = inbox.next().await?;
    expect("id", message.message_id(), sent.msg_id)?;
    expect("topic", message.topic(), topic)?;
    theirs.shutdown().await?;

    let subscription = Subscription::all(&group, topic);
    let mut reader = PeerConsumer::start_with(language, name_server, &subscription, options).await?;
    let ours = client.producer(target.group("ours")).start().await?;
    let receipt = ours.send(Message::new(topic, "from Rust")).await?;
    loop {
        let delivery = reader.next().await?;
        expect("topic for Java", &*delivery.topic, topic)?;
        if delivery.msg_id == receipt.message_id {
            break;
        }
    }
    reader.shutdown().await
}

async fn java_clients_of_a_namespace_and_ours_read_each_other(target: &Target) -> TestResult {
    for language in [Language::Java5, Language::Java4] {
        language.installed()?;
    }
    for language in [Language::Java5, Language::Java4] {
        let topic = target.topic(&format!("prefix-{language:?}"));
        target.create_topic(&format!("{NAMESPACE}%{topic}"), 1).await?;
        let client = tenant(target, NAMESPACE).await?;
        both_ways(target, language, &client, &topic, &["--namespace", NAMESPACE]).await?;
        client.shutdown().await;
    }
    Ok(())
}

async fn a_namespace_in_the_requests_leaves_names_alone(target: &Target) -> TestResult {
    Language::Java5.installed()?;
    let topic = target.topic("fields");
    target.create_topic(&topic, 1).await?;
    let builder = Client::builder(target.name_server()).namespace_v2("tenant");
    let client = builder.connect().await?;
    both_ways(
        target,
        Language::Java5,
        &client,
        &topic,
        &["--namespace-v2", "tenant"],
    )
    .await?;
    client.shutdown().await;
    Ok(())
}

async fn a_client_of_one_zone_leaves_brokers_of_others_out(target: &Target) -> TestResult {
    let topic = target.topic("zone");
    target.create_topic(&topic, 1).await?;
    for own_zone_only in [false, true] {
        let builder = Client::builder(target.name_server()).zone("north", own_zone_only);
        let client = builder.connect().await?;
        let producer = client.producer(target.group("zone")).start().await?;
        let sent = producer.send(Message::new(&topic, "x")).await;
        client.shutdown().await;
        // The servers here are in no zone, and 4.9 knows none.
        if own_zone_only && target.kind() != Kind::Rocketmq4 {
            let refused = sent.err().ok_or("a broker of no zone was used")?;
            expect("kind", refused.kind(), ErrorKind::TopicNotFound)?;
        } else {
            sent?;
        }
    }
    Ok(())
}

async fn the_vip_channel_takes_all_but_pulls_and_heartbeats(target: &Target) -> TestResult {
    let topic = target.topic("vip");
    target.create_topic(&topic, 1).await?;
    let calls: Arc<Mutex<BTreeSet<(&str, String)>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let note = move |call: Call| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((call.name, call.address.to_string()));
        call
    };
    let client = Client::builder(target.name_server())
        .vip_channel(true)
        .unit_mode(true)
        .unit_name("south")
        .request_layer(layer_fn(move |inner| MapRequest::new(inner, note.clone())))
        .connect()
        .await?;
    expect(
        "unit in the identity",
        client.client_id().ends_with("@south"),
        true,
    )?;
    let producer = client.producer(target.group("vip")).start().await?;
    producer.send(Message::new(&topic, "x")).await?;
    let mut inbox = Inbox::open(&client, &target.group("vip-reader"), &topic, "*").await?;
    expect("body", &inbox.next().await?.body()[..], b"x".as_slice())?;
    client.shutdown().await;

    let first = target.first_broker().await?;
    let second = SocketAddr::new(first.ip(), first.port() - 2);
    let calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, address) in [
        ("SendMessageV2", second),
        ("QueryConsumerOffset", second),
        ("UpdateConsumerOffset", second),
        ("PullMessage", first),
        ("HeartBeat", first),
    ] {
        let to: Vec<_> = calls.iter().filter(|(called, _)| *called == name).collect();
        expect(name, to, [&(name, address.to_string())])?;
    }
    Ok(())
}
