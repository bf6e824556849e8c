//! What a push consumer promises where the broker divides the work: nothing lost, by whatever mode an operator chooses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    fault_proxy::{Direction, Fault, FaultPath},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, MessageView, Outcome, PushConsumer, PushConsumerBuilder, Retry,
    admin::{Admin, SubscriptionGroupConfig},
    protocol::{RequestCode, bodies::MessageRequestMode, names::dlq_topic},
};
use tokio::sync::Semaphore;

use crate::{
    inbox::expect,
    raw::{pull, records, send},
};

scenarios![
    what_is_popped_is_handled_and_acknowledged,
    a_popped_message_that_fails_comes_again_and_dies_once,
    switching_modes_under_load_loses_nothing,
    members_that_pop_share_a_single_queue,
    lost_acknowledgements_bring_messages_again,
    a_long_handler_keeps_its_message,
    what_a_stopped_member_leaves_comes_to_the_next_one,
    what_a_dropped_member_had_comes_to_the_next_one,
];

/// Longer than any scenario: nothing comes again by itself.
const LONG: Duration = Duration::from_secs(3600);
/// Short, for what is to come again.
const SHORT: Duration = Duration::from_secs(2);

/// A topic that a group pops, and somebody to see to it.
struct Popped {
    topic: String,
    group: String,
    client: Client,
    admin: Admin,
}

impl Popped {
    async fn open(target: &Target, stem: &str, queues: i32) -> Result<Self, Failure> {
        let (topic, group) = (target.topic(stem), target.group(stem));
        target.create_topic(&topic, queues).await?;
        let client = Client::connect(target.name_server()).await?;
        let admin = client.admin();
        let popped = Self {
            topic,
            group,
            client,
            admin,
        };
        if target.kind() != Kind::Rocketmq4 {
            let config = SubscriptionGroupConfig::new(&popped.group);
            popped.admin.create_group(&config).await?;
            popped.set_mode("POP").await?;
        }
        Ok(popped)
    }

    async fn set_mode(&self, mode: &str) -> TestResult {
        let mode = MessageRequestMode {
            topic: self.topic.clone(),
            consumer_group: self.group.clone(),
            mode: mode.to_owned(),
            pop_share_queue_num: 0,
        };
        Ok(self.admin.set_message_request_mode(&mode).await?)
    }

    fn builder(&self, client: &Client, invisible: Duration) -> PushConsumerBuilder {
        client
            .push_consumer(&self.group)
            .subscribe(&self.topic, "*")
            .consume_from(ConsumeFrom::First)
            .rebalance_interval(Duration::from_millis(500))
            .pop(invisible)
    }

    async fn store(&self, target: &Target, queue: i32, bodies: &[&str]) -> TestResult {
        let broker = target.first_broker().await?;
        for body in bodies {
            send(broker, &self.topic, queue, body.as_bytes(), &[]).await?;
        }
        Ok(())
    }
}

/// The consumer, or nothing where an old broker is named as the reason why there is none.
fn started(
    target: &Target,
    started: rocketmq_client::Result<PushConsumer>,
) -> Result<Option<PushConsumer>, Failure> {
    if target.kind() != Kind::Rocketmq4 {
        return Ok(Some(started?));
    }
    let error = started.err().ok_or("a broker of 4.9 hands out messages")?;
    expect("kind", error.kind(), ErrorKind::Unsupported)?;
    let text = error.to_string();
    expect(&text, text.contains("4.9.7") && text.contains("upgrade"), true)?;
    Ok(None)
}

/// How often each message was handled.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, u32>>>);

impl Seen {
    fn note(&self, message: &MessageView) -> u32 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(body(message)).or_default();
        *times += 1;
        *times
    }

    fn all(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many different messages were handled.
    async fn count(&self, wanted: usize) -> TestResult {
        eventually(&format!("{wanted} messages handled"), async || {
            Ok(self.all().len() >= wanted)
        })
        .await
    }
}

fn body(message: &MessageView) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:03}")).collect()
}

