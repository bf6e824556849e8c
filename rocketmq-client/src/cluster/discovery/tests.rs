use super::*;
use crate::Client;
use crate::cluster::testing::{FakeRoutes, builder, name_server_and_broker, route};
use crate::transport::fake::{Answer, FakeServer};

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn a_name_of_several_machines_is_all_of_them_and_a_name_of_one_stays() {
    for (found, wanted) in [
        (&["10.0.0.1:9876"][..], &[][..]),
        (&["127.0.0.1:9876", "[::1]:9876"], &[]),
        (
            &["10.0.0.2:9876", "10.0.0.1:9876", "10.0.0.2:9876"],
            &["10.0.0.1:9876", "10.0.0.2:9876"],
        ),
        (
            &["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "[fd00::2]:1"],
            &["10.0.0.1:1", "10.0.0.2:1"],
        ),
        (&["[fd00::1]:1", "[fd00::2]:1"], &["[fd00::1]:1", "[fd00::2]:1"]),
    ] {
        let found = machines(addresses(found));
        assert_eq!(found.iter().map(|address| &**address).collect::<Vec<_>>(), wanted);
    }
    assert!(is_name("mq.example.com:9876") && !is_name("[::1]:9876") && !is_name("10.0.0.1:9876"));
}

#[tokio::test]
async fn a_name_that_is_not_known_is_left_to_the_dial() {
    let discovery = Discovery::new(&Client::builder("no-such-host.invalid:9876")).unwrap();
    let first = discovery.first().await.unwrap();
    assert_eq!(*first, ["no-such-host.invalid:9876".into()]);
    assert!(discovery.look_up().await.is_err(), "later it is no change");
    assert!(!discovery.is_fixed());
    assert!(Discovery::new(&Client::builder("10.0.0.1:1")).unwrap().is_fixed());
}

#[cfg(feature = "endpoint")]
mod endpoint {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::Handle;
    use tokio::sync::watch;

    use super::*;
    use crate::ErrorKind;
    use crate::sync::lock;
    use crate::tasks::Tasks;

    /// Says what it is told to, whatever it is asked.
    struct Stub {
        url: String,
        answer: Arc<Mutex<String>>,
        asked: watch::Receiver<Vec<String>>,
        _tasks: Tasks,
    }

    impl Stub {
        async fn start(body: &str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/rocketmq/nsaddr", listener.local_addr().unwrap());
            let answer = Arc::new(Mutex::new(String::new()));
            let (heard, asked) = watch::channel(Vec::new());
            let tasks = Tasks::new(Handle::current());
            let told = Arc::clone(&answer);
            tasks.spawn("stub", |stop| async move {
                while let Some(Ok((mut stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                    let mut request = vec![0; 1024];
                    let len = stream.read(&mut request).await.unwrap_or(0);
                    let answer = lock(&told).clone();
                    // The client may have seen enough.
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let request = String::from_utf8_lossy(request.get(..len).unwrap()).into_owned();
                    heard.send_modify(|asked| asked.push(request));
                }
            });
            let stub = Self {
                url,
                answer,
                asked,
                _tasks: tasks,
            };
            stub.tell(body);
            stub
        }

        fn tell(&self, body: &str) {
            *lock(&self.answer) = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }

        fn say(&self, raw: &str) {
            *lock(&self.answer) = raw.to_owned();
        }

        /// Waits until it was asked so often more.
        async fn asked_more(&self, times: usize) {
            let mut asked = self.asked.clone();
            let before = asked.borrow().len();
            asked
                .wait_for(|asked| asked.len() >= before + times)
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn the_first_line_of_the_answer_is_the_list() {
        for body in ["a:1;b:2", "a:1;b:2\n", " a:1;b:2\r\nmore\r\n"] {
            let stub = Stub::start(body).await;
            let discovery = Discovery::new(&Client::discover(&stub.url)).unwrap();
            assert_eq!(*discovery.first().await.unwrap(), ["a:1".into(), "b:2".into()]);
            let asked = stub.asked.borrow().join("");
            assert!(asked.starts_with("GET /rocketmq/nsaddr HTTP/1.1\r\n"), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_unit_asks_for_the_list_of_its_own() {
        let stub = Stub::start("a:1").await;
        let discovery = Discovery::new(&Client::discover(&stub.url).unit_name("sh")).unwrap();
        discovery.first().await.unwrap();
        let asked = stub.asked.borrow().join("");
        assert!(
            asked.starts_with("GET /rocketmq/nsaddr-sh?nofix=1 HTTP/1.1\r\n"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn whatever_is_no_list_is_told_with_the_reason_and_the_users_own_list_is_taken() {
        let stub = Stub::start("").await;
        let url = stub.url.clone();
        for (raw, reason) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "the answer is empty",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnothing".to_owned(),
                "name server \"nothing\" is no address",
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "it answered 302 Found",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na".to_owned(), ""),
            ("SSH-2.0-x\r\n".to_owned(), ""),
            (String::new(), ""),
            (
                format!("HTTP/1.1 200 OK\r\n\r\n{}", "a:1;".repeat(20_000)),
                "the answer is above 65536 bytes",
            ),
            (
                format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\na:1", "y".repeat(1_000_000)),
                "",
            ),
        ] {
            stub.say(&raw);
            let none = Discovery::new(&Client::discover(&url)).unwrap();
            let error = none.first().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NameServer);
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("no name servers from {url}: ")),
                "{text}"
            );
            assert!(text.contains(reason), "{text}");
            let own = Discovery::new(&Client::builder("own:1").endpoint(&url)).unwrap();
            assert_eq!(*own.first().await.unwrap(), ["own:1".into()]);
        }
    }

    #[test]
    fn what_is_no_http_address_is_a_mistake_of_the_user() {
        for (url, reason) in [
            ("https://a/b", "only http:// is supported"),
            ("a:80", "it has no http:// in front"),
            ("http://u:p@a/b", "credentials are not supported"),
            ("http:// a/", "it is no address"),
        ] {
            let error = Discovery::new(&Client::discover(url)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(Discovery::new(&Client::builder("nonsense").endpoint("http://a/")).is_err());
    }

    #[tokio::test]
    async fn a_change_of_the_list_is_followed_and_a_failing_endpoint_is_not() {
        let routes = FakeRoutes::default();
        let first = name_server_and_broker(&routes, |_| Answer::Silence).await;
        let second = name_server_and_broker(&routes, |_| Answer::Silence).await;
        routes.set("t", route(&[("broker-a", &second.address())], 1));
        let stub = Stub::start(&first.address()).await;
        let client = builder("")
            .endpoint(&stub.url)
            .name_server_refresh_interval(Duration::from_millis(5))
            .connect()
            .await
            .unwrap();
        let cluster = client.cluster();
        assert_eq!(client.name_servers(), [first.address()]);
        for nonsense in ["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "nonsense", ""] {
            stub.say(nonsense);
            stub.asked_more(2).await;
            assert_eq!(client.name_servers(), [first.address()]);
        }
        stub.tell("");
        stub.asked_more(2).await;
        assert_eq!(client.name_servers(), [first.address()]);
        cluster.route("t").await.unwrap();

        stub.tell(&second.address());
        stub.asked_more(2).await;
        assert_eq!(client.name_servers(), [second.address()]);
        let connected = cluster.remoting().pool().connected();
        assert!(!connected.contains(&first.address().into()), "{connected:?}");
        cluster.refresh_route("t").await.unwrap();
        client.shutdown().await;
    }

    #[tokio::test]
    async fn an_endpoint_that_is_silent_delays_the_start_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let name_server = FakeServer::start(|_| Answer::Silence).await;
        let client = builder(&name_server.address())
            .endpoint(url)
            .connect()
            .await
            .unwrap();
        assert_eq!(client.name_servers(), [name_server.address()]);
        client.shutdown().await;
    }
}
