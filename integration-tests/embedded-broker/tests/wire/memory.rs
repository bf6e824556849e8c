//! The memory limit: the oldest messages go, and clients are told where to go on.

use rocketmq_client::protocol::requests::{MinOffset, PullStatus, QueryMessage, ViewMessage};
use rocketmq_client::protocol::{Record, ResponseCode};
use rocketmq_embedded_broker::EmbeddedBroker;

use crate::client::{Wire, message, pull};

const LIMIT: usize = 256 * 1024;

#[tokio::test]
async fn at_the_limit_the_oldest_messages_of_all_topics_go() {
    let broker = EmbeddedBroker::builder()
        .memory_limit(LIMIT)
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let first = wire.call(&message("old", 0, vec![1; 1024])).await.unwrap().header;
    for _ in 0..1000 {
        wire.call(&message("busy", 0, vec![1; 1024])).await.unwrap();
        assert!(broker.stats().bytes <= LIMIT);
    }
    let stats = broker.stats();
    assert_eq!(stats.evicted + stats.messages as u64, 1001);

    // Pulls below the start are sent to it, and find messages there.
    let min = wire
        .call(&MinOffset {
            topic: "busy".into(),
            queue_id: 0,
        })
        .await
        .unwrap()
        .offset;
    assert_eq!(min, i64::try_from(stats.evicted).unwrap() - 1);
    let pulled = wire.call(&pull("busy", 0, 0)).await.unwrap();
    assert_eq!(
        (pulled.status, pulled.remark.as_deref()),
        (PullStatus::OffsetIllegal, Some("OFFSET_TOO_SMALL"))
    );
    assert_eq!(pulled.header.next_begin_offset, min);
    let pulled = wire.call(&pull("busy", 0, min)).await.unwrap();
    assert_eq!(Record::decode_all(pulled.messages).unwrap()[0].queue_offset, min);

    // The topic whose only message has gone is empty at offset 1, and goes on there.
    let pulled = wire.call(&pull("old", 0, 0)).await.unwrap();
    assert_eq!(
        (pulled.status, pulled.header.next_begin_offset),
        (PullStatus::OffsetIllegal, 1)
    );
    assert_eq!(
        wire.call(&pull("old", 0, 1)).await.unwrap().status,
        PullStatus::NoNewMessage
    );
    assert_eq!(
        wire.call(&message("old", 0, "x"))
            .await
            .unwrap()
            .header
            .queue_offset,
        1
    );

    // What has gone is found by no other way either.
    let id: rocketmq_client::protocol::OffsetMessageId = first.msg_id.parse().unwrap();
    let view = ViewMessage {
        topic: None,
        offset: id.physical_offset,
    };
    assert_eq!(wire.code(&view).await.0, ResponseCode::SYSTEM_ERROR);
    let query = QueryMessage {
        topic: "old".into(),
        key: first.transaction_id.unwrap(),
        max_num: 32,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique_key_query: Some(true),
    };
    assert_eq!(wire.code(&query).await.0, ResponseCode::QUERY_NOT_FOUND);
}

#[tokio::test]
async fn a_message_above_the_whole_limit_is_the_only_one_left() {
    let broker = EmbeddedBroker::builder()
        .memory_limit(1000)
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    wire.call(&message("t", 0, vec![1; 100_000])).await.unwrap();
    assert_eq!(broker.stats().messages, 1);
    assert_eq!(
        wire.call(&pull("t", 0, 1)).await.unwrap().status,
        PullStatus::Found
    );
}
