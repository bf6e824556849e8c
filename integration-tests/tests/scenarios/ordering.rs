//! Consumption in order, of queues and of keys: one at a time and none overtaken, whoever comes, goes or dies.

mod ledger;

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use integration_tests::{
    Failure,
    admin::call,
    peer::{Language, PeerConsumer, Subscription},
    scenario::{TestResult, eventually},
    scenarios,
    target::{ServerSettings, Target, brokers, create_topic},
};
use rocketmq_client::{
    Client, ConsumeFrom, MessageView, Poison, PushConsumer, PushConsumerBuilder,
    protocol::{
        JsonBody,
        bodies::{LockBatch, MessageQueue},
        names::dlq_topic,
        property,
        requests::{BrokerClusterInfo, LockQueues},
    },
};
use tokio::time::{Instant, sleep};

use self::ledger::Ledger;
use crate::{
    inbox::expect,
    raw::{first_record, join, send},
};

scenarios![
    a_queue_keeps_its_order_and_its_one_owner_while_members_come_and_go,
    a_graceful_stop_hands_the_queues_over_and_repeats_nothing,
    a_dead_members_queues_are_taken_over_when_its_locks_run_out,
    a_message_that_fails_holds_its_queue_and_dies_in_its_place,
    keys_go_side_by_side_each_in_order_and_a_restart_loses_none,
    order_survives_a_restart_of_the_broker,
    members_of_both_languages_share_the_queues_in_order,
];

const QUEUES: i32 = 4;

/// Sends the messages of a range of numbers to each queue, so that a queue's messages count up.
async fn fill(broker: SocketAddr, topic: &str, numbers: std::ops::Range<u32>) -> TestResult {
    for number in numbers {
        for queue in 0..QUEUES {
            send(broker, topic, queue, number.to_string().as_bytes(), &[]).await?;
        }
    }
    Ok(())
}

fn number(message: &MessageView) -> Result<u32, Failure> {
    Ok(std::str::from_utf8(message.body())?.parse()?)
}

fn builder(client: &Client, group: &str, topic: &str) -> PushConsumerBuilder {
    client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
}

/// A member that keeps the order of queues and writes down what it does.
async fn member(
    client: &Client,
    group: &str,
    topic: &str,
    name: &str,
    ledger: &Ledger,
    work: Duration,
) -> Result<PushConsumer, Failure> {
    let (ledger, name) = (ledger.clone(), name.to_owned());
    let consumer = builder(client, group, topic)
        .orderly()
        .start(move |message: MessageView| {
            let (ledger, name) = (ledger.clone(), name.clone());
            async move {
                let line = format!("queue {}", message.queue().queue_id);
                let entry = ledger.begin(&line, &name, number(&message)?);
                sleep(work).await;
                entry.done();
                Ok::<_, Failure>(())
            }
        })
        .await?;
    Ok(consumer)
}

/// The queues of a topic that a member owns.
fn owned(consumer: &PushConsumer, topic: &str) -> usize {
    let queues = consumer.stats().queues;
    queues.iter().filter(|queue| *queue.topic == *topic).count()
}

