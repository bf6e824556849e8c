//! Handlers of batches.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::*;

/// Passes the bodies of each batch on and gives the same outcome for each.
fn batches<O: IntoBatchOutcome + Send + 'static>(
    outcome: impl Fn() -> O + Send + Sync + 'static,
) -> (
    impl Fn(Vec<MessageView>) -> std::future::Ready<O> + Send + Sync + 'static,
    mpsc::Receiver<Vec<String>>,
) {
    let (sender, receiver) = mpsc::channel(1000);
    let handler = move |messages: Vec<MessageView>| {
        sender.try_send(messages.iter().map(text).collect()).unwrap();
        std::future::ready(outcome())
    };
    (handler, receiver)
}

/// Where the messages that were given back are, and with which delay level.
async fn given_back(stage: &Stage, count: usize) -> Vec<(i64, i32)> {
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(count)).await;
    let mut backs: Vec<_> = backs.iter().map(|back| (back.offset, back.delay_level)).collect();
    backs.sort_unstable();
    backs
}

#[tokio::test]
async fn a_batch_is_done_up_to_an_index_and_the_rest_is_given_back() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c", "d"]);
    let (handler, mut received) = batches(|| BatchOutcome::RetryFrom(2, Retry::Level(4)));
    let consumer = stage.builder().start_batch(10, handler).await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), ["a", "b", "c", "d"]);
    assert_eq!(given_back(&stage, 2).await, [(2007, 4), (3007, 4)]);
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&4));
    let stats = consumer.stats();
    assert_eq!((stats.acknowledged, stats.retried), (2, 2));
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_message() {
    let stage = Stage::new().await;
    stage.script.store(&["good", "bad", "ugly", "forgotten"]);
    let outcome = || {
        BatchOutcome::each([
            Outcome::Ack,
            Retry::Level(2).into(),
            Outcome::Reject("ugly".into()),
        ])
    };
    let (handler, _received) = batches(outcome);
    let consumer = stage.builder().start_batch(10, handler).await.unwrap();
    assert_eq!(given_back(&stage, 3).await, [(1007, 2), (2007, -1), (3007, 0)]);
    consumer.shutdown().await;
    let stats = consumer.stats();
    assert_eq!((stats.acknowledged, stats.retried, stats.rejected), (1, 2, 1));
    assert_eq!(stage.commits().last(), Some(&4));
}

#[tokio::test]
async fn a_batch_is_not_larger_than_asked_for() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c", "d", "e"]);
    let (handler, mut received) = batches(|| ());
    let consumer = stage
        .builder()
        .concurrency(1)
        .start_batch(2, handler)
        .await
        .unwrap();
    for wanted in [&["a", "b"][..], &["c", "d"], &["e"]] {
        assert_eq!(soon(received.recv()).await.unwrap(), wanted);
    }
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&5));
}

#[tokio::test]
async fn a_batch_whose_handler_fails_panics_or_hangs_comes_again_whole() {
    for how in ["fail", "panic", "hang"] {
        let stage = Stage::new().await;
        stage.script.store(&["a", "b"]);
        let handler = move |_: Vec<MessageView>| async move {
            match how {
                "fail" => Err("on purpose"),
                "panic" => panic!("on purpose"),
                _ => std::future::pending().await,
            }
        };
        let handler = move |messages| {
            let failed = handler(messages);
            async move { failed.await.map(|()| BatchOutcome::Ack) }
        };
        let consumer = stage
            .builder()
            .retry(Retry::Level(5))
            .consume_timeout(Duration::from_millis(50))
            .start_batch(10, handler)
            .await
            .unwrap();
        assert_eq!(given_back(&stage, 2).await, [(7, 5), (1007, 5)], "{how}");
        consumer.shutdown().await;
        let stats = consumer.stats();
        let counted = (stats.retried, stats.panicked, stats.timed_out, stats.acknowledged);
        let wanted = match how {
            "fail" => (2, 0, 0, 0),
            "panic" => (2, 2, 0, 0),
            _ => (2, 0, 2, 0),
        };
        assert_eq!(counted, wanted, "{how}");
        assert_eq!(stage.commits().last(), Some(&2), "{how}");
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_given_back_holds_the_offset_and_not_its_batch() {
    let stage = Stage::new().await;
    stage.script.store(&["good", "bad", "good too"]);
    stage
        .script
        .refuse::<ConsumerSendMsgBack>(ResponseCode::NO_PERMISSION);
    stage.script.refuse::<SendMessageV2>(ResponseCode::NO_PERMISSION);
    let handler = |messages: Vec<MessageView>| async move {
        BatchOutcome::each(messages.iter().map(|message| match &*text(message) {
            "bad" => Retry::Level(1).into(),
            _ => Outcome::Ack,
        }))
    };
    let consumer = stage.builder().start_batch(10, handler).await.unwrap();
    // Three times through the handler, alone from the second time on, and both ways back.
    soon(stage.broker.asked::<SendMessageV2>(3)).await;
    assert_eq!(consumer.stats().acknowledged, 2);
    assert!(
        stage.commits().iter().all(|&offset| offset <= 1),
        "{:?}",
        stage.commits()
    );
    stage.script.accept::<ConsumerSendMsgBack>();
    let before = stage.broker.requests_of::<UpdateConsumerOffset>().len();
    let commits = soon(stage.broker.asked::<UpdateConsumerOffset>(before + 1)).await;
    assert_eq!(commits.last().unwrap().commit_offset, 3);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_given_back_and_the_handler_gets_the_others() {
    let stage = Stage::new().await;
    stage.script.store(&["not zlib", "fine", "fine too"]);
    lock(&stage.script.0).log[0].sys_flag = SysFlag(SysFlag::COMPRESSED);
    let (handler, mut received) = batches(|| BatchOutcome::RetryFrom(1, Retry::Level(1)));
    let consumer = stage.builder().start_batch(10, handler).await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), ["fine", "fine too"]);
    assert_eq!(given_back(&stage, 2).await, [(7, 0), (2007, 1)]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_batch_that_lingers_comes_though_it_is_not_full() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c", "d", "e"]);
    let (handler, mut received) = batches(|| ());
    let consumer = stage
        .builder()
        .batch_linger(Duration::from_millis(50))
        .start_batch(3, handler)
        .await
        .unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(soon(received.recv()).await.unwrap(), ["d", "e"]);
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&5));
}

