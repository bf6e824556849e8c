//! Subscriptions that change while consumers run, and members of a group that do not agree.

use std::time::Duration;

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Filter, MessageView, PushConsumer, protocol::property,
};

use crate::{
    inbox::{Inbox, expect, until_committed},
    raw::send,
};

scenarios![
    what_is_sent_after_a_filter_changed_is_judged_by_the_new_one,
    a_topic_is_taken_up_and_given_up_while_the_consumer_runs,
    a_topic_that_comes_later_is_consumed_when_it_is_there,
    members_that_subscribe_differently_are_told_until_they_agree,
];

async fn send_tagged(target: &Target, topic: &str, queue: i32, tag: &str, body: &str) -> TestResult {
    let broker = target.first_broker().await?;
    send(broker, topic, queue, body.as_bytes(), &[(property::TAGS, tag)]).await?;
    Ok(())
}

/// The bodies of so many messages, and that nothing else came with them.
async fn exactly(inbox: &mut Inbox, what: &str, wanted: &[&str]) -> TestResult {
    expect(what, inbox.bodies(wanted.len()).await?, wanted)
}

async fn what_is_sent_after_a_filter_changed_is_judged_by_the_new_one(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("filter"), target.group("filter"));
    target.create_topic(&topic, 2).await?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "a").await?;
    send_tagged(target, &topic, 0, "a", "first").await?;
    exactly(&mut inbox, "by the first filter", &["first"]).await?;
    // Both queues are being waited for at the broker, by the old filter.
    inbox.consumer.subscribe(&topic, "a || b").await?;
    for queue in 0..2 {
        // The last one is wanted: those before it are passed by. One that is not could wait for the next filter.
        for tag in ["a", "c", "b"] {
            send_tagged(target, &topic, queue, tag, &format!("wider {tag}{queue}")).await?;
        }
    }
    let wider = ["wider a0", "wider a1", "wider b0", "wider b1"];
    exactly(&mut inbox, "by the wider filter", &wider).await?;
    inbox.consumer.subscribe(&topic, "c").await?;
    for queue in 0..2 {
        for tag in ["a", "b", "c"] {
            send_tagged(target, &topic, queue, tag, &format!("other {tag}{queue}")).await?;
        }
    }
    exactly(&mut inbox, "by the other filter", &["other c0", "other c1"]).await?;
    // Many changes, and each message is sent right after one.
    for round in 0..10 {
        let tag = ["a", "b", "c"][round % 3];
        inbox.consumer.subscribe(&topic, tag).await?;
        let body = format!("round {round}");
        send_tagged(target, &topic, i32::try_from(round % 2)?, tag, &body).await?;
        exactly(&mut inbox, "of this round", &[&body]).await?;
    }
    expect(
        "filter",
        inbox.consumer.subscriptions().get(&topic),
        Some(&Filter::from("a")),
    )?;
    inbox.consumer.shutdown().await;
    expect("beyond those", inbox.rest().len(), 0)?;
    client.shutdown().await;
    Ok(())
}