async fn what_is_popped_is_handled_and_acknowledged(target: &Target) -> TestResult {
    const MESSAGES: usize = 100;
    let popped = Popped::open(target, "popped", 4).await?;
    let names = names(MESSAGES);
    for (index, name) in names.iter().enumerate() {
        popped.store(target, i32::try_from(index % 4)?, &[name]).await?;
    }
    let seen = Seen::default();
    let noted = seen.clone();
    let consumer = popped
        .builder(&popped.client, SHORT)
        .start(move |message: MessageView| {
            noted.note(&message);
            async {}
        });
    let Some(consumer) = started(target, consumer.await)? else {
        return Ok(());
    };
    seen.count(MESSAGES).await?;
    // What was not acknowledged would come again before this.
    let broker = target.first_broker().await?;
    send(broker, &popped.topic, 0, b"witness", &[]).await?;
    seen.count(MESSAGES + 1).await?;
    let stats = consumer.pop_stats().ok_or("no statistics of popping")?;
    expect("popped", stats.popped > MESSAGES as u64, true)?;
    expect("unconfirmed", (stats.unconfirmed, stats.released), (0, 0))?;
    eventually("all acknowledged", async || {
        Ok(consumer.pop_stats().is_some_and(|stats| stats.waiting == 0))
    })
    .await?;
    let queues = consumer.stats().queues;
    let whole: Vec<_> = queues.iter().filter(|queue| queue.queue_id == -1).collect();
    expect("what is popped", whole.len(), 1)?;
    let again: Vec<_> = seen.all().into_iter().filter(|(_, times)| *times > 1).collect();
    let slow = stats.skipped + stats.expired > 0;
    expect("again without need", again.is_empty() || slow, true)?;
    let report = consumer.shutdown().await;
    expect("cut off", report.handlers_cut_off, 0)?;
    popped.client.shutdown().await;
    Ok(())
}

async fn a_popped_message_that_fails_comes_again_and_dies_once(target: &Target) -> TestResult {
    let popped = Popped::open(target, "failing", 1).await?;
    popped.store(target, 0, &["bad", "good"]).await?;
    let (sender, mut attempts) = tokio::sync::mpsc::channel(100);
    let consumer =
        popped
            .builder(&popped.client, LONG)
            .max_reconsume_times(2)
            .start(move |message: MessageView| {
                let sender = sender.clone();
                async move {
                    let bad = message.body() == "bad";
                    let _ = sender.send(message).await;
                    if bad {
                        Outcome::Retry(Retry::Level(1))
                    } else {
                        Outcome::Ack
                    }
                }
            });
    let Some(consumer) = started(target, consumer.await)? else {
        return Ok(());
    };
    let mut deliveries = Vec::new();
    while deliveries.len() < 4 {
        let message = attempts.recv().await.ok_or("the consumer is gone")?;
        expect("topic of a retry", message.topic(), popped.topic.as_str())?;
        deliveries.push((body(&message), message.attempt()));
    }
    deliveries.sort_unstable();
    let bad = |attempt: u32| ("bad".to_owned(), attempt);
    expect(
        "deliveries",
        deliveries,
        [bad(1), bad(2), bad(3), ("good".to_owned(), 1)],
    )?;
    let broker = target.first_broker().await?;
    let mut letters = Vec::new();
    eventually("a dead letter", async || {
        if let Ok(pulled) = pull(broker, &popped.group, &dlq_topic(&popped.group), 0, 0, "*").await {
            let records = records(&pulled)?;
            letters = records
                .iter()
                .map(|record| String::from_utf8_lossy(&record.body).into_owned())
                .collect();
        }
        Ok(!letters.is_empty())
    })
    .await?;
    expect("dead letters", letters, ["bad"])?;
    consumer.shutdown().await;
    expect("deliveries after death", attempts.try_recv().is_ok(), false)?;
    popped.client.shutdown().await;
    Ok(())
}

