//! What breaks between a client and its cluster, and what must hold all the same.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    fault_proxy::{Cut, Direction, Fault, FaultPath},
    history::{History, Id, Place, Sent},
    scenario::{TestResult, eventually},
    scenarios,
    target::{ServerSettings, Target, create_topic},
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Message, MessageView, Persisted, Producer, PushConsumer, SendReceipt,
    protocol::RequestCode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::sleep,
};

use crate::inbox::{Inbox, expect};

scenarios![
    no_acknowledged_message_is_lost_when_the_broker_is_killed,
    sends_go_on_while_one_of_two_brokers_is_dead,
    a_frozen_broker_fails_sends_in_time_and_serves_again,
    a_dead_first_name_server_is_passed_over,
    a_connection_cut_anywhere_loses_nothing,
    a_lost_answer_leaves_a_message_that_may_be_stored,
    a_flipped_or_false_answer_is_never_taken_for_a_receipt,
    slow_and_sliced_connections_change_nothing,
    a_server_that_speaks_nonsense_is_an_error_and_no_more,
];

/// Sends numbered messages one after the other until told to stop, and records how each ended.
async fn send_numbered(
    producer: Producer,
    topic: String,
    number: u32,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
) {
    let mut sequence = 0;
    while !stop.load(Ordering::SeqCst) {
        let id = Id {
            producer: number,
            sequence,
        };
        history.sent(
            id,
            outcome(&producer.send(Message::new(&topic, id.to_string())).await),
        );
        sequence += 1;
        // Some hundred messages a second for each sender are plenty on a small machine.
        sleep(Duration::from_millis(5)).await;
    }
}

fn outcome(result: &rocketmq_client::Result<SendReceipt>) -> Sent {
    match result {
        Ok(receipt) => Sent::Stored(Place {
            broker: receipt.queue.broker_name.to_string(),
            topic: receipt.queue.topic.to_string(),
            queue: receipt.queue.queue_id,
            offset: receipt.queue_offset,
        }),
        Err(error) if error.persisted() == Persisted::No => Sent::NotStored,
        Err(_) => Sent::Unknown,
    }
}

/// A consumer that records what it gets.
async fn record(
    client: &Client,
    group: &str,
    topic: &str,
    history: &Arc<History>,
) -> Result<PushConsumer, Failure> {
    let history = Arc::clone(history);
    let consumer = client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let history = Arc::clone(&history);
            async move {
                let queue = message.queue();
                let place = Place {
                    broker: queue.broker_name.to_string(),
                    topic: queue.topic.to_string(),
                    queue: queue.queue_id,
                    offset: message.queue_offset(),
                };
                history.received(std::str::from_utf8(message.body())?.parse()?, place);
                Ok::<_, Failure>(())
            }
        })
        .await?;
    Ok(consumer)
}

async fn no_acknowledged_message_is_lost_when_the_broker_is_killed(target: &Target) -> TestResult {
    const SENDERS: u32 = 4;
    const KILLS: usize = 2;
    /// Acknowledged messages before each kill and after the last.
    const LOAD: usize = 300;
    let servers = target.own_servers(ServerSettings::default()).await?;
    let (topic, group) = (target.topic("killed"), target.group("killed"));
    create_topic(&servers.name_server(), &topic, 4).await?;
    let history = Arc::new(History::new());
    let client = Client::connect(servers.name_server()).await?;
    let consumer = record(&client, &group, &topic, &history).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let producer = client.producer(format!("sender-{number}")).start().await?;
        senders.spawn(send_numbered(
            producer,
            topic.clone(),
            number,
            Arc::clone(&history),
            Arc::clone(&stop),
        ));
    }
    for _ in 0..KILLS {
        let before = history.acknowledged();
        eventually("traffic before the kill", async || {
            Ok(history.acknowledged() >= before + LOAD)
        })
        .await?;
        servers.kill(0).await?;
        servers.restart(0).await?;
    }
    let before = history.acknowledged();
    eventually("traffic after the last restart", async || {
        Ok(history.acknowledged() >= before + LOAD)
    })
    .await?;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = senders.join_next().await {
        ended?;
    }
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await
    .map_err(|failure| format!("{failure}: {}", history.check()))?;
    consumer.shutdown().await;
    client.shutdown().await;
    history.check().complete()
}

