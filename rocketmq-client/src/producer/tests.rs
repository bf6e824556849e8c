mod answers;

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::testing::{Two, broker, message, ok, stored};
use super::*;
use crate::cluster::testing::{FakeRoutes, builder, client, name_server_and_broker, route};
use crate::protocol::bodies::{HeartbeatData, MessageQueue};
use crate::protocol::requests::{HeartBeat, RouteInfo, SendMessageV2, UnregisterClient};
use crate::protocol::{Frame, JsonBody, Request, ResponseCode};
use crate::sync::lock;
use crate::transport::fake::Answer;
use crate::{ErrorKind, Persisted};

#[test]
fn handles_and_futures_cross_threads() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Producer>();
    sent::<SendFuture>();
    sent::<SendHandle>();
}

#[tokio::test]
async fn an_awaited_send_gives_a_receipt_and_takes_the_queues_in_turn() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    for _ in 0..4 {
        let receipt = producer.send(message().tag("vip")).await.unwrap();
        assert_eq!(receipt.message_id.len(), 32);
        assert_eq!(receipt.offset_message_id, "7F00000100002A9F0000000000001234");
        assert_eq!((receipt.queue_offset, receipt.attempts), (5, 1));
        assert_eq!(receipt.status, SendStatus::Ok);
        assert_eq!(&*receipt.queue.topic, "t");
    }
    assert_eq!((two.sent_to_a(), two.sent_to_b()), (2, 2));
    assert_eq!(two.name_server.requests_of::<RouteInfo>().len(), 1);
}

#[tokio::test]
async fn states_that_are_less_than_safe_are_results_that_say_so() {
    for (code, status) in [
        (ResponseCode::FLUSH_DISK_TIMEOUT, SendStatus::FlushDiskTimeout),
        (ResponseCode::SLAVE_NOT_AVAILABLE, SendStatus::SlaveNotAvailable),
        (ResponseCode::FLUSH_SLAVE_TIMEOUT, SendStatus::FlushSlaveTimeout),
    ] {
        let two = Two::new(move |frame| stored(frame, code), move |frame| stored(frame, code)).await;
        let client = client(&two.name_server.address()).await;
        let producer = client.producer("g").start().await.unwrap();
        let receipt = producer.send(message()).await.unwrap();
        assert_eq!((receipt.status, receipt.attempts), (status, 1));

        let careful = client
            .producer("g2")
            .retry_when_not_stored_ok(true)
            .start()
            .await
            .unwrap();
        let receipt = careful.send(message()).await.unwrap();
        assert_eq!(
            (receipt.status, receipt.attempts),
            (status, 3),
            "the last attempt is what it is"
        );
    }
}

#[tokio::test]
async fn which_codes_are_tried_again_on_the_other_broker() {
    for (code, again) in [
        (1, true),
        (2, true),
        (14, true),
        (16, true),
        (17, true),
        (204, true),
        (205, true),
        (1500, true),
        (3, false),
        (13, false),
        (26, false),
        (29, false),
        (215, false),
        (501, false),
        (4711, false),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let script = |asked: Arc<AtomicUsize>| {
            move |frame: &Frame| match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Answer::code(ResponseCode(code)),
                _ => ok(frame),
            }
        };
        // Brokers that share a script: the first attempt fails wherever it goes.
        let two = Two::new(script(Arc::clone(&asked)), script(Arc::clone(&asked))).await;
        let client = client(&two.name_server.address()).await;
        let producer = client.producer("g").start().await.unwrap();
        let result = producer.send(message()).await;
        if again {
            let receipt = result.unwrap();
            // Going away is not even an attempt: the request is made again over a new connection.
            let attempts = if code == 1500 { 1..=2 } else { 2..=2 };
            assert!(attempts.contains(&receipt.attempts), "{code}");
            if code != 1500 {
                assert_eq!((two.sent_to_a(), two.sent_to_b()), (1, 1), "{code}");
            }
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.response().unwrap().0, ResponseCode(code));
            assert_eq!(error.attempts(), 1);
            let unknown = ResponseCode(code).name().is_none();
            let persisted = if unknown { Persisted::Maybe } else { Persisted::No };
            assert_eq!(error.persisted(), persisted, "{code}");
            assert_eq!(two.sent_to_a() + two.sent_to_b(), 1, "{code}");
        }
    }
}

