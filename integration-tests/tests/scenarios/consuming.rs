//! What the push consumer promises: the right messages, again when they failed, and none lost at a stop.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    admin::call,
    history::{History, Id, Place, Sent},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::protocol::{names::dlq_topic, property, requests::QueryConsumerOffset};
use rocketmq_client::{Client, ConsumeFrom, MessageView, Outcome, Retry};
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
    a_group_goes_on_where_it_stopped,
    the_first_commits_of_a_group_are_all_kept,
    members_share_the_queues_and_take_over_those_of_one_that_leaves,
    a_graceful_stop_loses_and_repeats_nothing,
    a_consumer_that_vanishes_loses_nothing,
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

async fn a_group_goes_on_where_it_stopped(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("resume"), target.group("resume"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    let send_range = async |range: std::ops::Range<i32>| -> TestResult {
        for index in range {
            send(broker, &topic, index % 4, format!("{index:03}").as_bytes(), &[]).await?;
        }
        Ok(())
    };
    let bodies = |range: std::ops::Range<i32>| range.map(|index| format!("{index:03}")).collect::<Vec<_>>();

    send_range(0..40).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("first", inbox.bodies(40).await?, bodies(0..40))?;
    let report = inbox.consumer.shutdown().await;
    expect("unconfirmed commits", report.commits_unconfirmed, 0)?;
    client.shutdown().await;

    send_range(40..80).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("after the restart", inbox.bodies(40).await?, bodies(40..80))?;
    inbox.consumer.shutdown().await;
    expect("repeated", inbox.rest().len(), 0)?;
    client.shutdown().await;
    Ok(())
}

/// Real brokers put a table in place at a group's first commit for a topic, without looking whether another commit
/// does so at the same time: of first commits sent together, only one would be kept.
async fn the_first_commits_of_a_group_are_all_kept(target: &Target) -> TestResult {
    const QUEUES: i32 = 32;
    let (topic, group) = (target.topic("first"), target.group("first"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    for queue in 0..QUEUES {
        send(broker, &topic, queue, b"x", &[]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    inbox.bodies(usize::try_from(QUEUES)?).await?;
    expect(
        "unconfirmed commits",
        inbox.consumer.shutdown().await.commits_unconfirmed,
        0,
    )?;
    for queue_id in 0..QUEUES {
        let (consumer_group, topic) = (group.clone(), topic.clone());
        let query = QueryConsumerOffset {
            consumer_group,
            topic,
            queue_id,
            set_zero_if_not_found: None,
        };
        expect(
            &format!("committed of queue {queue_id}"),
            call(broker, &query).await?.offset,
            1,
        )?;
    }
    client.shutdown().await;
    Ok(())
}

async fn members_share_the_queues_and_take_over_those_of_one_that_leaves(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("shared"), target.group("shared"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    let queues_of = |inbox: &Inbox| -> Vec<i32> {
        let queues = inbox.consumer.stats().queues;
        queues
            .iter()
            .filter(|queue| *queue.topic == *topic)
            .map(|queue| queue.queue_id)
            .collect()
    };

    let first_client = Client::connect(target.name_server()).await?;
    let mut first = Inbox::open(&first_client, &group, &topic, "*").await?;
    eventually("all queues at the only member", async || {
        Ok(queues_of(&first) == [0, 1, 2, 3])
    })
    .await?;

    let second_client = Client::connect(target.name_server()).await?;
    let mut second = Inbox::open(&second_client, &group, &topic, "*").await?;
    eventually("two queues each", async || {
        let (a, b) = (queues_of(&first), queues_of(&second));
        let all: BTreeSet<i32> = a.iter().chain(&b).copied().collect();
        Ok((a.len(), b.len(), all.len()) == (2, 2, 4))
    })
    .await?;
    for index in 0..40 {
        send(broker, &topic, index % 4, index.to_string().as_bytes(), &[]).await?;
    }
    let mut seen: Vec<String> = first.bodies(20).await?;
    seen.extend(second.bodies(20).await?);
    expect(
        "different messages",
        seen.iter().collect::<BTreeSet<_>>().len(),
        40,
    )?;

    second.consumer.shutdown().await;
    second_client.shutdown().await;
    eventually("all queues at the one that stays", async || {
        Ok(queues_of(&first) == [0, 1, 2, 3])
    })
    .await?;
    for index in 40..60 {
        send(broker, &topic, index % 4, index.to_string().as_bytes(), &[]).await?;
    }
    let wanted: Vec<String> = (40..60).map(|index| index.to_string()).collect();
    expect("after the other left", first.bodies(20).await?, wanted)?;
    first.consumer.shutdown().await;
    expect("repeated", first.rest().len() + second.rest().len(), 0)?;
    first_client.shutdown().await;
    Ok(())
}

async fn a_graceful_stop_loses_and_repeats_nothing(target: &Target) -> TestResult {
    const MESSAGES: u32 = 300;
    let (topic, group) = (target.topic("stop"), target.group("stop"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    let history = Arc::new(History::new());
    for sequence in 0..MESSAGES {
        let id = Id {
            producer: 0,
            sequence,
        };
        let sent = send(
            broker,
            &topic,
            i32::try_from(sequence % 4)?,
            id.to_string().as_bytes(),
            &[],
        )
        .await?;
        let place = Place {
            broker: String::new(),
            topic: topic.clone(),
            queue: sent.header.queue_id,
            offset: sent.header.queue_offset,
        };
        history.sent(id, Sent::Stored(place));
    }
    // Each member is stopped while its handlers work; the next one goes on.
    while history.outstanding() > 0 {
        let client = Client::connect(target.name_server()).await?;
        let (progress, mut made) = channel(1_000);
        let (seen, own_topic) = (Arc::clone(&history), topic.clone());
        let consumer = client
            .push_consumer(&group)
            .subscribe(&topic, "*")
            .consume_from(ConsumeFrom::First)
            .concurrency(8)
            .start(move |message: MessageView| {
                let (seen, topic, progress) = (Arc::clone(&seen), own_topic.clone(), progress.clone());
                async move {
                    // Work that takes a while, so that a stop falls into it.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let id: Id = std::str::from_utf8(message.body())?.parse()?;
                    let queue = message.queue().queue_id;
                    seen.received(
                        id,
                        Place {
                            broker: String::new(),
                            topic,
                            queue,
                            offset: message.queue_offset(),
                        },
                    );
                    let _ = progress.try_send(());
                    Ok::<_, Failure>(())
                }
            })
            .await?;
        for _ in 0..history.outstanding().min(70) {
            made.recv().await.ok_or("the consumer is gone")?;
        }
        let report = consumer.shutdown().await;
        expect("handlers cut off", report.handlers_cut_off, 0)?;
        client.shutdown().await;
    }
    let verdict = history.check();
    verdict.complete()?;
    expect("repeated", verdict.duplicates, 0)
}

async fn a_consumer_that_vanishes_loses_nothing(target: &Target) -> TestResult {
    const MESSAGES: u32 = 200;
    let (topic, group) = (target.topic("vanish"), target.group("vanish"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    for sequence in 0..MESSAGES {
        send(
            broker,
            &topic,
            i32::try_from(sequence % 4)?,
            sequence.to_string().as_bytes(),
            &[],
        )
        .await?;
    }
    let done = Arc::new(Mutex::new(BTreeSet::new()));
    for stay in [false, true] {
        let client = Client::connect(target.name_server()).await?;
        let (progress, mut made) = channel(1_000);
        let finished = Arc::clone(&done);
        let consumer = client
            .push_consumer(&group)
            .subscribe(&topic, "*")
            .consume_from(ConsumeFrom::First)
            .concurrency(4)
            .start(move |message: MessageView| {
                let (finished, progress) = (Arc::clone(&finished), progress.clone());
                async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    // Counted only when the handler is about to return: one that is cut off has not done its work.
                    finished
                        .lock()
                        .map_err(|_| "poisoned")?
                        .insert(message.body().clone());
                    let _ = progress.try_send(());
                    Ok::<_, Failure>(())
                }
            })
            .await?;
        if stay {
            eventually("every message", async || {
                Ok(done.lock().map_err(|_| "poisoned")?.len() == usize::try_from(MESSAGES)?)
            })
            .await?;
            consumer.shutdown().await;
            client.shutdown().await;
        } else {
            for _ in 0..MESSAGES / 3 {
                made.recv().await.ok_or("the consumer is gone")?;
            }
            // Dropped without a word, in the middle of its work.
        }
    }
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
