use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::cluster::testing::client;
use crate::producer::testing::{Two, message, ok, stored};
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{Frame, Properties, RequestCode, ResponseCode, Text, decode_batch};
use crate::transport::fake::Answer;

fn texts(messages: &[&str]) -> Vec<Message> {
    messages
        .iter()
        .map(|text| Message::new("t", (*text).to_owned()))
        .collect()
}

/// As a broker that stores each message of a batch answers.
fn ok_batch(frame: &Frame) -> Answer {
    let Answer::Respond(mut response) = ok(frame) else {
        return Answer::Silence;
    };
    let count = decode_batch(frame.body.clone()).unwrap().len();
    let ids: Vec<_> = (0..count).map(|index| format!("7F{index:030}")).collect();
    let joined = ids.join(",");
    let fields = response.fields.iter().map(|(name, value)| match name {
        "msgId" => (name, joined.as_str()),
        _ => (name, value),
    });
    response.fields = fields.collect();
    Answer::Respond(response)
}

#[tokio::test]
async fn a_batch_is_one_request_and_every_message_gets_its_own_id() {
    let two = Two::new(ok_batch, ok_batch).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let messages = texts(&["one", "two", "three"])
        .into_iter()
        .map(|message| message.tag("a").wait_store(false));
    let receipt = producer.send_batch(messages).await.unwrap();
    assert_eq!(
        (receipt.message_ids.len(), receipt.offset_message_ids.len()),
        (3, 3)
    );
    let mut sent = two.a.requests();
    sent.extend(two.b.requests());
    let batches: Vec<_> = sent
        .into_iter()
        .filter(|frame| frame.code == RequestCode::SEND_BATCH_MESSAGE.0)
        .collect();
    assert_eq!(batches.len(), 1);
    let batch = &batches[0];
    assert_eq!(
        (batch.fields.get("m"), batch.fields.get("f")),
        (Some("true"), Some("0"))
    );
    let envelope = Properties::new(Text::from(batch.fields.get("i").unwrap()));
    assert_eq!(envelope.get("WAIT"), Some("false"));
    assert!(
        envelope.get("UNIQ_KEY").is_some(),
        "the fake broker is one of 5.x"
    );
    let decoded = decode_batch(batch.body.clone()).unwrap();
    let ids: Vec<_> = decoded
        .iter()
        .map(|message| message.properties.get("UNIQ_KEY").unwrap().to_owned())
        .collect();
    assert_eq!(ids, receipt.message_ids);
    let bodies: Vec<_> = decoded.iter().map(|message| message.body.clone()).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
    let receipts = receipt.into_receipts();
    let places: Vec<_> = receipts.iter().map(|receipt| receipt.queue_offset).collect();
    assert_eq!(places, [5, 6, 7]);
    assert_eq!(receipts[2].message_id, ids[2]);
    client.shutdown().await;
}

#[tokio::test]
async fn every_way_to_send_takes_batches_and_a_retry_sends_the_same_one_again() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refusals);
    let busy_once = move |frame: &Frame| match count.fetch_add(1, Ordering::SeqCst) {
        0 => stored(frame, ResponseCode::SYSTEM_BUSY),
        _ => ok_batch(frame),
    };
    let two = Two::new(busy_once.clone(), busy_once).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let detached = producer.send_batch(texts(&["a", "b"])).detach().await.unwrap();
    assert_eq!((detached.message_ids.len(), detached.attempts), (2, 2));
    let (told, result) = tokio::sync::oneshot::channel();
    producer
        .send_batch(texts(&["c"]))
        .on_complete(move |result| told.send(result).unwrap());
    assert_eq!(result.await.unwrap().unwrap().message_ids.len(), 1);
    let queue = detached.queue.clone();
    let named = producer
        .send_batch(texts(&["d", "e"]))
        .to_queue(queue.clone())
        .await;
    assert_eq!(named.unwrap().queue, queue);
    producer.send_batch(texts(&["f"])).one_way().await.unwrap();
    client.shutdown().await;
    let mut ids = Vec::new();
    for frame in two.a.requests().into_iter().chain(two.b.requests()) {
        if frame.code == RequestCode::SEND_BATCH_MESSAGE.0 {
            let batch = decode_batch(frame.body.clone()).unwrap();
            ids.extend(
                batch
                    .iter()
                    .map(|one| one.properties.get("UNIQ_KEY").unwrap().to_owned()),
            );
        }
    }
    assert_eq!(ids.len(), 2 + 2 + 1 + 2 + 1);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "the second attempt has the ids of the first");
}

