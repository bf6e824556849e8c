//! Pops in order: one batch of a queue at a time.

use std::time::Duration;

use rocketmq_client::protocol::requests::{AckMessage, PopMessage, PopStatus};
use rocketmq_client::protocol::{ReceiptHandle, ResponseCode};
use tokio::time;

use crate::client::Wire;
use crate::popping::{TOPIC, ack, bodies, committed, hide, pop, received, send, start, take, waiting};

fn in_order(pop: PopMessage) -> PopMessage {
    PopMessage {
        order: Some(true),
        ..pop
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_waits_for_its_batch_and_the_offset_with_it() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b", "c"]).await;
    let popped = wire.call(&in_order(pop(2))).await.unwrap();
    assert_eq!(popped.header.revive_qid, 999);
    assert_eq!(popped.header.order_count_info.as_deref(), Some("0 0 0"));
    assert_eq!(popped.header.rest_num, 1);
    let taken = received(popped);
    assert_eq!(bodies(&taken), ["a", "b"]);
    assert_eq!(committed(&mut wire, 0).await, 0);

    let blocked = wire.call(&in_order(pop(2))).await.unwrap();
    assert_eq!(
        (blocked.status, blocked.header.rest_num),
        (PopStatus::NotFound, 0)
    );
    assert_eq!(blocked.header.order_count_info.as_deref(), Some(""));
    wire.call(&ack(&taken[1].handle)).await.unwrap();
    assert_eq!(committed(&mut wire, 0).await, 0, "the first one is not done with");
    wire.call(&ack(&taken[0].handle)).await.unwrap();
    assert_eq!(committed(&mut wire, 0).await, 2);
    assert_eq!(bodies(&take(&mut wire, &in_order(pop(2))).await), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_comes_again_when_its_time_is_over_and_counts_how_often() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b", "c"]).await;
    let first = take(&mut wire, &in_order(pop(2))).await;
    wire.call(&ack(&first[0].handle)).await.unwrap();
    time::sleep(Duration::from_millis(20_001)).await;
    let popped = wire.call(&in_order(pop(2))).await.unwrap();
    assert_eq!(popped.header.start_offset_info.as_deref(), Some("0 0 1"));
    assert_eq!(popped.header.msg_offset_info.as_deref(), Some("0 0 1,2"));
    assert_eq!(popped.header.order_count_info.as_deref(), Some("0 qo0%1 1;0 0 0"));
    let again = received(popped);
    assert_eq!(bodies(&again), ["b", "c"]);
    time::sleep(Duration::from_millis(20_001)).await;
    let popped = wire.call(&in_order(pop(2))).await.unwrap();
    assert_eq!(
        popped.header.order_count_info.as_deref(),
        Some("0 qo0%1 2;0 qo0%2 1;0 0 1")
    );

    // An acknowledgement of an earlier delivery is taken and changes nothing.
    wire.call(&ack(&again[0].handle)).await.unwrap();
    assert_eq!(committed(&mut wire, 0).await, 1);
}

#[tokio::test]
async fn the_same_try_gets_the_same_batch_again() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b"]).await;
    let attempt = |id: &str| PopMessage {
        attempt_id: Some(id.into()),
        ..in_order(pop(2))
    };
    assert_eq!(bodies(&take(&mut wire, &attempt("1")).await), ["a", "b"]);
    let popped = wire.call(&attempt("1")).await.unwrap();
    assert_eq!(popped.header.order_count_info.as_deref(), Some("0 0 0"));
    assert_eq!(bodies(&received(popped)), ["a", "b"]);
    let other = wire.call(&attempt("2")).await.unwrap();
    assert_eq!(other.status, PopStatus::NotFound);
}

#[tokio::test]
async fn an_offset_that_was_not_handed_out_is_refused() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b"]).await;
    let taken = take(&mut wire, &in_order(pop(1))).await;
    let other = AckMessage {
        offset: 1,
        ..ack(&taken[0].handle)
    };
    let (code, remark) = wire.code(&other).await;
    assert_eq!(code, ResponseCode::MESSAGE_ILLEGAL);
    let start = format!("offset is illegal, key:{TOPIC}@poppers@0, old:0, commit:1, next:-1, /127.0.0.1:");
    assert!(remark.starts_with(&start), "{remark}");
    wire.call(&ack(&taken[0].handle)).await.unwrap();
    // What is done with already is taken again.
    wire.call(&ack(&taken[0].handle)).await.unwrap();
    assert_eq!(committed(&mut wire, 0).await, 1);
}

#[tokio::test]
async fn who_waits_goes_on_when_the_batch_is_done_with() {
    let (broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b"]).await;
    let taken = take(&mut wire, &in_order(pop(1))).await;
    let mut waits = Wire::connect(&broker.name_server()).await;
    waits.send(&waiting(in_order(pop(1)))).await;
    committed(&mut waits, 0).await;
    wire.call(&ack(&taken[0].handle)).await.unwrap();
    let frame = waits.next().await.unwrap();
    assert_eq!(
        (frame.code, frame.fields.get("msgOffsetInfo")),
        (0, Some("0 0 1"))
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_on_when_the_time_of_the_batch_is_over() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let first = take(&mut wire, &in_order(pop(1))).await.remove(0);
    let popped = wire.call(&waiting(in_order(pop(1)))).await.unwrap();
    assert_eq!(popped.header.order_count_info.as_deref(), Some("0 qo0%0 1;0 0 1"));
    assert_eq!(popped.header.pop_time, first.handle.pop_time + 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_order_can_be_hidden_for_longer_or_shorter() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let taken = take(&mut wire, &in_order(pop(1))).await;
    let handle: &ReceiptHandle = &taken[0].handle;
    time::sleep(Duration::from_secs(15)).await;
    let changed = wire.call(&hide(handle, 100_000)).await.unwrap();
    assert_eq!((changed.pop_time, changed.revive_qid), (handle.pop_time, 999));
    assert!(changed.invisible_time >= 115_000, "{changed:?}");
    time::sleep(Duration::from_secs(60)).await;
    let blocked = wire.call(&in_order(pop(1))).await.unwrap();
    assert_eq!(blocked.status, PopStatus::NotFound);
    wire.call(&hide(handle, 1000)).await.unwrap();
    let again = take(&mut wire, &waiting(in_order(pop(1)))).await;
    assert_eq!(bodies(&again), ["a"]);

    wire.call(&ack(&again[0].handle)).await.unwrap();
    let late = wire.call(&hide(&again[0].handle, 1000)).await.unwrap();
    assert_eq!((late.pop_time, late.invisible_time, late.revive_qid), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn each_queue_has_a_batch_of_its_own() {
    let (_broker, mut wire) = start(2).await;
    send(&mut wire, 0, &["a", "b"]).await;
    send(&mut wire, 1, &["x", "y"]).await;
    let of = |queue_id| PopMessage {
        queue_id,
        ..in_order(pop(1))
    };
    let a = take(&mut wire, &of(0)).await;
    let x = take(&mut wire, &of(1)).await;
    assert_eq!((bodies(&a), bodies(&x)), (vec!["a".into()], vec!["x".into()]));
    wire.call(&ack(&x[0].handle)).await.unwrap();
    assert_eq!(bodies(&take(&mut wire, &in_order(pop(32))).await), ["y"]);
}
