//! Apache RocketMQ's own command line on a live consumer: what operators see of it, and what they make it do.

use std::collections::BTreeMap;

use integration_tests::{
    Failure,
    mqadmin::MqAdmin,
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Client, ConsumeFrom, Message, MessageView, Outcome, PushConsumer, Retry, SendReceipt,
    admin::SubscriptionGroupConfig,
};
use tokio::sync::mpsc::{Receiver, channel};

use crate::inbox::{Inbox, LIMIT, expect};

scenarios![
    operators_see_what_a_live_consumer_is_at,
    operators_move_a_live_consumer,
    operators_let_a_live_consumer_handle_one_message,
    the_dashboards_questions_are_answered_with_everything_java_tells,
];

/// A live consumer, and who looks at it.
struct Stage {
    client: Client,
    admin: MqAdmin,
    topic: String,
    group: String,
    receipts: Vec<SendReceipt>,
}

impl Stage {
    async fn set(target: &Target, messages: usize) -> Result<Self, Failure> {
        let (topic, group) = (target.topic("operated"), target.group("operated"));
        let admin = MqAdmin::new(target.name_server())?;
        target.create_topic(&topic, 1).await?;
        let client = Client::connect(target.name_server()).await?;
        client
            .admin()
            .create_group(&SubscriptionGroupConfig::new(&group))
            .await?;
        let producer = client.producer(target.group("writer")).start().await?;
        let mut receipts = Vec::new();
        for number in 0..messages {
            receipts.push(producer.send(Message::new(&topic, number.to_string())).await?);
        }
        Ok(Self {
            client,
            admin,
            topic,
            group,
            receipts,
        })
    }

    async fn open(&self) -> Result<Inbox, Failure> {
        Inbox::open(&self.client, &self.group, &self.topic, "*").await
    }

    /// The same for a command that asks brokers for the configuration of topics, which those of 4.9 do not tell.
    async fn prints_unless_old(
        &self,
        target: &Target,
        command: &str,
        arguments: &[&str],
        wanted: &[&str],
    ) -> TestResult {
        if target.kind() != Kind::Rocketmq4 {
            return self.prints(command, arguments, wanted).await.map(drop);
        }
        let (_, complaint) = self.admin.run_aloud(command, arguments).await?;
        let told = complaint.contains("request type 351 not supported");
        expect(&complaint, told, true)
    }

    /// Runs a command until it prints all of this: brokers gather what they tell.
    async fn prints(&self, command: &str, arguments: &[&str], wanted: &[&str]) -> Result<String, Failure> {
        let (mut printed, mut complaint) = (String::new(), String::new());
        eventually(command, async || {
            (printed, complaint) = self.admin.run_aloud(command, arguments).await?;
            Ok(wanted.iter().all(|text| printed.contains(text)))
        })
        .await
        .map_err(|error| format!("{error}: {wanted:?} in\n{printed}\n{complaint}"))?;
        Ok(printed)
    }

    async fn committed(&self, offset: i64) -> TestResult {
        let queue = &self.receipts.first().ok_or("nothing was sent")?.queue;
        let mut committed = None;
        eventually("the commit", async || {
            committed = self.client.admin().committed_offset(&self.group, queue).await?;
            Ok(committed == Some(offset))
        })
        .await
        .map_err(|error| format!("{error} of {offset}: it is {committed:?}").into())
    }
}

async fn operators_see_what_a_live_consumer_is_at(target: &Target) -> TestResult {
    let stage = Stage::set(target, 3).await?;
    let mut inbox = stage.open().await?;
    inbox.bodies(3).await?;
    stage.committed(3).await?;
    let (group, topic, id) = (
        stage.group.as_str(),
        stage.topic.as_str(),
        stage.client.client_id(),
    );
    stage
        .prints(
            "consumerStatus",
            &["-g", group, "-i", id, "-s"],
            &[
                "#Consumer Properties#",
                "PROP_CONSUMER_START_TIMESTAMP",
                "pullThresholdForQueue",
                "#Consumer RT&TPS#",
                "#Consumer jstack#",
                "workers: 20 of 20",
                topic,
            ],
        )
        .await?;
    stage
        .prints(
            "consumerStatus",
            &["-g", group],
            &[
                id,
                "Same subscription in the same group of consumer",
                "Rebalance OK",
            ],
        )
        .await?;
    stage
        .prints(
            "consumerConnection",
            &["-g", group],
            &[
                id,
                topic,
                "CONSUME_PASSIVELY",
                "CLUSTERING",
                "CONSUME_FROM_FIRST_OFFSET",
            ],
        )
        .await?;
    stage
        .prints_unless_old(
            target,
            "consumerProgress",
            &["-g", group],
            // It cuts long names.
            &[topic.get(..60).unwrap_or(topic), "Consume Diff Total: 0"],
        )
        .await?;
    stage
        .prints("getConsumerConfig", &["-g", group], &[group, "retryMaxTimes"])
        .await?;
    stage.client.shutdown().await;
    Ok(())
}

