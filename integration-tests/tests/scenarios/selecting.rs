//! Which queue a message goes to: by key as other languages' clients do, by selector, by the order of a topic.

use std::collections::BTreeMap;

use integration_tests::{
    Failure,
    peer::{Language, Order, PeerProducer},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, Message,
    protocol::names::{dlq_topic, retry_topic},
    queue_selector,
};

use crate::inbox::{Inbox, expect};

scenarios![
    a_key_goes_to_the_queue_that_java_takes,
    a_key_goes_to_the_queue_that_go_takes,
    messages_of_a_key_arrive_in_order_and_say_their_key,
    an_ordered_topic_has_the_queues_of_its_configuration,
    messages_go_to_retry_and_dead_letter_topics,
];

/// Keys of which each is a hash of its own kind: small, negative, the least number of all, beyond the basic plane.
const KEYS: [&str; 8] = [
    "0",
    "user-1",
    "order-4711",
    "polygenelubricants",
    "ключ",
    "鍵",
    "key-\u{1F600}",
    "\u{10400}\u{1F600}",
];

async fn same_queue_as(
    target: &Target,
    language: Language,
    ours: impl AsyncFn(&rocketmq_client::Producer, &str, &str) -> Result<i32, Failure>,
) -> TestResult {
    let topic = target.topic("keys");
    // A number that is no power of two tells a remainder from low bits.
    target.create_topic(&topic, 7).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("ours")).start().await?;
    let mut peer = PeerProducer::start(language, target.name_server(), &target.group("theirs")).await?;
    let mut taken = Vec::new();
    for key in KEYS {
        let order = Order {
            topic: topic.clone(),
            body: b"keyed".to_vec(),
            ordering_key: Some(key.to_owned()),
            ..Order::default()
        };
        let theirs = peer.send(&order).await?.queue_id;
        expect(key, ours(&producer, &topic, key).await?, theirs)?;
        taken.push(theirs);
    }
    taken.sort_unstable();
    taken.dedup();
    if taken.len() < 3 {
        return Err(format!("keys that all go to {taken:?} show nothing").into());
    }
    peer.shutdown().await?;
    client.shutdown().await;
    Ok(())
}

async fn a_key_goes_to_the_queue_that_java_takes(target: &Target) -> TestResult {
    same_queue_as(target, Language::Java5, async |producer, topic, key| {
        let keyed = producer
            .send(Message::new(topic, "keyed"))
            .ordering_key(key)
            .await?;
        let hashed = producer.send(Message::new(topic, "hashed"));
        let hashed = hashed.select_queue(queue_selector::by_hash(key)).await?;
        expect("by hash", &hashed.queue, &keyed.queue)?;
        Ok(keyed.queue.queue_id)
    })
    .await
}

async fn a_key_goes_to_the_queue_that_go_takes(target: &Target) -> TestResult {
    same_queue_as(target, Language::Go, async |producer, topic, key| {
        let send = producer.send(Message::new(topic, "keyed").sharding_key(key));
        let receipt = send.select_queue(queue_selector::by_go_hash(key)).await?;
        Ok(receipt.queue.queue_id)
    })
    .await
}

async fn messages_of_a_key_arrive_in_order_and_say_their_key(target: &Target) -> TestResult {
    let topic = target.topic("order");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let mut queue = None;
    for number in 0..20 {
        let message = Message::new(&topic, number.to_string());
        let receipt = producer.send(message).ordering_key("order-4711").await?;
        expect(
            "queue",
            &receipt.queue,
            queue.get_or_insert_with(|| receipt.queue.clone()),
        )?;
        expect("offset", receipt.queue_offset, number)?;
    }
    let mut inbox = Inbox::open(&client, &target.group("consumer"), &topic, "*").await?;
    let mut offsets = BTreeMap::new();
    for _ in 0..20 {
        let message = inbox.next().await?;
        expect("key", message.sharding_key(), Some("order-4711"))?;
        offsets.insert(message.queue_offset(), message.body().to_vec());
    }
    for (offset, body) in offsets {
        expect("body", body, offset.to_string().into_bytes())?;
    }
    client.shutdown().await;
    Ok(())
}

async fn an_ordered_topic_has_the_queues_of_its_configuration(target: &Target) -> TestResult {
    let topic = target.topic("ordered");
    target.create_topic(&topic, 8).await?;
    let setup = Client::connect(target.name_server()).await?;
    let probe = setup.producer(target.group("probe")).start().await?;
    let broker = probe.send(Message::new(&topic, "probe")).await?.queue.broker_name;
    let admin = setup.admin();
    admin
        .update_name_server_config([("orderMessageEnable", "true")])
        .await?;
    // Fewer queues than the topic has, and those of a broker that is not there.
    let order = BTreeMap::from([(broker.to_string(), 3), ("zz-not-there".to_owned(), 1)]);
    admin.set_order_config(&topic, &order).await?;
    eventually("the order in the route", async || {
        // A new client knows no older route.
        let client = Client::connect(target.name_server()).await?;
        let producer = client.producer(target.group("ordered")).start().await?;
        let (mut queues, mut in_order) = (0, false);
        let counted = producer.send(Message::new(&topic, "counted"));
        let (sender, receiver) = std::sync::mpsc::channel();
        let counting = counted.select_queue(move |queues| {
            let ids: Vec<_> = queues.iter().map(|queue| queue.queue_id).collect();
            // The scenario may have ended.
            let _ = sender.send((queues.len(), ids == [0, 1, 2, 0]));
            0
        });
        counting.await?;
        if let Ok(counted) = receiver.try_recv() {
            (queues, in_order) = counted;
        }
        if queues == 4 && in_order {
            // The hash of "3" is 51, 51 % 4 is 3: the queue of the broker that is not there, and nobody else's.
            let keyed = producer.send(Message::new(&topic, "keyed")).ordering_key("3");
            let error = match keyed.timeout(std::time::Duration::from_millis(300)).await {
                Ok(receipt) => return Err(format!("went to {}", receipt.queue).into()),
                Err(error) => error,
            };
            if !error.to_string().contains("zz-not-there has no master") {
                return Err(error.into());
            }
            for _ in 0..8 {
                producer.send(Message::new(&topic, "in turn")).await?;
            }
        }
        client.shutdown().await;
        Ok(queues == 4)
    })
    .await?;
    admin.delete_order_config(&topic).await?;
    setup.shutdown().await;
    Ok(())
}

async fn messages_go_to_retry_and_dead_letter_topics(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("plain"), target.group("again"));
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    // The group makes itself known by joining; its retry topic belongs to its subscription.
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    let producer = client.producer(target.group("producer")).start().await?;
    producer.send(Message::new(&topic, "first")).await?;
    expect("body", inbox.next().await?.body().as_ref(), b"first".as_slice())?;
    let receipt = producer.send(Message::new(retry_topic(&group), "again")).await?;
    expect("topic", &*receipt.queue.topic, retry_topic(&group).as_str())?;
    expect("body", inbox.next().await?.body().as_ref(), b"again".as_slice())?;
    let receipt = producer.send(Message::new(dlq_topic(&group), "dead")).await?;
    expect("topic", &*receipt.queue.topic, dlq_topic(&group).as_str())?;
    expect("offset", receipt.queue_offset, 0)?;
    client.shutdown().await;
    Ok(())
}
