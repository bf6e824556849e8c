use std::time::Duration;

use super::*;
use crate::cluster::testing::{FakeRoutes, builder, manage, name_server_and_broker, route};
use crate::protocol::JsonBody;
use crate::protocol::requests::{HeartBeat, RouteInfo, SendMessageV2, UnregisterClient};
use crate::transport::fake::{Answer, FakeServer, fields};
use crate::{ErrorKind, Message};

fn stored() -> Answer {
    fields([("msgId", "M"), ("queueId", "0"), ("queueOffset", "7")])
}

#[test]
fn the_second_server_of_a_broker_is_two_below_its_port() {
    assert_eq!(vip_address("10.0.0.1:10911").as_deref(), Some("10.0.0.1:10909"));
    assert_eq!(vip_address("[::1]:3").as_deref(), Some("[::1]:1"));
    assert_eq!(vip_address("h:2"), None);
    assert_eq!(vip_address("h"), None);
}

#[tokio::test]
async fn brokers_hear_names_with_the_namespace_and_users_without() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| stored()).await;
    routes.set("ns%orders", route(&[("broker-a", &server.address())], 1));
    let client = builder(&server.address())
        .namespace("ns")
        .unit_mode(true)
        .unit_name("sh")
        .connect()
        .await
        .unwrap();
    assert!(client.client_id().ends_with("@sh"));
    let producer = client.producer("shop").start().await.unwrap();
    for topic in ["orders", "ns%orders"] {
        let receipt = producer.send(Message::new(topic, "x")).await.unwrap();
        assert_eq!(&*receipt.queue.topic, "orders");
    }
    let sends = server.requests_of::<SendMessageV2>();
    for send in sends {
        assert_eq!((&*send.producer_group, &*send.topic), ("ns%shop", "ns%orders"));
        assert_eq!(send.unit_mode, Some(true));
        let properties = send.properties.unwrap();
        assert!(properties.contains("INSTANCE_ID\u{1}ns\u{2}"), "{properties:?}");
    }
    assert!(
        server
            .requests_of::<RouteInfo>()
            .iter()
            .all(|request| request.topic == "ns%orders")
    );
    let beat = server.asked::<HeartBeat>(1).await;
    let data = crate::protocol::bodies::HeartbeatData::from_body(&beat[0].body).unwrap();
    assert_eq!(data.producer_data_set[0].group_name, "ns%shop");
    assert_eq!(producer.group(), "shop");

    let unknown = producer.send(Message::new("unknown", "x")).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::TopicNotFound);
    assert!(unknown.to_string().contains("topic unknown"), "{unknown}");
    assert!(!unknown.to_string().contains("ns%"), "{unknown}");
    client.shutdown().await;
    let gone = server.requests_of::<UnregisterClient>();
    assert_eq!(gone[0].producer_group.as_deref(), Some("ns%shop"));
}

#[tokio::test]
async fn every_request_says_its_namespace_and_its_zone() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| stored()).await;
    routes.set("orders", route(&[("broker-a", &server.address())], 1));
    let client = builder(&server.address())
        .namespace_v2("tenant")
        .zone("north", true)
        .connect()
        .await
        .unwrap();
    let producer = client.producer("shop").start().await.unwrap();
    producer.send(Message::new("orders", "x")).await.unwrap();
    server.asked::<HeartBeat>(1).await;
    client.shutdown().await;
    for request in server.requests() {
        for (name, value) in [
            ("nsd", "true"),
            ("ns", "tenant"),
            ("__ZONE_NAME", "north"),
            ("__ZONE_MODE", "true"),
        ] {
            assert_eq!(request.fields.get(name), Some(value), "{request:?}");
        }
    }
    assert_eq!(server.requests_of::<SendMessageV2>()[0].topic, "orders");
}

#[tokio::test]
async fn a_name_that_is_too_long_in_its_namespace_is_refused_unsent() {
    let server = name_server_and_broker(&FakeRoutes::default(), |_| stored()).await;
    let client = builder(&server.address())
        .namespace("ns")
        .connect()
        .await
        .unwrap();
    let long = client.producer("g".repeat(118)).start().await.unwrap_err();
    assert_eq!(long.kind(), ErrorKind::Config);
    let producer = client.producer("shop").start().await.unwrap();
    let long = producer
        .send(Message::new("t".repeat(125), "x"))
        .await
        .unwrap_err();
    assert!(
        long.to_string()
            .ends_with("in namespace ns it has 128 bytes, the limit is 127"),
        "{long}"
    );
    client.shutdown().await;
}

#[tokio::test]
async fn over_the_vip_channel_sends_go_to_the_second_server_and_heartbeats_to_the_first() {
    // A pair of free ports two apart is found by trying.
    let (first, second) = loop {
        let first = FakeServer::start(|frame| manage(frame).unwrap_or(Answer::Silence)).await;
        let address = vip_address(&first.address()).unwrap();
        if std::net::TcpListener::bind(&address).is_ok() {
            break (
                first,
                FakeServer::start_at(address.parse().unwrap(), |_| stored()).await,
            );
        }
    };
    let routes = FakeRoutes::default();
    let name_server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("orders", route(&[("broker-a", &first.address())], 1));
    let client = builder(&name_server.address())
        .vip_channel(true)
        .connect()
        .await
        .unwrap();
    let producer = client.producer("shop").start().await.unwrap();
    producer.send(Message::new("orders", "x")).await.unwrap();
    assert_eq!(second.requests_of::<SendMessageV2>().len(), 1);
    tokio::time::timeout(Duration::from_secs(5), first.asked::<HeartBeat>(1))
        .await
        .unwrap();
    assert!(second.requests_of::<HeartBeat>().is_empty());
    client.shutdown().await;
}
