use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{self, Instant};

use super::*;
use crate::{Failure, conformance};

struct MemoryTarget(MemoryBinder);

impl MemoryTarget {
    fn new() -> Self {
        let builder = MemoryBinder::builder().max_attempts(conformance::MAX_ATTEMPTS);
        Self(builder.retry_delay(Duration::from_secs(1)).build())
    }
}

#[async_trait]
impl conformance::Target for MemoryTarget {
    async fn binder(&self) -> Arc<dyn Binder> {
        Arc::new(self.0.clone())
    }

    async fn unique(&self, base: &str) -> String {
        base.to_owned() // each test has a binder of its own
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn watch(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn dead_letters(&self, group: &str, _count: usize) -> Vec<Bytes> {
        self.0.idle().await;
        self.0
            .stored(&format!("%DLQ%{group}"))
            .iter()
            .map(|stored| stored.payload().clone())
            .collect()
    }
}

crate::binder_conformance!(MemoryTarget::new(), tokio::test(start_paused = true));

fn failing(reason: &'static str) -> DeliveryHandler {
    DeliveryHandler::new(tower::service_fn(move |_| async move {
        Ok::<_, crate::BoxError>(crate::Outcome::Failed(Failure::retry(reason)))
    }))
}

#[tokio::test(start_paused = true)]
async fn a_full_group_makes_senders_wait_and_then_fail() {
    let binder = MemoryBinder::builder().capacity(2).build();
    let outbound = binder.bind_producer(ProducerBinding::dynamic()).await.unwrap();
    let binding = ConsumerBinding::new("in", "topic", "group").auto_startup(false);
    let consumer = binder.bind_consumer(binding, failing("x")).await.unwrap();
    for _ in 0..2 {
        outbound.send("topic", Message::text("fits")).await.unwrap();
    }
    let error = outbound
        .send("topic", Message::text("too much"))
        .await
        .unwrap_err();
    assert_eq!(error.persisted(), Persisted::No);
    assert!(error.is_retryable());
    assert_eq!(binder.stored("topic").len(), 2);
    assert_eq!(consumer.stop(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_delays_of_retries_are_rocketmqs_levels() {
    let binder = MemoryBinder::builder().max_attempts(4).build();
    let outbound = binder.bind_producer(ProducerBinding::dynamic()).await.unwrap();
    let start = Instant::now();
    let consumer = binder
        .bind_consumer(ConsumerBinding::new("in", "t", "g"), failing("no luck"))
        .await
        .unwrap();
    outbound
        .send("t", Message::text("x").tag("vip").header("colour", "red"))
        .await
        .unwrap();
    binder.idle().await;
    assert_eq!(start.elapsed().as_secs(), 10 + 30 + 60);
    let [letter] = &binder.stored("%DLQ%g")[..] else {
        panic!("one dead letter")
    };
    let headers = letter.message().user_headers();
    assert_eq!(letter.message().tags(), Some("vip"));
    assert_eq!(headers.get("colour"), Some("red"));
    assert_eq!(headers.get("deadLetterReason"), Some("no luck"));
    assert_eq!(headers.get("deadLetterAttempts"), Some("4"));
    assert_eq!(headers.get("deadLetterTopic"), Some("t"));
    assert_eq!(letter.message_id(), binder.stored("t")[0].message_id());
    assert_eq!(consumer.stop(Duration::from_secs(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_keeps_only_its_last_messages() {
    let binder = MemoryBinder::builder().retained(3).build();
    let outbound = binder.bind_producer(ProducerBinding::dynamic()).await.unwrap();
    for n in 0..10 {
        outbound.send("t", Message::text(n.to_string())).await.unwrap();
    }
    let bodies: Vec<_> = binder
        .stored("t")
        .iter()
        .map(|stored| stored.payload().clone())
        .collect();
    assert_eq!(bodies, ["7", "8", "9"]);
}

#[tokio::test(start_paused = true)]
async fn idle_waits_for_the_last_redelivery() {
    let binder = MemoryBinder::builder()
        .max_attempts(2)
        .retry_delay(Duration::from_secs(60))
        .build();
    let outbound = binder.bind_producer(ProducerBinding::dynamic()).await.unwrap();
    let consumer = binder
        .bind_consumer(ConsumerBinding::new("in", "t", "g"), failing("x"))
        .await
        .unwrap();
    outbound.send("t", Message::text("x")).await.unwrap();
    assert!(
        time::timeout(Duration::from_secs(59), binder.idle())
            .await
            .is_err()
    );
    assert!(time::timeout(Duration::from_secs(2), binder.idle()).await.is_ok());
    drop(consumer);
}
