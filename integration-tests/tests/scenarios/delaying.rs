//! Delivery at a time of the sender's choice, taking such messages back, and priorities.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use integration_tests::{
    Failure,
    admin::call,
    peer::{Language, Order, PeerConsumer, PeerProducer, Subscription},
    scenario::TestResult,
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, Error, ErrorKind, Message, MessageView, Persisted, SendReceipt,
    protocol::{
        BrokerVersion, JsonBody, RecallHandle, ResponseCode, bodies::HeartbeatData, property,
        requests::HeartBeat,
    },
};

use crate::inbox::{Inbox, expect};

scenarios![
    a_message_comes_at_the_time_that_the_sender_chose,
    a_time_that_is_past_is_now_and_one_too_far_is_refused,
    a_message_that_is_taken_back_does_not_come,
    a_priority_chooses_the_queue,
    delivery_times_cross_languages,
];

async fn version(target: &Target) -> Result<BrokerVersion, Failure> {
    let data = HeartbeatData {
        client_id: "asks-for-the-version".to_owned(),
        ..HeartbeatData::default()
    };
    let body = data.to_body()?;
    let answer = call(target.first_broker().await?, &HeartBeat { body }).await?;
    Ok(BrokerVersion(answer.version))
}

/// Whether the brokers deliver at times of the sender's choice.
pub(crate) async fn knows_times(target: &Target) -> Result<bool, Failure> {
    Ok(version(target).await? >= BrokerVersion::V5_0_0)
}

/// The error instead of a delivery that the sender did not want.
fn unsupported(sent: Result<SendReceipt, Error>, part: &str) -> TestResult {
    match sent {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::Unsupported)?;
            expect("persisted", error.persisted(), Persisted::No)?;
            let text = error.to_string();
            expect(&format!("{part:?} in {text:?}"), text.contains(part), true)
        }
        Ok(receipt) => Err(format!("a broker that cannot do it took the message: {receipt:?}").into()),
    }
}

/// Brokers cut times to whole seconds, so they may be a second early.
fn not_too_early(view: &MessageView, due: SystemTime) -> TestResult {
    let early = due.duration_since(view.store_time()).unwrap_or_default();
    let in_time = early <= Duration::from_millis(1100);
    expect(&format!("{early:?} early"), in_time, true)
}

async fn a_message_comes_at_the_time_that_the_sender_chose(target: &Target) -> TestResult {
    let topic = target.topic("timed");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let mut inbox = Inbox::open(&client, &target.group("timed"), &topic, "late || now").await?;
    let delayed = || {
        Message::new(&topic, "delayed")
            .tag("late")
            .delay(Duration::from_secs(3))
    };
    if !knows_times(target).await? {
        unsupported(producer.send(delayed()).await, "delivery times (5.0.0)")?;
        let at = Message::new(&topic, "at").deliver_at(SystemTime::now() + Duration::from_secs(3));
        unsupported(producer.send(at).detach().await, "use delay_level")?;
        producer.send(Message::new(&topic, "now").tag("now")).await?;
        expect("the only one", inbox.next().await?.body().as_ref(), b"now")?;
        client.shutdown().await;
        return Ok(());
    }
    let start = SystemTime::now();
    let receipt = producer.send(delayed()).await?;
    let at = start + Duration::from_secs(4);
    let timed = Message::new(&topic, "at").tag("late").deliver_at(at);
    producer.send(timed).detach().await?;
    let handle: RecallHandle = receipt.recall_handle.ok_or("no recall handle")?.parse()?;
    expect("topic of the handle", handle.topic.as_str(), topic.as_str())?;
    expect("id of the handle", &handle.unique_key, &receipt.message_id)?;
    let first = inbox.next().await?;
    expect("body", first.body().as_ref(), b"delayed")?;
    expect("id", first.message_id(), receipt.message_id)?;
    expect("topic", first.topic(), topic.as_str())?;
    expect("queue", first.queue().queue_id, receipt.queue.queue_id)?;
    not_too_early(&first, start + Duration::from_secs(3))?;
    let told = first.deliver_time().ok_or("no deliver time")?;
    let millis = told.duration_since(UNIX_EPOCH)?.as_millis();
    expect("cut to seconds", millis % 1000, 0u128)?;
    expect(
        "the handle says the same",
        handle.deliver_timestamp,
        i64::try_from(millis)? + 1,
    )?;
    for (name, value) in [
        (property::TIMER_DELAY_MS, "3000"),
        (property::REAL_TOPIC, topic.as_str()),
        (
            property::REAL_QUEUE_ID,
            receipt.queue.queue_id.to_string().as_str(),
        ),
    ] {
        expect(name, first.property(name), Some(value))?;
    }
    for name in [property::TIMER_ENQUEUE_MS, property::TIMER_DEQUEUE_MS] {
        expect(name, first.property(name).is_some(), true)?;
    }
    let second = inbox.next().await?;
    expect("body", second.body().as_ref(), b"at")?;
    not_too_early(&second, at)?;
    client.shutdown().await;
    Ok(())
}

