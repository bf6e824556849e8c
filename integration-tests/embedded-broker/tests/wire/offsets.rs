//! Offsets of groups and of queues.

use std::time::Duration;

use rocketmq_client::protocol::requests::{
    EarliestStoreTime, MaxOffset, MinOffset, QueryConsumerOffset, SearchOffset, UpdateConsumerOffset,
};
use rocketmq_client::protocol::{BrokerVersion, ResponseCode};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::time;

use crate::client::{Wire, frame_of, message, pull, start};

fn query(queue_id: i32, set_zero_if_not_found: Option<bool>) -> QueryConsumerOffset {
    QueryConsumerOffset {
        consumer_group: "consumers".into(),
        topic: "t".into(),
        queue_id,
        set_zero_if_not_found,
    }
}

fn update(group: &str, topic: &str, commit_offset: i64) -> UpdateConsumerOffset {
    UpdateConsumerOffset {
        consumer_group: group.into(),
        topic: topic.into(),
        queue_id: 0,
        commit_offset,
    }
}

#[tokio::test]
async fn a_group_without_offsets_starts_at_zero_only_where_there_is_something_young() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    assert_eq!(wire.call(&query(0, None)).await.unwrap().offset, 0);
    assert_eq!(wire.call(&query(0, Some(true))).await.unwrap().offset, 0);
    assert_eq!(
        wire.code(&query(0, Some(false))).await.0,
        ResponseCode::QUERY_NOT_FOUND
    );
    // An empty queue has no message at 0 that would be in memory.
    assert_eq!(wire.code(&query(1, None)).await.0, ResponseCode::QUERY_NOT_FOUND);
}

#[tokio::test]
async fn a_group_without_offsets_does_not_start_at_zero_once_messages_have_gone() {
    let broker = EmbeddedBroker::builder()
        .memory_limit(64 * 1024)
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    for _ in 0..100 {
        wire.call(&message("t", 0, vec![1; 2048])).await.unwrap();
    }
    assert_eq!(wire.code(&query(0, None)).await.0, ResponseCode::QUERY_NOT_FOUND);
}

#[tokio::test]
async fn commits_are_kept_may_go_back_and_need_group_and_topic() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let (code, remark) = wire.code(&update("consumers", "t", 5)).await;
    assert_eq!((code.0, remark.as_str()), (26, "Group consumers not exist!"));
    // A pull makes the group.
    wire.call(&pull("t", 0, 0)).await.unwrap();
    assert_eq!(wire.code(&update("consumers", "unknown", 5)).await.0.0, 17);
    for offset in [5, 2] {
        wire.call(&update("consumers", "t", offset)).await.unwrap();
        assert_eq!(wire.call(&query(0, Some(false))).await.unwrap().offset, offset);
    }
    // Clients commit one-way; what comes later on the connection sees it.
    wire.send_frame(frame_of(&update("consumers", "t", 9)).one_way())
        .await;
    assert_eq!(wire.call(&query(0, None)).await.unwrap().offset, 9);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_time_at_both_boundaries() {
    let (_broker, mut wire) = start().await;
    let before = search_base(&mut wire).await;
    for number in 0..3 {
        wire.call(&message("t", 0, number.to_string())).await.unwrap();
        if number > 0 {
            wire.call(&message("t", 0, number.to_string())).await.unwrap();
        }
        time::advance(Duration::from_millis(100)).await;
    }
    // Stored at 0, 100, 100, 200 and 200 ms.
    for (at, lower, upper) in [
        (-1, 0, 0),
        (0, 0, 0),
        (50, 1, 0),
        (100, 1, 2),
        (150, 3, 2),
        (200, 3, 4),
        (999, 5, 4),
    ] {
        for (boundary, expected) in [(None, lower), (Some("lower"), lower), (Some("UPPER"), upper)] {
            let request = SearchOffset {
                topic: "t".into(),
                queue_id: 0,
                timestamp: before + at,
                boundary_type: boundary.map(str::to_owned),
            };
            assert_eq!(
                wire.call(&request).await.unwrap().offset,
                expected,
                "{at} {boundary:?}"
            );
        }
    }
    let unknown = SearchOffset {
        topic: "t".into(),
        queue_id: 3,
        timestamp: 0,
        boundary_type: None,
    };
    assert_eq!(wire.call(&unknown).await.unwrap().offset, 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_broker_finds_what_is_nearest_and_keeps_any_offset() {
    let broker = EmbeddedBroker::builder()
        .version(BrokerVersion(407))
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let before = search_base(&mut wire).await;
    for number in 0..3 {
        wire.call(&message("t", 0, number.to_string())).await.unwrap();
        if number > 0 {
            wire.call(&message("t", 0, number.to_string())).await.unwrap();
        }
        time::advance(Duration::from_millis(100)).await;
    }
    // Stored at 0, 100, 100, 200 and 200 ms.
    for (at, expected) in [
        (-1, 0),
        (0, 0),
        (50, 0),
        (51, 1),
        (100, 2),
        (150, 2),
        (151, 3),
        (200, 3),
        (999, 4),
    ] {
        let request = SearchOffset {
            topic: "t".into(),
            queue_id: 0,
            timestamp: before + at,
            boundary_type: Some("UPPER".into()),
        };
        assert_eq!(wire.call(&request).await.unwrap().offset, expected, "{at}");
    }
    wire.call(&update("nobody", "t", 3)).await.unwrap();
    wire.call(&update("nobody", "nothing", 3)).await.unwrap();
}

/// When the next message will be stored, as time stands still.
async fn search_base(wire: &mut Wire) -> i64 {
    wire.call(&message("base", 0, "x")).await.unwrap();
    let earliest = EarliestStoreTime {
        topic: "base".into(),
        queue_id: 0,
    };
    wire.call(&earliest).await.unwrap().timestamp
}

#[tokio::test]
async fn the_ends_of_queues_are_told_also_where_there_is_nothing() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    for (queue_id, max) in [(0, 1), (1, 0), (99, 0)] {
        let topic = || "t".to_owned();
        assert_eq!(
            wire.call(&MaxOffset {
                topic: topic(),
                queue_id
            })
            .await
            .unwrap()
            .offset,
            max
        );
        assert_eq!(
            wire.call(&MinOffset {
                topic: topic(),
                queue_id
            })
            .await
            .unwrap()
            .offset,
            0
        );
        let earliest = wire
            .call(&EarliestStoreTime {
                topic: topic(),
                queue_id,
            })
            .await
            .unwrap();
        assert_eq!(earliest.timestamp == -1, max == 0);
    }
}