async fn a_topic_is_taken_up_and_given_up_while_the_consumer_runs(target: &Target) -> TestResult {
    let (kept, changing, group) = (
        target.topic("kept"),
        target.topic("changing"),
        target.group("topics"),
    );
    target.create_topic(&kept, 1).await?;
    target.create_topic(&changing, 1).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &kept, "*").await?;
    send(broker, &changing, 0, b"before", &[]).await?;
    send(broker, &kept, 0, b"kept 0", &[]).await?;
    exactly(&mut inbox, "of one topic", &["kept 0"]).await?;

    inbox.consumer.subscribe(&changing, "*").await?;
    send(broker, &changing, 0, b"while", &[]).await?;
    send(broker, &kept, 0, b"kept 1", &[]).await?;
    exactly(&mut inbox, "of both topics", &["before", "kept 1", "while"]).await?;
    eventually("acknowledgements", async || {
        Ok(inbox.consumer.stats().acknowledged == 4)
    })
    .await?;

    expect(
        "it was subscribed to",
        inbox.consumer.unsubscribe(&changing).await?,
        true,
    )?;
    expect("still", inbox.consumer.unsubscribe(&changing).await?, false)?;
    expect(
        "topics",
        inbox.consumer.subscriptions().into_keys().collect::<Vec<_>>(),
        [kept.clone()],
    )?;
    let of_it = |consumer: &PushConsumer| {
        let queues = consumer.stats().queues;
        queues.iter().filter(|queue| *queue.topic == *changing).count()
    };
    expect("queues of it", of_it(&inbox.consumer), 0)?;
    until_committed(target, &group, &changing, 2).await?;
    send(broker, &changing, 0, b"after", &[]).await?;
    send(broker, &kept, 0, b"kept 2", &[]).await?;
    exactly(&mut inbox, "of the topic that is left", &["kept 2"]).await?;

    inbox.consumer.subscribe(&changing, "*").await?;
    exactly(&mut inbox, "what was sent meanwhile", &["after"]).await?;
    inbox.consumer.shutdown().await;
    expect("beyond those", inbox.rest().len(), 0)?;
    let error = inbox.consumer.subscribe(&kept, "x").await.err();
    expect(
        "after the shutdown",
        error.map(|error| error.kind()),
        Some(ErrorKind::Closed),
    )?;
    client.shutdown().await;
    Ok(())
}

async fn a_topic_that_comes_later_is_consumed_when_it_is_there(target: &Target) -> TestResult {
    let (first, later, group) = (
        target.topic("first"),
        target.topic("later"),
        target.group("later"),
    );
    target.create_topic(&first, 1).await?;
    let broker = target.first_broker().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &first, "*").await?;
    inbox.consumer.subscribe(&later, "x").await?;
    send(broker, &first, 0, b"first", &[]).await?;
    exactly(&mut inbox, "of the topic that exists", &["first"]).await?;
    target.create_topic(&later, 2).await?;
    for queue in 0..2 {
        send_tagged(target, &later, queue, "x", &format!("later {queue}")).await?;
    }
    exactly(&mut inbox, "of the topic that came", &["later 0", "later 1"]).await?;
    client.shutdown().await;
    Ok(())
}

async fn members_that_subscribe_differently_are_told_until_they_agree(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("agreed"), target.group("agreed"));
    target.create_topic(&topic, 2).await?;
    let member = async |filter: &str| -> Result<(Client, PushConsumer), Failure> {
        let client = Client::connect(target.name_server()).await?;
        let consumer = client
            .push_consumer(&group)
            .subscribe(&topic, filter)
            .consume_from(ConsumeFrom::First)
            .rebalance_interval(Duration::from_millis(500))
            .start(|_: MessageView| async {})
            .await?;
        Ok((client, consumer))
    };
    let (first_client, first) = member("a").await?;
    let (second_client, second) = member("a || b").await?;
    eventually("the first one to hear of it", async || {
        Ok(first.stats().subscription_conflicts >= 1)
    })
    .await?;
    expect(
        "the newest one's conflicts",
        second.stats().subscription_conflicts,
        0,
    )?;
    // The first one follows: now it has the newest subscription, and both the same.
    first.subscribe(&topic, "a || b").await?;
    eventually("agreement", async || {
        Ok(first.stats().queues.iter().any(|queue| *queue.topic == *topic))
    })
    .await?;
    let before = first.stats().subscription_conflicts;
    // And differs again, by a topic of its own.
    let other = target.topic("other");
    target.create_topic(&other, 1).await?;
    first.subscribe(&other, "*").await?;
    eventually("somebody to hear of it", async || {
        Ok(first.stats().subscription_conflicts > before || second.stats().subscription_conflicts > 0)
    })
    .await?;
    for client in [first_client, second_client] {
        client.shutdown().await;
    }
    Ok(())
}
