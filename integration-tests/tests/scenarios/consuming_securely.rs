//! Consumers where not everybody may consume, and where everything is signed, encrypted, traced and a tenant's.

use std::collections::BTreeSet;

use integration_tests::{
    scenario::{TestResult, eventually},
    scenarios,
    target::{
        Target,
        secure::{SENDER, SecureServer, Theme, WORKERS, account},
    },
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Message, MessageView, Outcome, Retry, RotatingCredentials, Tls, Trace,
    protocol::trace::{SubAfterTrace, TraceRecord},
};
use tokio::{sync::mpsc::channel, time::timeout};

use crate::inbox::{Inbox, LIMIT, expect};

scenarios![
    who_may_not_consume_is_told_so_at_the_start,
    a_consumer_that_loses_its_permission_says_so_and_goes_on_when_it_has_it_again,
    a_tenants_consumer_is_signed_encrypted_and_traced,
];

const NAMESPACE: &str = "tenant-a";

async fn who_may_not_consume_is_told_so_at_the_start(target: &Target) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let topic = target.topic("denied");
    let client = Client::builder(server.name_server())
        .credentials(account(SENDER))
        .connect()
        .await?;
    let producer = client.producer(target.group("sender")).start().await?;
    producer.send(Message::new(&topic, "sent")).await?;

    let group = target.group("denied");
    let start = || {
        client
            .push_consumer(&group)
            .subscribe(&topic, "*")
            .start(|_: MessageView| async {})
    };
    // The second time too: nothing of the first one is left.
    for _ in 0..2 {
        let error = start().await.err().ok_or("the consumer may consume")?;
        expect("kind", error.kind(), ErrorKind::Auth)?;
        let text = error.to_string();
        for wanted in [&*group, "may not join", SENDER] {
            expect(&format!("{wanted} in {text}"), text.contains(wanted), true)?;
        }
    }
    // Nor does it get in the way of what the client may do.
    producer.send(Message::new(&topic, "sent")).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_consumer_that_loses_its_permission_says_so_and_goes_on_when_it_has_it_again(
    target: &Target,
) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let topic = target.topic("revoked");
    let keys = RotatingCredentials::new(account(WORKERS[0]));
    let client = Client::builder(server.name_server())
        .credentials(keys.clone())
        .connect()
        .await?;
    let producer = client.producer(target.group("sender")).start().await?;
    producer.send(Message::new(&topic, "before")).await?;
    let mut inbox = Inbox::open(&client, &target.group("revoked"), &topic, "*").await?;
    expect("before", inbox.bodies(1).await?, ["before"])?;
    expect("refused", inbox.consumer.stats().refused, None)?;

    keys.rotate(account(SENDER));
    // The pulls that brokers hold were permitted; a message makes them answer.
    eventually("the consumer to be refused", async || {
        producer.send(Message::new(&topic, "meanwhile")).await?;
        Ok(inbox.consumer.stats().refused.is_some())
    })
    .await?;
    let refused = inbox
        .consumer
        .stats()
        .refused
        .ok_or("nothing is refused any more")?;
    expect(&refused, refused.contains(SENDER), true)?;

    keys.rotate(account(WORKERS[1]));
    producer.send(Message::new(&topic, "after")).await?;
    while &inbox.next().await?.body()[..] != b"after" {}
    eventually("nothing to be refused any more", async || {
        Ok(inbox.consumer.stats().refused.is_none())
    })
    .await?;
    client.shutdown().await;
    Ok(())
}

async fn a_tenants_consumer_is_signed_encrypted_and_traced(target: &Target) -> TestResult {
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let (topic, traces, group) = (
        target.topic("tenant"),
        target.topic("traces"),
        target.group("tenant"),
    );
    let builder = || {
        Client::builder(server.name_server())
            .credentials(account(WORKERS[0]).security_token("of one session"))
            .tls(Tls::new().ca_pem(server.authority().pem()))
            .namespace(NAMESPACE)
    };
    let client = builder().trace(Trace::new().topic(&traces)).connect().await?;
    let producer = client.producer(target.group("writer")).start().await?;
    let receipt = producer.send(Message::new(&topic, "again").key("k1")).await?;
    let (sender, mut deliveries) = channel(16);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let outcome = match message.reconsume_times() {
                    0 => Outcome::Retry(Retry::Level(1)),
                    _ => Outcome::Ack,
                };
                // The scenario may have seen enough.
                let _ = sender.send(message).await;
                outcome
            }
        })
        .await?;
    for times in [0, 1] {
        let message = timeout(LIMIT, deliveries.recv()).await?.ok_or("no consumer")?;
        expect("topic", message.topic(), &*topic)?;
        expect("retries", message.reconsume_times(), times)?;
    }
    let queues: BTreeSet<_> = consumer
        .progress()
        .into_iter()
        .map(|progress| progress.queue.topic.to_string())
        .collect();
    expect("topics as the tenant names them", queues.contains(&topic), true)?;
    consumer.shutdown().await;
    client.shutdown().await;
    let stats = client.trace_stats().ok_or("no message trace")?;
    expect("lost records", (stats.dropped, stats.failed), (0, 0))?;

    let reader = builder().connect().await?;
    let mut inbox = Inbox::open(&reader, &target.group("reader"), &traces, "*").await?;
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    while ended.len() < 2 {
        let message = inbox.next().await?;
        for record in TraceRecord::decode_all(std::str::from_utf8(message.body())?)? {
            expect("id", record.message_id(), &*receipt.message_id)?;
            match record {
                TraceRecord::SubBefore(before) => {
                    expect("group", before.group.contains(&*group), true)?;
                    began.push(before.retry_times);
                }
                TraceRecord::SubAfter(after) => ended.push((after.context_code, after.success)),
                _ => {}
            }
        }
    }
    began.sort_unstable();
    ended.sort_unstable();
    expect("deliveries", began, [0, 1])?;
    expect(
        "their ends",
        ended,
        [(SubAfterTrace::SUCCESS, true), (SubAfterTrace::FAILED, false)],
    )?;
    reader.shutdown().await;
    Ok(())
}
