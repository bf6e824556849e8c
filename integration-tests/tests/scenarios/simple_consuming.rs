//! What a simple consumer promises: messages when it asks, to nobody else meanwhile, and again if they are not
//! acknowledged in time.

use std::{
    collections::BTreeSet,
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
    target::{Kind, Target},
};
use rocketmq_client::{
    Call, Client, ConsumeFrom, ErrorKind, Received, SimpleConsumer, SimpleConsumerBuilder,
    protocol::{RequestCode, property, requests::AckMessage},
};
use tower::ServiceBuilder;

use crate::{inbox::expect, raw::send};

scenarios![
    an_acknowledged_job_is_done_and_a_forgotten_one_comes_again,
    a_changed_time_counts_from_the_change,
    an_old_handle_acknowledges_nothing,
    a_consumer_takes_jobs_of_several_topics_by_their_tags,
    members_share_a_single_queue,
    an_orderly_queue_waits_for_what_was_received_of_it,
    a_receive_that_is_given_up_takes_nothing_with_it,
];

/// Longer than any scenario: nothing comes again by itself.
const LONG: Duration = Duration::from_secs(3600);
/// Short, for what is to come again.
const SHORT: Duration = Duration::from_secs(2);

/// Starts a consumer, or sees that an old broker is named as the reason why it does not; then there is nothing more to
/// see.
async fn start(target: &Target, builder: SimpleConsumerBuilder) -> Result<Option<SimpleConsumer>, Failure> {
    let started = builder.consume_from(ConsumeFrom::First).start().await;
    if target.kind() != Kind::Rocketmq4 {
        return Ok(Some(started?));
    }
    let error = started.err().ok_or("a broker of 4.9 hands out messages")?;
    expect("kind", error.kind(), ErrorKind::Unsupported)?;
    let text = error.to_string();
    expect(&text, text.contains("4.9.7") && text.contains("upgrade"), true)?;
    Ok(None)
}

/// Receives until there are so many, in the order they came.
async fn receive(
    consumer: &SimpleConsumer,
    count: usize,
    invisible: Duration,
) -> Result<Vec<Received>, Failure> {
    let mut jobs = Vec::new();
    eventually("enough messages", async || {
        jobs.extend(consumer.receive(count - jobs.len(), invisible).await?);
        Ok(jobs.len() >= count)
    })
    .await?;
    Ok(jobs)
}

fn bodies(jobs: &[Received]) -> Vec<String> {
    let mut bodies: Vec<_> = jobs.iter().map(body).collect();
    bodies.sort_unstable();
    bodies
}

fn body(job: &Received) -> String {
    String::from_utf8_lossy(job.body()).into_owned()
}

async fn store(target: &Target, topic: &str, queue: i32, bodies: &[&str]) -> TestResult {
    let broker = target.first_broker().await?;
    for body in bodies {
        send(broker, topic, queue, body.as_bytes(), &[]).await?;
    }
    Ok(())
}

async fn an_acknowledged_job_is_done_and_a_forgotten_one_comes_again(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("jobs"), target.group("jobs"));
    target.create_topic(&topic, 2).await?;
    store(target, &topic, 0, &["a", "b", "c"]).await?;
    store(target, &topic, 1, &["d", "e"]).await?;
    let client = Client::connect(target.name_server()).await?;
    let builder = client.simple_consumer(&group).subscribe(&topic, "*");
    let Some(simple) = start(target, builder).await? else {
        return Ok(());
    };
    let jobs = receive(&simple, 5, SHORT).await?;
    expect("jobs", bodies(&jobs), ["a", "b", "c", "d", "e"])?;
    expect("attempts", jobs.iter().all(|job| job.attempt() == 1), true)?;
    expect("topics", jobs.iter().all(|job| job.topic() == topic), true)?;
    // All but one: had another one not been acknowledged, it would come again with it.
    let (forgotten, done): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| body(job) == "b");
    let (alone, together) = done.split_at(1);
    simple.ack(alone[0]).await?;
    simple.ack_all(together.iter().copied()).await?;
    expect("forgotten", forgotten.len(), 1)?;
    let again = receive(&simple, 1, LONG).await?;
    expect("again", bodies(&again), ["b"])?;
    expect("attempt", again[0].attempt(), 2)?;
    expect("topic of a retry", again[0].topic(), topic.as_str())?;
    expect(
        "the same message",
        again[0].message_id(),
        forgotten[0].message_id(),
    )?;
    simple.ack(&again[0]).await?;
    let stats = simple.stats();
    expect("received", stats.received, 6)?;
    expect(
        "acknowledged",
        (stats.acknowledged, stats.not_acknowledged),
        (5, 0),
    )?;
    simple.shutdown().await;
    let closed = simple.receive(1, LONG).await.err().map(|error| error.kind());
    expect("after the shutdown", closed, Some(ErrorKind::Closed))?;
    client.shutdown().await;
    Ok(())
}

