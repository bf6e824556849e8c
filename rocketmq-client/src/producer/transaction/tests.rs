use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::*;
use crate::cluster::testing::{FakeRoutes, builder, name_server_and_broker, route};
use crate::producer::testing::{message, ok, stored};
use crate::protocol::requests::{CheckTransactionState, EndTransaction, SendMessageV2};
use crate::protocol::{
    Fields, Frame, Properties, PropertiesBuf, Record, Request, RequestCode, SysFlag, Text,
};
use crate::sync::lock;
use crate::transport::fake::{Answer, FakeServer};
use crate::{ErrorKind, Persisted};

/// Where [`stored`] says that messages are.
const FIRST_PLACE: (i64, i64) = (5, 0x1234);

/// A name server that is a broker too, with the topic `t`.
async fn server(script: impl Fn(&Frame) -> Answer + Send + Sync + 'static) -> FakeServer {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, script).await;
    let address = server.address();
    routes.set("t", route(&[("a", &address)], 1));
    routes.set("TBW102", route(&[("a", &address)], 1));
    server
}

/// Stores half messages and takes every end.
fn willing(frame: &Frame) -> Answer {
    match RequestCode(frame.code) {
        RequestCode::SEND_MESSAGE_V2 => ok(frame),
        RequestCode::END_TRANSACTION => Answer::done(),
        _ => Answer::Silence,
    }
}

fn quick(client: &Client) -> ProducerBuilder {
    client.producer("g").send_timeout(Duration::from_secs(2))
}

async fn client(server: &FakeServer) -> Client {
    builder(&server.address()).connect().await.unwrap()
}

/// A listener that nobody should need.
async fn nobody(_: MessageView) -> TransactionState {
    panic!("the listener was asked")
}

async fn commit(_: MessageView) -> TransactionState {
    TransactionState::Commit
}

/// A question about a half message that is stored at this place by now.
fn question(id: &str, queue_offset: i64) -> Frame {
    question_of("g", id, queue_offset)
}

fn question_of(group: &str, id: &str, queue_offset: i64) -> Frame {
    let mut properties = PropertiesBuf::new();
    for (name, value) in [("UNIQ_KEY", id), ("PGROUP", group), ("TRAN_MSG", "true")] {
        properties.set(name, value).unwrap();
    }
    let host = "127.0.0.1:10911".parse().unwrap();
    let half = Record {
        queue_id: 3,
        flag: 0,
        queue_offset,
        physical_offset: queue_offset * 100,
        sys_flag: SysFlag(0),
        born_timestamp: 0,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        topic: Text::from("t"),
        properties: Properties::from(properties),
    };
    let mut body = BytesMut::new();
    half.encode(&mut body).unwrap();
    let check = CheckTransactionState {
        topic: Some("RMQ_SYS_TRANS_HALF_TOPIC".into()),
        tran_state_table_offset: queue_offset,
        commit_log_offset: queue_offset * 100,
        msg_id: Some(id.into()),
        transaction_id: Some(id.into()),
        offset_msg_id: None,
        broker_name: Some("a".into()),
        body: body.freeze(),
    };
    let mut frame = Frame {
        fields: Fields::from_header(&check).unwrap(),
        body: check.body(),
        ..Frame::request(CheckTransactionState::CODE)
    };
    frame.flags |= 2;
    frame
}

fn outcome(end: &EndTransaction) -> (i32, Option<bool>, i64, i64) {
    (
        end.commit_or_rollback,
        end.from_transaction_check,
        end.tran_state_table_offset,
        end.commit_log_offset,
    )
}