#[tokio::test]
async fn a_code_of_the_users_own_is_tried_again_too() {
    let refuse = |_: &Frame| Answer::code(ResponseCode(4711));
    let two = Two::new(refuse, refuse).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .retry_code(ResponseCode(4711))
        .max_attempts(2)
        .start()
        .await
        .unwrap();
    let error = producer.send(message()).await.unwrap_err();
    assert_eq!(error.attempts(), 2);
    assert_eq!((two.sent_to_a(), two.sent_to_b()), (1, 1));
}

#[tokio::test]
async fn the_final_error_names_everything_that_is_known() {
    let refuse = |_: &Frame| Answer::code(ResponseCode::NO_PERMISSION);
    let two = Two::new(refuse, refuse).await;
    two.routes.set("t", route(&[("a", &two.a.address())], 1));
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").max_attempts(1).start().await.unwrap();
    let error = producer.send(message()).await.unwrap_err();
    let address = two.a.address();
    assert_eq!(
        error.to_string(),
        format!(
            "send to topic t, queue 0 on a ({address}), attempt 1 of 1: SendMessageV2 to {address}: refused with \
             NO_PERMISSION(16): scripted"
        )
    );
    assert_eq!(error.broker(), Some("a"));
}

#[tokio::test]
async fn a_broker_that_is_gone_costs_nothing_when_there_is_another() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let Two { a, b, .. } = two;
    a.kill().await;
    for _ in 0..10 {
        let receipt = producer.send(message()).await.unwrap();
        assert_eq!(&*receipt.queue.broker_name, "b");
    }
    assert_eq!(b.requests_of::<SendMessageV2>().len(), 10);
}

