//! What the binder costs for each message: a delivery through a function, and the memory binder from send to handler.
//!
//! `cargo bench -p integration-tests --bench binder`
//!
//! Allocations are the slope between two run lengths, so what a start costs is not in them. The payload holds one
//! string, so one allocation of each delivery is the decoded value itself.

use std::alloc::System;
use std::future::Future;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::report::{Report, Spread};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use stream_binder::{
    App, BindError, Binder, BoundConsumer, Config, ConsumerBinding, Delivery, DeliveryHandler, Function,
    Json, MemoryBinder, Message, Outbound, ProducerBinding, RunningApp, layers::TimeoutLayer,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SAMPLES: usize = 7;
const MESSAGES: usize = 100_000;

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
    price: f64,
}

fn main() {
    let mut report = Report::new("binder", &["ns per message", "allocations per message"]);
    let single = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let multi = Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (label, layered) in [("delivery to a consumer", false), ("the same with a layer", true)] {
        let (handler, _app) = single.block_on(handler(layered));
        measure(&mut report, label, &single, |n| deliver(handler.clone(), n));
    }
    for (kind, runtime) in [("one thread", &single), ("default runtime", &multi)] {
        let (binder, app) = runtime.block_on(memory(consume()));
        measure(
            &mut report,
            &format!("memory, send to consumer, {kind}"),
            runtime,
            |n| send(&binder, &app, n),
        );
        let (binder, app) = runtime.block_on(memory(transform()));
        measure(
            &mut report,
            &format!("memory, function in to out, {kind}"),
            runtime,
            |n| send(&binder, &app, n),
        );
    }
    report.finish();
}

fn measure<F: Future<Output = ()>>(
    report: &mut Report,
    label: &str,
    runtime: &Runtime,
    mut work: impl FnMut(usize) -> F,
) {
    runtime.block_on(work(MESSAGES / 10));
    let mut counted = |messages| {
        let region = Region::new(ALLOCATOR);
        runtime.block_on(work(messages));
        let change = region.change();
        (change.allocations + change.reallocations) as f64
    };
    let slope = (counted(2 * MESSAGES) - counted(MESSAGES)) / MESSAGES as f64;
    let nanos = (0..SAMPLES).map(|_| {
        let start = Instant::now();
        runtime.block_on(work(MESSAGES));
        start.elapsed().as_nanos() as f64 / MESSAGES as f64
    });
    let nanos: Vec<_> = nanos.collect();
    report.row(label, [Spread::of(nanos), Spread::of([slope])]);
}

fn consume() -> Function {
    Function::consumer("orders", |Json(order): Json<Order>| async move {
        black_box(order.id);
    })
}

fn transform() -> Function {
    Function::function("orders", |Json(order): Json<Order>| async move { Json(order) })
}

fn config() -> Config {
    Config::from_yaml(
        "spring.cloud.stream.bindings: {orders-in-0: {destination: in, group: g}, orders-out-0: {destination: out}}",
    )
    .expect("a configuration")
}

fn body() -> Vec<u8> {
    let order = Order {
        id: 42,
        customer: "a customer".into(),
        price: 7.5,
    };
    serde_json::to_vec(&order).expect("JSON")
}

async fn memory(function: Function) -> (MemoryBinder, RunningApp) {
    let binder = MemoryBinder::builder().retained(16).build();
    let app = App::new(config()).binder(binder.clone()).register(function);
    (binder.clone(), app.start().await.expect("a started application"))
}

async fn send(binder: &MemoryBinder, app: &RunningApp, messages: usize) {
    let body = bytes::Bytes::from(body());
    let topic = app.bridge().to_topic("in");
    for _ in 0..messages {
        topic.send(Message::new(body.clone())).await.expect("a receipt");
    }
    binder.idle().await;
}

async fn deliver(handler: DeliveryHandler, messages: usize) {
    let delivery = Delivery::builder("orders-in-0", "in", body()).build();
    for _ in 0..messages {
        assert!(handler.handle(delivery.clone()).await.is_ack());
    }
}

async fn handler(layered: bool) -> (DeliveryHandler, RunningApp) {
    let taken = Arc::new(Mutex::new(None));
    let mut app = App::new(config())
        .binder(Taking(Arc::clone(&taken)))
        .register(consume());
    if layered {
        app = app.layer(TimeoutLayer::new(Duration::from_secs(30)));
    }
    let app = app.start().await.expect("a started application");
    let handler = taken.lock().expect("no panic").take();
    (handler.expect("a bound consumer"), app)
}

/// A binder that hands out the handler and does nothing else.
#[derive(Debug)]
struct Taking(Arc<Mutex<Option<DeliveryHandler>>>);

#[async_trait]
impl Binder for Taking {
    fn kind(&self) -> &str {
        "taking"
    }

    async fn bind_consumer(
        &self,
        _: ConsumerBinding,
        handler: DeliveryHandler,
    ) -> Result<Box<dyn BoundConsumer>, BindError> {
        *self.0.lock().expect("no panic") = Some(handler);
        Ok(Box::new(Bound))
    }

    async fn bind_producer(&self, binding: ProducerBinding) -> Result<Arc<dyn Outbound>, BindError> {
        MemoryBinder::new().bind_producer(binding).await
    }

    async fn shutdown(&self, _: Duration) {}
}

#[derive(Debug)]
struct Bound;

#[async_trait]
impl BoundConsumer for Bound {
    fn pause(&self) {}

    fn resume(&self) {}

    async fn stop(&self, _: Duration) -> usize {
        0
    }
}
