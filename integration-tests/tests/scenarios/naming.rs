//! Names: what users call topics and groups, what brokers call them, and how name servers are found.

use std::collections::BTreeSet;

use integration_tests::{Failure, scenario::TestResult, scenarios, target::Target};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Message, MessageView, Outcome, Retry,
    protocol::{
        names::{dlq_topic, retry_topic},
        property,
    },
};
use tokio::sync::mpsc::channel;

use crate::{
    inbox::{Inbox, expect},
    raw,
};

scenarios![
    users_see_bare_names_and_brokers_those_with_the_namespace,
    tenants_do_not_see_each_other,
    a_message_of_a_namespace_comes_again_and_dies_within_it,
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
