//! Lite pull with assigned queues: polling, seeking, pausing, committing, and what a broker that fails does to it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use integration_tests::{
    Failure,
    admin::call,
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Client, ErrorKind, Filter, LitePullConsumer, MessageQueue, MessageView, SeekTo,
    protocol::requests::QueryConsumerOffset,
};

use crate::{
    inbox::{LIMIT, expect},
    raw::send,
};
use tokio::task::JoinSet;

scenarios![
    assigned_queues_are_polled_from_the_first_message_on,
    a_cancelled_poll_loses_nothing,
    seeking_goes_anywhere_in_the_queue_and_nowhere_else,
    after_a_seek_nothing_from_before_it_is_polled,
    a_paused_queue_is_not_polled_until_it_is_resumed,
    commits_are_what_the_user_says,
    what_was_polled_is_committed_once_the_next_poll_says_that_it_is_handled,
    tags_of_assigned_queues_are_filtered,
    an_assignment_can_change_while_the_consumer_runs,
    a_topic_that_gets_more_queues_is_noticed,
    offsets_can_be_found_by_time,
];

/// Longer than nothing: how long one poll waits where more may come.
pub(crate) const A_WHILE: Duration = Duration::from_millis(500);

/// A topic whose queues hold the bodies `<queue>-<offset>`.
pub(crate) async fn filled(
    target: &Target,
    stem: &str,
    queues: i32,
    messages: i64,
) -> Result<(String, Vec<MessageQueue>), Failure> {
    let topic = target.topic(stem);
    target.create_topic(&topic, queues).await?;
    let broker = target.first_broker().await?;
    for offset in 0..messages {
        for queue in 0..queues {
            send(broker, &topic, queue, format!("{queue}-{offset}").as_bytes(), &[]).await?;
        }
    }
    let client = Client::connect(target.name_server()).await?;
    let puller = client.pull_consumer(target.group("lookup")).start().await?;
    let queues = puller.queues_of(&topic).await?;
    puller.shutdown().await;
    client.shutdown().await;
    Ok((topic, queues))
}

pub(crate) fn body(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

/// Polls until so many messages came.
pub(crate) async fn poll_many(
    consumer: &mut LitePullConsumer,
    count: usize,
) -> Result<Vec<MessageView>, Failure> {
    let mut messages = Vec::new();
    let polling = async {
        while messages.len() < count {
            messages.extend(consumer.poll(LIMIT).await?);
        }
        Ok::<_, Failure>(())
    };
    match tokio::time::timeout(LIMIT, polling).await {
        Ok(polled) => polled?,
        Err(_) => return Err(format!("{} messages, not {count}, in {LIMIT:?}", messages.len()).into()),
    }
    expect("polled", messages.len(), count)?;
    Ok(messages)
}

fn bodies(messages: &[MessageView]) -> Vec<String> {
    messages.iter().map(body).collect()
}

fn of_queue(queue: i32, offsets: std::ops::Range<i64>) -> Vec<String> {
    offsets.map(|offset| format!("{queue}-{offset}")).collect()
}

async fn committed(target: &Target, group: &str, queue: &MessageQueue) -> Result<i64, Failure> {
    let query = QueryConsumerOffset {
        consumer_group: group.to_owned(),
        topic: queue.topic.to_string(),
        queue_id: queue.queue_id,
        set_zero_if_not_found: None,
    };
    // The broker with this queue is the first one: the topics of these scenarios are on all of them.
    Ok(call(target.first_broker().await?, &query).await?.offset)
}

fn is_4(target: &Target) -> bool {
    matches!(target.kind(), Kind::Rocketmq4)
}

async fn assigned_queues_are_polled_from_the_first_message_on(target: &Target) -> TestResult {
    let (_, queues) = filled(target, "assigned", 3, 50).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("assigned"))
        .pull_batch_size(7)
        .start_assigned(queues[..2].to_vec())
        .await?;
    let messages = poll_many(&mut consumer, 100).await?;
    for queue in 0..2 {
        let own = messages
            .iter()
            .filter(|message| message.queue().queue_id == queue);
        expect("order", own.map(body).collect::<Vec<_>>(), of_queue(queue, 0..50))?;
    }
    expect("assignment", consumer.assignment(), queues[..2].to_vec())?;
    expect("position", consumer.position(&queues[1]), Some(50))?;
    expect("of another queue", consumer.position(&queues[2]), None)?;
    expect("nothing more", consumer.poll(Duration::ZERO).await?.len(), 0)?;
    let stats = consumer.stats();
    expect("received and polled", (stats.received, stats.polled), (100, 100))?;
    expect("unconfirmed", consumer.shutdown().await, 0)?;
    client.shutdown().await;
    Ok(())
}

