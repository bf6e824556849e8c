use std::sync::atomic::AtomicUsize;

use super::*;
use crate::cluster::testing::client;
use crate::producer::ProducerBuilder;
use crate::producer::testing::{Two, ok, stored};
use crate::protocol::{Frame, RequestCode, ResponseCode, decode_batch};
use crate::transport::fake::{Answer, FakeServer};
use crate::{Client, Producer};

/// As a broker answers a batch or a single message.
fn ok_any(frame: &Frame) -> Answer {
    let Answer::Respond(mut response) = ok(frame) else {
        return Answer::Silence;
    };
    if frame.code == RequestCode::SEND_BATCH_MESSAGE.0 {
        let count = decode_batch(frame.body.clone()).unwrap().len();
        let ids = (0..count)
            .map(|index| format!("7F{index:030}"))
            .collect::<Vec<_>>()
            .join(",");
        let fields = response.fields.iter().map(|(name, value)| match name {
            "msgId" => (name, ids.as_str()),
            _ => (name, value),
        });
        response.fields = fields.collect();
    }
    Answer::Respond(response)
}

/// The bodies of each send that a broker got, in order.
fn sends(server: &FakeServer) -> Vec<Vec<String>> {
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    let frames = server.requests().into_iter();
    frames
        .filter_map(|frame| match RequestCode(frame.code) {
            RequestCode::SEND_BATCH_MESSAGE => {
                let batch = decode_batch(frame.body).unwrap();
                Some(batch.iter().map(|one| text(&one.body)).collect())
            }
            RequestCode::SEND_MESSAGE_V2 => Some(vec![text(&frame.body)]),
            _ => None,
        })
        .collect()
}

async fn producer(
    two: &Two,
    batching: Batching,
    options: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
) -> (Client, Producer) {
    let client = client(&two.name_server.address()).await;
    let builder = options(client.producer("g").batching(batching));
    let producer = builder.start().await.unwrap();
    (client, producer)
}

fn patient() -> Batching {
    Batching {
        linger: Duration::from_secs(1),
        ..Batching::default()
    }
}

fn text(number: usize) -> Message {
    Message::new("t", number.to_string())
}

fn keyed(number: usize) -> Message {
    text(number).sharding_key("one queue")
}

#[tokio::test]
async fn sends_at_one_time_share_a_batch_and_each_gets_its_own_receipt() {
    let two = Two::new(ok_any, ok_any).await;
    let (client, producer) = producer(&two, patient(), |builder| builder).await;
    let handles: Vec<_> = (0..10)
        .map(|number| producer.send(keyed(number)).detach())
        .collect();
    producer.shutdown().await;
    let mut ids = Vec::new();
    for (index, handle) in (0..).zip(handles) {
        let receipt = handle.await.unwrap();
        assert_eq!(receipt.queue_offset, 5 + index);
        assert_eq!(receipt.offset_message_id, format!("7F{index:030}"));
        ids.push(receipt.message_id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    let mut all = sends(&two.a);
    all.extend(sends(&two.b));
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(all, [expected], "one batch, sent at once by the shutdown");
    client.shutdown().await;
}

#[tokio::test]
async fn a_batch_leaves_when_it_is_full_and_a_message_above_the_size_goes_alone_in_its_turn() {
    let two = Two::new(ok_any, ok_any).await;
    let batching = Batching {
        max_messages: 3,
        max_bytes: 500,
        ..patient()
    };
    let (client, producer) = producer(&two, batching, |builder| builder).await;
    let large = "x".repeat(600);
    let messages = (0..3)
        .map(keyed)
        .chain([Message::new("t", large.clone()).sharding_key("one queue")])
        .chain((4..7).map(keyed));
    let handles: Vec<_> = messages.map(|message| producer.send(message).detach()).collect();
    for handle in handles {
        handle.await.unwrap();
    }
    let mut all = sends(&two.a);
    all.extend(sends(&two.b));
    assert_eq!(
        all,
        [vec!["0", "1", "2"], vec![large.as_str()], vec!["4", "5", "6"]]
    );
    client.shutdown().await;
}

#[tokio::test]
async fn messages_of_one_key_stay_in_order_through_a_batch_that_has_to_be_sent_again() {
    let refusals = AtomicUsize::new(0);
    let busy_twice = move |frame: &Frame| match refusals.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => stored(frame, ResponseCode::SYSTEM_BUSY),
        _ => ok_any(frame),
    };
    // One broker has one queue, so both have the key's.
    let two = Two::new(busy_twice, ok_any).await;
    let batching = Batching {
        max_messages: 7,
        linger: Duration::ZERO,
        ..Batching::default()
    };
    let (client, producer) = producer(&two, batching, |builder| builder).await;
    let queue = crate::MessageQueue::new("t", "a", 0);
    let handles: Vec<_> = (0..50)
        .map(|number| producer.send(text(number)).to_queue(queue.clone()).detach())
        .collect();
    for handle in handles {
        handle.await.unwrap();
    }
    let mut sent = sends(&two.a);
    let first = sent[0].clone();
    assert_eq!(
        (&sent[1], &sent[2]),
        (&first, &first),
        "the same batch until it is stored"
    );
    sent.drain(..2);
    let order: Vec<usize> = sent.concat().iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    client.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_in_a_batch_is_sent_by_itself() {
    let two = Two::new(ok_any, ok_any).await;
    let (client, producer) = producer(&two, patient(), |builder| builder).await;
    let waits = producer.send(text(0)).detach();
    producer.send(text(1).delay_level(1)).await.unwrap();
    producer
        .send(text(2).delay(Duration::from_secs(5)))
        .await
        .unwrap();
    producer.send(text(3)).one_way().await.unwrap();
    producer.shutdown().await;
    waits.await.unwrap();
    let mut all = sends(&two.a);
    all.extend(sends(&two.b));
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|batch| batch.len() == 1), "{all:?}");
    client.shutdown().await;
}

