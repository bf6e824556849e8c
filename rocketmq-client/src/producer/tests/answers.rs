//! Every odd answer that a broker can give to a send, and what the application learns of each.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::testing::{Two, message, ok, stored};
use super::super::{Producer, SendStatus};
use crate::cluster::Client;
use crate::cluster::testing::{client, route};
use crate::message::Message;
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{Fields, Frame, HeaderFormat, Request, ResponseCode};
use crate::sync::lock;
use crate::transport::fake::{Answer, fields};
use crate::{Error, ErrorKind, Persisted, Result, SendReceipt};

/// What the application gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stored(SendStatus),
    /// The kind of the error, whether the message is stored, and how many attempts were made of at most two.
    Failed(ErrorKind, Persisted, u32),
}

use ErrorKind::{Auth, Busy, Connect, Protocol, Rejected, Timeout, TopicNotFound, Unsupported};
use Outcome::{Failed, Stored};
use Persisted::{Maybe, No, Yes};

impl Outcome {
    fn of(result: &Result<SendReceipt>) -> Self {
        match result {
            Ok(receipt) => Stored(receipt.status),
            Err(error) => Failed(error.kind(), error.persisted(), error.attempts()),
        }
    }
}

type Script = fn(&Frame) -> Answer;

/// A header of one's own, with the opaque of the request where it says `OPAQUE`.
fn header(frame: &Frame, header: &str) -> Answer {
    raw(&header.replace("OPAQUE", &frame.opaque.to_string()), b"")
}

fn raw(header: &str, body: &[u8]) -> Answer {
    let mut bytes = Vec::new();
    bytes.extend(
        u32::try_from(4 + header.len() + body.len())
            .unwrap()
            .to_be_bytes(),
    );
    bytes.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(body);
    Answer::Bytes(bytes.into())
}

/// The answer to a send that was stored, changed.
fn but(frame: &Frame, change: impl FnOnce(&mut Frame)) -> Answer {
    let Answer::Respond(mut response) = ok(frame) else {
        panic!("a response")
    };
    response.opaque = frame.opaque;
    change(&mut response);
    let mut bytes = BytesMut::new();
    response.encode(HeaderFormat::Binary, &mut bytes).unwrap();
    Answer::Bytes(bytes.freeze())
}

fn with_field(frame: &Frame, name: &str, value: &str) -> Answer {
    but(frame, |response| {
        let others = response.fields.iter().filter(|(other, _)| *other != name);
        let mut fields = Fields::from_iter(others);
        fields.push(name, value);
        response.fields = fields;
    })
}

fn refused(code: i32, remark: &str) -> Answer {
    Answer::Respond(Frame::refusal(ResponseCode(code), 0, remark))
}

