use super::*;
use crate::Client;
use crate::cluster::testing::{FakeRoutes, builder, client, name_server_and_broker, route};
use crate::protocol::ResponseCode;
use crate::transport::fake::{Answer, FakeServer};

fn parse(list: &str) -> Vec<String> {
    let addresses = parse_list(list).unwrap();
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn lists_are_read_with_both_separators_and_without_doubles() {
    assert_eq!(parse("a:9876"), ["a:9876"]);
    assert_eq!(parse(" a:9876; b:9876,c:1 ;a:9876;"), ["a:9876", "b:9876", "c:1"]);
    assert_eq!(
        parse("http://mq.example.com:8080;[::1]:9876"),
        ["mq.example.com:8080", "[::1]:9876"]
    );
}

#[test]
fn what_is_no_address_is_named() {
    for (list, text) in [
        (
            "",
            "no name server is given; name at least one as host:port, several separated by ';'",
        ),
        (
            "localhost",
            "name server \"localhost\" is no address; write host:port, for instance 127.0.0.1:9876",
        ),
        (
            "a:9876;b:http",
            "name server \"b:http\" is no address; write host:port, for instance 127.0.0.1:9876",
        ),
        (
            ":9876",
            "name server \":9876\" is no address; write host:port, for instance 127.0.0.1:9876",
        ),
        (
            "a:0",
            "name server \"a:0\" is no address; write host:port, for instance 127.0.0.1:9876",
        ),
    ] {
        let error = parse_list(list).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn a_dead_name_server_is_passed_over_and_the_one_that_answers_is_kept() {
    let routes = FakeRoutes::default();
    let dead = FakeServer::start(|_| Answer::Silence).await.kill().await;
    let alive = name_server_and_broker(&routes, |_| Answer::Silence).await;
    let list = format!("{dead};{}", alive.address());
    routes.set("t", route(&[("broker-a", &alive.address())], 4));
    for _ in 0..4 {
        let client = client(&list).await;
        assert_eq!(
            client.cluster().route("t").await.unwrap().publish_queues().len(),
            4
        );
        assert_eq!(*client.cluster().name_servers.current(), alive.address());
    }
}

#[tokio::test]
async fn a_name_server_that_freezes_leaves_time_for_the_next() {
    let routes = FakeRoutes::default();
    let frozen = FakeServer::start(|_| Answer::Silence).await;
    let alive = name_server_and_broker(&routes, |_| Answer::Silence).await;
    routes.set("t", route(&[("broker-a", &alive.address())], 4));
    let list = format!("{};{}", frozen.address(), alive.address());
    let client = builder(&list)
        .request_timeout(Duration::from_secs(2))
        .connect()
        .await
        .unwrap();
    for _ in 0..3 {
        client.cluster().refresh_route("t").await.unwrap();
    }
    assert!(
        frozen.requests().len() <= 1,
        "asked again though it was known to be frozen"
    );
}

#[tokio::test]
async fn without_any_name_server_the_error_names_all_of_them() {
    let dead = FakeServer::start(|_| Answer::Silence).await.kill().await;
    let error = Client::connect(dead.to_string()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameServer);
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "no name server of [{dead}] answered; the last one: cannot connect to {dead}: "
        )),
        "{text}"
    );
    assert!(
        text.ends_with("is the address right and the server running?"),
        "{text}"
    );
}

#[tokio::test]
async fn a_busy_name_server_is_passed_over_but_a_no_is_an_answer() {
    let busy = FakeServer::start(|_| Answer::code(ResponseCode::SYSTEM_BUSY)).await;
    let routes = FakeRoutes::default();
    let alive = name_server_and_broker(&routes, |_| Answer::Silence).await;
    let client = client(&format!("{};{}", busy.address(), alive.address())).await;
    let error = client.cluster().route("nowhere").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
}
