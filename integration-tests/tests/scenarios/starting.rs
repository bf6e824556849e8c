//! Where a group starts in a queue, and what becomes of queues that come and go while it runs.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use integration_tests::{
    Failure,
    admin::{call, refused_with},
    peer::{Language, PeerConsumer, Subscription},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Target, brokers, create_topic},
};
use rocketmq_client::{
    Client, ConsumeFrom, MessageView, PushConsumer,
    protocol::{
        ResponseCode,
        bodies::{TopicFilterType, permission},
        requests::{CreateTopic, QueryConsumerOffset, SearchOffset, UpdateConsumerOffset},
    },
};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

use crate::{
    inbox::{LIMIT, expect},
    raw::{join, send},
};

scenarios![
    a_group_starts_at_a_time_where_java_does,
    queues_that_come_and_go_lose_nothing,
    a_topic_that_stops_to_be_read_or_written_loses_nothing,
    a_broker_that_comes_loses_nothing,
    a_topic_that_comes_loses_nothing,
    an_offset_beyond_the_end_skips_nothing_that_came_since,
];

struct Member {
    client: Client,
    consumer: PushConsumer,
    messages: Receiver<String>,
}

impl Member {
    async fn start(name_server: &str, group: &str, topic: &str, from: ConsumeFrom) -> Result<Self, Failure> {
        let client = Client::builder(name_server)
            .route_refresh_interval(Duration::from_secs(1))
            .connect()
            .await?;
        let (sender, messages) = channel(100_000);
        let consumer = client
            .push_consumer(group)
            .subscribe(topic, "*")
            .consume_from(from)
            .start(move |message: MessageView| {
                let sender = sender.clone();
                async move {
                    let text = String::from_utf8_lossy(message.body()).into_owned();
                    sender.send(text).await.map_err(|_| "the scenario has ended")
                }
            })
            .await?;
        Ok(Self {
            client,
            consumer,
            messages,
        })
    }

    fn queues(&self, topic: &str) -> usize {
        let queues = self.consumer.stats().queues.into_iter();
        queues.filter(|queue| *queue.topic == *topic).count()
    }

    async fn next(&mut self) -> Result<String, Failure> {
        match timeout(LIMIT, self.messages.recv()).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err("the consumer is gone".into()),
            Err(_) => Err(format!("no message in {LIMIT:?}").into()),
        }
    }

    /// Waits until it has received all of these.
    async fn receives(&mut self, mut wanted: BTreeSet<String>) -> TestResult {
        while !wanted.is_empty() {
            let body = self
                .next()
                .await
                .map_err(|error| format!("{error}; still missing {wanted:?}"))?;
            wanted.remove(&body);
        }
        Ok(())
    }

    async fn end(self) {
        self.consumer.shutdown().await;
        self.client.shutdown().await;
    }
}

/// One message for each of these queues.
async fn fill(
    broker: SocketAddr,
    topic: &str,
    what: &str,
    queues: std::ops::Range<i32>,
) -> Result<BTreeSet<String>, Failure> {
    let mut sent = BTreeSet::new();
    for queue in queues {
        let body = format!("{what} {queue}");
        send(broker, topic, queue, body.as_bytes(), &[]).await?;
        sent.insert(body);
    }
    Ok(sent)
}

async fn change(broker: SocketAddr, topic: &str, read: i32, write: i32, perm: i32) -> TestResult {
    let request = CreateTopic {
        topic: topic.to_owned(),
        default_topic: "TBW102".to_owned(),
        read_queue_nums: read,
        write_queue_nums: write,
        perm,
        topic_filter_type: TopicFilterType::SingleTag,
        topic_sys_flag: Some(0),
        order: false,
        attributes: None,
    };
    call(broker, &request).await?;
    Ok(())
}

const ALL: i32 = permission::READ | permission::WRITE;