#[tokio::test]
async fn a_local_part_that_succeeds_commits_at_the_place_of_the_half_message() {
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    let done = tx
        .send(message(), async |receipt: SendReceipt| {
            Ok::<_, String>(receipt.message_id)
        })
        .await
        .unwrap();
    assert_eq!(done.value, done.receipt.message_id);

    let half = server.requests_of::<SendMessageV2>().remove(0);
    assert_eq!(
        half.sys_flag & SysFlag::TRANSACTION_MASK,
        SysFlag::TRANSACTION_PREPARED
    );
    let properties = Properties::new(Text::from(half.properties.unwrap()));
    assert_eq!(properties.get("TRAN_MSG"), Some("true"));
    assert_eq!(properties.get("PGROUP"), Some("g"));
    assert_eq!(properties.get("UNIQ_KEY"), Some(done.value.as_str()));
    let end = server.requests_of::<EndTransaction>().remove(0);
    let (queue_offset, log_offset) = FIRST_PLACE;
    assert_eq!(
        outcome(&end),
        (EndTransaction::COMMIT, Some(false), queue_offset, log_offset)
    );
    assert_eq!(
        (end.producer_group.as_str(), end.msg_id.as_str()),
        ("g", done.value.as_str())
    );
    assert_eq!(
        (end.topic.as_deref(), end.broker_name.as_deref()),
        (Some("t"), Some("a"))
    );
    assert_eq!(tx.stats().running, 0);
    client.shutdown().await;
}

#[tokio::test]
async fn a_local_part_that_fails_rolls_back_and_its_own_error_comes_back() {
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    let failed = tx.send(message(), async |_| Err::<(), _>("no money")).await;
    assert!(
        matches!(failed, Err(TransactionError::Local("no money"))),
        "{failed:?}"
    );
    let end = server.requests_of::<EndTransaction>().remove(0);
    assert_eq!(end.commit_or_rollback, EndTransaction::ROLLBACK);
    client.shutdown().await;
}

#[tokio::test]
async fn a_half_message_that_is_not_safe_is_rolled_back_and_the_local_part_does_not_run() {
    let server = server(|frame| match RequestCode(frame.code) {
        RequestCode::SEND_MESSAGE_V2 => stored(frame, ResponseCode::FLUSH_SLAVE_TIMEOUT),
        _ => willing(frame),
    })
    .await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    let failed = tx
        .send(message(), async |_| -> Result<(), ()> { panic!("it ran") })
        .await;
    let Err(TransactionError::Send(error)) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(error.response().unwrap().0, ResponseCode::FLUSH_SLAVE_TIMEOUT);
    let ends = server.requests_of::<EndTransaction>();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].commit_or_rollback, EndTransaction::ROLLBACK);
    client.shutdown().await;
}

#[tokio::test]
async fn a_half_message_that_is_refused_runs_nothing_and_ends_nothing() {
    let server = server(|_| Answer::code(ResponseCode::MESSAGE_ILLEGAL)).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    let failed = tx
        .send(message(), async |_| -> Result<(), ()> { panic!("it ran") })
        .await;
    assert!(matches!(failed, Err(TransactionError::Send(_))), "{failed:?}");
    assert_eq!(server.requests_of::<EndTransaction>().len(), 0);
    assert_eq!(tx.stats().running, 0);
    client.shutdown().await;
}

#[tokio::test]
async fn delays_and_replies_are_refused_before_anything_is_sent() {
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    for refused in [
        message().delay_level(3),
        message().set("TIMER_DELIVER_MS", "5"),
        message().set("MSG_TYPE", "reply"),
    ] {
        let error = tx.begin(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("transaction"), "{error}");
    }
    assert_eq!(server.requests_of::<SendMessageV2>().len(), 0);
    client.shutdown().await;
}

#[tokio::test]
async fn a_question_during_the_local_part_moves_the_end_to_the_newest_place() {
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    let half = tx.begin(message()).await.unwrap();
    for queue_offset in [7, 9] {
        server.push(question(half.transaction_id(), queue_offset));
    }
    let ends = server.asked::<EndTransaction>(2).await;
    assert_eq!(outcome(&ends[0]), (EndTransaction::UNKNOWN, Some(true), 7, 700));
    assert_eq!(outcome(&ends[1]), (EndTransaction::UNKNOWN, Some(true), 9, 900));
    let id = half.transaction_id().to_owned();
    half.commit().await.unwrap();
    let ends = server.asked::<EndTransaction>(3).await;
    assert_eq!(outcome(&ends[2]), (EndTransaction::COMMIT, Some(true), 9, 900));

    // A copy that the broker stored meanwhile would duplicate the message.
    server.push(question(&id, 11));
    let ends = server.asked::<EndTransaction>(4).await;
    assert_eq!(
        outcome(&ends[3]),
        (EndTransaction::ROLLBACK, Some(true), 11, 1100)
    );
    client.shutdown().await;
}

