//! Groups whose members come and go, that are told to divide their queues without end, that are starved, or that do not
//! agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use integration_tests::{
    Failure,
    history::{Bound, Event},
    scenario::{TestResult, eventually, long, report_figure},
    scenarios,
    target::Target,
};
use rocketmq_client::{Client, MessageView, PushConsumer};
use tokio::time::{Instant, sleep};

use super::run::{HANDLERS, Run};
use crate::{inbox::expect, raw::join};

scenarios![
    a_group_whose_members_come_and_go_loses_nothing_and_comes_to_rest,
    a_storm_of_notifications_leaves_each_queue_with_one_owner,
    members_that_get_hardly_any_processor_keep_their_queues,
    members_that_subscribe_differently_are_told_so,
];

/// Waits until every queue of the topic has exactly one owner among the members that are left.
async fn one_owner_each(run: &Run<'_>, members: &[&str], queues: usize) -> TestResult {
    let mut found = BTreeMap::new();
    eventually("one owner of every queue", async || {
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let changes = run.history.collect(|line| match &line.event {
            Event::Assigned { queue } => Some((line.proc.clone(), queue.clone(), true)),
            Event::Revoked { queue } => Some((line.proc.clone(), queue.clone(), false)),
            _ => None,
        });
        for (member, queue, assigned) in changes {
            if !members.contains(&&*member) || !queue.starts_with(&format!("{}:", run.topic)) {
                continue;
            }
            let owners = owners.entry(queue).or_default();
            if assigned {
                owners.insert(member);
            } else {
                owners.remove(&member);
            }
        }
        let settled = owners.len() == queues && owners.values().all(|owners| owners.len() == 1);
        found = owners;
        Ok(settled)
    })
    .await
    .map_err(|failure| format!("{failure}: {found:?}").into())
}

async fn a_group_whose_members_come_and_go_loses_nothing_and_comes_to_rest(target: &Target) -> TestResult {
    const QUEUES: i32 = 8;
    const RATE: f64 = 200.0;
    /// What stays; one more comes and goes.
    const STEADY: usize = 2;
    let run = Run::new(target, "storm", QUEUES).await?;
    let options = [("--delay-ms", "5"), ("--jitter-ms", "10")];
    let mut members = Vec::new();
    for _ in 0..=STEADY {
        members.push(run.consumer(&options).await?);
    }
    let producer = run
        .producer(&[("--rate", &RATE.to_string()), ("--senders", "2")])
        .await?;
    run.progress(50, "before the storm").await?;
    let (mut kills, mut changes) = (0, 0);
    let rounds = 6 * long();
    for _ in 0..rounds {
        // One leaves, in order or not, and a second later one joins.
        let oldest = members.remove(0);
        if changes % 4 == 0 {
            oldest.kill().await?;
            kills += 1;
        } else {
            oldest.stop().await?;
        }
        sleep(Duration::from_secs(1)).await;
        members.push(run.consumer(&options).await?);
        sleep(Duration::from_secs(1)).await;
        changes += 2;
    }
    let names: Vec<String> = members.iter().map(|member| member.name().to_owned()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    one_owner_each(&run, &names, usize::try_from(QUEUES)?).await?;
    let verdict = run.end(vec![producer], members).await?;
    let bound = Bound {
        rate: RATE,
        commit_interval: Duration::from_secs(1),
        in_flight: HANDLERS,
        span: HANDLERS,
        kills,
        changes,
        members: STEADY + 1,
    };
    report_figure(
        target,
        &format!(
            "{kills} kills and {changes} changes, the bound of duplicates is {}",
            bound.duplicates()
        ),
    );
    verdict.complete()?;
    // On a machine that stands still for seconds, an interval is longer than it says.
    match long() {
        1 => Ok(()),
        _ => verdict.at_most(bound.duplicates()),
    }
}

/// Members that do nothing but come and go make the broker tell all others to divide their queues anew.
async fn a_storm_of_notifications_leaves_each_queue_with_one_owner(target: &Target) -> TestResult {
    const QUEUES: i32 = 8;
    const VISITORS: usize = 100;
    let run = Run::new(target, "notified", QUEUES).await?;
    let broker = target.first_broker().await?;
    let members = vec![run.consumer(&[]).await?, run.consumer(&[]).await?];
    let producer = run.producer(&[("--rate", "100"), ("--senders", "2")]).await?;
    run.progress(50, "before the storm").await?;
    for visitor in 0..VISITORS {
        // It gets queues like everybody, and does not look at them.
        let visitor = join(broker, &format!("visitor-{visitor}"), &run.group, &run.topic).await?;
        sleep(Duration::from_millis(25)).await;
        drop(visitor);
        sleep(Duration::from_millis(25)).await;
    }
    let names: Vec<&str> = members.iter().map(|member| member.name()).collect();
    one_owner_each(&run, &names, usize::try_from(QUEUES)?).await?;
    run.progress(50, "after the storm").await?;
    run.end(vec![producer], members).await?.complete()
}

/// Burns processors until it is dropped.
struct Fire(Arc<AtomicBool>);

impl Fire {
    fn light(threads: usize) -> Self {
        let out = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let out = Arc::clone(&out);
            thread::spawn(move || {
                let burnt = AtomicU64::new(0);
                while !out.load(Ordering::Relaxed) {
                    burnt.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self(out)
    }
}

impl Drop for Fire {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn members_that_get_hardly_any_processor_keep_their_queues(target: &Target) -> TestResult {
    const QUEUES: i32 = 4;
    let run = Run::new(target, "starved", QUEUES).await?;
    let options = [("--heartbeat-ms", "1000")];
    let members = vec![run.consumer(&options).await?, run.consumer(&options).await?];
    let producer = run.producer(&[("--rate", "100")]).await?;
    run.progress(50, "before the fire").await?;
    let names: Vec<&str> = members.iter().map(|member| member.name()).collect();
    one_owner_each(&run, &names, usize::try_from(QUEUES)?).await?;
    let before = run.moves();
    {
        let _fire = Fire::light(2 * thread::available_parallelism()?.get());
        let until = Instant::now() + Duration::from_secs(6) * long();
        while Instant::now() < until {
            run.progress(10, "in the fire").await?;
            sleep(Duration::from_millis(500)).await;
        }
    }
    expect("queues that moved, to and from members", run.moves(), before)?;
    run.end(vec![producer], members).await?.complete()
}

async fn members_that_subscribe_differently_are_told_so(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("differ"), target.group("differ"));
    target.create_topic(&topic, 2).await?;
    let mut members: Vec<(PushConsumer, _)> = Vec::new();
    for filter in ["a", "b"] {
        let client = Client::builder(target.name_server())
            .instance_name(filter)
            .connect()
            .await?;
        let consumer = client
            .push_consumer(&group)
            .subscribe(&topic, filter)
            .rebalance_interval(Duration::from_millis(500))
            .start(|_: MessageView| async { Ok::<_, Failure>(()) })
            .await?;
        members.push((consumer, client));
    }
    // The broker keeps the newest subscription, so it is one of them that does not get what it wants.
    eventually("a report of the difference", async || {
        let conflicts = members
            .iter()
            .map(|(consumer, _)| consumer.stats().subscription_conflicts);
        Ok(conflicts.sum::<u64>() > 0)
    })
    .await?;
    for (consumer, client) in members {
        consumer.shutdown().await;
        client.shutdown().await;
    }
    Ok(())
}
