//! Sends and pulls without a client, for scenarios about the servers alone.

use std::net::SocketAddr;

use bytes::Bytes;
use integration_tests::{
    Failure,
    admin::{Connection, call},
    scenario::eventually,
};
use rocketmq_client::protocol::{
    PropertiesBuf, Record,
    bodies::{ConsumerData, HeartbeatData, SubscriptionData},
    names::retry_topic,
    requests::{HeartBeat, PullMessage, PullResult, SendMessageV2, SendResult, pull_flag},
};

/// A send to one queue, as a client would make it.
pub(crate) fn message(
    topic: &str,
    queue: i32,
    body: &[u8],
    properties: &[(&str, &str)],
) -> Result<SendMessageV2, Failure> {
    let mut text = PropertiesBuf::new();
    for (name, value) in properties {
        text.set(name, value)?;
    }
    Ok(SendMessageV2 {
        producer_group: "raw".to_owned(),
        topic: topic.to_owned(),
        default_topic: "TBW102".to_owned(),
        default_topic_queue_nums: 4,
        queue_id: queue,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties: Some(text.into_string()),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: Some(false),
        broker_name: None,
        body: Bytes::copy_from_slice(body),
    })
}

/// Stores one message.
pub(crate) async fn send(
    broker: SocketAddr,
    topic: &str,
    queue: i32,
    body: &[u8],
    properties: &[(&str, &str)],
) -> Result<SendResult, Failure> {
    call(broker, &message(topic, queue, body, properties)?).await
}

/// Pulls without waiting.
pub(crate) async fn pull(
    broker: SocketAddr,
    group: &str,
    topic: &str,
    queue: i32,
    offset: i64,
    expression: &str,
) -> Result<PullResult, Failure> {
    let request = PullMessage {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        queue_id: queue,
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: pull_flag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: 0,
        subscription: Some(expression.to_owned()),
        sub_version: 0,
        expression_type: None,
        max_msg_bytes: None,
    };
    call(broker, &request).await
}

/// The messages of a pull.
pub(crate) fn records(pulled: &PullResult) -> Result<Vec<Record>, Failure> {
    Ok(Record::decode_all(pulled.messages.clone())?)
}

/// Polls queue 0 until it holds a message, and returns the first.
pub(crate) async fn first_record(broker: SocketAddr, group: &str, topic: &str) -> Result<Record, Failure> {
    let mut found = None;
    eventually(&format!("a message in {topic}"), async || {
        // Before the first message there may be no topic either.
        if let Ok(pulled) = pull(broker, group, topic, 0, 0, "*").await {
            found = records(&pulled)?.into_iter().next();
        }
        Ok(found.is_some())
    })
    .await?;
    found.ok_or_else(|| "no message".into())
}

fn heartbeat(client: &str, group: &str, topic: &str) -> Result<HeartBeat, Failure> {
    let data = HeartbeatData {
        client_id: client.to_owned(),
        consumer_data_set: vec![ConsumerData {
            group_name: group.to_owned(),
            subscription_data_set: vec![
                SubscriptionData::by_tags(topic, "*", 1),
                SubscriptionData::by_tags(&retry_topic(group), "*", 1),
            ],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    Ok(HeartBeat {
        body: Bytes::from(serde_json::to_vec(&data)?),
    })
}

/// Makes a group known to the broker: it is once a member said that it is there, as long as the connection lasts.
pub(crate) async fn join(
    broker: SocketAddr,
    client: &str,
    group: &str,
    topic: &str,
) -> Result<Connection, Failure> {
    let mut connection = Connection::open(broker).await?;
    connection.call(&heartbeat(client, group, topic)?).await?;
    Ok(connection)
}
