//! Who may talk to whom: signed requests, credentials that change, TLS, proxies.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::{
        Target,
        secure::{Authority, SENDER, SecureServer, Theme, WORKERS, account},
    },
};
use rocketmq_client::{
    Client, ClientBuilder, ConsumeFrom, Credentials, Error, ErrorKind, Message, MessageView, Outcome,
    Persisted, Retry, RotatingCredentials, Socks5, Tls,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc::channel,
    task::JoinSet,
    time::timeout,
};

use crate::inbox::{Inbox, expect};

scenarios![
    signed_requests_of_every_kind_are_accepted,
    whoever_is_not_known_or_may_not_is_refused_once_and_told_why,
    credentials_rotate_under_load_and_a_client_recovers_from_wrong_ones,
    each_of_name_server_and_broker_may_speak_tls_and_signed_requests_pass_through,
    servers_that_ask_for_client_certificates_get_them_and_others_fail_closed,
    everything_goes_through_a_proxy,
];

fn trusting(authority: &Authority) -> Tls {
    Tls::new().ca_pem(authority.pem())
}

fn signing(server: &SecureServer, name: &str) -> ClientBuilder {
    Client::builder(server.name_server()).credentials(account(name))
}

/// Sends and receives one message.
async fn speaks(target: &Target, client: &Client, stem: &str) -> TestResult {
    let topic = target.topic(stem);
    let producer = client.producer(target.group("producer")).start().await?;
    producer.send(Message::new(&topic, stem.to_owned())).await?;
    let mut inbox = Inbox::open(client, &target.group(stem), &topic, "*").await?;
    expect("message", inbox.bodies(1).await?, [stem])
}

async fn signed_requests_of_every_kind_are_accepted(target: &Target) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let temporary = account(WORKERS[0]).security_token("of one session");
    for (stem, credentials) in [("plain", account(WORKERS[0])), ("token", temporary)] {
        let client = Client::builder(server.name_server())
            .credentials(credentials)
            .connect()
            .await?;
        let topic = target.topic(stem);
        let group = target.group(stem);
        let producer = client.producer(target.group("producer")).start().await?;
        producer
            .send(Message::new(&topic, "awaited").tag("vip").key("größe"))
            .await?;
        producer.send(Message::new(&topic, "one-way")).one_way().await?;
        producer.send(Message::new(&topic, "detached")).detach().await?;
        producer.send(Message::new(&topic, "x".repeat(100_000))).await?;
        let batch = ["batch 1", "batch 2"].map(|body| Message::new(&topic, body));
        producer.send_batch(batch).await?;

        // The first delivery of one message is given back to the broker, which sends it again.
        let (sender, mut deliveries) = channel(100);
        let consumer = client
            .push_consumer(&group)
            .subscribe(&topic, "*")
            .consume_from(ConsumeFrom::First)
            .start(move |message: MessageView| {
                let sender = sender.clone();
                async move {
                    let again = message.reconsume_times() == 0 && message.body().as_ref() == b"awaited";
                    let delivery = (message.body().clone(), message.reconsume_times());
                    if sender.send(delivery).await.is_err() || !again {
                        return Outcome::Ack;
                    }
                    Outcome::Retry(Retry::Level(1))
                }
            })
            .await?;
        let mut bodies = Vec::new();
        while bodies.len() < 7 {
            let delivery = timeout(Duration::from_secs(120), deliveries.recv()).await?;
            let (body, times) = delivery.ok_or("the consumer is gone")?;
            bodies.push((
                String::from_utf8_lossy(&body).chars().take(8).collect::<String>(),
                times,
            ));
        }
        bodies.sort_unstable();
        let expected = [
            ("awaited", 0),
            ("awaited", 1),
            ("batch 1", 0),
            ("batch 2", 0),
            ("detached", 0),
            ("one-way", 0),
            ("xxxxxxxx", 0),
        ];
        expect(
            "deliveries",
            bodies,
            expected.map(|(body, times)| (body.to_owned(), times)).to_vec(),
        )?;
        consumer.shutdown().await;
        client.shutdown().await;
    }
    Ok(())
}

/// What a refusal has to say, and what it must not.
fn check_refusal(error: &Error, access_key: &str, secret: &str) -> TestResult {
    expect("kind", error.kind(), ErrorKind::Auth)?;
    expect("persisted", error.persisted(), Persisted::No)?;
    expect("retryable", error.is_retryable(), false)?;
    let text = format!("{error} {error:?}");
    for wanted in [access_key, "check the credentials of this client"] {
        if !text.contains(wanted) {
            return Err(format!("{wanted:?} is not in: {text}").into());
        }
    }
    if !secret.is_empty() && text.contains(secret) {
        return Err(format!("the secret is in: {text}").into());
    }
    Ok(())
}

