//! Brokers that are killed, stopped, frozen and cut off while messages are sent in every way there is.

use std::{sync::Arc, time::Duration};

use integration_tests::{
    fault_proxy::{Direction, Fault, FaultPath},
    history::{History, Id},
    scenario::{TestResult, eventually, long, report_figure},
    scenarios,
    target::{ServerSettings, Target, brokers, create_topic},
};
use rocketmq_client::{Client, ErrorKind, Message, Persisted};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use super::load::{Load, client, outcome, record};
use crate::inbox::{Inbox, expect};

scenarios![
    no_acknowledged_message_is_lost_when_the_broker_is_killed,
    no_send_fails_while_one_of_two_brokers_is_killed_and_comes_back,
    no_send_fails_while_brokers_are_stopped_and_started_one_after_the_other,
    no_send_fails_while_one_of_two_brokers_is_frozen,
    no_send_fails_while_one_of_two_brokers_is_cut_off,
    a_frozen_broker_fails_sends_in_time_and_serves_again,
    every_send_in_flight_ends_when_its_client_is_shut_down_or_dropped,
    a_dead_first_name_server_is_passed_over,
];

fn none(failures: &[String]) -> TestResult {
    match failures {
        [] => Ok(()),
        [first, ..] => Err(format!("{} sends failed, the first with: {first}", failures.len()).into()),
    }
}

async fn no_acknowledged_message_is_lost_when_the_broker_is_killed(target: &Target) -> TestResult {
    let servers = target.own_servers(ServerSettings::default()).await?;
    let writer = client(servers.name_server()).connect().await?;
    let load = Load::start(target, &servers.name_server(), &writer).await?;
    for _ in 0..2 * long() {
        load.traffic("before the kill").await?;
        servers.kill(0).await?;
        servers.restart(0).await?;
    }
    load.traffic("after the last restart").await?;
    let failures = load.end(target).await?;
    report_figure(
        target,
        &format!("{} sends failed while no broker was there", failures.len()),
    );
    writer.shutdown().await;
    Ok(())
}

async fn no_send_fails_while_one_of_two_brokers_is_killed_and_comes_back(target: &Target) -> TestResult {
    let pair = target.pair().await?;
    let writer = client(pair.name_server()).connect().await?;
    let load = Load::start(target, &pair.name_server(), &writer).await?;
    load.served_by(2).await?;
    load.traffic("before the kill").await?;
    pair.kill(0).await?;
    load.traffic("with one broker").await?;
    pair.restart(0).await?;
    load.served_by(2).await?;
    load.traffic("with both again").await?;
    let failures = load.end(target).await?;
    writer.shutdown().await;
    none(&failures)
}

async fn no_send_fails_while_brokers_are_stopped_and_started_one_after_the_other(
    target: &Target,
) -> TestResult {
    let pair = target.pair().await?;
    let writer = client(pair.name_server()).connect().await?;
    let load = Load::start(target, &pair.name_server(), &writer).await?;
    for broker in [0, 1, 0].repeat(usize::try_from(long())?) {
        load.served_by(2).await?;
        load.traffic("before the stop").await?;
        pair.stop(broker).await?;
        pair.restart(broker).await?;
    }
    load.served_by(2).await?;
    let failures = load.end(target).await?;
    writer.shutdown().await;
    none(&failures)
}

async fn no_send_fails_while_one_of_two_brokers_is_frozen(target: &Target) -> TestResult {
    let pair = target.pair().await?;
    let writer = client(pair.name_server()).connect().await?;
    let load = Load::start(target, &pair.name_server(), &writer).await?;
    load.served_by(2).await?;
    pair.freeze(0).await?;
    for _ in 0..3 * long() {
        load.traffic("with one broker frozen").await?;
    }
    pair.thaw(0).await?;
    load.served_by(2).await?;
    let failures = load.end(target).await?;
    writer.shutdown().await;
    none(&failures)
}

async fn no_send_fails_while_one_of_two_brokers_is_cut_off(target: &Target) -> TestResult {
    let pair = target.pair().await?;
    let name_server = pair.name_server();
    let path = FaultPath::start(name_server.parse()?, &brokers(&name_server).await?).await?;
    let writer = client(path.name_server.address()).connect().await?;
    // The consumer is on the other side of the cut and hears of everything.
    let load = Load::start(target, &name_server, &writer).await?;
    load.served_by(2).await?;
    for direction in [Direction::ToServer, Direction::ToClient] {
        path.broker.inject(direction, Fault::Stall);
    }
    for _ in 0..3 * long() {
        load.traffic("past the broker that is cut off").await?;
    }
    path.broker.heal();
    load.served_by(2).await?;
    let failures = load.end(target).await?;
    writer.shutdown().await;
    none(&failures)
}

