//! Masters and slaves: where a group is sent to read, and what it does when one of them is away or behind.

use integration_tests::{
    Failure,
    admin::call,
    scenario::{TestResult, eventually, skip},
    scenarios,
    target::{Replicated, Target, create_topic},
};
use rocketmq_client::{
    Client, ConsumeFrom, MessageView, PushConsumer,
    protocol::{
        JsonBody,
        bodies::SubscriptionGroupConfig,
        requests::{BrokerRuntimeInfo, CreateGroup, PullStatus, QueryConsumerOffset},
    },
};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use crate::{
    inbox::{Inbox, LIMIT, expect},
    raw::{pull, send},
};

scenarios![
    a_group_that_is_sent_to_the_slave_reads_there_and_commits_to_the_master,
    while_the_master_is_away_the_slave_serves_what_it_has,
    a_slave_that_fails_is_left_for_the_master,
    a_slave_that_is_behind_neither_moves_offsets_nor_repeats_messages,
];

/// Has a group read from the slave. Java: `mqadmin updateSubGroup -i 1`.
async fn send_to_slave(servers: &Replicated, group: &str) -> TestResult {
    let config = SubscriptionGroupConfig {
        group_name: group.to_owned(),
        broker_id: 1,
        ..SubscriptionGroupConfig::default()
    };
    let body = config.to_body()?;
    call(servers.master()?, &CreateGroup { body }).await?;
    Ok(())
}

async fn send_range(servers: &Replicated, topic: &str, range: std::ops::Range<i32>) -> TestResult {
    for index in range {
        let body = format!("{index:03}");
        send(servers.master()?, topic, 0, body.as_bytes(), &[]).await?;
    }
    Ok(())
}

fn bodies(range: std::ops::Range<i32>) -> Vec<String> {
    range.map(|index| format!("{index:03}")).collect()
}

/// Waits until the slave serves so many messages of queue 0: it hears of topics later than of their messages.
async fn replicated(servers: &Replicated, group: &str, topic: &str, count: i64) -> TestResult {
    let slave = servers.slave()?;
    eventually("the slave to have everything", async || {
        let pulled = pull(slave, group, topic, 0, count - 1, "*").await;
        Ok(pulled.is_ok_and(|pulled| pulled.status == PullStatus::Found))
    })
    .await
}

async fn committed(servers: &Replicated, group: &str, topic: &str) -> Result<i64, Failure> {
    let query = QueryConsumerOffset {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    Ok(call(servers.master()?, &query).await?.offset)
}

async fn a_group_that_is_sent_to_the_slave_reads_there_and_commits_to_the_master(
    target: &Target,
) -> TestResult {
    let servers = target.replicated().await?;
    let (topic, group) = (target.topic("sent"), target.group("sent"));
    create_topic(&servers.name_server(), &topic, 1).await?;
    send_to_slave(&servers, &group).await?;
    send_range(&servers, &topic, 0..10).await?;
    replicated(&servers, &group, &topic, 10).await?;

    let client = Client::connect(servers.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("first", inbox.bodies(10).await?, bodies(0..10))?;
    // The first pull went to the master; those from now on are the slave's.
    send_range(&servers, &topic, 10..40).await?;
    expect("from the slave", inbox.bodies(30).await?, bodies(10..40))?;
    if servers.embedded().is_none() {
        eventually("messages given by the slave", async || {
            let info = call(servers.slave()?, &BrokerRuntimeInfo {}).await?.0;
            let given = info.table.get("msgGetTotalTodayNow");
            // More than the one that showed that the slave is ready.
            Ok(given.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0) > 1)
        })
        .await?;
    }
    expect(
        "unconfirmed commits",
        inbox.consumer.shutdown().await.commits_unconfirmed,
        0,
    )?;
    expect(
        "committed to the master",
        committed(&servers, &group, &topic).await?,
        40,
    )?;
    expect("repeated", inbox.rest().len(), 0)?;
    client.shutdown().await;
    Ok(())
}

async fn while_the_master_is_away_the_slave_serves_what_it_has(target: &Target) -> TestResult {
    let servers = target.replicated().await?;
    let (topic, group) = (target.topic("away"), target.group("away"));
    create_topic(&servers.name_server(), &topic, 1).await?;
    send_range(&servers, &topic, 0..20).await?;
    replicated(&servers, &group, &topic, 20).await?;

    let client = Client::connect(servers.name_server()).await?;
    let (consumer, mut messages) = paused(&client, &group, &topic).await?;
    eventually("the queue at its member", async || {
        Ok(!consumer.stats().queues.is_empty())
    })
    .await?;
    // The slave hears of the group by its heartbeats, and of its configuration from the master.
    eventually("the member at the slave", async || {
        knows(servers.slave()?, &group, client.client_id()).await
    })
    .await?;
    servers.kill_master().await?;
    consumer.resume();
    let mut received = Vec::new();
    while received.len() < 20 {
        received.push(next(&mut messages).await?);
    }
    received.sort();
    expect("from the slave", received, bodies(0..20))?;

    servers.restart_master().await?;
    eventually("the master to take messages", async || {
        Ok(send_range(&servers, &topic, 20..21).await.is_ok())
    })
    .await?;
    let mut seen = std::collections::BTreeSet::new();
    while !seen.contains("020") {
        seen.insert(next(&mut messages).await?);
    }
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn knows(broker: std::net::SocketAddr, group: &str, client_id: &str) -> Result<bool, Failure> {
    let request = rocketmq_client::protocol::requests::ConsumerListByGroup {
        consumer_group: group.to_owned(),
    };
    Ok(call(broker, &request)
        .await
        .is_ok_and(|list| list.0.consumer_id_list.iter().any(|id| id == client_id)))
}

/// A consumer that is paused, and what it will receive.
async fn paused(
    client: &Client,
    group: &str,
    topic: &str,
) -> Result<(PushConsumer, Receiver<String>), Failure> {
    let (sender, messages) = channel(10_000);
    let consumer = client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .paused(true)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let text = String::from_utf8_lossy(message.body()).into_owned();
                sender.send(text).await.map_err(|_| "the scenario has ended")
            }
        })
        .await?;
    Ok((consumer, messages))
}

