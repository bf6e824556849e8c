use super::*;
use crate::cluster::testing::{FakeRoutes, builder, client, name_server_and_broker, route};
use crate::protocol::bodies::{BrokerData, QueueData};
use crate::protocol::requests::RouteInfo;
use crate::transport::fake::Answer;

fn names(queues: &[MessageQueue]) -> Vec<String> {
    queues.iter().map(ToString::to_string).collect()
}

fn queues(broker: &str, perm: i32, read: i32, write: i32) -> QueueData {
    QueueData {
        broker_name: broker.into(),
        perm,
        read_queue_nums: read,
        write_queue_nums: write,
        topic_sys_flag: 0,
    }
}

fn broker(name: &str, addresses: &[(i64, &str)]) -> BrokerData {
    BrokerData {
        broker_addrs: addresses
            .iter()
            .map(|(id, address)| (*id, (*address).to_owned()))
            .collect(),
        broker_name: name.into(),
        ..BrokerData::default()
    }
}

#[test]
fn queues_follow_permissions_masters_and_names() {
    let data = TopicRouteData {
        broker_datas: vec![
            broker("b", &[(0, "b:1"), (1, "b:2")]),
            broker("slave-only", &[(1, "s:1")]),
            broker("a", &[(0, "a:1")]),
            broker("read-only", &[(0, "r:1")]),
        ],
        queue_datas: vec![
            queues("b", 6, 1, 2),
            queues("slave-only", 6, 1, 1),
            queues("read-only", 4, 1, 1),
            queues("a", 2, 3, 1),
            queues("unknown", 6, 1, 1),
        ],
        ..TopicRouteData::default()
    };
    let route = TopicRoute::new("t", data, false, false);
    assert_eq!(names(route.publish_queues()), ["t/a/0", "t/b/0", "t/b/1"]);
    let addresses: Vec<_> = (0..4)
        .map(|index| route.publish_address(index).map(|address| &**address))
        .collect();
    assert_eq!(addresses, [Some("a:1"), Some("b:1"), Some("b:1"), None]);
    assert_eq!(
        names(route.subscribe_queues()),
        ["t/b/0", "t/read-only/0", "t/slave-only/0", "t/unknown/0"]
    );
}

#[test]
fn an_ordered_topic_has_the_queues_its_configuration_says() {
    let mut data = route(&[("a", "a:1"), ("b", "b:1")], 8);
    data.order_topic_conf = Some("b:1;a:2;noise;gone:2".into());
    let route = TopicRoute::new("t", data, false, false);
    assert_eq!(
        names(route.publish_queues()),
        ["t/b/0", "t/a/0", "t/a/1", "t/gone/0", "t/gone/1"],
        "a broker that is away keeps its queues, so that keys keep theirs"
    );
    let addresses: Vec<_> = (0..5)
        .map(|index| route.publish_address(index).map(|address| &**address))
        .collect();
    assert_eq!(addresses, [Some("b:1"), Some("a:1"), Some("a:1"), None, None]);
}

#[test]
fn a_negative_queue_count_gives_no_queue() {
    let data = route(&[("a", "a:1")], -3);
    assert!(TopicRoute::new("t", data, false, false).is_empty());
}

#[test]
fn an_empty_answer_does_not_replace_a_good_route_and_brokers_go_with_their_last_route() {
    let routes = Routes::default();
    let good = route(&[("a", "a:1")], 2);
    let (_, changed) = routes.install("t", TopicRoute::new("t", good.clone(), false, false));
    assert!(changed);
    let (kept, changed) = routes.install("t", TopicRoute::new("t", TopicRouteData::default(), false, false));
    assert!(!changed);
    assert_eq!(kept.publish_queues().len(), 2);
    let (_, changed) = routes.install("t", TopicRoute::new("t", good, false, false));
    assert!(!changed, "the same again");
    assert_eq!(routes.broker_addr("a", 0).as_deref(), Some("a:1"));
    let moved = route(&[("b", "b:1")], 2);
    routes.install("t", TopicRoute::new("t", moved, false, false));
    assert_eq!(routes.broker_addr("a", 0), None);
    assert!(routes.is_broker("b:1") && !routes.is_broker("a:1"));
}

