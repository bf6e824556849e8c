//! Other brokers that register with the name server.

use std::time::Duration;

use bytes::Bytes;
use rocketmq_client::protocol::ResponseCode;
use rocketmq_client::protocol::bodies::TopicRouteData;
use rocketmq_client::protocol::requests::{
    AllTopics, BrokerClusterInfo, DeleteTopicInNameServer, RegisterBroker, RouteInfo, UnregisterBroker,
};
use tokio::time;

use crate::client::{Wire, message, start};

const BODY: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"mappingDataVersion":{},"topicConfigTable":{"theirs":{"attributes":{},"order":false,"perm":6,"readQueueNums":3,"topicFilterType":"SINGLE_TAG","topicName":"theirs","topicSysFlag":0,"writeQueueNums":2},"t":{"perm":6,"readQueueNums":1,"topicName":"t","writeQueueNums":1}},"topicQueueMappingInfoMap":{}}}"#;

fn registration(id: i64) -> RegisterBroker {
    RegisterBroker {
        broker_name: "broker-b".into(),
        broker_addr: format!("127.0.0.1:{}", 20000 + id),
        cluster_name: "OtherCluster".into(),
        ha_server_addr: format!("127.0.0.1:{}", 30000 + id),
        broker_id: id,
        heartbeat_timeout_millis: Some(30_000),
        enable_acting_master: Some(false),
        compressed: Some(false),
        body_crc32: Some(0),
        body: BODY.into(),
    }
}

fn route(topic: &str) -> RouteInfo {
    RouteInfo {
        topic: topic.into(),
        accept_standard_json_only: None,
    }
}

fn broker_names(route: &TopicRouteData) -> Vec<&str> {
    route
        .broker_datas
        .iter()
        .map(|broker| broker.broker_name.as_str())
        .collect()
}

#[tokio::test]
async fn a_registered_broker_is_in_routes_clusters_and_topic_lists_until_it_leaves() {
    let (broker, mut wire) = start().await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    let mut other = Wire::connect(&broker.name_server()).await;
    let master = other.call(&registration(0)).await.unwrap();
    assert_eq!((master.master_addr, master.ha_server_addr), (None, None));
    let slave = other.call(&registration(1)).await.unwrap();
    assert_eq!(slave.master_addr.as_deref(), Some("127.0.0.1:20000"));
    assert_eq!(slave.ha_server_addr.as_deref(), Some("127.0.0.1:30000"));

    let theirs = wire.call(&route("theirs")).await.unwrap().0;
    assert_eq!(theirs.broker_datas[0].broker_addrs[&1], "127.0.0.1:20001");
    assert_eq!(
        (
            theirs.queue_datas[0].read_queue_nums,
            theirs.queue_datas[0].write_queue_nums
        ),
        (3, 2)
    );
    let both = wire.call(&route("t")).await.unwrap().0;
    assert_eq!(broker_names(&both), ["broker-a", "broker-b"]);
    let clusters = wire.call(&BrokerClusterInfo {}).await.unwrap().0;
    assert_eq!(clusters.cluster_addr_table["OtherCluster"], ["broker-b"]);
    assert_eq!(clusters.cluster_addr_table["DefaultCluster"], ["broker-a"]);
    assert!(
        wire.call(&AllTopics {})
            .await
            .unwrap()
            .0
            .topic_list
            .contains(&"theirs".to_owned())
    );

    let leave = |broker_id| UnregisterBroker {
        broker_name: "broker-b".into(),
        broker_addr: String::new(),
        cluster_name: "OtherCluster".into(),
        broker_id,
    };
    other.call(&leave(1)).await.unwrap();
    assert_eq!(
        wire.call(&route("theirs")).await.unwrap().0.broker_datas[0]
            .broker_addrs
            .len(),
        1
    );
    other.call(&leave(0)).await.unwrap();
    assert_eq!(wire.code(&route("theirs")).await.0, ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(
        broker_names(&wire.call(&route("t")).await.unwrap().0),
        ["broker-a"]
    );
}

#[tokio::test]
async fn topics_of_earlier_registrations_stay_until_they_are_deleted() {
    let (_broker, mut wire) = start().await;
    wire.call(&registration(0)).await.unwrap();
    let body = BODY.replace("theirs", "more");
    wire.call(&RegisterBroker {
        body: body.into(),
        ..registration(0)
    })
    .await
    .unwrap();
    for topic in ["theirs", "more"] {
        wire.call(&route(topic)).await.unwrap();
    }
    wire.call(&DeleteTopicInNameServer {
        topic: "theirs".into(),
        cluster_name: None,
    })
    .await
    .unwrap();
    assert_eq!(wire.code(&route("theirs")).await.0, ResponseCode::TOPIC_NOT_EXIST);
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_forgotten_and_so_is_one_whose_connection_closes() {
    let (broker, mut wire) = start().await;
    let mut other = Wire::connect(&broker.name_server()).await;
    other.call(&registration(0)).await.unwrap();
    time::advance(Duration::from_secs(25)).await;
    wire.call(&route("theirs")).await.unwrap();
    time::advance(Duration::from_secs(20)).await;
    // The timer of the housekeeping has to run; each request lets it.
    while wire.code(&route("theirs")).await.0 == ResponseCode::SUCCESS {
        time::advance(Duration::from_secs(1)).await;
    }
    other.call(&registration(0)).await.unwrap();
    wire.call(&route("theirs")).await.unwrap();
    drop(other);
    while wire.code(&route("theirs")).await.0 == ResponseCode::SUCCESS {}
}

#[tokio::test]
async fn compressed_registrations_are_read() {
    // zlib of: length and version, count, length and "theirs 3 2 6 SINGLE_TAG {}", a filter server list, no mappings.
    let compressed = Bytes::from_static(include_bytes!("registration.zlib"));
    let (_broker, mut wire) = start().await;
    let request = RegisterBroker {
        compressed: Some(true),
        body: compressed.clone(),
        ..registration(0)
    };
    wire.call(&request).await.unwrap();
    let theirs = wire.call(&route("theirs")).await.unwrap().0;
    assert_eq!(
        (
            theirs.queue_datas[0].read_queue_nums,
            theirs.queue_datas[0].write_queue_nums
        ),
        (3, 2)
    );
    let half = RegisterBroker {
        body: compressed.slice(..20),
        ..request
    };
    assert_eq!(wire.code(&half).await.0, ResponseCode::SYSTEM_ERROR);
}

#[tokio::test]
async fn registrations_that_are_not_right_are_refused() {
    let (_broker, mut wire) = start().await;
    for (request, part) in [
        (
            RegisterBroker {
                body_crc32: Some(7),
                ..registration(0)
            },
            "crc32 not match",
        ),
        (
            RegisterBroker {
                broker_name: "broker-a".into(),
                ..registration(0)
            },
            "own process",
        ),
        (
            RegisterBroker {
                body: "{".into(),
                ..registration(0)
            },
            "RegisterBrokerBody",
        ),
        (
            RegisterBroker {
                compressed: Some(true),
                ..registration(0)
            },
            "compressed body",
        ),
    ] {
        let (code, remark) = wire.code(&request).await;
        assert_eq!(code, ResponseCode::SYSTEM_ERROR);
        assert!(remark.contains(part), "{remark}");
    }
    let crc = rocketmq_client::protocol::record::body_crc(BODY.as_bytes());
    wire.call(&RegisterBroker {
        body_crc32: Some(crc),
        ..registration(0)
    })
    .await
    .unwrap();
}
