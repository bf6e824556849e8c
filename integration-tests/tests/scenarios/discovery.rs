//! Name servers: how they are found, and what happens while they are gone or know less than before.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use integration_tests::{
    Failure,
    fault_proxy::{Direction, Fault, FaultProxy},
    scenario::{TestResult, eventually, long},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ClientBuilder, ErrorKind, Message, Producer,
    protocol::{Request, ResponseCode, requests::RouteInfo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::inbox::{Inbox, expect};

scenarios![
    one_dead_name_server_of_three_costs_nothing,
    what_is_known_outlives_all_name_servers,
    a_name_server_that_forgets_a_topic_takes_no_queue_away,
    an_http_address_tells_the_name_servers_and_may_be_down,
];

/// So short that a scenario sees many.
const REFRESH: Duration = Duration::from_millis(50);

/// Ways to one name server, each of which can be closed.
struct Ways {
    upstream: SocketAddr,
    addresses: Vec<SocketAddr>,
    open: Vec<Option<FaultProxy>>,
}

impl Ways {
    async fn open(target: &Target, count: usize) -> Result<Self, Failure> {
        let upstream = target.name_server_address().await?;
        let (mut addresses, mut open) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let proxy = FaultProxy::start(upstream).await?;
            addresses.push(proxy.address());
            open.push(Some(proxy));
        }
        Ok(Self {
            upstream,
            addresses,
            open,
        })
    }

    fn list(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.join(";")
    }

    /// Ends the listener and all connections.
    fn close(&mut self, index: usize) {
        if let Some(way) = self.open.get_mut(index) {
            *way = None;
        }
    }

    async fn open_again(&mut self) -> Result<(), Failure> {
        for (way, address) in self.open.iter_mut().zip(&self.addresses) {
            if way.is_none() {
                *way = Some(FaultProxy::start_at(*address, self.upstream).await?);
            }
        }
        Ok(())
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder(self.list()).route_refresh_interval(REFRESH)
    }
}

async fn send(producer: &Producer, topic: &str, count: usize) -> TestResult {
    for index in 0..count {
        let receipt = producer.send(Message::new(topic, index.to_string())).await?;
        expect("attempts", receipt.attempts, 1)?;
    }
    Ok(())
}