async fn switching_modes_under_load_loses_nothing(target: &Target) -> TestResult {
    const ROUND: usize = 100;
    let popped = Popped::open(target, "switching", 4).await?;
    let seen = Seen::default();
    let noted = seen.clone();
    let consumer = popped
        .builder(&popped.client, SHORT)
        .start(move |message: MessageView| {
            let times = noted.note(&message);
            async move {
                // Some are given back in the one mode and come again in the other.
                let number: u32 = body(&message).parse().unwrap_or_default();
                if times == 1 && number.is_multiple_of(10) {
                    Outcome::Retry(Retry::Level(1))
                } else {
                    Outcome::Ack
                }
            }
        });
    let Some(consumer) = started(target, consumer.await)? else {
        return Ok(());
    };
    let all = names(4 * ROUND);
    for (round, mode) in [(0, "POP"), (1, "PULL"), (2, "POP"), (3, "PULL")] {
        popped.set_mode(mode).await?;
        for (index, name) in all.iter().enumerate().skip(round * ROUND).take(ROUND) {
            popped.store(target, i32::try_from(index % 4)?, &[name]).await?;
        }
        let is_popping = || consumer.stats().queues.iter().any(|queue| queue.queue_id == -1);
        eventually(mode, async || Ok(is_popping() == (mode == "POP"))).await?;
    }
    eventually("every message handled, and those that failed again", async || {
        let seen = seen.all();
        let done = |name: &String| {
            let wanted = if name.parse::<u32>().unwrap_or_default() % 10 == 0 {
                2
            } else {
                1
            };
            seen.get(name).is_some_and(|times| *times >= wanted)
        };
        Ok(all.iter().all(done))
    })
    .await?;
    consumer.shutdown().await;
    popped.client.shutdown().await;
    Ok(())
}

async fn members_that_pop_share_a_single_queue(target: &Target) -> TestResult {
    const MESSAGES: usize = 40;
    let popped = Popped::open(target, "shared", 1).await?;
    let names = names(MESSAGES);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let seen = Seen::default();
    let gate = Arc::new(Semaphore::new(0));
    let mut members = Vec::new();
    for name in ["one", "two"] {
        let client = Client::builder(target.name_server())
            .instance_name(name)
            .connect()
            .await?;
        let (noted, gate) = (seen.clone(), Arc::clone(&gate));
        let handled = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&handled);
        let consumer = popped
            .builder(&client, LONG)
            .pop_batch_size(1)
            .pop_threshold_for_queue(1)
            .start(move |message: MessageView| {
                noted.note(&message);
                counted.fetch_add(1, Ordering::SeqCst);
                let gate = Arc::clone(&gate);
                // Nobody gets on before both have something.
                async move { gate.acquire().await.map(drop) }
            });
        let Some(consumer) = started(target, consumer.await)? else {
            return Ok(());
        };
        members.push((client, consumer, handled));
    }
    popped.store(target, 0, &names).await?;
    eventually("something for both members", async || {
        Ok(members
            .iter()
            .all(|(_, _, handled)| handled.load(Ordering::SeqCst) > 0))
    })
    .await?;
    gate.add_permits(10 * MESSAGES);
    seen.count(MESSAGES).await?;
    expect(
        "twice",
        seen.all().values().filter(|times| **times > 1).count(),
        0,
    )?;
    for (client, consumer, _) in members {
        consumer.shutdown().await;
        client.shutdown().await;
    }
    popped.client.shutdown().await;
    Ok(())
}

async fn lost_acknowledgements_bring_messages_again(target: &Target) -> TestResult {
    let popped = Popped::open(target, "lost", 1).await?;
    popped.store(target, 0, &["a", "b", "c"]).await?;
    let path = FaultPath::start(target.name_server_address().await?, &target.brokers().await?).await?;
    let codes = [RequestCode::ACK_MESSAGE, RequestCode::BATCH_ACK_MESSAGE];
    for code in codes {
        path.broker
            .inject(Direction::ToServer, Fault::DropRequest { code: code.0 });
    }
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let seen = Seen::default();
    let noted = seen.clone();
    let consumer = popped.builder(&client, SHORT).start(move |message: MessageView| {
        noted.note(&message);
        async {}
    });
    let Some(consumer) = started(target, consumer.await)? else {
        return Ok(());
    };
    eventually("every message twice", async || {
        let seen = seen.all();
        Ok(seen.len() == 3 && seen.values().all(|times| *times >= 2))
    })
    .await?;
    path.broker.heal();
    eventually("acknowledgements that arrive", async || {
        Ok(consumer
            .pop_stats()
            .is_some_and(|stats| stats.unconfirmed > 0 && stats.waiting == 0))
    })
    .await?;
    consumer.shutdown().await;
    client.shutdown().await;
    popped.client.shutdown().await;
    Ok(())
}

