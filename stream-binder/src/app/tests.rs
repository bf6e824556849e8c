use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    time::{self, Instant},
};

use super::*;
use crate::{
    BindError, ConsumerBinding, Failure, Header, Headers, Json, MemoryBinder, Message, Meta, Outbound,
    Payload, ProducerBinding, SendErrorKind, State, StreamBridge, Text, TypedHeader,
};

mod doubles;

const SQUARE: &str = "
spring.cloud.function.definition: square
spring.cloud.stream.bindings:
  square-in-0: {destination: num, group: g}
  square-out-0: {destination: square}
";

fn app(yaml: &str) -> (App, MemoryBinder) {
    let binder = MemoryBinder::new();
    let config = Config::from_yaml(yaml).unwrap();
    (
        App::new(config).without_discovery().binder(binder.clone()),
        binder,
    )
}

/// An application that consumes `topic` with one function.
fn consuming(function: Function) -> (App, MemoryBinder) {
    let name = function.name().to_owned();
    let (app, binder) = app(&format!(
        "spring.cloud.stream.bindings.{name}-in-0: {{destination: topic, group: g}}"
    ));
    (app.register(function), binder)
}

fn bodies(binder: &MemoryBinder, topic: &str) -> Vec<Bytes> {
    binder
        .stored(topic)
        .iter()
        .map(|stored| stored.payload().clone())
        .collect()
}

fn square() -> Function {
    Function::function("square", |Payload(n): Payload<i64>| async move { Json(n * n) })
}

async fn problem(app: App) -> (StartProblemKind, String) {
    let error = app.start().await.unwrap_err();
    let [problem] = error.problems() else {
        panic!("one problem, not {error:?}")
    };
    (problem.kind(), problem.to_string())
}

