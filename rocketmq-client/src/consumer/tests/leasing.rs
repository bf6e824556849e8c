//! Messages that are acknowledged by hand, whenever and wherever.

use super::*;

/// A handler that hands its leases out.
fn leases() -> (
    impl Fn(Leased) -> std::future::Ready<()> + Send + Sync + 'static,
    mpsc::Receiver<Leased>,
) {
    let (sender, receiver) = mpsc::channel(1000);
    let handler = move |lease: Leased| {
        sender.try_send(lease).unwrap();
        std::future::ready(())
    };
    (handler, receiver)
}

#[tokio::test]
async fn the_offset_waits_for_the_lowest_lease() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c"]);
    let (handler, mut leases) = leases();
    let consumer = stage.builder().start_manual(handler).await.unwrap();
    let mut leased = Vec::new();
    for _ in 0..3 {
        leased.push(soon(leases.recv()).await.unwrap());
    }
    leased.sort_by_key(|lease| lease.queue_offset());
    let mut leased = leased.into_iter();
    let first = leased.next().unwrap();
    // The others are acknowledged on other threads, long after the handler has returned.
    let others = leased.map(|lease| tokio::task::spawn_blocking(move || lease.ack()));
    for other in others {
        other.await.unwrap();
    }
    until(|| consumer.stats().acknowledged == 2).await;
    assert_eq!(stage.commits().iter().max(), None);
    assert!(!first.is_expired());
    first.ack();
    let commits = soon(stage.broker.asked::<UpdateConsumerOffset>(1)).await;
    assert_eq!(commits[0].commit_offset, 3);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_lease_that_is_dropped_or_held_too_long_comes_again_as_the_policy_says() {
    let stage = Stage::new().await;
    stage.script.store(&["dropped", "held"]);
    let (handler, mut leases) = leases();
    let consumer = stage
        .builder()
        .retry_by_attempt(|attempt| Retry::Level(u8::try_from(attempt).unwrap() + 5))
        .consume_timeout(Duration::from_millis(300))
        .start_manual(handler)
        .await
        .unwrap();
    let mut held = None;
    for _ in 0..2 {
        let lease = soon(leases.recv()).await.unwrap();
        if lease.body() == "held" {
            held = Some(lease);
        }
    }
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(2)).await;
    assert!(backs.iter().all(|back| back.delay_level == 6), "{backs:?}");
    let held = held.unwrap();
    assert!(held.is_expired());
    held.ack();
    assert_eq!(consumer.stats().acknowledged, 0, "too late");
    consumer.shutdown().await;
    let stats = consumer.stats();
    assert_eq!(stats.retried, 2);
    assert_eq!(stage.commits().last(), Some(&2));
}

#[tokio::test]
async fn no_more_messages_are_leased_than_calls_are_allowed() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c"]);
    let (handler, mut leases) = leases();
    let consumer = stage
        .builder()
        .concurrency(2)
        .start_manual(handler)
        .await
        .unwrap();
    let first = soon(leases.recv()).await.unwrap();
    let second = soon(leases.recv()).await.unwrap();
    assert_eq!(consumer.stats().cached, 3);
    assert!(leases.try_recv().is_err(), "the third waits");
    second.ack();
    let third = soon(leases.recv()).await.unwrap();
    consumer.set_concurrency(1);
    third.reject("it is the third");
    first.retry(Retry::Level(2));
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(2)).await;
    let mut levels: Vec<_> = backs.iter().map(|back| back.delay_level).collect();
    levels.sort_unstable();
    assert_eq!(levels, [-1, 2]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_panics_has_lost_its_lease() {
    let stage = Stage::new().await;
    stage.script.store(&["a"]);
    let (sender, mut leases) = mpsc::channel(10);
    let consumer = stage
        .builder()
        .start_manual(move |lease: Leased| {
            let sender = sender.clone();
            async move {
                sender.send(lease).await.unwrap();
                panic!("on purpose");
            }
        })
        .await
        .unwrap();
    let lease = soon(leases.recv()).await.unwrap();
    soon(stage.broker.asked::<ConsumerSendMsgBack>(1)).await;
    assert!(lease.is_expired());
    lease.ack();
    consumer.shutdown().await;
    let stats = consumer.stats();
    assert_eq!((stats.panicked, stats.acknowledged), (1, 0));
}

#[tokio::test]
async fn what_a_dropped_stream_had_not_shown_is_no_failure() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b"]);
    let mut stream = stage.builder().stream().await.unwrap();
    let lease = soon(stream.next()).await.unwrap();
    drop(stream);
    lease.ack();
    assert_eq!(stage.broker.requests_of::<ConsumerSendMsgBack>(), []);
}
