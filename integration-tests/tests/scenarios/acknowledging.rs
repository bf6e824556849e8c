//! Messages that are acknowledged by hand, retries that wait as long as asked, and consumers steered while they run.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Call, Client, ConsumeFrom, Leased, MessageView, Outcome, Retry,
    protocol::{RequestCode, property},
};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{Receiver, channel},
    },
    task::JoinSet,
    time::timeout,
};
use tower::{layer::layer_fn, util::MapRequest};

use crate::{
    inbox::{Inbox, LIMIT, committed, expect, until_committed},
    raw::send,
};

scenarios![
    commits_wait_for_the_lowest_message_that_is_not_acknowledged,
    a_lease_that_is_held_too_long_or_dropped_comes_again,
    an_exact_retry_waits_by_the_timer_of_a_broker_that_has_one,
    failed_messages_of_several_topics_come_again_as_theirs,
    what_no_broker_takes_back_comes_back_after_a_crash,
    a_paused_consumer_receives_nothing_and_goes_on_where_it_was,
    concurrency_changes_while_handlers_run,
    a_handler_that_hangs_costs_its_message_a_retry_and_nobody_else_anything,
];

async fn next<T>(receiver: &mut Receiver<T>) -> Result<T, Failure> {
    match timeout(LIMIT, receiver.recv()).await {
        Ok(Some(next)) => Ok(next),
        Ok(None) => Err("the consumer is gone".into()),
        Err(_) => Err(format!("nothing in {LIMIT:?}").into()),
    }
}

async fn commits_wait_for_the_lowest_message_that_is_not_acknowledged(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("manual"), target.group("manual"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..10 {
        send(broker, &topic, 0, index.to_string().as_bytes(), &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut leases) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(50))
        .start_manual(move |lease: Leased| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(lease).await;
            }
        })
        .await?;
    let mut acknowledging = JoinSet::new();
    let mut third = None;
    for _ in 0..10 {
        let lease = next(&mut leases).await?;
        if lease.body() == "3" {
            third = Some(lease);
        } else {
            // From any task.
            acknowledging.spawn(async move { lease.ack() });
        }
    }
    eventually("nine acknowledgements", async || {
        Ok(consumer.stats().acknowledged == 9)
    })
    .await?;
    until_committed(target, &group, &topic, 3).await?;
    let third = third.ok_or("the third has not come")?;
    expect("expired", third.is_expired(), false)?;
    // The process dies: nothing is given back, nothing more is committed.
    drop(consumer);
    client.shutdown().await;
    third.ack();
    expect("committed", committed(target, &group, &topic, 0).await?, 3)?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    let again: Vec<_> = (3..10).map(|index| index.to_string()).collect();
    expect("what comes again", inbox.bodies(7).await?, again)?;
    until_committed(target, &group, &topic, 10).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_lease_that_is_held_too_long_or_dropped_comes_again(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("expiring"), target.group("expiring"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for body in ["held", "dropped", "good"] {
        let properties = [(property::UNIQUE_KEY, body)];
        send(broker, &topic, 0, body.as_bytes(), &properties).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let mut stream = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .retry(Retry::Level(1))
        .consume_timeout(Duration::from_secs(3))
        .stream()
        .await?;
    let mut held = None;
    let mut again = BTreeSet::new();
    while again.len() < 2 {
        let lease = timeout(LIMIT, stream.next())
            .await?
            .ok_or("the stream has ended")?;
        match (lease.body().as_ref(), lease.attempt()) {
            (b"held", 1) => held = Some(lease),
            (b"dropped", 1) => drop(lease),
            (_, attempt) => {
                if attempt > 1 {
                    again.insert(lease.message_id());
                }
                lease.ack();
            }
        }
    }
    expect(
        "again",
        again,
        BTreeSet::from(["dropped".to_owned(), "held".to_owned()]),
    )?;
    let held = held.ok_or("it was never held")?;
    expect("expired", held.is_expired(), true)?;
    held.ack();
    until_committed(target, &group, &topic, 3).await?;
    client.shutdown().await;
    Ok(())
}

async fn an_exact_retry_waits_by_the_timer_of_a_broker_that_has_one(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("exact"), target.group("exact"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    send(broker, &topic, 0, b"x", &[("mine", "kept")]).await?;
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut attempts) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .retry(Retry::Exactly(Duration::from_secs(3)))
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let done = message.attempt() == 3;
                let _ = sender.send(message).await;
                if done { Ok(()) } else { Err("not yet") }
            }
        })
        .await?;
    let mut id = None;
    for attempt in 1..=3 {
        let message = next(&mut attempts).await?;
        expect("attempt", message.attempt(), attempt)?;
        expect("topic", message.topic(), topic.as_str())?;
        expect("property", message.property("mine"), Some("kept"))?;
        expect("body", message.body().as_ref(), b"x".as_slice())?;
        if attempt > 1 {
            let timed = target.kind() != Kind::Rocketmq4;
            expect("timed", message.property(property::TIMER_OUT_MS).is_some(), timed)?;
            // 4.9 has no timer: the next longer level, of 5 s.
            let level = if timed { None } else { Some("2") };
            expect("level", message.property(property::DELAY), level)?;
            let origin = message.property(property::ORIGIN_MESSAGE_ID).map(str::to_owned);
            expect("origin", origin.is_some(), true)?;
            expect(
                "the same origin",
                id.get_or_insert_with(|| origin.clone()).clone(),
                origin,
            )?;
        }
    }
    until_committed(target, &group, &topic, 1).await?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn failed_messages_of_several_topics_come_again_as_theirs(target: &Target) -> TestResult {
    let topics = [target.topic("this"), target.topic("that")];
    let broker = target.first_broker().await?;
    for topic in &topics {
        target.create_topic(topic, 2).await?;
        for queue in 0..2 {
            send(broker, topic, queue, format!("{queue} {topic}").as_bytes(), &[]).await?;
        }
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut attempts) = channel(100);
    let consumer = client
        .push_consumer(target.group("topics"))
        .subscribe(&topics[0], "*")
        .subscribe(&topics[1], "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let first = message.attempt() == 1;
                let _ = sender.send(message).await;
                if first {
                    Retry::Level(1).into()
                } else {
                    Outcome::Ack
                }
            }
        })
        .await?;
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        let message = next(&mut attempts).await?;
        let body = String::from_utf8_lossy(message.body()).into_owned();
        expect("topic", body.ends_with(message.topic()), true)?;
        seen.insert((body, message.attempt()));
    }
    expect("different deliveries", seen.len(), 8)?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

