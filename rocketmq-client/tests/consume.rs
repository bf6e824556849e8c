//! The push consumer on the embedded broker: what a user relies on, end to end.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says what it expects"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rocketmq_client::protocol::requests::{GetConsumerRunningInfo, QueryConsumerOffset, SendMessageV2};
use rocketmq_client::protocol::{PropertiesBuf, ResponseCode};
use rocketmq_client::{Client, ConsumeFrom, ErrorKind, MessageView, Outcome, PushConsumer, Retry};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::timeout;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const QUEUES: i32 = 4;

/// Far more than anything here takes; what waits longer has failed.
const LONG: Duration = Duration::from_secs(60);

struct Stage {
    broker: EmbeddedBroker,
    client: Client,
}

impl Stage {
    async fn new() -> Self {
        let broker = EmbeddedBroker::start().await.unwrap();
        let client = Client::connect(broker.name_server()).await.unwrap();
        Self { broker, client }
    }

    async fn another_client(&self) -> Client {
        Client::connect(self.broker.name_server()).await.unwrap()
    }

    async fn send(&self, queue_id: i32, body: &str) -> i64 {
        self.send_tagged(queue_id, body, None).await
    }

    async fn send_tagged(&self, queue_id: i32, body: impl Into<String>, tag: Option<&str>) -> i64 {
        let mut properties = PropertiesBuf::new();
        if let Some(tag) = tag {
            properties.set("TAGS", tag).unwrap();
        }
        let request = SendMessageV2 {
            producer_group: "shop".into(),
            topic: TOPIC.into(),
            default_topic: "TBW102".into(),
            default_topic_queue_nums: QUEUES,
            queue_id,
            sys_flag: 0,
            born_timestamp: 0,
            flag: 0,
            properties: Some(properties.into_string()),
            reconsume_times: None,
            unit_mode: None,
            max_reconsume_times: None,
            batch: None,
            broker_name: None,
            body: body.into().into(),
        };
        loop {
            let sent = self
                .client
                .call(self.broker.broker_address(), request.clone())
                .await;
            match sent {
                Ok(sent) => return sent.header.queue_offset,
                // The connection of before a restart; a new one is made by the next call.
                Err(error) if error.kind() == ErrorKind::Connect => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn committed(&self, queue_id: i32) -> Option<i64> {
        let request = QueryConsumerOffset {
            consumer_group: GROUP.into(),
            topic: TOPIC.into(),
            queue_id,
            set_zero_if_not_found: Some(false),
        };
        match self.client.call(self.broker.broker_address(), request).await {
            Ok(offset) => Some(offset.offset),
            Err(error) => {
                assert_eq!(error.response().unwrap().0, ResponseCode::QUERY_NOT_FOUND);
                None
            }
        }
    }
}

fn text(message: &MessageView) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// A handler that acknowledges everything and passes it on.
fn collector() -> (
    impl Fn(MessageView) -> std::future::Ready<()> + Send + Sync + Clone + 'static,
    mpsc::Receiver<MessageView>,
) {
    let (sender, receiver) = mpsc::channel(10_000);
    let handler = move |message| {
        sender.try_send(message).expect("the test has room for all");
        std::future::ready(())
    };
    (handler, receiver)
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> T {
    timeout(LONG, receiver.recv())
        .await
        .expect("something comes in time")
        .expect("the sender lives")
}

async fn start_collecting(client: &Client) -> (PushConsumer, mpsc::Receiver<MessageView>) {
    let (handler, received) = collector();
    let consumer = client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .start(handler)
        .await
        .unwrap();
    (consumer, received)
}

#[tokio::test]
async fn every_message_is_delivered_once_and_committed_at_the_shutdown() {
    let stage = Stage::new().await;
    for n in 0..200 {
        stage.send(n % QUEUES, &n.to_string()).await;
    }
    let (consumer, mut received) = start_collecting(&stage.client).await;
    let mut bodies = BTreeSet::new();
    for _ in 0..200 {
        assert!(bodies.insert(text(&next(&mut received).await)));
    }
    let report = consumer.shutdown().await;
    assert_eq!(report.handlers_cut_off, 0);
    assert_eq!(report.commits_unconfirmed, 0);
    for queue_id in 0..QUEUES {
        assert_eq!(stage.committed(queue_id).await, Some(50));
    }
    assert_eq!(consumer.stats().acknowledged, 200);
    assert!(received.try_recv().is_err());
    assert_eq!(
        consumer.shutdown().await,
        report,
        "a second shutdown tells the same"
    );
}

#[tokio::test]
async fn a_message_carries_what_the_producer_gave_it() {
    let stage = Stage::new().await;
    let offset = stage.send_tagged(2, "paid", Some("vip")).await;
    let (consumer, mut received) = start_collecting(&stage.client).await;
    let message = next(&mut received).await;
    assert_eq!((message.topic(), message.tag()), (TOPIC, Some("vip")));
    assert_eq!(message.body(), "paid");
    assert_eq!((message.queue().queue_id, message.queue_offset()), (2, offset));
    assert_eq!(message.attempt(), 1);
    consumer.shutdown().await;
}

#[tokio::test]
async fn only_wanted_tags_come_and_the_offset_passes_the_others() {
    let stage = Stage::new().await;
    // `Aa` and `BB` have the same hash in Java, so the broker lets `BB` through.
    for tag in ["Aa", "BB", "C", "Aa", "D"] {
        stage.send_tagged(0, tag, Some(tag)).await;
    }
    stage.send_tagged(0, "none", None).await;
    let (handler, mut received) = collector();
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "Aa || D")
        .consume_from(ConsumeFrom::First)
        .start(handler)
        .await
        .unwrap();
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(text(&next(&mut received).await));
    }
    tags.sort();
    assert_eq!(tags, ["Aa", "Aa", "D"]);
    consumer.shutdown().await;
    assert!(stage.committed(0).await >= Some(5));
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_topic_that_does_not_exist_yet_is_consumed_from_its_first_message() {
    let stage = Stage::new().await;
    let (handler, mut received) = collector();
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::Last)
        .start(handler)
        .await
        .unwrap();
    stage.send(0, "the first").await;
    assert_eq!(text(&next(&mut received).await), "the first");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_group_goes_on_where_it_stopped() {
    let stage = Stage::new().await;
    for n in 0..3 {
        stage.send(0, &n.to_string()).await;
    }
    let (consumer, mut received) = start_collecting(&stage.client).await;
    for _ in 0..3 {
        next(&mut received).await;
    }
    consumer.shutdown().await;
    stage.send(0, "while nobody was there").await;
    let (consumer, mut received) = start_collecting(&stage.client).await;
    assert_eq!(text(&next(&mut received).await), "while nobody was there");
    consumer.shutdown().await;
    assert_eq!(stage.committed(0).await, Some(4));
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_failed_message_comes_again_with_its_origin_and_its_neighbours_flow() {
    let stage = Stage::new().await;
    for body in ["good", "bad", "also good"] {
        stage.send_tagged(0, body, Some("vip")).await;
    }
    let (sender, mut received) = mpsc::channel(100);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let fails = text(&message) == "bad" && message.attempt() == 1;
                sender.send(message).await.unwrap();
                if fails {
                    Outcome::Retry(Retry::Level(1))
                } else {
                    Outcome::Ack
                }
            }
        })
        .await
        .unwrap();
    let mut attempts = BTreeMap::new();
    for _ in 0..4 {
        let message = next(&mut received).await;
        assert_eq!((message.topic(), message.tag()), (TOPIC, Some("vip")));
        attempts
            .entry(text(&message))
            .or_insert_with(Vec::new)
            .push(message.attempt());
    }
    assert_eq!(attempts["bad"], [1, 2]);
    assert_eq!(
        (&*attempts["good"], &*attempts["also good"]),
        (&[1][..], &[1][..])
    );
    assert_eq!(consumer.stats().retried, 1);
    consumer.shutdown().await;
    assert_eq!(stage.committed(0).await, Some(3));
}

#[tokio::test]
async fn a_message_that_always_fails_becomes_a_dead_letter_once() {
    let stage = Stage::new().await;
    stage.send(0, "poison").await;
    let deliveries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&deliveries);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .max_reconsume_times(1)
        .start(move |_: MessageView| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Outcome::Retry(Retry::After(Duration::from_millis(300))) }
        })
        .await
        .unwrap();
    let mut dead = dead_letters(&stage).await;
    assert_eq!(text(&next(&mut dead).await), "poison");
    assert_eq!(deliveries.load(Ordering::SeqCst), 2, "once, and one retry");
    consumer.shutdown().await;
    assert!(dead.try_recv().is_err());
    stage.client.shutdown().await;
}

