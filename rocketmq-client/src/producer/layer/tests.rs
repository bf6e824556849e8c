use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tower::ServiceBuilder;

use super::*;
use crate::cluster::testing::client;
use crate::producer::testing::{Two, message, ok};
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{Frame, Properties, Record, RequestCode, ResponseCode, SysFlag, Text};
use crate::transport::fake::Answer;
use crate::{ErrorKind, MessageView, Persisted, TransactionState};

/// What a layer noted, in order.
type Seen = Arc<Mutex<Vec<String>>>;

/// A layer that notes what it sees before and after.
fn noting(
    name: &'static str,
    seen: Seen,
) -> impl Layer<
    SendStack,
    Service: Service<Sending, Response = SendReceipt, Error = Error, Future: Send> + Clone + Send + Sync,
> + Send {
    tower::layer::layer_fn(move |inner: SendStack| {
        let seen = Arc::clone(&seen);
        service_fn(move |sending: Sending| {
            let (seen, inner) = (Arc::clone(&seen), inner.clone());
            async move {
                let context = sending.context();
                let queue = context.queue.as_ref().map(|queue| queue.queue_id);
                lock(&seen).push(format!("{name} before {:?} {queue:?}", context.mode));
                let result = inner.oneshot(sending).await;
                let after = match &result {
                    Ok(receipt) => format!("offset {} after {}", receipt.queue_offset, receipt.attempts),
                    Err(error) => format!("{:?} after {}", error.kind(), error.attempts()),
                };
                lock(&seen).push(format!("{name} {after}"));
                result
            }
        })
    })
}

#[tokio::test]
async fn layers_are_around_every_way_to_send_and_the_first_one_is_the_outermost() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let seen = Seen::default();
    let producer = client
        .producer("g")
        .layer(noting("outer", Arc::clone(&seen)))
        .layer(noting("inner", Arc::clone(&seen)))
        .start()
        .await
        .unwrap();
    let taken = || std::mem::take(&mut *lock(&seen));
    let around = |before: &str, after: &str| {
        vec![
            format!("outer before {before}"),
            format!("inner before {before}"),
            format!("inner {after}"),
            format!("outer {after}"),
        ]
    };

    producer.send(message()).await.unwrap();
    assert_eq!(taken(), around("Awaited None", "offset 5 after 1"));
    producer.send(message()).detach().await.unwrap();
    assert_eq!(taken(), around("Detached None", "offset 5 after 1"));
    let reserved = producer.send(message()).reserve().await.unwrap();
    let (sender, receiver) = oneshot::channel();
    reserved.on_complete(|result| sender.send(result).unwrap());
    receiver.await.unwrap().unwrap();
    assert_eq!(taken(), around("Callback None", "offset 5 after 1"));
    producer.send(message()).one_way().await.unwrap();
    assert_eq!(taken(), around("OneWay None", "offset -1 after 1"));
    let queue = MessageQueue::new("t", "b", 0);
    producer.send(message()).to_queue(queue).await.unwrap();
    assert_eq!(taken(), around("Awaited Some(0)", "offset 5 after 1"));
}

#[tokio::test]
async fn a_layer_sees_the_attempts_of_a_failure_and_its_error_comes_back_as_it_was() {
    let busy = |_: &_| Answer::code(ResponseCode::SYSTEM_BUSY);
    let two = Two::new(busy, busy).await;
    let client = client(&two.name_server.address()).await;
    let seen = Seen::default();
    let producer = client
        .producer("g")
        .max_attempts(2)
        .layer(noting("only", Arc::clone(&seen)))
        .start()
        .await
        .unwrap();
    let error = producer.send(message()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Busy, 2));
    assert_eq!(*lock(&seen), ["only before Awaited None", "only Busy after 2"]);
}

#[tokio::test]
async fn a_layer_may_change_the_message_and_answer_by_itself() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .layer(
            ServiceBuilder::new()
                .map_request(|sending: Sending| sending.map(|message| message.property("region", "eu"))),
        )
        .start()
        .await
        .unwrap();
    let receipt = producer.send(message()).await.unwrap();
    let server = if &*receipt.queue.broker_name == "a" {
        &two.a
    } else {
        &two.b
    };
    let sent = server.requests_of::<SendMessageV2>().pop().unwrap();
    let properties = sent.properties.unwrap();
    assert!(properties.contains("region\u{1}eu"), "{properties:?}");

    let answering = tower::layer::layer_fn(|_inner: SendStack| {
        service_fn(|sending: Sending| async move {
            Err::<SendReceipt, BoxError>(format!("not today: {}", sending.messages().len()).into())
        })
    });
    let refused = client.producer("g2").layer(answering).start().await.unwrap();
    let error = refused.send(message()).detach().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Rejected, Persisted::No)
    );
    assert_eq!(error.to_string(), "a send layer failed: not today: 1");
}