async fn operators_move_a_live_consumer(target: &Target) -> TestResult {
    let stage = Stage::set(target, 3).await?;
    let mut inbox = stage.open().await?;
    inbox.bodies(3).await?;
    stage.committed(3).await?;
    let (group, topic) = (stage.group.as_str(), stage.topic.as_str());
    let begin = ["-g", group, "-t", topic, "-s", "2001-01-01#00:00:00:000"];

    stage.admin.run("resetOffsetByTime", &begin).await?;
    expect("after a reset", inbox.bodies(3).await?, ["0", "1", "2"])?;
    stage.committed(3).await?;

    // Nothing is pulled any more, and what has piled up is skipped.
    inbox.consumer.pause();
    let producer = stage.client.producer(target.group("writer")).start().await?;
    for body in ["skipped", "skipped"] {
        producer.send(Message::new(topic, body)).await?;
    }
    stage
        .admin
        .run(
            "skipAccumulatedMessage",
            &["-g", group, "-t", topic, "-f", "true"],
        )
        .await?;
    inbox.consumer.resume();
    producer.send(Message::new(topic, "wanted")).await?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|body| body != "wanted") {
        seen.push(String::from_utf8_lossy(inbox.next().await?.body()).into_owned());
    }
    // The pull that the broker held when the consumer was paused may have brought the first of them.
    expect("skipped", seen.len() <= 2, true)?;
    stage.committed(6).await?;

    let copy = target.group("copy");
    stage
        .client
        .admin()
        .create_group(&SubscriptionGroupConfig::new(&copy))
        .await?;
    stage
        .prints_unless_old(
            target,
            "cloneGroupOffset",
            &["-s", group, "-d", &copy, "-t", topic, "-o", "true"],
            &["clone group offset success"],
        )
        .await?;
    if target.kind() != Kind::Rocketmq4 {
        let queue = &stage.receipts.first().ok_or("nothing was sent")?.queue;
        let cloned = stage.client.admin().committed_offset(&copy, queue).await?;
        expect("cloned", cloned, Some(6))?;
    }
    stage.client.shutdown().await;
    Ok(())
}

/// A consumer whose handler does what the body says.
async fn obedient(stage: &Stage) -> Result<(PushConsumer, Receiver<String>), Failure> {
    let (sender, handled) = channel(1000);
    let consumer = stage
        .client
        .push_consumer(&stage.group)
        .subscribe(&stage.topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                if message.reconsume_times() > 0 {
                    return Ok(Outcome::Ack);
                }
                let body = String::from_utf8_lossy(message.body()).into_owned();
                sender.send(body.clone()).await?;
                match body.as_str() {
                    "0" => Ok(Outcome::Ack),
                    "1" => Ok(Outcome::Retry(Retry::Level(18))),
                    _ => Err::<Outcome, rocketmq_client::BoxError>("no such order".into()),
                }
            }
        })
        .await?;
    Ok((consumer, handled))
}

async fn operators_let_a_live_consumer_handle_one_message(target: &Target) -> TestResult {
    let stage = Stage::set(target, 3).await?;
    let (consumer, mut handled) = obedient(&stage).await?;
    for _ in 0..3 {
        tokio::time::timeout(LIMIT, handled.recv()).await?;
    }
    stage.committed(3).await?;
    let results = ["CR_SUCCESS", "CR_LATER", "CR_THROW_EXCEPTION"];
    for (number, (receipt, result)) in stage.receipts.iter().zip(results).enumerate() {
        let id = receipt.offset_message_id.clone();
        let arguments = [
            "-i",
            id.as_str(),
            "-t",
            stage.topic.as_str(),
            "-g",
            stage.group.as_str(),
            "-d",
            stage.client.client_id(),
        ];
        let printed = stage.admin.run("queryMsgById", &arguments).await?;
        expect(&printed, printed.contains(result), true)?;
        let body = tokio::time::timeout(LIMIT, handled.recv()).await?;
        expect("handled", body, Some(number.to_string()))?;
    }
    // What an operator tries is not given back.
    expect("given back", consumer.stats().retried, 2)?;
    stage.committed(3).await?;
    stage.client.shutdown().await;
    Ok(())
}

