//! The classic pull calls: single pulls, offsets in the user's hands, and queues in balance.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use integration_tests::{
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ErrorKind, Message, MessageQueue, MessageView, Retry,
    protocol::{
        bodies::ConsumeType,
        names::{dlq_topic, retry_topic},
        requests::PullStatus,
    },
};

use crate::{
    inbox::{LIMIT, expect},
    lite_pulling::{body, filled},
    raw::send,
};

scenarios![
    a_pull_says_how_it_ended_and_where_to_go_on,
    a_pull_waits_at_the_broker_until_a_message_comes,
    offsets_are_what_the_user_notes,
    queues_in_balance_are_shared_and_their_tasks_follow,
    a_message_that_is_given_back_comes_again_or_dies,
    tools_see_a_pull_consumer,
];

fn bodies(messages: &[MessageView]) -> Vec<String> {
    messages.iter().map(body).collect()
}

async fn a_pull_says_how_it_ended_and_where_to_go_on(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "pulls", 1, 0).await?;
    let queue = &queues[0];
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let puller = client.pull_consumer(target.group("pulls")).start().await?;

    let empty = puller.pull(queue, "*", 0, 32).await?;
    expect(
        "an empty queue",
        (empty.status, empty.next_offset),
        (PullStatus::NoNewMessage, 0),
    )?;
    for index in 0..10 {
        let tag = if index < 5 { "early" } else { "late" };
        send(broker, &topic, 0, index.to_string().as_bytes(), &[("TAGS", tag)]).await?;
    }
    let found = puller.pull(queue, "*", 2, 3).await?;
    expect("status", found.status, PullStatus::Found)?;
    expect("messages", bodies(&found.messages), ["2", "3", "4"])?;
    expect(
        "limits",
        (found.next_offset, found.min_offset, found.max_offset),
        (5, 0, 10),
    )?;
    let tagged = puller.pull(queue, "late || later", 0, 32).await?;
    expect("by tag", bodies(&tagged.messages), ["5", "6", "7", "8", "9"])?;
    expect("behind them", tagged.next_offset, 10)?;
    let none = puller.pull(queue, "never", 0, 32).await?;
    expect(
        "no match",
        (none.status, none.next_offset),
        (PullStatus::NoMatchedMessage, 10),
    )?;
    let end = puller.pull(queue, "*", 10, 32).await?;
    expect(
        "the end",
        (end.status, end.next_offset),
        (PullStatus::NoNewMessage, 10),
    )?;
    let outside = puller.pull(queue, "*", 99, 32).await?;
    expect(
        "outside",
        (outside.status, outside.next_offset),
        (PullStatus::OffsetIllegal, 10),
    )?;

    for (wrong, part) in [
        (puller.pull(queue, "*", -1, 32), "below 0"),
        (puller.pull(queue, "*", 0, 0), "no message"),
        (puller.pull(queue, "a || *", 0, 32), "filter"),
    ] {
        let error = match wrong.await {
            Err(error) => error,
            Ok(found) => return Err(format!("{found:?}").into()),
        };
        expect("kind", error.kind(), ErrorKind::Config)?;
        expect(part, error.to_string().contains(part), true)?;
    }
    let nowhere = MessageQueue::new(&*topic, &*queue.broker_name, 99);
    let refused = puller
        .pull(&nowhere, "*", 0, 32)
        .await
        .map_err(|error| error.kind());
    expect(
        "a queue that does not exist",
        refused.err(),
        Some(ErrorKind::Rejected),
    )?;
    puller.shutdown().await;
    let late = puller.pull(queue, "*", 0, 32).await.map_err(|error| error.kind());
    expect("after the shutdown", late.err(), Some(ErrorKind::Closed))?;
    client.shutdown().await;
    Ok(())
}