/// The broker neither takes the message back nor a copy of it, and then the process dies.
async fn what_no_broker_takes_back_comes_back_after_a_crash(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("pinned"), target.group("pinned"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..6 {
        send(broker, &topic, 0, index.to_string().as_bytes(), &[]).await?;
    }
    // A code that no broker serves: it refuses both, as one does that may not be written to.
    let refuse = |mut call: Call| {
        if matches!(call.name, "ConsumerSendMsgBack" | "SendMessageV2") {
            call.code = RequestCode(32_123);
        }
        call
    };
    let client = Client::builder(target.name_server())
        .request_layer(layer_fn(move |inner| MapRequest::new(inner, refuse)))
        .connect()
        .await?;
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(50))
        .start(|message: MessageView| async move {
            if message.body() == "2" {
                Err("never here")
            } else {
                Ok(())
            }
        })
        .await?;
    eventually("a message that nobody takes", async || {
        let stats = consumer.stats();
        Ok(stats.not_given_back >= 1 && stats.acknowledged == 5)
    })
    .await?;
    until_committed(target, &group, &topic, 2).await?;
    drop(consumer);
    client.shutdown().await;
    expect("committed", committed(target, &group, &topic, 0).await?, 2)?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("what comes again", inbox.bodies(4).await?, ["2", "3", "4", "5"])?;
    inbox.consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_paused_consumer_receives_nothing_and_goes_on_where_it_was(target: &Target) -> TestResult {
    let topic = target.topic("paused");
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut paused = Inbox::open(&client, &target.group("paused"), &topic, "*").await?;
    let mut other = Inbox::open(&client, &target.group("other"), &topic, "*").await?;
    for round in 0..3 {
        send(broker, &topic, 0, format!("{round} first").as_bytes(), &[]).await?;
        expect("first", paused.bodies(1).await?, [format!("{round} first")])?;
        other.bodies(1).await?;
        paused.consumer.pause();
        expect("is paused", paused.consumer.is_paused(), true)?;
        for index in 0..10 {
            send(
                broker,
                &topic,
                index % 2,
                format!("{round} {index}").as_bytes(),
                &[],
            )
            .await?;
        }
        // The others' group has them all.
        other.bodies(10).await?;
        expect("received while paused", paused.rest().len(), 0)?;
        paused.consumer.resume();
        let wanted: Vec<_> = (0..10).map(|index| format!("{round} {index}")).collect();
        expect("after the pause", paused.bodies(10).await?, wanted)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn concurrency_changes_while_handlers_run(target: &Target) -> TestResult {
    let topic = target.topic("concurrency");
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    for index in 0..200 {
        send(broker, &topic, index % 2, index.to_string().as_bytes(), &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (entry, count) = (Arc::clone(&gate), Arc::clone(&running));
    let consumer = client
        .push_consumer(target.group("concurrency"))
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(3)
        .start(move |_: MessageView| {
            let (entry, count) = (Arc::clone(&entry), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let entered = entry.acquire().await;
                count.fetch_sub(1, Ordering::SeqCst);
                entered.map(tokio::sync::SemaphorePermit::forget)
            }
        })
        .await?;
    for concurrency in [3, 8, 1, 5] {
        consumer.set_concurrency(concurrency);
        expect("set", consumer.concurrency(), concurrency)?;
        eventually("as many handlers as asked for", async || {
            let now = running.load(Ordering::SeqCst);
            // Those that run are not interrupted: one more of them ends with each look.
            gate.add_permits(usize::from(now > concurrency));
            Ok(now == concurrency)
        })
        .await?;
    }
    gate.add_permits(1000);
    eventually("all messages", async || Ok(consumer.stats().acknowledged == 200)).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_handler_that_hangs_costs_its_message_a_retry_and_nobody_else_anything(
    target: &Target,
) -> TestResult {
    let topic = target.topic("hanging");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..20 {
        send(broker, &topic, 0, index.to_string().as_bytes(), &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut done) = channel(100);
    let consumer = client
        .push_consumer(target.group("hanging"))
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(2)
        .consume_timeout(Duration::from_secs(3))
        .retry(Retry::Level(1))
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                if message.body() == "7" && message.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                let _ = sender.send(message).await;
            }
        })
        .await?;
    let mut bodies = BTreeSet::new();
    while bodies.len() < 20 {
        let message = next(&mut done).await?;
        if message.body() == "7" {
            expect("attempt of the one that hung", message.attempt(), 2)?;
        }
        bodies.insert(String::from_utf8_lossy(message.body()).into_owned());
    }
    expect("timed out", consumer.stats().timed_out >= 1, true)?;
    client.shutdown().await;
    Ok(())
}