#[tokio::test(start_paused = true)]
async fn what_a_function_returns_is_sent_to_its_output() {
    let (app, binder) = app(SQUARE);
    let app = app.register(square()).start().await.unwrap();
    for n in 1..=3_i64 {
        app.bridge().to_topic("num").send(n).await.unwrap();
    }
    binder.idle().await;
    let mut squares = bodies(&binder, "square");
    squares.sort();
    assert_eq!(squares, ["1", "4", "9"]);
    assert!(app.shutdown().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn outputs_inherit_correlation_and_trace_and_nothing_else() {
    let (app, binder) = app(SQUARE);
    let app = app.register(square()).start().await.unwrap();
    let message = Message::json(&3)
        .unwrap()
        .tag("vip")
        .key("k")
        .header("colour", "red");
    let message = message
        .header("correlationId", "c1")
        .header("traceparent", "00-1-2-01");
    app.bridge().to_topic("num").send(message).await.unwrap();
    binder.idle().await;
    let stored = binder.stored("square");
    let output = stored[0].message();
    assert_eq!(output.tags(), None);
    assert_eq!(output.keys(), None);
    assert_eq!(output.media_type(), Some("application/json"));
    let headers: Vec<_> = output.user_headers().iter().collect();
    assert_eq!(headers, [("correlationId", "c1"), ("traceparent", "00-1-2-01")]);
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_decode_goes_to_the_dead_letters_and_the_next_one_is_handled() {
    let (app, binder) = app(SQUARE);
    let app = app.register(square()).start().await.unwrap();
    app.bridge()
        .to_topic("num")
        .send(Text("twelve".into()))
        .await
        .unwrap();
    app.bridge().to_topic("num").send(12_i64).await.unwrap();
    binder.idle().await;
    assert_eq!(bodies(&binder, "square"), ["144"]);
    let stored = binder.stored("%DLQ%g");
    let headers = stored[0].message().user_headers();
    assert_eq!(headers.get("deadLetterAttempts"), Some("1"));
    let reason = headers.get("deadLetterReason").unwrap();
    assert!(
        reason.starts_with("payload is no `i64` in JSON; it starts with \"twelve\""),
        "{reason}"
    );
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_delivery_and_is_retried() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let (app, binder) = consuming(Function::consumer("fragile", move |Text(_): Text| {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        async move { assert!(call > 0, "the first call fails") }
    }));
    let app = app.start().await.unwrap();
    app.bridge().to_topic("topic").send("x").await.unwrap();
    binder.idle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert!(bodies(&binder, "%DLQ%g").is_empty());
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn local_attempts_come_before_the_binders_retry() {
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    let start = Instant::now();
    let (app, binder) = app("
        spring.cloud.stream.bindings.stubborn-in-0:
          destination: topic
          group: g
          consumer: {max-attempts: 3, back-off-initial-interval: 100ms, back-off-multiplier: 3}
    ");
    let app = app.register(Function::consumer("stubborn", move |meta: Meta| {
        seen.lock()
            .unwrap()
            .push((meta.attempt(), meta.local_attempt(), start.elapsed().as_millis()));
        async move {
            if meta.attempt() < 2 {
                Err(Failure::retry("not yet"))
            } else {
                Ok(())
            }
        }
    }));
    let app = app.start().await.unwrap();
    app.bridge().to_topic("topic").send("x").await.unwrap();
    binder.idle().await;
    let expected = [(1, 1, 0), (1, 2, 100), (1, 3, 400), (2, 1, 10_400)];
    assert_eq!(*attempts.lock().unwrap(), expected);
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn extractors_come_in_any_order_and_number() {
    struct Price(u32);
    impl std::str::FromStr for Price {
        type Err = std::num::ParseIntError;
        fn from_str(text: &str) -> Result<Self, Self::Err> {
            text.parse().map(Self)
        }
    }
    impl TypedHeader for Price {
        const NAME: &'static str = "price";
    }
    type Missing = Option<Json<Vec<u8>>>;
    let (sender, mut received) = mpsc::channel(1);
    let handler = move |State(word): State<&'static str>,
                        raw: Bytes,
                        Header(Price(price)): Header<Price>,
                        Json(n): Json<u32>,
                        headers: Headers,
                        missing: Missing,
                        meta: Meta,
                        bad: Result<Payload<bool>, Failure>,
                        delivery: Delivery,
                        _bridge: StreamBridge,
                        Text(text): Text,
                        Payload(wide): Payload<u64>| {
        let sender = sender.clone();
        async move {
            assert!(missing.is_none() && bad.is_err());
            assert_eq!(delivery.payload(), &raw);
            let line = format!(
                "{word} {price} {n} {wide} {text} {} {:?}",
                headers.len(),
                meta.tags()
            );
            sender.send(line).await.map_err(Failure::retry)
        }
    };
    let (app, _binder) = consuming(Function::consumer("many", handler));
    let app = app.state("hello").start().await.unwrap();
    let message = Message::json(&42).unwrap().tag("t").header("price", "7");
    app.bridge().to_topic("topic").send(message).await.unwrap();
    assert_eq!(received.recv().await.unwrap(), "hello 7 42 42 42 2 Some(\"t\")");
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_supplier_is_polled_as_configured() {
    let (app, binder) = app("
        spring.cloud.stream.bindings.ticks-out-0:
          destination: ticks
          producer.poller: {fixed-delay: 100ms, initial-delay: 1s, max-messages-per-poll: 2}
    ");
    let next = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&next);
    let ticks = Function::supplier("ticks", move || {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        async move { u64::try_from(n).unwrap() }
    });
    let app = app
        .register(ticks.every(Duration::from_secs(3600)))
        .start()
        .await
        .unwrap();
    time::sleep(Duration::from_millis(999)).await;
    assert!(bodies(&binder, "ticks").is_empty());
    time::sleep(Duration::from_millis(102)).await;
    assert_eq!(bodies(&binder, "ticks"), ["0", "1", "2", "3"]);
    assert!(app.shutdown().await.is_clean());
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(next.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_supplier_that_fails_or_panics_is_polled_again() {
    let (app, binder) = app("spring.cloud.stream.bindings.odd-out-0.destination: odd");
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let odd = Function::supplier("odd", move || {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            assert_ne!(call, 0, "on purpose");
            if call == 1 {
                Err(Failure::retry("not now"))
            } else {
                Ok(Some(call.to_string()))
            }
        }
    });
    let app = app
        .register(odd.every(Duration::from_millis(10)))
        .start()
        .await
        .unwrap();
    time::sleep(Duration::from_millis(25)).await;
    assert_eq!(bodies(&binder, "odd"), ["2"]);
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_supplier_is_not_polled() {
    let (app, binder) = app("
        spring.cloud.stream.bindings.ticks-out-0: {destination: ticks, producer.auto-startup: false}
    ");
    let app = app
        .register(Function::supplier("ticks", || async { "tick" }))
        .start()
        .await
        .unwrap();
    time::sleep(Duration::from_secs(10)).await;
    assert!(bodies(&binder, "ticks").is_empty());
    assert!(app.resume("ticks-out-0"));
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(bodies(&binder, "ticks").len(), 1);
    assert!(app.pause("ticks-out-0"));
    assert!(!app.pause("tocks-out-0"));
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn layers_see_raw_deliveries_and_final_outcomes_the_last_one_outermost() {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let logging = |name: &'static str| {
        let log = Arc::clone(&log);
        tower::layer::layer_fn(move |inner: DeliveryHandler| {
            let log = Arc::clone(&log);
            tower::service_fn(move |delivery: Delivery| {
                let (log, inner) = (Arc::clone(&log), inner.clone());
                async move {
                    log.lock()
                        .unwrap()
                        .push(format!("{name} {:?}", delivery.payload()));
                    let outcome = inner.handle(delivery).await;
                    log.lock()
                        .unwrap()
                        .push(format!("{name} ack={}", outcome.is_ack()));
                    Ok::<_, BoxError>(outcome)
                }
            })
        })
    };
    let (app, binder) = consuming(Function::consumer("strict", |Json(_): Json<u32>| async {}));
    let app = app
        .layer(logging("inner"))
        .layer(logging("outer"))
        .start()
        .await
        .unwrap();
    app.bridge().to_topic("topic").send("no number").await.unwrap();
    binder.idle().await;
    let body = "b\"no number\"";
    let expected = [
        format!("outer {body}"),
        format!("inner {body}"),
        "inner ack=false".to_owned(),
        "outer ack=false".to_owned(),
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_timeout_layer_cuts_a_slow_handler_off_and_asks_for_a_retry() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let (app, binder) = consuming(Function::consumer("slow", move || {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            if call == 0 {
                std::future::pending::<()>().await;
            }
        }
    }));
    let app = app
        .layer(crate::layers::TimeoutLayer::new(Duration::from_secs(5)))
        .start()
        .await
        .unwrap();
    app.bridge().to_topic("topic").send("x").await.unwrap();
    binder.idle().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_handlers_up_to_its_bound_and_reports_the_rest() {
    let started = Arc::new(Notify::new());
    let signal = Arc::clone(&started);
    let (app, _binder) = app("
        spring.cloud.stream: {shutdown-timeout: 5s, bindings.stuck-in-0: {destination: topic, group: g}}
    ");
    let app = app.register(Function::consumer("stuck", move |Text(text): Text| {
        let signal = Arc::clone(&signal);
        async move {
            signal.notify_one();
            if text == "slow" {
                time::sleep(Duration::from_secs(3)).await;
            } else {
                std::future::pending::<()>().await;
            }
        }
    }));
    let app = app.start().await.unwrap();
    let bridge = app.bridge().clone();
    for text in ["slow", "stuck"] {
        bridge.to_topic("topic").send(text).await.unwrap();
        started.notified().await;
    }
    let report = app.shutdown().await;
    assert_eq!(
        report,
        ShutdownReport {
            unfinished_deliveries: 1,
            unfinished_suppliers: 0
        }
    );
    let error = bridge.to_topic("topic").send("late").await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_bridge_sends_by_binding_and_refuses_a_mistyped_name() {
    let (app, binder) = app("spring.cloud.stream.bindings: {orders-out-0: {destination: orders}}");
    let app = app.start().await.unwrap();
    let receipt = app.bridge().send("orders-out-0", Json(1)).await.unwrap();
    assert_eq!((&*receipt.topic, receipt.queue_offset), ("orders", 0));
    let error = app.bridge().send("ordres-out-0", Json(1)).await.unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::UnknownBinding);
    assert_eq!(
        error.to_string(),
        "no output binding `ordres-out-0`; did you mean `orders-out-0`?"
    );
    assert!(binder.stored("ordres-out-0").is_empty());
    let error = app
        .bridge()
        .send("orders-out-0", Message::new("x").header("DELAY", "soon"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), SendErrorKind::Encode);
    assert_eq!(bodies(&binder, "orders").len(), 1);
    app.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_without_a_media_type_get_the_bindings() {
    let (app, binder) = app("
        spring.cloud.stream.bindings: {csv-out-0: {destination: csv, content-type: text/csv}}
    ");
    let app = app.start().await.unwrap();
    app.bridge().send("csv-out-0", Message::new("a,b")).await.unwrap();
    app.bridge().send("csv-out-0", Json(1)).await.unwrap();
    let types: Vec<_> = binder
        .stored("csv")
        .iter()
        .map(|m| m.message().media_type().map(str::to_owned))
        .collect();
    assert_eq!(
        types,
        [Some("text/csv".to_owned()), Some("application/json".to_owned())]
    );
    app.shutdown().await;
}

#[tokio::test]
async fn an_unknown_function_is_named_with_the_nearest_one() {
    let (app, _binder) = app("spring.cloud.function.definition: sqare");
    let (kind, text) = problem(app.register(square())).await;
    assert_eq!(kind, StartProblemKind::UnknownFunction);
    assert_eq!(
        text,
        "spring.cloud.function.definition names the unknown function `sqare`; did you mean `square`?"
    );
}

#[tokio::test]
async fn several_functions_without_a_definition_are_listed() {
    let (app, _binder) = app("spring.application.name: x");
    let (kind, text) = problem(
        app.register(square())
            .register(Function::consumer("print", || async {})),
    )
    .await;
    assert_eq!(kind, StartProblemKind::AmbiguousDefinition);
    assert!(
        text.ends_with("choose with `spring.cloud.function.definition: print;square`"),
        "{text}"
    );
}

#[tokio::test]
async fn a_function_named_twice_in_the_definition_is_refused() {
    let (app, _binder) = app(&SQUARE.replace("definition: square", "definition: square;square"));
    let (kind, text) = problem(app.register(square())).await;
    assert_eq!(kind, StartProblemKind::DuplicateFunction);
    assert!(text.ends_with("names `square` twice; remove one"), "{text}");
}

#[tokio::test]
async fn a_missing_state_names_the_function_and_the_type() {
    #[derive(Clone)]
    struct Db;
    let (app, _binder) = consuming(Function::consumer("orders", |State(_): State<Db>| async {}));
    let (kind, text) = problem(app).await;
    assert_eq!(kind, StartProblemKind::MissingState);
    assert!(text.starts_with("consumer `orders` takes `State<"), "{text}");
    assert!(
        text.contains("Db>`, but the application has no such state; add `.state(..)`"),
        "{text}"
    );
}

#[tokio::test]
async fn two_functions_of_one_name_or_one_binding_are_refused() {
    let (first, _binder) = app(SQUARE);
    let (kind, text) = problem(first.register(square()).register(square())).await;
    assert_eq!(kind, StartProblemKind::DuplicateFunction);
    assert!(text.contains("function `square` and function `square`"), "{text}");

    let (second, _binder) = app("
        spring.cloud.function.definition: square;print
        spring.cloud.stream.bindings.square-in-0: {destination: num, group: g}
    ");
    let print = Function::consumer("print", || async {}).binding("square-in-0");
    let (kind, text) = problem(second.register(square()).register(print)).await;
    assert_eq!(kind, StartProblemKind::DuplicateBinding);
    assert!(text.contains("are both bound to `square-in-0`"), "{text}");
}

#[tokio::test]
async fn a_misspelt_binding_is_refused_with_the_nearest_one() {
    let (first, _binder) = app("
        spring.cloud.stream.bindings:
          square-in-0: {destination: num, group: g}
          sqare-out-0: {destination: square}
    ");
    let (kind, text) = problem(first.register(square())).await;
    assert_eq!(kind, StartProblemKind::UnknownBinding);
    assert!(
        text.ends_with("belongs to no function; did you mean `square-out-0`?"),
        "{text}"
    );
}

#[tokio::test]
async fn a_function_that_exists_but_is_not_in_the_definition_may_stay_configured() {
    let (app, binder) = app("
        spring.cloud.function.definition: square
        spring.cloud.stream.bindings:
          square-in-0: {destination: num, group: g}
          print-in-0: {destination: square, group: p}
    ");
    let app = app
        .register(square())
        .register(Function::consumer("print", || async {}))
        .start()
        .await
        .unwrap();
    assert_eq!(app.bindings().collect::<Vec<_>>(), ["square-in-0"]);
    app.shutdown().await;
    drop(binder);
}

#[tokio::test]
async fn a_function_without_configuration_needs_a_group() {
    let (app, _binder) = app("spring.application.name: x");
    let (kind, text) = problem(app.register(Function::consumer("print", || async {}))).await;
    assert_eq!(
        kind,
        StartProblemKind::Config(crate::config::ConfigErrorKind::MissingGroup)
    );
    assert!(text.contains("print-in-0"), "{text}");
}

#[tokio::test]
async fn all_mistakes_are_reported_together() {
    #[derive(Clone)]
    struct Db;
    let (app, _binder) = app("
        spring.cloud.function.definition: square;missing
        spring.cloud.stream.bindings.sqare-out-0.destination: square
    ");
    let greedy = Function::function(
        "square",
        |State(_): State<Db>, Payload(n): Payload<i64>| async move { n },
    );
    let error = app.register(greedy).start().await.unwrap_err();
    assert_eq!(error.problems().len(), 4, "{error}");
    assert_eq!(error.to_string().lines().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_given_binding_name_replaces_the_implicit_one() {
    let (app, binder) = app("
        spring.cloud.stream.bindings: {numbers: {destination: num, group: g}, squares: {destination: square}}
    ");
    let app = app
        .register(square().binding("numbers").output("squares"))
        .start()
        .await
        .unwrap();
    app.bridge().to_topic("num").send(5_i64).await.unwrap();
    binder.idle().await;
    assert_eq!(bodies(&binder, "square"), ["25"]);
    app.shutdown().await;
}
