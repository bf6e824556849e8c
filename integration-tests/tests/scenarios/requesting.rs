//! What requests promise: each gets its own reply, and ends when there is none.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    fault_proxy::{Direction, Fault, FaultPath},
    peer::{Language, Order, PeerReplier, PeerRequester},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Message, MessageView, Persisted, PushConsumer,
    protocol::{RequestCode, names::reply_topic},
};
use tokio::sync::{Notify, mpsc};

use crate::inbox::expect;

scenarios![
    each_of_many_requests_gets_its_own_reply,
    a_large_reply_is_compressed_on_its_way,
    a_request_without_a_reply_times_out_and_a_late_reply_is_counted,
    a_reply_that_gets_lost_leaves_nothing_behind,
    a_reply_to_a_client_that_is_gone_is_refused,
    a_reply_finds_a_client_one_of_whose_producers_has_gone,
    what_is_no_request_cannot_be_replied_to,
    requests_are_answered_across_languages,
];

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a request waits whose reply never comes: long enough for a busy machine to lose that reply meanwhile.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// Answers every message of a topic with its body behind `re: `.
async fn replier(client: &Client, group: &str, topic: &str) -> Result<PushConsumer, Failure> {
    let producer = client.producer(format!("{group}-replies")).start().await?;
    let consumer = client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |request: MessageView| {
            let producer = producer.clone();
            async move {
                let body = [b"re: ", request.body().as_ref()].concat();
                producer.send(Message::reply_to(&request, body)).await.map(drop)
            }
        })
        .await?;
    Ok(consumer)
}

async fn each_of_many_requests_gets_its_own_reply(target: &Target) -> TestResult {
    const REQUESTS: usize = 100;
    let topic = target.topic("many");
    target.create_topic(&topic, 4).await?;
    let answering = Client::connect(target.name_server()).await?;
    let _consumer = replier(&answering, &target.group("replier"), &topic).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("requester")).start().await?;
    let first = producer.request(Message::new(&topic, "first"), PATIENCE).await?;
    expect("the reply", first.body().as_ref(), b"re: first")?;
    expect("its topic", first.topic(), reply_topic("DefaultCluster").as_str())?;
    let handles: Vec<_> = (0..REQUESTS)
        .map(|index| {
            producer
                .request(Message::new(&topic, index.to_string()), PATIENCE)
                .detach()
        })
        .collect();
    for (index, handle) in handles.into_iter().enumerate() {
        let wanted = format!("re: {index}");
        expect("the reply", handle.await?.body().as_ref(), wanted.as_bytes())?;
    }
    expect(
        "waiting",
        (client.waiting_requests(), client.late_replies()),
        (0, 0),
    )?;
    client.shutdown().await;
    answering.shutdown().await;
    Ok(())
}

async fn a_large_reply_is_compressed_on_its_way(target: &Target) -> TestResult {
    let topic = target.topic("large");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let _consumer = replier(&client, &target.group("replier"), &topic).await?;
    let producer = client.producer(target.group("requester")).start().await?;
    let body = "0123456789".repeat(20_000);
    let reply = producer
        .request(Message::new(&topic, body.clone()), PATIENCE)
        .await?;
    expect("compressed", reply.record().body.len() < body.len() / 10, true)?;
    expect(
        "equal",
        reply.body().as_ref() == format!("re: {body}").as_bytes(),
        true,
    )?;
    client.shutdown().await;
    Ok(())
}

async fn a_request_without_a_reply_times_out_and_a_late_reply_is_counted(target: &Target) -> TestResult {
    let topic = target.topic("late");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let answering = client.producer(target.group("replies")).start().await?;
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let _consumer = client
        .push_consumer(target.group("replier"))
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |request: MessageView| {
            let (producer, gate) = (answering.clone(), Arc::clone(&gate));
            async move {
                gate.notified().await;
                producer.send(Message::reply_to(&request, "late")).await.map(drop)
            }
        })
        .await?;
    let producer = client.producer(target.group("requester")).start().await?;
    match producer
        .request(Message::new(&topic, "x"), Duration::from_secs(2))
        .await
    {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::Timeout)?;
            expect("persisted", error.persisted(), Persisted::Yes)?;
        }
        Ok(reply) => return Err(format!("a reply out of time: {reply:?}").into()),
    }
    expect("waiting", client.waiting_requests(), 0)?;
    go.notify_one();
    eventually("the late reply", async || Ok(client.late_replies() == 1)).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_reply_that_gets_lost_leaves_nothing_behind(target: &Target) -> TestResult {
    let topic = target.topic("lost");
    target.create_topic(&topic, 1).await?;
    let answering = Client::connect(target.name_server()).await?;
    let _consumer = replier(&answering, &target.group("replier"), &topic).await?;
    let path = FaultPath::start(target.name_server_address().await?, &target.brokers().await?).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client.producer(target.group("requester")).start().await?;
    // So that the consumer has its queue, and what is measured is the loss alone.
    producer.request(Message::new(&topic, "first"), PATIENCE).await?;
    let code = RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT.0;
    let rule = path
        .broker
        .inject_times(Direction::ToClient, Fault::DropRequest { code }, 1);
    let mut waiting = Box::pin(
        producer
            .request(Message::new(&topic, "lost"), LOST_AFTER)
            .into_future(),
    );
    tokio::select! {
        ended = &mut waiting => return Err(format!("ended without a reply: {ended:?}").into()),
        waits = eventually("the reply is lost", async || Ok(rule.hits() == 1)) => waits?,
    }
    expect("waiting", client.waiting_requests(), 1)?;
    match waiting.await {
        Err(error) => expect("kind", error.kind(), ErrorKind::Timeout)?,
        Ok(reply) => return Err(format!("a lost reply came: {reply:?}").into()),
    }
    expect("waiting", client.waiting_requests(), 0)?;
    // A request that is dropped takes its place with it.
    let mut dropped = Box::pin(
        producer
            .request(Message::new(&topic, "dropped"), PATIENCE)
            .into_future(),
    );
    tokio::select! {
        biased;
        ended = &mut dropped => return Err(format!("ended at once: {ended:?}").into()),
        () = std::future::ready(()) => {}
    }
    expect("waiting", client.waiting_requests(), 1)?;
    drop(dropped);
    expect("waiting", client.waiting_requests(), 0)?;
    // The way is as good as new.
    let reply = producer.request(Message::new(&topic, "again"), PATIENCE).await?;
    expect("the reply", reply.body().as_ref(), b"re: again")?;
    client.shutdown().await;
    answering.shutdown().await;
    Ok(())
}