async fn a_pull_waits_at_the_broker_until_a_message_comes(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "waits", 1, 0).await?;
    let queue = queues.into_iter().next().ok_or("no queue")?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let puller = client
        .pull_consumer(target.group("waits"))
        .broker_suspend(Duration::from_secs(20))
        .start()
        .await?;
    let (waiting, sent) = tokio::join!(
        async {
            loop {
                // A broker on a busy machine may let a pull go before the message is there.
                let pulled = puller.pull(&queue, "*", 0, 32).wait().timeout(LIMIT).await?;
                if pulled.status == PullStatus::Found {
                    return Ok::<_, rocketmq_client::Error>(pulled);
                }
            }
        },
        async {
            tokio::task::yield_now().await;
            send(broker, &topic, 0, b"late", &[]).await
        },
    );
    sent?;
    expect("what came", bodies(&waiting?.messages), ["late"])?;
    puller.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn offsets_are_what_the_user_notes(target: &Target) -> TestResult {
    let (_, queues) = filled(target, "noted", 2, 5).await?;
    let group = target.group("noted");
    let client = Client::connect(target.name_server()).await?;
    let puller = client
        .pull_consumer(&group)
        // Nothing by itself while this looks.
        .commit_interval(Duration::from_secs(3600))
        .start()
        .await?;
    expect("nothing yet", puller.noted_offset(&queues[0]), None)?;
    puller.update_offset(&queues[0], 3)?;
    puller.update_offset(&queues[1], 5)?;
    expect("noted", puller.noted_offset(&queues[0]), Some(3))?;
    puller.persist(&queues[0]).await?;
    expect("committed", puller.committed(&queues[0]).await?, Some(3))?;
    expect(
        "not the other",
        puller.committed(&queues[1]).await?.unwrap_or(0),
        0,
    )?;
    puller.update_offset(&queues[0], 1)?;
    let below = puller.update_offset(&queues[0], -1).map_err(|error| error.kind());
    expect("below 0", below, Err(ErrorKind::Config))?;
    expect("unconfirmed", puller.shutdown().await, 0)?;

    let puller = client.pull_consumer(&group).start().await?;
    expect(
        "back, at the shutdown",
        puller.committed(&queues[0]).await?,
        Some(1),
    )?;
    expect("and the other", puller.committed(&queues[1]).await?, Some(5))?;
    expect(
        "limits",
        (
            puller.min_offset(&queues[0]).await?,
            puller.max_offset(&queues[0]).await?,
        ),
        (0, 5),
    )?;
    let earliest = puller.earliest_store_time(&queues[0]).await?.ok_or("no time")?;
    expect(
        "by time",
        puller
            .offset_for_timestamp(&queues[0], SystemTime::UNIX_EPOCH)
            .await?,
        0,
    )?;
    let first = puller.pull(&queues[0], "*", 0, 1).await?;
    let first = first.messages.first().ok_or("no message")?.store_time();
    expect("when the first one was stored", earliest, first)?;
    puller.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn queues_in_balance_are_shared_and_their_tasks_follow(target: &Target) -> TestResult {
    let (topic, _) = filled(target, "balance", 4, 3).await?;
    let group = target.group("balance");
    let start = async |client: &Client| {
        client
            .pull_consumer(&group)
            .register(&topic, "*")
            .rebalance_interval(Duration::from_secs(1))
            .start()
            .await
    };
    let first_client = Client::connect(target.name_server()).await?;
    let first = start(&first_client).await?;
    eventually("all queues", async || {
        Ok(first.queues_in_balance(&topic).len() == 4)
    })
    .await?;
    let not_registered = first.schedule("elsewhere", |_, _| async { Duration::ZERO });
    expect(
        "not registered",
        not_registered.map_err(|error| error.kind()).err(),
        Some(ErrorKind::Config),
    )?;

    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&seen);
    let schedule = first.schedule(&topic, move |puller, queue| {
        let noted = Arc::clone(&noted);
        async move {
            let offset = puller.noted_offset(&queue).unwrap_or(0);
            match puller.pull(&queue, "*", offset, 32).wait().await {
                Ok(pulled) => {
                    if let Ok(mut noted) = noted.lock() {
                        noted.extend(pulled.messages.iter().map(body));
                    }
                    let _ = puller.update_offset(&queue, pulled.next_offset);
                    Duration::ZERO
                }
                Err(_) => Duration::from_millis(100),
            }
        }
    })?;
    let count = |wanted: usize| {
        let seen = Arc::clone(&seen);
        async move || Ok(seen.lock().map_err(|_| "poisoned")?.len() == wanted)
    };
    eventually("every message", count(12)).await?;

    let second_client = Client::connect(target.name_server()).await?;
    let second = start(&second_client).await?;
    eventually("two queues each", async || {
        let (a, b) = (first.queues_in_balance(&topic), second.queues_in_balance(&topic));
        let all: BTreeSet<_> = a.iter().chain(&b).cloned().collect();
        Ok((a.len(), b.len(), all.len()) == (2, 2, 4))
    })
    .await?;
    second.shutdown().await;
    second_client.shutdown().await;
    eventually("all queues again", async || {
        Ok(first.queues_in_balance(&topic).len() == 4)
    })
    .await?;
    let broker = target.first_broker().await?;
    for queue in 0..4 {
        send(broker, &topic, queue, format!("late-{queue}").as_bytes(), &[]).await?;
    }
    eventually("the new ones", count(16)).await?;
    drop(schedule);
    first.shutdown().await;
    first_client.shutdown().await;
    Ok(())
}