#[tokio::test]
async fn a_frozen_broker_uses_up_its_share_of_the_time_and_is_avoided_then() {
    let two = Two::new(|_| Answer::Silence, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .send_timeout(Duration::from_secs(3))
        .start()
        .await
        .unwrap();
    for _ in 0..6 {
        let receipt = producer.send(message()).await.unwrap();
        assert_eq!(&*receipt.queue.broker_name, "b");
    }
    assert_eq!(two.sent_to_a(), 1, "asked once, then it was suspect");
}

#[tokio::test]
async fn a_timeout_and_a_broken_connection_may_have_stored_the_message_and_a_refused_dial_not() {
    let silent = broker(|_| Answer::Silence).await;
    let closing = broker(|_| Answer::Close).await;
    let cut = broker(|_| Answer::BytesThenReset(bytes::Bytes::from_static(&[0, 0, 0, 9, 0]))).await;
    let gone = broker(ok).await.kill().await.to_string();
    let garbage = broker(|_| Answer::Bytes(bytes::Bytes::from_static(b"HTTP/1.1 200 OK\r\n"))).await;
    for (address, kind, persisted) in [
        (silent.address(), ErrorKind::Timeout, Persisted::Maybe),
        (closing.address(), ErrorKind::Connect, Persisted::Maybe),
        (cut.address(), ErrorKind::Connect, Persisted::Maybe),
        (garbage.address(), ErrorKind::Protocol, Persisted::Maybe),
        (gone, ErrorKind::Connect, Persisted::No),
    ] {
        let routes = FakeRoutes::default();
        routes.set("t", route(&[("a", &address)], 1));
        let name_server = name_server_and_broker(&routes, |_| Answer::Silence).await;
        let client = client(&name_server.address()).await;
        let producer = client
            .producer("g")
            .max_attempts(1)
            .send_timeout(Duration::from_secs(1))
            .start()
            .await
            .unwrap();
        let error = producer.send(message()).await.unwrap_err();
        assert_eq!((error.kind(), error.persisted()), (kind, persisted), "{error}");
        assert_eq!(error.attempts(), 1);
    }
}

#[tokio::test]
async fn a_doubt_of_an_earlier_attempt_stays_a_doubt() {
    let two = Two::new(|_| Answer::Close, |_| Answer::code(ResponseCode::MESSAGE_ILLEGAL)).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    // Which broker comes first is chance; with the closing one first there is a doubt.
    for _ in 0..2 {
        let error = producer.send(message()).await.unwrap_err();
        assert_eq!(error.response().unwrap().0, ResponseCode::MESSAGE_ILLEGAL);
        let doubt = error.attempts() == 2;
        assert_eq!(error.persisted() == Persisted::Maybe, doubt, "{error}");
    }
    assert!(two.sent_to_b() >= 1);
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_stored_and_not_sent_again() {
    let success = |_: &Frame| Answer::done();
    let two = Two::new(success, success).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let error = producer.send(message()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Protocol, Persisted::Yes)
    );
    assert_eq!(two.sent_to_a() + two.sent_to_b(), 1);
}

#[tokio::test]
async fn the_queue_can_be_given_chosen_or_follow_from_a_key() {
    let two = Two::new(ok, ok).await;
    two.routes
        .set("t", route(&[("a", &two.a.address()), ("b", &two.b.address())], 4));
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let queue = MessageQueue::new("t", "b", 2);
    let receipt = producer.send(message()).to_queue(queue.clone()).await.unwrap();
    assert_eq!(receipt.queue, queue);
    let receipt = producer
        .send(message())
        .select_queue(|queues| queues.len() - 1)
        .await
        .unwrap();
    assert_eq!(receipt.queue, MessageQueue::new("t", "b", 3));
    // java_hash("user-1") % 8
    let expected = crate::protocol::java_hash("user-1").unsigned_abs() % 8;
    for _ in 0..3 {
        let receipt = producer.send(message().sharding_key("user-1")).await.unwrap();
        let place =
            receipt.queue.queue_id.unsigned_abs() + if &*receipt.queue.broker_name == "b" { 4 } else { 0 };
        assert_eq!(place, expected);
    }
    let error = producer
        .send(message())
        .select_queue(|queues| queues.len())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "send to topic t: select_queue chose queue 8 of 8; choose one below that"
    );
    let nowhere = MessageQueue::new("t", "c", 0);
    let error = producer.send(message()).to_queue(nowhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn detached_sends_go_on_by_themselves_in_order_and_callbacks_are_called() {
    let two = Two::new(ok, ok).await;
    two.routes.set("t", route(&[("a", &two.a.address())], 1));
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    producer.send(message()).await.unwrap();
    let handles: Vec<_> = (0..50)
        .map(|number| producer.send(Message::new("t", number.to_string())).detach())
        .collect();
    drop(handles);
    let (sender, receiver) = oneshot::channel();
    producer
        .send(message())
        .on_complete(|result| sender.send(result).unwrap());
    receiver.await.unwrap().unwrap();
    let sent = two.a.requests_of::<SendMessageV2>();
    let bodies: Vec<_> = sent
        .iter()
        .skip(1)
        .take(50)
        .map(|request| request.body.clone())
        .collect();
    let expected: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(bodies, expected);
    let receipt = producer.send(message()).detach().await.unwrap();
    assert_eq!(receipt.attempts, 1);
}

#[tokio::test]
async fn detached_sends_are_tried_again_too() {
    let two = Two::new(
        |_| Answer::code(ResponseCode::SYSTEM_BUSY),
        |_| Answer::code(ResponseCode::SYSTEM_BUSY),
    )
    .await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let error = producer.send(message()).detach().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.attempts(), 3);
    assert_eq!(two.sent_to_a() + two.sent_to_b(), 3);
}

#[tokio::test]
async fn a_one_way_send_asks_for_no_answer() {
    let two = Two::new(|_| Answer::Silence, |_| Answer::Silence).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    producer.send(message()).one_way().await.unwrap();
    producer.send(message()).one_way().await.unwrap();
    two.a.asked::<SendMessageV2>(1).await;
    two.b.asked::<SendMessageV2>(1).await;
    let sends = two.a.requests();
    let send = sends
        .iter()
        .find(|frame| frame.code == SendMessageV2::CODE.0)
        .unwrap();
    assert!(send.is_one_way());
}

#[tokio::test]
async fn the_bound_on_what_is_in_flight_makes_awaited_sends_wait_and_detached_ones_fail() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let held = Arc::new(Mutex::new(Vec::new()));
    let holding = Arc::clone(&held);
    // Answers the first send only together with the second one.
    let two = Two::new(
        move |frame| {
            if let Ok(permit) = opened.try_acquire() {
                permit.forget();
                return ok(frame);
            }
            lock(&holding).push(frame.clone());
            Answer::Silence
        },
        ok,
    )
    .await;
    two.routes.set("t", route(&[("a", &two.a.address())], 1));
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .max_in_flight(1)
        .send_timeout(Duration::from_millis(300))
        .max_attempts(1)
        .start()
        .await
        .unwrap();
    let first = producer.send(message()).detach();
    let error = producer.send(message()).detach().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Overloaded, Persisted::No)
    );
    // Waits until the first one has timed out, and is sent then.
    two.a.asked::<SendMessageV2>(1).await;
    gate.add_permits(1);
    let second = producer.send(message()).timeout(Duration::from_secs(3));
    let (first, second) = tokio::join!(first, second.into_future());
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Timeout);
    second.unwrap();
    producer.ready().await.unwrap();

    let impatient = client
        .producer("g2")
        .max_in_flight(1)
        .when_full(WhenFull::Fail)
        .start()
        .await
        .unwrap();
    let _holds = impatient.send(message()).detach();
    assert_eq!(
        impatient.send(message()).await.unwrap_err().kind(),
        ErrorKind::Overloaded
    );
}

