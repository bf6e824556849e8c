//! Bodies that were made to do harm, or broke on the way: they die alone.

use bytes::Bytes;
use integration_tests::{
    Failure,
    admin::call,
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, Message, MessageView,
    protocol::{Compression, compress, names::dlq_topic},
};
use tokio::{sync::mpsc::channel, time::timeout};

use crate::{
    inbox::{LIMIT, expect},
    raw,
};

scenarios![a_body_that_cannot_be_decompressed_dies_and_its_neighbours_live];

/// What it would take in memory if somebody decompressed it to the end.
const BOMB: usize = 64 << 20;

async fn a_body_that_cannot_be_decompressed_dies_and_its_neighbours_live(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("bombs"), target.group("bombs"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let (sender, mut bodies) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .max_reconsume_times(0)
        .start(move |message: MessageView| {
            let body = String::from_utf8_lossy(message.body()).into_owned();
            let sender = sender.clone();
            async move { sender.send(body).await.map_err(|_| "the scenario has ended") }
        })
        .await?;
    let mut harmful = Vec::new();
    for compression in [Compression::Zlib, Compression::Lz4, Compression::Zstd] {
        producer
            .send(Message::new(&topic, format!("before {compression:?}")))
            .await?;
        let bomb = compress(&vec![0; BOMB], compression, 9)?;
        let honest = compress("text ".repeat(1_000).as_bytes(), compression, 9)?;
        let cut = honest.slice(..honest.len() / 2);
        let no_such_thing = Bytes::from_static(b"this was never compressed");
        for body in [bomb, cut, no_such_thing] {
            let mut message = raw::message(&topic, 0, &body, &[])?;
            message.sys_flag = compression.sys_flag();
            call(broker, &message).await?;
            harmful.push(body);
        }
        producer
            .send(Message::new(&topic, format!("after {compression:?}")))
            .await?;
    }
    let mut good = Vec::new();
    for _ in 0..6 {
        good.extend(timeout(LIMIT, bodies.recv()).await?);
    }
    good.sort_unstable();
    let expected = [
        "after Lz4",
        "after Zlib",
        "after Zstd",
        "before Lz4",
        "before Zlib",
        "before Zstd",
    ];
    expect("bodies", good, expected.map(str::to_owned).to_vec())?;
    // The handler never saw them, and they are kept as they came for whoever looks into it.
    let mut dead = Vec::new();
    eventually("the dead letters", async || {
        // Until the first is there, there may be no topic either; and a pull gives no more than so many bytes.
        let next = i64::try_from(dead.len())?;
        if let Ok(pulled) = raw::pull(broker, &group, &dlq_topic(&group), 0, next, "*").await {
            dead.extend(raw::records(&pulled)?);
        }
        Ok(dead.len() >= harmful.len())
    })
    .await?;
    consumer.shutdown().await;
    client.shutdown().await;
    let mut found: Vec<Bytes> = dead.into_iter().map(|record| record.body).collect();
    found.sort_unstable();
    harmful.sort_unstable();
    expect("dead letters", found == harmful, true)?;
    Ok::<_, Failure>(())
}
