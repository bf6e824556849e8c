//! Java consumers that pop: the broker divides the queues and says that they are popped, an operator's tool switches.

use std::collections::BTreeMap;

use integration_tests::{
    admin::call,
    mqadmin::MqAdmin,
    peer::{Language, PeerConsumer, Subscription},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::protocol::requests::{PollingInfo, QueryConsumerOffset};

use crate::raw::send;

scenarios![a_java_consumer_pops_when_the_tool_says_so,];

async fn a_java_consumer_pops_when_the_tool_says_so(target: &Target) -> TestResult {
    if target.kind() == Kind::Rocketmq4 {
        return Ok(());
    }
    let (topic, group) = (target.topic("java"), target.group("java"));
    target.create_topic(&topic, 2).await?;
    let broker = target.first_broker().await?;
    let address = broker.to_string();
    let tool = MqAdmin::new(target.name_server())?;
    let mode = ["-b", &address, "-t", &topic, "-g", &group, "-m", "POP", "-q", "0"];
    let said = tool.run("setConsumeMode", &mode).await?;
    if !said.contains("success") {
        return Err(format!("mqadmin setConsumeMode: {said}").into());
    }

    let refusing = Subscription {
        fail: 1,
        ..Subscription::all(&group, &topic)
    };
    let own_share = ["--client-rebalance", "false"];
    let mut java =
        PeerConsumer::start_with(Language::Java5, target.name_server(), &refusing, &own_share).await?;
    let pops = PollingInfo {
        consumer_group: group.clone(),
        topic: topic.clone(),
        queue_id: -1,
    };
    eventually("a pop that waits", async || {
        Ok(call(broker, &pops).await?.polling_num > 0)
    })
    .await?;
    for (queue, body) in [(0, b"a"), (1, b"b")] {
        send(broker, &topic, queue, body, &[]).await?;
    }
    // Each is refused once; the client then hides it for ten seconds.
    let mut deliveries: BTreeMap<Vec<u8>, Vec<i32>> = BTreeMap::new();
    for _ in 0..4 {
        let delivery = java.next().await?;
        if delivery.topic != topic {
            return Err(format!("{delivery:?}").into());
        }
        deliveries
            .entry(delivery.body)
            .or_default()
            .push(delivery.reconsume_times);
    }
    let wanted = [(b"a".to_vec(), vec![0, 1]), (b"b".to_vec(), vec![0, 1])];
    if deliveries != wanted.into() {
        return Err(format!("{deliveries:?}").into());
    }
    // The broker has moved the offsets, not the client.
    for queue_id in [0, 1] {
        let query = QueryConsumerOffset {
            consumer_group: group.clone(),
            topic: topic.clone(),
            queue_id,
            set_zero_if_not_found: Some(false),
        };
        eventually("the offset behind the message", async || {
            Ok(call(broker, &query).await?.offset == 1)
        })
        .await?;
    }
    java.shutdown().await
}
