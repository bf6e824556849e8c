//! What the client tells of itself: metrics, spans, and the context of traces in messages.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Message, MessageView, NewTraces, Outcome, PushConsumer, Retry,
    TraceContext, telemetry,
};
use rocketmq_embedded_broker::EmbeddedBroker;
use tracing_subscriber::fmt::format::FmtSpan;

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what it is told: for each metric with its labels one number.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, Arc<Cell>>>>);

/// Counts, the last value of a gauge, or how often something was recorded.
#[derive(Default)]
struct Cell(AtomicU64);

impl Kept {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let mut labels: Vec<_> = key
            .labels()
            .filter(|label| !label.key().starts_with("messaging.operation"))
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(held(&self.0).entry(name).or_default())
    }

    fn value(&self, name: &str, labels: &str) -> Option<u64> {
        let kept = held(&self.0);
        let cell = kept.get(&format!("{name}{{{labels}}}"))?;
        Some(cell.0.load(Ordering::SeqCst))
    }

    fn registered(&self) -> usize {
        held(&self.0).len()
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.set(value);
    }

    fn decrement(&self, value: f64) {
        self.set(-value);
    }

    fn set(&self, value: f64) {
        self.0.store(value as u64, Ordering::SeqCst);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        held(&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// What is written of the spans of all tests.
    fn of_all() -> &'static Self {
        static WRITTEN: OnceLock<Written> = OnceLock::new();
        WRITTEN.get_or_init(|| {
            let written = Self::default();
            let sink = written.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter("rocketmq_client::send=debug,rocketmq_client::receive=debug")
                .with_span_events(FmtSpan::CLOSE)
                .with_ansi(false)
                .with_writer(move || sink.clone())
                .finish();
            // For all threads: what is registered while another test runs without a subscriber would stay off
            // otherwise.
            let set = tracing::subscriber::set_global_default(subscriber);
            assert!(set.is_ok(), "there is another subscriber");
            written
        })
    }

    /// The spans of this name and topic: other tests have other topics.
    fn lines(&self, span: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&held(&self.0)).into_owned();
        let name = format!("otel.name={span} ");
        let ours = text.lines().filter(|line| line.contains(&name));
        ours.map(str::to_owned).collect()
    }
}

fn of_topic(error: &str) -> String {
    format!("{error}messaging.destination.name=orders,messaging.system=rocketmq")
}