#[tokio::test]
async fn what_cannot_be_in_a_batch_is_named_with_its_place() {
    let two = Two::new(ok_batch, ok_batch).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .max_message_bytes(1000)
        .start()
        .await
        .unwrap();
    let second = |message: Message| vec![Message::new("t", "x"), message];
    let seconds = Duration::from_secs(1);
    for (messages, part) in [
        (Vec::new(), "at least one message"),
        (second(Message::new("other", "x")), "message 1 is for topic other"),
        (
            second(message().wait_store(false)),
            "message 1 has another wait_store",
        ),
        (
            second(message().delay_level(1)),
            "message 1 cannot be in one: it is to be delivered later",
        ),
        (
            second(message().delay(seconds)),
            "message 1 cannot be in one: it is to be delivered later",
        ),
        (
            second(message().priority(1)),
            "message 1 cannot be in one: it has a priority",
        ),
        (
            second(message().set("TRAN_MSG", "true")),
            "message 1 cannot be in one: it is part of a transaction",
        ),
        (
            second(message().sharding_key("a")),
            "message 1 has another sharding key",
        ),
        (
            vec![Message::new("%RETRY%g", "x")],
            "message 0 cannot be in one: its topic is a retry topic",
        ),
        (
            second(Message::new("t", "")),
            "message 1 of a batch: message to topic t: the body is empty",
        ),
    ] {
        let error = producer.send_batch(messages).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let large = vec![
        Message::new("t", vec![b'x'; 600]),
        Message::new("t", vec![b'x'; 600]),
    ];
    let error = producer.send_batch(large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error
            .to_string()
            .contains("with message 1 it is above the limit of 1000 bytes"),
        "{error}"
    );
    assert_eq!(two.sent_to_a() + two.sent_to_b(), 0);
    client.shutdown().await;
}

#[tokio::test]
async fn a_splitter_uses_the_limit_and_names_what_fits_nowhere() {
    let size = |body: usize| BATCH_OVERHEAD + UNIQUE_KEY_BYTES + body;
    let messages = [10, 10, 5000, 10].map(|bytes| Message::new("t", vec![b'x'; bytes]));
    let cut = |limit| -> Vec<_> {
        BatchSplitter::new(messages.clone(), limit)
            .map(|batch| batch.map(|batch| batch.len()).map_err(|error| error.to_string()))
            .collect()
    };
    assert_eq!(cut(usize::MAX), [Ok(4)]);
    let both = cut(size(10) * 2);
    assert_eq!((&both[0], &both[2]), (&Ok(2), &Ok(1)));
    let error = both[1].as_ref().unwrap_err();
    assert!(
        error.starts_with("message 2 to topic t takes 5064 bytes of a batch, the limit is "),
        "{error}"
    );
    assert_eq!(
        cut(size(10) * 2 - 1).len(),
        4,
        "the two first do not fit together"
    );
    assert_eq!(cut(0).iter().filter(|batch| batch.is_err()).count(), 4);
    assert_eq!(BatchSplitter::new(Vec::new(), 10).count(), 0);
}

#[tokio::test]
async fn what_the_splitter_makes_of_a_size_is_sent_with_exactly_that_size() {
    let two = Two::new(ok_batch, ok_batch).await;
    let client = client(&two.name_server.address()).await;
    let limit = (BATCH_OVERHEAD + UNIQUE_KEY_BYTES + 7) * 3;
    let producer = client
        .producer("g")
        .max_message_bytes(limit)
        .start()
        .await
        .unwrap();
    let seven = Bytes::from_static(b"seven b");
    let messages = (0..7).map(|_| Message::new("t", seven.clone()));
    let mut sizes = Vec::new();
    for batch in producer.split_batch(messages) {
        let batch = batch.unwrap();
        sizes.push(batch.len());
        producer.send_batch(batch).await.unwrap();
    }
    assert_eq!(sizes, [3, 3, 1]);
    let sent = two.a.requests().into_iter().chain(two.b.requests());
    let full = sent
        .filter(|frame| frame.code == RequestCode::SEND_BATCH_MESSAGE.0 && frame.body.len() == limit)
        .count();
    assert_eq!(full, 2);
    client.shutdown().await;
}

#[tokio::test]
async fn a_batch_is_read_as_the_typed_request_of_a_send() {
    let two = Two::new(ok_batch, ok_batch).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    producer.send_batch(texts(&["a"])).await.unwrap();
    let mut frames = two.a.requests().into_iter().chain(two.b.requests());
    let frame = frames
        .find(|frame| frame.code == RequestCode::SEND_BATCH_MESSAGE.0)
        .unwrap();
    let request = <SendMessageV2 as crate::protocol::Request>::from_frame(frame).unwrap();
    assert_eq!((request.batch, request.topic.as_str()), (Some(true), "t"));
    client.shutdown().await;
}
