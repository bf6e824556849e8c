//! Bytes that are no requests, and clients that do not do their part.

use std::time::Duration;

use bytes::BytesMut;
use rocketmq_client::protocol::requests::MaxOffset;
use rocketmq_client::protocol::{Frame, HeaderFormat, RequestCode, ResponseCode};
use tokio::time;

use crate::client::{Wire, frame_of, message, pull, start, waiting};

#[tokio::test]
async fn garbage_closes_the_connection_and_hurts_nobody_else() {
    let (broker, mut other) = start().await;
    let huge_header = [0, 0, 0, 8, 0, 0xff, 0xff, 0xff, b'{', b'}', 0, 0];
    let cases: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        // The start of a TLS handshake: a length far above the limit.
        &[0x16, 3, 1, 0, 0xf1, 1, 0, 0],
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 1, 2, 3, 0],
        &[0, 0, 0, 8, 7, 0, 0, 4, 1, 2, 3, 4],
        &huge_header,
        b"\0\0\0\x0a\0\0\0\x06{noise",
    ];
    for bytes in cases {
        let mut wire = Wire::connect(&broker.name_server()).await;
        wire.send_bytes(bytes).await;
        assert!(wire.next().await.is_none(), "{bytes:?}");
    }
    assert_eq!(
        other
            .call(&message("t", 0, "x"))
            .await
            .unwrap()
            .header
            .queue_offset,
        0
    );
}

#[tokio::test]
async fn what_came_before_garbage_is_answered() {
    let (_broker, mut wire) = start().await;
    let mut bytes = BytesMut::new();
    frame_of(&message("t", 0, "x"))
        .encode(HeaderFormat::Json, &mut bytes)
        .unwrap();
    bytes.extend_from_slice(&[0xff; 8]);
    wire.send_bytes(&bytes).await;
    assert_eq!(wire.next().await.map(|frame| frame.code), Some(0));
    assert!(wire.next().await.is_none());
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let (_broker, mut wire) = start().await;
    let mut bytes = BytesMut::new();
    frame_of(&message("t", 0, "x"))
        .encode(HeaderFormat::Binary, &mut bytes)
        .unwrap();
    for byte in &bytes {
        wire.send_bytes(&[*byte]).await;
    }
    assert_eq!(wire.next().await.map(|frame| frame.code), Some(0));
}

#[tokio::test]
async fn answers_to_nothing_are_ignored() {
    let (_broker, mut wire) = start().await;
    wire.send_frame(Frame::response(ResponseCode::SUCCESS, 5)).await;
    let opaque = wire
        .send(&MaxOffset {
            topic: "t".into(),
            queue_id: 0,
        })
        .await;
    assert_eq!(wire.next().await.map(|frame| frame.opaque), Some(opaque));
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let (_broker, mut wire) = start().await;
    for code in [
        RequestCode::HEART_BEAT,
        RequestCode::LOCK_BATCH_MQ,
        RequestCode::UNLOCK_BATCH_MQ,
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
    ] {
        for body in [
            "",
            "{",
            "[1]",
            "{\"mqSet\":7,\"producerDataSet\":7,\"groupName\":[]}",
        ] {
            let frame = Frame {
                body: body.into(),
                ..Frame::request(code)
            };
            let answer = wire.ask_frame(frame).await;
            assert_eq!(answer.code, 1, "{code} {body:?}: {:?}", answer.remark);
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from() {
    let (broker, mut other) = start().await;
    other.call(&message("t", 0, vec![1; 200 * 1024])).await.unwrap();
    let mut deaf = Wire::connect(&broker.name_server()).await;
    // Each small pull asks for 200 KiB; sooner or later the broker stops taking them.
    let mut taken = 0;
    while time::timeout(Duration::from_secs(1), deaf.send(&pull("t", 0, 0)))
        .await
        .is_ok()
    {
        taken += 1;
        assert!(taken < 1_000_000, "the broker takes requests without end");
    }
    // Others are served meanwhile, and the client gets all its answers once it reads.
    assert_eq!(other.call(&pull("t", 0, 0)).await.unwrap().header.max_offset, 1);
    for _ in 0..taken.min(100) {
        assert_eq!(deaf.next().await.map(|frame| frame.code), Some(0));
    }
}

#[tokio::test]
async fn held_pulls_of_a_connection_that_is_gone_do_no_harm() {
    let (broker, mut other) = start().await;
    other.call(&message("t", 0, "x")).await.unwrap();
    let mut gone = Wire::connect(&broker.name_server()).await;
    for _ in 0..50 {
        gone.send(&waiting(pull("t", 0, 1), Duration::from_secs(600)))
            .await;
    }
    gone.call(&pull("t", 0, 0)).await.unwrap();
    drop(gone);
    assert_eq!(
        other
            .call(&message("t", 0, "y"))
            .await
            .unwrap()
            .header
            .queue_offset,
        1
    );
    assert_eq!(
        other
            .call(&pull("t", 0, 1))
            .await
            .unwrap()
            .header
            .next_begin_offset,
        2
    );
}
