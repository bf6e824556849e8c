use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::cluster::testing::{FakeRoutes, client, name_server_and_broker, route};
use crate::producer::testing::{Two, broker, message, ok, stored};
use crate::protocol::requests::{MaxOffset, Offset, SendMessageV2};
use crate::protocol::{Frame, Request, ResponseCode};
use crate::transport::fake::Answer;
use crate::{LatencyFaultTolerance, Message, Persisted, Producer, SendStatus};

/// Answers probes, and sends as the script says.
fn probed(
    script: impl Fn(&Frame) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Frame) -> Answer + Send + Sync {
    move |frame| match frame.code == MaxOffset::CODE.0 {
        true => Answer::with(Offset { offset: 0 }),
        false => script(frame),
    }
}

fn busy(_: &Frame) -> Answer {
    Answer::code(ResponseCode::SYSTEM_BUSY)
}

/// Says nothing while told so, not even to a probe.
fn frozen_while(frozen: &Arc<AtomicBool>) -> impl Fn(&Frame) -> Answer + Send + Sync + use<> {
    let frozen = Arc::clone(frozen);
    let awake = probed(ok);
    move |frame| match frozen.load(Ordering::SeqCst) {
        true => Answer::Silence,
        false => awake(frame),
    }
}

async fn brokers_used(producer: &Producer, sends: usize) -> HashSet<String> {
    let mut used = HashSet::new();
    for _ in 0..sends {
        let receipt = producer.send(message()).await.unwrap();
        used.insert(receipt.queue.broker_name.to_string());
    }
    used
}

#[tokio::test]
async fn clients_do_not_all_start_with_the_same_queue() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, ok).await;
    routes.set("t", route(&[("a", &server.address())], 64));
    let mut first = HashSet::new();
    // That ten clients take the same of 64 queues is no chance.
    for _ in 0..10 {
        let client = client(&server.address()).await;
        let producer = client.producer("g").start().await.unwrap();
        let receipt = producer.send(message()).await.unwrap();
        first.insert(receipt.queue.queue_id);
        client.shutdown().await;
    }
    assert!(first.len() > 1, "{first:?}");
}

#[tokio::test]
async fn an_ordering_key_says_the_queue_as_in_java_and_travels_with_the_message() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, ok).await;
    // As a name server may tell them: not sorted.
    routes.set(
        "t",
        route(&[("b", &server.address()), ("a", &server.address())], 4),
    );
    let client = client(&server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    // abs(hashCode % 8) of the queues a/0 .. a/3, b/0 .. b/3.
    for (key, broker, queue_id) in [
        ("user-1", "a", 1),
        ("polygenelubricants", "a", 0),
        ("ключ", "a", 2),
        ("key-\u{1F600}", "b", 3),
        ("\u{10400}\u{1F600}", "a", 2),
    ] {
        for _ in 0..2 {
            let receipt = producer.send(message()).ordering_key(key).await.unwrap();
            assert_eq!(receipt.queue, MessageQueue::new("t", broker, queue_id), "{key}");
        }
        let sent = server.requests_of::<SendMessageV2>().pop().unwrap();
        let properties = sent.properties.unwrap();
        assert!(
            properties.contains(&format!("__SHARDINGKEY\u{1}{key}")),
            "{properties:?}"
        );
    }
    // An explicit queue wins over the key.
    let queue = MessageQueue::new("t", "b", 0);
    let send = producer
        .send(message().sharding_key("user-1"))
        .to_queue(queue.clone());
    assert_eq!(send.await.unwrap().queue, queue);
}

#[tokio::test]
async fn the_key_of_an_ordered_topic_waits_for_its_broker_and_does_not_move() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, ok).await;
    let ordered = |brokers: &[(&str, &str)]| {
        let mut data = route(brokers, 8);
        data.order_topic_conf = Some("b:1;a:1".into());
        data
    };
    routes.set("t", ordered(&[("a", &server.address())]));
    let client = client(&server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    // Even hashes belong to b, odd ones to a.
    let even = || producer.send(message()).ordering_key("polygenelubricants");
    let error = even().timeout(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Connect, Persisted::No)
    );
    assert_eq!(
        error.to_string(),
        "send to topic t: broker b has no master at the moment, and the message has to go to a queue of it"
    );
    let odd = producer.send(message()).ordering_key("user-1").await.unwrap();
    assert_eq!(odd.queue, MessageQueue::new("t", "a", 0));
    // Without a key the message goes where it can.
    assert_eq!(brokers_used(&producer, 4).await, HashSet::from(["a".to_owned()]));

    let (sent, ()) = tokio::join!(even().timeout(Duration::from_secs(20)), async {
        routes.set(
            "t",
            ordered(&[("a", &server.address()), ("b", &server.address())]),
        );
    });
    assert_eq!(sent.unwrap().queue, MessageQueue::new("t", "b", 0));
}

