//! The promises of the [`Binder`] SPI as checks that any binder can be put through.
//!
//! A binder's tests implement [`Target`] and call [`binder_conformance!`](crate::binder_conformance), which
//! makes one test of each check. A check uses topics and groups of its own, waits with deadlines on tokio's
//! clock, and answers with a sentence when a promise is broken.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    time,
};

use crate::{
    Binder, BoundConsumer, ConsumerBinding, Delivery, DeliveryHandler, Failure, Headers, Message, Outbound,
    Outcome, Persisted, ProducerBinding, SendStatus,
};

/// Name of the consumer binding that the checks use, for binders that keep properties by binding name.
pub const INPUT: &str = "conformance-in-0";
/// Name of the second consumer binding.
pub const SECOND_INPUT: &str = "conformance-in-1";
/// Name of the producer binding.
pub const OUTPUT: &str = "conformance-out-0";
/// Deliveries after which the target's bindings must dead-letter a message.
pub const MAX_ATTEMPTS: u32 = 3;

/// A messaging system under test.
#[async_trait]
pub trait Target: Send + Sync {
    /// A new binder to the same system. [`INPUT`] and [`SECOND_INPUT`] must deliver a message at most
    /// [`MAX_ATTEMPTS`] times, as soon after each other as the system can.
    async fn binder(&self) -> Arc<dyn Binder>;

    /// A name for a topic or group that nobody else uses, ready to be used.
    async fn unique(&self, base: &str) -> String;

    /// How long to wait for something that must happen.
    fn patience(&self) -> Duration;

    /// How long to watch for something that must not happen.
    fn watch(&self) -> Duration;

    /// Bodies of the dead letters of `group`, once there are `count` or the patience is over.
    async fn dead_letters(&self, group: &str, count: usize) -> Vec<Bytes>;
}

/// What a check answers.
pub type Verdict = Result<(), String>;

/// Calls a macro with the names of all checks behind whatever tokens are given: the one list of them.
#[macro_export]
macro_rules! conformance_checks {
    ($callback:path, $($before:tt)*) => {
        $callback! { $($before)*
            a_message_arrives_as_it_was_sent
            each_group_gets_every_message
            members_of_a_group_share_the_messages
            a_failed_delivery_comes_again_with_its_attempt
            a_message_that_always_fails_is_dead_lettered_once
            a_rejected_message_is_dead_lettered_at_once
            a_skipped_message_does_not_come_again
            no_more_handlers_run_than_the_concurrency_allows
            a_paused_binding_delivers_nothing_until_resumed
            a_binding_without_auto_startup_waits_for_resume
            a_stop_waits_for_running_handlers
            a_delivery_that_was_cut_off_comes_again
            a_delayed_message_comes_after_its_delay
            an_illegal_topic_is_refused_for_good
            nothing_is_sent_after_the_shutdown
        }
    };
}

/// Makes one test per check for a target. The expression is evaluated once per test, inside a tokio runtime
/// of the given attributes.
///
/// ```
/// stream_binder::binder_conformance!(MemoryTarget::new(), tokio::test(start_paused = true));
/// ```
#[macro_export]
macro_rules! binder_conformance {
    ($target:expr, $($test:tt)+) => {
        $crate::conformance_checks! { $crate::binder_conformance, @tests $target, [$($test)+], }
    };
    (@tests $target:expr, $test:tt, $($check:ident)+) => {$(
        $crate::binder_conformance! { @test $target, $test, $check }
    )+};
    (@test $target:expr, [$($test:tt)+], $check:ident) => {
        #[$($test)+]
        async fn $check() {
            let target = $target;
            if let ::core::result::Result::Err(broken) = $crate::conformance::$check(&target).await {
                panic!("{broken}");
            }
        }
    };
}

/// Records deliveries and answers them.
#[derive(Clone)]
struct Recorder {
    deliveries: mpsc::Sender<Delivery>,
}

impl Recorder {
    fn new() -> (Self, mpsc::Receiver<Delivery>) {
        let (deliveries, received) = mpsc::channel(1024);
        (Self { deliveries }, received)
    }