#[tokio::test]
async fn a_batch_that_the_broker_finds_too_large_is_cut_and_only_the_bad_message_fails() {
    let picky = |frame: &Frame| match String::from_utf8_lossy(&frame.body).contains("bad") {
        true => stored(frame, ResponseCode::MESSAGE_ILLEGAL),
        false => ok_any(frame),
    };
    let two = Two::new(picky, picky).await;
    let (client, producer) = producer(&two, patient(), |builder| builder).await;
    let bodies = ["0", "1", "2", "bad", "4", "5", "6"];
    let handles: Vec<_> = bodies
        .map(|body| producer.send(Message::new("t", body).sharding_key("k")).detach())
        .into_iter()
        .collect();
    producer.shutdown().await;
    for (body, handle) in bodies.into_iter().zip(handles) {
        match handle.await {
            Ok(_) => assert_ne!(body, "bad"),
            Err(error) => {
                assert_eq!(body, "bad");
                assert_eq!(error.response().unwrap().0, ResponseCode::MESSAGE_ILLEGAL);
                assert_eq!(error.persisted(), Persisted::No);
            }
        }
    }
    client.shutdown().await;
}

#[tokio::test]
async fn a_batch_that_fails_fails_each_of_its_sends_with_an_error_of_its_own() {
    let refuse = |frame: &Frame| stored(frame, ResponseCode::NO_PERMISSION);
    let two = Two::new(refuse, refuse).await;
    let (client, producer) = producer(&two, patient(), |builder| builder.max_attempts(1)).await;
    let handles: Vec<_> = (0..3)
        .map(|number| producer.send(keyed(number)).detach())
        .collect();
    producer.shutdown().await;
    for (index, handle) in (1..).zip(handles) {
        let error = handle.await.unwrap_err();
        assert_eq!(error.response().unwrap().0, ResponseCode::NO_PERMISSION);
        let start = format!("message {index} of a batch of 3: send to topic t");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    client.shutdown().await;
}

#[tokio::test]
async fn a_send_that_is_dropped_before_its_batch_leaves_is_taken_out() {
    let two = Two::new(ok_any, ok_any).await;
    let (client, producer) = producer(&two, patient(), |builder| builder).await;
    let kept = producer.send(keyed(0)).detach();
    {
        let mut dropped = producer.send(keyed(1)).into_future();
        let polled = futures_poll(&mut dropped).await;
        assert!(polled.is_none(), "it waits for its batch");
    }
    let other = producer.send(keyed(2)).detach();
    producer.shutdown().await;
    kept.await.unwrap();
    other.await.unwrap();
    let mut all = sends(&two.a);
    all.extend(sends(&two.b));
    assert_eq!(all, [["0", "2"]]);
    client.shutdown().await;
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut *future).poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn what_waits_is_bounded_and_makes_senders_wait_or_fail() {
    let two = Two::new(ok_any, ok_any).await;
    let one = batch::size_in_batch(&keyed(0));
    let batching = Batching {
        max_total_bytes: u32::try_from(one).unwrap() * 2,
        ..patient()
    };
    let (client, producer) = producer(&two, batching, |builder| builder).await;
    let first = producer.send(keyed(0)).detach();
    let second = producer.send(keyed(1)).detach();
    let error = producer.send(keyed(2)).detach().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.to_string().contains("max_total_bytes"), "{error}");
    // One that can wait does, until the first batch has left.
    let waited = producer.send(keyed(3)).await.unwrap();
    assert_eq!(waited.queue_offset, 5);
    first.await.unwrap();
    second.await.unwrap();
    client.shutdown().await;
}