async fn a_changed_time_counts_from_the_change(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("changed"), target.group("changed"));
    target.create_topic(&topic, 1).await?;
    store(target, &topic, 0, &["kept", "witness"]).await?;
    let client = Client::connect(target.name_server()).await?;
    let builder = client.simple_consumer(&group).subscribe(&topic, "*");
    let Some(simple) = start(target, builder).await? else {
        return Ok(());
    };
    let mut jobs = receive(&simple, 2, SHORT).await?;
    for job in &mut jobs {
        if body(job) == "kept" {
            let before = job.receipt_handle().clone();
            simple.change_invisible(job, LONG).await?;
            expect("the handle changed", job.receipt_handle() == &before, false)?;
        }
    }
    // The other one comes again although both were received together.
    let again = receive(&simple, 1, LONG).await?;
    expect("again", bodies(&again), ["witness"])?;
    simple.ack(&again[0]).await?;
    // And back: it does not have to wait for its hour.
    for job in &mut jobs {
        if body(job) == "kept" {
            simple.change_invisible(job, Duration::ZERO).await?;
        }
    }
    let again = receive(&simple, 1, LONG).await?;
    expect("given back", bodies(&again), ["kept"])?;
    simple.ack(&again[0]).await?;
    expect("changed", simple.stats().changed, 2)?;
    client.shutdown().await;
    Ok(())
}

async fn an_old_handle_acknowledges_nothing(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("old"), target.group("old"));
    target.create_topic(&topic, 1).await?;
    store(target, &topic, 0, &["job"]).await?;
    let client = Client::connect(target.name_server()).await?;
    let builder = client.simple_consumer(&group).subscribe(&topic, "*");
    let Some(simple) = start(target, builder).await? else {
        return Ok(());
    };
    let mut jobs = receive(&simple, 1, LONG).await?;
    let old = jobs[0].receipt_handle().clone();
    simple.change_invisible(&mut jobs[0], SHORT).await?;
    let ack = AckMessage {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: old.queue_id,
        extra_info: old.to_string(),
        offset: old.offset,
        broker_name: Some(old.broker_name.to_string()),
    };
    client.call(&old.broker_name, ack).await?;
    let again = receive(&simple, 1, SHORT).await?;
    expect(
        "again",
        (body(&again[0]), again[0].attempt()),
        ("job".to_owned(), 2),
    )?;
    let third = receive(&simple, 1, LONG).await?;
    expect("and again", third[0].attempt(), 3)?;
    // Its time is over long ago: no error, and no effect.
    simple.ack(&again[0]).await?;
    simple.ack(&third[0]).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_consumer_takes_jobs_of_several_topics_by_their_tags(target: &Target) -> TestResult {
    let (one, two) = (target.topic("one"), target.topic("two"));
    let group = target.group("several");
    for topic in [&one, &two] {
        target.create_topic(topic, 2).await?;
    }
    let broker = target.first_broker().await?;
    // "Aa" and "BB" have the same hash, which is all that the broker compares.
    for (index, tag) in ["Aa", "BB", "Aa", "C"].iter().enumerate() {
        let body = format!("one {index} {tag}");
        let queue = i32::try_from(index % 2)?;
        send(broker, &one, queue, body.as_bytes(), &[(property::TAGS, tag)]).await?;
    }
    store(target, &two, 1, &["two 0", "two 1"]).await?;
    let client = Client::connect(target.name_server()).await?;
    let builder = client
        .simple_consumer(&group)
        .subscribe(&one, "Aa")
        .subscribe(&two, "*");
    let Some(simple) = start(target, builder).await? else {
        return Ok(());
    };
    let jobs = receive(&simple, 4, LONG).await?;
    expect("jobs", bodies(&jobs), ["one 0 Aa", "one 2 Aa", "two 0", "two 1"])?;
    simple.ack_all(&jobs).await?;
    // What is sent while a receive waits ends it.
    let (received, sent) = tokio::join!(receive(&simple, 1, LONG), store(target, &two, 0, &["two 2"]));
    sent?;
    expect("later", bodies(&received?), ["two 2"])?;
    client.shutdown().await;
    Ok(())
}

