//! Lite pull as a member of a group: shared topics, queues that move, members in Java, and what tools see and do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use integration_tests::{
    Failure,
    mqadmin::MqAdmin,
    peer::{Language, PeerLitePull},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, ServerSettings, Target, create_topic},
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, LitePullConsumer, LitePullConsumerBuilder, Message, SeekTo,
    admin::ResetTo, protocol::bodies::ConsumeType,
};

use crate::{
    inbox::{LIMIT, expect},
    lite_pulling::{A_WHILE, body, filled, poll_many},
    raw::send,
};

scenarios![
    members_share_a_topic_and_lose_nothing_when_one_leaves,
    a_topic_can_be_subscribed_to_and_given_up_while_the_consumer_runs,
    another_filter_counts_for_everything_that_was_not_polled,
    a_topic_that_is_created_later_is_consumed_from_its_first_message_on,
    members_in_java_and_rust_share_the_queues_and_hand_them_over,
    tools_see_a_lite_pull_consumer_and_can_reset_it,
    what_cannot_start_says_everything_that_is_wrong,
    a_broker_that_restarts_is_pulled_again,
];

fn builder(client: &Client, group: &str, topic: &str) -> LitePullConsumerBuilder {
    client
        .lite_pull_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .manual_commit()
        .rebalance_interval(Duration::from_secs(1))
}

fn queue_ids(consumer: &LitePullConsumer) -> Vec<i32> {
    consumer.assignment().iter().map(|queue| queue.queue_id).collect()
}

/// What came, by body, and how often.
#[derive(Default)]
struct Seen(BTreeMap<String, u32>);

impl Seen {
    async fn poll(&mut self, consumer: &mut LitePullConsumer) -> Result<usize, Failure> {
        let messages = consumer.poll(A_WHILE).await?;
        for message in &messages {
            *self.0.entry(body(message)).or_default() += 1;
        }
        consumer.commit().await?;
        Ok(messages.len())
    }

    fn repeated(&self) -> u32 {
        self.0.values().map(|times| times - 1).sum()
    }
}

async fn members_share_a_topic_and_lose_nothing_when_one_leaves(target: &Target) -> TestResult {
    let (topic, _) = filled(target, "members", 4, 10).await?;
    let group = target.group("members");
    let first_client = Client::connect(target.name_server()).await?;
    let changes = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&changes);
    let mut first = builder(&first_client, &group, &topic)
        .assignment_listener(move |change| {
            if let Ok(mut told) = told.lock() {
                told.push((change.all.len(), change.assigned.len()));
            }
        })
        .start()
        .await?;
    let mut seen = Seen::default();
    while seen.0.len() < 20 {
        seen.poll(&mut first).await?;
    }
    let second_client = Client::connect(target.name_server()).await?;
    let mut second = builder(&second_client, &group, &topic).start().await?;
    eventually("two queues each", async || {
        let (a, b) = (queue_ids(&first), queue_ids(&second));
        let all: BTreeSet<_> = a.iter().chain(&b).copied().collect();
        Ok((a.len(), b.len(), all.len()) == (2, 2, 4))
    })
    .await?;
    // What the first one had polled is committed: only what was cached of the queues that moved comes to the second.
    while seen.0.len() < 40 {
        seen.poll(&mut first).await?;
        seen.poll(&mut second).await?;
    }
    expect("repeated", seen.repeated(), 0)?;
    expect("unconfirmed", second.shutdown().await, 0)?;
    second_client.shutdown().await;
    eventually("all queues at the one that stays", async || {
        Ok(queue_ids(&first) == [0, 1, 2, 3])
    })
    .await?;
    let broker = target.first_broker().await?;
    for queue in 0..4 {
        send(broker, &topic, queue, format!("late-{queue}").as_bytes(), &[]).await?;
    }
    while seen.0.len() < 44 {
        seen.poll(&mut first).await?;
    }
    expect("repeated", seen.repeated(), 0)?;
    let told = changes.lock().map_err(|_| "poisoned")?.clone();
    expect(
        "what the listener was told",
        (told.first(), told.last()),
        (Some(&(4, 4)), Some(&(4, 4))),
    )?;
    expect("and of the other member", told.contains(&(4, 2)), true)?;
    first.shutdown().await;
    first_client.shutdown().await;
    Ok(())
}