async fn the_dashboards_questions_are_answered_with_everything_java_tells(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("asked"), target.group("asked"));
    target.create_topic(&topic, 2).await?;
    let client = Client::connect(target.name_server()).await?;
    let producer = client.producer(target.group("writer")).start().await?;
    for number in 0..8 {
        producer.send(Message::new(&topic, number.to_string())).await?;
    }
    let (hold, held) = tokio::sync::watch::channel(true);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .concurrency(3)
        .start(move |_: MessageView| {
            let mut held = held.clone();
            async move { held.wait_for(|held| !held).await.map(drop).map_err(|_| "over") }
        })
        .await?;
    eventually("all to be cached", async || Ok(consumer.stats().cached == 8)).await?;
    let admin = client.admin();
    let ask = async |stacks| {
        let mut found = None;
        eventually("the member to be asked", async || {
            found = admin
                .consumer_running_info(&group, client.client_id(), stacks)
                .await
                .ok();
            Ok(found.is_some())
        })
        .await?;
        found.ok_or_else(|| Failure::from("no answer"))
    };
    let info = ask(true).await?;
    let told: BTreeMap<_, _> = info
        .properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    for (name, value) in [
        ("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY"),
        ("PROP_CONSUMEORDERLY", "false"),
        ("PROP_THREADPOOL_CORE_SIZE", "3"),
        ("PROP_NAMESERVER_ADDR", target.name_server()),
        ("consumerGroup", &group),
        ("messageModel", "CLUSTERING"),
        ("consumeFromWhere", "CONSUME_FROM_FIRST_OFFSET"),
        ("allocateMessageQueueStrategy", "AVG"),
        ("consumeThreadMax", "3"),
        ("pullThresholdForQueue", "1000"),
        ("pullThresholdForTopic", "-1"),
        ("pullBatchSize", "32"),
        ("maxReconsumeTimes", "16"),
        ("consumeTimeout", "15"),
        ("enableTrace", "false"),
    ] {
        expect(name, told.get(name).copied(), Some(value))?;
    }
    let topics: Vec<_> = info
        .subscription_set
        .iter()
        .map(|one| one.topic.as_str())
        .collect();
    expect(
        "subscribed",
        topics.contains(&topic.as_str()) && topics.len() == 2,
        true,
    )?;
    expect("rates", info.status_table.contains_key(&topic), true)?;
    let jstack = info.jstack.ok_or("no text in place of stacks")?;
    expect(&jstack, jstack.contains("messages that were handed out: 3"), true)?;
    let mut cached = 0;
    for (queue, state) in info.mq_table.0.iter().filter(|(queue, _)| *queue.topic == topic) {
        cached += state.cached_msg_count;
        expect("consumed", state.commit_offset, 0)?;
        expect("lowest", state.cached_msg_min_offset, 0)?;
        expect(
            &format!("highest of {queue}"),
            state.cached_msg_max_offset,
            i64::from(state.cached_msg_count) - 1,
        )?;
        expect("pulled", state.last_pull_timestamp > 1_600_000_000_000, true)?;
        expect("dropped", state.droped, false)?;
    }
    expect("cached", cached, 8)?;

    hold.send_replace(false);
    eventually("all to be handled", async || {
        Ok(consumer.stats().acknowledged == 8)
    })
    .await?;
    let info = ask(false).await?;
    expect("text in place of stacks", info.jstack, None)?;
    let rates = info.status_table.get(&topic).ok_or("no rates")?;
    for rate in [
        rates.pull_tps,
        rates.pull_rt,
        rates.consume_ok_tps,
        rates.consume_rt,
    ] {
        expect("rate", rate > 0.0, true)?;
    }
    expect(
        "failed",
        (rates.consume_failed_tps, rates.consume_failed_msgs),
        (0.0, 0),
    )?;
    for (_, state) in info.mq_table.0.iter().filter(|(queue, _)| *queue.topic == topic) {
        let count = state.commit_offset;
        expect("consumed", count > 0, true)?;
        expect("left", state.cached_msg_count, 0)?;
        expect(
            "consumed when",
            state.last_consume_timestamp >= state.last_pull_timestamp - 60_000,
            true,
        )?;
    }
    expect("queues that are popped", info.mq_pop_table.0.len(), 0)?;
    client.shutdown().await;
    Ok(())
}