async fn a_cancelled_poll_loses_nothing(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "cancelled", 1, 0).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("cancelled"))
        .start_assigned(queues)
        .await?;
    let mut polled = Vec::new();
    for index in 0..200 {
        // Each poll is dropped at its first wait: it either returns what is there, or has taken nothing.
        {
            let poll = std::pin::pin!(consumer.poll(LIMIT));
            if let std::task::Poll::Ready(batch) = futures_poll(poll).await {
                polled.extend(batch?);
            }
        }
        send(broker, &topic, 0, format!("0-{index}").as_bytes(), &[]).await?;
    }
    let rest = poll_many(&mut consumer, 200 - polled.len()).await?;
    polled.extend(rest);
    expect(
        "every message once, in order",
        bodies(&polled),
        of_queue(0, 0..200),
    )?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

/// Polls a future once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
}

async fn seeking_goes_anywhere_in_the_queue_and_nowhere_else(target: &Target) -> TestResult {
    let (_, queues) = filled(target, "seek", 2, 20).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("seek"))
        .start_assigned([queues[0].clone()])
        .await?;
    poll_many(&mut consumer, 20).await?;
    for (to, offset) in [
        (SeekTo::Begin, 0),
        (SeekTo::Offset(7), 7),
        (SeekTo::Timestamp(SystemTime::UNIX_EPOCH), 0),
        (SeekTo::Offset(19), 19),
    ] {
        expect("the new place", consumer.seek(&queues[0], to).await?, offset)?;
        let count = usize::try_from(20 - offset)?;
        let messages = poll_many(&mut consumer, count).await?;
        expect("from there on", bodies(&messages), of_queue(0, offset..20))?;
    }
    expect("the end", consumer.seek(&queues[0], SeekTo::End).await?, 20)?;
    let broker = target.first_broker().await?;
    send(broker, &queues[0].topic, 0, b"0-20", &[]).await?;
    let messages = poll_many(&mut consumer, 1).await?;
    expect("what comes then", bodies(&messages), of_queue(0, 20..21))?;

    for outside in [SeekTo::Offset(-1), SeekTo::Offset(22)] {
        let error = match consumer.seek(&queues[0], outside).await {
            Err(error) => error,
            Ok(offset) => return Err(format!("{outside:?} led to {offset}").into()),
        };
        expect("refusal", error.kind(), ErrorKind::Config)?;
        expect("names the limits", error.to_string().contains("0 to 21"), true)?;
    }
    let not_ours = consumer
        .seek(&queues[1], SeekTo::Begin)
        .await
        .map_err(|error| error.kind());
    expect("a queue of somebody else", not_ours, Err(ErrorKind::Config))?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn after_a_seek_nothing_from_before_it_is_polled(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "cleared", 1, 100).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("cleared"))
        .pull_batch_size(3)
        .start_assigned(queues.clone())
        .await?;
    // Each time with a full cache and pulls on their way, and every other time with one that the broker holds.
    for round in 0..20 {
        poll_many_at_least(&mut consumer, 1).await?;
        let to = (round * 37) % 100;
        consumer.seek(&queues[0], SeekTo::Offset(to)).await?;
        let next = poll_many_at_least(&mut consumer, 1).await?;
        expect(
            "the first one then",
            next.first().map(body),
            Some(format!("0-{to}")),
        )?;
        if round % 2 == 0 {
            consumer.seek(&queues[0], SeekTo::End).await?;
            consumer.seek(&queues[0], SeekTo::Begin).await?;
        }
    }
    // While somebody else waits for messages.
    let handle = consumer.handle();
    handle.seek(&queues[0], SeekTo::End).await?;
    let mut poll = JoinSet::new();
    poll.spawn(async move {
        let batch = consumer.poll(LIMIT).await;
        (consumer, batch)
    });
    handle.seek(&queues[0], SeekTo::End).await?;
    send(broker, &topic, 0, b"0-100", &[]).await?;
    let (consumer, batch) = poll.join_next().await.ok_or("nobody polls")??;
    expect("the new one", bodies(&batch?), of_queue(0, 100..101))?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