/// Consumes the dead letters of the group, by a group of its own.
async fn dead_letters(stage: &Stage) -> mpsc::Receiver<MessageView> {
    let (handler, dead) = collector();
    let consumer = stage
        .client
        .push_consumer("undertaker")
        .subscribe(format!("%DLQ%{GROUP}"), "*")
        .consume_from(ConsumeFrom::First)
        .start(handler)
        .await
        .unwrap();
    // It lives as long as its client, which shuts it down.
    std::mem::forget(consumer);
    dead
}

#[tokio::test]
async fn a_rejected_message_is_a_dead_letter_at_once() {
    let stage = Stage::new().await;
    stage.send(0, "nonsense").await;
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .start(|_: MessageView| async { Outcome::Reject("it makes no sense".into()) })
        .await
        .unwrap();
    let mut dead = dead_letters(&stage).await;
    let message = next(&mut dead).await;
    assert_eq!(text(&message), "nonsense");
    let stats = consumer.stats();
    assert_eq!((stats.rejected, stats.retried, stats.acknowledged), (1, 0, 0));
    stage.client.shutdown().await;
}

#[tokio::test]
async fn a_panic_is_one_failed_delivery_and_the_worker_lives_on() {
    let stage = Stage::new().await;
    for n in 0..20 {
        stage.send(0, &n.to_string()).await;
    }
    let (sender, mut received) = mpsc::channel(100);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(1)
        .start(move |message: MessageView| {
            assert!(text(&message) != "3" || message.attempt() > 1, "on purpose");
            let sender = sender.clone();
            async move {
                assert!(text(&message) != "7" || message.attempt() > 1, "on purpose");
                sender.send(text(&message)).await
            }
        })
        .await
        .unwrap();
    let mut bodies = BTreeSet::new();
    for _ in 0..18 {
        bodies.insert(next(&mut received).await);
    }
    assert_eq!(bodies.len(), 18);
    assert_eq!(consumer.stats().panicked, 2);
    consumer.shutdown().await;
    assert_eq!(stage.committed(0).await, Some(20));
}