async fn a_queue_keeps_its_order_and_its_one_owner_while_members_come_and_go(target: &Target) -> TestResult {
    const EACH: u32 = 400;
    let (topic, group) = (target.topic("storm"), target.group("storm"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    fill(broker, &topic, 0..EACH).await?;
    let ledger = Ledger::default();
    let work = Duration::from_millis(5);

    let first_client = Client::connect(target.name_server()).await?;
    let first = member(&first_client, &group, &topic, "first", &ledger, work).await?;
    // Each guest comes, gets queues, works, and goes: some in order, some without a word.
    let mut clients = Vec::new();
    for guest in 0..6 {
        let client = Client::connect(target.name_server()).await?;
        let name = format!("guest {guest}");
        let consumer = member(&client, &group, &topic, &name, &ledger, work).await?;
        let before = ledger.ended();
        eventually("the guest works", async || {
            let all = ledger.ended() == usize::try_from(EACH)? * 4;
            Ok(all
                || owned(&consumer, &topic) > 0 && ledger.ended_by(&name) > 0 && ledger.ended() > before + 20)
        })
        .await?;
        if guest % 2 == 0 {
            expect("cut off", consumer.shutdown().await.handlers_cut_off, 0)?;
        } else {
            drop(consumer);
        }
        clients.push(client);
    }
    eventually("everything is handled", async || {
        Ok(ledger.ended() == usize::try_from(EACH)? * 4)
    })
    .await?;
    first.shutdown().await;
    clients.push(first_client);
    for client in clients {
        client.shutdown().await;
    }
    ledger.verdict()?;
    for queue in 0..QUEUES {
        expect(
            "of a queue",
            ledger.of(&format!("queue {queue}")),
            (0..EACH).collect::<BTreeSet<_>>(),
        )?;
    }
    Ok(())
}

async fn a_graceful_stop_hands_the_queues_over_and_repeats_nothing(target: &Target) -> TestResult {
    const EACH: u32 = 60;
    let (topic, group) = (target.topic("handover"), target.group("handover"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    fill(broker, &topic, 0..EACH).await?;
    let ledger = Ledger::default();
    let work = Duration::from_millis(10);
    let (mut round, mut before) = (0, 0);
    while ledger.ended() < usize::try_from(EACH)? * 4 {
        round += 1;
        let client = Client::connect(target.name_server()).await?;
        let name = format!("member {round}");
        let consumer = member(&client, &group, &topic, &name, &ledger, work).await?;
        eventually("it works", async || {
            let ended = ledger.ended();
            Ok(ended >= before + 80 || ended == usize::try_from(EACH)? * 4)
        })
        .await?;
        before = ledger.ended();
        if round == 1 {
            let orderly = client
                .admin()
                .consumer_running_info(&group, client.client_id(), false)
                .await?;
            let orderly = orderly.properties.get("PROP_CONSUMEORDERLY").cloned();
            expect("what operators see", orderly.as_deref(), Some("true"))?;
            expect(
                "locks for others",
                lock(target, &group, "somebody", &topic).await?,
                0,
            )?;
        }
        let report = consumer.shutdown().await;
        expect("cut off", report.handlers_cut_off, 0)?;
        expect("unconfirmed", report.commits_unconfirmed, 0)?;
        client.shutdown().await;
    }
    ledger.verdict()?;
    expect("begun", ledger.begun(), usize::try_from(EACH)? * 4)?;
    expect("unlocked", lock(target, &group, "somebody", &topic).await?, 4)
}

/// Locks all queues of a topic as somebody without a consumer. Returns how many it got.
async fn lock(target: &Target, group: &str, client: &str, topic: &str) -> Result<usize, Failure> {
    let info = call(target.name_server_address().await?, &BrokerClusterInfo {})
        .await?
        .0;
    let broker = info.broker_addr_table.keys().next().ok_or("no broker")?;
    let batch = LockBatch {
        consumer_group: group.to_owned(),
        client_id: client.to_owned(),
        only_this_broker: false,
        mq_set: (0..QUEUES)
            .map(|queue| MessageQueue::new(topic, broker.as_str(), queue))
            .collect(),
    };
    let request = LockQueues {
        body: batch.to_body()?,
    };
    let locked = call(target.first_broker().await?, &request).await?.0;
    Ok(locked.lock_ok_mq_set.len())
}

/// A member that dies leaves its locks behind, and brokers keep them for a minute.
async fn a_dead_members_queues_are_taken_over_when_its_locks_run_out(target: &Target) -> TestResult {
    const LOCK_LIFE: Duration = Duration::from_secs(60);
    let (topic, group) = (target.topic("dead"), target.group("dead"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    fill(broker, &topic, 0..3).await?;
    // All that there is of the dead one: its locks.
    let ghost = join(broker, "ghost", &group, &topic).await?;
    let locked_at = Instant::now();
    expect(
        "locks of the dead one",
        lock(target, &group, "ghost", &topic).await?,
        4,
    )?;
    drop(ghost);

    let ledger = Ledger::default();
    let client = Client::connect(target.name_server()).await?;
    let consumer = member(&client, &group, &topic, "heir", &ledger, Duration::ZERO).await?;
    eventually("the queues are assigned", async || {
        Ok(owned(&consumer, &topic) == 4)
    })
    .await?;
    // In two steps, because a step waits no longer than the life of a lock.
    while locked_at.elapsed() < LOCK_LIFE {
        expect("handled while locked", ledger.begun(), 0)?;
        sleep(Duration::from_millis(500)).await;
    }
    eventually("the heir has everything", async || Ok(ledger.ended() == 12)).await?;
    consumer.shutdown().await;
    client.shutdown().await;
    ledger.verdict()
}

async fn a_message_that_fails_holds_its_queue_and_dies_in_its_place(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("poison"), target.group("poison"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for body in ["good", "late", "bad", "last"] {
        send(broker, &topic, 0, body.as_bytes(), &[]).await?;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let client = Client::connect(target.name_server()).await?;
    let consumer = builder(&client, &group, &topic)
        .orderly()
        .max_reconsume_times(2)
        .suspend_time(Duration::from_millis(10))
        .start(move |message: MessageView| {
            let body = String::from_utf8_lossy(message.body()).into_owned();
            let times = message.reconsume_times();
            sees.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(format!("{body} {times}"));
            std::future::ready(match (body.as_str(), times) {
                ("late", 0) | ("bad", _) => Err("not now"),
                _ => Ok(()),
            })
        })
        .await?;
    let all = || seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    eventually("the last message", async || {
        Ok(all().contains(&"last 0".to_owned()))
    })
    .await?;
    let wanted = ["good 0", "late 0", "late 1", "bad 0", "bad 1", "bad 2", "last 0"];
    expect("in the order of the queue", all(), wanted)?;
    let dead = first_record(broker, &group, &dlq_topic(&group)).await?;
    expect("the dead letter", &dead.body[..], &b"bad"[..])?;
    expect(
        "its origin",
        dead.properties.get(property::RETRY_TOPIC),
        Some(topic.as_str()),
    )?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn keys_go_side_by_side_each_in_order_and_a_restart_loses_none(target: &Target) -> TestResult {
    const KEYS: u32 = 16;
    const EACH: u32 = 20;
    let (topic, group) = (target.topic("keys"), target.group("keys"));
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    for number in 0..EACH {
        for key in 0..KEYS {
            let name = format!("key-{key}");
            let queue = i32::try_from(key % 2)?;
            let sharding = [(property::SHARDING_KEY, name.as_str())];
            send(broker, &topic, queue, number.to_string().as_bytes(), &sharding).await?;
        }
    }
    let ledger = Ledger::default();
    let total = usize::try_from(KEYS * EACH)?;
    let mut clients = Vec::new();
    for stay in [false, true] {
        // Another one, because the first takes a while to leave the group when its consumer is dropped.
        let client = Client::connect(target.name_server()).await?;
        // Two keys of one queue have to be here at a time, or neither goes on.
        let meeting = Arc::new(tokio::sync::Barrier::new(2));
        let (sees, meet) = (ledger.clone(), Arc::clone(&meeting));
        let consumer = builder(&client, &group, &topic)
            .ordered_by_key()
            .poison(Poison::DeadLetter)
            .suspend_time(Duration::from_millis(10))
            .concurrency(KEYS.try_into()?)
            .start(move |message: MessageView| {
                let (ledger, meet) = (sees.clone(), Arc::clone(&meet));
                async move {
                    let key = message.sharding_key().ok_or("no key")?.to_owned();
                    let number = number(&message)?;
                    let entry = ledger.begin(&key, "consumer", number);
                    if !stay && number == 0 && matches!(key.as_str(), "key-0" | "key-2") {
                        meet.wait().await;
                    }
                    sleep(Duration::from_millis(2)).await;
                    if number == 7 && message.reconsume_times() == 0 {
                        return Err("once more".into());
                    }
                    entry.done();
                    Ok::<_, Failure>(())
                }
            })
            .await?;
        let enough = if stay { total } else { total / 3 };
        eventually("messages of all keys", async || Ok(ledger.ended() >= enough)).await?;
        if stay {
            consumer.shutdown().await;
        } else {
            // In the middle of its work, without a word.
            drop(consumer);
        }
        clients.push(client);
    }
    for client in clients {
        client.shutdown().await;
    }
    ledger.verdict()?;
    for key in 0..KEYS {
        let all: BTreeSet<u32> = (0..EACH).collect();
        expect("of a key", ledger.of(&format!("key-{key}")), all)?;
    }
    Ok(())
}

async fn order_survives_a_restart_of_the_broker(target: &Target) -> TestResult {
    const EACH: u32 = 300;
    let servers = target.own_servers(ServerSettings::default()).await?;
    let (topic, group) = (target.topic("restart"), target.group("restart"));
    create_topic(&servers.name_server(), &topic, QUEUES).await?;
    let broker = *brokers(&servers.name_server())
        .await?
        .first()
        .ok_or("no broker")?;
    fill(broker, &topic, 0..EACH).await?;
    let ledger = Ledger::default();
    let work = Duration::from_millis(20);
    let mut members = Vec::new();
    for name in ["first", "second"] {
        let client = Client::connect(servers.name_server()).await?;
        let consumer = member(&client, &group, &topic, name, &ledger, work).await?;
        members.push((client, consumer));
    }
    for _ in 0..2 {
        let before = ledger.ended();
        eventually("both work", async || {
            let each_has_some = members.iter().all(|(_, consumer)| owned(consumer, &topic) == 2);
            let all = ledger.ended() == usize::try_from(EACH)? * 4;
            Ok(all || each_has_some && ledger.ended() > before + 40)
        })
        .await?;
        servers.kill(0).await?;
        servers.restart(0).await?;
    }
    eventually("everything is handled", async || {
        Ok(ledger.ended() == usize::try_from(EACH)? * 4)
    })
    .await?;
    for (client, consumer) in members {
        consumer.shutdown().await;
        client.shutdown().await;
    }
    ledger.verdict()
}

/// From when to when somebody was at a message.
#[derive(Clone)]
struct Span {
    owner: &'static str,
    queue: i32,
    number: u32,
    begun_at: u64,
    ended_at: u64,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {} of queue {} from {} to {}",
            self.owner, self.number, self.queue, self.begun_at, self.ended_at
        )
    }
}

fn now() -> Result<u64, Failure> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)?
        .as_millis()
        .try_into()?)
}

async fn members_of_both_languages_share_the_queues_in_order(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("mixed"), target.group("mixed"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    let spans = Arc::new(Mutex::new(Vec::<Span>::new()));
    let locked = |spans: &Arc<Mutex<Vec<Span>>>| spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let different = |spans: &[Span]| {
        let all: BTreeSet<_> = spans.iter().map(|span| (span.queue, span.number)).collect();
        all.len()
    };

    let client = Client::connect(target.name_server()).await?;
    let sees = Arc::clone(&spans);
    let consumer = builder(&client, &group, &topic)
        .orderly()
        .start(move |message: MessageView| {
            let sees = Arc::clone(&sees);
            async move {
                let begun_at = now()?;
                sleep(Duration::from_millis(20)).await;
                let span = Span {
                    owner: "Rust",
                    queue: message.queue().queue_id,
                    number: number(&message)?,
                    begun_at,
                    ended_at: now()?,
                };
                sees.lock().unwrap_or_else(PoisonError::into_inner).push(span);
                Ok::<_, Failure>(())
            }
        })
        .await?;
    // There is always something to do, however long a member takes to come.
    let (enough, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let feed = async {
        while !enough.load(Ordering::Relaxed) {
            let number = sent.load(Ordering::Relaxed);
            fill(broker, &topic, number..number + 1).await?;
            sent.store(number + 1, Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, Failure>(())
    };
    let visits = async {
        let visited = java_members_come(target, (&group, &topic), &consumer, &spans).await;
        enough.store(true, Ordering::Relaxed);
        visited
    };
    let (fed, visited) = tokio::join!(feed, visits);
    visited?;
    fed?;
    let total = usize::try_from(sent.load(Ordering::Relaxed))? * 4;
    eventually("everything is handled", async || {
        Ok(different(&locked(&spans)) == total)
    })
    .await?;
    consumer.shutdown().await;
    client.shutdown().await;

    let mut spans = locked(&spans);
    spans.sort_by_key(|span| (span.queue, span.begun_at, span.ended_at));
    for pair in spans.windows(2) {
        let [a, b] = pair else { continue };
        if a.queue != b.queue {
            continue;
        }
        if b.begun_at < a.ended_at {
            return Err(format!("two at a time: {a}, and {b}").into());
        }
        if b.number > a.number + 1 {
            return Err(format!("one is passed over: {a}, then {b}").into());
        }
    }
    Ok(())
}

/// Each takes over half of the queues from the Rust member, and gives them back.
async fn java_members_come(
    target: &Target,
    (group, topic): (&str, &str),
    consumer: &PushConsumer,
    spans: &Mutex<Vec<Span>>,
) -> TestResult {
    for language in [Language::Java5, Language::Java4] {
        let subscription = Subscription::all(group, topic);
        let options = ["--orderly", "true", "--hold", "20"];
        let mut java =
            PeerConsumer::start_with(language, target.name_server(), &subscription, &options).await?;
        let mut deliveries = Vec::new();
        for _ in 0..40 {
            deliveries.push(java.next().await?);
        }
        let shared = owned(consumer, topic);
        deliveries.extend(java.drain().await?);
        for delivery in deliveries {
            let span = Span {
                owner: "Java",
                queue: delivery.queue_id,
                number: String::from_utf8(delivery.body)?.parse()?,
                begun_at: delivery.begun_at.ok_or("no beginning")?,
                ended_at: delivery.ended_at.ok_or("no end")?,
            };
            spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
        expect("queues of the Rust member meanwhile", shared, 2)?;
        eventually("all queues are back", async || Ok(owned(consumer, topic) == 4)).await?;
    }
    Ok(())
}
