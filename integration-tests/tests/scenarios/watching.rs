//! How much a consumer holds, and what it tells of its work.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, MemoryLimit, Message, MessageQueue, MessageView, Outcome, Producer, PushConsumer,
    PushConsumerBuilder, QueueProgress, Retry, TopicRates, only,
};
use tokio::sync::{
    Semaphore,
    mpsc::{Receiver, channel},
};

use crate::inbox::{LIMIT, expect};

scenarios![
    rates_and_times_of_what_a_consumer_does_are_told,
    the_lag_of_each_queue_is_told_with_and_without_asking,
    a_limit_of_a_topic_is_shared_by_its_queues,
    one_limit_of_memory_holds_for_the_consumers_of_several_clients,
    a_limit_below_one_message_makes_queues_take_turns,
    pulls_carry_subscription_and_size_and_rest_in_between,
    a_layer_chooses_what_the_handler_sees,
];

async fn writer(target: &Target, client: &Client) -> Result<Producer, Failure> {
    Ok(client.producer(target.group("writer")).start().await?)
}

/// Sends so many messages to each of so many queues of a topic, with bodies `<queue>-<number>` and so many bytes more.
async fn fill(producer: &Producer, topic: &str, queues: i32, messages: usize, bytes: usize) -> TestResult {
    for number in 0..messages {
        for id in 0..queues {
            let body = format!("{id}-{number}{}", " ".repeat(bytes));
            let to = move |queues: &[MessageQueue]| {
                queues.iter().position(|queue| queue.queue_id == id).unwrap_or(0)
            };
            producer.send(Message::new(topic, body)).select_queue(to).await?;
        }
    }
    Ok(())
}

/// Handlers that wait for permits, and tell what they have done.
struct Gated {
    consumer: PushConsumer,
    gate: Arc<Semaphore>,
    done: Receiver<String>,
}

impl Gated {
    async fn start(builder: PushConsumerBuilder) -> Result<Self, Failure> {
        let gate = Arc::new(Semaphore::new(0));
        let (sender, done) = channel(100_000);
        let closed = Arc::clone(&gate);
        let consumer = builder
            .consume_from(ConsumeFrom::First)
            .concurrency(2)
            .start(move |message: MessageView| {
                let (gate, sender) = (Arc::clone(&closed), sender.clone());
                async move {
                    gate.acquire().await.map_err(|_| "closed")?.forget();
                    let body = String::from_utf8_lossy(message.body()).trim_end().to_owned();
                    sender.send(body).await.map_err(|_| "the scenario has ended")
                }
            })
            .await?;
        Ok(Self { consumer, gate, done })
    }

    /// Lets so many handlers go on and gives what they have done.
    async fn release(&mut self, count: usize) -> Result<BTreeSet<String>, Failure> {
        self.gate.add_permits(count);
        let mut done = BTreeSet::new();
        for _ in 0..count {
            let next = tokio::time::timeout(LIMIT, self.done.recv()).await;
            let next = next.map_err(|_| format!("{} of {count} in {LIMIT:?}", done.len()))?;
            done.insert(next.ok_or("the consumer is gone")?);
        }
        Ok(done)
    }
}

fn rates_of(consumer: &PushConsumer, topic: &str) -> Result<TopicRates, Failure> {
    let found = consumer.rates().into_iter().find(|rates| rates.topic == topic);
    found.ok_or_else(|| format!("no rates of {topic}").into())
}

async fn rates_and_times_of_what_a_consumer_does_are_told(target: &Target) -> TestResult {
    let topic = target.topic("rated");
    target.create_topic(&topic, 2).await?;
    let client = Client::connect(target.name_server()).await?;
    fill(&writer(target, &client).await?, &topic, 2, 5, 0).await?;
    let consumer = client
        .push_consumer(target.group("rated"))
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(|message: MessageView| async move {
            if &message.body()[..] == b"0-0" && message.reconsume_times() == 0 {
                return Outcome::Retry(Retry::Level(1));
            }
            Outcome::Ack
        })
        .await?;
    eventually("all to be acknowledged, one of them as retried", async || {
        Ok(consumer.stats().acknowledged == 10)
    })
    .await?;
    let rates = rates_of(&consumer, &topic)?;
    expect("failed", rates.failed_last_hour, 1)?;
    for (what, rate) in [
        ("received", rates.received_per_second),
        ("acknowledged", rates.acknowledged_per_second),
        ("failed", rates.failed_per_second),
    ] {
        expect(what, rate > 0.0, true)?;
    }
    expect("pull time", rates.pull_time.is_zero(), false)?;
    let ratio = rates.acknowledged_per_second / rates.failed_per_second;
    expect("nine of ten", (ratio - 9.0).abs() < 0.01, true)?;
    let retried = rates_of(&consumer, &format!("%RETRY%{}", consumer.group()))?;
    expect("retried", retried.acknowledged_per_second > 0.0, true)?;
    expect("retried and failed", retried.failed_last_hour, 0)?;
    client.shutdown().await;
    Ok(())
}