#[tokio::test]
async fn what_has_to_go_to_one_queue_is_tried_again_there_and_nowhere_else() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    // Twice it fails, each time in another way.
    let flaky = move |frame: &Frame| match counted.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => Answer::code(ResponseCode::SYSTEM_ERROR),
        1 => Answer::Close,
        _ => ok(frame),
    };
    let two = Two::new(flaky, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let queue = || MessageQueue::new("t", "a", 0);
    let receipt = producer.send(message()).to_queue(queue()).await.unwrap();
    assert_eq!((receipt.queue, receipt.attempts), (queue(), 3));
    let asked = Arc::new(AtomicUsize::new(0));
    let asking = Arc::clone(&asked);
    let chosen = producer.send(message()).select_queue(move |_| {
        asking.fetch_add(1, Ordering::SeqCst);
        0
    });
    let receipt = chosen.detach().await.unwrap();
    assert_eq!((receipt.queue, receipt.attempts), (queue(), 3));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a selector is asked once");
    let keyed = producer
        .send(message())
        .ordering_key("polygenelubricants")
        .await
        .unwrap();
    assert_eq!((keyed.queue, keyed.attempts), (queue(), 3));
    assert_eq!(two.sent_to_b(), 0);
}

#[tokio::test]
async fn a_detached_send_is_tried_again_on_the_other_broker_after_a_refusal_or_no_answer() {
    for failure in [
        ResponseCode::SYSTEM_BUSY,
        ResponseCode::SYSTEM_ERROR,
        ResponseCode(-1),
    ] {
        let script = move |_: &Frame| match failure.0 {
            -1 => Answer::Silence,
            _ => Answer::code(failure),
        };
        let two = Two::new(script, ok).await;
        let client = client(&two.name_server.address()).await;
        let producer = client.producer("g").start().await.unwrap();
        let both: Vec<_> = (0..2).map(|_| producer.send(message()).detach()).collect();
        for handle in both {
            let receipt = handle.await.unwrap();
            assert_eq!(&*receipt.queue.broker_name, "b", "{failure}");
        }
        assert_eq!((two.sent_to_a(), two.sent_to_b()), (1, 2), "{failure}");
    }
}