async fn one_dead_name_server_of_three_costs_nothing(target: &Target) -> TestResult {
    let topic = target.topic("three");
    target.create_topic(&topic, 1).await?;
    let mut ways = Ways::open(target, 3).await?;
    let client = ways.builder().connect().await?;
    let producer = client.producer(target.group("three")).start().await?;
    send(&producer, &topic, 10).await?;
    // One after the other, so that the one in use is among them.
    for index in 0..3 {
        ways.close(index);
        let fresh = target.topic(&format!("fresh-{index}"));
        target.create_topic(&fresh, 1).await?;
        send(&producer, &topic, 10).await?;
        send(&producer, &fresh, 10).await?;
        ways.open_again().await?;
    }
    ways.close(0);
    // A client that starts now finds one that lives.
    let late = ways.builder().connect().await?;
    let producer = late.producer(target.group("late")).start().await?;
    send(&producer, &topic, 10).await?;
    late.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn what_is_known_outlives_all_name_servers(target: &Target) -> TestResult {
    let (topic, fresh) = (target.topic("known"), target.topic("unknown"));
    for topic in [&topic, &fresh] {
        target.create_topic(topic, 1).await?;
    }
    let mut ways = Ways::open(target, 2).await?;
    let builder = ways.builder().request_timeout(Duration::from_secs(1));
    let client = builder.connect().await?;
    let producer = client.producer(target.group("known")).start().await?;
    let mut inbox = Inbox::open(&client, &target.group("reader"), &topic, "*").await?;
    send(&producer, &topic, 1).await?;
    inbox.next().await?;

    ways.close(0);
    ways.close(1);
    // More than a second, in which routes are asked for many times.
    for _ in 0..3 * long() {
        send(&producer, &topic, 10).await?;
        for _ in 0..10 {
            inbox.next().await?;
        }
        let failed = producer.send(Message::new(&fresh, "x")).await;
        let error = failed.err().ok_or("there is a route without a name server")?;
        expect("kind", error.kind(), ErrorKind::NameServer)?;
        let text = error.to_string();
        let told = text.contains(&fresh) && text.contains("no name server of [");
        expect(&text, told, true)?;
    }
    ways.open_again().await?;
    eventually("the new topic", async || {
        Ok(producer.send(Message::new(&fresh, "x")).await.is_ok())
    })
    .await?;
    client.shutdown().await;
    Ok(())
}

async fn a_name_server_that_forgets_a_topic_takes_no_queue_away(target: &Target) -> TestResult {
    let topic = target.topic("forgotten");
    target.create_topic(&topic, 4).await?;
    let ways = Ways::open(target, 1).await?;
    let way = ways.open.first().and_then(Option::as_ref).ok_or("no way")?;
    let client = ways.builder().connect().await?;
    let producer = client.producer(target.group("forgotten")).start().await?;
    let mut inbox = Inbox::open(&client, &target.group("reader"), &topic, "*").await?;
    send(&producer, &topic, 8).await?;
    for _ in 0..8 {
        inbox.next().await?;
    }
    let forgotten = way.inject(
        Direction::ToClient,
        Fault::Recode {
            code: RouteInfo::CODE.0,
            to: ResponseCode::TOPIC_NOT_EXIST.0,
        },
    );
    let before = forgotten.hits();
    eventually("a few answers that know nothing", async || {
        Ok(forgotten.hits() >= before + 6)
    })
    .await?;
    send(&producer, &topic, 8).await?;
    for _ in 0..8 {
        inbox.next().await?;
    }
    way.heal();
    send(&producer, &topic, 8).await?;
    client.shutdown().await;
    expect("messages that came twice", inbox.rest().len() <= 8, true)
}

/// Tells a text to whoever asks.
struct Endpoint {
    url: String,
    text: Arc<Mutex<String>>,
    _tasks: JoinSet<()>,
}

impl Endpoint {
    async fn start(text: &str) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/rocketmq/nsaddr", listener.local_addr()?);
        let text = Arc::new(Mutex::new(text.to_owned()));
        let told = Arc::clone(&text);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let body = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                // Whoever goes away has heard enough.
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self {
            url,
            text,
            _tasks: tasks,
        })
    }

    fn tell(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

async fn an_http_address_tells_the_name_servers_and_may_be_down(target: &Target) -> TestResult {
    let topic = target.topic("told");
    target.create_topic(&topic, 1).await?;
    let mut ways = Ways::open(target, 2).await?;
    let [first, second] = ways.addresses[..] else {
        return Err("two ways".into());
    };
    let endpoint = Endpoint::start(&first.to_string()).await?;
    let client = Client::discover(&endpoint.url)
        .name_server_refresh_interval(REFRESH)
        .route_refresh_interval(REFRESH)
        .connect()
        .await?;
    let producer = client.producer(target.group("told")).start().await?;
    send(&producer, &topic, 5).await?;
    expect("list", client.name_servers(), [first.to_string()])?;

    endpoint.tell("no list at all");
    send(&producer, &topic, 5).await?;
    endpoint.tell(&format!("{second}\n"));
    eventually("the new list", async || {
        Ok(client.name_servers() == [second.to_string()])
    })
    .await?;
    ways.close(0);
    let fresh = target.topic("told-later");
    target.create_topic(&fresh, 1).await?;
    send(&producer, &fresh, 5).await?;

    let url = endpoint.url.clone();
    drop(endpoint);
    send(&producer, &topic, 5).await?;
    expect("list", client.name_servers(), [second.to_string()])?;
    let failed = Client::discover(&url).connect().await;
    let error = failed.err().ok_or("there are name servers without an address")?;
    expect("kind", error.kind(), ErrorKind::NameServer)?;
    let listed = Client::builder(second.to_string())
        .endpoint(&url)
        .connect()
        .await?;
    listed.shutdown().await;
    client.shutdown().await;
    Ok(())
}
