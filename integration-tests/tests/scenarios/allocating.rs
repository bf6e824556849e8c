//! Who gets which queue: as Java's clients divide them, and in one group with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use integration_tests::{
    Failure,
    admin::call,
    peer::{Language, PeerConsumer, Subscription, allocations},
    scenario::{TestResult, skip},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    AllocateAveragely, AllocateByCircle, AllocateByConfig, AllocateByMachineRoom, AllocateConsistentHash,
    AllocateMachineRoomNearby, AllocateStrategy, Client, ConsumeFrom, MessageQueue, MessageView,
    PushConsumer,
    protocol::requests::{ConsumerListByGroup, QueryConsumerOffset},
};
use serde::Deserialize;
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::{Instant, sleep},
};

use crate::{inbox::expect, raw::send};

/// How long members may take to agree.
const SETTLED: Duration = Duration::from_secs(200);
/// For how long nothing of a round may come before the next one begins.
const ROUND: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

scenarios![
    every_strategy_divides_random_queues_as_java_does,
    members_of_java_and_rust_divide_by_average,
    members_of_java_and_rust_divide_by_circle,
    members_of_java_and_rust_divide_by_consistent_hash,
    a_member_takes_the_queues_that_it_is_configured_to,
];

#[derive(Debug, Deserialize)]
struct Case {
    strategy: String,
    members: Vec<String>,
    /// `topic/broker/number`
    queues: Vec<String>,
    rooms: Vec<String>,
    virtual_nodes: u32,
    shares: Vec<Vec<usize>>,
}

fn read_queue(text: &str) -> Result<MessageQueue, Failure> {
    let mut parts = text.split('/');
    let mut part = || parts.next().ok_or_else(|| format!("{text:?} is no queue"));
    Ok(MessageQueue::new(part()?, part()?, part()?.parse()?))
}

/// As `peers.Allocate` makes it.
fn strategy_of(case: &Case, queues: &[MessageQueue]) -> Result<Arc<dyn AllocateStrategy>, Failure> {
    let room = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    let room_of_queue = move |queue: &MessageQueue| room(&queue.broker_name);
    Ok(match case.strategy.as_str() {
        "AVG" => Arc::new(AllocateAveragely),
        "AVG_BY_CIRCLE" => Arc::new(AllocateByCircle),
        "CONSISTENT_HASH" => Arc::new(AllocateConsistentHash::virtual_nodes(case.virtual_nodes)),
        "CONFIG" => Arc::new(AllocateByConfig::new(queues.iter().take(2).cloned())),
        "MACHINE_ROOM" => Arc::new(AllocateByMachineRoom::new(case.rooms.clone())),
        "MACHINE_ROOM_NEARBY-AVG" => Arc::new(AllocateMachineRoomNearby::new(
            AllocateAveragely,
            room_of_queue,
            room,
        )),
        "MACHINE_ROOM_NEARBY-AVG_BY_CIRCLE" => Arc::new(AllocateMachineRoomNearby::new(
            AllocateByCircle,
            room_of_queue,
            room,
        )),
        "MACHINE_ROOM_NEARBY-CONSISTENT_HASH" => Arc::new(AllocateMachineRoomNearby::new(
            AllocateConsistentHash::default(),
            room_of_queue,
            room,
        )),
        other => return Err(format!("unknown strategy {other}").into()),
    })
}