#[tokio::test]
async fn a_frozen_broker_costs_no_send_and_gets_none_before_a_probe_is_answered() {
    let frozen = Arc::new(AtomicBool::new(true));
    let two = Two::new(frozen_while(&frozen), probed(ok)).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .attempt_timeout(Duration::from_millis(100))
        .detect_interval(Duration::from_millis(20))
        .detect_timeout(Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    assert_eq!(brokers_used(&producer, 20).await, HashSet::from(["b".to_owned()]));
    // Probes go on, messages do not come.
    two.a.asked::<MaxOffset>(3).await;
    assert_eq!(two.sent_to_a(), 1);
    frozen.store(false, Ordering::SeqCst);
    while !brokers_used(&producer, 2).await.contains("a") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_a_detector_a_broken_broker_is_tried_with_a_message_later() {
    let frozen = Arc::new(AtomicBool::new(true));
    let two = Two::new(frozen_while(&frozen), ok).await;
    let client = client(&two.name_server.address()).await;
    let table = LatencyFaultTolerance::new([(Duration::from_secs(5), Duration::from_millis(50))]);
    let producer = client
        .producer("g")
        .attempt_timeout(Duration::from_millis(100))
        .start_detector(false)
        .latency_fault_tolerance(table)
        .start()
        .await
        .unwrap();
    assert_eq!(brokers_used(&producer, 4).await, HashSet::from(["b".to_owned()]));
    frozen.store(false, Ordering::SeqCst);
    while !brokers_used(&producer, 2).await.contains("a") {
        tokio::task::yield_now().await;
    }
    assert!(two.a.requests_of::<MaxOffset>().is_empty());
}

#[tokio::test]
async fn with_fault_tolerance_a_slow_broker_comes_later_and_is_still_better_than_a_broken_one() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    // Everything that takes time at all counts as slow, for an hour.
    let slow = LatencyFaultTolerance::new([(Duration::ZERO, Duration::from_secs(3600))]);
    let producer = client
        .producer("g")
        .latency_fault_tolerance(slow)
        .start()
        .await
        .unwrap();
    let fast = client.producer("g2").start().await.unwrap();
    let first = producer.send(message()).await.unwrap().queue;
    let second = producer.send(message()).await.unwrap().queue;
    assert_ne!(first.broker_name, second.broker_name, "the first one is slow now");
    // Both are slow: they take turns again.
    assert_eq!(brokers_used(&producer, 4).await.len(), 2);
    // Answered in time, as another producer's table says: well again.
    fast.send(message()).to_queue(first.clone()).await.unwrap();
    let next = fast.send(message()).await.unwrap().queue;
    assert_eq!(next.broker_name, first.broker_name);

    let Two { a, b, .. } = two;
    let (dead, alive) = if &*first.broker_name == "a" {
        (a, b)
    } else {
        (b, a)
    };
    dead.kill().await;
    let before = alive.requests_of::<SendMessageV2>().len();
    brokers_used(&producer, 10).await;
    assert_eq!(alive.requests_of::<SendMessageV2>().len() - before, 10);
}

#[tokio::test]
async fn a_busy_broker_is_left_alone_while_another_one_takes_the_messages() {
    let two = Two::new(busy, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let handles: Vec<_> = (0..500).map(|_| producer.send(message()).detach()).collect();
    for handle in handles {
        assert_eq!(&*handle.await.unwrap().queue.broker_name, "b");
    }
    let crowd = two.sent_to_a();
    for _ in 0..200 {
        producer.send(message()).await.unwrap();
    }
    // What was already on its way is one refusal; what follows is one at a time, ever later.
    assert!(two.sent_to_a() - crowd < 20, "{} after {crowd}", two.sent_to_a());
}

#[tokio::test(start_paused = true)]
async fn while_all_are_busy_sends_wait_and_one_at_a_time_asks_until_they_are_not() {
    let answering = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (answers, counted) = (Arc::clone(&answering), Arc::clone(&asked));
    let only = broker(move |frame| {
        counted.fetch_add(1, Ordering::SeqCst);
        match answers.load(Ordering::SeqCst) {
            true => ok(frame),
            false => busy(frame),
        }
    })
    .await;
    let routes = FakeRoutes::default();
    let name_server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("a", &only.address())], 4));
    let client = client(&name_server.address()).await;
    let producer = client
        .producer("g")
        .max_attempts(1000)
        .send_timeout(Duration::from_secs(120))
        .start()
        .await
        .unwrap();
    let started = Instant::now();
    let handles: Vec<_> = (0..100).map(|_| producer.send(message()).detach()).collect();
    sleep_until(started + Duration::from_secs(60)).await;
    let attempts = asked.load(Ordering::SeqCst);
    assert!((60..=1200).contains(&attempts), "{attempts} in a minute");
    answering.store(true, Ordering::SeqCst);
    for handle in handles {
        handle.await.unwrap();
    }
    answering.store(false, Ordering::SeqCst);
    let brief = client
        .producer("g2")
        .send_timeout(Duration::from_secs(120))
        .start()
        .await
        .unwrap();
    let error = brief.send(message()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Busy, Persisted::No)
    );
    // Who comes now and never gets to ask is told why.
    let patience = Duration::from_millis(1);
    let error = producer.send(message()).timeout(patience).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Busy, 0), "{error}");
}

#[tokio::test]
async fn a_less_safe_state_is_an_error_if_that_is_wanted_and_is_not_sent_twice() {
    let unsafe_ = |frame: &Frame| stored(frame, ResponseCode::SLAVE_NOT_AVAILABLE);
    let two = Two::new(unsafe_, unsafe_).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let receipt = producer.send(message()).await.unwrap();
    assert_eq!(receipt.status, SendStatus::SlaveNotAvailable);
    let error = producer.send(message()).require_ok().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::NotDurable, Persisted::Yes)
    );
    assert_eq!((error.attempts(), two.sent_to_a() + two.sent_to_b()), (1, 2));
    assert!(error.to_string().contains("SLAVE_NOT_AVAILABLE"), "{error}");

    let strict = client
        .producer("g2")
        .require_ok(true)
        .retry_when_not_stored_ok(true)
        .max_attempts(2)
        .start()
        .await
        .unwrap();
    let error = strict.send(message()).detach().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::NotDurable, 2));
}

#[tokio::test]
async fn messages_go_to_retry_and_dead_letter_topics_too() {
    let two = Two::new(ok, ok).await;
    // No name server knows them yet, and the template has eight queues.
    two.routes.set("TBW102", route(&[("a", &two.a.address())], 8));
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    for topic in ["%RETRY%g", "%DLQ%g"] {
        for _ in 0..4 {
            let receipt = producer.send(Message::new(topic, "again")).await.unwrap();
            assert_eq!(receipt.queue, MessageQueue::new(topic, "a", 0));
        }
    }
}
