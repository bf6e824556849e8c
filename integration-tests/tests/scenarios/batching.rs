//! Several messages in one request: put together by the user, by the producer, and by other clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use integration_tests::{
    Failure,
    admin::call,
    peer::{Language, Order, PeerConsumer, PeerProducer, Subscription},
    scenario::TestResult,
    scenarios,
    target::Target,
};
use rocketmq_client::{
    BatchReceipt, Batching, Client, ErrorKind, Message, SendStatus,
    protocol::{
        bodies::{TopicFilterType, permission},
        requests::CreateTopic,
    },
};

use crate::inbox::{Inbox, expect};

scenarios![
    a_batch_is_stored_in_order_and_each_message_is_as_it_was_sent,
    a_batch_is_cut_by_size_and_refused_above_it,
    gathered_sends_keep_the_order_of_each_key,
    batches_cross_languages,
    a_topic_that_keeps_batches_whole_gives_their_messages,
];

fn message(topic: &str, index: usize) -> Message {
    Message::new(topic, format!("body {index}"))
        .tag(if index.is_multiple_of(2) { "even" } else { "odd" })
        .key(format!("key-{index}"))
        .property("index", index.to_string())
        .flag(i32::try_from(index).unwrap_or_default())
}

async fn a_batch_is_stored_in_order_and_each_message_is_as_it_was_sent(target: &Target) -> TestResult {
    let topic = target.topic("batch");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let receipt = producer
        .send_batch((0..10).map(|index| message(&topic, index)))
        .await?;
    expect("status", receipt.status, SendStatus::Ok)?;
    expect("offset ids", receipt.offset_message_ids.len(), 10)?;
    let next = producer
        .send_batch([message(&topic, 10)])
        .to_queue(receipt.queue.clone())
        .await?;
    expect("the next place", next.queue_offset, receipt.queue_offset + 10)?;

    let mut inbox = Inbox::open(&client, &target.group("all"), &topic, "*").await?;
    let mut seen = BTreeMap::new();
    for _ in 0..11 {
        let view = inbox.next().await?;
        expect("queue", view.queue(), &receipt.queue)?;
        seen.insert(view.queue_offset(), view);
    }
    let receipts = receipt.into_receipts().into_iter().chain(next.into_receipts());
    for (index, ((offset, view), receipt)) in seen.into_iter().zip(receipts).enumerate() {
        expect("offset", offset, receipt.queue_offset)?;
        expect("id", view.message_id(), receipt.message_id)?;
        expect(
            "offset id",
            view.offset_message_id().to_string(),
            receipt.offset_message_id,
        )?;
        expect("body", view.body().as_ref(), format!("body {index}").as_bytes())?;
        expect("keys", view.keys().collect::<Vec<_>>(), [format!("key-{index}")])?;
        expect(
            "property",
            view.property("index"),
            Some(index.to_string().as_str()),
        )?;
        expect("flag", view.flag(), i32::try_from(index)?)?;
    }
    let mut odd = Inbox::open(&client, &target.group("odd"), &topic, "odd").await?;
    expect(
        "odd ones",
        odd.bodies(5).await?,
        ["body 1", "body 3", "body 5", "body 7", "body 9"],
    )?;
    client.shutdown().await;
    Ok(())
}