async fn every_strategy_divides_random_queues_as_java_does(target: &Target) -> TestResult {
    if target.kind() != Kind::Embedded {
        return Err(skip("it needs no servers; the embedded target is enough"));
    }
    // Another seed each day: what fails is in the message.
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)?
        .as_secs();
    let seed = u32::try_from(seconds / 86_400)?;
    for language in [Language::Java5, Language::Java4] {
        let text = allocations(language, seed, 800).await?;
        let mut names = BTreeSet::new();
        for line in text.lines() {
            let case: Case = serde_json::from_str(line)?;
            let queues: Vec<MessageQueue> = case
                .queues
                .iter()
                .map(|text| read_queue(text))
                .collect::<Result<_, _>>()?;
            let strategy = strategy_of(&case, &queues)?;
            expect("name", strategy.name(), case.strategy.as_str())?;
            for (member, share) in case.members.iter().zip(&case.shares) {
                let wanted: Vec<&MessageQueue> =
                    share.iter().filter_map(|&place| queues.get(place)).collect();
                let ours = strategy.allocate(member, &case.members, &queues);
                if ours.iter().collect::<Vec<_>>() != wanted {
                    return Err(format!("{language}, seed {seed}: {member} of {line}: {ours:?}").into());
                }
            }
            names.insert(case.strategy);
        }
        expect("strategies", names.len(), 8)?;
    }
    Ok(())
}

async fn members_of_java_and_rust_divide_by_average(target: &Target) -> TestResult {
    share_with_java(target, AllocateAveragely).await
}

async fn members_of_java_and_rust_divide_by_circle(target: &Target) -> TestResult {
    share_with_java(target, AllocateByCircle).await
}

async fn members_of_java_and_rust_divide_by_consistent_hash(target: &Target) -> TestResult {
    share_with_java(target, AllocateConsistentHash::default()).await
}

/// A Rust member: what it is known as, and what it receives.
struct Member {
    client: Client,
    consumer: PushConsumer,
    messages: Receiver<(i32, Vec<u8>)>,
}

impl Member {
    async fn start(
        target: &Target,
        group: &str,
        topic: &str,
        strategy: impl AllocateStrategy,
    ) -> Result<Self, Failure> {
        let client = Client::connect(target.name_server()).await?;
        let (sender, messages) = channel(100_000);
        let consumer = client
            .push_consumer(group)
            .subscribe(topic, "*")
            .consume_from(ConsumeFrom::First)
            .allocate_strategy(strategy)
            .start(move |message: MessageView| {
                let sender = sender.clone();
                async move {
                    let delivery = (message.queue().queue_id, message.body().to_vec());
                    sender.send(delivery).await.map_err(|_| "the scenario has ended")
                }
            })
            .await?;
        Ok(Self {
            client,
            consumer,
            messages,
        })
    }

    async fn end(self) {
        self.consumer.shutdown().await;
        self.client.shutdown().await;
    }
}

