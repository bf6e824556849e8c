//! Handlers of batches: what a batch is made of, and what becomes of each message of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    BatchOutcome, Client, ConsumeFrom, MessageView, Outcome, Retry,
    protocol::{names::dlq_topic, property},
};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

use crate::{
    inbox::{LIMIT, expect, until_committed},
    raw::{pull, records, send},
};

scenarios![
    a_batch_is_done_up_to_an_index_and_the_rest_comes_again,
    each_message_of_a_batch_has_its_own_outcome,
    batches_mix_neither_queues_nor_topics,
    a_batch_that_lingers_is_filled,
    a_batch_whose_handler_panics_comes_again_whole,
];

/// The next thing that a handler has passed on.
async fn next<T>(receiver: &mut Receiver<T>) -> Result<T, Failure> {
    match timeout(LIMIT, receiver.recv()).await {
        Ok(Some(next)) => Ok(next),
        Ok(None) => Err("the consumer is gone".into()),
        Err(_) => Err(format!("nothing in {LIMIT:?}").into()),
    }
}

fn body(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

async fn a_batch_is_done_up_to_an_index_and_the_rest_comes_again(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("partial"), target.group("partial"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..8 {
        send(broker, &topic, 0, index.to_string().as_bytes(), &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut handled) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(1)
        .start_batch(8, move |batch: Vec<MessageView>| {
            let sender = sender.clone();
            async move {
                let bad = |message: &MessageView| message.body() == "5" && message.attempt() == 1;
                let done = batch.iter().position(bad).unwrap_or(batch.len());
                for (at, message) in batch.iter().enumerate() {
                    let _ = sender.send((body(message), message.attempt(), at < done)).await;
                }
                BatchOutcome::RetryFrom(done, Retry::Level(1))
            }
        })
        .await?;
    let mut done = BTreeMap::new();
    let mut given_back = BTreeSet::new();
    while done.len() < 8 {
        let (body, attempt, is_done) = next(&mut handled).await?;
        if is_done {
            expect("done before", done.insert(body, attempt), None)?;
        } else {
            given_back.insert(body);
        }
    }
    expect("5 was given back", given_back.contains("5"), true)?;
    // How many were in its batch is up to the broker; those behind it, all of them or none.
    for (body, attempt) in &done {
        let wanted = if given_back.contains(body) { 2 } else { 1 };
        expect(&format!("attempts of {body}"), *attempt, wanted)?;
        expect(
            &format!("{body} is before 5"),
            given_back.contains(body) && &**body < "5",
            false,
        )?;
    }
    until_committed(target, &group, &topic, 8).await?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn each_message_of_a_batch_has_its_own_outcome(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("each"), target.group("each"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for body in ["good", "bad", "ugly", "good too"] {
        let properties = [(property::UNIQUE_KEY, body)];
        send(broker, &topic, 0, body.as_bytes(), &properties).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut handled) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start_batch(32, move |batch: Vec<MessageView>| {
            let sender = sender.clone();
            async move {
                let mut outcomes = Vec::new();
                for message in &batch {
                    outcomes.push(match (message.body().as_ref(), message.attempt()) {
                        (b"bad", 1) => Retry::Level(1).into(),
                        (b"ugly", _) => Outcome::Reject("it is ugly".into()),
                        _ => Outcome::Ack,
                    });
                    let _ = sender.send((message.message_id(), message.attempt())).await;
                }
                BatchOutcome::Each(outcomes)
            }
        })
        .await?;
    let mut deliveries = Vec::new();
    for _ in 0..5 {
        deliveries.push(next(&mut handled).await?);
    }
    deliveries.sort_unstable();
    let wanted = [("bad", 1), ("bad", 2), ("good", 1), ("good too", 1), ("ugly", 1)];
    expect(
        "deliveries",
        deliveries,
        wanted.map(|(id, attempt)| (id.to_owned(), attempt)),
    )?;
    eventually("one dead letter", async || {
        let Ok(pulled) = pull(broker, &group, &dlq_topic(&group), 0, 0, "*").await else {
            return Ok(false);
        };
        let letters = records(&pulled)?;
        Ok(letters.len() == 1 && letters.iter().all(|letter| letter.body == "ugly"))
    })
    .await?;
    until_committed(target, &group, &topic, 4).await?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn batches_mix_neither_queues_nor_topics(target: &Target) -> TestResult {
    const EACH: usize = 6;
    let topics = [target.topic("one"), target.topic("two")];
    let group = target.group("mixed");
    let broker = target.first_broker().await?;
    for topic in &topics {
        target.create_topic(topic, 2).await?;
        for index in 0..EACH {
            let queue = i32::try_from(index % 2)?;
            send(
                broker,
                topic,
                queue,
                format!("{index} of {topic}").as_bytes(),
                &[],
            )
            .await?;
        }
    }
    let client = Client::connect(target.name_server()).await?;
    let faults: Arc<Mutex<Vec<String>>> = Arc::default();
    let (sender, mut handled) = channel(1000);
    let found = Arc::clone(&faults);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topics[0], "*")
        .subscribe(&topics[1], "*")
        .consume_from(ConsumeFrom::First)
        .retry(Retry::Level(1))
        .start_batch(100, move |batch: Vec<MessageView>| {
            let (sender, found) = (sender.clone(), Arc::clone(&found));
            async move {
                let queues: BTreeSet<_> = batch.iter().map(|message| message.queue().clone()).collect();
                let topics: BTreeSet<_> = batch.iter().map(MessageView::topic).collect();
                let in_order = batch.is_sorted_by_key(MessageView::queue_offset);
                if queues.len() != 1 || topics.len() != 1 || !in_order {
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.push(format!("{batch:?}"));
                }
                let again = batch.iter().any(|message| message.attempt() == 1);
                for message in batch {
                    let of_topic = message.topic().to_owned();
                    let _ = sender.send((body(&message), of_topic, message.attempt())).await;
                }
                // Those of both topics go to the one retry topic of the group.
                if again { Err("once is not enough") } else { Ok(()) }
            }
        })
        .await?;
    let mut seen = BTreeSet::new();
    for _ in 0..EACH * 2 * 2 {
        let (body, topic, attempt) = next(&mut handled).await?;
        expect("topic", body.ends_with(&topic), true)?;
        seen.insert((body, attempt));
    }
    expect("different deliveries", seen.len(), EACH * 2 * 2)?;
    let faults = faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    expect("mixed batches", faults, Vec::<String>::new())?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_batch_that_lingers_is_filled(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("linger"), target.group("linger"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut handled) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        // Longer than the scenario may take: only a full batch comes.
        .batch_linger(Duration::from_secs(600))
        .start_batch(3, move |batch: Vec<MessageView>| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(batch.iter().map(body).collect::<Vec<_>>()).await;
            }
        })
        .await?;
    for round in 0..2 {
        for index in 0..3 {
            send(broker, &topic, 0, format!("{round} {index}").as_bytes(), &[]).await?;
            if index < 2 {
                eventually("the message in the cache", async || {
                    Ok(consumer.stats().cached == index + 1)
                })
                .await?;
            }
        }
        let wanted: Vec<_> = (0..3).map(|index| format!("{round} {index}")).collect();
        expect("batch", next(&mut handled).await?, wanted)?;
        eventually("an empty cache", async || Ok(consumer.stats().cached == 0)).await?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_batch_whose_handler_panics_comes_again_whole(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("panic"), target.group("panic"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..10 {
        send(broker, &topic, 0, index.to_string().as_bytes(), &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut handled) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .retry_by_attempt(|_| Retry::Level(1))
        .start_batch(4, move |batch: Vec<MessageView>| {
            let sender = sender.clone();
            async move {
                let bad = |message: &MessageView| message.body() == "5" && message.attempt() == 1;
                assert!(!batch.iter().any(bad), "the handler's bad day");
                for message in &batch {
                    let _ = sender.send((body(message), message.attempt())).await;
                }
            }
        })
        .await?;
    let mut done = BTreeMap::new();
    while done.len() < 10 {
        let (body, attempt) = next(&mut handled).await?;
        expect("done before", done.insert(body, attempt), None)?;
    }
    let again = done.values().filter(|&&attempt| attempt == 2).count();
    expect("attempts of 5", done.get("5"), Some(&2))?;
    expect("panics", consumer.stats().panicked, u64::try_from(again)?)?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
