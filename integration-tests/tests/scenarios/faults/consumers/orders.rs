//! Order, of queues and of keys, while the processes that keep it fail.

use integration_tests::{scenario::TestResult, scenarios, target::Target};

use super::run::Run;
use crate::inbox::expect;

scenarios![batches_that_fail_in_order_lose_nothing_and_keep_their_order];

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
