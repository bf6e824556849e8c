//! What the producer promises: a receipt that is true, and an error that says what may have happened.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::{ServerSettings, Target},
};
use rocketmq_client::{
    Client, ErrorKind, Message, Persisted, SendReceipt, SendStatus,
    protocol::{
        bodies::{TopicConfig, permission},
        property,
    },
};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    inbox::{Inbox, expect},
    raw,
};

scenarios![
    a_receipt_says_where_the_message_is,
    a_callback_a_handle_and_a_one_way_send_deliver_too,
    many_sends_at_once_each_get_their_own_receipt,
    a_message_goes_to_the_queue_that_was_chosen,
    a_large_body_arrives_and_an_oversized_one_is_refused_unsent,
    a_delayed_message_comes_after_its_delay,
    an_unknown_topic_is_created_by_the_first_send,
    an_unknown_topic_is_created_after_the_template_that_the_producer_names,
    an_unknown_topic_is_refused_where_sends_do_not_create,
    an_illegal_topic_is_refused_with_the_reason,
];

async fn body_at(broker: SocketAddr, group: &str, receipt: &SendReceipt) -> Result<Vec<u8>, Failure> {
    let queue = &receipt.queue;
    let offset = receipt.queue_offset;
    let mut body = None;
    eventually("the message where the receipt says", async || {
        let pulled = raw::pull(broker, group, &queue.topic, queue.queue_id, offset, "*").await?;
        body = raw::records(&pulled)?
            .first()
            .map(|record| (record.queue_offset, record.body.to_vec()));
        Ok(body.is_some())
    })
    .await?;
    let (found, body) = body.ok_or("nothing there")?;
    expect("offset", found, offset)?;
    Ok(body)
}

async fn a_receipt_says_where_the_message_is(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("receipt"), target.group("receipt"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    let _member = raw::join(broker, "reader", &group, &topic).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let mut ids = BTreeSet::new();
    let mut queues = BTreeSet::new();
    for index in 0..8 {
        let body = format!("body {index}");
        let receipt = producer.send(Message::new(&topic, body.clone())).await?;
        expect("status", receipt.status, SendStatus::Ok)?;
        expect("topic", &*receipt.queue.topic, topic.as_str())?;
        expect(
            "body",
            body_at(broker, &group, &receipt).await?,
            body.into_bytes(),
        )?;
        ids.insert(receipt.message_id);
        queues.insert(receipt.queue.queue_id);
    }
    expect("unique ids", ids.len(), 8)?;
    expect(
        "queues, one after the other",
        queues,
        BTreeSet::from([0, 1, 2, 3]),
    )?;

    let mut inbox = Inbox::open(&client, &target.group("ids"), &topic, "*").await?;
    for _ in 0..8 {
        let id = inbox.next().await?.message_id();
        if !ids.remove(&id) {
            return Err(format!("{id} is in no receipt").into());
        }
    }
    client.shutdown().await;
    Ok(())
}

async fn a_callback_a_handle_and_a_one_way_send_deliver_too(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("ways"), target.group("ways"));
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let (told, result) = oneshot::channel();
    producer
        .send(Message::new(&topic, "callback"))
        .on_complete(move |result| {
            let _ = told.send(result);
        });
    let handle = producer.send(Message::new(&topic, "handle")).detach();
    producer.send(Message::new(&topic, "one way")).one_way().await?;
    expect(
        "status told to the callback",
        result.await??.status,
        SendStatus::Ok,
    )?;
    expect("status of the handle", handle.await?.status, SendStatus::Ok)?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect(
        "bodies",
        inbox.bodies(3).await?,
        ["callback", "handle", "one way"],
    )?;
    client.shutdown().await;
    Ok(())
}

async fn many_sends_at_once_each_get_their_own_receipt(target: &Target) -> TestResult {
    const MESSAGES: usize = 1_000;
    let topic = target.topic("many");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let handles: Vec<_> = (0..MESSAGES)
        .map(|index| producer.send(Message::new(&topic, index.to_string())).detach())
        .collect();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for handle in handles {
        let receipt = handle.await?;
        ids.insert(receipt.message_id);
        places.insert((receipt.queue.queue_id, receipt.queue_offset));
    }
    expect(
        "unique ids and places",
        (ids.len(), places.len()),
        (MESSAGES, MESSAGES),
    )?;
    let mut inbox = Inbox::open(&client, &target.group("many"), &topic, "*").await?;
    let bodies: BTreeSet<String> = inbox.bodies(MESSAGES).await?.into_iter().collect();
    expect("different bodies", bodies.len(), MESSAGES)?;
    client.shutdown().await;
    Ok(())
}