#[tokio::test]
async fn no_detached_send_fails_for_lack_of_room_that_was_reserved_and_no_more_is_in_flight_than_may_be() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    // Answers as often as the gate was opened.
    let script = move |frame: &Frame| match opened.try_acquire() {
        Ok(permit) => {
            permit.forget();
            ok(frame)
        }
        Err(_) => Answer::Silence,
    };
    let two = Two::new(script.clone(), script).await;
    let client = client(&two.name_server.address()).await;
    let producer = client
        .producer("g")
        .max_in_flight(2)
        .max_attempts(1)
        .send_timeout(Duration::from_millis(100))
        .start()
        .await
        .unwrap();
    let mut handles = Vec::new();
    for _ in 0..2 {
        handles.push(producer.send(message()).reserve().await.unwrap().detach());
    }
    assert!(producer.core().room.try_enter(1).is_none());
    // The third one waits until one of the first two has timed out, and longer than its own timeout if need be.
    let third = producer.send(message()).timeout(Duration::from_secs(3));
    let third = third.reserve().await.unwrap();
    gate.add_permits(1);
    third.detach().await.unwrap();
    for handle in handles {
        assert_eq!(handle.await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    drop(producer.send(message()).reserve().await.unwrap());
    let core = Arc::clone(producer.core());
    core.room.drained().await;

    let impatient = client
        .producer("g2")
        .max_in_flight(1)
        .when_full(WhenFull::Fail)
        .start()
        .await
        .unwrap();
    let held = impatient.send(message()).reserve().await.unwrap();
    let refused = impatient.send(message()).reserve().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    drop(held);
    impatient.shutdown().await;
    let closed = impatient.send(message()).reserve().await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn one_way_sends_count_as_in_flight_too() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let patient = client
        .producer("g")
        .max_in_flight(1)
        .send_timeout(Duration::from_millis(50))
        .start()
        .await
        .unwrap();
    let held = patient.send(message()).reserve().await.unwrap();
    let error = patient.send(message()).one_way().await.unwrap_err();
    assert_eq!(
        (error.kind(), two.sent_to_a() + two.sent_to_b()),
        (ErrorKind::Overloaded, 0)
    );
    held.one_way().await.unwrap();
    patient.core().room.drained().await;
}

#[tokio::test]
async fn a_cancelled_send_gives_its_room_back() {
    let two = Two::new(|_| Answer::Silence, |_| Answer::Silence).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").max_in_flight(1).start().await.unwrap();
    {
        let send = producer.send(message()).into_future();
        let cancelled = tokio::time::timeout(Duration::from_millis(50), send).await;
        assert!(cancelled.is_err());
    }
    assert!(producer.core().room.try_enter(1).is_some());
}

#[tokio::test]
async fn a_shutdown_waits_for_what_is_in_flight_and_takes_nothing_new() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    producer.send(message()).await.unwrap();
    let handles: Vec<_> = (0..100).map(|_| producer.send(message()).detach()).collect();
    producer.shutdown().await;
    for handle in handles {
        handle.await.unwrap();
    }
    let error = producer.send(message()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(
        error.to_string(),
        "producer g is shut down; make a new one to go on"
    );
    assert_eq!(producer.ready().await.unwrap_err().kind(), ErrorKind::Closed);
    let gone = two.a.requests_of::<UnregisterClient>();
    assert_eq!(gone[0].producer_group.as_deref(), Some("g"));
    producer.shutdown().await;
    client.shutdown().await;
    assert_eq!(
        client.producer("g").start().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn the_shutdown_of_the_client_drains_its_producers() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let handles: Vec<_> = (0..100).map(|_| producer.send(message()).detach()).collect();
    client.shutdown().await;
    for handle in handles {
        handle.await.unwrap();
    }
    assert_eq!(
        producer.send(message()).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn brokers_know_the_group_while_a_handle_lives() {
    let two = Two::new(ok, ok).await;
    two.routes.set("t", route(&[("a", &two.a.address())], 1));
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let twin = client.producer("g").start().await.unwrap();
    producer.send(message()).await.unwrap();
    let beat = two.a.asked::<HeartBeat>(1).await.pop().unwrap();
    let beat = HeartbeatData::from_body(&beat.body).unwrap();
    assert_eq!(beat.producer_data_set[0].group_name, "g");
    drop(producer);
    twin.send(message()).await.unwrap();
    assert!(
        two.a.requests_of::<UnregisterClient>().is_empty(),
        "the twin is still here"
    );
    drop(twin);
    two.a.asked::<UnregisterClient>(1).await;
}

#[tokio::test]
async fn a_dropped_client_leaves_nothing_behind() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    producer.send(message()).await.unwrap();
    let core = Arc::downgrade(producer.core());
    let tasks = client.cluster().tasks().clone();
    drop((client, producer));
    tasks.stop(Duration::from_secs(3)).await.unwrap();
    assert!(core.upgrade().is_none(), "producer and cluster hold each other");
}

#[tokio::test]
async fn wrong_options_are_named_all_at_once_and_wrong_messages_before_anything_is_sent() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let error = client
        .producer("bad group")
        .max_attempts(0)
        .compression_level(10)
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "producer \"bad group\" cannot be started: group \"bad group\" is not legal: ' ' is not allowed, only letters, \
         digits, '%', '|', '_' and '-' are; max_attempts must be at least 1; compression_level must be from 0 \
         to 9 for Zlib, not 10"
    );
    let producer = client.producer("g").start().await.unwrap();
    let empty = producer.send(Message::new("t", "")).await.unwrap_err();
    assert_eq!(
        (empty.kind(), empty.persisted()),
        (ErrorKind::Config, Persisted::No)
    );
    assert!(
        producer
            .send(Message::new("bad topic", "x"))
            .detach()
            .await
            .is_err()
    );
    assert_eq!(two.sent_to_a() + two.sent_to_b(), 0);
}

#[tokio::test]
async fn layers_see_sends_and_may_answer_them() {
    use crate::{Call, Reply, RequestStack};
    let two = Two::new(ok, ok).await;
    let sends = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sends);
    let counting = tower::layer::layer_fn(move |inner: RequestStack| {
        let counted = Arc::clone(&counted);
        tower::service_fn(move |call: Call| {
            counted.fetch_add(usize::from(call.name == "SendMessageV2"), Ordering::SeqCst);
            let mut inner = inner.clone();
            async move { tower::Service::<Call>::call(&mut inner, call).await as Result<Reply> }
        })
    });
    let client = builder(&two.name_server.address())
        .request_layer(counting)
        .connect()
        .await
        .unwrap();
    let producer = client.producer("g").start().await.unwrap();
    producer.send(message()).await.unwrap();
    producer.send(message()).one_way().await.unwrap();
    assert_eq!(sends.load(Ordering::SeqCst), 2);
}