#[tokio::test]
async fn the_order_holds_from_the_first_message_on_before_the_queues_are_known() {
    let two = Two::new(ok_any, ok_any).await;
    let batching = Batching {
        max_messages: 5,
        linger: Duration::ZERO,
        ..Batching::default()
    };
    let (client, producer) = producer(&two, batching, |builder| builder).await;
    let handles: Vec<_> = (0..40)
        .map(|number| {
            // The first ones are sent before anything is known of the topic.
            let send = producer.send(text(number));
            match number % 2 {
                0 => send.select_queue(|queues| queues.len() - 1).detach(),
                _ => send.to_queue(crate::MessageQueue::new("t", "a", 0)).detach(),
            }
        })
        .collect();
    for handle in handles {
        handle.await.unwrap();
    }
    for (server, parity) in [(&two.a, 1), (&two.b, 0)] {
        let order: Vec<usize> = sends(server)
            .concat()
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let expected: Vec<usize> = (0..40).filter(|number| number % 2 == parity).collect();
        assert_eq!(order, expected);
    }
    client.shutdown().await;
}

#[tokio::test]
async fn an_unknown_topic_fails_all_that_waited_for_it() {
    let two = Two::new(ok_any, ok_any).await;
    let (client, producer) = producer(&two, patient(), |builder| builder).await;
    let handles: Vec<_> = (0..3)
        .map(|number| {
            producer
                .send(Message::new("nowhere", number.to_string()))
                .detach()
        })
        .collect();
    for handle in handles {
        let error = handle.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TopicNotFound, "{error}");
    }
    let accumulator = producer.core().accumulator.as_ref().unwrap();
    while !lock(&accumulator.lanes).is_empty() {
        tokio::task::yield_now().await;
    }
    client.shutdown().await;
}

#[tokio::test]
async fn a_client_that_goes_away_gives_up_what_waits_and_leaves_nothing_behind() {
    let two = Two::new(ok_any, ok_any).await;
    let (client, producer) = producer(&two, patient(), |builder| builder).await;
    let handle = producer.send(keyed(0)).detach();
    let core = Arc::downgrade(producer.core());
    let tasks = client.cluster().tasks().clone();
    drop((client, producer));
    let error = handle.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    tasks.stop(Duration::from_secs(3)).await.unwrap();
    assert!(core.upgrade().is_none(), "producer and lanes hold each other");
}

#[tokio::test]
async fn options_that_cannot_be_used_are_named() {
    let two = Two::new(ok_any, ok_any).await;
    let client = client(&two.name_server.address()).await;
    let batching = Batching {
        linger: Duration::from_secs(3),
        max_bytes: 0,
        max_messages: 0,
        max_total_bytes: 1,
    };
    let error = client.producer("g").batching(batching).start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "producer \"g\" cannot be started: max_bytes of batching must be from 1 to max_message_bytes, 4194304, not 0; \
         max_messages and max_total_bytes of batching must be at least 1; linger of batching must be shorter than the \
         send timeout of 3s, not 3s"
    );
}