async fn members_share_a_single_queue(target: &Target) -> TestResult {
    const JOBS: usize = 40;
    let (topic, group) = (target.topic("shared"), target.group("shared"));
    target.create_topic(&topic, 1).await?;
    let names: Vec<String> = (0..JOBS).map(|job| format!("{job:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    store(target, &topic, 0, &names).await?;
    let clients = [
        Client::builder(target.name_server())
            .instance_name("one")
            .connect()
            .await?,
        Client::builder(target.name_server())
            .instance_name("two")
            .connect()
            .await?,
    ];
    let mut members = Vec::new();
    for client in &clients {
        let builder = client.simple_consumer(&group).subscribe(&topic, "*");
        let Some(member) = start(target, builder).await? else {
            return Ok(());
        };
        members.push(member);
    }
    let mut seen = BTreeSet::new();
    for turn in 0..JOBS / 4 {
        let jobs = receive(&members[turn % 2], 4, LONG).await?;
        for job in &jobs {
            expect("seen before", !seen.insert(body(job)), false)?;
        }
        members[turn % 2].ack_all(&jobs).await?;
    }
    expect("jobs", seen.len(), JOBS)?;
    let received = members.iter().map(|member| member.stats().received);
    expect("shares", received.collect::<Vec<_>>(), [20, 20])?;
    for client in clients {
        client.shutdown().await;
    }
    Ok(())
}

async fn an_orderly_queue_waits_for_what_was_received_of_it(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("orderly"), target.group("orderly"));
    target.create_topic(&topic, 1).await?;
    store(target, &topic, 0, &["0", "1", "2", "3"]).await?;
    let clients = [
        Client::builder(target.name_server())
            .instance_name("one")
            .connect()
            .await?,
        Client::builder(target.name_server())
            .instance_name("two")
            .connect()
            .await?,
    ];
    let mut members = Vec::new();
    for client in &clients {
        let builder = client.simple_consumer(&group).subscribe(&topic, "*").orderly();
        let Some(member) = start(target, builder.await_duration(Duration::ZERO)).await? else {
            return Ok(());
        };
        members.push(member);
    }
    let in_order = |jobs: &[Received]| jobs.iter().map(body).collect::<Vec<_>>();
    let first = receive(&members[0], 2, LONG).await?;
    expect("first", in_order(&first), ["0", "1"])?;
    expect_blocked(&members[1]).await?;
    members[0].ack(&first[0]).await?;
    expect_blocked(&members[1]).await?;
    members[0].ack(&first[1]).await?;
    let mut second = receive(&members[1], 2, LONG).await?;
    expect("second", in_order(&second), ["2", "3"])?;
    expect("attempts", second.iter().all(|job| job.attempt() == 1), true)?;
    for job in &mut second {
        members[1].change_invisible(job, Duration::ZERO).await?;
    }
    let again = receive(&members[0], 2, LONG).await?;
    expect("again, in order", in_order(&again), ["2", "3"])?;
    expect("attempts", again.iter().all(|job| job.attempt() == 2), true)?;
    members[0].ack_all(&again).await?;
    for client in clients {
        client.shutdown().await;
    }
    Ok(())
}

async fn expect_blocked(member: &SimpleConsumer) -> TestResult {
    let jobs = member.receive(4, LONG).await?;
    expect("of a queue that waits", bodies(&jobs), Vec::<String>::new())
}

async fn a_receive_that_is_given_up_takes_nothing_with_it(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("given-up"), target.group("given-up"));
    target.create_topic(&topic, 1).await?;
    let waits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&waits);
    let client = Client::builder(target.name_server())
        .request_layer(ServiceBuilder::new().map_request(move |call: Call| {
            if call.code == RequestCode::NOTIFICATION {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            call
        }))
        .connect()
        .await?;
    let builder = client.simple_consumer(&group).subscribe(&topic, "*");
    let Some(simple) = start(target, builder).await? else {
        return Ok(());
    };
    tokio::select! {
        received = simple.receive(1, LONG) => return Err(format!("{received:?} of an empty topic").into()),
        waiting = eventually("a receive that waits", async || Ok(waits.load(Ordering::SeqCst) > 0)) => waiting?,
    }
    // A broker that still held the receive would hand this to nobody.
    store(target, &topic, 0, &["job"]).await?;
    let jobs = receive(&simple, 1, LONG).await?;
    expect("job", (body(&jobs[0]), jobs[0].attempt()), ("job".to_owned(), 1))?;
    simple.ack(&jobs[0]).await?;
    expect("released", simple.stats().released, 0)?;
    client.shutdown().await;
    Ok(())
}
