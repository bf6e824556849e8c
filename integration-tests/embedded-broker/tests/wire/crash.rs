//! Kill and restart, stop and drop.

use std::time::Duration;

use rocketmq_client::protocol::bodies::{ConsumerData, HeartbeatData};
use rocketmq_client::protocol::requests::{
    ConsumerListByGroup, HeartBeat, PullMessage, PullStatus, QueryConsumerOffset, SendMessageV2,
    UpdateConsumerOffset,
};
use rocketmq_client::protocol::{JsonBody, Record};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::net::TcpStream;

use crate::client::{Wire, message, properties, pull, start, waiting};

#[tokio::test]
async fn after_a_kill_everything_acknowledged_is_there_again_at_the_same_address() {
    let (broker, mut wire) = start().await;
    let address = broker.name_server();
    for number in 0..10 {
        wire.call(&message("t", 0, number.to_string())).await.unwrap();
    }
    wire.call(&pull("t", 0, 0)).await.unwrap();
    let commit = UpdateConsumerOffset {
        consumer_group: "consumers".into(),
        topic: "t".into(),
        queue_id: 0,
        commit_offset: 4,
    };
    wire.call(&commit).await.unwrap();
    let data = HeartbeatData {
        client_id: "c".into(),
        consumer_data_set: vec![ConsumerData {
            group_name: "consumers".into(),
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    wire.call(&HeartBeat {
        body: data.to_body().unwrap(),
    })
    .await
    .unwrap();
    wire.send(&waiting(pull("t", 0, 10), Duration::from_secs(600)))
        .await;
    wire.call(&pull("t", 0, 0)).await.unwrap();

    broker.kill().await;
    while wire.next().await.is_some() {}
    assert!(TcpStream::connect(&address).await.is_err(), "nobody listens");
    broker.restart().await.unwrap();
    assert_eq!(broker.name_server(), address);

    let mut wire = Wire::connect(&address).await;
    let pulled = wire.call(&pull("t", 0, 0)).await.unwrap();
    assert_eq!(Record::decode_all(pulled.messages).unwrap().len(), 10);
    assert_eq!(
        wire.call(&message("t", 0, "after"))
            .await
            .unwrap()
            .header
            .queue_offset,
        10
    );
    let query = QueryConsumerOffset {
        consumer_group: "consumers".into(),
        topic: "t".into(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    assert_eq!(wire.call(&query).await.unwrap().offset, 4);
    // Members have to say again that they are there.
    assert!(
        wire.call(&ConsumerListByGroup {
            consumer_group: "consumers".into()
        })
        .await
        .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_survives_a_kill() {
    let (broker, mut wire) = start().await;
    let delayed = SendMessageV2 {
        properties: Some(properties(&[("DELAY", "3")])),
        ..message("t", 0, "later")
    };
    wire.call(&delayed).await.unwrap();
    broker.kill().await;
    broker.restart().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let pulled = loop {
        let request: PullMessage = waiting(pull("t", 0, 0), Duration::from_secs(60));
        let pulled = wire.call(&request).await.unwrap();
        if pulled.status == PullStatus::Found {
            break pulled;
        }
    };
    assert_eq!(&Record::decode(pulled.messages).unwrap().body[..], b"later");
}

#[tokio::test]
async fn killing_twice_and_restarting_twice_is_harmless() {
    let (broker, _wire) = start().await;
    broker.kill().await;
    broker.kill().await;
    broker.restart().await.unwrap();
    broker.restart().await.unwrap();
    Wire::connect(&broker.name_server())
        .await
        .call(&message("t", 0, "x"))
        .await
        .unwrap();
    assert_eq!(broker.stats().messages, 1);
}

#[tokio::test]
async fn a_broker_that_is_shut_down_or_dropped_closes_its_connections() {
    let (broker, mut wire) = start().await;
    let address = broker.name_server();
    broker.shutdown().await;
    assert!(wire.next().await.is_none());
    assert!(TcpStream::connect(&address).await.is_err());
    let (broker, mut wire) = start().await;
    drop(broker);
    assert!(wire.next().await.is_none());
}

#[tokio::test]
async fn name_server_and_broker_may_have_a_port_each() {
    let broker = EmbeddedBroker::builder().broker_port(0).start().await.unwrap();
    assert_ne!(broker.name_server(), broker.broker_address());
    let mut name_server = Wire::connect(&broker.name_server()).await;
    let mut wire = Wire::connect(&broker.broker_address()).await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    assert_eq!(name_server.code(&message("t", 0, "x")).await.0.0, 3);
    let route = rocketmq_client::protocol::requests::RouteInfo {
        topic: "t".into(),
        accept_standard_json_only: None,
    };
    let data = name_server.call(&route).await.unwrap().0;
    assert_eq!(data.broker_datas[0].broker_addrs[&0], broker.broker_address());
    assert_eq!(wire.code(&route).await.0.0, 3);
    let addresses = (broker.name_server(), broker.broker_address());
    broker.kill().await;
    broker.restart().await.unwrap();
    assert_eq!((broker.name_server(), broker.broker_address()), addresses);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_reason() {
    let taken = EmbeddedBroker::start().await.unwrap();
    let port = taken.name_server().rsplit_once(':').unwrap().1.parse().unwrap();
    let error = EmbeddedBroker::builder()
        .port(port)
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot bind 127.0.0.1:{port} for the name server: ")),
        "{error}"
    );
    let error = EmbeddedBroker::builder()
        .bind([0, 0, 0, 0].into())
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("0.0.0.0 is no address that clients can be told"),
        "{error}"
    );
    let error = EmbeddedBroker::builder()
        .broker_name("a b")
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the name of the broker becomes a topic"),
        "{error}"
    );
}