    /// A handler that records each delivery and then answers as `answer` does.
    fn handler<F, Fut>(&self, answer: F) -> DeliveryHandler
    where
        F: Fn(Delivery) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let deliveries = self.deliveries.clone();
        DeliveryHandler::new(tower::service_fn(move |delivery: Delivery| {
            let (deliveries, answer) = (deliveries.clone(), answer.clone());
            async move {
                let recorded = deliveries.send(delivery.clone()).await;
                if recorded.is_err() {
                    return Ok::<_, crate::BoxError>(Outcome::Failed(Failure::retry("the check is over")));
                }
                Ok(answer(delivery).await.into())
            }
        }))
    }

    fn acknowledging(&self) -> DeliveryHandler {
        self.handler(|_| async { Ok(()) })
    }
}

/// A binder with its output, and names for one check.
struct Bench<'a> {
    target: &'a dyn Target,
    binder: Arc<dyn Binder>,
    outbound: Arc<dyn Outbound>,
    topic: String,
    group: String,
}

impl<'a> Bench<'a> {
    async fn new(target: &'a dyn Target, check: &str) -> Result<Self, String> {
        let topic = target.unique(&format!("topic-{check}")).await;
        let group = target.unique(&format!("group-{check}")).await;
        let binder = target.binder().await;
        let outbound = binder
            .bind_producer(ProducerBinding::new(OUTPUT, topic.as_str()))
            .await;
        let outbound = outbound.map_err(|error| error.to_string())?;
        Ok(Self {
            target,
            binder,
            outbound,
            topic,
            group,
        })
    }

    async fn consume(&self, handler: DeliveryHandler) -> Result<Box<dyn BoundConsumer>, String> {
        self.bind(self.binding(), handler).await
    }

    fn binding(&self) -> ConsumerBinding {
        ConsumerBinding::new(INPUT, self.topic.as_str(), self.group.as_str())
    }

    async fn bind(
        &self,
        binding: ConsumerBinding,
        handler: DeliveryHandler,
    ) -> Result<Box<dyn BoundConsumer>, String> {
        self.binder
            .bind_consumer(binding, handler)
            .await
            .map_err(|error| error.to_string())
    }

    async fn send(&self, body: &str) -> Result<(), String> {
        let sent = self.outbound.send(&self.topic, Message::text(body)).await;
        sent.map(drop).map_err(|error| error.to_string())
    }

    async fn next(&self, received: &mut mpsc::Receiver<Delivery>) -> Result<Delivery, String> {
        let patience = self.target.patience();
        match time::timeout(patience, received.recv()).await {
            Ok(Some(delivery)) => Ok(delivery),
            Ok(None) => Err("the handler is gone".to_owned()),
            Err(_) => Err(format!("no delivery within {patience:?}")),
        }
    }

