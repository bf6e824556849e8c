//! Compressed bodies: each kind, each way, between languages, and bodies that are not what they seem.

use std::time::Duration;

use integration_tests::{
    admin::call,
    peer::{Language, Order, PeerConsumer, PeerProducer, Subscription},
    scenario::TestResult,
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Client, Compression, Message, MessageQueue, MessageView,
    protocol::{CodecError, compress},
};

use crate::{
    inbox::{Inbox, expect},
    raw,
};

scenarios![
    a_body_comes_back_from_each_compression,
    large_bodies_do_not_change_the_order_of_a_tasks_sends,
    compressed_bodies_cross_languages,
    a_body_that_would_fill_the_memory_is_an_error_and_the_next_message_comes,
];

const ALL: [Compression; 3] = [Compression::Zlib, Compression::Lz4, Compression::Zstd];

/// Something that shrinks, but not to nothing.
fn body(length: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|number| format!("line {number} of a text; ").into_bytes())
        .take(length)
        .collect()
}

async fn a_body_comes_back_from_each_compression(target: &Target) -> TestResult {
    let client = Client::connect(target.name_server()).await?;
    for compression in ALL {
        let topic = target.topic(&format!("{compression:?}"));
        target.create_topic(&topic, 1).await?;
        let producer = client
            .producer(target.group("producer"))
            .compression(compression)
            .start()
            .await?;
        let mut inbox = Inbox::open(&client, &target.group(&format!("{compression:?}")), &topic, "*").await?;
        for length in [100, 20_000, 300_000] {
            let body = body(length);
            producer.send(Message::new(&topic, body.clone())).await?;
            let view = inbox.next().await?;
            expect("equal", view.body().as_ref() == body.as_slice(), true)?;
            let record = view.record();
            match length < 4096 {
                true => expect("plain", record.sys_flag.compression(), Ok(None))?,
                false => {
                    expect("kind", record.sys_flag.compression(), Ok(Some(compression)))?;
                    let smaller = record.body.len() * 2 < length;
                    expect(&format!("{} bytes", record.body.len()), smaller, true)?;
                }
            }
        }
        producer.shutdown().await;
    }
    client.shutdown().await;
    Ok(())
}

async fn large_bodies_do_not_change_the_order_of_a_tasks_sends(target: &Target) -> TestResult {
    const ROUNDS: usize = 10;
    let topic = target.topic("order");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(20))
        .start()
        .await?;
    // The route and the connection are there before what is measured.
    producer.send(Message::new(&topic, "first")).await?;
    let mut offset = 1;
    for round in 0..ROUNDS {
        let mut large = body(500_000);
        large.extend_from_slice(round.to_string().as_bytes());
        let large = producer.send(Message::new(&topic, large)).detach();
        let small = producer.send(Message::new(&topic, "small")).detach();
        let awaited = producer.send(Message::new(&topic, "awaited")).await?;
        let offsets = [
            large.await?.queue_offset,
            small.await?.queue_offset,
            awaited.queue_offset,
        ];
        // A real broker serves one connection with several threads, which exchange neighbours that came without
        // waiting for each other.
        let mut sorted = offsets;
        sorted.sort_unstable();
        expect("all are stored", sorted, [offset, offset + 1, offset + 2])?;
        if target.kind() == Kind::Embedded {
            expect("in their order", offsets, sorted)?;
        }
        offset += 3;
    }
    client.shutdown().await;
    Ok(())
}

async fn compressed_bodies_cross_languages(target: &Target) -> TestResult {
    let javas = [Language::Java5, Language::Java4];
    for language in javas {
        language.installed()?;
    }
    let topic = target.topic("languages");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let body = body(50_000);
    let mut sent = Vec::new();
    for compression in ALL {
        let producer = client
            .producer(target.group("from-Rust"))
            .compression(compression)
            .start()
            .await?;
        let receipt = producer.send(Message::new(&topic, body.clone())).await?;
        sent.push((receipt.message_id, compression));
        producer.shutdown().await;
    }
    for language in javas {
        for (name, compression) in ["ZLIB", "LZ4", "ZSTD"].into_iter().zip(ALL) {
            let group = target.group(&format!("from-{language:?}-{name}"));
            let name_server = target.name_server();
            let mut peer = PeerProducer::start_compressing(language, name_server, &group, name).await?;
            let order = Order {
                topic: topic.clone(),
                body: body.clone(),
                ..Order::default()
            };
            sent.push((peer.send(&order).await?.msg_id, compression));
            peer.shutdown().await?;
        }
    }
    let mut inbox = Inbox::open(&client, &target.group("to-Rust"), &topic, "*").await?;
    for _ in 0..sent.len() {
        let view = inbox.next().await?;
        let id = view.message_id();
        let compression = sent.iter().find(|(sent, _)| *sent == id).map(|(_, kind)| *kind);
        expect("kind", view.record().sys_flag.compression(), Ok(compression))?;
        expect("equal", view.body().as_ref() == body.as_slice(), true)?;
    }
    client.shutdown().await;
    for language in javas {
        let group = target.group(&format!("to-{language:?}"));
        let subscription = Subscription::all(&group, &topic);
        let mut peer = PeerConsumer::start(language, target.name_server(), &subscription).await?;
        let mut left: Vec<_> = sent.iter().map(|(id, _)| id.clone()).collect();
        while !left.is_empty() {
            let delivery = peer.next().await?;
            left.retain(|id| *id != delivery.msg_id);
            expect(&format!("equal for {language}"), delivery.body == body, true)?;
        }
        peer.shutdown().await?;
    }
    Ok(())
}

async fn a_body_that_would_fill_the_memory_is_an_error_and_the_next_message_comes(
    target: &Target,
) -> TestResult {
    const LARGE: usize = 40 * 1024 * 1024;
    let topic = target.topic("bombs");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for compression in ALL {
        let bomb = compress(&vec![0; LARGE], compression, 9)?;
        let mut request = raw::message(&topic, 0, &bomb, &[("TAGS", "bomb")])?;
        request.sys_flag = compression.sys_flag();
        call(broker, &request).await?;
        // And one that is not compressed at all.
        request.body = "not what its flag says".into();
        call(broker, &request).await?;
    }
    raw::send(broker, &topic, 0, b"good", &[]).await?;
    let group = target.group("bombs");
    let client = Client::connect(target.name_server()).await?;
    // No handler is asked about a message whose body cannot be read; the one behind them comes.
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("the next one", inbox.next().await?.body().as_ref(), b"good")?;
    client.shutdown().await;
    for offset in 0..2 * i64::try_from(ALL.len())? {
        let pulled = raw::pull(broker, &group, &topic, 0, offset, "*").await?;
        let record = raw::records(&pulled)?.into_iter().next().ok_or("no message")?;
        let view = MessageView::new(record, MessageQueue::new(&*topic, "any", 0));
        let expected = match view.body_error() {
            Some(CodecError::TooLarge { .. }) => offset % 2 == 0,
            Some(CodecError::Invalid { .. }) => offset % 2 == 1,
            _ => false,
        };
        expect(&format!("{offset}: {:?}", view.body_error()), expected, true)?;
        expect("the body is as stored", view.body(), &view.record().body)?;
    }
    Ok(())
}