#[tokio::test]
async fn a_commit_without_an_answer_is_told_once_and_again_when_the_broker_asks() {
    let server = server(|frame| match RequestCode(frame.code) {
        RequestCode::END_TRANSACTION => Answer::Silence,
        _ => willing(frame),
    })
    .await;
    let client = client(&server).await;
    let builder = client.producer("g").send_timeout(Duration::from_millis(300));
    let tx = builder.start_transactional(nobody).await.unwrap();
    let id = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&id);
    let failed = tx
        .send(message(), async |receipt: SendReceipt| {
            *lock(&seen) = receipt.message_id;
            Ok::<_, String>(())
        })
        .await;
    let Err(TransactionError::EndUnknown(error)) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Timeout, Persisted::Maybe)
    );
    assert_eq!(server.requests_of::<EndTransaction>().len(), 1);
    let id = lock(&id).clone();
    server.push(question(&id, 8));
    let ends = server.asked::<EndTransaction>(2).await;
    assert_eq!(outcome(&ends[1]), (EndTransaction::COMMIT, Some(true), 8, 800));
    client.shutdown().await;
}

#[tokio::test]
async fn a_rollback_is_told_until_the_broker_answers() {
    let told = AtomicUsize::new(0);
    let server = server(move |frame| match RequestCode(frame.code) {
        RequestCode::END_TRANSACTION if told.fetch_add(1, Ordering::SeqCst) < 2 => Answer::Silence,
        _ => willing(frame),
    })
    .await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    tx.begin(message()).await.unwrap().rollback().await.unwrap();
    assert_eq!(server.requests_of::<EndTransaction>().len(), 3);
    client.shutdown().await;
}

#[tokio::test]
async fn the_listener_is_asked_about_half_messages_that_are_dropped_or_of_others() {
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(commit).await.unwrap();
    let half = tx.begin(message()).await.unwrap();
    let id = half.transaction_id().to_owned();
    drop(half);
    server.push(question(&id, 7));
    server.asked::<EndTransaction>(1).await;
    server.push(question("of another process", 8));
    let ends = server.asked::<EndTransaction>(2).await;
    assert_eq!(outcome(&ends[0]), (EndTransaction::COMMIT, Some(true), 7, 700));
    assert_eq!(outcome(&ends[1]), (EndTransaction::COMMIT, Some(true), 8, 800));
    assert_eq!(ends[1].topic.as_deref(), Some("RMQ_SYS_TRANS_HALF_TOPIC"));
    assert_eq!((tx.stats().answered, tx.stats().checking), (2, 0));
    client.shutdown().await;
}

#[tokio::test]
async fn the_listener_sees_the_half_message_with_its_real_destination() {
    let server = server(willing).await;
    let client = client(&server).await;
    let (sender, mut seen) = mpsc::channel(1);
    let listener = move |half: MessageView| {
        sender.try_send(half).unwrap();
        async { TransactionState::Rollback }
    };
    let _tx = quick(&client).start_transactional(listener).await.unwrap();
    server.push(question("U", 7));
    let half = seen.recv().await.unwrap();
    assert_eq!(half.message_id(), "U");
    assert_eq!(half.queue().to_string(), "t/a/3");
    assert_eq!(half.body().as_ref(), b"body");
    let ends = server.asked::<EndTransaction>(1).await;
    assert_eq!(ends[0].commit_or_rollback, EndTransaction::ROLLBACK);
    client.shutdown().await;
}

#[tokio::test]
async fn a_listener_that_panics_or_takes_too_long_does_not_know() {
    let server = server(willing).await;
    let client = client(&server).await;
    let listener = |half: MessageView| async move {
        match half.message_id().as_str() {
            "panics" => panic!("in the listener"),
            "slow" => std::future::pending().await,
            _ => TransactionState::Commit,
        }
    };
    let builder = quick(&client)
        .check_timeout(Duration::from_millis(50))
        .check_concurrency(1);
    let _tx = builder.start_transactional(listener).await.unwrap();
    let states = [
        ("panics", EndTransaction::UNKNOWN),
        ("slow", EndTransaction::UNKNOWN),
        ("well", EndTransaction::COMMIT),
    ];
    for (id, _) in states {
        server.push(question(id, 7));
    }
    let ends = server.asked::<EndTransaction>(3).await;
    for (end, (id, state)) in ends.iter().zip(states) {
        assert_eq!((end.msg_id.as_str(), end.commit_or_rollback), (id, state));
    }
    client.shutdown().await;
}