#[tokio::test(flavor = "current_thread")]
async fn sends_are_counted_and_timed_by_topic_and_failures_by_their_kind() {
    let kept = Kept::default();
    let _recording = metrics::set_default_local_recorder(&kept);
    let broker = EmbeddedBroker::start().await.unwrap();
    let client = Client::connect(broker.name_server()).await.unwrap();
    let producer = client
        .producer("orders-svc")
        .max_attempts(2)
        .send_timeout(Duration::from_secs(1))
        .start()
        .await
        .unwrap();
    for _ in 0..3 {
        producer.send(Message::new("orders", "paid")).await.unwrap();
    }
    producer
        .send(Message::new("orders", "paid"))
        .detach()
        .await
        .unwrap();
    producer
        .send(Message::new("orders", "paid"))
        .one_way()
        .await
        .unwrap();
    let batch = (0..5).map(|number| Message::new("orders", number.to_string()));
    let handles = kept.registered();
    producer.send_batch(batch).await.unwrap();
    assert_eq!(kept.registered(), handles, "handles are made once");
    assert_eq!(kept.value(telemetry::SENT_MESSAGES, &of_topic("")), Some(10));
    assert_eq!(kept.value(telemetry::OPERATION_DURATION, &of_topic("")), Some(6));
    assert_eq!(kept.value(telemetry::SEND_RETRIES, &of_topic("")), Some(0));

    let of_group = "messaging.system=rocketmq,rocketmq.producer.group=orders-svc";
    let held = producer
        .send(Message::new("orders", "four"))
        .reserve()
        .await
        .unwrap();
    assert_eq!(kept.value(telemetry::IN_FLIGHT_MESSAGES, of_group), Some(1));
    assert_eq!(kept.value(telemetry::IN_FLIGHT_BYTES, of_group), Some(4));
    drop(held);
    assert_eq!(kept.value(telemetry::IN_FLIGHT_MESSAGES, of_group), Some(0));

    broker.shutdown().await;
    let error = producer.send(Message::new("orders", "paid")).await.unwrap_err();
    let kind = match error.kind() {
        ErrorKind::Connect => "connect",
        ErrorKind::Timeout => "timeout",
        other => panic!("{other:?}"),
    };
    let failed = of_topic(&format!("error.type={kind},"));
    assert_eq!(kept.value(telemetry::SENT_MESSAGES, &failed), Some(1));
    assert_eq!(kept.value(telemetry::OPERATION_DURATION, &failed), Some(1));
    assert_eq!(
        kept.value(telemetry::SEND_RETRIES, &of_topic("")),
        Some(u64::from(error.attempts() - 1))
    );
    client.shutdown().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_send_has_a_span_with_the_names_of_opentelemetry_and_without_what_is_secret() {
    let written = Written::of_all();
    let broker = EmbeddedBroker::start().await.unwrap();
    let client = Client::connect(broker.name_server()).await.unwrap();
    let producer = client.producer("orders-svc").start().await.unwrap();
    let message = || {
        Message::new("spanned", "body-42")
            .key("key-42")
            .property("p", "value-42")
    };
    let receipt = producer.send(message()).await.unwrap();
    producer.send(message()).detach().await.unwrap();
    producer.send(message()).one_way().await.unwrap();
    let lines = written.lines("send spanned");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for part in [
        "otel.name=send spanned".to_owned(),
        "otel.kind=\"producer\"".to_owned(),
        "messaging.system=\"rocketmq\"".to_owned(),
        "messaging.operation.type=\"send\"".to_owned(),
        "messaging.destination.name=\"spanned\"".to_owned(),
        "messaging.message.body.size=7".to_owned(),
        format!("messaging.message.id=\"{}\"", receipt.message_id),
        format!("messaging.destination.partition.id={}", receipt.queue.queue_id),
        format!("rocketmq.broker.name=\"{}\"", receipt.queue.broker_name),
    ] {
        assert!(lines[0].contains(&part), "{part} in {}", lines[0]);
    }
    for line in &lines {
        for secret in ["body-42", "key-42", "value-42"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
    broker.shutdown().await;
    producer.send(message()).await.unwrap_err();
    let failed = written.lines("send spanned").pop().unwrap();
    assert!(
        failed.contains("error.type=\"connect\"") || failed.contains("error.type=\"timeout\""),
        "{failed}"
    );
    client.shutdown().await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_context_of_a_trace_travels_with_the_message() {
    let broker = EmbeddedBroker::start().await.unwrap();
    let client = Client::connect(broker.name_server()).await.unwrap();
    let parent = TraceContext::new(7, 9, true).unwrap().with_state("vendor=1");
    let current = parent.clone();
    let traced = client
        .producer("traced")
        .propagator(move || Some(current.clone()))
        .start()
        .await
        .unwrap();
    let own = TraceContext::root(false);
    traced.send(Message::new("orders", "parent")).await.unwrap();
    traced
        .send(Message::new("orders", "detached"))
        .detach()
        .await
        .unwrap();
    traced
        .send(Message::new("orders", "own").property("traceparent", own.to_string()))
        .await
        .unwrap();
    traced
        .send_batch([Message::new("orders", "batched")])
        .await
        .unwrap();
    let new = client
        .producer("new")
        .propagator(NewTraces::new(true))
        .start()
        .await
        .unwrap();
    new.send(Message::new("orders", "new")).await.unwrap();
    let silent = client
        .producer("silent")
        .propagator(|| None)
        .start()
        .await
        .unwrap();
    silent.send(Message::new("orders", "none")).await.unwrap();
    let mut orders = client
        .push_consumer("billing")
        .subscribe("orders", "*")
        .consume_from(ConsumeFrom::First)
        .stream()
        .await
        .unwrap();
    let mut found = BTreeMap::new();
    for _ in 0..6 {
        let order = orders.next().await.unwrap();
        let view = order.message();
        let body = String::from_utf8(view.body().to_vec()).unwrap();
        found.insert(body, view.trace_parent());
        order.ack();
    }
    for body in ["parent", "detached", "batched"] {
        assert_eq!(found[body], Some(parent.clone()), "{body}");
    }
    assert_eq!(found["own"], Some(own));
    assert_eq!(found["none"], None);
    assert!(found["new"].as_ref().is_some_and(TraceContext::is_sampled));
    client.shutdown().await;
}

/// Runs until the consumer has done so much.
async fn until(what: impl Fn() -> bool + Sync) {
    let done = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), done).await;
    assert!(done.is_ok(), "not within a minute");
}

/// A consumer that does what the bodies say.
async fn obedient(client: &Client, topic: &str) -> rocketmq_client::Result<PushConsumer> {
    client
        .push_consumer("billing")
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .span_linker({
            let topic = topic.to_owned();
            move |span: &tracing::Span, producer: &TraceContext| {
                assert!(!span.is_disabled());
                held(&LINKED).push((topic.clone(), producer.clone()));
            }
        })
        .start(|message: MessageView| async move {
            match &message.body()[..] {
                _ if message.reconsume_times() > 0 => Ok(Outcome::Ack),
                b"retry" => Ok(Outcome::Retry(Retry::Level(1))),
                b"reject" => Ok(Outcome::Reject("no".into())),
                b"fail" => Err("no"),
                b"panic" => panic!("no"),
                _ => Ok(Outcome::Ack),
            }
        })
        .await
}

static LINKED: Mutex<Vec<(String, TraceContext)>> = Mutex::new(Vec::new());

#[tokio::test(flavor = "current_thread")]
async fn what_is_received_and_handled_is_counted_and_timed_and_the_lag_is_told() {
    let kept = Kept::default();
    let _recording = metrics::set_default_local_recorder(&kept);
    let broker = EmbeddedBroker::start().await.unwrap();
    let client = Client::connect(broker.name_server()).await.unwrap();
    let producer = client.producer("orders-svc").start().await.unwrap();
    for body in ["paid", "retry", "reject", "fail", "panic", "paid"] {
        producer.send(Message::new("counted", body)).await.unwrap();
    }
    let consumer = obedient(&client, "counted").await.unwrap();
    until(|| {
        let stats = consumer.stats();
        stats.acknowledged >= 2 && stats.retried == 3 && stats.rejected == 1 && stats.cached == 0
    })
    .await;
    let of_topic = |error: &str| {
        format!(
            "{error}messaging.consumer.group.name=billing,messaging.destination.name=counted,\
             messaging.system=rocketmq"
        )
    };
    for (error, count) in [
        ("", 2),
        ("error.type=retry,", 1),
        ("error.type=rejected,", 1),
        ("error.type=failed,", 1),
        ("error.type=panicked,", 1),
    ] {
        for name in [telemetry::CONSUMED_MESSAGES, telemetry::PROCESS_DURATION] {
            assert_eq!(kept.value(name, &of_topic(error)), Some(count), "{name} {error}");
        }
    }
    assert_eq!(kept.value(telemetry::RECEIVED_MESSAGES, &of_topic("")), Some(6));
    assert_eq!(kept.value(telemetry::DELIVERY_DURATION, &of_topic("")), Some(6));
    // Each pull that brought something, and each of the four messages that were given back.
    let operations = kept.value(telemetry::OPERATION_DURATION, &of_topic("")).unwrap();
    assert!((5..=10).contains(&operations), "{operations}");

    let queue = consumer
        .progress()
        .into_iter()
        .find(|progress| &*progress.queue.topic == "counted" && progress.consumed > Some(0))
        .unwrap();
    let of_queue = format!(
        "messaging.consumer.group.name=billing,messaging.destination.name=counted,\
         messaging.destination.partition.id={},messaging.system=rocketmq,rocketmq.broker.name={}",
        queue.queue.queue_id, queue.queue.broker_name
    );
    consumer.progress_at_brokers().await.unwrap();
    assert_eq!(kept.value(telemetry::CONSUMER_LAG, &of_queue), Some(0));
    consumer.pause();
    let to = queue.queue.clone();
    producer
        .send(Message::new("counted", "later"))
        .to_queue(to)
        .await
        .unwrap();
    consumer.progress_at_brokers().await.unwrap();
    assert_eq!(kept.value(telemetry::CONSUMER_LAG, &of_queue), Some(1));
    consumer.shutdown().await;
    assert_eq!(
        kept.value(telemetry::CONSUMER_LAG, &of_queue),
        Some(0),
        "given up"
    );
    client.shutdown().await;
}

#[tokio::test(flavor = "current_thread")]
async fn handlers_have_spans_that_are_linked_to_those_of_the_producers() {
    let written = Written::of_all();
    let broker = EmbeddedBroker::start().await.unwrap();
    let client = Client::connect(broker.name_server()).await.unwrap();
    let parent = TraceContext::new(7, 9, true).unwrap();
    let current = parent.clone();
    let producer = client
        .producer("orders-svc")
        .propagator(move || Some(current.clone()))
        .start()
        .await
        .unwrap();
    let mut sent = Vec::new();
    for body in ["body-42", "retry"] {
        let message = Message::new("linked", body)
            .key("key-42")
            .property("p", "value-42");
        sent.push(producer.send(message).await.unwrap());
    }
    let consumer = obedient(&client, "linked").await.unwrap();
    until(|| written.lines("process linked").len() == 2 && !written.lines("settle linked").is_empty()).await;
    let processed = written.lines("process linked");
    let line = |id: &str| {
        let id = format!("messaging.message.id=\"{id}\"");
        let found = processed.iter().find(|line| line.contains(&id));
        found.unwrap_or_else(|| panic!("{id} in {processed:#?}"))
    };
    for part in [
        "otel.kind=\"consumer\"".to_owned(),
        "messaging.system=\"rocketmq\"".to_owned(),
        "messaging.operation.type=\"process\"".to_owned(),
        "messaging.destination.name=\"linked\"".to_owned(),
        "messaging.consumer.group.name=\"billing\"".to_owned(),
        "messaging.message.body.size=7".to_owned(),
        "rocketmq.message.attempt=1".to_owned(),
        "rocketmq.producer.trace_id=00000000000000000000000000000007".to_owned(),
        "rocketmq.producer.span_id=0000000000000009".to_owned(),
        format!("messaging.destination.partition.id={}", sent[0].queue.queue_id),
    ] {
        let line = line(&sent[0].message_id);
        assert!(line.contains(&part), "{part} in {line}");
    }
    assert!(line(&sent[1].message_id).contains("error.type=\"retry\""));
    let received = written.lines("receive linked");
    assert!(
        received
            .iter()
            .any(|line| line.contains("messaging.batch.message_count=1")),
        "{received:#?}"
    );
    let settled = written.lines("settle linked");
    assert_eq!(settled.len(), 1, "{settled:#?}");
    assert!(settled[0].contains("rocketmq.delay_level=1"), "{}", settled[0]);
    for line in processed.iter().chain(&received).chain(&settled) {
        for secret in ["body-42", "key-42", "value-42"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
    let linked = held(&LINKED).clone();
    let ours = linked.iter().filter(|(topic, _)| topic == "linked");
    assert!(ours.clone().count() >= 2);
    assert!(ours.map(|(_, context)| context).all(|context| *context == parent));
    consumer.shutdown().await;
    client.shutdown().await;
}