/// What is answered, and what has to come of it.
#[rustfmt::skip]
const TABLE: &[(&str, Script, Outcome)] = &[
    // What brokers say of messages that they store.
    ("success", ok, Stored(SendStatus::Ok)),
    ("success with a remark", |f| but(f, |r| r.remark = Some("fine".into())), Stored(SendStatus::Ok)),
    ("success with a body", |f| but(f, |r| r.body = Bytes::from_static(b"body")), Stored(SendStatus::Ok)),
    ("success with unknown fields", |f| with_field(f, "novelty", "1"), Stored(SendStatus::Ok)),
    ("success marked as one-way", |f| but(f, |r| r.flags |= 2), Stored(SendStatus::Ok)),
    ("success of an unknown language and version", |f| but(f, |r| r.version = -1), Stored(SendStatus::Ok)),
    ("10", |f| stored(f, ResponseCode::FLUSH_DISK_TIMEOUT), Stored(SendStatus::FlushDiskTimeout)),
    ("11", |f| stored(f, ResponseCode::SLAVE_NOT_AVAILABLE), Stored(SendStatus::SlaveNotAvailable)),
    ("12", |f| stored(f, ResponseCode::FLUSH_SLAVE_TIMEOUT), Stored(SendStatus::FlushSlaveTimeout)),
    // Successes that cannot be read: stored, and where is not known. Sending again would duplicate.
    ("success without fields", |_| Answer::done(), Failed(Protocol, Yes, 1)),
    ("10 without fields", |_| Answer::Respond(Frame::response(ResponseCode::FLUSH_DISK_TIMEOUT, 0)), Failed(Protocol, Yes, 1)),
    ("success without an id", |_| fields([("queueId", "0"), ("queueOffset", "1")]), Failed(Protocol, Yes, 1)),
    ("success without a queue", |_| fields([("msgId", "m"), ("queueOffset", "1")]), Failed(Protocol, Yes, 1)),
    ("success without an offset", |_| fields([("msgId", "m"), ("queueId", "0")]), Failed(Protocol, Yes, 1)),
    ("a queue that is no number", |f| with_field(f, "queueId", "zero"), Failed(Protocol, Yes, 1)),
    ("a queue beyond its type", |f| with_field(f, "queueId", "2147483648"), Failed(Protocol, Yes, 1)),
    ("an offset beyond its type", |f| with_field(f, "queueOffset", "9223372036854775808"), Failed(Protocol, Yes, 1)),
    ("an empty offset", |f| with_field(f, "queueOffset", ""), Failed(Protocol, Yes, 1)),
    ("null for the fields", |f| header(f, r#"{"code":0,"flag":1,"opaque":OPAQUE,"extFields":null}"#), Failed(Protocol, Yes, 1)),
    // Refusals. Where trying again helps, it was tried again.
    ("1", |_| refused(1, "anything"), Failed(Rejected, Maybe, 2)),
    ("2", |_| refused(2, "busy"), Failed(Busy, No, 2)),
    ("3", |_| refused(3, "unknown"), Failed(Unsupported, No, 1)),
    ("13", |_| refused(13, "illegal"), Failed(Rejected, No, 1)),
    ("14", |_| refused(14, "not available"), Failed(Busy, No, 2)),
    ("16", |_| refused(16, "not writable"), Failed(Rejected, No, 2)),
    ("17", |_| refused(17, "no topic"), Failed(TopicNotFound, No, 2)),
    ("26", |_| refused(26, "no group"), Failed(Rejected, No, 1)),
    ("204", |_| refused(204, "no buyer"), Failed(Rejected, No, 2)),
    ("205", |_| refused(205, "other unit"), Failed(Rejected, No, 2)),
    ("215", |_| refused(215, "flow control"), Failed(Busy, No, 1)),
    ("not allowed", |_| refused(1, "org.apache.rocketmq.acl.common.AclException: no"), Failed(Auth, No, 1)),
    ("a refusal without a remark", |_| Answer::Respond(Frame::response(ResponseCode::SYSTEM_BUSY, 0)), Failed(Busy, No, 2)),
    ("a code that nobody knows", |_| refused(29_999, "new"), Failed(Rejected, Maybe, 1)),
    ("a negative code", |_| refused(-7, "below"), Failed(Rejected, Maybe, 1)),
    ("the least code", |_| refused(i32::MIN, "least"), Failed(Rejected, Maybe, 1)),
    // What is no answer: the deadline ends it, or the connection, and the message may be stored.
    ("nothing", |_| Answer::Silence, Failed(Timeout, Maybe, 1)),
    ("an answer to somebody else", |f| but(f, |r| r.opaque ^= 0x4000_0000), Failed(Timeout, Maybe, 1)),
    ("an answer to nobody", |f| but(f, |r| r.opaque = -1), Failed(Timeout, Maybe, 1)),
    ("a request instead of an answer", |f| but(f, |r| r.flags = 0), Failed(Timeout, Maybe, 1)),
    ("a part of a frame", |_| Answer::Bytes(Bytes::from_static(&[0, 0x10, 0, 0, 0, 0])), Failed(Timeout, Maybe, 1)),
    ("the end", |_| Answer::Close, Failed(Connect, Maybe, 2)),
    ("half a frame and the end", |_| Answer::BytesThenReset(Bytes::from_static(&[0, 0, 0, 100])), Failed(Connect, Maybe, 2)),
    ("a frame that is too short", |_| Answer::Bytes(Bytes::from_static(&[0, 0, 0, 3, 0, 0, 0])), Failed(Protocol, Maybe, 2)),
    ("a frame that is too long", |_| Answer::Bytes(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff])), Failed(Protocol, Maybe, 2)),
    ("a negative length", |_| Answer::Bytes(Bytes::from_static(&[0xff; 8])), Failed(Protocol, Maybe, 2)),
    ("a header longer than its frame", |_| Answer::Bytes(Bytes::from_static(&[0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0])), Failed(Protocol, Maybe, 2)),
    ("a header of an unknown form", |_| Answer::Bytes(Bytes::from_static(&[0, 0, 0, 6, 9, 0, 0, 2, b'{', b'}'])), Failed(Protocol, Maybe, 2)),
    ("a header that is no JSON", |f| header(f, "}{"), Failed(Protocol, Maybe, 2)),
    ("a header that is a list", |f| header(f, "[OPAQUE]"), Failed(Protocol, Maybe, 2)),
    ("text of another protocol", |_| Answer::Bytes(Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n")), Failed(Protocol, Maybe, 2)),
];

/// A producer that makes two attempts, and its cluster: only broker `a` has the topic.
async fn one_broker(script: impl Fn(&Frame) -> Answer + Send + Sync + 'static) -> (Two, Client, Producer) {
    let script = move |frame: &Frame| match frame.is_response() {
        // What the client says to a request that is none.
        true => Answer::Silence,
        false => script(frame),
    };
    let two = Two::new(script, ok).await;
    two.routes.set("t", route(&[("a", &two.a.address())], 1));
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .max_attempts(2)
        .send_timeout(Duration::from_millis(400))
        .start()
        .await
        .unwrap();
    (two, client, producer)
}

#[tokio::test]
async fn every_odd_answer_has_the_outcome_that_the_table_says() {
    let mut wrong = Vec::new();
    for (name, script, expected) in TABLE {
        let (two, _client, producer) = one_broker(script).await;
        let outcome = Outcome::of(&producer.send(message()).await);
        let asked = two.sent_to_a();
        let attempts = match outcome {
            Stored(_) => 1,
            Failed(_, _, attempts) => attempts as usize,
        };
        if outcome != *expected || asked != attempts {
            wrong.push(format!(
                "{name}: {outcome:?} after {asked} requests, not {expected:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_table_is_the_same_for_detached_sends() {
    for (name, script, expected) in TABLE {
        let (_two, _client, producer) = one_broker(script).await;
        let result = producer.send(message()).detach().await;
        assert_eq!(Outcome::of(&result), *expected, "{name}");
    }
}

#[tokio::test]
async fn a_remark_of_a_megabyte_does_not_end_up_in_the_error() {
    let (_two, _client, producer) = one_broker(|_| refused(13, &"x".repeat(1 << 20))).await;
    let error = producer.send(message()).await.unwrap_err();
    assert!(
        error.to_string().len() < 4096,
        "{} bytes",
        error.to_string().len()
    );
}

/// The queue says to which message an answer belongs: it has the same number.
fn own_queue(frame: &Frame) -> Frame {
    let request = SendMessageV2::from_frame(frame.clone()).unwrap();
    let Answer::Respond(mut response) = ok(frame) else {
        panic!("a response")
    };
    let number = String::from_utf8(request.body.to_vec()).unwrap();
    let others = response.fields.iter().filter(|(name, _)| *name != "queueOffset");
    let mut fields = Fields::from_iter(others);
    fields.push("queueOffset", &number);
    response.fields = fields;
    response.opaque = frame.opaque;
    response
}

#[tokio::test]
async fn no_answer_completes_anothers_send_however_often_and_late_it_comes() {
    const SENDERS: u64 = 50;
    const EACH: u64 = 1_000;
    // Each answer comes twice at once, once more much later, and once with an opaque that nobody has.
    let earlier = Mutex::new(VecDeque::new());
    let script = move |frame: &Frame| {
        if frame.code != SendMessageV2::CODE.0 {
            return Answer::done();
        }
        let response = own_queue(frame);
        let mut bytes = BytesMut::new();
        let mut put = |frame: &Frame| frame.encode(HeaderFormat::Binary, &mut bytes).unwrap();
        let mut earlier = lock(&earlier);
        if earlier.len() > 100 {
            put(&earlier.pop_front().unwrap());
        }
        put(&Frame {
            opaque: response.opaque ^ 0x4000_0000,
            ..response.clone()
        });
        put(&response);
        put(&response);
        earlier.push_back(response);
        Answer::Bytes(bytes.freeze())
    };
    let two = Two::new(script, ok).await;
    two.routes.set("t", route(&[("a", &two.a.address())], 1));
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .send_timeout(Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let producer = producer.clone();
        senders.spawn(async move {
            for number in sender * EACH..(sender + 1) * EACH {
                let receipt = producer.send(Message::new("t", number.to_string())).await?;
                assert_eq!(
                    u64::try_from(receipt.queue_offset),
                    Ok(number),
                    "another's answer"
                );
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn busy_brokers_are_asked_a_bounded_number_of_times_and_serve_again_at_once() {
    let busy = Arc::new(AtomicBool::new(true));
    let script = || {
        let busy = Arc::clone(&busy);
        move |frame: &Frame| match busy.load(Ordering::SeqCst) {
            true => Answer::code(ResponseCode::SYSTEM_BUSY),
            false => ok(frame),
        }
    };
    let two = Two::new(script(), script()).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let started = Instant::now();
    for _ in 0..20 {
        let error = producer.send(message()).await.unwrap_err();
        assert_eq!((error.kind(), error.persisted(), error.attempts()), (Busy, No, 3));
    }
    let asked = two.sent_to_a() + two.sent_to_b();
    // An upper bound of a rate: a slow machine only stays further below it.
    let allowed = 40.0 * started.elapsed().as_secs_f64() + 10.0;
    assert!(
        f64::from(u32::try_from(asked).unwrap()) < allowed,
        "{asked} requests in {:?}",
        started.elapsed()
    );
    busy.store(false, Ordering::SeqCst);
    let receipt = producer.send(message()).await.unwrap();
    assert_eq!(receipt.attempts, 1, "nobody keeps a grudge");
}

#[tokio::test]
async fn names_in_the_table_are_different() {
    let names: BTreeSet<&str> = TABLE.iter().map(|(name, ..)| *name).collect();
    assert!(names.len() == TABLE.len() && TABLE.len() >= 40, "{}", TABLE.len());
}
