use super::*;
use crate::cluster::Client;
use crate::cluster::testing::{FakeRoutes, builder, name_server_and_broker, route};
use crate::producer::testing::{message, ok};
use crate::protocol::requests::{HeartBeat, PushReplyMessage, SendMessageV2, SendReplyMessageV2};
use crate::protocol::{
    Fields, Frame, Properties, PropertiesBuf, Record, Request as _, RequestCode, ResponseCode, SysFlag, Text,
};
use crate::transport::fake::{Answer, FakeServer};

const LONG: Duration = Duration::from_secs(60);

async fn server(script: impl Fn(&Frame) -> Answer + Send + Sync + 'static) -> FakeServer {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, script).await;
    for topic in ["t", "DefaultCluster_REPLY_TOPIC"] {
        routes.set(topic, route(&[("a", &server.address())], 1));
    }
    server
}

fn willing(frame: &Frame) -> Answer {
    match RequestCode(frame.code) {
        RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_REPLY_MESSAGE_V2 => ok(frame),
        _ => Answer::Silence,
    }
}

async fn client(server: &FakeServer) -> (Client, Producer) {
    let client = builder(&server.address()).connect().await.unwrap();
    let producer = client.producer("g").start().await.unwrap();
    (client, producer)
}

fn properties(sent: &SendMessageV2) -> Properties {
    Properties::new(Text::from(sent.properties.clone().unwrap()))
}

/// What a broker passes on as the reply to this request.
fn reply(correlation_id: &str, body: &'static str) -> Frame {
    let mut properties = PropertiesBuf::new();
    properties.set("CORRELATION_ID", correlation_id).unwrap();
    let push = PushReplyMessage {
        producer_group: "repliers".into(),
        topic: "DefaultCluster_REPLY_TOPIC".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: 1,
        flag: 2,
        properties: Some(properties.into_string()),
        reconsume_times: None,
        unit_mode: None,
        born_host: "/127.0.0.1:5555".into(),
        store_host: "127.0.0.1:10911".into(),
        store_timestamp: 3,
        body: body.into(),
    };
    Frame {
        fields: Fields::from_header(&push).unwrap(),
        body: push.body(),
        ..Frame::request(PushReplyMessage::CODE)
    }
}

#[tokio::test]
async fn a_request_says_who_waits_and_gets_its_own_reply() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let one = producer.request(message(), LONG).detach();
    let two = producer.request(message(), LONG).detach();
    let sent = server.asked::<SendMessageV2>(2).await;
    let [first, second] = [0, 1].map(|index| properties(&sent[index]));
    assert_eq!(first.get("REPLY_TO_CLIENT"), Some(client.client_id()));
    assert_eq!(first.get("TTL"), Some("60000"));
    assert_ne!(first.get("CORRELATION_ID"), second.get("CORRELATION_ID"));
    assert_eq!(client.waiting_requests(), 2);
    server.push(reply(second.get("CORRELATION_ID").unwrap(), "to the second"));
    server.push(reply(first.get("CORRELATION_ID").unwrap(), "to the first"));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let mut bodies = [one.body().clone(), two.body().clone()];
    bodies.sort();
    assert_eq!(bodies, ["to the first", "to the second"]);
    assert_eq!(one.born_host().to_string(), "127.0.0.1:5555");
    assert!(one.property("ARRIVE_TIME").is_some());
    assert_eq!((client.waiting_requests(), client.late_replies()), (0, 0));
    client.shutdown().await;
}

#[tokio::test]
async fn the_broker_knows_who_waits_before_the_request_is_sent() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let _waiting = producer.request(message(), LONG).detach();
    server.asked::<SendMessageV2>(1).await;
    let codes: Vec<_> = server.requests().iter().map(|frame| frame.code).collect();
    let at = |code: i32| codes.iter().position(|found| *found == code);
    assert!(at(HeartBeat::CODE.0) < at(SendMessageV2::CODE.0), "{codes:?}");
    client.shutdown().await;
}

#[tokio::test]
async fn without_a_reply_it_times_out_and_a_late_one_is_counted_and_confirmed() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let error = producer
        .request(message(), Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.persisted()),
        (ErrorKind::Timeout, Persisted::Yes)
    );
    assert!(
        error
            .to_string()
            .starts_with("request to topic t: no reply in 200ms"),
        "{error}"
    );
    assert_eq!(client.waiting_requests(), 0);
    let sent = server.requests_of::<SendMessageV2>();
    let late = reply(properties(&sent[0]).get("CORRELATION_ID").unwrap(), "late");
    server.push(late);
    while client.late_replies() == 0 {
        tokio::task::yield_now().await;
    }
    client.shutdown().await;
}