async fn sends_go_on_while_one_of_two_brokers_is_dead(target: &Target) -> TestResult {
    const MESSAGES: u32 = 200;
    let mut settings = ServerSettings::default();
    settings.brokers = 2;
    let servers = target.own_servers(settings).await?;
    let (topic, group) = (target.topic("two"), target.group("two"));
    create_topic(&servers.name_server(), &topic, 2).await?;
    let client = Client::connect(servers.name_server()).await?;
    let producer = client.producer("producer").start().await?;
    let history = Arc::new(History::new());
    let consumer = record(&client, &group, &topic, &history).await?;
    let mut brokers_used = BTreeSet::new();
    for sequence in 0..MESSAGES {
        if sequence == MESSAGES / 3 {
            servers.kill(0).await?;
        }
        if sequence == 2 * MESSAGES / 3 {
            servers.restart(0).await?;
        }
        let id = Id {
            producer: 0,
            sequence,
        };
        let result = producer.send(Message::new(&topic, id.to_string())).await;
        history.sent(id, outcome(&result));
        // A dead broker is one that another can stand in for, so the application sees no error.
        brokers_used.insert(result?.queue.broker_name);
    }
    expect("brokers used", brokers_used.len(), 2)?;
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await?;
    consumer.shutdown().await;
    client.shutdown().await;
    history.check().complete()
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

/// The target's first broker and its name server, behind proxies.
async fn path_to(target: &Target) -> Result<FaultPath, Failure> {
    FaultPath::start(target.name_server_address().await?, target.first_broker().await?).await
}

async fn a_connection_cut_anywhere_loses_nothing(target: &Target) -> TestResult {
    let topic = target.topic("cut");
    target.create_topic(&topic, 1).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(10))
        .start()
        .await?;
    let history = Arc::new(History::new());
    let _consumer = record(&client, &target.group("cut"), &topic, &history).await?;
    let mut sequence = 0;
    // A request is some 400 bytes and its answer 200: the cuts fall into headers, bodies and between frames.
    for after in (0..900).step_by(37) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            for how in [Cut::Reset, Cut::Finish] {
                let cut = path.broker.inject_times(direction, Fault::Cut { after, how }, 1);
                for _ in 0..20 {
                    let id = Id {
                        producer: 0,
                        sequence,
                    };
                    history.sent(
                        id,
                        outcome(&producer.send(Message::new(&topic, id.to_string())).await),
                    );
                    sequence += 1;
                    if cut.hits() > 0 {
                        break;
                    }
                }
                expect("the connection was cut", cut.hits(), 1)?;
                path.broker.heal();
            }
        }
    }
    producer
        .send(Message::new(
            &topic,
            Id {
                producer: 1,
                sequence: 0,
            }
            .to_string(),
        ))
        .await?;
    history.sent(
        Id {
            producer: 1,
            sequence: 0,
        },
        Sent::Unknown,
    );
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await?;
    client.shutdown().await;
    history.check().complete()
}

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

async fn a_flipped_or_false_answer_is_never_taken_for_a_receipt(target: &Target) -> TestResult {
    let topic = target.topic("flipped");
    target.create_topic(&topic, 1).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(2))
        .start()
        .await?;
    producer.send(Message::new(&topic, "before")).await?;
    // The first byte of a length, the mark of the header's form, the header's length, and lengths that cannot be.
    let faults = [
        Fault::Flip { at: 0, mask: 0x7f },
        Fault::Flip { at: 4, mask: 0x08 },
        Fault::Flip { at: 5, mask: 0xff },
        Fault::LieAboutLength { frame: 0, length: -1 },
        Fault::LieAboutLength { frame: 0, length: 3 },
        Fault::LieAboutLength {
            frame: 0,
            length: i32::MAX,
        },
    ];
    for fault in faults {
        // It strikes at the start of the connection that follows the cut.
        let rule = path.broker.inject_times(Direction::ToClient, fault.clone(), 1);
        path.broker.inject_times(
            Direction::ToServer,
            Fault::Cut {
                after: 0,
                how: Cut::Reset,
            },
            1,
        );
        // Whatever these sends say, they end in time, and the one after them works.
        eventually("the fault", async || {
            let _ = producer.send(Message::new(&topic, "flipped")).await;
            Ok(rule.hits() > 0)
        })
        .await
        .map_err(|failure| format!("{fault:?}: {failure}"))?;
        path.broker.heal();
        eventually("a send after the fault", async || {
            Ok(producer.send(Message::new(&topic, "after")).await.is_ok())
        })
        .await
        .map_err(|failure| format!("{fault:?}: {failure}"))?;
    }
    client.shutdown().await;
    Ok(())
}

async fn slow_and_sliced_connections_change_nothing(target: &Target) -> TestResult {
    let topic = target.topic("sliced");
    target.create_topic(&topic, 2).await?;
    let path = path_to(target).await?;
    for proxy in [&path.name_server, &path.broker] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.inject(direction, Fault::Slice);
            proxy.inject(direction, Fault::Delay(Duration::from_millis(2)));
        }
    }
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(10))
        .start()
        .await?;
    let mut inbox = Inbox::open(&client, &target.group("sliced"), &topic, "*").await?;
    let mut wanted: Vec<String> = (0..20)
        .map(|index| format!("{index}: {}", "größe 🚀 ".repeat(100)))
        .collect();
    for body in &wanted {
        producer.send(Message::new(&topic, body.clone())).await?;
    }
    wanted.sort_unstable();
    expect("bodies", inbox.bodies(20).await?, wanted)?;
    client.shutdown().await;
    Ok(())
}

async fn a_server_that_speaks_nonsense_is_an_error_and_no_more(target: &Target) -> TestResult {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let nonsense = listener.local_addr()?;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let answers: [&'static [u8]; 5] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &[0xff; 64],
            &[0; 64],
            &[
                0, 0, 0, 12, 0, 0, 0, 8, b'{', b'}', b']', b'[', b'{', b'}', b']', b'[',
            ],
            b"",
        ];
        let mut connections = JoinSet::new();
        for answer in answers.into_iter().cycle() {
            let Ok((mut socket, _)) = listener.accept().await else {
                return;
            };
            connections.spawn(async move {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer).await;
            });
        }
    });
    // Alone it is an error, each time; beside a good one it is passed over.
    for _ in 0..5 {
        match Client::connect(nonsense.to_string()).await {
            Err(error) => expect("kind", error.kind(), ErrorKind::NameServer)?,
            Ok(client) => {
                let producer = client.producer("producer").start().await?;
                match producer.send(Message::new("topic", "x")).await {
                    Err(error) => expect("kind", error.kind(), ErrorKind::NameServer)?,
                    Ok(receipt) => return Err(format!("nonsense was a receipt: {receipt:?}").into()),
                }
                client.shutdown().await;
            }
        }
    }
    let client = Client::connect(format!("{nonsense};{}", target.name_server())).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    producer.send(Message::new(target.topic("nonsense"), "x")).await?;
    client.shutdown().await;
    Ok(())
}
