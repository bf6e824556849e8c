//! What the push consumer promises of a message: the right ones, whole, and again when they failed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, MessageView, Outcome, Retry,
    protocol::{names::dlq_topic, property},
};
use tokio::sync::{Semaphore, mpsc::channel};

use crate::{
    inbox::{Inbox, expect},
    raw::{pull, records, send},
};

scenarios![
    only_messages_with_a_wanted_tag_arrive,
    keys_and_properties_arrive_as_they_were_sent,
    a_failing_message_comes_again_after_its_delay_and_dies_once,
    a_rejected_message_is_a_dead_letter_at_once,
    a_handler_that_panics_keeps_its_message_and_its_neighbours,
    what_a_slow_handler_leaves_in_the_cache_stays_within_the_limits,
    a_stream_lends_messages_until_they_are_acknowledged,
];

async fn only_messages_with_a_wanted_tag_arrive(target: &Target) -> TestResult {
    let topic = target.topic("tags");
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    // "Aa" and "BB" have the same hash, which is all that the broker compares.
    for (index, tag) in ["Aa", "BB", "C", "Aa", "D", ""].iter().enumerate() {
        let body = format!("{index} {tag}");
        let tags = [(property::TAGS, *tag)];
        let properties: &[_] = if tag.is_empty() { &[] } else { &tags };
        send(
            broker,
            &topic,
            i32::try_from(index % 2)?,
            body.as_bytes(),
            properties,
        )
        .await?;
    }
    for (filter, wanted) in [
        ("Aa", &["0 Aa", "3 Aa"][..]),
        ("BB || C", &["1 BB", "2 C"]),
        ("*", &["0 Aa", "1 BB", "2 C", "3 Aa", "4 D", "5 "]),
    ] {
        let group = target.group(&format!("tags{}", filter.len()));
        let mut inbox = Inbox::open(&client, &group, &topic, filter).await?;
        expect(filter, inbox.bodies(wanted.len()).await?, wanted)?;
        inbox.consumer.shutdown().await;
        expect("beyond those", inbox.rest().len(), 0)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn keys_and_properties_arrive_as_they_were_sent(target: &Target) -> TestResult {
    let topic = target.topic("properties");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let properties = [
        (property::KEYS, "one two"),
        (property::UNIQUE_KEY, "0000"),
        ("price", "3.50"),
        ("città", "Forlì 東京 🚀"),
        ("text", "a=b; c: \"d\" {e}\n\tf"),
    ];
    send(broker, &topic, 0, "größe 🚀".as_bytes(), &properties).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &target.group("properties"), &topic, "*").await?;
    let message = inbox.next().await?;
    expect("body", message.body().as_ref(), "größe 🚀".as_bytes())?;
    expect("keys", message.keys().collect::<Vec<_>>(), ["one", "two"])?;
    expect("unique id", message.message_id().as_str(), "0000")?;
    expect("tag", message.tag(), None::<&str>)?;
    for (name, value) in properties {
        expect(name, message.property(name), Some(value))?;
    }
    client.shutdown().await;
    Ok(())
}

/// What there is in the dead letter topic of a group, once there is something.
async fn dead_letters(target: &Target, group: &str) -> Result<Vec<(String, String)>, Failure> {
    let broker = target.first_broker().await?;
    let mut letters = Vec::new();
    eventually("a dead letter", async || {
        if let Ok(pulled) = pull(broker, group, &dlq_topic(group), 0, 0, "*").await {
            letters = records(&pulled)?
                .into_iter()
                .map(|record| {
                    let topic = record
                        .properties
                        .get(property::RETRY_TOPIC)
                        .unwrap_or_default()
                        .to_owned();
                    (String::from_utf8_lossy(&record.body).into_owned(), topic)
                })
                .collect();
        }
        Ok(!letters.is_empty())
    })
    .await?;
    Ok(letters)
}

async fn a_failing_message_comes_again_after_its_delay_and_dies_once(target: &Target) -> TestResult {
    const RETRIES: u32 = 2;
    let (topic, group) = (target.topic("failing"), target.group("failing"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for body in ["bad", "good"] {
        send(
            broker,
            &topic,
            0,
            body.as_bytes(),
            &[(property::UNIQUE_KEY, body)],
        )
        .await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut attempts) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .max_reconsume_times(RETRIES)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let bad = message.body() == "bad";
                let _ = sender.send(message).await;
                if bad {
                    Outcome::Retry(Retry::Level(1))
                } else {
                    Outcome::Ack
                }
            }
        })
        .await?;
    let mut deliveries = Vec::new();
    while deliveries.len() < 4 {
        let message = attempts.recv().await.ok_or("the consumer is gone")?;
        expect("topic of a retry", message.topic(), topic.as_str())?;
        deliveries.push((message.message_id(), message.attempt(), message.reconsume_times()));
    }
    let letters = dead_letters(target, &group).await?;
    deliveries.sort_unstable();
    let bad = |attempt: u32, times| ("bad".to_owned(), attempt, times);
    expect(
        "deliveries",
        deliveries,
        [bad(1, 0), bad(2, 1), bad(3, 2), ("good".to_owned(), 1, 0)],
    )?;
    expect("dead letters", letters, [("bad".to_owned(), topic.clone())])?;
    consumer.shutdown().await;
    expect("deliveries after death", attempts.try_recv().is_ok(), false)?;
    client.shutdown().await;
    Ok(())
}