async fn a_message_that_is_given_back_comes_again_or_dies(target: &Target) -> TestResult {
    let (_, queues) = filled(target, "back", 1, 2).await?;
    let group = target.group("back");
    let client = Client::connect(target.name_server()).await?;
    let puller = client.pull_consumer(&group).start().await?;
    let pulled = puller.pull(&queues[0], "*", 0, 32).await?;
    let [again, dead] = &pulled.messages[..] else {
        return Err(format!("{pulled:?}").into());
    };
    puller.send_back(again, Retry::Level(1)).await?;
    puller.dead_letter(dead).await?;
    for (topic, wanted) in [(retry_topic(&group), "0-0"), (dlq_topic(&group), "0-1")] {
        let mut found = None;
        eventually(&topic, async || {
            let queues = puller.queues_of(&topic).await?;
            for queue in &queues {
                // Until it is written for the first time, a broker may not have it.
                if let Ok(pulled) = puller.pull(queue, "*", 0, 32).await {
                    found = found.take().or_else(|| pulled.messages.into_iter().next());
                }
            }
            Ok(found.is_some())
        })
        .await?;
        let message = found.ok_or("no message")?;
        expect("body", body(&message), wanted)?;
        expect(
            "topic it came from",
            message.property("RETRY_TOPIC"),
            Some(&*queues[0].topic),
        )?;
    }
    puller.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn tools_see_a_pull_consumer(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "tools", 2, 5).await?;
    let group = target.group("tools");
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer("tools").start().await?;
    producer.send(Message::new(&topic, "one more")).await?;
    let puller = client.pull_consumer(&group).register(&topic, "*").start().await?;
    puller.update_offset(&queues[0], 2)?;
    puller.persist(&queues[0]).await?;
    let admin = client.admin();
    let connected = admin.consumer_connection(&group).await?.complete()?;
    expect("who drives", connected.consume_type, ConsumeType::Actively)?;
    let info = admin
        .consumer_running_info(&group, client.client_id(), false)
        .await?;
    let kind = info.properties.get("PROP_CONSUME_TYPE").map(String::as_str);
    expect("type", kind, Some("CONSUME_ACTIVELY"))?;
    let stats = admin.consume_stats_of(&group, &topic).await?.complete()?;
    let at = stats.queue(&queues[0]).ok_or("no statistics")?;
    expect("progress", at.consumer_offset, 2)?;
    puller.shutdown().await;
    client.shutdown().await;
    Ok(())
}