async fn the_lag_of_each_queue_is_told_with_and_without_asking(target: &Target) -> TestResult {
    let topic = target.topic("behind");
    target.create_topic(&topic, 2).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = writer(target, &client).await?;
    fill(&producer, &topic, 2, 4, 0).await?;
    let builder = client
        .push_consumer(target.group("behind"))
        .subscribe(&topic, "*");
    let mut gated = Gated::start(builder).await?;
    let consumer = gated.consumer.clone();
    let lags = |progress: Vec<QueueProgress>| -> Vec<Option<u64>> {
        let ours = progress.iter().filter(|one| *one.queue.topic == topic);
        ours.map(|one| one.lag()).collect()
    };
    eventually("both queues to be behind by all messages", async || {
        Ok(lags(consumer.progress()) == [Some(4), Some(4)])
    })
    .await?;
    gated.release(8).await?;
    eventually("no queue to be behind", async || {
        Ok(lags(consumer.progress()) == [Some(0), Some(0)])
    })
    .await?;
    for queue in consumer.progress() {
        expect("when it was pulled is known", queue.last_pull.is_some(), true)?;
        expect("cached", queue.cached, 0)?;
    }

    // A paused consumer hears of nothing, unless it asks.
    consumer.pause();
    fill(&producer, &topic, 2, 3, 0).await?;
    eventually("both queues to be behind again", async || {
        Ok(lags(consumer.progress_at_brokers().await?) == [Some(3), Some(3)])
    })
    .await?;
    consumer.resume();
    gated.release(6).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_limit_of_a_topic_is_shared_by_its_queues(target: &Target) -> TestResult {
    const QUEUES: i32 = 4;
    const MESSAGES: usize = 30;
    let topic = target.topic("shared");
    target.create_topic(&topic, QUEUES).await?;
    let client = Client::connect(target.name_server()).await?;
    fill(&writer(target, &client).await?, &topic, QUEUES, MESSAGES, 0).await?;
    let builder = client
        .push_consumer(target.group("shared"))
        .subscribe(&topic, "*")
        .max_cached_messages_per_topic(9);
    let mut gated = Gated::start(builder).await?;
    let consumer = gated.consumer.clone();
    // Nine for four queues are two for each.
    let full = async || {
        let progress = consumer.progress();
        let cached: Vec<_> = progress
            .iter()
            .filter(|one| *one.queue.topic == topic)
            .map(|one| one.cached)
            .collect();
        if cached.iter().any(|&cached| cached > 2) {
            return Err(format!("{cached:?} are cached").into());
        }
        Ok(cached == [2; QUEUES as usize])
    };
    let mut done = BTreeSet::new();
    for _ in 0..3 {
        eventually("each queue to hold its share", full).await?;
        done.extend(gated.release(8).await?);
    }
    let all = QUEUES as usize * MESSAGES;
    done.extend(gated.release(all - 24).await?);
    expect("messages", done.len(), all)?;
    client.shutdown().await;
    Ok(())
}

async fn one_limit_of_memory_holds_for_the_consumers_of_several_clients(target: &Target) -> TestResult {
    const MESSAGES: usize = 60;
    const BYTES: usize = 10_000;
    let topic = target.topic("held");
    target.create_topic(&topic, 2).await?;
    let limit = MemoryLimit::new(200_000);
    let connect = || Client::builder(target.name_server()).memory_limit(&limit);
    let (one, other) = (connect().connect().await?, connect().connect().await?);
    fill(&writer(target, &one).await?, &topic, 2, MESSAGES, BYTES).await?;
    let start = async |client: &Client, stem: &str| {
        let builder = client.push_consumer(target.group(stem)).subscribe(&topic, "*");
        // Small responses: what is over the limit is one of them.
        Gated::start(builder.pull_batch_size(4)).await
    };
    let (mut first, mut second) = (start(&one, "one").await?, start(&other, "other").await?);
    eventually("the limit to be reached", async || {
        Ok(limit.used() > 200_000 * 7 / 8 - 4 * (BYTES + 500))
    })
    .await?;
    let mut most = limit.used();
    let (mut done, mut done_by_other) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..MESSAGES {
        // Both get on, whoever of them came first.
        done.extend(first.release(2).await?);
        done_by_other.extend(second.release(2).await?);
        most = most.max(limit.used());
    }
    expect(
        "messages",
        (done.len(), done_by_other.len()),
        (2 * MESSAGES, 2 * MESSAGES),
    )?;
    // One response too many, and one that grew for each of the four queues.
    let bound = 200_000 + 5 * 4 * (BYTES + 1_000);
    expect("held at the most is within the bound", most <= bound, true)?;
    eventually("all of it to be given back", async || {
        let cached = first.consumer.stats().cached + second.consumer.stats().cached;
        Ok(cached == 0)
    })
    .await?;
    one.shutdown().await;
    other.shutdown().await;
    expect("held after the end", limit.used(), 0)
}

async fn a_limit_below_one_message_makes_queues_take_turns(target: &Target) -> TestResult {
    const QUEUES: i32 = 3;
    let topic = target.topic("tiny");
    target.create_topic(&topic, QUEUES).await?;
    let limit = MemoryLimit::new(1);
    let client = Client::builder(target.name_server())
        .memory_limit(&limit)
        .connect()
        .await?;
    let producer = writer(target, &client).await?;
    fill(&producer, &topic, QUEUES, 4, 50_000).await?;
    let builder = client
        .push_consumer(target.group("tiny"))
        .subscribe(&topic, "*")
        .pull_batch_size(1);
    let mut gated = Gated::start(builder).await?;
    let mut done = gated.release(12).await?;
    expect("messages", done.len(), 12)?;
    // Now all queues are empty, their pulls wait at the broker, and what comes still finds its way.
    for round in 4..6 {
        let body = format!("0-{round}");
        let to = |queues: &[MessageQueue]| queues.iter().position(|queue| queue.queue_id == 0).unwrap_or(0);
        producer.send(Message::new(&topic, body)).select_queue(to).await?;
        done.extend(gated.release(1).await?);
    }
    expect("messages", done.len(), 14)?;
    client.shutdown().await;
    Ok(())
}

async fn pulls_carry_subscription_and_size_and_rest_in_between(target: &Target) -> TestResult {
    let topic = target.topic("posted");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = writer(target, &client).await?;
    for number in 0..20 {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        producer
            .send(Message::new(&topic, format!("{number:02}")).tag(tag))
            .await?;
    }
    let builder = client
        .push_consumer(target.group("posted"))
        .subscribe(&topic, "even")
        .post_subscription(true)
        .pull_batch_size(3)
        .pull_batch_bytes(64 * 1024)
        .pull_interval(Duration::from_millis(5));
    let mut gated = Gated::start(builder).await?;
    let done: Vec<_> = gated.release(10).await?.into_iter().collect();
    let even: Vec<_> = (0..20).step_by(2).map(|number| format!("{number:02}")).collect();
    expect("messages", done, even)?;
    client.shutdown().await;
    Ok(())
}

async fn a_layer_chooses_what_the_handler_sees(target: &Target) -> TestResult {
    let topic = target.topic("chosen");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    fill(&writer(target, &client).await?, &topic, 1, 6, 0).await?;
    let builder = client
        .push_consumer(target.group("chosen"))
        .subscribe(&topic, "*")
        .layer(only(|message: &MessageView| {
            message.queue_offset() % 3 == 0 && !message.body().is_empty()
        }));
    let mut gated = Gated::start(builder).await?;
    let done: Vec<_> = gated.release(2).await?.into_iter().collect();
    expect("messages", done, ["0-0", "0-3"])?;
    let consumer = gated.consumer.clone();
    eventually("the others to count as acknowledged", async || {
        Ok(consumer.stats().acknowledged == 6)
    })
    .await?;
    client.shutdown().await;
    Ok(())
}