async fn next(messages: &mut Receiver<String>) -> Result<String, Failure> {
    match timeout(LIMIT, messages.recv()).await {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err("the consumer is gone".into()),
        Err(_) => Err(format!("no message in {LIMIT:?}").into()),
    }
}

async fn a_slave_that_fails_is_left_for_the_master(target: &Target) -> TestResult {
    let servers = target.replicated().await?;
    let (topic, group) = (target.topic("failing"), target.group("failing"));
    create_topic(&servers.name_server(), &topic, 1).await?;
    send_to_slave(&servers, &group).await?;
    send_range(&servers, &topic, 0..10).await?;
    replicated(&servers, &group, &topic, 10).await?;

    let client = Client::connect(servers.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("first", inbox.bodies(10).await?, bodies(0..10))?;
    servers.kill_slave().await?;
    send_range(&servers, &topic, 10..20).await?;
    expect("after the slave", inbox.bodies(10).await?, bodies(10..20))?;
    inbox.consumer.shutdown().await;
    expect("repeated", inbox.rest().len(), 0)?;
    expect("committed", committed(&servers, &group, &topic).await?, 20)?;
    client.shutdown().await;
    Ok(())
}

async fn a_slave_that_is_behind_neither_moves_offsets_nor_repeats_messages(target: &Target) -> TestResult {
    let servers = target.replicated().await?;
    let Some(broker) = servers.embedded() else {
        return Err(skip("a real slave cannot be held back"));
    };
    let (topic, group) = (target.topic("behind"), target.group("behind"));
    create_topic(&servers.name_server(), &topic, 1).await?;
    send_range(&servers, &topic, 0..10).await?;
    broker.hold_slave();
    send_range(&servers, &topic, 10..20).await?;

    let client = Client::connect(servers.name_server()).await?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("from the master", inbox.bodies(20).await?, bodies(0..20))?;
    // From its next answer on the master sends the group to the slave, which ends at offset 10.
    send_to_slave(&servers, &group).await?;
    send_range(&servers, &topic, 20..30).await?;
    expect("all the same", inbox.bodies(10).await?, bodies(20..30))?;
    send_range(&servers, &topic, 30..40).await?;
    expect("by turns", inbox.bodies(10).await?, bodies(30..40))?;
    broker.release_slave();
    send_range(&servers, &topic, 40..50).await?;
    expect("from the slave", inbox.bodies(10).await?, bodies(40..50))?;
    inbox.consumer.shutdown().await;
    expect("repeated", inbox.rest().len(), 0)?;
    expect("committed", committed(&servers, &group, &topic).await?, 50)?;
    client.shutdown().await;
    Ok(())
}
