//! Order, of queues and of keys, while the processes that keep it come, go, die and fail.

use integration_tests::{
    Failure,
    history::Verdict,
    scenario::{TestResult, long},
    scenarios,
    target::Target,
};
use tokio::time::{Duration, sleep};

use super::run::Run;
use crate::inbox::expect;

scenarios![
    each_queue_keeps_its_order_and_one_owner_while_members_go_and_die,
    batches_that_fail_in_order_lose_nothing_and_keep_their_order,
];

/// Members stop and are killed in turn, and come back as who they were: brokers keep the locks of a dead member for a
/// minute for everybody else.
async fn storm(target: &Target, kind: &str) -> Result<Verdict, Failure> {
    let run = Run::new(target, kind, 8).await?;
    let member = async |instance: &str| {
        let options = [
            ("--kind", kind),
            ("--instance", instance),
            ("--delay-ms", "2"),
            ("--jitter-ms", "6"),
        ];
        run.consumer(&options).await
    };
    let instances = ["first", "second", "third"].map(|name| target.group(name));
    let mut members = Vec::new();
    for instance in &instances {
        members.push((instance, member(instance).await?));
    }
    let producer = run
        .producer(&[("--rate", "200"), ("--senders", "4"), ("--keys", "8")])
        .await?;
    for round in 0..5 * long() {
        run.progress(100, "before the next one goes").await?;
        let (instance, oldest) = members.remove(0);
        if round % 2 == 0 {
            oldest.kill().await?;
        } else {
            oldest.stop().await?;
        }
        // The others begin to divide its queues, which they cannot lock.
        sleep(Duration::from_millis(500)).await;
        members.push((instance, member(instance).await?));
    }
    run.progress(100, "after the last one has come back").await?;
    producer.stop().await?;
    // A queue that a dead member had locked and does not get back stays locked for a minute: once more than a wait.
    if run.all_handled().await.is_err() {
        run.all_handled().await?;
    }
    let members = members.into_iter().map(|(_, member)| member).collect();
    run.end(Vec::new(), members).await
}

async fn each_queue_keeps_its_order_and_one_owner_while_members_go_and_die(target: &Target) -> TestResult {
    storm(target, "orderly").await?.one_owner()
}

async fn batches_that_fail_in_order_lose_nothing_and_keep_their_order(target: &Target) -> TestResult {
    const MESSAGES: &str = "400";
    let run = Run::new(target, "put-back", 4).await?;
    let options = [
        ("--kind", "orderly-batch"),
        ("--batch", "4"),
        ("--fail-percent", "20"),
        ("--suspend-ms", "20"),
    ];
    let member = run.consumer(&options).await?;
    let producer = run
        .producer(&[
            ("--rate", "0"),
            ("--senders", "4"),
            ("--keys", "4"),
            ("--count", MESSAGES),
        ])
        .await?;
    producer.ended_well().await?;
    let verdict = run.end(Vec::new(), vec![member]).await?;
    verdict.one_owner()?;
    expect("batches that came again", verdict.retries > 0, true)
}