async fn a_time_that_is_past_is_now_and_one_too_far_is_refused(target: &Target) -> TestResult {
    let topic = target.topic("limits");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let far = Message::new(&topic, "far").delay(Duration::from_secs(4 * 24 * 3600));
    let past = Message::new(&topic, "past").deliver_at(UNIX_EPOCH);
    if !knows_times(target).await? {
        unsupported(producer.send(past).await, "delivery times")?;
        client.shutdown().await;
        return Ok(());
    }
    match producer.send(far).await {
        Err(error) => {
            let code = error.response().map(|(code, _)| code);
            expect("code", code, Some(ResponseCode::MESSAGE_ILLEGAL))?;
            expect("persisted", error.persisted(), Persisted::No)?;
        }
        Ok(receipt) => return Err(format!("four days were taken: {receipt:?}").into()),
    }
    let receipt = producer.send(past).await?;
    expect("nothing to take back", receipt.recall_handle, None::<String>)?;
    let mut inbox = Inbox::open(&client, &target.group("limits"), &topic, "*").await?;
    let view = inbox.next().await?;
    expect("body", view.body().as_ref(), b"past")?;
    expect("offset", view.queue_offset(), receipt.queue_offset)?;
    client.shutdown().await;
    Ok(())
}

async fn a_message_that_is_taken_back_does_not_come(target: &Target) -> TestResult {
    let topic = target.topic("recalled");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    if !knows_times(target).await? {
        let receipt = producer
            .send(Message::new(&topic, "plain").delay_level(2))
            .await?;
        expect("no handle", receipt.recall_handle, None::<String>)?;
        let handle = RecallHandle {
            topic: topic.clone(),
            broker_name: receipt.queue.broker_name.to_string(),
            deliver_timestamp: i64::MAX,
            unique_key: receipt.message_id,
        };
        let error = producer.recall(&topic, &handle.to_string()).await;
        let error = error.err().ok_or("a broker of 4.9 took a message back")?;
        expect("kind", error.kind(), ErrorKind::Unsupported)?;
        client.shutdown().await;
        return Ok(());
    }
    let mut inbox = Inbox::open(&client, &target.group("recalled"), &topic, "*").await?;
    let send = |text: &'static str, seconds| {
        let message = Message::new(&topic, text).delay(Duration::from_secs(seconds));
        producer.send(message)
    };
    let unwanted = send("unwanted", 6).await?;
    let neighbour = send("neighbour", 6).await?;
    let handle = unwanted.recall_handle.ok_or("no recall handle")?;
    let id = producer.recall(&topic, &handle).await?;
    expect("id", id, unwanted.message_id)?;
    send("last", 9).await?;
    expect(
        "its neighbour comes",
        inbox.next().await?.message_id(),
        neighbour.message_id,
    )?;
    expect(
        "and nothing before the last",
        inbox.next().await?.body().as_ref(),
        b"last",
    )?;
    for (topic, handle, kind, part) in [
        (
            topic.as_str(),
            "nonsense",
            ErrorKind::Config,
            "recall_handle of a receipt",
        ),
        (
            "elsewhere",
            handle.as_str(),
            ErrorKind::Config,
            "is of a message to topic",
        ),
        (
            topic.as_str(),
            handle.as_str(),
            ErrorKind::Rejected,
            "was delivered",
        ),
    ] {
        let error = producer.recall(topic, handle).await;
        let error = error.err().ok_or("it was taken back")?;
        expect("kind", error.kind(), kind)?;
        let text = error.to_string();
        expect(&format!("{part:?} in {text:?}"), text.contains(part), true)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_priority_chooses_the_queue(target: &Target) -> TestResult {
    let topic = target.topic("urgent");
    target.create_topic(&topic, 4).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let urgent = |priority: u32| Message::new(&topic, priority.to_string()).priority(priority);
    if version(target).await? < BrokerVersion::V5_5_0 {
        unsupported(producer.send(urgent(1)).await, "priorities (5.5.0)")?;
        client.shutdown().await;
        return Ok(());
    }
    for priority in [0, 2, 99] {
        producer.send(urgent(priority)).await?;
    }
    let mut inbox = Inbox::open(&client, &target.group("urgent"), &topic, "*").await?;
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let view = inbox.next().await?;
        seen.insert((view.priority(), view.queue().queue_id));
    }
    let expected = BTreeSet::from([(Some(0), 0), (Some(2), 2), (Some(99), 3)]);
    expect("queues", seen, expected)?;
    client.shutdown().await;
    Ok(())
}

