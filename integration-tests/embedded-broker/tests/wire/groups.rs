//! Members of groups: heartbeats, lists, notifications, locks.

use std::time::Duration;

use rocketmq_client::protocol::bodies::{
    ConsumerData, HeartbeatData, LockBatch, MessageModel, MessageQueue, ProducerData, SubscriptionData,
    SubscriptionGroupConfig,
};
use rocketmq_client::protocol::requests::{
    CheckClientConfig, ConsumerConnectionList, ConsumerListByGroup, CreateGroup, HeartBeat, LockQueues,
    ProducerConnectionList, RouteInfo, UnlockQueues, UnregisterClient,
};
use rocketmq_client::protocol::{BrokerVersion, JsonBody, Language, RequestCode, ResponseError};
use tokio::time;

use crate::client::{Wire, message, start};

fn beat(client: &str, topics: &[&str], model: MessageModel) -> HeartBeat {
    let data = HeartbeatData {
        client_id: client.into(),
        consumer_data_set: vec![ConsumerData {
            group_name: "g".into(),
            message_model: model,
            subscription_data_set: topics
                .iter()
                .map(|topic| SubscriptionData::by_tags(topic, "*", 1))
                .collect(),
            ..ConsumerData::default()
        }],
        producer_data_set: vec![ProducerData {
            group_name: "p".into(),
        }],
        ..HeartbeatData::default()
    };
    HeartBeat {
        body: data.to_body().unwrap(),
    }
}

fn list() -> ConsumerListByGroup {
    ConsumerListByGroup {
        consumer_group: "g".into(),
    }
}

/// Reads until a notification for the group comes.
async fn notified(wire: &mut Wire) {
    loop {
        let frame = wire.next().await.expect("a notification");
        if frame.code == RequestCode::NOTIFY_CONSUMER_IDS_CHANGED.0 && !frame.is_response() {
            assert!(frame.is_one_way());
            assert_eq!(frame.fields.get("consumerGroup"), Some("g"));
            return;
        }
    }
}

