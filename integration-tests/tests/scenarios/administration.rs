//! Topics, groups, statistics, and single messages by id and key, asked for as tools ask.

use std::net::SocketAddr;

use bytes::Bytes;
use integration_tests::{
    Failure,
    admin::{call, refused_with},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::protocol::{
    Json, OffsetMessageId, Record, ResponseCode,
    bodies::{MessageQueue, SubscriptionGroupConfig},
    property,
    requests::{
        AllGroupConfig, AllTopicConfig, AllTopics, BrokerClusterInfo, ConsumerConnectionList, CreateGroup,
        DeleteGroup, DeleteTopic, DeleteTopicInNameServer, GetConsumeStats, MaxOffset, MinOffset,
        QueryConsumerOffset, QueryMessage, RouteInfo, TopicStats, UpdateConsumerOffset, ViewMessage,
    },
};

use crate::{
    inbox::expect,
    raw::{message, pull, records, send},
};

scenarios![
    the_name_server_lists_brokers_and_topics,
    a_topic_is_created_changed_and_deleted,
    a_group_is_created_and_deleted,
    statistics_of_a_topic_count_each_queue,
    statistics_of_a_group_show_how_far_it_is_behind,
    a_message_is_found_by_the_id_of_its_place,
    messages_are_found_by_key_and_by_unique_id,
    an_absent_group_or_topic_is_refused_by_its_code,
    a_queue_outside_the_topic_is_refused,
];

/// Fails unless the call was refused with this code.
fn expect_refusal<T: std::fmt::Debug>(result: Result<T, Failure>, code: ResponseCode) -> TestResult {
    match result {
        Err(failure) if refused_with(&failure, code) => Ok(()),
        Err(failure) => Err(format!("wanted a refusal with {code}, got {failure}").into()),
        Ok(answer) => Err(format!("wanted a refusal with {code}, got {answer:?}").into()),
    }
}

async fn the_name_server_lists_brokers_and_topics(target: &Target) -> TestResult {
    let topic = target.topic("listed");
    target.create_topic(&topic, 2).await?;
    let name_server = target.name_server_address().await?;
    let Json(cluster) = call(name_server, &BrokerClusterInfo {}).await?;
    for (name, broker) in &cluster.broker_addr_table {
        expect("name of the broker", &broker.broker_name, name)?;
        let members = cluster
            .cluster_addr_table
            .get(&broker.cluster)
            .ok_or("a broker of no cluster")?;
        expect("its cluster lists the broker", members.contains(name), true)?;
    }
    let Json(topics) = call(name_server, &AllTopics {}).await?;
    expect("the topic is listed", topics.topic_list.contains(&topic), true)
}

async fn a_topic_is_created_changed_and_deleted(target: &Target) -> TestResult {
    let topic = target.topic("changing");
    let name_server = target.name_server_address().await?;
    let broker = target.first_broker().await?;
    let route = RouteInfo {
        topic: topic.clone(),
        accept_standard_json_only: Some(true),
    };
    expect_refusal(call(name_server, &route).await, ResponseCode::TOPIC_NOT_EXIST)?;

    for queues in [2, 8] {
        target.create_topic(&topic, queues).await?;
        let Json(configured) = call(broker, &AllTopicConfig {}).await?;
        let config = configured
            .topic_config_table
            .get(&topic)
            .ok_or("the broker does not list the topic")?;
        expect(
            "queues",
            (config.read_queue_nums, config.write_queue_nums, config.perm),
            (queues, queues, 6),
        )?;
        eventually("the route to show the queues", async || {
            let Json(route) = call(name_server, &route).await?;
            Ok(route
                .queue_datas
                .iter()
                .all(|data| data.read_queue_nums == queues))
        })
        .await?;
    }

    for broker in target.brokers().await? {
        call(broker, &DeleteTopic { topic: topic.clone() }).await?;
    }
    call(
        name_server,
        &DeleteTopicInNameServer {
            topic: topic.clone(),
            cluster_name: None,
        },
    )
    .await?;
    eventually("the route to be gone", async || {
        match call(name_server, &route).await {
            Ok(_) => Ok(false),
            Err(failure) if refused_with(&failure, ResponseCode::TOPIC_NOT_EXIST) => Ok(true),
            Err(failure) => Err(failure),
        }
    })
    .await?;
    let Json(configured) = call(broker, &AllTopicConfig {}).await?;
    expect(
        "the broker lists the topic",
        configured.topic_config_table.contains_key(&topic),
        false,
    )
}

async fn a_group_is_created_and_deleted(target: &Target) -> TestResult {
    let group = target.group("group");
    let broker = target.first_broker().await?;
    create_group(broker, &group, 3).await?;
    let Json(groups) = call(broker, &AllGroupConfig {}).await?;
    let config = groups
        .subscription_group_table
        .get(&group)
        .ok_or("the broker does not list the group")?;
    expect(
        "retries",
        (config.retry_max_times, config.consume_enable),
        (3, true),
    )?;

    call(
        broker,
        &DeleteGroup {
            group_name: group.clone(),
            clean_offset: Some(true),
            remove_offset: Some(true),
        },
    )
    .await?;
    let Json(groups) = call(broker, &AllGroupConfig {}).await?;
    expect(
        "the broker lists the group",
        groups.subscription_group_table.contains_key(&group),
        false,
    )
}

async fn create_group(broker: SocketAddr, group: &str, retry_max_times: i32) -> Result<(), Failure> {
    let config = SubscriptionGroupConfig {
        group_name: group.to_owned(),
        retry_max_times,
        ..SubscriptionGroupConfig::default()
    };
    call(
        broker,
        &CreateGroup {
            body: Bytes::from(serde_json::to_vec(&config)?),
        },
    )
    .await?;
    Ok(())
}

async fn statistics_of_a_topic_count_each_queue(target: &Target) -> TestResult {
    let topic = target.topic("counted");
    target.create_topic(&topic, 3).await?;
    let broker = target.first_broker().await?;
    for (queue, count) in [(0, 1), (2, 5)] {
        for _ in 0..count {
            send(broker, &topic, queue, b"x", &[]).await?;
        }
    }
    eventually("the counts", async || {
        let Json(stats) = call(broker, &TopicStats { topic: topic.clone() }).await?;
        let mut counts: Vec<(i32, i64, i64)> = stats
            .offset_table
            .0
            .iter()
            .map(|(queue, at)| (queue.queue_id, at.min_offset, at.max_offset))
            .collect();
        counts.sort_unstable();
        Ok(counts == [(0, 0, 1), (1, 0, 0), (2, 0, 5)])
    })
    .await?;
    for (queue, max) in [(0, 1), (1, 0), (2, 5)] {
        let at = call(
            broker,
            &MaxOffset {
                topic: topic.clone(),
                queue_id: queue,
            },
        )
        .await?;
        expect("max offset", at.offset, max)?;
        let at = call(
            broker,
            &MinOffset {
                topic: topic.clone(),
                queue_id: queue,
            },
        )
        .await?;
        expect("min offset", at.offset, 0)?;
    }
    Ok(())
}

async fn statistics_of_a_group_show_how_far_it_is_behind(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("lag"), target.group("lag"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    create_group(broker, &group, 16).await?;
    for _ in 0..4 {
        send(broker, &topic, 0, b"x", &[]).await?;
    }
    let commit = |commit_offset| UpdateConsumerOffset {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: 0,
        commit_offset,
    };
    let query = QueryConsumerOffset {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    // Back as well: a commit says where to go on, not how far one has ever been.
    for offset in [4, 3] {
        call(broker, &commit(offset)).await?;
        expect("committed", call(broker, &query).await?.offset, offset)?;
    }
    eventually("the statistics to show the commit", async || {
        let stats = GetConsumeStats {
            consumer_group: group.clone(),
            topic: Some(topic.clone()),
        };
        let Json(stats) = call(broker, &stats).await?;
        let at = stats
            .offset_table
            .0
            .iter()
            .find(|(queue, _)| is_queue(queue, &topic, 0))
            .map(|(_, at)| *at);
        Ok(at.is_some_and(|at| (at.broker_offset, at.consumer_offset) == (4, 3)))
    })
    .await
}

fn is_queue(queue: &MessageQueue, topic: &str, id: i32) -> bool {
    *queue.topic == *topic && queue.queue_id == id
}

async fn a_message_is_found_by_the_id_of_its_place(target: &Target) -> TestResult {
    let topic = target.topic("by-id");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let mut ids = Vec::new();
    for body in ["first", "second"] {
        let sent = send(broker, &topic, 0, body.as_bytes(), &[(property::TAGS, body)]).await?;
        ids.push((sent.header.msg_id.parse::<OffsetMessageId>()?, body));
    }
    for (id, body) in ids {
        expect("the broker in the id", id.store_host, broker)?;
        let view = |offset| ViewMessage {
            topic: Some(topic.clone()),
            offset,
        };
        let found = Record::decode_all(call(broker, &view(id.physical_offset)).await?.0)?;
        let [record] = found.as_slice() else {
            return Err(format!("{} messages", found.len()).into());
        };
        expect("body", &record.body[..], body.as_bytes())?;
        expect("tag", record.properties.get(property::TAGS), Some(body))?;
        expect("position", record.physical_offset, id.physical_offset)?;
        expect_refusal(
            call(broker, &view(i64::MAX / 2)).await,
            ResponseCode::SYSTEM_ERROR,
        )?;
    }
    Ok(())
}

async fn messages_are_found_by_key_and_by_unique_id(target: &Target) -> TestResult {
    let topic = target.topic("by-key");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for (unique, keys) in [("U1", "red round"), ("U2", "red"), ("U3", "redder")] {
        send(
            broker,
            &topic,
            0,
            unique.as_bytes(),
            &[(property::KEYS, keys), (property::UNIQUE_KEY, unique)],
        )
        .await?;
    }
    let query = |key: &str, unique| QueryMessage {
        topic: topic.clone(),
        key: key.to_owned(),
        max_num: 32,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        unique_key_query: Some(unique),
    };
    let find = async |key: &str, unique| -> Result<Vec<String>, Failure> {
        let found = call(broker, &query(key, unique)).await?;
        let records = Record::decode_all(found.messages)?;
        let mut bodies: Vec<String> = records
            .iter()
            .map(|record| String::from_utf8_lossy(&record.body).into_owned())
            .collect();
        bodies.sort_unstable();
        Ok(bodies)
    };
    eventually("the index to have all three", async || {
        match find("redder", false).await {
            Ok(found) => Ok(found == ["U3"]),
            Err(failure) if refused_with(&failure, ResponseCode::QUERY_NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure),
        }
    })
    .await?;
    expect(
        "by the key of two",
        find("red", false).await?,
        vec!["U1".to_owned(), "U2".to_owned()],
    )?;
    expect(
        "by the second key of one",
        find("round", false).await?,
        vec!["U1".to_owned()],
    )?;
    expect("by unique id", find("U2", true).await?, vec!["U2".to_owned()])?;
    expect_refusal(find("blue", false).await, ResponseCode::QUERY_NOT_FOUND)
}

async fn an_absent_group_or_topic_is_refused_by_its_code(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("absent"), target.group("absent"));
    let broker = target.first_broker().await?;
    let stats = call(broker, &TopicStats { topic: topic.clone() }).await;
    expect_refusal(stats, ResponseCode::TOPIC_NOT_EXIST)?;
    let members = call(
        broker,
        &ConsumerConnectionList {
            consumer_group: group.clone(),
        },
    )
    .await;
    expect_refusal(members, ResponseCode::CONSUMER_NOT_ONLINE)?;
    create_group(broker, &group, 16).await?;
    expect_refusal(
        pull(broker, &group, &topic, 0, 0, "*").await,
        ResponseCode::TOPIC_NOT_EXIST,
    )
}

async fn a_queue_outside_the_topic_is_refused(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("two"), target.group("two"));
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    create_group(broker, &group, 16).await?;
    let sent = call(broker, &message(&topic, 2, b"x", &[])?).await.map(drop);
    let pulled = pull(broker, &group, &topic, 2, 0, "*").await.map(drop);
    // 5.x has a code of its own for it, 4.9 says SYSTEM_ERROR.
    for (what, result) in [("send", sent), ("pull", pulled)] {
        match result {
            Err(failure)
                if refused_with(&failure, ResponseCode::INVALID_PARAMETER)
                    || refused_with(&failure, ResponseCode::SYSTEM_ERROR) => {}
            other => return Err(format!("a {what} of queue 2 of 2: {other:?}").into()),
        }
    }
    send(broker, &topic, 1, b"kept", &[]).await?;
    eventually("the message of queue 1", async || {
        let pulled = pull(broker, &group, &topic, 1, 0, "*").await?;
        Ok(records(&pulled)?.iter().any(|record| record.body == "kept"))
    })
    .await
}
