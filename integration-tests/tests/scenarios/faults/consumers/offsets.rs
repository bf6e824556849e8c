//! Offsets that do not fit the queue: behind its end, of a queue that has just appeared, or of no group at all.

use std::{collections::BTreeSet, net::SocketAddr};

use integration_tests::{
    Failure,
    admin::{call, refused_with},
    fault_proxy::{Direction, Fault, FaultPath},
    history::{Event, Id, SendStatus, Sent},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target, brokers, create_topic},
};
use rocketmq_client::{
    Client, ConsumeFrom, MessageView,
    protocol::{
        RequestCode, ResponseCode,
        requests::{QueryConsumerOffset, UpdateConsumerOffset},
    },
};
use tokio::{sync::mpsc::channel, time::timeout};

use super::run::Run;
use crate::{
    inbox::{LIMIT, expect},
    raw,
};

scenarios![
    an_offset_beyond_the_end_costs_no_message_that_comes_later,
    the_queues_of_a_broker_that_joins_under_load_are_read_from_their_start,
    a_young_queue_is_offered_from_its_start_unless_that_is_not_wanted,
];

/// What a broker that was restored from an older copy of its data knows: an offset of the group behind its own end.
async fn an_offset_beyond_the_end_costs_no_message_that_comes_later(target: &Target) -> TestResult {
    const OLD: usize = 20;
    let (topic, group) = (target.topic("ahead"), target.group("ahead"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    for number in 0..OLD {
        raw::send(broker, &topic, 0, format!("old {number}").as_bytes(), &[]).await?;
    }
    // Brokers take offsets of groups that they know.
    let member = raw::join(broker, "somebody", &group, &topic).await?;
    let ahead = UpdateConsumerOffset {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: 0,
        commit_offset: 10_000,
    };
    call(broker, &ahead).await?;
    drop(member);
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut bodies) = channel(1_000);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::Last)
        .start(move |message: MessageView| {
            let (sender, body) = (sender.clone(), message.body().clone());
            async move { sender.send(body).await.map_err(|_| "the scenario has ended") }
        })
        .await?;
    let committed = async || {
        let query = QueryConsumerOffset {
            consumer_group: group.clone(),
            topic: topic.clone(),
            queue_id: 0,
            set_zero_if_not_found: None,
        };
        Ok::<_, Failure>(call(broker, &query).await?.offset)
    };
    eventually("an offset that the queue has", async || {
        Ok(committed().await? <= i64::try_from(OLD)?)
    })
    .await?;
    for number in 0..10 {
        raw::send(broker, &topic, 0, format!("new {number}").as_bytes(), &[]).await?;
    }
    let mut new = Vec::new();
    while new.len() < 10 {
        let body = timeout(LIMIT, bodies.recv())
            .await?
            .ok_or("the consumer is gone")?;
        let body = String::from_utf8_lossy(&body).into_owned();
        // Where the queue goes on is the broker's choice: at its start, or at its end.
        if body.starts_with("new") {
            new.push(body);
        }
    }
    new.sort_unstable();
    let wanted: Vec<String> = (0..10).map(|number| format!("new {number}")).collect();
    expect("new messages", new, wanted)?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn the_queues_of_a_broker_that_joins_under_load_are_read_from_their_start(
    target: &Target,
) -> TestResult {
    const QUEUES: i32 = 4;
    let servers = target.pair().await?;
    let name_server = servers.name_server();
    let all = brokers(&name_server).await?;
    let path = FaultPath::start(name_server.parse()?, &all).await?;
    servers.stop(1).await?;
    eventually("a cluster of one broker", async || {
        Ok(brokers(&name_server).await?.len() == 1)
    })
    .await?;
    let run = Run::on(target, &name_server, "joins", QUEUES).await?;
    let through = path.name_server.address().to_string();
    let member = run
        .consumer(&[("--name-server", &through), ("--from", "last")])
        .await?;
    // A message in each queue: when they are handled, the member has its place in all of them.
    eventually("the place of the member in every queue", async || {
        for queue in 0..QUEUES {
            greet(&run, *all.first().ok_or("no broker")?, queue).await?;
        }
        Ok(run.handled_up_to().len() == usize::try_from(QUEUES)?)
    })
    .await?;
    let producer = run.producer(&[("--rate", "200"), ("--senders", "2")]).await?;
    run.progress(100, "with one broker").await?;

    // As if the queues of the new broker had offsets of nobody, so that the group's own rule decides.
    let new = path.others.first().ok_or("no second broker")?;
    let unknown = new.inject(
        Direction::ToClient,
        Fault::Recode {
            code: RequestCode::QUERY_CONSUMER_OFFSET.0,
            to: ResponseCode::QUERY_NOT_FOUND.0,
        },
    );
    run.history.fault("a broker joins", None);
    servers.restart(1).await?;
    create_topic(&name_server, &run.topic, QUEUES).await?;
    eventually("questions for offsets of the new broker", async || {
        Ok(unknown.hits() > 0)
    })
    .await?;
    run.progress(300, "with two brokers").await?;
    let verdict = run.end(vec![producer], vec![member]).await?;
    let joined = run.history.collect(|line| match &line.event {
        Event::Send {
            status: SendStatus::Ok,
            place: Some(place),
            ..
        } => Some(place.broker.clone()),
        _ => None,
    });
    let joined: BTreeSet<String> = joined.into_iter().collect();
    expect("brokers that took messages", joined.len(), 2)?;
    verdict.complete()
}

/// Sends a message of the scenario's own to one queue. Whether a member gets it that starts at the end at the same time
/// is open.
async fn greet(run: &Run<'_>, broker: SocketAddr, queue: i32) -> TestResult {
    let (greetings, _) = run.history.unacknowledged();
    let id = Id {
        producer: 1_000,
        sequence: u32::try_from(greetings)?,
    };
    run.history.begun(id);
    let sent = raw::send(broker, &run.topic, queue, id.to_string().as_bytes(), &[]).await;
    run.history.sent(id, Sent::Unknown);
    sent.map(|_| ())
}

/// What a broker answers for a group that has no offset decides where a new group starts.
async fn a_young_queue_is_offered_from_its_start_unless_that_is_not_wanted(target: &Target) -> TestResult {
    let topic = target.topic("young");
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    raw::send(broker, &topic, 0, b"young", &[]).await?;
    let ask = async |queue_id, set_zero_if_not_found| {
        let query = QueryConsumerOffset {
            consumer_group: target.group("young"),
            topic: topic.clone(),
            queue_id,
            set_zero_if_not_found,
        };
        match call(broker, &query).await {
            Ok(answer) => Ok(Some(answer.offset)),
            Err(error) if refused_with(&error, ResponseCode::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    };
    // Real brokers put a message into its queue a moment after they have acknowledged it.
    eventually("the start of the queue", async || {
        Ok(ask(0, None).await? == Some(0))
    })
    .await?;
    expect("if zero is wanted", ask(0, Some(true)).await?, Some(0))?;
    let unwanted = match target.kind() {
        // It does not know the question.
        Kind::Rocketmq4 => Some(0),
        _ => None,
    };
    expect("if zero is not wanted", ask(0, Some(false)).await?, unwanted)
}
