//! Members that are killed while they handle messages, and brokers under them.

use integration_tests::{
    scenario::{TestResult, long, report_figure},
    scenarios,
    target::Target,
};

use super::run::{HANDLERS, Run};

scenarios![
    a_member_that_is_killed_loses_nothing_and_repeats_only_what_it_had_not_committed,
    members_that_are_killed_one_after_the_other_lose_nothing,
    a_group_outlives_its_brokers,
];

/// The only member is killed, again and again, each time at a moment when it is known what it has committed: so what
/// may come again is known, too, whatever the machine's speed.
async fn a_member_that_is_killed_loses_nothing_and_repeats_only_what_it_had_not_committed(
    target: &Target,
) -> TestResult {
    const BETWEEN: usize = 200;
    let run = Run::new(target, "killed", 4).await?;
    let options = [("--delay-ms", "5"), ("--jitter-ms", "20")];
    let mut consumer = run.consumer(&options).await?;
    let producer = run.producer(&[("--rate", "300"), ("--senders", "2")]).await?;
    let mut bound = 0;
    let rounds = 3 * long();
    for _ in 0..rounds {
        run.progress(BETWEEN, "before the kill").await?;
        let committed = run.commits_catch_up().await?;
        consumer.kill().await?;
        bound += run.history.handled() - committed + HANDLERS;
        consumer = run.consumer(&options).await?;
    }
    run.progress(BETWEEN, "after the last kill").await?;
    let verdict = run.end(vec![producer], vec![consumer]).await?;
    report_figure(target, &format!("the bound of duplicates is {bound}"));
    verdict.complete()?;
    verdict.at_most(bound)
}

async fn members_that_are_killed_one_after_the_other_lose_nothing(target: &Target) -> TestResult {
    const BETWEEN: usize = 150;
    let run = Run::new(target, "killed-in-turn", 8).await?;
    let options = [("--delay-ms", "5"), ("--jitter-ms", "20")];
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(run.consumer(&options).await?);
    }
    let producer = run.producer(&[("--rate", "300"), ("--senders", "2")]).await?;
    let rounds = 4 * long();
    for _ in 0..rounds {
        run.progress(BETWEEN, "before the kill").await?;
        members.remove(0).kill().await?;
        members.push(run.consumer(&options).await?);
    }
    run.progress(BETWEEN, "after the last kill").await?;
    run.end(vec![producer], members).await?.complete()
}

async fn a_group_outlives_its_brokers(target: &Target) -> TestResult {
    const BETWEEN: usize = 150;
    let servers = target.pair().await?;
    let run = Run::on(target, &servers.name_server(), "restarted", 2).await?;
    let options = [("--delay-ms", "5")];
    let members = vec![run.consumer(&options).await?, run.consumer(&options).await?];
    let producer = run.producer(&[("--rate", "300"), ("--senders", "2")]).await?;
    let rounds = 2 * long() as usize;
    for broker in [0, 1].into_iter().cycle().take(rounds) {
        run.progress(BETWEEN, "before a broker goes").await?;
        let what = format!("broker {broker} is away");
        run.history.fault(&what, None);
        if broker == 0 {
            servers.kill(broker).await?;
        } else {
            servers.stop(broker).await?;
        }
        run.progress(BETWEEN / 2, "while a broker is away").await?;
        servers.restart(broker).await?;
        run.history.mended(&what);
    }
    run.progress(BETWEEN, "after the last restart").await?;
    run.end(vec![producer], members).await?.complete()
}