    async fn nothing_more(&self, received: &mut mpsc::Receiver<Delivery>) -> Verdict {
        match time::timeout(self.target.watch(), received.recv()).await {
            Ok(Some(delivery)) => Err(format!(
                "an unexpected delivery of {:?}, attempt {}",
                body(&delivery),
                delivery.meta().attempt()
            )),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    async fn end(&self, consumers: Vec<Box<dyn BoundConsumer>>) -> Verdict {
        for consumer in consumers {
            let left = consumer.stop(self.target.patience()).await;
            same("handlers cut off by a quiet stop", 0, left)?;
        }
        self.binder.shutdown(self.target.patience()).await;
        Ok(())
    }
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

fn same<T: PartialEq + fmt::Debug>(what: &str, expected: T, found: T) -> Verdict {
    if expected == found {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:?}, found {found:?}"))
    }
}

/// Payload, headers, tag, keys and id arrive; the receipt names what was stored.
pub async fn a_message_arrives_as_it_was_sent(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "as-sent").await?;
    let (recorder, mut received) = Recorder::new();
    let consumer = bench.consume(recorder.acknowledging()).await?;
    let message = Message::json("grüße").map_err(|e| e.to_string())?;
    let message = message
        .tag("vip")
        .key("k1")
        .key("k2")
        .header("colour", "你好")
        .flag(7);
    let receipt = bench
        .outbound
        .send(&bench.topic, message)
        .await
        .map_err(|error| error.to_string())?;
    same("receipt topic", bench.topic.as_str(), &receipt.topic)?;
    same("receipt status", SendStatus::Ok, receipt.status)?;
    let delivery = bench.next(&mut received).await?;
    let meta = delivery.meta();
    same("payload", "\"grüße\"".to_owned(), body(&delivery))?;
    same("content type", Some("application/json"), delivery.content_type())?;
    same("tag", Some("vip"), meta.tags())?;
    same("keys", Some("k1 k2"), meta.keys())?;
    same("flag", 7, meta.flag())?;
    same("header", Some("你好"), delivery.headers().get("colour"))?;
    let expected: Headers = [("contentType", "application/json"), ("colour", "你好")]
        .into_iter()
        .collect();
    same("headers, without the system's own", &expected, delivery.headers())?;
    same("message id", &*receipt.message_id, meta.message_id())?;
    same("topic", bench.topic.as_str(), meta.topic())?;
    same("binding", INPUT, meta.binding())?;
    same("attempt", 1, meta.attempt())?;
    same("queue", receipt.queue_id, meta.queue_id())?;
    same("queue offset", receipt.queue_offset, meta.queue_offset())?;
    bench.end(vec![consumer]).await
}

/// Two groups on one topic both see each message.
pub async fn each_group_gets_every_message(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "groups").await?;
    let other_group = target.unique("group-groups-other").await;
    let (first, mut first_received) = Recorder::new();
    let (second, mut second_received) = Recorder::new();
    let one = bench.consume(first.acknowledging()).await?;
    let other = ConsumerBinding::new(SECOND_INPUT, bench.topic.as_str(), other_group.as_str());
    let two = bench.bind(other, second.acknowledging()).await?;
    for n in 0..3 {
        bench.send(&n.to_string()).await?;
    }
    for received in [&mut first_received, &mut second_received] {
        let mut bodies = Vec::new();
        for _ in 0..3 {
            bodies.push(body(&bench.next(received).await?));
        }
        bodies.sort();
        same(
            "bodies of one group",
            vec!["0".to_owned(), "1".to_owned(), "2".to_owned()],
            bodies,
        )?;
    }
    bench.end(vec![one, two]).await
}

/// Two members of a group see each message once between them.
pub async fn members_of_a_group_share_the_messages(target: &dyn Target) -> Verdict {
    const MESSAGES: usize = 20;
    let bench = Bench::new(target, "members").await?;
    let second = target.binder().await;
    let (recorder, mut received) = Recorder::new();
    let one = bench.consume(recorder.acknowledging()).await?;
    let two = second
        .bind_consumer(bench.binding(), recorder.acknowledging())
        .await
        .map_err(|e| e.to_string())?;
    for n in 0..MESSAGES {
        bench.send(&n.to_string()).await?;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    while seen.len() < MESSAGES {
        let delivery = bench.next(&mut received).await?;
        *seen.entry(body(&delivery)).or_default() += 1;
    }
    bench.nothing_more(&mut received).await?;
    let repeated: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    if !repeated.is_empty() {
        return Err(format!("delivered more than once: {repeated:?}"));
    }
    bench.end(vec![one, two]).await?;
    second.shutdown(target.patience()).await;
    Ok(())
}

/// A retry brings the same message with the next attempt number, until it is acknowledged.
pub async fn a_failed_delivery_comes_again_with_its_attempt(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "again").await?;
    let (recorder, mut received) = Recorder::new();
    let handler = recorder.handler(|delivery| async move {
        if delivery.meta().attempt() < 2 {
            Err(Failure::retry("not yet"))
        } else {
            Ok(())
        }
    });
    let consumer = bench.consume(handler).await?;
    bench.send("again").await?;
    let first = bench.next(&mut received).await?;
    let second = bench.next(&mut received).await?;
    same(
        "attempts",
        (1, 2),
        (first.meta().attempt(), second.meta().attempt()),
    )?;
    same(
        "message id",
        first.meta().message_id(),
        second.meta().message_id(),
    )?;
    same("topic", first.meta().topic(), second.meta().topic())?;
    same("body", body(&first), body(&second))?;
    bench.nothing_more(&mut received).await?;
    bench.end(vec![consumer]).await
}