async fn a_group_starts_at_a_time_where_java_does(target: &Target) -> TestResult {
    for language in [Language::Java5, Language::Java4] {
        language.installed()?;
    }
    let topic = target.topic("time");
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    fill(broker, &topic, "before", 0..1).await?;
    fill(broker, &topic, "too", 0..1).await?;
    // Java's times are whole seconds: the next one has to begin between the two halves.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 2;
    let border = UNIX_EPOCH + Duration::from_secs(seconds);
    eventually("the next second", async || {
        Ok(SystemTime::now() > border + Duration::from_millis(100))
    })
    .await?;
    fill(broker, &topic, "after", 0..1).await?;
    fill(broker, &topic, "last", 0..1).await?;
    // A broker that has all of a queue in memory answers 0 to a group without an offset, whatever the group's setting.
    let query = QueryConsumerOffset {
        consumer_group: target.group("time-nobody"),
        topic: topic.clone(),
        queue_id: 0,
        set_zero_if_not_found: None,
    };
    let first = match call(broker, &query).await {
        Ok(answer) => answer.offset,
        Err(error) if refused_with(&error, ResponseCode::QUERY_NOT_FOUND) => {
            let search = SearchOffset {
                topic: topic.clone(),
                queue_id: 0,
                timestamp: i64::try_from(seconds)? * 1000,
                boundary_type: None,
            };
            // 4.9 answers the message that is nearest in time, which may be the one before.
            call(broker, &search).await?.offset
        }
        Err(error) => return Err(error),
    };
    let bodies = ["before 0", "too 0", "after 0", "last 0"];
    let expected: BTreeSet<String> = bodies
        .into_iter()
        .skip(usize::try_from(first)?)
        .map(str::to_owned)
        .collect();

    let text = java_time(seconds);
    let options = ["--consume-from", "TIMESTAMP", "--consume-timestamp", &text];
    for language in [Language::Java5, Language::Java4] {
        let group = target.group(&format!("time-{language:?}"));
        let subscription = Subscription::all(&group, &topic);
        let mut java =
            PeerConsumer::start_with(language, target.name_server(), &subscription, &options).await?;
        let mut received = BTreeSet::new();
        while received.len() < expected.len() {
            received.insert(String::from_utf8(java.next().await?.body)?);
        }
        java.shutdown().await?;
        expect(&language.to_string(), &received, &expected)?;
    }
    let from = ConsumeFrom::timestamp(&text, 0)?;
    expect("the time", from, ConsumeFrom::Timestamp(border))?;
    let mut member = Member::start(target.name_server(), &target.group("time-rust"), &topic, from).await?;
    let mut received = BTreeSet::new();
    while received.len() < expected.len() {
        received.insert(member.next().await?);
    }
    member.end().await;
    expect("Rust", &received, &expected)
}

/// As Java writes a time; the peers run in UTC.
fn java_time(seconds: u64) -> String {
    let days = seconds / 86_400;
    let (mut year, mut day) = (1970, days);
    let length = |year: u64| {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        365 + u64::from(leap)
    };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let february = length(year) - 337;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{:02}{hour:02}{minute:02}{second:02}", day + 1)
}

async fn queues_that_come_and_go_lose_nothing(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("queues"), target.group("queues"));
    target.create_topic(&topic, 4).await?;
    let broker = target.first_broker().await?;
    // What was there before the group is not what it is after.
    let mut one = Member::start(target.name_server(), &group, &topic, ConsumeFrom::Last).await?;
    eventually("four queues", async || Ok(one.queues(&topic) == 4)).await?;
    one.receives(fill(broker, &topic, "four", 0..4).await?).await?;

    change(broker, &topic, 8, 8, ALL).await?;
    // Nobody has heard of the new queues yet.
    one.receives(fill(broker, &topic, "eight", 0..8).await?).await?;
    eventually("eight queues", async || Ok(one.queues(&topic) == 8)).await?;

    let mut two = Member::start(target.name_server(), &group, &topic, ConsumeFrom::Last).await?;
    let mut wanted = fill(broker, &topic, "shared", 0..8).await?;
    while !wanted.is_empty() {
        let body = tokio::select! {
            body = one.next() => body?,
            body = two.next() => body?,
        };
        wanted.remove(&body);
    }
    two.end().await;

    // Writing stops before reading: what is in the queues that go is read to the end.
    let last = fill(broker, &topic, "last", 0..8).await?;
    change(broker, &topic, 8, 2, ALL).await?;
    one.receives(last).await?;
    change(broker, &topic, 2, 2, ALL).await?;
    one.receives(fill(broker, &topic, "two", 0..2).await?).await?;
    eventually("two queues", async || Ok(one.queues(&topic) == 2)).await?;

    // And back: the queues go on where they were left.
    change(broker, &topic, 8, 8, ALL).await?;
    one.receives(fill(broker, &topic, "again", 0..8).await?).await?;
    one.end().await;
    Ok(())
}

