//! The RocketMQ binder against the embedded broker: the conformance suite of the SPI, and what is RocketMQ's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rocketmq_client::protocol::bodies::{TopicFilterType, permission};
use rocketmq_client::protocol::requests::CreateTopic;
use rocketmq_client::{Client, ConsumeFrom, Message as Plain, MessageView};
use rocketmq_embedded_broker::EmbeddedBroker;
use stream_binder::config::Config;
use stream_binder::conformance::{MAX_ATTEMPTS, Target};
use stream_binder::{
    Binder, BoxError, ConsumerBinding, Delivery, DeliveryHandler, Failure, Message, Outcome, Persisted,
    ProducerBinding, RocketMqBinder, SendStatus,
};
use tokio::sync::mpsc;
use tokio::time;

type TestResult = Result<(), BoxError>;

/// How long to wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Embedded {
    broker: EmbeddedBroker,
    names: AtomicUsize,
}

impl Embedded {
    async fn start() -> Self {
        Self::new(EmbeddedBroker::start().await.expect("a port"))
    }

    fn new(broker: EmbeddedBroker) -> Self {
        Self {
            broker,
            names: AtomicUsize::new(0),
        }
    }

    /// A configuration with these keys of `spring.cloud.stream.rocketmq`, in YAML's flow style.
    fn config(&self, rocketmq: &str) -> Config {
        Config::builder()
            .yaml(format!("stream.rocketmq: {rocketmq}"))
            .set("stream.rocketmq.binder.name-server", self.broker.name_server())
            .load()
            .expect("a valid configuration")
    }

    async fn binder_with(&self, rocketmq: &str) -> Arc<dyn Binder> {
        let binder = RocketMqBinder::connect(&self.config(rocketmq)).await;
        Arc::new(binder.expect("a reachable name server"))
    }

    async fn create_topic(&self, name: &str) -> TestResult {
        let client = Client::connect(self.broker.name_server()).await?;
        let request = CreateTopic {
            topic: name.to_owned(),
            default_topic: "TBW102".to_owned(),
            read_queue_nums: 4,
            write_queue_nums: 4,
            perm: permission::READ | permission::WRITE,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_sys_flag: Some(0),
            order: false,
            attributes: None,
        };
        client.call(self.broker.broker_address(), request).await?;
        client.shutdown().await;
        Ok(())
    }

    /// The next `count` messages of a topic, as many as come while patience lasts.
    async fn read(&self, topic: &str, count: usize) -> Result<Vec<MessageView>, BoxError> {
        let client = Client::connect(self.broker.name_server()).await?;
        let (sender, mut received) = mpsc::channel(64);
        let consumer = client
            .push_consumer(format!("reader-{}", self.names.fetch_add(1, Ordering::Relaxed)))
            .subscribe(topic, "*")
            .consume_from(ConsumeFrom::First)
            .start(move |view| {
                let sender = sender.clone();
                async move { sender.send(view).await }
            })
            .await?;
        let mut views = Vec::new();
        while views.len() < count {
            match time::timeout(PATIENCE, received.recv()).await {
                Ok(Some(view)) => views.push(view),
                Ok(None) | Err(_) => break,
            }
        }
        consumer.shutdown().await;
        client.shutdown().await;
        Ok(views)
    }
}

#[async_trait]
impl Target for Embedded {
    async fn binder(&self) -> Arc<dyn Binder> {
        let retries = MAX_ATTEMPTS - 1;
        self.binder_with(&format!(
            "{{default.consumer: {{consume-from-where: CONSUME_FROM_FIRST_OFFSET, push: {{max-reconsume-times: {retries}, \
             delay-level-when-next-consume: 1}}}}}}"
        ))
        .await
    }