#[test]
fn readers_get_the_broker_they_ask_for_or_the_next_best() {
    let routes = Routes::default();
    let data = TopicRouteData {
        broker_datas: vec![broker("a", &[(0, "a:0"), (2, "a:2")]), broker("b", &[(1, "b:1")])],
        queue_datas: vec![queues("a", 6, 1, 1), queues("b", 6, 1, 1)],
        ..TopicRouteData::default()
    };
    routes.install("t", TopicRoute::new("t", data, false, false));
    for (name, id, address) in [
        ("a", 0, Some("a:0")),
        ("a", 2, Some("a:2")),
        ("a", 1, Some("a:2")),
        ("a", 7, Some("a:0")),
        ("b", 0, Some("b:1")),
        ("c", 0, None),
    ] {
        assert_eq!(
            routes
                .replica_for_read(name, id)
                .map(|(_, address)| address)
                .as_deref(),
            address,
            "{name} {id}"
        );
    }
    assert_eq!(routes.broker_addr("a", 1), None);
    assert_eq!(routes.broker_addrs(false), ["a:0".into()]);
    assert_eq!(routes.broker_addrs(true).len(), 3);
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_one_question_and_what_is_missing_is_remembered() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("a", &server.address())], 4));
    let client = client(&server.address()).await;
    let cluster = client.cluster();
    let asked = || server.requests_of::<RouteInfo>().len();
    let (first, second, third) = tokio::join!(cluster.route("t"), cluster.route("t"), cluster.route("t"));
    let first = first.unwrap();
    assert!(Arc::ptr_eq(&first, &second.unwrap()) && Arc::ptr_eq(&first, &third.unwrap()));
    assert_eq!(asked(), 1);
    cluster.route("t").await.unwrap();
    assert_eq!(asked(), 1, "known routes are not asked for");
    assert_eq!(
        cluster.route("nowhere").await.unwrap_err().kind(),
        ErrorKind::TopicNotFound
    );
    cluster.route("nowhere").await.unwrap_err();
    assert_eq!(asked(), 2, "missing topics are not asked for again at once");
}

#[tokio::test]
async fn a_cancelled_question_is_answered_for_the_others() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("a", &server.address())], 4));
    let client = client(&server.address()).await;
    let cluster = client.cluster();
    tokio::select! {
        biased;
        _ = cluster.route("t") => panic!("answered without a wait"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(cluster.route("t").await.unwrap().subscribe_queues().len(), 4);
    assert_eq!(server.requests_of::<RouteInfo>().len(), 1);
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_sent_to_by_the_template_with_few_queues() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("TBW102", route(&[("a", &server.address())], 8));
    let client = client(&server.address()).await;
    let cluster = client.cluster();
    let derived = cluster
        .publish_route("new", &TopicTemplate::default())
        .await
        .unwrap();
    assert_eq!(derived.publish_queues().len(), 4);
    assert_eq!(derived.publish_queues()[0].to_string(), "new/a/0");
    // Consumers need the topic itself.
    assert_eq!(
        cluster.route("new").await.unwrap_err().kind(),
        ErrorKind::TopicNotFound
    );
    routes.set("new", route(&[("a", &server.address())], 2));
    assert_eq!(
        cluster.refresh_route("new").await.unwrap().publish_queues().len(),
        2
    );
    assert_eq!(
        cluster
            .publish_route("new", &TopicTemplate::default())
            .await
            .unwrap()
            .publish_queues()
            .len(),
        2
    );
}

#[tokio::test]
async fn without_a_template_the_error_says_what_to_do() {
    let server = name_server_and_broker(&FakeRoutes::default(), |_| Answer::Silence).await;
    let client = client(&server.address()).await;
    let error = client
        .cluster()
        .publish_route("new", &TopicTemplate::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(
        error.to_string(),
        "topic new: no broker has it, as the name server says; create it, check its name, or let brokers create \
         topics (autoCreateTopicEnable)"
    );
}

#[tokio::test]
async fn known_routes_outlive_all_name_servers_and_new_topics_fail_clearly() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("a", "127.0.0.1:1")], 4));
    let client = builder(&server.address())
        .request_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    client.cluster().route("t").await.unwrap();
    server.kill().await;
    assert_eq!(
        client.cluster().route("t").await.unwrap().publish_queues().len(),
        4
    );
    let error = client.cluster().route("other").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameServer);
    client.cluster().refresh_route("t").await.unwrap_err();
    assert!(client.cluster().known_publish_route("t").is_some());
}
