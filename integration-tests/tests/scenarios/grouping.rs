//! Members of a group over time: where they go on, what they share, and what a stop or a loss of one leaves behind.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
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
use rocketmq_client::{Client, ConsumeFrom, MessageView, protocol::requests::QueryConsumerOffset};
use tokio::sync::mpsc::channel;

use crate::{
    inbox::{Inbox, expect},
    raw::send,
};

scenarios![
    a_group_goes_on_where_it_stopped,
    the_first_commits_of_a_group_are_all_kept,
    members_share_the_queues_and_take_over_those_of_one_that_leaves,
    a_graceful_stop_loses_and_repeats_nothing,
    a_consumer_that_vanishes_loses_nothing,
];

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
        history.begun(id);
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