/// Polls until at least so many messages came.
async fn poll_many_at_least(
    consumer: &mut LitePullConsumer,
    count: usize,
) -> Result<Vec<MessageView>, Failure> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let batch = consumer.poll(LIMIT).await?;
        if batch.is_empty() {
            return Err(format!("no message in {LIMIT:?}").into());
        }
        messages.extend(batch);
    }
    Ok(messages)
}

async fn a_paused_queue_is_not_polled_until_it_is_resumed(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "paused", 2, 10).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("paused"))
        .pull_batch_size(2)
        .start_assigned(queues.clone())
        .await?;
    // Both queues are in the cache when one of them is paused.
    eventually("both queues in the cache", async || {
        Ok(consumer.stats().cached == 20)
    })
    .await?;
    consumer.pause([&queues[0]])?;
    expect("paused", consumer.paused(), vec![queues[0].clone()])?;
    let messages = poll_many(&mut consumer, 10).await?;
    expect("of the other one", bodies(&messages), of_queue(1, 0..10))?;
    send(broker, &topic, 0, b"0-10", &[]).await?;
    send(broker, &topic, 1, b"1-10", &[]).await?;
    let messages = poll_many(&mut consumer, 1).await?;
    expect("of the other one again", bodies(&messages), of_queue(1, 10..11))?;
    expect(
        "nothing of the paused one",
        consumer.poll(A_WHILE).await?.len(),
        0,
    )?;
    consumer.resume([&queues[0]])?;
    let messages = poll_many(&mut consumer, 11).await?;
    expect("of the resumed one", bodies(&messages), of_queue(0, 0..11))?;
    let stranger = MessageQueue::new("elsewhere", "nobody", 0);
    let unknown = consumer.pause([&stranger]).map_err(|error| error.kind());
    expect("a queue of somebody else", unknown, Err(ErrorKind::Config))?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn commits_are_what_the_user_says(target: &Target) -> TestResult {
    let (_, queues) = filled(target, "commits", 2, 10).await?;
    let group = target.group("commits");
    let client = Client::connect(target.name_server()).await?;
    let start = || {
        client
            .lite_pull_consumer(&group)
            .manual_commit()
            .pull_batch_size(5)
            .start_assigned(queues.clone())
    };
    let mut consumer = start().await?;
    poll_many(&mut consumer, 20).await?;
    expect(
        "nothing by itself",
        consumer.committed(&queues[0]).await?.unwrap_or(0),
        0,
    )?;
    expect("unconfirmed", consumer.shutdown().await, 0)?;
    expect(
        "nor by the end",
        committed(target, &group, &queues[0]).await.unwrap_or(0),
        0,
    )?;

    let mut consumer = start().await?;
    poll_many(&mut consumer, 20).await?;
    consumer.commit().queues([&queues[0]]).await?;
    expect("one queue", committed(target, &group, &queues[0]).await?, 10)?;
    expect(
        "not the other",
        committed(target, &group, &queues[1]).await.unwrap_or(0),
        0,
    )?;
    consumer
        .commit()
        .offsets([(queues[1].clone(), 4), (queues[0].clone(), 9)])
        .await?;
    expect("given offsets", committed(target, &group, &queues[1]).await?, 4)?;
    expect("also back", consumer.committed(&queues[0]).await?, Some(9))?;
    let stranger = MessageQueue::new("elsewhere", "nobody", 0);
    let unknown = consumer
        .commit()
        .queues([&stranger])
        .await
        .map_err(|error| error.kind());
    expect("a queue of somebody else", unknown, Err(ErrorKind::Config))?;
    consumer.shutdown().await;

    let mut consumer = start().await?;
    let messages = poll_many(&mut consumer, 7).await?;
    let mut found = bodies(&messages);
    found.sort_unstable();
    let wanted = [of_queue(0, 9..10), of_queue(1, 4..10)].concat();
    expect("the next one goes on there", found, wanted)?;
    consumer.commit().await?;
    expect("all queues", committed(target, &group, &queues[0]).await?, 10)?;
    expect("all queues", committed(target, &group, &queues[1]).await?, 10)?;
    consumer.commit().offsets([(queues[1].clone(), 3)]).later()?;
    expect("unconfirmed", consumer.shutdown().await, 0)?;
    expect(
        "what was left for later",
        committed(target, &group, &queues[1]).await?,
        3,
    )?;
    client.shutdown().await;
    Ok(())
}