async fn a_batch_is_cut_by_size_and_refused_above_it(target: &Target) -> TestResult {
    const MESSAGES: usize = 9;
    let topic = target.topic("cut");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let large = |index: usize| {
        let mut body = vec![b'x'; 1024 * 1024 - 100];
        body.extend_from_slice(index.to_string().as_bytes());
        Message::new(&topic, body)
    };
    match producer.send_batch((0..MESSAGES).map(large)).await {
        Err(error) => expect("kind", error.kind(), ErrorKind::TooLarge)?,
        Ok(receipt) => return Err(format!("9 MiB were taken: {receipt:?}").into()),
    }
    let mut ids = BTreeSet::new();
    let mut batches = 0;
    for batch in producer.split_batch((0..MESSAGES).map(large)) {
        let receipt: BatchReceipt = producer
            .send_batch(batch?)
            .timeout(Duration::from_secs(20))
            .await?;
        ids.extend(receipt.message_ids);
        batches += 1;
    }
    expect("batches of at most 4 MiB", batches, 3)?;
    let mut inbox = Inbox::open(&client, &target.group("cut"), &topic, "*").await?;
    for _ in 0..MESSAGES {
        let id = inbox.next().await?.message_id();
        expect("the id is one of the batches'", ids.remove(&id), true)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn gathered_sends_keep_the_order_of_each_key(target: &Target) -> TestResult {
    const KEYS: usize = 7;
    const MESSAGES: usize = 700;
    let topic = target.topic("gathered");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let batching = Batching {
        linger: Duration::from_millis(2),
        max_messages: 20,
        ..Batching::default()
    };
    let producer = client
        .producer(target.group("producer"))
        .batching(batching)
        .send_timeout(Duration::from_secs(20))
        .start()
        .await?;
    let mut handles = Vec::new();
    for index in 0..MESSAGES {
        let message = Message::new(&topic, index.to_string());
        let send = producer.send(match index % 2 {
            0 => message.sharding_key(format!("key-{}", index % KEYS)),
            _ => message,
        });
        handles.push(send.detach());
    }
    let mut places = BTreeMap::new();
    for (index, handle) in handles.into_iter().enumerate() {
        let receipt = handle.await?;
        places.insert(receipt.message_id.clone(), (index, receipt));
    }
    let mut inbox = Inbox::open(&client, &target.group("gathered"), &topic, "*").await?;
    let mut by_key: BTreeMap<String, BTreeMap<i64, usize>> = BTreeMap::new();
    for _ in 0..MESSAGES {
        let view = inbox.next().await?;
        let Some((index, receipt)) = places.remove(&view.message_id()) else {
            return Err(format!("{} came twice or is in no receipt", view.message_id()).into());
        };
        expect("body", view.body().as_ref(), index.to_string().as_bytes())?;
        expect("queue", view.queue(), &receipt.queue)?;
        expect("offset", view.queue_offset(), receipt.queue_offset)?;
        if let Some(key) = view.sharding_key() {
            let order = by_key.entry(key.to_owned()).or_default();
            order.insert(view.queue_offset(), index);
        }
    }
    for (key, order) in by_key {
        let indexes: Vec<_> = order.into_values().collect();
        expect(&format!("the order of {key}"), indexes.is_sorted(), true)?;
    }
    client.shutdown().await;
    Ok(())
}

/// What must arrive of a message of a batch.
type Content = (String, Option<String>, Option<String>, Vec<u8>);

fn orders(topic: &str, sender: &str) -> Vec<Order> {
    (0..3)
        .map(|index| Order {
            topic: topic.to_owned(),
            tag: (index != 1).then(|| format!("tag-{index}")),
            keys: (index != 2).then(|| format!("key-{index} {sender}")),
            // The last one is above 4 KiB, where single messages are compressed.
            body: format!("{index} of {sender} ")
                .repeat(if index == 2 { 1_000 } else { 1 })
                .into_bytes(),
            ..Order::default()
        })
        .collect()
}

fn contents(orders: Vec<Order>, ids: impl IntoIterator<Item = String>) -> BTreeSet<Content> {
    let orders = orders.into_iter();
    orders
        .zip(ids)
        .map(|(order, id)| (id, order.tag, order.keys, order.body))
        .collect()
}

async fn sent_by_rust(target: &Target, topic: &str) -> Result<BTreeSet<Content>, Failure> {
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("from-Rust")).start().await?;
    let orders = orders(topic, "Rust");
    let messages = orders.iter().map(|order| {
        let mut message = Message::new(topic, order.body.clone());
        if let Some(tag) = &order.tag {
            message = message.tag(tag);
        }
        for key in order.keys.iter().flat_map(|keys| keys.split(' ')) {
            message = message.key(key);
        }
        message
    });
    let receipt = producer.send_batch(messages).await?;
    client.shutdown().await;
    Ok(contents(orders, receipt.message_ids))
}

async fn sent_by(target: &Target, topic: &str, language: Language) -> Result<BTreeSet<Content>, Failure> {
    let group = target.group(&format!("from-{language:?}"));
    let mut producer = PeerProducer::start(language, target.name_server(), &group).await?;
    let orders = orders(topic, &language.to_string());
    let receipt = producer.send_batch(&orders).await?;
    expect("status", receipt.status.as_str(), "SEND_OK")?;
    producer.shutdown().await?;
    let ids = match receipt.msg_id.is_empty() {
        // Messages without ids of their own go by where they are stored.
        true => receipt.offset_msg_id,
        false => receipt.msg_id,
    };
    Ok(contents(orders, ids.split(',').map(str::to_owned)))
}

async fn read_by_rust(target: &Target, topic: &str, count: usize) -> Result<BTreeSet<Content>, Failure> {
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &target.group("to-Rust"), topic, "*").await?;
    let mut received = BTreeSet::new();
    while received.len() < count {
        let view = inbox.next().await?;
        received.insert((
            view.message_id(),
            view.tag().map(str::to_owned),
            view.property("KEYS").map(str::to_owned),
            view.body().to_vec(),
        ));
    }
    client.shutdown().await;
    Ok(received)
}