    async fn unique(&self, base: &str) -> String {
        let name = format!("{base}-{}", self.names.fetch_add(1, Ordering::Relaxed));
        self.create_topic(&name).await.expect("the broker creates topics");
        name
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn watch(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn dead_letters(&self, group: &str, count: usize) -> Vec<Bytes> {
        let views = self
            .read(&format!("%DLQ%{group}"), count)
            .await
            .expect("a readable topic");
        views.iter().map(|view| view.body().clone()).collect()
    }
}

stream_binder::binder_conformance!(
    Embedded::start().await,
    tokio::test(flavor = "multi_thread", worker_threads = 2)
);

/// A handler that hands every delivery to the test and answers with `outcome`.
fn recording(outcome: fn() -> Outcome) -> (DeliveryHandler, mpsc::Receiver<Delivery>) {
    let (sender, received) = mpsc::channel(64);
    let handler = DeliveryHandler::new(tower::service_fn(move |delivery| {
        let sender = sender.clone();
        async move {
            sender.send(delivery).await.map_err(|_| "the test is over")?;
            Ok::<_, BoxError>(outcome())
        }
    }));
    (handler, received)
}

async fn next(received: &mut mpsc::Receiver<Delivery>) -> Result<Delivery, BoxError> {
    Ok(time::timeout(PATIENCE, received.recv())
        .await?
        .ok_or("the binder let go of the handler")?)
}

#[tokio::test]
async fn only_the_tags_of_the_subscription_arrive() -> TestResult {
    let target = Embedded::start().await;
    let topic = target.unique("tags").await;
    let yaml = "{default.consumer: {consume-from-where: CONSUME_FROM_FIRST_OFFSET, subscription: 'a || c'}}";
    let binder = target.binder_with(yaml).await;
    let sender = binder.bind_producer(ProducerBinding::dynamic()).await?;
    for tag in ["a", "b", "c"] {
        sender.send(&topic, Message::text(tag).tag(tag)).await?;
    }
    let (handler, mut received) = recording(|| Outcome::Ack);
    let consumer = binder
        .bind_consumer(ConsumerBinding::new("f-in-0", topic, "tags"), handler)
        .await?;
    let mut tags = Vec::new();
    for _ in 0..2 {
        tags.push(
            next(&mut received)
                .await?
                .meta()
                .tags()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    tags.sort();
    assert_eq!(tags, ["a", "c"]);
    assert_eq!(consumer.stop(PATIENCE).await, 0);
    assert!(received.try_recv().is_err(), "nothing else was delivered");
    binder.shutdown(PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn a_plain_client_and_the_binder_read_each_other() -> TestResult {
    let target = Embedded::start().await;
    let (to_binder, to_client) = (target.unique("in").await, target.unique("out").await);
    let binder = target.binder().await;

    let client = Client::connect(target.broker.name_server()).await?;
    let producer = client.producer("plain").start().await?;
    let message = Plain::new(to_binder.as_str(), "body")
        .tag("vip")
        .key("k1")
        .key("k2")
        .property("colour", "你好")
        .flag(7);
    let receipt = producer.send(message).await?;
    let (handler, mut received) = recording(|| Outcome::Ack);
    let binding = ConsumerBinding::new("f-in-0", to_binder.as_str(), "readers");
    let consumer = binder.bind_consumer(binding, handler).await?;
    let delivery = next(&mut received).await?;
    assert_eq!(delivery.meta().message_id(), receipt.message_id);
    assert_eq!(delivery.header("ROCKET_TAGS").as_deref(), Some("vip"));
    assert_eq!(delivery.header("ROCKET_KEYS").as_deref(), Some("k1 k2"));
    assert_eq!(delivery.header("ROCKET_MQ_FLAG").as_deref(), Some("7"));
    assert_eq!(
        delivery.headers().iter().collect::<Vec<_>>(),
        [("colour", "你好")]
    );

    let sender = binder
        .bind_producer(ProducerBinding::new("f-out-0", to_client.as_str()))
        .await?;
    let sent = Message::json(&42)?
        .tag("vip")
        .key("k1")
        .header("colour", "red")
        .header("DELAY", "1");
    let receipt = sender.send(&to_client, sent).await?;
    assert_eq!(receipt.status, SendStatus::Ok);
    let views = target.read(&to_client, 1).await?;
    let view = views.first().ok_or("the delayed message never came")?;
    assert_eq!(
        (view.body().as_ref(), view.tag(), view.message_id().as_str()),
        (b"42".as_slice(), Some("vip"), &*receipt.message_id)
    );
    assert_eq!(view.property("contentType"), Some("application/json"));
    assert_eq!(view.property("colour"), Some("red"));
    assert_eq!(
        (view.property("id"), view.property("timestamp")),
        (None, None),
        "no noise on the wire"
    );

    consumer.stop(PATIENCE).await;
    client.shutdown().await;
    binder.shutdown(PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn the_policy_of_a_binding_can_dead_letter_the_first_failure() -> TestResult {
    let target = Embedded::start().await;
    let topic = target.unique("once").await;
    let yaml = "{default.consumer: {consume-from-where: CONSUME_FROM_FIRST_OFFSET, push.delay-level-when-next-consume: -1}}";
    let binder = target.binder_with(yaml).await;
    let (handler, mut received) = recording(|| Outcome::Failed(Failure::retry("always")));
    let consumer = binder
        .bind_consumer(ConsumerBinding::new("f-in-0", topic.as_str(), "once"), handler)
        .await?;
    let sender = binder.bind_producer(ProducerBinding::dynamic()).await?;
    sender.send(&topic, Message::text("x")).await?;
    next(&mut received).await?;
    assert_eq!(target.read("%DLQ%once", 1).await?.len(), 1);
    consumer.stop(PATIENCE).await;
    assert!(received.try_recv().is_err(), "it was delivered once");
    binder.shutdown(PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn sends_that_nobody_waits_for_are_stored_and_say_that_they_are_unconfirmed() -> TestResult {
    let target = Embedded::start().await;
    for send_type in ["Async", "OneWay"] {
        let topic = target.unique(send_type).await;
        let binder = target
            .binder_with(&format!("{{bindings.f-out-0.producer.send-type: {send_type}}}"))
            .await;
        let sender = binder
            .bind_producer(ProducerBinding::new("f-out-0", topic.as_str()))
            .await?;
        let receipt = sender.send(&topic, Message::text("x")).await?;
        assert_eq!(receipt.status, SendStatus::Unconfirmed, "{send_type}");
        assert_eq!(target.read(&topic, 1).await?.len(), 1, "{send_type}");
        binder.shutdown(PATIENCE).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_body_above_the_limit_of_its_binding_is_refused_for_good() -> TestResult {
    let target = Embedded::start().await;
    let binder = target
        .binder_with("{bindings.f-out-0.producer.max-message-size: 10}")
        .await;
    let small = binder.bind_producer(ProducerBinding::new("f-out-0", "t")).await?;
    let error = small
        .send("t", Message::text("x".repeat(11)))
        .await
        .expect_err("too large");
    assert!(
        !error.is_retryable() && error.to_string().contains("11 bytes"),
        "{error}"
    );
    let usual = binder.bind_producer(ProducerBinding::new("g-out-0", "t")).await?;
    usual.send("t", Message::text("x".repeat(11))).await?;
    binder.shutdown(PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn a_topic_that_nobody_may_create_is_named_by_the_failed_send() -> TestResult {
    let broker = EmbeddedBroker::builder()
        .auto_create_topics(false)
        .start()
        .await?;
    let target = Embedded::new(broker);
    let binder = target.binder().await;
    let sender = binder.bind_producer(ProducerBinding::dynamic()).await?;
    let error = sender
        .send("nowhere", Message::text("x"))
        .await
        .expect_err("no such topic");
    assert_eq!(error.persisted(), Persisted::No);
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert!(
        error.to_string().contains("create"),
        "the remedy is missing: {error}"
    );
    binder.shutdown(PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn an_unreachable_name_server_is_named_with_the_place_it_was_configured_at() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let yaml = format!("stream:\n  rocketmq.binder.name-server: {address}\n");
    let config = Config::from_yaml(&yaml).expect("valid");
    let error = RocketMqBinder::connect(&config)
        .await
        .expect_err("nobody listens")
        .to_string();
    assert!(error.contains(&address), "{error}");
    assert!(
        error.contains("spring.cloud.stream.rocketmq.binder.name-server (<yaml>:2)"),
        "{error}"
    );
}

#[cfg(not(feature = "embedded"))]
#[tokio::test]
async fn without_a_name_server_the_error_says_where_to_set_one() {
    let config = Config::from_yaml("").expect("valid");
    let error = RocketMqBinder::connect(&config)
        .await
        .expect_err("no name server")
        .to_string();
    assert!(
        error.contains("NAMESRV_ADDR") && error.contains("rocketmq.binder.name-server"),
        "{error}"
    );
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn without_a_name_server_a_broker_runs_in_this_process_until_the_shutdown() -> TestResult {
    let config =
        Config::from_yaml("stream.rocketmq.default.consumer.consume-from-where: CONSUME_FROM_FIRST_OFFSET")?;
    let binder = RocketMqBinder::connect(&config).await?;
    let sender = binder.bind_producer(ProducerBinding::dynamic()).await?;
    let receipt = sender.send("t", Message::text("x")).await?;
    let (handler, mut received) = recording(|| Outcome::Ack);
    let consumer = binder
        .bind_consumer(ConsumerBinding::new("f-in-0", "t", "g"), handler)
        .await?;
    assert_eq!(
        next(&mut received).await?.meta().message_id(),
        &*receipt.message_id
    );
    assert_eq!(consumer.stop(PATIENCE).await, 0);
    binder.shutdown(PATIENCE).await;
    binder.shutdown(PATIENCE).await;
    assert!(sender.send("t", Message::text("late")).await.is_err());
    Ok(())
}