async fn delivery_times_cross_languages(target: &Target) -> TestResult {
    for language in Language::ALL {
        language.installed()?;
    }
    if !knows_times(target).await? {
        // Nobody's are kept there; that ours are refused is shown above.
        return Ok(());
    }
    let topic = target.topic("languages");
    target.create_topic(&topic, 4).await?;
    let start = SystemTime::now();
    let soon = start + Duration::from_secs(15);
    let at = soon.duration_since(UNIX_EPOCH)?.as_millis().to_string();
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("from-Rust")).start().await?;
    let ours = Message::new(&topic, "Rust").deliver_at(soon);
    let mut sent = BTreeSet::from([producer.send(ours).await?.message_id]);
    let urgent = version(target).await? >= BrokerVersion::V5_5_0;
    if urgent {
        let message = Message::new(&topic, "urgent Rust").priority(3);
        sent.insert(producer.send(message).await?.message_id);
    }
    for language in Language::ALL {
        let group = target.group(&format!("from-{language:?}"));
        let mut peer = PeerProducer::start(language, target.name_server(), &group).await?;
        let order = |name: &str, value: &str| Order {
            topic: topic.clone(),
            body: language.to_string().into_bytes(),
            protocol: [(name.to_owned(), value.to_owned())].into(),
            ..Order::default()
        };
        sent.insert(peer.send(&order(property::TIMER_DELIVER_MS, &at)).await?.msg_id);
        if urgent {
            sent.insert(peer.send(&order(property::PRIORITY, "3")).await?.msg_id);
        }
        peer.shutdown().await?;
    }
    let mut inbox = Inbox::open(&client, &target.group("to-Rust"), &topic, "*").await?;
    let mut received = BTreeSet::new();
    while received.len() < sent.len() {
        let view = inbox.next().await?;
        match view.priority() {
            Some(_) => expect("queue of the priority", view.queue().queue_id, 3)?,
            None => not_too_early(&view, soon)?,
        }
        received.insert(view.message_id());
    }
    expect("read by Rust", &received, &sent)?;
    client.shutdown().await;
    for language in Language::ALL {
        let group = target.group(&format!("to-{language:?}"));
        let subscription = Subscription::all(&group, &topic);
        let mut peer = PeerConsumer::start(language, target.name_server(), &subscription).await?;
        let mut received = BTreeSet::new();
        while received.len() < sent.len() {
            received.insert(peer.next().await?.msg_id);
        }
        peer.shutdown().await?;
        expect(&format!("read by {language}"), &received, &sent)?;
    }
    Ok(())
}