async fn a_long_handler_keeps_its_message(target: &Target) -> TestResult {
    let popped = Popped::open(target, "long", 1).await?;
    popped.store(target, 0, &["long"]).await?;
    let seen = Seen::default();
    let (noted, may_end) = (seen.clone(), Arc::new(Semaphore::new(0)));
    let gate = Arc::clone(&may_end);
    // Renewals have to be in time, however slow the machine.
    let consumer =
        popped
            .builder(&popped.client, Duration::from_secs(10))
            .start(move |message: MessageView| {
                noted.note(&message);
                let gate = Arc::clone(&gate);
                async move { gate.acquire().await.map(drop) }
            });
    let Some(consumer) = started(target, consumer.await)? else {
        return Ok(());
    };
    eventually("renewals", async || {
        Ok(consumer.pop_stats().is_some_and(|stats| stats.renewed >= 3))
    })
    .await?;
    may_end.add_permits(1);
    eventually("the acknowledgement", async || {
        Ok(consumer.pop_stats().is_some_and(|stats| stats.waiting == 0))
    })
    .await?;
    // The first invisible time is over since the second renewal.
    popped.store(target, 0, &["witness"]).await?;
    may_end.add_permits(1);
    seen.count(2).await?;
    expect("deliveries", seen.all().into_values().collect::<Vec<_>>(), [1, 1])?;
    consumer.shutdown().await;
    popped.client.shutdown().await;
    Ok(())
}

async fn what_a_stopped_member_leaves_comes_to_the_next_one(target: &Target) -> TestResult {
    const MESSAGES: usize = 10;
    let popped = Popped::open(target, "left", 1).await?;
    let names = names(MESSAGES);
    popped
        .store(target, 0, &names.iter().map(String::as_str).collect::<Vec<_>>())
        .await?;
    let seen = Seen::default();
    let (noted, gate) = (seen.clone(), Arc::new(Semaphore::new(0)));
    let held = Arc::clone(&gate);
    let consumer = popped
        .builder(&popped.client, LONG)
        .concurrency(1)
        .start(move |message: MessageView| {
            noted.note(&message);
            let held = Arc::clone(&held);
            async move { held.acquire().await.map(drop) }
        });
    let Some(first) = started(target, consumer.await)? else {
        return Ok(());
    };
    eventually("all popped", async || {
        Ok(first
            .pop_stats()
            .is_some_and(|stats| stats.popped == MESSAGES as u64))
    })
    .await?;
    seen.count(1).await?;
    let (report, ()) = tokio::join!(first.shutdown(), async {
        // From here on no other message is started.
        gate.add_permits(1);
    });
    expect("cut off", report.handlers_cut_off, 0)?;
    let stats = first.pop_stats().ok_or("no statistics of popping")?;
    let handled = seen.all().len();
    expect("given back", stats.released + handled as u64, MESSAGES as u64)?;
    let noted = seen.clone();
    let second = popped
        .builder(&popped.client, LONG)
        .start(move |message: MessageView| {
            noted.note(&message);
            async {}
        });
    let second = second.await?;
    // Their hour is not over.
    seen.count(MESSAGES).await?;
    expect(
        "twice",
        seen.all().values().filter(|times| **times > 1).count(),
        0,
    )?;
    second.shutdown().await;
    popped.client.shutdown().await;
    Ok(())
}

async fn what_a_dropped_member_had_comes_to_the_next_one(target: &Target) -> TestResult {
    let popped = Popped::open(target, "dropped", 1).await?;
    popped.store(target, 0, &["a", "b", "c"]).await?;
    let lost_client = Client::builder(target.name_server())
        .instance_name("lost")
        .connect()
        .await?;
    let seen = Seen::default();
    let noted = seen.clone();
    let hangs = Arc::new(AtomicBool::new(false));
    let hung = Arc::clone(&hangs);
    let consumer =
        popped
            .builder(&lost_client, SHORT)
            .pop_renewal(false)
            .start(move |message: MessageView| {
                let _ = message;
                hung.store(true, Ordering::SeqCst);
                async { std::future::pending::<()>().await }
            });
    let Some(lost) = started(target, consumer.await)? else {
        return Ok(());
    };
    eventually("a handler that hangs", async || Ok(hangs.load(Ordering::SeqCst))).await?;
    drop(lost);
    let consumer = popped
        .builder(&popped.client, LONG)
        .start(move |message: MessageView| {
            noted.note(&message);
            async {}
        });
    let consumer = consumer.await?;
    seen.count(3).await?;
    let bodies: BTreeSet<String> = seen.all().into_keys().collect();
    expect(
        "messages",
        bodies.into_iter().collect::<Vec<_>>(),
        ["a", "b", "c"],
    )?;
    consumer.shutdown().await;
    lost_client.shutdown().await;
    popped.client.shutdown().await;
    Ok(())
}
