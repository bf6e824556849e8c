//! What is optional: the second server two below the broker's port, the topic for message trace, and zones.

use rocketmq_client::protocol::requests::{MaxOffset, RouteInfo};
use rocketmq_client::protocol::trace::TRACE_TOPIC;
use rocketmq_client::protocol::{Request, Response, ResponseCode};
use rocketmq_embedded_broker::EmbeddedBroker;

use crate::client::{Wire, frame_of, message, pull};

fn route(topic: &str) -> RouteInfo {
    RouteInfo {
        topic: topic.to_owned(),
        accept_standard_json_only: Some(true),
    }
}

/// The address of the second server.
fn second(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap();
    format!("{host}:{}", port.parse::<u16>().unwrap() - 2)
}

#[tokio::test]
async fn the_second_server_takes_sends_and_questions_but_no_pulls() {
    let broker = EmbeddedBroker::builder().vip_channel(true).start().await.unwrap();
    let mut wire = Wire::connect(&second(&broker.broker_address())).await;
    let sent = wire.call(&message("t", 0, "x")).await.unwrap();
    assert_eq!(sent.header.queue_offset, 0);
    let asked = MaxOffset {
        topic: "t".into(),
        queue_id: 0,
    };
    assert_eq!(wire.call(&asked).await.unwrap().offset, 1);
    let (code, _) = wire.code(&pull("t", 0, 0)).await;
    assert_eq!(code, ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    // After a crash both are there again.
    broker.kill().await;
    broker.restart().await.unwrap();
    let mut wire = Wire::connect(&second(&broker.broker_address())).await;
    assert_eq!(wire.call(&asked).await.unwrap().offset, 1);
}

#[tokio::test]
async fn there_is_a_trace_topic_if_it_is_wanted() {
    for wanted in [false, true] {
        let broker = EmbeddedBroker::builder()
            .trace_topic(wanted)
            .start()
            .await
            .unwrap();
        let mut wire = Wire::connect(&broker.name_server()).await;
        assert_eq!(wire.call(&route(TRACE_TOPIC)).await.is_ok(), wanted);
    }
}

#[tokio::test]
async fn who_wants_brokers_of_one_zone_only_is_told_of_none() {
    let broker = EmbeddedBroker::start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    wire.call(&message("t", 0, "x")).await.unwrap();
    for (zone, mode, queues) in [("north", "false", 1), ("", "true", 1), ("north", "true", 0)] {
        let mut frame = frame_of(&route("t"));
        frame.fields.push("__ZONE_NAME", zone);
        frame.fields.push("__ZONE_MODE", mode);
        let answer = wire.ask_frame(frame).await;
        let route = <RouteInfo as Request>::Response::from_frame(answer).unwrap().0;
        assert_eq!(
            (route.queue_datas.len(), route.broker_datas.len()),
            (queues, queues)
        );
    }
}