async fn what_was_polled_is_committed_once_the_next_poll_says_that_it_is_handled(
    target: &Target,
) -> TestResult {
    let (_, queues) = filled(target, "automatic", 1, 12).await?;
    let group = target.group("automatic");
    let connect = || Client::connect(target.name_server());
    let start = async |client: &Client| {
        client
            .lite_pull_consumer(&group)
            .pull_batch_size(4)
            .commit_interval(Duration::from_secs(1))
            .start_assigned(queues.clone())
            .await
    };
    let client = connect().await?;
    let mut consumer = start(&client).await?;
    let first = consumer.poll(LIMIT).await?;
    expect("the first batch", bodies(&first), of_queue(0, 0..4))?;
    let second = consumer.poll(LIMIT).await?;
    expect("the second batch", bodies(&second), of_queue(0, 4..8))?;
    eventually("the first batch committed", async || {
        Ok(committed(target, &group, &queues[0]).await.unwrap_or(0) == 4)
    })
    .await?;
    // A crash: nobody says that the second batch was handled.
    drop(consumer);
    client.shutdown().await;

    let client = connect().await?;
    let mut consumer = start(&client).await?;
    let messages = poll_many(&mut consumer, 8).await?;
    expect("the second batch again", bodies(&messages), of_queue(0, 4..12))?;
    // The end of the client is no word about the last batch.
    client.shutdown().await;
    let closed = consumer.poll(LIMIT).await.map_err(|error| error.kind());
    expect("closed", closed.err(), Some(ErrorKind::Closed))?;
    expect(
        "what was handled",
        committed(target, &group, &queues[0]).await?,
        8,
    )?;

    let client = connect().await?;
    let mut consumer = start(&client).await?;
    let messages = poll_many(&mut consumer, 4).await?;
    expect("the last batch again", bodies(&messages), of_queue(0, 8..12))?;
    // A shutdown of the consumer is.
    expect("unconfirmed", consumer.shutdown().await, 0)?;
    expect("everything", committed(target, &group, &queues[0]).await?, 12)?;
    client.shutdown().await;
    Ok(())
}