#[tokio::test]
async fn what_is_forbidden_is_not_sent_any_way() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .layer(forbid(|message, context| match message.get("TAGS") {
            Some("secret") => Err(format!("{} may not send secrets", context.group)),
            _ => Ok(()),
        }))
        .start()
        .await
        .unwrap();
    producer.send(message().tag("open")).await.unwrap();
    let secret = || producer.send(message().tag("secret"));
    let error = secret().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.to_string(), "a send layer failed: g may not send secrets");
    secret().detach().await.unwrap_err();
    secret().one_way().await.unwrap_err();
    assert_eq!(two.sent_to_a() + two.sent_to_b(), 1);
    assert!(producer.core().room.try_enter(1).is_some());
}

#[tokio::test]
async fn with_layers_too_a_detached_send_without_room_fails_at_once_and_gives_no_room_away() {
    let two = Two::new(|_| Answer::Silence, |_| Answer::Silence).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .max_in_flight(1)
        .layer(forbid(|_, _| Ok::<_, BoxError>(())))
        .start()
        .await
        .unwrap();
    let _held = producer.send(message()).reserve().await.unwrap();
    let error = producer.send(message()).detach().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
}

#[tokio::test]
async fn detached_sends_through_layers_that_do_not_wait_keep_their_order() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .layer(forbid(|_, _| Ok::<_, BoxError>(())))
        .start()
        .await
        .unwrap();
    let to = || MessageQueue::new("t", "a", 0);
    // The route and the connection are there: nothing but the layers is between a send and its frame.
    producer.send(message()).to_queue(to()).await.unwrap();
    let handles: Vec<_> = (0..200)
        .map(|number| {
            let message = message().property("number", number.to_string());
            producer.send(message).to_queue(to()).detach()
        })
        .collect();
    for handle in handles {
        handle.await.unwrap();
    }
    let numbers: Vec<String> = two
        .a
        .requests_of::<SendMessageV2>()
        .into_iter()
        .filter_map(|sent| {
            let properties = Properties::new(Text::from(sent.properties.unwrap()));
            properties.get("number").map(str::to_owned)
        })
        .collect();
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn layers_know_what_kind_of_message_is_sent() {
    let script = |frame: &Frame| match RequestCode(frame.code) {
        RequestCode::END_TRANSACTION => Answer::code(ResponseCode::SUCCESS),
        _ => ok(frame),
    };
    let two = Two::new(script, script).await;
    let client = client(&two.name_server.address()).await;
    let kinds: Arc<Mutex<Vec<SendKind>>> = Arc::default();
    let seen = Arc::clone(&kinds);
    let note = forbid(move |_, context| {
        lock(&seen).push(context.kind);
        Ok::<_, BoxError>(())
    });
    let producer = client
        .producer("g")
        .layer(note.clone())
        .start_transactional(|_half: MessageView| async { TransactionState::Unknown })
        .await
        .unwrap();
    producer.begin(message()).await.unwrap().rollback().await.unwrap();
    let producer = producer.producer();
    producer.send(message()).await.unwrap();
    producer.send_batch([message(), message()]).await.unwrap();
    // Nobody answers.
    let unanswered = producer.request(message(), Duration::from_millis(100));
    assert_eq!(unanswered.await.unwrap_err().kind(), ErrorKind::Timeout);
    let request = Record {
        queue_id: 0,
        flag: 0,
        queue_offset: 0,
        physical_offset: 0,
        sys_flag: SysFlag::default(),
        born_timestamp: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_timestamp: 0,
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::new(),
        topic: Text::from_static("t"),
        properties: Properties::new(Text::from_static(
            "CORRELATION_ID\u{1}1\u{2}REPLY_TO_CLIENT\u{1}c\u{2}CLUSTER\u{1}c\u{2}",
        )),
    };
    let request = MessageView::new(request, MessageQueue::new("t", "a", 0));
    // No broker of this route has the topic of replies.
    let _ = producer.send(Message::reply_to(&request, "x")).await;
    assert_eq!(
        *lock(&kinds),
        [
            SendKind::TransactionHalf,
            SendKind::Normal,
            // Once for each of its messages.
            SendKind::Batch,
            SendKind::Batch,
            SendKind::Request,
            SendKind::Reply
        ]
    );
}