async fn whoever_is_not_known_or_may_not_is_refused_once_and_told_why(target: &Target) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let topic = target.topic("refused");
    // So that the topic exists, and a route to it.
    let known = signing(&server, WORKERS[0]).connect().await?;
    let owner = known.producer(target.group("owner")).start().await?;
    owner.send(Message::new(&topic, "first")).await?;

    for (access_key, secret) in [(WORKERS[0], "not-the-secret"), ("nobody-known", "nobodys-secret")] {
        let client = Client::builder(server.name_server())
            .credentials(Credentials::new(access_key, secret))
            .connect()
            .await?;
        let producer = client.producer(target.group("refused")).start().await?;
        let error = producer.send(Message::new(&topic, "refused")).await.err();
        let error = error.ok_or("the send was accepted")?;
        check_refusal(&error, access_key, secret)?;
        expect("attempts", error.attempts(), 1)?;
        client.shutdown().await;
    }

    let client = Client::connect(server.name_server()).await?;
    let producer = client.producer(target.group("unsigned")).start().await?;
    let error = producer.send(Message::new(&topic, "unsigned")).await.err();
    check_refusal(
        &error.ok_or("the send was accepted")?,
        "the request was not signed",
        "",
    )?;
    client.shutdown().await;

    // One that may send and not consume.
    let client = signing(&server, SENDER).connect().await?;
    let producer = client.producer(target.group("sender")).start().await?;
    producer.send(Message::new(&topic, "allowed")).await?;
    // A consumer may be refused at its start, or be left without messages.
    let Ok(mut inbox) = Inbox::open(&client, &target.group("curious"), &topic, "*").await else {
        return finish(known, client).await;
    };
    let mut allowed = Inbox::open(&known, &target.group("allowed"), &topic, "*").await?;
    allowed.bodies(2).await?;
    expect("messages of one who may not consume", inbox.rest().len(), 0)?;
    finish(known, client).await
}

async fn finish(one: Client, other: Client) -> TestResult {
    one.shutdown().await;
    other.shutdown().await;
    Ok(())
}