/// Two members of Java, one of each version, and two of Rust divide twelve queues. Once all have heard of each other,
/// each message comes to the one member that the strategy says, and what all have committed is all there is.
async fn share_with_java<S: AllocateStrategy + Copy>(target: &Target, strategy: S) -> TestResult {
    const QUEUES: i32 = 12;
    for language in [Language::Java5, Language::Java4] {
        language.installed()?;
    }
    let (topic, group) = (target.topic("shared"), target.group("shared"));
    target.create_topic(&topic, QUEUES).await?;
    let broker = target.first_broker().await?;
    let subscription = Subscription::all(&group, &topic);
    let options = ["--strategy", strategy.name()];
    let of_java =
        |language| PeerConsumer::start_with(language, target.name_server(), &subscription, &options);
    let (mut java_5, mut java_4) = (of_java(Language::Java5).await?, of_java(Language::Java4).await?);
    let mut one = Member::start(target, &group, &topic, strategy).await?;
    let mut two = Member::start(target, &group, &topic, strategy).await?;
    let (first, second) = (
        one.client.client_id().to_owned(),
        two.client.client_id().to_owned(),
    );

    // Java divides anew every 20 s; a machine that is busy needs several rounds of that.
    let deadline = Instant::now() + SETTLED;
    let mut round = 0_i64;
    let mut settled = async || -> Result<bool, Failure> {
        round += 1;
        let this = round.to_string().into_bytes();
        for queue in 0..QUEUES {
            send(broker, &topic, queue, &this, &[]).await?;
        }
        let mut owners: BTreeMap<i32, BTreeSet<&str>> = BTreeMap::new();
        while owners.len() < usize::try_from(QUEUES)? {
            let (owner, queue, body) = tokio::select! {
                delivery = java_5.next() => delivery.map(|d| ("Java 5", d.queue_id, d.body))?,
                delivery = java_4.next() => delivery.map(|d| ("Java 4", d.queue_id, d.body))?,
                Some((queue, body)) = one.messages.recv() => (first.as_str(), queue, body),
                Some((queue, body)) = two.messages.recv() => (second.as_str(), queue, body),
                // A queue may be on its way from one member to another.
                () = sleep(ROUND) => return Ok(false),
            };
            if body == this {
                owners.entry(queue).or_default().insert(owner);
            }
        }
        let list = ConsumerListByGroup {
            consumer_group: group.clone(),
        };
        let mut members = call(broker, &list).await?.0.consumer_id_list;
        members.sort();
        members.dedup();
        if members.len() != 4 {
            return Ok(false);
        }
        let name = broker_name(target, &topic).await?;
        let queues: Vec<MessageQueue> = (0..QUEUES)
            .map(|queue| MessageQueue::new(topic.as_str(), name.as_str(), queue))
            .collect();
        let mut by_java = 0;
        for member in &members {
            for queue in strategy.allocate(member, &members, &queues) {
                let Some(owners) = owners.get(&queue.queue_id) else {
                    return Ok(false);
                };
                let expected = owners.len() == 1
                    && if *member == first || *member == second {
                        owners.contains(member.as_str())
                    } else {
                        by_java += 1;
                        owners.contains("Java 5") || owners.contains("Java 4")
                    };
                if !expected {
                    return Ok(false);
                }
            }
        }
        Ok(by_java > 0 || strategy.name() == "CONSISTENT_HASH")
    };
    while !settled().await? {
        if Instant::now() > deadline {
            return Err(format!("queues are not where they belong after {SETTLED:?}").into());
        }
        sleep(PAUSE).await;
    }

    java_5.shutdown().await?;
    java_4.shutdown().await?;
    one.end().await;
    two.end().await;
    // Everything was consumed by somebody who has told the broker so.
    for queue_id in 0..QUEUES {
        let query = QueryConsumerOffset {
            consumer_group: group.clone(),
            topic: topic.clone(),
            queue_id,
            set_zero_if_not_found: None,
        };
        let committed = call(broker, &query).await?.offset;
        expect(&format!("committed of queue {queue_id}"), committed, round)?;
    }
    Ok(())
}

async fn broker_name(target: &Target, topic: &str) -> Result<String, Failure> {
    let route = rocketmq_client::protocol::requests::RouteInfo {
        topic: topic.to_owned(),
        accept_standard_json_only: Some(true),
    };
    let route = call(target.name_server_address().await?, &route).await?.0;
    let broker = route.broker_datas.into_iter().next().ok_or("no broker")?;
    Ok(broker.broker_name)
}

async fn a_member_takes_the_queues_that_it_is_configured_to(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("config"), target.group("config"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    let name = broker_name(target, &topic).await?;
    let queue = |id| MessageQueue::new(topic.as_str(), name.as_str(), id);
    let mut odd = Member::start(
        target,
        &group,
        &topic,
        AllocateByConfig::new([queue(1), queue(3)]),
    )
    .await?;
    let mut even = Member::start(
        target,
        &group,
        &topic,
        AllocateByConfig::new([queue(0), queue(2)]),
    )
    .await?;
    for id in 0..4 {
        send(broker, &topic, id, b"x", &[]).await?;
    }
    for member in [&mut odd, &mut even] {
        let mut queues = BTreeSet::new();
        while queues.len() < 2 {
            let (queue, _) = member.messages.recv().await.ok_or("the consumer is gone")?;
            queues.insert(queue);
        }
    }
    let own = |member: &Member| -> Vec<i32> {
        let queues = member.consumer.stats().queues.into_iter();
        queues
            .filter(|queue| *queue.topic == *topic)
            .map(|queue| queue.queue_id)
            .collect()
    };
    expect("odd", own(&odd), vec![1, 3])?;
    expect("even", own(&even), vec![0, 2])?;
    odd.end().await;
    even.end().await;
    Ok(())
}