async fn a_rejected_message_is_a_dead_letter_at_once(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("rejected"), target.group("rejected"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    send(broker, &topic, 0, b"poison", &[]).await?;
    let client = Client::connect(target.name_server()).await?;
    let deliveries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&deliveries);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |_: MessageView| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Outcome::Reject("this can never work".into()) }
        })
        .await?;
    expect(
        "dead letters",
        dead_letters(target, &group).await?,
        [("poison".to_owned(), topic.clone())],
    )?;
    consumer.shutdown().await;
    expect("deliveries", deliveries.load(Ordering::SeqCst), 1)?;
    client.shutdown().await;
    Ok(())
}

async fn a_handler_that_panics_keeps_its_message_and_its_neighbours(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("panic"), target.group("panic"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..20 {
        send(broker, &topic, 0, index.to_string().as_bytes(), &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut received) = channel(100);
    let panicked = Arc::new(AtomicBool::new(false));
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let (sender, panicked) = (sender.clone(), Arc::clone(&panicked));
            async move {
                assert!(
                    message.body() != "7" || panicked.swap(true, Ordering::SeqCst),
                    "the handler's bad day"
                );
                let _ = sender.send(message).await;
            }
        })
        .await?;
    let mut bodies = BTreeSet::new();
    while bodies.len() < 20 {
        let message = received.recv().await.ok_or("the consumer is gone")?;
        bodies.insert(String::from_utf8_lossy(message.body()).into_owned());
        if message.body() == "7" {
            expect("attempt of the one that panicked", message.attempt(), 2)?;
        }
    }
    expect("panics", consumer.stats().panicked, 1)?;
    client.shutdown().await;
    Ok(())
}

async fn what_a_slow_handler_leaves_in_the_cache_stays_within_the_limits(target: &Target) -> TestResult {
    const MESSAGES: usize = 600;
    const CACHED: usize = 64;
    const BATCH: usize = 32;
    let (topic, group) = (target.topic("slow"), target.group("slow"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for _ in 0..MESSAGES {
        send(broker, &topic, 0, &[b'x'; 1024], &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let gate = Arc::new(Semaphore::new(0));
    let handled = Arc::new(AtomicU32::new(0));
    let (entry, count) = (Arc::clone(&gate), Arc::clone(&handled));
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .max_cached_messages_per_queue(CACHED)
        .pull_batch_size(BATCH)
        .start(move |_: MessageView| {
            let (entry, count) = (Arc::clone(&entry), Arc::clone(&count));
            async move {
                entry.acquire().await?.forget();
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Failure>(())
            }
        })
        .await?;
    let mut most = 0;
    for released in (0..MESSAGES).step_by(50) {
        eventually("a full cache, or the end", async || {
            let cached = consumer.stats().cached;
            most = most.max(cached);
            // It pulls again when there is room for a batch.
            Ok(cached > (CACHED - BATCH).min(MESSAGES - released - 1))
        })
        .await?;
        gate.add_permits(50);
    }
    eventually("every message", async || {
        Ok(handled.load(Ordering::SeqCst) == u32::try_from(MESSAGES)?)
    })
    .await?;
    if most > CACHED {
        return Err(format!("{most} messages were cached, the limit is {CACHED}").into());
    }
    client.shutdown().await;
    Ok(())
}

async fn a_stream_lends_messages_until_they_are_acknowledged(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("stream"), target.group("stream"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for body in ["first", "second", "third"] {
        send(
            broker,
            &topic,
            0,
            body.as_bytes(),
            &[(property::UNIQUE_KEY, body)],
        )
        .await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let mut stream = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .stream()
        .await?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let leased = stream.next().await.ok_or("the stream has ended")?;
        let (id, attempt) = (leased.message().message_id(), leased.message().attempt());
        if id == "second" && attempt == 1 {
            leased.retry(Retry::Level(1));
        } else {
            leased.ack();
        }
        seen.push((id, attempt));
    }
    seen.sort_unstable();
    let wanted = [("first", 1), ("second", 1), ("second", 2), ("third", 1)];
    expect(
        "deliveries",
        seen,
        wanted.map(|(id, attempt)| (id.to_owned(), attempt)),
    )?;
    client.shutdown().await;
    Ok(())
}