/// The configured number of deliveries, then one dead letter.
pub async fn a_message_that_always_fails_is_dead_lettered_once(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "fails").await?;
    let (recorder, mut received) = Recorder::new();
    let consumer = bench
        .consume(recorder.handler(|_| async { Err(Failure::retry("never")) }))
        .await?;
    bench.send("poison").await?;
    for attempt in 1..=MAX_ATTEMPTS {
        let delivery = bench.next(&mut received).await?;
        same("attempt", attempt, delivery.meta().attempt())?;
        if let Some(max) = delivery.meta().max_attempts() {
            same("max attempts", MAX_ATTEMPTS, max)?;
        }
    }
    let letters = target.dead_letters(&bench.group, 1).await;
    same("dead letters", vec![Bytes::from_static(b"poison")], letters)?;
    bench.nothing_more(&mut received).await?;
    bench.end(vec![consumer]).await
}

/// A rejected message is delivered once.
pub async fn a_rejected_message_is_dead_lettered_at_once(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "rejected").await?;
    let (recorder, mut received) = Recorder::new();
    let consumer = bench
        .consume(recorder.handler(|_| async { Err(Failure::reject("never")) }))
        .await?;
    bench.send("rejected").await?;
    bench.next(&mut received).await?;
    let letters = target.dead_letters(&bench.group, 1).await;
    same("dead letters", vec![Bytes::from_static(b"rejected")], letters)?;
    bench.nothing_more(&mut received).await?;
    bench.end(vec![consumer]).await
}

/// A skipped message counts as done.
pub async fn a_skipped_message_does_not_come_again(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "skipped").await?;
    let (recorder, mut received) = Recorder::new();
    let consumer = bench
        .consume(recorder.handler(|_| async { Err(Failure::skip("odd")) }))
        .await?;
    bench.send("skipped").await?;
    bench.next(&mut received).await?;
    bench.nothing_more(&mut received).await?;
    bench.end(vec![consumer]).await
}