/// Rejects what the handler has acknowledged.
#[derive(Clone)]
struct Strict;

#[derive(Clone)]
struct Checked<S>(S);

impl<S> Layer<S> for Strict {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked(inner)
    }
}

impl<S> Service<Vec<MessageView>> for Checked<S>
where
    S: Service<Vec<MessageView>, Response = BatchOutcome, Error = BoxError, Future: Send + 'static>,
{
    type Response = BatchOutcome;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<BatchOutcome, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, messages: Vec<MessageView>) -> Self::Future {
        let handled = self.0.call(messages);
        Box::pin(async move {
            match handled.await? {
                BatchOutcome::Ack => Ok(BatchOutcome::retry_all(Retry::Level(9))),
                other => Ok(other),
            }
        })
    }
}

#[tokio::test]
async fn a_layer_of_batches_has_the_last_word() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b"]);
    let (handler, _received) = batches(|| Ok::<(), Infallible>(()));
    let builder = stage.builder().batch_layer(Strict);
    let consumer = builder.start_batch(10, handler).await.unwrap();
    assert_eq!(given_back(&stage, 2).await, [(7, 9), (1007, 9)]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn layers_of_the_other_kind_and_sizes_out_of_range_are_refused() {
    let stage = Stage::new().await;
    let builder = stage.builder().batch_layer(Strict);
    let error = builder.start(|_: MessageView| async {}).await.unwrap_err();
    assert!(error.to_string().contains("start_batch"), "{error}");
    for size in [0, 1025] {
        let (handler, _received) = batches(|| ());
        let error = stage.builder().start_batch(size, handler).await.unwrap_err();
        assert!(error.to_string().contains("from 1 to 1024"), "{error}");
    }
}

#[tokio::test]
async fn an_operator_lets_one_message_be_consumed_as_a_batch_of_one() {
    let stage = Stage::new().await;
    let (handler, mut received) = batches(|| BatchOutcome::retry_from(0));
    let consumer = stage.builder().start_batch(10, handler).await.unwrap();
    let request = ConsumeMessageDirectly {
        consumer_group: GROUP.into(),
        client_id: None,
        msg_id: None,
        broker_name: Some("broker-a".into()),
        topic: None,
        body: Bytes::new(),
    };
    stage.broker.push(Frame {
        opaque: 4000,
        fields: Fields::from_header(&request).unwrap(),
        body: encoded(&[record(9, "one")]).freeze(),
        ..Frame::request(RequestCode::CONSUME_MESSAGE_DIRECTLY)
    });
    assert_eq!(soon(received.recv()).await.unwrap(), ["one"]);
    let response = soon(response_to(&stage.broker, 4000)).await;
    let answer = ConsumeDirectlyResult::from_body(&response.body).unwrap();
    assert_eq!(answer.consume_result, "CR_LATER");
    consumer.shutdown().await;
}