#[tokio::test]
async fn a_handler_that_hangs_is_cut_off_and_frees_its_slot() {
    let stage = Stage::new().await;
    stage.send(0, "hang").await;
    stage.send(0, "go").await;
    let (sender, mut received) = mpsc::channel(100);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(1)
        .consume_timeout(Duration::from_millis(100))
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                if text(&message) == "hang" {
                    std::future::pending::<()>().await;
                }
                sender.send(text(&message)).await
            }
        })
        .await
        .unwrap();
    assert_eq!(next(&mut received).await, "go");
    assert_eq!(consumer.stats().timed_out, 1);
    consumer.shutdown().await;
    assert_eq!(
        stage.committed(0).await,
        Some(2),
        "the broker has the message that hung"
    );
}

#[tokio::test]
async fn a_handler_cut_off_by_the_shutdown_leaves_its_message_to_the_next_consumer() {
    let stage = Stage::new().await;
    for body in ["done", "unfinished", "never started"] {
        stage.send(0, body).await;
    }
    let started = Arc::new(Notify::new());
    let signal = Arc::clone(&started);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(1)
        .start(move |message: MessageView| {
            let signal = Arc::clone(&signal);
            async move {
                if text(&message) == "unfinished" {
                    signal.notify_one();
                    std::future::pending::<()>().await;
                }
            }
        })
        .await
        .unwrap();
    timeout(LONG, started.notified()).await.unwrap();
    let report = consumer.shutdown_within(Duration::from_millis(50)).await;
    assert_eq!(report.handlers_cut_off, 1);
    assert_eq!(stage.committed(0).await, Some(1));
    let (consumer, mut received) = start_collecting(&stage.client).await;
    let mut bodies = vec![text(&next(&mut received).await), text(&next(&mut received).await)];
    bodies.sort();
    assert_eq!(bodies, ["never started", "unfinished"]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_waits_for_running_handlers() {
    let stage = Stage::new().await;
    for body in ["slow", "never started", "neither"] {
        stage.send(0, body).await;
    }
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (signal, gate) = (Arc::clone(&started), Arc::clone(&release));
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(1)
        .start(move |_: MessageView| {
            let (signal, gate) = (Arc::clone(&signal), Arc::clone(&gate));
            async move {
                signal.notify_one();
                gate.notified().await;
            }
        })
        .await
        .unwrap();
    timeout(LONG, started.notified()).await.unwrap();
    let (report, ()) = tokio::join!(consumer.shutdown(), async { release.notify_one() });
    assert_eq!(report.handlers_cut_off, 0);
    assert_eq!(consumer.stats().acknowledged, 1, "nothing new is started");
    assert_eq!(stage.committed(0).await, Some(1));
}

#[tokio::test]
async fn two_members_share_the_queues_and_one_takes_over_from_the_other() {
    let stage = Stage::new().await;
    stage.send(0, "before").await;
    let (first, mut to_first) = start_collecting(&stage.client).await;
    next(&mut to_first).await;
    let other_client = stage.another_client().await;
    let (second, mut to_second) = start_collecting(&other_client).await;
    while owned(&first).len() != 2 || owned(&second).len() != 2 {
        tokio::task::yield_now().await;
    }
    let all: BTreeSet<i32> = owned(&first).union(&owned(&second)).copied().collect();
    assert_eq!(all, (0..QUEUES).collect());
    for queue_id in 0..QUEUES {
        stage.send(queue_id, &format!("shared {queue_id}")).await;
    }
    for _ in 0..2 {
        assert!(owned(&first).contains(&next(&mut to_first).await.queue().queue_id));
        assert!(owned(&second).contains(&next(&mut to_second).await.queue().queue_id));
    }
    first.shutdown().await;
    for queue_id in 0..QUEUES {
        stage.send(queue_id, &format!("taken over {queue_id}")).await;
    }
    let mut bodies = BTreeSet::new();
    while bodies.len() < 4 {
        let body = text(&next(&mut to_second).await);
        assert!(
            body.starts_with("taken over"),
            "{body} was committed before the hand-over"
        );
        bodies.insert(body);
    }
    second.shutdown().await;
    other_client.shutdown().await;
}

/// The numbers of the queues of the topic that a member owns.
fn owned(consumer: &PushConsumer) -> BTreeSet<i32> {
    let queues = consumer.stats().queues;
    let mine = queues.iter().filter(|queue| &*queue.topic == TOPIC);
    mine.map(|queue| queue.queue_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_that_come_and_go_lose_nothing() {
    const MESSAGES: usize = 3000;
    let stage = Stage::new().await;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let join = async |client: &Client| {
        let seen = Arc::clone(&seen);
        client
            .push_consumer(GROUP)
            .subscribe(TOPIC, "*")
            .consume_from(ConsumeFrom::First)
            .commit_interval(Duration::from_millis(50))
            .start(move |message: MessageView| {
                let seen = Arc::clone(&seen);
                async move {
                    let number: usize = text(&message).parse().unwrap();
                    tokio::task::yield_now().await;
                    // Some messages take the way over the retry topic.
                    if number % 500 == 7 && message.attempt() == 1 {
                        return Outcome::Retry(Retry::Level(1));
                    }
                    seen.lock().unwrap().insert(number);
                    Outcome::Ack
                }
            })
            .await
            .unwrap()
    };
    let send = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let queue_id = i32::try_from(number).unwrap() % QUEUES;
            stage.send(queue_id, &number.to_string()).await;
        }
    };
    send(0..100).await;
    let steady = join(&stage.client).await;
    for round in 0..5 {
        let client = stage.another_client().await;
        let other = join(&client).await;
        send(100 + round * 580..100 + (round + 1) * 580).await;
        if round % 2 == 0 {
            assert_eq!(other.shutdown().await.handlers_cut_off, 0);
        }
        // Else it goes without a word.
        drop(other);
        client.shutdown().await;
    }
    let all_seen = async {
        while seen.lock().unwrap().len() < MESSAGES {
            tokio::task::yield_now().await;
        }
    };
    let complete = timeout(LONG, all_seen).await;
    let missing: Vec<_> = (0..MESSAGES)
        .filter(|number| !seen.lock().unwrap().contains(number))
        .collect();
    assert!(complete.is_ok(), "{missing:?} are missing; {:?}", steady.stats());
    steady.shutdown().await;
}

#[tokio::test]
async fn a_dropped_consumer_leaves_the_group() {
    let stage = Stage::new().await;
    stage.send(0, "before").await;
    let other_client = stage.another_client().await;
    let (other, mut received) = start_collecting(&other_client).await;
    next(&mut received).await;
    let (dropped, _) = start_collecting(&stage.client).await;
    while owned(&other).len() != 2 {
        tokio::task::yield_now().await;
    }
    drop(dropped);
    while owned(&other).len() != 4 {
        tokio::task::yield_now().await;
    }
    other.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_comes_back_is_consumed_from_where_it_was_left() {
    let stage = Stage::new().await;
    for n in 0..10 {
        stage.send(n % QUEUES, &format!("before {n}")).await;
    }
    let (consumer, mut received) = start_collecting(&stage.client).await;
    let mut bodies = BTreeSet::new();
    while bodies.len() < 10 {
        bodies.insert(text(&next(&mut received).await));
    }
    stage.broker.kill().await;
    stage.broker.restart().await.unwrap();
    for n in 0..10 {
        stage.send(n % QUEUES, &format!("after {n}")).await;
    }
    while bodies.len() < 20 {
        bodies.insert(text(&next(&mut received).await));
    }
    let report = consumer.shutdown().await;
    assert_eq!(report.commits_unconfirmed, 0);
}

#[tokio::test]
async fn a_paused_consumer_pulls_nothing_until_it_resumes() {
    let stage = Stage::new().await;
    stage.send(0, "before").await;
    let (consumer, mut received) = start_collecting(&stage.client).await;
    next(&mut received).await;
    consumer.pause();
    assert!(consumer.is_paused());
    // A pull that is under way may still bring the first message that comes.
    for n in 0..100 {
        stage.send(0, &n.to_string()).await;
    }
    let taken_in = consumer.stats().received;
    assert!(taken_in < 101, "{taken_in}");
    consumer.resume();
    let mut bodies = BTreeSet::new();
    while bodies.len() < 100 {
        bodies.insert(text(&next(&mut received).await));
    }
    consumer.shutdown().await;
}

#[tokio::test]
async fn the_concurrency_can_change_while_it_runs() {
    let stage = Stage::new().await;
    for n in 0..40 {
        stage.send(n % QUEUES, "x").await;
    }
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut running) = mpsc::channel(100);
    let pass = Arc::clone(&gate);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(2)
        .start(move |_: MessageView| {
            let (pass, sender) = (Arc::clone(&pass), sender.clone());
            async move {
                sender.send(()).await.unwrap();
                pass.acquire().await.unwrap().forget();
            }
        })
        .await
        .unwrap();
    for _ in 0..2 {
        next(&mut running).await;
    }
    consumer.set_concurrency(5);
    for _ in 0..3 {
        next(&mut running).await;
    }
    assert_eq!(consumer.concurrency(), 5);
    consumer.set_concurrency(1);
    gate.add_permits(40);
    for _ in 0..35 {
        next(&mut running).await;
    }
    assert_eq!(consumer.shutdown().await.handlers_cut_off, 0);
    assert_eq!(consumer.stats().acknowledged, 40);
}

#[tokio::test]
async fn never_more_handlers_run_than_wanted_however_the_number_changes() {
    let stage = Stage::new().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sender, mut handled) = mpsc::channel(1000);
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .concurrency(4)
        .start(move |_: MessageView| {
            let (now, peak, sender) = (Arc::clone(&now), Arc::clone(&peak), sender.clone());
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                sender.send(()).await.unwrap();
            }
        })
        .await
        .unwrap();
    for wanted in [1, 3, 2, 4] {
        consumer.set_concurrency(wanted);
        if wanted == 1 {
            most.store(0, Ordering::SeqCst);
        }
        for n in 0..20 {
            stage.send(n % QUEUES, "x").await;
        }
        for _ in 0..20 {
            next(&mut handled).await;
        }
        if wanted == 1 {
            assert_eq!(most.load(Ordering::SeqCst), 1);
        }
        // Up and down again while they may be running.
        consumer.set_concurrency(1);
        consumer.set_concurrency(4);
    }
    assert!(most.load(Ordering::SeqCst) <= 4);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_stream_leases_messages_until_they_are_decided() {
    let stage = Stage::new().await;
    for body in ["ack", "retry", "reject", "drop"] {
        stage.send(0, body).await;
    }
    let mut stream = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .stream()
        .await
        .unwrap();
    for _ in 0..4 {
        let lease = timeout(LONG, stream.next()).await.unwrap().unwrap();
        match &*text(&lease) {
            "ack" => lease.ack(),
            "retry" => lease.retry(Retry::Level(1)),
            "reject" => lease.reject("no"),
            _ => drop(lease),
        }
    }
    let again = timeout(LONG, stream.next()).await.unwrap().unwrap();
    assert_eq!((&*text(&again), again.attempt()), ("retry", 2));
    again.ack();
    let consumer = stream.consumer().clone();
    consumer.shutdown().await;
    assert!(stream.next().await.is_none());
    let stats = consumer.stats();
    assert_eq!((stats.acknowledged, stats.rejected, stats.retried), (2, 1, 2));
    assert_eq!(stage.committed(0).await, Some(4));
}

#[tokio::test]
async fn a_dropped_stream_ends_its_consumer_and_keeps_what_was_not_decided() {
    let stage = Stage::new().await;
    stage.send(0, "undecided").await;
    let mut stream = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .stream()
        .await
        .unwrap();
    let lease = timeout(LONG, stream.next()).await.unwrap().unwrap();
    drop(stream);
    drop(lease);
    let other_client = stage.another_client().await;
    let (consumer, mut received) = start_collecting(&other_client).await;
    let message = next(&mut received).await;
    assert_eq!((&*text(&message), message.attempt()), ("undecided", 1));
    consumer.shutdown().await;
}

#[tokio::test]
async fn layers_are_around_the_handler_and_their_errors_are_failed_deliveries() {
    let stage = Stage::new().await;
    stage.send(0, "slow once").await;
    let (handler, mut received) = collector();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (outer, inner) = (Arc::clone(&log), Arc::clone(&log));
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .layer(tower::util::MapRequestLayer::new(move |message: MessageView| {
            outer.lock().unwrap().push("outer");
            message
        }))
        .layer(tower::util::MapResultLayer::new(
            move |result: Result<Outcome, rocketmq_client::BoxError>| {
                let mut log = inner.lock().unwrap();
                log.push("inner");
                if log.len() == 2 {
                    return Err("the first time fails".into());
                }
                result
            },
        ))
        .start(handler)
        .await
        .unwrap();
    next(&mut received).await;
    let deadline = tokio::time::Instant::now() + LONG;
    while consumer.stats().retried == 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    consumer.shutdown().await;
    assert_eq!(*log.lock().unwrap(), ["outer", "inner"]);
}

#[tokio::test]
async fn the_cache_keeps_to_its_bytes_while_handlers_are_slow() {
    const LIMIT: usize = 256 * 1024;
    let stage = Stage::new().await;
    for n in 0..400 {
        stage.send_tagged(n % QUEUES, "x".repeat(4096), None).await;
    }
    let gate = Arc::new(Semaphore::new(0));
    let (sender, mut running) = mpsc::channel(1000);
    let pass = Arc::clone(&gate);
    let consumer = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(1)
        .max_cached_bytes(LIMIT)
        .start(move |_: MessageView| {
            let (pass, sender) = (Arc::clone(&pass), sender.clone());
            async move {
                sender.send(()).await.unwrap();
                pass.acquire().await.unwrap().forget();
            }
        })
        .await
        .unwrap();
    // One response of each queue may come on top.
    let bound = LIMIT + usize::try_from(QUEUES).unwrap() * 32 * 4400;
    for _ in 0..400 {
        next(&mut running).await;
        let held = consumer.stats().cached_bytes;
        assert!(held <= bound, "{held} bytes are above {bound}");
        gate.add_permits(1);
    }
    consumer.shutdown().await;
    assert_eq!(consumer.stats().cached_bytes, 0);
}

#[tokio::test]
async fn everything_wrong_with_the_options_is_reported_at_once() {
    let stage = Stage::new().await;
    let (handler, _) = collector();
    let error = stage
        .client
        .push_consumer("bad group!")
        .subscribe("bad topic!", "a || *")
        .concurrency(0)
        .pull_batch_size(5000)
        .start(handler.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    for part in [
        "bad group!",
        "bad topic!",
        "use `*` alone",
        "concurrency is 0",
        "pull_batch_size is 5000",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let error = stage
        .client
        .push_consumer(GROUP)
        .start(handler)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no topic is subscribed to"), "{error}");
}

#[tokio::test]
async fn a_client_has_one_consumer_of_a_group() {
    let stage = Stage::new().await;
    stage.send(0, "x").await;
    let (first, mut received) = start_collecting(&stage.client).await;
    let (handler, _) = collector();
    let error = stage
        .client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .start(handler)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    next(&mut received).await;
    stage.send(1, "y").await;
    assert_eq!(
        text(&next(&mut received).await),
        "y",
        "the first one is not disturbed"
    );
    first.shutdown().await;
    // After the shutdown the group is free.
    let (again, _) = start_collecting(&stage.client).await;
    again.shutdown().await;
}

#[tokio::test]
async fn members_that_subscribe_differently_are_found_out() {
    let stage = Stage::new().await;
    stage.send(0, "x").await;
    let start = async |client: &Client, filter: &str| {
        let (handler, _) = collector();
        client
            .push_consumer(GROUP)
            .subscribe(TOPIC, filter)
            .rebalance_interval(Duration::from_millis(250))
            .paused(true)
            .start(handler)
            .await
            .unwrap()
    };
    let first = start(&stage.client, "vip").await;
    let other_client = stage.another_client().await;
    let second = start(&other_client, "late").await;
    // The newer subscription holds, so it is the older member that sees a difference.
    let found_out = async {
        while first.stats().subscription_conflicts == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, found_out).await.unwrap();
    assert_eq!(second.stats().subscription_conflicts, 0);
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn an_operator_can_ask_what_the_consumer_does() {
    let stage = Stage::new().await;
    stage.send(0, "x").await;
    let (consumer, mut received) = start_collecting(&stage.client).await;
    next(&mut received).await;
    let request = GetConsumerRunningInfo {
        consumer_group: GROUP.into(),
        client_id: stage.client.client_id().into(),
        jstack_enable: Some(false),
    };
    match stage.client.call(stage.broker.broker_address(), request).await {
        Ok(info) => {
            assert_eq!(
                info.0.properties.get("consumerGroup").map(String::as_str),
                Some(GROUP)
            );
            assert!(info.0.mq_table.0.keys().any(|queue| &*queue.topic == TOPIC));
        }
        // A broker that does not pass the question on.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
    consumer.shutdown().await;
}