/// The concurrency is a limit, and is used.
pub async fn no_more_handlers_run_than_the_concurrency_allows(target: &dyn Target) -> Verdict {
    const MESSAGES: usize = 12;
    const LIMIT: usize = 3;
    let bench = Bench::new(target, "concurrency").await?;
    let (recorder, mut received) = Recorder::new();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gauges = (Arc::clone(&running), Arc::clone(&most));
    let handler = recorder.handler(move |_| {
        let (running, most) = gauges.clone();
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            time::sleep(Duration::from_millis(50)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let consumer = bench.bind(bench.binding().concurrency(LIMIT), handler).await?;
    for n in 0..MESSAGES {
        bench.send(&n.to_string()).await?;
    }
    for _ in 0..MESSAGES {
        bench.next(&mut received).await?;
    }
    let most = most.load(Ordering::SeqCst);
    if most > LIMIT {
        return Err(format!("{most} handlers ran at one time, {LIMIT} were allowed"));
    }
    bench.end(vec![consumer]).await
}

/// Pause holds messages back; resume lets them through.
pub async fn a_paused_binding_delivers_nothing_until_resumed(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "paused").await?;
    let (recorder, mut received) = Recorder::new();
    let consumer = bench.consume(recorder.acknowledging()).await?;
    bench.send("before").await?;
    bench.next(&mut received).await?;
    consumer.pause();
    bench.send("while paused").await?;
    bench.nothing_more(&mut received).await?;
    consumer.resume();
    same(
        "body",
        "while paused".to_owned(),
        body(&bench.next(&mut received).await?),
    )?;
    bench.end(vec![consumer]).await
}

/// `auto-startup: false` is a pause from the first moment.
pub async fn a_binding_without_auto_startup_waits_for_resume(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "auto-startup").await?;
    let (recorder, mut received) = Recorder::new();
    let binding = bench.binding().auto_startup(false);
    let consumer = bench.bind(binding, recorder.acknowledging()).await?;
    bench.send("early").await?;
    bench.nothing_more(&mut received).await?;
    consumer.resume();
    same(
        "body",
        "early".to_owned(),
        body(&bench.next(&mut received).await?),
    )?;
    bench.end(vec![consumer]).await
}

/// A graceful stop lets a handler finish, and its message does not come again.
pub async fn a_stop_waits_for_running_handlers(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "drain").await?;
    let (recorder, mut received) = Recorder::new();
    let finished = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&finished);
    let handler = recorder.handler(move |_| {
        let counter = Arc::clone(&counter);
        async move {
            time::sleep(Duration::from_millis(200)).await;
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let consumer = bench.consume(handler).await?;
    bench.send("slow").await?;
    bench.next(&mut received).await?;
    same("handlers cut off", 0, consumer.stop(target.patience()).await)?;
    same("handlers finished", 1, finished.load(Ordering::SeqCst))?;
    let next = bench.consume(recorder.acknowledging()).await?;
    bench.nothing_more(&mut received).await?;
    bench.end(vec![next]).await
}

/// A handler that outlives the grace is cut off and counted; its message is delivered to the next consumer.
pub async fn a_delivery_that_was_cut_off_comes_again(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "cut-off").await?;
    let (recorder, mut received) = Recorder::new();
    let never = Arc::new(Notify::new());
    let handler = recorder.handler(move |_| {
        let never = Arc::clone(&never);
        async move {
            never.notified().await;
            Ok(())
        }
    });
    let consumer = bench.consume(handler).await?;
    bench.send("stuck").await?;
    bench.next(&mut received).await?;
    same(
        "handlers cut off",
        1,
        consumer.stop(Duration::from_millis(100)).await,
    )?;
    let next = bench.consume(recorder.acknowledging()).await?;
    same(
        "body",
        "stuck".to_owned(),
        body(&bench.next(&mut received).await?),
    )?;
    bench.end(vec![next]).await
}

/// Delay level 1 is a second: a message sent later without delay overtakes.
pub async fn a_delayed_message_comes_after_its_delay(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "delay").await?;
    let (recorder, mut received) = Recorder::new();
    let consumer = bench.consume(recorder.acknowledging()).await?;
    let delayed = Message::text("delayed").delay_level(1);
    bench
        .outbound
        .send(&bench.topic, delayed)
        .await
        .map_err(|error| error.to_string())?;
    bench.send("at once").await?;
    let bodies = (
        body(&bench.next(&mut received).await?),
        body(&bench.next(&mut received).await?),
    );
    same("order", ("at once".to_owned(), "delayed".to_owned()), bodies)?;
    bench.end(vec![consumer]).await
}

/// Sending to a name that cannot be a topic fails without another try, and stores nothing.
pub async fn an_illegal_topic_is_refused_for_good(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "illegal").await?;
    let Err(error) = bench.outbound.send("bad topic!", Message::text("x")).await else {
        return Err("a send to the topic `bad topic!` succeeded".to_owned());
    };
    same("persisted", Persisted::No, error.persisted())?;
    same("retryable", false, error.is_retryable())?;
    if !error.to_string().contains("bad topic!") {
        return Err(format!("the error does not name the topic: {error}"));
    }
    bench.end(Vec::new()).await
}

/// After the shutdown, a send is an error and stores nothing.
pub async fn nothing_is_sent_after_the_shutdown(target: &dyn Target) -> Verdict {
    let bench = Bench::new(target, "shutdown").await?;
    bench.send("before").await?;
    bench.end(Vec::new()).await?;
    match bench.outbound.send(&bench.topic, Message::text("after")).await {
        Ok(receipt) => Err(format!("a send after the shutdown was answered with {receipt:?}")),
        Err(error) => same("persisted", Persisted::No, error.persisted()),
    }
}
