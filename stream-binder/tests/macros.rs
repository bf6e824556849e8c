//! Functions announced by attributes, found without a list.

use std::time::Duration;

use stream_binder::{
    App, Config, Failure, Function, Json, MemoryBinder, Message, Meta, Outcome, Payload, Role, State,
    StreamBridge, Text, consumer, function, supplier,
};

#[derive(Clone)]
struct Start(u64);

#[supplier(every = "50ms")]
async fn numbers(State(Start(start)): State<Start>) -> Option<Json<u64>> {
    (start > 0).then_some(Json(start))
}

#[function]
async fn square(Payload(n): Payload<u64>) -> Json<u64> {
    Json(n * n)
}

#[function(name = "shout", binding = "words", output = "shouts")]
async fn louder(Text(text): Text, meta: Meta) -> Result<Vec<Message>, std::convert::Infallible> {
    Ok(vec![Message::text(text.to_uppercase()).key(meta.message_id())])
}

#[consumer]
async fn audit(Json(n): Json<u64>, bridge: StreamBridge) -> Result<(), Failure> {
    bridge.to_topic("audited").send(n).await?;
    Ok(())
}

#[consumer]
async fn nothing() {}

#[consumer(name = "verdict")]
async fn r#type() -> Outcome {
    Outcome::Ack
}

#[tokio::test(start_paused = true)]
async fn annotated_functions_are_found_and_bound() {
    let config = Config::from_yaml(
        "
        spring.cloud.function.definition: numbers;square;audit
        spring.cloud.stream.bindings:
          numbers-out-0: {destination: num}
          square-in-0: {destination: num, group: g}
          square-out-0: {destination: square}
          audit-in-0: {destination: square, group: g2}
        ",
    );
    let binder = MemoryBinder::new();
    let app = App::new(config.unwrap())
        .state(Start(5))
        .binder(binder.clone())
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    app.shutdown().await;
    assert_eq!(binder.stored("num").len(), 1);
    assert_eq!(&binder.stored("square")[0].payload()[..], b"25");
    assert_eq!(&binder.stored("audited")[0].payload()[..], b"25");
}

#[tokio::test(start_paused = true)]
async fn names_and_bindings_of_an_attribute_are_used() {
    let config = Config::from_yaml(
        "
        spring.cloud.function.definition: shout;verdict;nothing
        spring.cloud.stream.bindings:
          words: {destination: words, group: g}
          shouts: {destination: shouts}
          verdict-in-0: {destination: verdicts, group: g2}
          nothing-in-0: {destination: nothing, group: g3}
        ",
    );
    let binder = MemoryBinder::new();
    let app = App::new(config.unwrap())
        .binder(binder.clone())
        .start()
        .await
        .unwrap();
    assert_eq!(
        app.bindings().collect::<Vec<_>>(),
        ["nothing-in-0", "verdict-in-0", "words"]
    );
    app.bridge().to_topic("words").send("hello").await.unwrap();
    binder.idle().await;
    assert_eq!(&binder.stored("shouts")[0].payload()[..], b"HELLO");
    app.shutdown().await;
}

#[tokio::test]
async fn an_unbound_annotated_function_says_where_it_is_written() {
    let config = Config::from_yaml("spring.cloud.function.definition: numbers").unwrap();
    let error = App::new(config)
        .binder(MemoryBinder::new())
        .start()
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("supplier `numbers` (stream-binder/tests/macros.rs:"),
        "{text}"
    );
    assert!(text.contains("takes `State<macros::Start>`"), "{text}");
}

#[tokio::test]
async fn an_annotated_function_can_be_called() {
    assert_eq!(square(Payload(7)).await, Json(49));
    assert_eq!(Function::function("square", square).role(), Role::Function);
    nothing().await;
    assert!(r#type().await.is_ack());
}