#[tokio::test]
async fn a_dropped_request_frees_its_place() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let waiting = producer.request(message(), LONG).into_future();
    let mut waiting = Box::pin(waiting);
    tokio::select! {
        _ = &mut waiting => panic!("there is no reply"),
        _ = server.asked::<SendMessageV2>(1) => {}
    }
    assert_eq!(client.waiting_requests(), 1);
    drop(waiting);
    assert_eq!(client.waiting_requests(), 0);
    client.shutdown().await;
}

#[tokio::test]
async fn a_send_that_fails_ends_the_request() {
    let server = server(|_| Answer::code(ResponseCode::MESSAGE_ILLEGAL)).await;
    let (client, producer) = client(&server).await;
    let error = producer.request(message(), LONG).await.unwrap_err();
    assert_eq!(error.response().unwrap().0, ResponseCode::MESSAGE_ILLEGAL);
    let error = producer
        .request(Message::new("elsewhere", "x"), LONG)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(client.waiting_requests(), 0);
    client.shutdown().await;
}

#[tokio::test]
async fn the_shutdown_of_the_client_ends_requests() {
    let server = server(willing).await;
    let client = builder(&server.address())
        .shutdown_grace(Duration::from_millis(100))
        .connect()
        .await
        .unwrap();
    let producer = client.producer("g").start().await.unwrap();
    let waiting = producer.request(message(), LONG).detach();
    server.asked::<SendMessageV2>(1).await;
    client.shutdown().await;
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(client.waiting_requests(), 0);
    assert_eq!(
        producer.request(message(), LONG).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn the_shutdown_of_the_producer_waits_for_replies() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let waiting = producer.request(message(), LONG).detach();
    let sent = server.asked::<SendMessageV2>(1).await;
    let (reply, ()) = tokio::join!(waiting, async {
        let shutdown = producer.shutdown();
        let push = async {
            server.push(reply(
                properties(&sent[0]).get("CORRELATION_ID").unwrap(),
                "in time",
            ));
        };
        tokio::join!(shutdown, push);
    });
    assert_eq!(reply.unwrap().body().as_ref(), b"in time");
    client.shutdown().await;
}

/// A message as a consumer gets it.
fn received(pairs: &[(&str, &str)]) -> MessageView {
    let mut properties = PropertiesBuf::new();
    for (name, value) in pairs {
        properties.set(name, value).unwrap();
    }
    let host = "127.0.0.1:10911".parse().unwrap();
    let record = Record {
        queue_id: 0,
        flag: 0,
        queue_offset: 0,
        physical_offset: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 0,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: "ping".into(),
        topic: Text::from("t"),
        properties: Properties::from(properties),
    };
    MessageView::new(record, MessageQueue::new("t", "a", 0))
}

#[tokio::test]
async fn a_reply_goes_to_the_reply_topic_by_its_own_request() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let request = received(&[
        ("CLUSTER", "DefaultCluster"),
        ("CORRELATION_ID", "c-1"),
        ("REPLY_TO_CLIENT", "somebody"),
        ("TTL", "3000"),
    ]);
    let reply = Message::reply_to(&request, "pong").tag("t");
    producer.send(reply).await.unwrap();
    let sent = server.requests_of::<SendReplyMessageV2>().remove(0);
    assert_eq!(sent.topic, "DefaultCluster_REPLY_TOPIC");
    assert_eq!(sent.body, "pong");
    let carried = Properties::new(Text::from(sent.properties.unwrap()));
    for (name, value) in [
        ("MSG_TYPE", "reply"),
        ("CORRELATION_ID", "c-1"),
        ("REPLY_TO_CLIENT", "somebody"),
        ("TTL", "3000"),
        ("TAGS", "t"),
    ] {
        assert_eq!(carried.get(name), Some(value), "{name}");
    }
    let error = producer
        .request(Message::reply_to(&request, "pong"), LONG)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    client.shutdown().await;
}

#[tokio::test]
async fn what_is_no_request_cannot_be_replied_to() {
    let server = server(willing).await;
    let (client, producer) = client(&server).await;
    let complete = [
        ("CLUSTER", "c"),
        ("CORRELATION_ID", "c-1"),
        ("REPLY_TO_CLIENT", "somebody"),
    ];
    for missing in 0..complete.len() {
        let mut pairs = complete.to_vec();
        let (name, _) = pairs.remove(missing);
        let error = producer
            .send(Message::reply_to(&received(&pairs), "x"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains(&format!("it has no property {name}")),
            "{error}"
        );
    }
    client.shutdown().await;
}
