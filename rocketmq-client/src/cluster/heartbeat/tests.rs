use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::ErrorKind;
use crate::cluster::BoxFuture;
use crate::cluster::testing::{FakeRoutes, builder, client, name_server_and_broker, route};
use crate::protocol::bodies::ConsumerData;
use crate::protocol::requests::{GetConsumerRunningInfo, NotifyConsumerIdsChanged};
use crate::protocol::{Fields, Frame, Request, ResponseCode};
use crate::transport::fake::{Answer, FakeServer};

#[derive(Debug, Default)]
struct Consumer {
    members_changed: AtomicUsize,
    route_changed: AtomicUsize,
    changed: Notify,
}

impl GroupMember for Consumer {
    fn group(&self) -> &str {
        "billing"
    }

    fn topics(&self) -> Vec<String> {
        vec!["t".into()]
    }

    fn heartbeat(&self) -> ConsumerData {
        ConsumerData {
            group_name: "billing".into(),
            ..ConsumerData::default()
        }
    }

    fn on_members_changed(&self) {
        self.members_changed.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn on_route_changed(&self) {
        self.route_changed.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn handle(&self, frame: Frame) -> BoxFuture<'_, Frame> {
        Box::pin(async move {
            Frame {
                remark: Some(format!("handled {}", frame.code)),
                ..Frame::response(ResponseCode::SUCCESS, 0)
            }
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn beats(server: &FakeServer) -> Vec<HeartbeatData> {
    let requests = server.requests_of::<HeartBeat>();
    requests
        .iter()
        .map(|request| HeartbeatData::from_body(&request.body).unwrap())
        .collect()
}

#[tokio::test]
async fn a_consumer_is_known_to_the_broker_when_it_is_registered_and_gone_when_it_is_not() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("a", &server.address())], 4));
    let client = client(&server.address()).await;
    let cluster = client.cluster();
    cluster.route("t").await.unwrap();
    cluster.heartbeat_now().await;
    assert!(beats(&server).is_empty(), "nobody is here to tell of");
    let consumer = Arc::new(Consumer::default());
    let member = Arc::clone(&consumer) as Arc<dyn GroupMember>;
    cluster.register_consumer(Arc::clone(&member)).await.unwrap();
    let beat = beats(&server).pop().unwrap();
    assert_eq!(beat.client_id, cluster.client_id());
    assert_eq!(beat.consumer_data_set[0].group_name, "billing");
    let again = cluster.register_consumer(member).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Config);

    cluster.unregister_consumer("billing").await;
    let gone = server.requests_of::<UnregisterClient>().pop().unwrap();
    assert_eq!(gone.client_id, cluster.client_id());
    assert_eq!(gone.consumer_group.as_deref(), Some("billing"));
    cluster.unregister_consumer("billing").await;
    assert_eq!(server.requests_of::<UnregisterClient>().len(), 1);
}

#[tokio::test]
async fn a_broker_that_comes_back_hears_of_the_consumer_and_the_consumer_of_it() {
    let routes = FakeRoutes::default();
    let name_server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    let broker = FakeServer::start(|frame| crate::cluster::testing::manage(frame).unwrap()).await;
    routes.set("t", route(&[("a", &broker.address())], 4));
    let client = client(&name_server.address()).await;
    let cluster = client.cluster();
    cluster.route("t").await.unwrap();
    let consumer = Arc::new(Consumer::default());
    cluster
        .register_consumer(Arc::clone(&consumer) as Arc<dyn GroupMember>)
        .await
        .unwrap();
    let address = broker.kill().await;
    let broker = FakeServer::start_at(address, |frame| {
        crate::cluster::testing::manage(frame).unwrap_or_else(Answer::done)
    })
    .await;
    // Any request makes the connection; the heartbeat follows by itself.
    let request = UnregisterClient {
        client_id: "x".into(),
        producer_group: None,
        consumer_group: None,
    };
    while cluster
        .call_addr(&address.to_string(), &request, Duration::from_secs(3))
        .await
        .is_err()
    {}
    broker.asked::<HeartBeat>(1).await;
    consumer.changed.notified().await;
    assert!(consumer.members_changed.load(Ordering::SeqCst) >= 1);
}

#[tokio::test]
async fn heartbeats_go_on_by_themselves_and_a_topic_that_appears_is_noticed() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("other", route(&[("a", &server.address())], 1));
    let client = builder(&server.address())
        .heartbeat_interval(Duration::from_millis(20))
        .route_refresh_interval(Duration::from_millis(20))
        .connect()
        .await
        .unwrap();
    let cluster = client.cluster();
    cluster.route("other").await.unwrap();
    let consumer = Arc::new(Consumer::default());
    cluster
        .register_consumer(Arc::clone(&consumer) as Arc<dyn GroupMember>)
        .await
        .unwrap();
    server.asked::<HeartBeat>(3).await;
    routes.set("t", route(&[("a", &server.address())], 4));
    while consumer.route_changed.load(Ordering::SeqCst) == 0 {
        consumer.changed.notified().await;
    }
    assert!(cluster.routes.known("t").is_some());
}

#[tokio::test]
async fn requests_of_a_broker_reach_the_member_they_are_about() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("a", &server.address())], 4));
    let client = client(&server.address()).await;
    let cluster = client.cluster();
    cluster.route("t").await.unwrap();
    let consumer = Arc::new(Consumer::default());
    cluster
        .register_consumer(Arc::clone(&consumer) as Arc<dyn GroupMember>)
        .await
        .unwrap();
    // What the reconnection itself told the consumer does not count.
    let before = consumer.members_changed.load(Ordering::SeqCst);
    let notice = NotifyConsumerIdsChanged {
        consumer_group: "billing".into(),
    };
    server.push(Frame {
        fields: Fields::from_header(&notice).unwrap(),
        ..Frame::request(NotifyConsumerIdsChanged::CODE).one_way()
    });
    while consumer.members_changed.load(Ordering::SeqCst) == before {
        consumer.changed.notified().await;
    }
    for (group, code, remark) in [
        ("billing", 0, "handled 307"),
        (
            "nobody",
            1,
            "The Consumer Group <nobody> not exist in this client",
        ),
    ] {
        let asked = GetConsumerRunningInfo {
            consumer_group: group.into(),
            client_id: "x".into(),
            jstack_enable: None,
        };
        let before = server.requests().len();
        server.push(Frame {
            opaque: 99,
            fields: Fields::from_header(&asked).unwrap(),
            ..Frame::request(GetConsumerRunningInfo::CODE)
        });
        let response = loop {
            let responses = server.requests().into_iter().skip(before);
            match responses.into_iter().find(Frame::is_response) {
                Some(response) => break response,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!((response.opaque, response.code), (99, code));
        assert_eq!(response.remark.as_deref(), Some(remark));
    }
}