async fn a_frozen_broker_fails_sends_in_time_and_serves_again(target: &Target) -> TestResult {
    let servers = target.own_servers(ServerSettings::default()).await?;
    let topic = target.topic("frozen");
    create_topic(&servers.name_server(), &topic, 1).await?;
    let client = Client::connect(servers.name_server()).await?;
    let producer = client
        .producer("producer")
        .send_timeout(Duration::from_secs(2))
        .start()
        .await?;
    producer.send(Message::new(&topic, "before")).await?;
    servers.freeze(0).await?;
    match producer.send(Message::new(&topic, "during")).await {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::Timeout)?;
            expect("persisted", error.persisted(), Persisted::Maybe)?;
        }
        Ok(receipt) => return Err(format!("a frozen broker answered: {receipt:?}").into()),
    }
    servers.thaw(0).await?;
    eventually("a send after the thaw", async || {
        Ok(producer.send(Message::new(&topic, "after")).await.is_ok())
    })
    .await?;
    client.shutdown().await;
    Ok(())
}

async fn every_send_in_flight_ends_when_its_client_is_shut_down_or_dropped(target: &Target) -> TestResult {
    const SENDS: u32 = 500;
    let (topic, group) = (target.topic("in-flight"), target.group("in-flight"));
    target.create_topic(&topic, 4).await?;
    let history = Arc::new(History::new());
    let reader = Client::connect(target.name_server()).await?;
    let consumer = record(&reader, &group, &topic, &history).await?;
    for (round, dropped) in [(0, false), (10, true)] {
        let writer = Client::connect(target.name_server()).await?;
        let producer = writer.producer(target.group("writer")).start().await?;
        // Some find the route and the connection, most have to wait for them, and all are in flight at once.
        let called_back = Arc::new(Semaphore::new(0));
        let mut handles = JoinSet::new();
        for sequence in 0..SENDS {
            let id = |producer: u32| Id {
                producer: round + producer,
                sequence,
            };
            let message = |id: Id| Message::new(&topic, id.to_string());

            let detached = id(0);
            history.begun(detached);
            let handle = producer.send(message(detached)).detach();
            let told = Arc::clone(&history);
            handles.spawn(async move { told.sent(detached, outcome(&handle.await)) });

            let callback = id(1);
            history.begun(callback);
            let (told, called_back) = (Arc::clone(&history), Arc::clone(&called_back));
            producer.send(message(callback)).on_complete(move |result| {
                told.sent(callback, outcome(&result));
                called_back.add_permits(1);
            });

            let awaited = id(2);
            history.begun(awaited);
            let send = producer.send(message(awaited)).into_future();
            let told = Arc::clone(&history);
            handles.spawn(async move { told.sent(awaited, outcome(&send.await)) });
        }
        if dropped {
            drop((producer, writer));
        } else {
            writer.shutdown().await;
            match producer.send(Message::new(&topic, "late")).await {
                Err(error) => {
                    let seen = (error.kind(), error.persisted());
                    expect(
                        "a send after the shutdown",
                        seen,
                        (ErrorKind::Closed, Persisted::No),
                    )?;
                }
                Ok(receipt) => return Err(format!("sent after the shutdown: {receipt:?}").into()),
            }
        }
        while let Some(ended) = handles.join_next().await {
            ended?;
        }
        // Each callback comes once: not fewer, or this never ends, and not more, or the history tells.
        called_back.acquire_many(SENDS).await?.forget();
    }
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await
    .map_err(|failure| format!("{failure}: {}", history.check()))?;
    let (unknown, not_stored) = history.unacknowledged();
    report_figure(
        target,
        &format!(
            "{} acknowledged, {unknown} unknown, {not_stored} not stored",
            history.acknowledged()
        ),
    );
    consumer.shutdown().await;
    reader.shutdown().await;
    history.check().complete()
}

async fn a_dead_first_name_server_is_passed_over(target: &Target) -> TestResult {
    // A port that nobody listens on: bound, learnt and given back.
    let dead = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let topic = target.topic("failover");
    let client = Client::connect(format!("{dead};{}", target.name_server())).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let mut inbox = Inbox::open(&client, &target.group("failover"), &topic, "*").await?;
    producer.send(Message::new(&topic, "through")).await?;
    expect("body", inbox.next().await?.body().as_ref(), b"through")?;
    client.shutdown().await;
    Ok(())
}