async fn a_message_goes_to_the_queue_that_was_chosen(target: &Target) -> TestResult {
    let topic = target.topic("chosen");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    for wanted in [3, 0, 2] {
        let receipt = producer
            .send(Message::new(&topic, "selected"))
            .select_queue(move |queues| {
                queues
                    .iter()
                    .position(|queue| queue.queue_id == wanted)
                    .unwrap_or_default()
            })
            .await?;
        expect("queue of the selector", receipt.queue.queue_id, wanted)?;
        let again = producer
            .send(Message::new(&topic, "named"))
            .to_queue(receipt.queue.clone())
            .await?;
        expect("named queue", &again.queue, &receipt.queue)?;
        expect("next offset", again.queue_offset, receipt.queue_offset + 1)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_large_body_arrives_and_an_oversized_one_is_refused_unsent(target: &Target) -> TestResult {
    const LARGE: usize = 4 * 1024 * 1024 - 1024;
    let topic = target.topic("large");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let large: Vec<u8> = (0..LARGE)
        .map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[1])
        .collect();
    producer.send(Message::new(&topic, large.clone())).await?;
    let oversized = producer
        .send(Message::new(&topic, vec![b'x'; LARGE + 2 * 1024]))
        .await;
    match oversized {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::TooLarge)?;
            expect("persisted", error.persisted(), Persisted::No)?;
        }
        Ok(receipt) => return Err(format!("an oversized body was taken: {receipt:?}").into()),
    }
    let mut inbox = Inbox::open(&client, &target.group("large"), &topic, "*").await?;
    let message = inbox.next().await?;
    expect(
        "the large body is equal",
        message.body().as_ref() == large.as_slice(),
        true,
    )?;
    client.shutdown().await;
    Ok(())
}

async fn a_delayed_message_comes_after_its_delay(target: &Target) -> TestResult {
    let topic = target.topic("delayed");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let mut inbox = Inbox::open(&client, &target.group("delayed"), &topic, "*").await?;
    producer
        .send(Message::new(&topic, "later").delay_level(1).tag("t").key("k"))
        .await?;
    let message = inbox.next().await?;
    expect("body", message.body().as_ref(), b"later")?;
    expect("tag", message.tag(), Some("t"))?;
    let waited = message.store_time().duration_since(message.born_time())?;
    // The broker stamps the message anew when its time has come. Two clocks are compared, both cut to milliseconds.
    let whole_second = waited + Duration::from_millis(10) >= Duration::from_secs(1);
    expect(&format!("a second has passed, {waited:?}"), whole_second, true)?;
    expect("topic", message.topic(), topic.as_str())?;
    expect("keys", message.property(property::KEYS), Some("k"))?;
    client.shutdown().await;
    Ok(())
}

async fn an_unknown_topic_is_created_by_the_first_send(target: &Target) -> TestResult {
    let topic = target.topic("new");
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let mut inbox = Inbox::open(&client, &target.group("new"), &topic, "*").await?;
    producer.send(Message::new(&topic, "first")).await?;
    expect("body", inbox.next().await?.body().as_ref(), b"first")?;
    client.shutdown().await;
    Ok(())
}

async fn an_unknown_topic_is_created_after_the_template_that_the_producer_names(
    target: &Target,
) -> TestResult {
    let (template, topic) = (target.topic("template"), target.topic("new"));
    let client = Client::connect(target.name_server()).await?;
    let mut config = TopicConfig::default();
    config.topic_name.clone_from(&template);
    config.perm = permission::READ | permission::WRITE | permission::INHERIT;
    (config.read_queue_nums, config.write_queue_nums) = (3, 3);
    client.admin().create_topic(&config).await?;
    let producer = client
        .producer(target.group("producer"))
        .create_topic_key(&template)
        .default_topic_queue_nums(8)
        .start()
        .await?;
    producer.send(Message::new(&topic, "first")).await?;
    let created = client.admin().topic_config(&topic).await?.complete()?;
    let queues: Vec<_> = created.values().map(|config| config.write_queue_nums).collect();
    expect("queues on each broker", queues, vec![3; created.len()])?;
    client.shutdown().await;
    Ok(())
}

async fn an_unknown_topic_is_refused_where_sends_do_not_create(target: &Target) -> TestResult {
    let mut settings = ServerSettings::default();
    settings.auto_create_topics = false;
    let servers = target.own_servers(settings).await?;
    let client = Client::connect(servers.name_server()).await?;
    let producer = client.producer("producer").start().await?;
    match producer.send(Message::new("nowhere", "x")).await {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::TopicNotFound)?;
            expect("persisted", error.persisted(), Persisted::No)?;
            expect("the topic is named", error.to_string().contains("nowhere"), true)?;
        }
        Ok(receipt) => return Err(format!("a send to nowhere was acknowledged: {receipt:?}").into()),
    }
    client.shutdown().await;
    Ok(())
}

async fn an_illegal_topic_is_refused_with_the_reason(target: &Target) -> TestResult {
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    for topic in ["", "white space", "a/b", &"x".repeat(128)] {
        let sent = timeout(
            Duration::from_secs(20),
            producer.send(Message::new(topic, "x")).into_future(),
        )
        .await?;
        match sent {
            Err(error) => expect("kind", error.kind(), ErrorKind::Config)?,
            Ok(receipt) => return Err(format!("{topic:?} was taken: {receipt:?}").into()),
        }
    }
    client.shutdown().await;
    Ok(())
}