#[tokio::test]
async fn a_heartbeat_makes_a_member_and_the_retry_topic() {
    let (_broker, mut wire) = start().await;
    let none = wire.call(&list()).await.unwrap_err();
    assert!(
        matches!(none, ResponseError::Refused { remark, .. } if remark == "no consumer for this group, g")
    );
    let result = wire
        .call(&beat("c1", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    assert_eq!(result.version, BrokerVersion::V5_5_0.0);
    assert_eq!(result.header.supports_v2, Some(true));
    assert_eq!(wire.call(&list()).await.unwrap().0.consumer_id_list, ["c1"]);
    let retry = RouteInfo {
        topic: "%RETRY%g".into(),
        accept_standard_json_only: None,
    };
    assert_eq!(
        wire.call(&retry).await.unwrap().0.queue_datas[0].read_queue_nums,
        1
    );

    let consumers = wire
        .call(&ConsumerConnectionList {
            consumer_group: "g".into(),
        })
        .await
        .unwrap()
        .0;
    let connection = consumers.connection_set.first().unwrap();
    assert_eq!(
        (connection.client_id.as_str(), connection.language.as_str()),
        ("c1", Language::RUST.name().unwrap())
    );
    assert!(consumers.subscription_table.contains_key("t"));
    let producers = wire
        .call(&ProducerConnectionList {
            producer_group: "p".into(),
        })
        .await
        .unwrap()
        .0;
    assert_eq!(producers.connection_set.len(), 1);
}

#[tokio::test]
async fn members_hear_of_those_who_come_and_go_by_any_way() {
    let (broker, mut first) = start().await;
    first
        .call(&beat("c1", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    notified(&mut first).await;

    let mut second = Wire::connect(&broker.name_server()).await;
    second
        .call(&beat("c2", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    notified(&mut first).await;
    assert_eq!(
        first.call(&list()).await.unwrap().0.consumer_id_list,
        ["c1", "c2"]
    );

    let leave = UnregisterClient {
        client_id: "c2".into(),
        producer_group: None,
        consumer_group: Some("g".into()),
    };
    second.call(&leave).await.unwrap();
    notified(&mut first).await;
    assert_eq!(first.call(&list()).await.unwrap().0.consumer_id_list, ["c1"]);

    second
        .call(&beat("c2", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    notified(&mut first).await;
    drop(second);
    notified(&mut first).await;
    assert_eq!(first.call(&list()).await.unwrap().0.consumer_id_list, ["c1"]);

    first
        .call(&beat("c1", &["t", "more"], MessageModel::Clustering))
        .await
        .unwrap();
    notified(&mut first).await;
}

#[tokio::test]
async fn a_heartbeat_that_changes_nothing_tells_nobody() {
    let (_broker, mut wire) = start().await;
    wire.call(&beat("c1", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    notified(&mut wire).await;
    wire.call(&beat("c1", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    let opaque = wire.send(&list()).await;
    assert_eq!(wire.next().await.unwrap().opaque, opaque);
    let opaque = wire.send(&list()).await;
    assert_eq!(wire.next().await.unwrap().opaque, opaque);
}

#[tokio::test]
async fn groups_that_broadcast_or_do_not_want_it_are_not_told() {
    let (_broker, mut wire) = start().await;
    wire.call(&beat("c1", &["t"], MessageModel::Broadcasting))
        .await
        .unwrap();
    let config = SubscriptionGroupConfig {
        group_name: "g".into(),
        notify_consumer_ids_changed_enable: false,
        ..SubscriptionGroupConfig::default()
    };
    wire.call(&CreateGroup {
        body: config.to_body().unwrap(),
    })
    .await
    .unwrap();
    wire.call(&beat("c1", &["t", "more"], MessageModel::Clustering))
        .await
        .unwrap();
    for _ in 0..2 {
        let opaque = wire.send(&list()).await;
        assert_eq!(wire.next().await.unwrap().opaque, opaque);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_says_nothing_for_two_minutes_is_gone() {
    let (broker, mut silent) = start().await;
    silent
        .call(&beat("c1", &["t"], MessageModel::Clustering))
        .await
        .unwrap();
    notified(&mut silent).await;
    time::advance(Duration::from_secs(100)).await;
    let mut other = Wire::connect(&broker.name_server()).await;
    assert_eq!(other.call(&list()).await.unwrap().0.consumer_id_list, ["c1"]);
    assert!(silent.next().await.is_none(), "the connection is closed");
    let mut other = Wire::connect(&broker.name_server()).await;
    assert!(other.call(&list()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_locked_by_one_member_until_it_lets_go_or_falls_silent() {
    let (_broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let queues = |ids: &[i32]| {
        ids.iter()
            .map(|&id| MessageQueue::new("t", "broker-a", id))
            .collect::<Vec<_>>()
    };
    let body = |client: &str, ids: &[i32]| {
        let batch = LockBatch {
            consumer_group: "g".into(),
            client_id: client.into(),
            only_this_broker: false,
            mq_set: queues(ids),
        };
        batch.to_body().unwrap()
    };
    let lock = |client: &str, ids: &[i32]| LockQueues {
        body: body(client, ids),
    };
    // Queue 9 does not exist.
    assert_eq!(
        wire.call(&lock("a", &[0, 1, 9])).await.unwrap().0.lock_ok_mq_set,
        queues(&[0, 1])
    );
    assert_eq!(
        wire.call(&lock("b", &[0, 2])).await.unwrap().0.lock_ok_mq_set,
        queues(&[2])
    );
    assert_eq!(
        wire.call(&lock("a", &[0])).await.unwrap().0.lock_ok_mq_set,
        queues(&[0])
    );
    wire.call(&UnlockQueues {
        body: body("b", &[0]),
    })
    .await
    .unwrap();
    assert_eq!(wire.call(&lock("b", &[0])).await.unwrap().0.lock_ok_mq_set, []);
    wire.call(&UnlockQueues {
        body: body("a", &[0]),
    })
    .await
    .unwrap();
    assert_eq!(
        wire.call(&lock("b", &[0])).await.unwrap().0.lock_ok_mq_set,
        queues(&[0])
    );
    assert_eq!(wire.call(&lock("b", &[1])).await.unwrap().0.lock_ok_mq_set, []);
    time::advance(Duration::from_secs(61)).await;
    assert_eq!(
        wire.call(&lock("b", &[1])).await.unwrap().0.lock_ok_mq_set,
        queues(&[1])
    );
}

#[tokio::test]
async fn only_tags_pass_the_check_of_a_clients_configuration() {
    let (_broker, mut wire) = start().await;
    for (body, code) in [
        (
            r#"{"clientId":"c","group":"g","subscriptionData":{"expressionType":"TAG","topic":"t"}}"#,
            0,
        ),
        (r#"{"clientId":"c","group":"g"}"#, 0),
        (
            r#"{"clientId":"c","group":"g","subscriptionData":{"expressionType":"SQL92","topic":"t"}}"#,
            1,
        ),
        ("{", 1),
    ] {
        let request = CheckClientConfig { body: body.into() };
        assert_eq!(wire.code(&request).await.0.0, code, "{body}");
    }
}