async fn a_reply_to_a_client_that_is_gone_is_refused(target: &Target) -> TestResult {
    let topic = target.topic("gone");
    target.create_topic(&topic, 1).await?;
    let answering = Client::connect(target.name_server()).await?;
    let (sender, mut requests) = mpsc::channel(1);
    let _consumer = answering
        .push_consumer(target.group("replier"))
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |request: MessageView| {
            let sender = sender.clone();
            async move { sender.send(request).await.map_err(|_| "the scenario has ended") }
        })
        .await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("requester")).start().await?;
    let waiting = producer
        .request(Message::new(&topic, "x"), PATIENCE)
        .into_future();
    let request = tokio::select! {
        reply = waiting => return Err(format!("nobody replies: {reply:?}").into()),
        request = requests.recv() => request.ok_or("no request")?,
    };
    client.shutdown().await;
    let replies = answering.producer(target.group("replies")).start().await?;
    match replies.send(Message::reply_to(&request, "too late")).await {
        Err(error) => {
            expect("kind", error.kind(), ErrorKind::Rejected)?;
            expect("reason", error.to_string().contains("not found"), true)?;
        }
        Ok(receipt) => return Err(format!("a reply to nobody was taken: {receipt:?}").into()),
    }
    answering.shutdown().await;
    Ok(())
}

async fn what_is_no_request_cannot_be_replied_to(target: &Target) -> TestResult {
    let topic = target.topic("plain");
    target.create_topic(&topic, 1).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let replies = producer.clone();
    let _consumer = client
        .push_consumer(target.group("consumer"))
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let (replies, count) = (replies.clone(), Arc::clone(&count));
            async move {
                if let Err(error) = replies.send(Message::reply_to(&message, "re")).await
                    && error.kind() == ErrorKind::Config
                {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .await?;
    producer.send(Message::new(&topic, "no request")).await?;
    eventually("the refusal", async || Ok(refused.load(Ordering::SeqCst) == 1)).await?;
    client.shutdown().await;
    Ok(())
}

async fn a_reply_finds_a_client_one_of_whose_producers_has_gone(target: &Target) -> TestResult {
    let topic = target.topic("gone");
    target.create_topic(&topic, 1).await?;
    let answering = Client::connect(target.name_server()).await?;
    let _consumer = replier(&answering, &target.group("replier"), &topic).await?;
    let client = Client::connect(target.name_server()).await?;
    let stays = client.producer(target.group("stays")).start().await?;
    let goes = client.producer(target.group("goes")).start().await?;
    for body in ["before", "meanwhile", "after"] {
        let reply = stays.request(Message::new(&topic, body), PATIENCE).await?;
        expect(
            "the reply",
            reply.body().as_ref(),
            format!("re: {body}").as_bytes(),
        )?;
        goes.shutdown().await;
    }
    client.shutdown().await;
    answering.shutdown().await;
    Ok(())
}

async fn requests_are_answered_across_languages(target: &Target) -> TestResult {
    for language in Language::ALL {
        language.installed()?;
    }
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("requester")).start().await?;
    for language in Language::ALL {
        let at = |failure: Failure| format!("{language}: {failure}");
        // We ask, they answer.
        let topic = target.topic(&format!("to-{language:?}"));
        target.create_topic(&topic, 1).await?;
        let group = target.group(&format!("replier-{language:?}"));
        let mut peer = PeerReplier::start(language, target.name_server(), &group, &topic).await?;
        let reply = producer.request(Message::new(&topic, "größe"), PATIENCE).await?;
        expect(
            &format!("the reply of {language}"),
            reply.body().as_ref(),
            "re: größe".as_bytes(),
        )?;
        expect("replied", peer.replied().await.map_err(at)?.as_str(), "SEND_OK")?;
        peer.shutdown().await?;
        // They ask, we answer.
        let topic = target.topic(&format!("of-{language:?}"));
        target.create_topic(&topic, 1).await?;
        let group = target.group(&format!("ours-{language:?}"));
        let _consumer = replier(&client, &group, &topic).await?;
        let mut peer = PeerRequester::start(
            language,
            target.name_server(),
            &target.group(&format!("asks-{language:?}")),
        )
        .await?;
        let order = Order {
            topic,
            body: b"ping".to_vec(),
            ..Order::default()
        };
        let reply = peer.request(&order).await.map_err(at)?;
        expect(
            &format!("our reply to {language}"),
            reply.body.as_slice(),
            b"re: ping",
        )?;
        peer.shutdown().await?;
    }
    client.shutdown().await;
    Ok(())
}
