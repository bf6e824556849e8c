//! Administration: topics, groups, statistics, queries, configuration.

use rocketmq_client::protocol::bodies::{MessageQueue, SubscriptionGroupConfig, TopicFilterType};
use rocketmq_client::protocol::requests::{
    AllGroupConfig, AllTopicConfig, AllTopics, BrokerClusterInfo, BrokerConfig, BrokerRuntimeInfo,
    CreateGroup, CreateTopic, DeleteGroup, DeleteKvConfig, DeleteTopic, DeleteTopicInNameServer,
    GetConsumeStats, GetGroupConfig, GetTopicConfig, KvConfig, KvList, MaxOffset, PutKvConfig,
    QueryConsumerOffset, QueryMessage, RouteInfo, SendMessageV2, TopicConsumeByWho, TopicStats,
    TopicsByCluster, UpdateBrokerConfig, UpdateConsumerOffset, ViewMessage,
};
use rocketmq_client::protocol::{JsonBody, OffsetMessageId, Record, ResponseCode};

use crate::client::{message, properties, pull, start};

fn create(topic: &str, queues: i32) -> CreateTopic {
    CreateTopic {
        topic: topic.into(),
        default_topic: "TBW102".into(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_filter_type: TopicFilterType::SingleTag,
        topic_sys_flag: None,
        order: true,
        attributes: Some("+message.type=FIFO".into()),
    }
}

#[tokio::test]
async fn a_topic_is_made_shown_changed_and_deleted() {
    let (_broker, mut wire) = start().await;
    wire.call(&create("t", 3)).await.unwrap();
    let config = wire
        .call(&GetTopicConfig {
            topic: "t".into(),
            with_mapping: None,
        })
        .await
        .unwrap()
        .0
        .config;
    assert_eq!((config.read_queue_nums, config.order), (3, true));
    assert_eq!(config.attributes["message.type"], "FIFO");
    let before = wire.call(&AllTopicConfig {}).await.unwrap().0;
    assert_eq!(before.topic_config_table["t"], config);
    wire.call(&create("t", 5)).await.unwrap();
    let after = wire.call(&AllTopicConfig {}).await.unwrap().0;
    assert_eq!(after.topic_config_table["t"].write_queue_nums, 5);
    assert!(after.data_version.counter > before.data_version.counter);
    assert!(
        wire.call(&AllTopics {})
            .await
            .unwrap()
            .0
            .topic_list
            .contains(&"t".to_owned())
    );
    let by_cluster = |cluster: &str| TopicsByCluster {
        cluster: cluster.into(),
    };
    assert!(
        wire.call(&by_cluster("DefaultCluster"))
            .await
            .unwrap()
            .0
            .topic_list
            .contains(&"t".to_owned())
    );
    assert!(
        wire.call(&by_cluster("other"))
            .await
            .unwrap()
            .0
            .topic_list
            .is_empty()
    );

    wire.call(&message("t", 4, "x")).await.unwrap();
    wire.call(&DeleteTopic { topic: "t".into() }).await.unwrap();
    wire.call(&DeleteTopicInNameServer {
        topic: "t".into(),
        cluster_name: None,
    })
    .await
    .unwrap();
    let route = RouteInfo {
        topic: "t".into(),
        accept_standard_json_only: None,
    };
    assert_eq!(wire.code(&route).await.0, ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(
        wire.code(&GetTopicConfig {
            topic: "t".into(),
            with_mapping: None,
        })
        .await
        .0,
        ResponseCode::TOPIC_NOT_EXIST
    );
    assert_eq!(
        wire.code(&TopicStats { topic: "t".into() }).await.0,
        ResponseCode::TOPIC_NOT_EXIST
    );
    // A new topic of that name starts from nothing.
    assert_eq!(
        wire.call(&message("t", 0, "new"))
            .await
            .unwrap()
            .header
            .queue_offset,
        0
    );
    assert_eq!(
        wire.call(&MaxOffset {
            topic: "t".into(),
            queue_id: 4
        })
        .await
        .unwrap()
        .offset,
        0
    );
}

#[tokio::test]
async fn topics_and_groups_that_may_not_be_are_refused() {
    let (_broker, mut wire) = start().await;
    for (topic, queues) in [
        ("bad topic", 1),
        ("TBW102", 1),
        ("SCHEDULE_TOPIC_XXXX", 1),
        ("t", -1),
        ("t", i32::MAX),
    ] {
        assert_eq!(
            wire.code(&create(topic, queues)).await.0.0,
            29,
            "{topic} {queues}"
        );
    }
    for topic in ["", "TBW102", "RMQ_SYS_TRANS_HALF_TOPIC"] {
        assert_eq!(
            wire.code(&DeleteTopic { topic: topic.into() }).await.0.0,
            29,
            "{topic}"
        );
    }
    let config = SubscriptionGroupConfig {
        group_name: "bad group".into(),
        ..SubscriptionGroupConfig::default()
    };
    assert_eq!(
        wire.code(&CreateGroup {
            body: config.to_body().unwrap()
        })
        .await
        .0
        .0,
        29
    );
}

#[tokio::test]
async fn a_group_is_made_shown_and_deleted_with_its_offsets() {
    let (_broker, mut wire) = start().await;
    let config = SubscriptionGroupConfig {
        group_name: "g".into(),
        retry_max_times: 3,
        ..SubscriptionGroupConfig::default()
    };
    wire.call(&CreateGroup {
        body: config.to_body().unwrap(),
    })
    .await
    .unwrap();
    let get = GetGroupConfig { group: "g".into() };
    assert_eq!(wire.call(&get).await.unwrap().0, config);
    assert_eq!(
        wire.call(&AllGroupConfig {})
            .await
            .unwrap()
            .0
            .subscription_group_table["g"],
        config
    );

    wire.call(&message("t", 0, "x")).await.unwrap();
    let commit = UpdateConsumerOffset {
        consumer_group: "g".into(),
        topic: "t".into(),
        queue_id: 0,
        commit_offset: 1,
    };
    wire.call(&commit).await.unwrap();
    let query = QueryConsumerOffset {
        consumer_group: "g".into(),
        topic: "t".into(),
        queue_id: 0,
        set_zero_if_not_found: Some(false),
    };
    let delete = |offsets| DeleteGroup {
        group_name: "g".into(),
        clean_offset: Some(offsets),
        remove_offset: None,
    };
    wire.call(&delete(false)).await.unwrap();
    let groups = wire.call(&AllGroupConfig {}).await.unwrap().0;
    assert!(!groups.subscription_group_table.contains_key("g"));
    // Asking for a group by its name makes it, as on a real broker.
    assert_eq!(wire.call(&get).await.unwrap().0.retry_max_times, 16);
    assert_eq!(wire.call(&query).await.unwrap().offset, 1);
    wire.call(&delete(true)).await.unwrap();
    assert_eq!(wire.code(&query).await.0, ResponseCode::QUERY_NOT_FOUND);
}

#[tokio::test]
async fn statistics_show_how_far_topics_and_groups_are() {
    let (_broker, mut wire) = start().await;
    for _ in 0..5 {
        wire.call(&message("t", 1, "x")).await.unwrap();
    }
    wire.call(&pull("t", 1, 0)).await.unwrap();
    let commit = UpdateConsumerOffset {
        consumer_group: "consumers".into(),
        topic: "t".into(),
        queue_id: 1,
        commit_offset: 3,
    };
    wire.call(&commit).await.unwrap();
    let queue = MessageQueue::new("t", "broker-a", 1);
    let stats = wire.call(&TopicStats { topic: "t".into() }).await.unwrap().0;
    assert_eq!(stats.offset_table.0.len(), 4);
    assert_eq!(
        (
            stats.offset_table.0[&queue].min_offset,
            stats.offset_table.0[&queue].max_offset
        ),
        (0, 5)
    );
    assert!(stats.offset_table.0[&queue].last_update_timestamp > 0);
    for topic in [None, Some("t".to_owned())] {
        let request = GetConsumeStats {
            consumer_group: "consumers".into(),
            topic,
        };
        let offset = wire.call(&request).await.unwrap().0.offset_table.0[&queue];
        assert_eq!(
            (offset.broker_offset, offset.consumer_offset, offset.pull_offset),
            (5, 3, 5)
        );
        assert!(offset.last_timestamp > 0);
    }
    let groups = wire
        .call(&TopicConsumeByWho { topic: "t".into() })
        .await
        .unwrap()
        .0;
    assert_eq!(groups.group_list.into_iter().collect::<Vec<_>>(), ["consumers"]);
}

#[tokio::test]
async fn messages_are_found_by_key_by_unique_key_and_by_id() {
    let (_broker, mut wire) = start().await;
    let mut ids = Vec::new();
    for (topic, unique, keys) in [("t", "U1", "k1 k2"), ("t", "U2", "k2 k3"), ("other", "U3", "k2")] {
        let pairs = properties(&[("UNIQ_KEY", unique), ("KEYS", keys)]);
        let request = SendMessageV2 {
            properties: Some(pairs),
            ..message(topic, 0, unique.to_owned())
        };
        ids.push(wire.call(&request).await.unwrap().header.msg_id);
    }
    let query = |key: &str, max_num, unique| QueryMessage {
        topic: "t".into(),
        key: key.into(),
        max_num,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique_key_query: Some(unique),
    };
    for (request, bodies) in [
        (query("k1", 32, false), vec!["U1"]),
        // The newest first.
        (query("k2", 32, false), vec!["U2", "U1"]),
        (query("k2", 1, false), vec!["U2"]),
        (query("U1", 1, true), vec!["U1"]),
    ] {
        let found = wire.call(&request).await.unwrap();
        let records = Record::decode_all(found.messages).unwrap();
        assert_eq!(
            records
                .iter()
                .map(|record| record.body.clone())
                .collect::<Vec<_>>(),
            bodies,
            "{}",
            request.key
        );
        assert!(found.header.index_last_update_phyoffset > 0);
    }
    let early = QueryMessage {
        end_timestamp: 1,
        ..query("k1", 32, false)
    };
    for request in [
        query("k", 32, false),
        query("k1", 0, false),
        query("k1", -1, false),
        early,
    ] {
        assert_eq!(
            wire.code(&request).await.0,
            ResponseCode::QUERY_NOT_FOUND,
            "{}",
            request.key
        );
    }

    let id: OffsetMessageId = ids[1].parse().unwrap();
    let found = wire
        .call(&ViewMessage {
            topic: Some("t".into()),
            offset: id.physical_offset,
        })
        .await
        .unwrap();
    assert_eq!(
        Record::decode(found.0).unwrap().properties.get("KEYS"),
        Some("k2 k3")
    );
    let (code, remark) = wire
        .code(&ViewMessage {
            topic: None,
            offset: id.physical_offset + 1,
        })
        .await;
    assert_eq!(code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(
        remark,
        format!("can not find message by the offset, {}", id.physical_offset + 1)
    );
}

#[tokio::test]
async fn the_cluster_and_the_broker_describe_themselves() {
    let (broker, mut wire) = start().await;
    let frame = wire.ask(&BrokerClusterInfo {}).await;
    let expected = format!(
        r#"{{"brokerAddrTable":{{"broker-a":{{"brokerAddrs":{{0:"{}"}},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}}}},"clusterAddrTable":{{"DefaultCluster":["broker-a"]}}}}"#,
        broker.broker_address()
    );
    assert_eq!(frame.body, expected);

    wire.call(&message("t", 0, "x")).await.unwrap();
    let table = wire.call(&BrokerRuntimeInfo {}).await.unwrap().0.table;
    for (key, value) in [
        ("brokerActive", "true"),
        ("msgPutTotalTodayNow", "1"),
        ("embeddedStoredMessages", "1"),
    ] {
        assert_eq!(table[key], value, "{key}");
    }
    let config = wire.call(&BrokerConfig {}).await.unwrap();
    let text = std::str::from_utf8(&config.text).unwrap();
    for line in [
        "brokerName=broker-a",
        "autoCreateTopicEnable=true",
        "maxMessageSize=4194304",
    ] {
        assert!(text.lines().any(|each| each == line), "{line} in {text}");
    }
    let fixed = UpdateBrokerConfig {
        body: "autoCreateTopicEnable=false\nbrokerConfigPath=/x".into(),
    };
    assert_eq!(wire.code(&fixed).await.0, ResponseCode::NO_PERMISSION);
    wire.call(&message("other", 0, "x")).await.unwrap();
}

#[tokio::test]
async fn topics_are_not_created_any_more_once_the_configuration_says_so() {
    let (_broker, mut wire) = start().await;
    let update = |body: &'static str| UpdateBrokerConfig { body: body.into() };
    wire.call(&update("autoCreateTopicEnable=false\nnoSuchSetting=1"))
        .await
        .unwrap();
    let config = wire.call(&BrokerConfig {}).await.unwrap();
    let text = std::str::from_utf8(&config.text).unwrap();
    assert!(
        text.contains("autoCreateTopicEnable=false\n") && !text.contains("noSuchSetting"),
        "{text}"
    );
    assert_eq!(
        wire.code(&message("t", 0, "x")).await.0,
        ResponseCode::TOPIC_NOT_EXIST
    );
    wire.call(&update("autoCreateTopicEnable=true")).await.unwrap();
    wire.call(&message("t", 0, "x")).await.unwrap();
}

#[tokio::test]
async fn the_name_server_keeps_values() {
    let (_broker, mut wire) = start().await;
    let (namespace, key) = ("N".to_owned(), "k".to_owned());
    let get = KvConfig {
        namespace: namespace.clone(),
        key: key.clone(),
    };
    let list = KvList {
        namespace: namespace.clone(),
    };
    assert_eq!(wire.code(&get).await.0, ResponseCode::QUERY_NOT_FOUND);
    assert_eq!(wire.code(&list).await.0, ResponseCode::QUERY_NOT_FOUND);
    let put = PutKvConfig {
        namespace: namespace.clone(),
        key: key.clone(),
        value: "v".into(),
    };
    wire.call(&put).await.unwrap();
    assert_eq!(wire.call(&get).await.unwrap().value.as_deref(), Some("v"));
    assert_eq!(wire.call(&list).await.unwrap().0.table["k"], "v");
    wire.call(&DeleteKvConfig { namespace, key }).await.unwrap();
    assert_eq!(wire.code(&get).await.0, ResponseCode::QUERY_NOT_FOUND);
}
