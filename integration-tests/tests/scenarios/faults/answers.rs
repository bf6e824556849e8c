//! What a broker's answers can do: fail to come, come twice, late, to the wrong address, or say that it goes.

use std::{sync::Arc, time::Duration};

use integration_tests::{
    fault_proxy::{Direction, Fault, FaultPath},
    history::{History, Id},
    scenario::{TestResult, eventually, long},
    scenarios,
    target::{Kind, ServerSettings, Target, brokers, create_topic},
};
use rocketmq_client::{
    Client, ErrorKind, Message, Persisted, SendStatus,
    protocol::{RequestCode, ResponseCode},
};
use tokio::task::JoinSet;

use super::{
    connection::path_to,
    load::{record, send_noted},
};
use crate::inbox::{Inbox, expect};

scenarios![
    a_lost_answer_leaves_a_message_that_may_be_stored,
    repeated_late_and_foreign_answers_complete_nobody_elses_send,
    a_server_that_says_go_away_costs_no_send,
    a_broker_that_misses_its_slave_says_so_with_every_receipt,
];

const SEND: i32 = RequestCode::SEND_MESSAGE_V2.0;

async fn a_lost_answer_leaves_a_message_that_may_be_stored(target: &Target) -> TestResult {
    let topic = target.topic("unanswered");
    target.create_topic(&topic, 1).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(2))
        .start()
        .await?;
    let dropped = path.broker.inject(
        Direction::ToClient,
        Fault::DropAnswer {
            code: RequestCode::SEND_MESSAGE_V2.0,
        },
    );
    match producer.send(Message::new(&topic, "unanswered")).await {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::Timeout)?;
            expect("persisted", error.persisted(), Persisted::Maybe)?;
        }
        Ok(receipt) => return Err(format!("no answer came, and yet a receipt: {receipt:?}").into()),
    }
    expect("answers were dropped", dropped.hits() > 0, true)?;
    path.broker.heal();
    let mut inbox = Inbox::open(&client, &target.group("unanswered"), &topic, "*").await?;
    // The broker had stored it: "maybe" was the truth.
    expect("body", inbox.next().await?.body().as_ref(), b"unanswered")?;
    producer.send(Message::new(&topic, "answered")).await?;
    client.shutdown().await;
    Ok(())
}

async fn repeated_late_and_foreign_answers_complete_nobody_elses_send(target: &Target) -> TestResult {
    const SENDERS: u32 = 16;
    let each = 150 * long();
    let topic = target.topic("echoes");
    target.create_topic(&topic, 4).await?;
    let path = path_to(target).await?;
    for fault in [
        Fault::Repeat { code: SEND, after: 0 },
        // Long after its request has ended, and while others of this connection are in flight.
        Fault::Repeat {
            code: SEND,
            after: 70,
        },
        Fault::Misaddress {
            code: SEND,
            mask: 0x4000_0000,
        },
        Fault::Misaddress {
            code: SEND,
            mask: i32::MIN,
        },
    ] {
        path.broker.inject(Direction::ToClient, fault);
    }
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let history = Arc::new(History::new());
    let reader = Client::connect(target.name_server()).await?;
    let consumer = record(&reader, &target.group("echoes"), &topic, &history).await?;
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let (producer, topic, history) = (producer.clone(), topic.clone(), Arc::clone(&history));
        senders.spawn(async move {
            for sequence in 0..each {
                let id = Id {
                    producer: number,
                    sequence,
                };
                send_noted(&producer, &topic, id, &history).await?;
            }
            Ok::<_, rocketmq_client::Error>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await?;
    client.shutdown().await;
    consumer.shutdown().await;
    reader.shutdown().await;
    // A receipt of another's message names a place where the consumer found another message.
    history.check().complete()
}

async fn a_server_that_says_go_away_costs_no_send(target: &Target) -> TestResult {
    const TOGETHER: u32 = 8;
    let rounds = 10 * long();
    let topic = target.topic("go-away");
    target.create_topic(&topic, 4).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let history = Arc::new(History::new());
    let reader = Client::connect(target.name_server()).await?;
    let consumer = record(&reader, &target.group("go-away"), &topic, &history).await?;
    for round in 0..rounds {
        let fault = Fault::Recode {
            code: SEND,
            to: ResponseCode::GO_AWAY.0,
        };
        let goes = path.broker.inject_times(Direction::ToClient, fault, 1);
        let before = path.broker.connections();
        let mut senders = JoinSet::new();
        for number in 0..TOGETHER {
            let (producer, topic, history) = (producer.clone(), topic.clone(), Arc::clone(&history));
            senders.spawn(async move {
                let id = Id {
                    producer: number,
                    sequence: round,
                };
                send_noted(&producer, &topic, id, &history).await
            });
        }
        // None fails: neither the one that was told, nor those that were in flight beside it.
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
        expect("told to go away", goes.hits(), 1)?;
        expect("a new connection", path.broker.connections() > before, true)?;
        path.broker.heal();
    }
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await?;
    client.shutdown().await;
    consumer.shutdown().await;
    reader.shutdown().await;
    history.check().complete()
}

async fn a_broker_that_misses_its_slave_says_so_with_every_receipt(target: &Target) -> TestResult {
    const MESSAGES: u32 = 20;
    let role = ("brokerRole", "SYNC_MASTER");
    // Version 4 sees that no slave is there, version 5 waits for one.
    let (broker, status) = match target.kind() {
        Kind::Rocketmq5 => (
            vec![role, ("inSyncReplicas", "2"), ("slaveTimeout", "100")],
            SendStatus::FlushSlaveTimeout,
        ),
        _ => (vec![role], SendStatus::SlaveNotAvailable),
    };
    let mut settings = ServerSettings::default();
    settings.broker = broker
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let servers = target.own_servers(settings).await?;
    let topic = target.topic("alone");
    create_topic(&servers.name_server(), &topic, 2).await?;
    let path = FaultPath::start(
        servers.name_server().parse()?,
        &brokers(&servers.name_server()).await?,
    )
    .await?;
    if target.kind() == Kind::Embedded {
        // It has no slaves that it could miss; this says it for it.
        let fault = Fault::Recode {
            code: SEND,
            to: ResponseCode::SLAVE_NOT_AVAILABLE.0,
        };
        path.broker.inject(Direction::ToClient, fault);
    }
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client.producer("producer").start().await?;
    let careful = client
        .producer("careful")
        .retry_when_not_stored_ok(true)
        .start()
        .await?;
    for number in 0..MESSAGES {
        let receipt = producer.send(Message::new(&topic, number.to_string())).await?;
        expect("status", receipt.status, status)?;
        expect("attempts", receipt.attempts, 1)?;
    }
    // Wherever it is tried again, it is the same; the last receipt says so.
    let receipt = careful.send(Message::new(&topic, "careful")).await?;
    expect("status", receipt.status, status)?;
    expect("attempts", receipt.attempts, 3)?;
    let mut inbox = Inbox::open(&client, "alone", &topic, "*").await?;
    // All are stored, and what was sent again is stored again.
    let stored = usize::try_from(MESSAGES)? + 3;
    expect("messages", inbox.bodies(stored).await?.len(), stored)?;
    client.shutdown().await;
    Ok(())
}