async fn a_topic_that_stops_to_be_read_or_written_loses_nothing(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("permission"), target.group("permission"));
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    let mut member = Member::start(target.name_server(), &group, &topic, ConsumeFrom::First).await?;
    member.receives(fill(broker, &topic, "both", 0..2).await?).await?;
    let left = fill(broker, &topic, "left", 0..2).await?;
    change(broker, &topic, 2, 2, permission::READ).await?;
    // Clients stop to write by the route; brokers would still take a message.
    member.receives(left).await?;
    change(broker, &topic, 2, 2, permission::WRITE).await?;
    let waiting = fill(broker, &topic, "waiting", 0..2).await?;
    change(broker, &topic, 2, 2, ALL).await?;
    member.receives(waiting).await?;
    member
        .receives(fill(broker, &topic, "again", 0..2).await?)
        .await?;
    member.end().await;
    Ok(())
}

async fn a_broker_that_comes_loses_nothing(target: &Target) -> TestResult {
    let pair = target.pair().await?;
    let (topic, group) = (target.topic("broker"), target.group("broker"));
    let all = brokers(&pair.name_server()).await?;
    let [first, second] = all.as_slice() else {
        return Err(format!("a pair of {}", all.len()).into());
    };
    change(*first, &topic, 2, 2, ALL).await?;
    let mut member = Member::start(&pair.name_server(), &group, &topic, ConsumeFrom::Last).await?;
    eventually(
        "the queues of one broker",
        async || Ok(member.queues(&topic) == 2),
    )
    .await?;
    member.receives(fill(*first, &topic, "one", 0..2).await?).await?;
    // The other one gets the topic, and messages before anybody has heard of it.
    change(*second, &topic, 2, 2, ALL).await?;
    let wanted = fill(*second, &topic, "two", 0..2).await?;
    member.receives(wanted).await?;
    member.end().await;
    Ok(())
}

async fn a_topic_that_comes_loses_nothing(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("late"), target.group("late"));
    let mut member = Member::start(target.name_server(), &group, &topic, ConsumeFrom::Last).await?;
    create_topic(target.name_server(), &topic, 2).await?;
    let broker = target.first_broker().await?;
    member
        .receives(fill(broker, &topic, "first", 0..2).await?)
        .await?;
    member.end().await;
    Ok(())
}

/// A broker that crashes may lose the end of a queue, and give its offsets to new messages; the group's offset is then
/// beyond the end.
async fn an_offset_beyond_the_end_skips_nothing_that_came_since(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("beyond"), target.group("beyond"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let _known = join(broker, "first", &group, &topic).await?;
    let commit = UpdateConsumerOffset {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: 0,
        commit_offset: 1_000,
    };
    call(broker, &commit).await?;
    let new = fill(broker, &topic, "new", 0..1).await?;
    let newer = fill(broker, &topic, "newer", 0..1).await?;
    let mut member = Member::start(target.name_server(), &group, &topic, ConsumeFrom::Last).await?;
    member.receives(new.union(&newer).cloned().collect()).await?;
    member
        .receives(fill(broker, &topic, "newest", 0..1).await?)
        .await?;
    member.end().await;
    Ok(())
}