async fn read_by(
    target: &Target,
    topic: &str,
    language: Language,
    count: usize,
) -> Result<BTreeSet<Content>, Failure> {
    let group = target.group(&format!("to-{language:?}"));
    let subscription = Subscription::all(&group, topic);
    let mut consumer = PeerConsumer::start(language, target.name_server(), &subscription).await?;
    let mut received = BTreeSet::new();
    while received.len() < count {
        let delivery = consumer.next().await?;
        received.insert((delivery.msg_id, delivery.tag, delivery.keys, delivery.body));
    }
    consumer.shutdown().await?;
    Ok(received)
}

fn same(reader: &str, sent: &BTreeSet<Content>, received: &BTreeSet<Content>) -> TestResult {
    let name = |(id, tag, keys, body): &Content| {
        let start: String = String::from_utf8_lossy(body).chars().take(20).collect();
        format!("{id} {tag:?} {keys:?} {start:?}")
    };
    let missing: Vec<_> = sent.difference(received).map(name).collect();
    let other: Vec<_> = received.difference(sent).map(name).collect();
    match missing.is_empty() && other.is_empty() {
        true => Ok(()),
        false => Err(format!("{reader} read {other:#?} instead of {missing:#?}").into()),
    }
}

async fn batches_cross_languages(target: &Target) -> TestResult {
    for language in Language::ALL {
        language.installed()?;
    }
    let topic = target.topic("languages");
    target.create_topic(&topic, 4).await?;
    // Brokers before 5.0 write what Java 5 says of the batch over what it says of its messages, their ids too.
    let old_broker = !crate::delaying::knows_times(target).await?;
    let senders = Language::ALL
        .into_iter()
        .filter(|language| !(old_broker && *language == Language::Java5));
    let mut sent = sent_by_rust(target, &topic).await?;
    for language in senders {
        sent.extend(sent_by(target, &topic, language).await?);
    }
    same("Rust", &sent, &read_by_rust(target, &topic, sent.len()).await?)?;
    for language in Language::ALL {
        let received = read_by(target, &topic, language, sent.len()).await?;
        same(&language.to_string(), &sent, &received)?;
    }
    Ok(())
}

async fn a_topic_that_keeps_batches_whole_gives_their_messages(target: &Target) -> TestResult {
    Language::Java5.installed()?;
    let topic = target.topic("whole");
    // Brokers without such topics make an ordinary one of it, of which the same is asked.
    let request = CreateTopic {
        topic: topic.clone(),
        default_topic: "TBW102".to_owned(),
        read_queue_nums: 1,
        write_queue_nums: 1,
        perm: permission::READ | permission::WRITE,
        topic_filter_type: TopicFilterType::SingleTag,
        topic_sys_flag: Some(0),
        order: false,
        attributes: Some("+queue.type=BatchCQ".to_owned()),
    };
    call(target.first_broker().await?, &request).await?;
    let sent = sent_by_rust(target, &topic).await?;
    let mut count = sent.len();
    let java = orders(&topic, &Language::Java5.to_string());
    if crate::delaying::knows_times(target).await? {
        let group = target.group("from-Java5");
        let mut producer = PeerProducer::start(Language::Java5, target.name_server(), &group).await?;
        // The Java client tells only the id of the batch for such a topic.
        producer.send_batch(&java).await?;
        producer.shutdown().await?;
        count += java.len();
    }
    let bodies: BTreeSet<_> = java.into_iter().map(|order| order.body).collect();
    let check = |reader: &str, received: BTreeSet<Content>| {
        let (javas, ours): (BTreeSet<_>, BTreeSet<_>) =
            received.into_iter().partition(|(.., body)| bodies.contains(body));
        same(reader, &sent, &ours)?;
        let ids: BTreeSet<_> = javas.iter().map(|(id, ..)| id).collect();
        expect("ids of Java's messages", ids.len(), javas.len())?;
        let read: BTreeSet<_> = javas.into_iter().map(|(.., body)| body).collect();
        let complete = read.is_empty() || read == bodies;
        expect(&format!("{reader} read all of Java's"), complete, true)
    };
    check("Rust", read_by_rust(target, &topic, count).await?)?;
    check(
        "Java 5.5.0",
        read_by(target, &topic, Language::Java5, count).await?,
    )
}