async fn a_topic_can_be_subscribed_to_and_given_up_while_the_consumer_runs(target: &Target) -> TestResult {
    let (orders, _) = filled(target, "orders", 2, 3).await?;
    let (refunds, _) = filled(target, "refunds", 2, 4).await?;
    let group = target.group("changing");
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = builder(&client, &group, &orders).start().await?;
    poll_many(&mut consumer, 6).await?;
    consumer.subscribe(&refunds, "*").await?;
    poll_many(&mut consumer, 8).await?;
    consumer.commit().later()?;
    expect("given up", consumer.unsubscribe(&orders).await?, true)?;
    expect("again", consumer.unsubscribe(&orders).await?, false)?;
    let left: Vec<_> = consumer.subscriptions().into_keys().collect();
    expect("what is left", left, vec![refunds.clone()])?;
    expect(
        "its queues",
        consumer.assignment().iter().all(|queue| *queue.topic == *refunds),
        true,
    )?;
    let broker = target.first_broker().await?;
    send(broker, &orders, 0, b"not wanted", &[]).await?;
    send(broker, &refunds, 0, b"wanted", &[]).await?;
    let messages = poll_many(&mut consumer, 1).await?;
    expect(
        "the topic that is left",
        messages.first().map(body),
        Some("wanted".to_owned()),
    )?;
    // What was left for later went out when the topic was given up.
    consumer.subscribe(&orders, "*").await?;
    let messages = poll_many(&mut consumer, 1).await?;
    expect(
        "where it was left",
        messages.first().map(body),
        Some("not wanted".to_owned()),
    )?;
    let assign = consumer
        .assign(consumer.assignment())
        .await
        .map_err(|error| error.kind());
    expect("assigning", assign, Err(ErrorKind::Config))?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn another_filter_counts_for_everything_that_was_not_polled(target: &Target) -> TestResult {
    let topic = target.topic("filters");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for index in 0..40 {
        let tag = if index % 2 == 0 { "even" } else { "odd" };
        send(broker, &topic, 0, index.to_string().as_bytes(), &[("TAGS", tag)]).await?;
    }
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = client
        .lite_pull_consumer(target.group("filters"))
        .subscribe(&topic, "even")
        .consume_from(ConsumeFrom::First)
        .pull_batch_size(4)
        .start()
        .await?;
    let first = consumer.poll(LIMIT).await?;
    expect(
        "the first filter",
        first.iter().all(|message| message.tag() == Some("even")),
        true,
    )?;
    let queue = first.first().ok_or("no message")?.queue();
    // Behind the batch, and behind what the first filter left out there.
    let position = consumer.position(queue).ok_or("no position")?;
    consumer.subscribe(&topic, "odd").await?;
    let wanted: Vec<_> = (position..40).filter(|offset| offset % 2 == 1).collect();
    let messages = poll_many(&mut consumer, wanted.len()).await?;
    let found: Vec<_> = messages.iter().map(|message| message.queue_offset()).collect();
    expect("the others, from there on", found, wanted)?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_topic_that_is_created_later_is_consumed_from_its_first_message_on(target: &Target) -> TestResult {
    let topic = target.topic("later");
    let client = Client::connect(target.name_server()).await?;
    // At the end of what is there, which is nothing.
    let mut consumer = client
        .lite_pull_consumer(target.group("later"))
        .subscribe(&topic, "*")
        .start()
        .await?;
    expect("nothing yet", consumer.poll(Duration::ZERO).await?.len(), 0)?;
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    for queue in 0..2 {
        send(broker, &topic, queue, b"early", &[]).await?;
    }
    poll_many(&mut consumer, 2).await?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn members_in_java_and_rust_share_the_queues_and_hand_them_over(target: &Target) -> TestResult {
    // Each target's own generation: a client of 5.5 asks brokers of 4.9 for what they do not know.
    let language = if matches!(target.kind(), Kind::Rocketmq4) {
        Language::Java4
    } else {
        Language::Java5
    };
    language.installed()?;
    let (topic, _) = filled(target, "mixed", 4, 10).await?;
    let group = target.group("mixed");
    let mut java = PeerLitePull::start(language, target.name_server(), &group, &topic).await?;
    let mut seen = Seen::default();
    // The Java consumer begins alone, and commits some of it.
    while seen.0.len() < 10 {
        for message in java.poll().await? {
            *seen.0.entry(message.body).or_default() += 1;
        }
    }
    java.commit().await?;
    let client = Client::connect(target.name_server()).await?;
    let mut rust = builder(&client, &group, &topic).start().await?;
    let mut shares = (Vec::new(), Vec::new());
    for _ in 0..600 {
        shares = (java.assignment().await?, queue_ids(&rust));
        if shares.0.len() == 2 && shares.1.len() == 2 {
            break;
        }
        // Java looks every 20 s by itself; polling keeps its commits going meanwhile.
        for message in java.poll().await? {
            *seen.0.entry(message.body).or_default() += 1;
        }
        java.commit().await?;
    }
    let both: BTreeSet<_> = shares.0.iter().chain(&shares.1).copied().collect();
    expect(
        "every queue has one owner",
        (shares.0.len(), shares.1.len(), both.len()),
        (2, 2, 4),
    )?;
    let broker = target.first_broker().await?;
    for queue in 0..4 {
        send(broker, &topic, queue, format!("both-{queue}").as_bytes(), &[]).await?;
    }
    eventually_seen(&mut seen, 44, &mut java, &mut rust).await?;
    // From Rust to Java: what is committed here is not polled there.
    expect("unconfirmed", rust.shutdown().await, 0)?;
    client.shutdown().await;
    java.commit().await?;
    let repeated = seen.repeated();
    for queue in 0..4 {
        send(broker, &topic, queue, format!("java-{queue}").as_bytes(), &[]).await?;
    }
    for _ in 0..600 {
        if seen.0.len() == 48 {
            break;
        }
        for message in java.poll().await? {
            *seen.0.entry(message.body).or_default() += 1;
        }
    }
    expect("all messages", seen.0.len(), 48)?;
    expect("repeated after the Rust member left", seen.repeated(), repeated)?;
    java.commit().await?;
    java.shutdown().await?;

    // From Java to Rust, alone.
    let client = Client::connect(target.name_server()).await?;
    let mut rust = builder(&client, &group, &topic).start().await?;
    eventually("all queues", async || Ok(queue_ids(&rust) == [0, 1, 2, 3])).await?;
    for queue in 0..4 {
        send(broker, &topic, queue, format!("rust-{queue}").as_bytes(), &[]).await?;
    }
    while seen.0.len() < 52 {
        seen.poll(&mut rust).await?;
    }
    expect("repeated after the Java member left", seen.repeated(), repeated)?;
    rust.shutdown().await;
    client.shutdown().await;
    Ok(())
}

/// Polls both until so many different messages were seen.
async fn eventually_seen(
    seen: &mut Seen,
    count: usize,
    java: &mut PeerLitePull,
    rust: &mut LitePullConsumer,
) -> TestResult {
    for _ in 0..600 {
        if seen.0.len() == count {
            return Ok(());
        }
        seen.poll(rust).await?;
        for message in java.poll().await? {
            *seen.0.entry(message.body).or_default() += 1;
        }
        java.commit().await?;
    }
    Err(format!("{} messages, not {count}", seen.0.len()).into())
}

async fn tools_see_a_lite_pull_consumer_and_can_reset_it(target: &Target) -> TestResult {
    let (topic, queues) = filled(target, "tools", 2, 5).await?;
    let group = target.group("tools");
    let client = Client::connect(target.name_server()).await?;
    let mut consumer = builder(&client, &group, &topic)
        .commit_interval(Duration::from_secs(1))
        .start()
        .await?;
    poll_many(&mut consumer, 10).await?;
    consumer.commit().await?;

    let admin = client.admin();
    let connected = admin.consumer_connection(&group).await?.complete()?;
    expect("who drives", connected.consume_type, ConsumeType::Actively)?;
    expect(
        "subscription",
        connected.subscription_table.contains_key(&topic),
        true,
    )?;
    let info = admin
        .consumer_running_info(&group, client.client_id(), false)
        .await?;
    let property = |name: &str| info.properties.get(name).cloned().unwrap_or_default();
    expect("type", property("PROP_CONSUME_TYPE"), "CONSUME_ACTIVELY")?;
    expect("commits", property("autoCommit"), "false")?;
    let committed: Vec<_> = info
        .mq_table
        .0
        .values()
        .map(|queue| queue.commit_offset)
        .collect();
    expect("committed", committed, vec![5, 5])?;

    let java = MqAdmin::new(target.name_server())?;
    let printed = java.run("consumerConnection", &["-g", &group]).await?;
    expect(
        &printed,
        printed.contains(client.client_id()) && printed.contains("CONSUME_ACTIVELY"),
        true,
    )?;
    // The 5.x tool asks brokers for static topics before it prints progress, which 4.9 does not understand.
    if !matches!(target.kind(), Kind::Rocketmq4) {
        let printed = java.run("consumerProgress", &["-g", &group]).await?;
        expect(&printed, printed.contains(&topic), true)?;
    }

    // By a tool, while the consumer runs: everything comes again.
    admin
        .reset_offsets(&group, &topic, ResetTo::First)
        .await?
        .complete()?;
    let messages = poll_many(&mut consumer, 10).await?;
    expect(
        "again",
        messages.iter().all(|message| message.queue_offset() < 5),
        true,
    )?;
    // And once more by the user, so that a commit of before the reset cannot have undone it.
    for queue in &queues {
        consumer.seek(queue, SeekTo::End).await?;
    }
    let broker = target.first_broker().await?;
    send(broker, &topic, 0, b"new", &[]).await?;
    let messages = poll_many(&mut consumer, 1).await?;
    expect(
        "then only what is new",
        messages.first().map(body),
        Some("new".to_owned()),
    )?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn what_cannot_start_says_everything_that_is_wrong(target: &Target) -> TestResult {
    let client = Client::connect(target.name_server()).await?;
    let group = target.group("wrong");
    let wrong = client
        .lite_pull_consumer("no such group!")
        .subscribe("no such topic!", "||")
        .commit_interval(Duration::from_millis(999))
        .pull_batch_size(0)
        .broker_suspend(Duration::from_secs(30))
        .start()
        .await;
    let Err(error) = wrong else {
        return Err("it started".into());
    };
    expect("kind", error.kind(), ErrorKind::Config)?;
    let text = error.to_string();
    for part in [
        "no such group!",
        "no such topic!",
        "names no tag",
        "commit_interval",
        "pull_batch_size",
        "pull_timeout",
    ] {
        expect(&format!("{part} in {text}"), text.contains(part), true)?;
    }
    let without = client
        .lite_pull_consumer(&group)
        .start()
        .await
        .map_err(|error| error.kind());
    expect("without a topic", without.err(), Some(ErrorKind::Config))?;
    let both = client.lite_pull_consumer(&group).subscribe("orders", "*");
    let both = both.start_assigned([]).await.map_err(|error| error.kind());
    expect("both ways at a time", both.err(), Some(ErrorKind::Config))?;
    let consumer = client
        .lite_pull_consumer(&group)
        .subscribe("orders", "*")
        .start()
        .await?;
    let twice = client
        .lite_pull_consumer(&group)
        .subscribe("orders", "*")
        .start()
        .await;
    expect(
        "the same group twice",
        twice.err().map(|error| error.kind()),
        Some(ErrorKind::Config),
    )?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_broker_that_restarts_is_pulled_again(target: &Target) -> TestResult {
    let servers = target.own_servers(ServerSettings::default()).await?;
    let name_server = servers.name_server();
    let (topic, group) = (target.topic("restart"), target.group("restart"));
    create_topic(&name_server, &topic, 2).await?;
    let client = Client::connect(name_server.clone()).await?;
    let producer = client.producer("restart").start().await?;
    let mut consumer = builder(&client, &group, &topic).start().await?;
    let mut seen = Seen::default();
    for round in 0..3 {
        for index in 0..10 {
            producer
                .send(Message::new(&topic, format!("{round}-{index}")))
                .await?;
        }
        while seen.0.len() < 10 * (round + 1) {
            seen.poll(&mut consumer).await?;
        }
        if round % 2 == 0 {
            servers.kill(0).await?;
        } else {
            servers.stop(0).await?;
        }
        expect(
            "polling without a broker",
            consumer.poll(Duration::ZERO).await?.len(),
            0,
        )?;
        servers.restart(0).await?;
        eventually("a send", async || {
            Ok(producer.send(Message::new(&topic, "up")).await.is_ok())
        })
        .await?;
        while !seen.0.contains_key("up") {
            seen.poll(&mut consumer).await?;
        }
        seen.0.remove("up");
    }
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
