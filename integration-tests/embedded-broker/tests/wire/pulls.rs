//! What a pull is answered: the checks, the table of offsets, filters, limits.

use std::time::Duration;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::{
    ConsumerData, HeartbeatData, MessageModel, SubscriptionData, SubscriptionGroupConfig, TopicFilterType,
};
use rocketmq_client::protocol::requests::{
    CreateGroup, CreateTopic, DeleteTopic, HeartBeat, PullMessage, PullStatus, QueryConsumerOffset, pull_flag,
};
use rocketmq_client::protocol::{Frame, JsonBody, Record, RequestCode};
use rocketmq_embedded_broker::EmbeddedBroker;

use crate::client::{Wire, frame_of, message, pull, start, tagged, waiting};

/// The offsets of the messages that a pull returned.
fn offsets(messages: Bytes) -> Vec<i64> {
    Record::decode_all(messages)
        .unwrap()
        .iter()
        .map(|record| record.queue_offset)
        .collect()
}

fn topic(name: &str, queues: i32, perm: i32) -> CreateTopic {
    CreateTopic {
        topic: name.into(),
        default_topic: "TBW102".into(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        topic_filter_type: TopicFilterType::SingleTag,
        topic_sys_flag: None,
        order: false,
        attributes: None,
    }
}

fn group(config: SubscriptionGroupConfig) -> CreateGroup {
    CreateGroup {
        body: config.to_body().unwrap(),
    }
}

fn heartbeat(group: &str, topic: &str, version: i64, message_model: MessageModel) -> HeartBeat {
    let data = HeartbeatData {
        client_id: "c@1".into(),
        consumer_data_set: vec![ConsumerData {
            group_name: group.into(),
            message_model,
            subscription_data_set: vec![SubscriptionData::by_tags(topic, "a", version)],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    HeartBeat {
        body: data.to_body().unwrap(),
    }
}

#[tokio::test]
async fn each_offset_gets_its_row_of_the_status_table() {
    let (_broker, mut wire) = start().await;
    for number in 0..3 {
        wire.call(&message("t", 0, number.to_string())).await.unwrap();
    }
    let rows = [
        (0, 0, PullStatus::Found, "FOUND", 3),
        (0, 2, PullStatus::Found, "FOUND", 3),
        (0, 3, PullStatus::NoNewMessage, "OFFSET_OVERFLOW_ONE", 3),
        (0, 4, PullStatus::OffsetIllegal, "OFFSET_OVERFLOW_BADLY", 3),
        (0, -1, PullStatus::OffsetIllegal, "OFFSET_TOO_SMALL", 0),
        (1, 0, PullStatus::NoNewMessage, "NO_MESSAGE_IN_QUEUE", 0),
        (1, 7, PullStatus::OffsetIllegal, "NO_MESSAGE_IN_QUEUE", 0),
    ];
    for (queue, offset, status, remark, next) in rows {
        let pulled = wire.call(&pull("t", queue, offset)).await.unwrap();
        assert_eq!(
            (pulled.status, pulled.remark.as_deref()),
            (status, Some(remark)),
            "{queue} {offset}"
        );
        assert_eq!(pulled.header.next_begin_offset, next, "{queue} {offset}");
        assert_eq!(
            (pulled.header.min_offset, pulled.header.suggest_which_broker_id),
            (0, 0)
        );
    }
    let no_match = PullMessage {
        subscription: Some("x".into()),
        ..pull("t", 0, 0)
    };
    let pulled = wire.call(&no_match).await.unwrap();
    assert_eq!(
        (pulled.status, pulled.header.next_begin_offset),
        (PullStatus::NoMatchedMessage, 3)
    );
    assert_eq!(pulled.remark.as_deref(), Some("NO_MATCHED_MESSAGE"));
}

#[tokio::test]
async fn each_pull_that_is_not_right_gets_the_code_of_a_real_broker() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    wire.call(&topic("write-only", 1, 2)).await.unwrap();
    wire.call(&group(SubscriptionGroupConfig {
        group_name: "stopped".into(),
        consume_enable: false,
        ..SubscriptionGroupConfig::default()
    }))
    .await
    .unwrap();
    let sql = PullMessage {
        expression_type: Some("SQL92".into()),
        ..pull("t", 0, 0)
    };
    let cases = [
        (
            PullMessage {
                consumer_group: "bad group".into(),
                ..pull("t", 0, 0)
            },
            26,
            "bad group",
        ),
        (
            PullMessage {
                consumer_group: "stopped".into(),
                ..pull("t", 0, 0)
            },
            16,
            "group no permission",
        ),
        (pull("unknown", 0, 0), 17, "not exist"),
        (pull("write-only", 0, 0), 16, "pulling message is forbidden"),
        (pull("t", 4, 0), 29, "queueId[4] is illegal"),
        (pull("t", -1, 0), 29, "queueId[-1] is illegal"),
        (
            PullMessage {
                sys_flag: 0,
                ..pull("t", 0, 0)
            },
            24,
            "group info not exist",
        ),
        (
            PullMessage {
                subscription: Some("||".into()),
                ..pull("t", 0, 0)
            },
            23,
            "parse the consumer's subscription failed",
        ),
        (sql, 1, "does not support consumer to filter message by SQL92"),
    ];
    for (request, code, part) in cases {
        let (got, remark) = wire.code(&request).await;
        assert_eq!(got.0, code, "{remark}");
        assert!(remark.contains(part), "{remark}");
    }
}

#[tokio::test]
async fn the_header_says_what_forbids_a_pull() {
    let (_broker, mut wire) = start().await;
    wire.call(&topic("write-only", 1, 2)).await.unwrap();
    let refused = wire.ask(&pull("write-only", 0, 0)).await;
    assert_eq!(
        (refused.code, refused.fields.get("forbiddenType")),
        (16, Some("3"))
    );
}

#[tokio::test]
async fn a_group_that_must_be_made_first_is_not_made_by_a_pull() {
    let broker = EmbeddedBroker::builder()
        .auto_create_groups(false)
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    assert_eq!(wire.code(&pull("TBW102", 0, 0)).await.0.0, 26);
    wire.call(&group(SubscriptionGroupConfig {
        group_name: "consumers".into(),
        ..Default::default()
    }))
    .await
    .unwrap();
    assert_eq!(wire.code(&pull("TBW102", 0, 0)).await.0.0, 19);
}

#[tokio::test]
async fn a_pull_without_a_subscription_uses_the_one_of_the_heartbeat() {
    let (_broker, mut wire) = start().await;
    for tag in ["b", "a", "b", "a"] {
        wire.call(&tagged("t", 0, tag)).await.unwrap();
    }
    wire.call(&heartbeat("consumers", "t", 5, MessageModel::Clustering))
        .await
        .unwrap();
    let by_heartbeat = |version| PullMessage {
        sys_flag: 0,
        sub_version: version,
        ..pull("t", 0, 0)
    };
    assert_eq!(
        offsets(wire.call(&by_heartbeat(5)).await.unwrap().messages),
        [1, 3]
    );
    assert_eq!(wire.code(&by_heartbeat(6)).await.0.0, 25);
    wire.call(&heartbeat("consumers", "t", 6, MessageModel::Clustering))
        .await
        .unwrap();
    assert_eq!(wire.code(&by_heartbeat(6)).await.0.0, 0);
    let other = PullMessage {
        sys_flag: 0,
        ..pull("TBW102", 0, 0)
    };
    let (code, remark) = wire.code(&other).await;
    assert_eq!(
        (code.0, remark.as_str()),
        (24, "the consumer's subscription not exist")
    );
}

#[tokio::test]
async fn a_group_that_may_not_broadcast_cannot() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    wire.call(&group(SubscriptionGroupConfig {
        group_name: "consumers".into(),
        consume_broadcast_enable: false,
        ..SubscriptionGroupConfig::default()
    }))
    .await
    .unwrap();
    wire.call(&heartbeat("consumers", "t", 1, MessageModel::Broadcasting))
        .await
        .unwrap();
    assert_eq!(
        wire.code(&PullMessage {
            sys_flag: 0,
            ..pull("t", 0, 0)
        })
        .await
        .0
        .0,
        16
    );
}

#[tokio::test]
async fn tags_are_told_apart_by_hash_and_offsets_pass_those_not_wanted() {
    let (_broker, mut wire) = start().await;
    // "Aa" and "BB" have the same hash; telling them apart is the client's part.
    for tag in ["Aa", "C", "BB", "C"] {
        wire.call(&tagged("t", 0, tag)).await.unwrap();
    }
    let wanted = PullMessage {
        subscription: Some("Aa || X".into()),
        ..pull("t", 0, 0)
    };
    let pulled = wire.call(&wanted).await.unwrap();
    assert_eq!(
        (offsets(pulled.messages), pulled.header.next_begin_offset),
        (vec![0, 2], 4)
    );
}

#[tokio::test]
async fn a_batch_has_32_messages_or_256_kib_but_always_one() {
    let (_broker, mut wire) = start().await;
    for _ in 0..40 {
        wire.send(&message("small", 0, "x")).await;
    }
    for _ in 0..3 {
        wire.send(&message("large", 0, vec![7; 120 * 1024])).await;
    }
    wire.call(&message("huge", 0, vec![7; 1024 * 1024]))
        .await
        .unwrap();
    for (request, count) in [
        (
            PullMessage {
                max_msg_nums: 1000,
                ..pull("small", 0, 0)
            },
            32,
        ),
        (
            PullMessage {
                max_msg_nums: 5,
                ..pull("small", 0, 0)
            },
            5,
        ),
        (
            PullMessage {
                max_msg_nums: 0,
                ..pull("small", 0, 0)
            },
            1,
        ),
        (
            PullMessage {
                max_msg_nums: i32::MIN,
                ..pull("small", 0, 0)
            },
            1,
        ),
        (pull("large", 0, 0), 2),
        (pull("huge", 0, 0), 1),
    ] {
        let pulled = wire.call(&request).await.unwrap();
        assert_eq!(
            offsets(pulled.messages).len(),
            count,
            "{} {}",
            request.topic,
            request.max_msg_nums
        );
        assert_eq!(usize::try_from(pulled.header.next_begin_offset).unwrap(), count);
    }
}

#[tokio::test]
async fn one_pull_looks_at_800_messages_that_nobody_wants() {
    let (_broker, mut wire) = start().await;
    for _ in 0..900 {
        wire.send(&tagged("t", 0, "a")).await;
    }
    let wanted = PullMessage {
        subscription: Some("b".into()),
        ..pull("t", 0, 0)
    };
    let pulled = wire.call(&wanted).await.unwrap();
    assert_eq!(
        (pulled.status, pulled.header.next_begin_offset),
        (PullStatus::NoMatchedMessage, 800)
    );
}

#[tokio::test]
async fn a_pull_commits_what_it_says() {
    let (_broker, mut wire) = start().await;
    for _ in 0..5 {
        wire.call(&message("t", 0, "x")).await.unwrap();
    }
    let flags = pull_flag::SUBSCRIPTION | pull_flag::COMMIT_OFFSET;
    let request = PullMessage {
        sys_flag: flags,
        commit_offset: 3,
        ..pull("t", 0, 4)
    };
    wire.call(&request).await.unwrap();
    let query = QueryConsumerOffset {
        consumer_group: "consumers".into(),
        topic: "t".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    assert_eq!(wire.call(&query).await.unwrap().offset, 3);
}

#[tokio::test]
async fn a_lite_pull_is_a_pull() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let frame = Frame {
        code: RequestCode::LITE_PULL_MESSAGE.0,
        ..frame_of(&pull("t", 0, 0))
    };
    assert_eq!(wire.ask_frame(frame).await.code, 0);
}

#[tokio::test]
async fn a_pull_that_waits_on_an_empty_queue_gets_its_first_message() {
    let (broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let opaque = wire
        .send(&waiting(pull("t", 3, 0), Duration::from_secs(600)))
        .await;
    wire.call(&pull("t", 0, 0)).await.unwrap();
    let mut other = Wire::connect(&broker.name_server()).await;
    other.call(&message("t", 3, "first")).await.unwrap();
    let answer = wire.next().await.unwrap();
    assert_eq!((answer.opaque, answer.code), (opaque, 0));
}

#[tokio::test]
async fn who_waits_on_a_topic_hears_that_it_was_deleted() {
    let (broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let opaque = wire
        .send(&waiting(pull("t", 0, 1), Duration::from_secs(600)))
        .await;
    wire.call(&pull("t", 0, 0)).await.unwrap();
    let mut other = Wire::connect(&broker.name_server()).await;
    other.call(&DeleteTopic { topic: "t".into() }).await.unwrap();
    let answer = wire.next().await.unwrap();
    assert_eq!((answer.opaque, answer.code), (opaque, 17));
}