async fn credentials_rotate_under_load_and_a_client_recovers_from_wrong_ones(target: &Target) -> TestResult {
    const SENDS: u32 = 300;
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let topic = target.topic("rotation");
    let keys = RotatingCredentials::new(Credentials::new(WORKERS[0], "a stale secret"));
    let client = Client::builder(server.name_server())
        .credentials(keys.clone())
        .connect()
        .await?;
    let producer = client.producer(target.group("rotation")).start().await?;
    let error = producer.send(Message::new(&topic, "stale")).await.err();
    check_refusal(
        &error.ok_or("the send was accepted")?,
        WORKERS[0],
        "a stale secret",
    )?;

    keys.rotate(account(WORKERS[0]));
    eventually("a send with the right secret", async || {
        match producer.send(Message::new(&topic, "first")).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Auth => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let mut inbox = Inbox::open(&client, &target.group("rotation"), &topic, "*").await?;
    inbox.bodies(1).await?;

    // Both are good, so nothing may fail while one takes the place of the other.
    for sent in 0..SENDS {
        if sent % 50 == 0 {
            keys.rotate(account(WORKERS[usize::try_from(sent / 50 % 2)?]));
        }
        producer.send(Message::new(&topic, format!("{sent:04}"))).await?;
    }
    let expected: Vec<String> = (0..SENDS).map(|sent| format!("{sent:04}")).collect();
    expect("messages", inbox.bodies(expected.len()).await?, expected)?;
    client.shutdown().await;
    Ok(())
}

async fn each_of_name_server_and_broker_may_speak_tls_and_signed_requests_pass_through(
    target: &Target,
) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let tls = trusting(server.authority());
    let builders = [
        ("both", signing(&server, WORKERS[0]).tls(tls.clone())),
        (
            "name-server",
            signing(&server, WORKERS[0]).name_server_tls(tls.clone()),
        ),
        ("broker", signing(&server, WORKERS[0]).broker_tls(tls)),
        (
            "anyone",
            signing(&server, WORKERS[0]).tls(Tls::new().danger_accept_any_certificate()),
        ),
    ];
    for (stem, builder) in builders {
        let client = builder.connect().await?;
        speaks(target, &client, stem)
            .await
            .map_err(|error| format!("{stem}: {error}"))?;
        client.shutdown().await;
    }

    // Nobody is believed whom the client has no reason to believe.
    let stranger = Authority::new("stranger")?;
    for tls in [
        Tls::new(),
        trusting(&stranger),
        trusting(server.authority()).server_name("other.test"),
    ] {
        let error = signing(&server, WORKERS[0])
            .tls(tls.clone())
            .connect()
            .await
            .err();
        let error = error.ok_or("the name server was believed")?;
        expect("kind", error.kind(), ErrorKind::Tls)?;
        let client = signing(&server, WORKERS[0]).broker_tls(tls).connect().await?;
        let error = speaks(target, &client, "stranger").await.err();
        let error = error.ok_or("the broker was believed")?;
        let error: &Error = error.downcast_ref().ok_or("another error")?;
        expect("kind", error.kind(), ErrorKind::Tls)?;
        expect("persisted", error.persisted(), Persisted::No)?;
        client.shutdown().await;
    }
    Ok(())
}

async fn servers_that_ask_for_client_certificates_get_them_and_others_fail_closed(
    target: &Target,
) -> TestResult {
    let server = SecureServer::start(target, Theme::MutualTls).await?;
    let tls = trusting(server.authority());
    let ours = server.authority().identity("client.test")?;
    let known = tls
        .clone()
        .client_certificate_pem(ours.certificate.as_str(), ours.key.as_str());
    let client = Client::builder(server.name_server())
        .tls(known.clone())
        .connect()
        .await?;
    speaks(target, &client, "known").await?;
    client.shutdown().await;

    let stranger = Authority::new("stranger")?.identity("client.test")?;
    let unknown = tls
        .clone()
        .client_certificate_pem(stranger.certificate, stranger.key);
    for (stem, broker_tls) in [("nobody", Some(tls)), ("unknown", Some(unknown)), ("plain", None)] {
        let mut builder = Client::builder(server.name_server()).name_server_tls(known.clone());
        if let Some(tls) = broker_tls {
            builder = builder.broker_tls(tls);
        }
        let client = builder.connect().await?;
        let topic = target.topic("known");
        let producer = client.producer(target.group(stem)).start().await?;
        let send = producer
            .send(Message::new(&topic, stem))
            .timeout(Duration::from_secs(5));
        let error = send.await.err().ok_or_else(|| format!("{stem} was served"))?;
        match stem {
            "plain" => expect(stem, error.kind(), ErrorKind::Connect)?,
            _ => expect(stem, error.kind(), ErrorKind::Tls)?,
        }
        client.shutdown().await;
    }
    Ok(())
}

/// A SOCKS5 proxy with one user, which counts what goes through it.
struct Proxy {
    address: SocketAddr,
    tunnels: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tunnels = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&tunnels);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                open.spawn(async move {
                    // A client that goes away ends its tunnel.
                    let _ = tunnel(stream, &counted).await;
                });
            }
        });
        Ok(Self {
            address,
            tunnels,
            _tasks: tasks,
        })
    }
}

async fn tunnel(mut client: TcpStream, counted: &AtomicU32) -> Result<(), Failure> {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await?;
    if greeting != [5, 1, 2] {
        client.write_all(&[5, 0xff]).await?;
        return Err("no user".into());
    }
    client.write_all(&[5, 2]).await?;
    let mut login = [0; 3 + "alice".len() + "open sesame".len()];
    client.read_exact(&mut login).await?;
    if &login != b"\x01\x05alice\x0bopen sesame" {
        client.write_all(&[1, 1]).await?;
        return Err("wrong user".into());
    }
    client.write_all(&[1, 0]).await?;
    let mut request = [0; 10];
    client.read_exact(&mut request).await?;
    let [5, 1, 0, 1, a, b, c, d, high, low] = request else {
        client.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        return Err("no IPv4 address".into());
    };
    let server = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
    let mut server = TcpStream::connect(server).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    counted.fetch_add(1, Ordering::SeqCst);
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn everything_goes_through_a_proxy(target: &Target) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let proxy = Proxy::start().await?;
    let through = |password: &str| {
        Socks5::new(proxy.address.to_string())
            .user("alice", password)
            .only("127.0.0.0/8")
    };
    let client = signing(&server, WORKERS[0])
        .socks5(through("open sesame"))
        .tls(trusting(server.authority()))
        .connect()
        .await?;
    speaks(target, &client, "proxy").await?;
    client.shutdown().await;
    let tunnels = proxy.tunnels.load(Ordering::SeqCst);
    if tunnels < 2 {
        return Err(
            format!("{tunnels} connections through the proxy, not those to name server and broker").into(),
        );
    }

    let error = signing(&server, WORKERS[0])
        .socks5(through("close sesam"))
        .connect()
        .await
        .err()
        .ok_or("the wrong password was accepted")?;
    let text = format!("{error} {error:?}");
    if !text.contains("the proxy does not accept this user and password") || text.contains("sesam") {
        return Err(text.into());
    }
    Ok(())
}