#[tokio::test]
async fn a_slow_listener_holds_up_nothing_and_every_question_has_an_answer() {
    let server = server(willing).await;
    let client = client(&server).await;
    let go = Arc::new(Notify::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let listener = {
        let (go, calls) = (Arc::clone(&go), Arc::clone(&calls));
        move |_| {
            let (go, calls) = (Arc::clone(&go), Arc::clone(&calls));
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                TransactionState::Commit
            }
        }
    };
    let builder = quick(&client).check_concurrency(1).check_queue(1);
    let tx = builder.start_transactional(listener).await.unwrap();
    // The first is with the listener, the second waits, and for the third there is no room.
    server.push(question("first", 1));
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    server.push(question("second", 2));
    server.push(question("third", 3));
    let ends = server.asked::<EndTransaction>(1).await;
    assert_eq!(
        (ends[0].msg_id.as_str(), outcome(&ends[0]).0),
        ("third", EndTransaction::UNKNOWN)
    );
    assert_eq!((tx.stats().refused, tx.stats().checking), (1, 2));
    // Asked again meanwhile: the listener is asked once, the newest place is answered.
    server.push(question("first", 4));
    tx.send(message(), async |_| Ok::<_, ()>(())).await.unwrap();
    while tx.stats().answered < 3 {
        go.notify_waiters();
        tokio::task::yield_now().await;
    }
    let ends = server.asked::<EndTransaction>(4).await;
    assert_eq!(outcome(&ends[2]), (EndTransaction::COMMIT, Some(true), 4, 400));
    assert_eq!(outcome(&ends[3]), (EndTransaction::COMMIT, Some(true), 2, 200));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    client.shutdown().await;
}

#[tokio::test]
async fn a_question_that_cannot_be_read_or_is_for_a_group_without_transactions_harms_nothing() {
    let server = server(willing).await;
    let client = client(&server).await;
    let _plain = client.producer("plain").start().await.unwrap();
    let _tx = quick(&client).start_transactional(commit).await.unwrap();
    server.push(question_of("plain", "for a plain producer", 1));
    server.push(question_of("elsewhere", "for nobody here", 2));
    let mut broken = question("broken", 3);
    broken.body.truncate(20);
    server.push(broken);
    server.push(question("right", 4));
    let ends = server.asked::<EndTransaction>(1).await;
    assert_eq!(ends[0].msg_id, "right");
    client.shutdown().await;
}

#[tokio::test]
async fn the_brokers_know_the_group_before_anything_is_sent_and_no_more_after_the_shutdown() {
    use crate::protocol::requests::{HeartBeat, UnregisterClient};
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(commit).await.unwrap();
    let told = server.requests_of::<HeartBeat>();
    assert!(
        told.iter()
            .any(|beat| beat.body.windows(3).any(|part| part == b"\"g\"")),
        "{told:?}"
    );
    tx.shutdown().await;
    let gone = server.requests_of::<UnregisterClient>();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].producer_group.as_deref(), Some("g"));
    assert_eq!(tx.begin(message()).await.unwrap_err().kind(), ErrorKind::Closed);
    client.shutdown().await;
}

#[tokio::test]
async fn the_shutdown_waits_for_the_local_part() {
    let server = server(willing).await;
    let client = client(&server).await;
    let tx = quick(&client).start_transactional(nobody).await.unwrap();
    let half = tx.begin(message()).await.unwrap();
    let (_, receipt) = tokio::join!(tx.shutdown(), async {
        tokio::task::yield_now().await;
        half.commit().await
    });
    receipt.unwrap();
    client.shutdown().await;
}

#[test]
fn options_that_cannot_be_used_are_named() {
    let mut wrong = Vec::new();
    let options = CheckOptions {
        concurrency: 0,
        queue: 0,
        timeout: Duration::ZERO,
        topics: Vec::new(),
    };
    options.check(&mut wrong);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}
