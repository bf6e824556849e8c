//! Nothing that is secret is ever printed, whatever is logged, shown or reported.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rocketmq_client::{
    Client, ConsumeFrom, Credentials, ErrorKind, Message, MessageView, RotatingCredentials, Socks5,
};
use rocketmq_embedded_broker::{AccessStyle, Action, EmbeddedBroker, User};
use tokio::sync::mpsc::channel;
use tokio::time::timeout;
use tracing_subscriber::fmt::MakeWriter;

const SECRET: &str = "sentinel-secret-key";
const TOKEN: &str = "sentinel-security-token";
const STALE: &str = "sentinel-stale-secret";
const PASSWORD: &str = "sentinel-proxy-password";

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_whole_exchange_at_the_finest_level_shows_no_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut printed = String::new();
    let mut show = |text: String| {
        printed.push_str(&text);
        printed.push('\n');
    };

    let user = User::new("orders-svc", SECRET)
        .topic("*", [Action::All])
        .group("*", [Action::All]);
    let broker = EmbeddedBroker::builder()
        .access_control(AccessStyle::Users)
        .user(user)
        .start()
        .await
        .unwrap();
    let good = Credentials::new("orders-svc", SECRET).security_token(TOKEN);
    let keys = RotatingCredentials::new(good.clone());
    let builder = Client::builder(broker.name_server()).credentials(keys.clone());
    show(format!("{builder:?} {keys:?} {good:?} {broker:?}"));
    let client = builder.connect().await.unwrap();
    let producer = client.producer("p").start().await.unwrap();
    producer.send(Message::new("orders", "first")).await.unwrap();
    producer
        .send(Message::new("orders", "second"))
        .one_way()
        .await
        .unwrap();
    let (sender, mut received) = channel(100_000);
    let consumer = client
        .push_consumer("billing")
        .subscribe("orders", "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move { sender.send(message).await.map_err(|_| "the test has ended") }
        })
        .await
        .unwrap();
    for _ in 0..2 {
        timeout(Duration::from_secs(60), received.recv())
            .await
            .unwrap()
            .unwrap();
    }
    show(format!("{client:?} {producer:?} {consumer:?}"));

    // Refused from now on: what is said of it must not say more than the access key.
    keys.rotate(Credentials::new("orders-svc", STALE).security_token(TOKEN));
    let error = loop {
        match producer.send(Message::new("orders", "third")).await {
            // Signed before the rotation was noticed.
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.to_string().contains("orders-svc"), "{error}");
    show(format!("{error} {error:?}"));
    client.shutdown().await;

    let proxied = Client::builder(broker.name_server())
        .credentials(good)
        .socks5(Socks5::new(broker.name_server()).user("alice", PASSWORD));
    show(format!("{proxied:?}"));
    let error = proxied.connect().await.unwrap_err();
    show(format!("{error} {error:?}"));
    broker.shutdown().await;

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("TRACE"), "nothing was logged");
    for secret in [SECRET, TOKEN, STALE, PASSWORD] {
        for (what, text) in [("the log", &logged), ("what was printed", &printed)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in {what}");
        }
    }
}