async fn tags_of_assigned_queues_are_filtered(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "tagged", 1, 0).await?;
    let broker = target.first_broker().await?;
    // Java's hash of Aa and BB is the same.
    for (body, tag) in [("1", "Aa"), ("2", "BB"), ("3", "vip"), ("4", "Aa"), ("5", "BB")] {
        send(broker, &topic, 0, body.as_bytes(), &[("TAGS", tag)]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("tagged"))
        .manual_commit()
        .assigned_filter(&topic, Filter::tags(["Aa", "late"]))
        .start_assigned(queues.clone())
        .await?;
    let messages = poll_many(&mut consumer, 2).await?;
    expect("those with the tag", bodies(&messages), ["1", "4"])?;
    eventually("behind those without", async || {
        Ok(consumer.position(&queues[0]) == Some(5))
    })
    .await?;
    consumer.commit().await?;
    expect("committed", consumer.committed(&queues[0]).await?, Some(5))?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn an_assignment_can_change_while_the_consumer_runs(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "reassigned", 3, 5).await?;
    let group = target.group("reassigned");
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(&group)
        .manual_commit()
        .start_assigned(queues[..2].to_vec())
        .await?;
    poll_many(&mut consumer, 10).await?;
    consumer.commit().later()?;
    consumer.assign(queues[1..].to_vec()).await?;
    expect("assignment", consumer.assignment(), queues[1..].to_vec())?;
    eventually("the commit of the queue that went", async || {
        Ok(committed(target, &group, &queues[0]).await.unwrap_or(0) == 5)
    })
    .await?;
    let messages = poll_many(&mut consumer, 5).await?;
    expect(
        "the new queue, and the old one not again",
        bodies(&messages),
        of_queue(2, 0..5),
    )?;
    let broker = target.first_broker().await?;
    for queue in 0..3 {
        send(broker, &topic, queue, format!("{queue}-5").as_bytes(), &[]).await?;
    }
    let messages = poll_many(&mut consumer, 2).await?;
    let found: BTreeSet<_> = messages.iter().map(body).collect();
    expect(
        "both go on",
        found,
        BTreeSet::from(["1-5".to_owned(), "2-5".to_owned()]),
    )?;
    let nothing = consumer.assign([]).await.map_err(|error| error.kind());
    expect("no queue at all", nothing, Err(ErrorKind::Config))?;
    let subscribe = consumer
        .subscribe(&topic, "*")
        .await
        .map_err(|error| error.kind());
    expect("subscribing", subscribe, Err(ErrorKind::Config))?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_topic_that_gets_more_queues_is_noticed(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "grown", 2, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let consumer = client
        .lite_pull_consumer(target.group("grown"))
        .topic_check_interval(Duration::from_millis(100))
        .start_assigned(queues.clone())
        .await?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    consumer
        .on_topic_change(&topic, move |topic, queues| {
            if let Ok(mut seen) = seen.lock() {
                seen.push((topic.to_owned(), queues.len()));
            }
        })
        .await?;
    target.create_topic(&topic, 5).await?;
    let brokers = target.brokers().await?.len();
    eventually("the listener is told", async || {
        let told = told.lock().map_err(|_| "poisoned")?;
        Ok(told.last() == Some(&(topic.clone(), 5 * brokers)))
    })
    .await?;
    expect("assigned", consumer.assignment(), queues)?;
    expect("all", consumer.queues_of(&topic).await?.len(), 5 * brokers)?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn offsets_can_be_found_by_time(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "times", 1, 3).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("times"))
        .start_assigned(queues.clone())
        .await?;
    poll_many(&mut consumer, 3).await?;
    // A broker stamps messages with its own clock: those sent from here on are later than all before once they are
    // stored in another millisecond.
    let broker = target.first_broker().await?;
    let mut offset = 3;
    let late = loop {
        send(broker, &topic, 0, format!("0-{offset}").as_bytes(), &[]).await?;
        let messages = poll_many(&mut consumer, 1).await?;
        let message = messages.into_iter().next().ok_or("no message")?;
        offset += 1;
        if message.queue_offset() > 10 {
            break message;
        }
    };
    let queue = &queues[0];
    let found = consumer.offset_for_timestamp(queue, late.store_time()).await?;
    // Several may be stored in one millisecond, and 4.9 takes any of them.
    expect("not behind it", found <= late.queue_offset(), true)?;
    consumer.seek(queue, SeekTo::Timestamp(late.store_time())).await?;
    let again = poll_many_at_least(&mut consumer, 1).await?;
    let first = again.first().ok_or("no message")?;
    expect("stored then", first.store_timestamp(), late.store_timestamp())?;
    expect("the oldest", consumer.min_offset(queue).await?, 0)?;
    expect(
        "the newest",
        consumer.max_offset(queue).await?,
        late.queue_offset() + 1,
    )?;
    if !is_4(target) {
        let future = SystemTime::now() + Duration::from_secs(3600);
        expect(
            "later than all",
            consumer.offset_for_timestamp(queue, future).await?,
            late.queue_offset() + 1,
        )?;
    }
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
