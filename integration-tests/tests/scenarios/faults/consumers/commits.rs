//! Commits that get lost, and offsets that nobody knows: a group goes back no further than it has to, and never forward.

use integration_tests::{
    Failure,
    fault_proxy::{Direction, Fault, FaultPath, FaultProxy},
    scenario::{TestResult, eventually, long, report_figure},
    scenarios,
    target::{Target, brokers},
};
use rocketmq_client::protocol::RequestCode;

use super::run::{HANDLERS, Run};
use crate::inbox::expect;

scenarios![
    commits_that_are_lost_stop_nothing_and_cost_no_more_than_what_was_handled_meanwhile,
    a_member_that_cannot_learn_its_offsets_neither_pulls_nor_commits,
];

const UPDATE: i32 = RequestCode::UPDATE_CONSUMER_OFFSET.0;
const QUERY: i32 = RequestCode::QUERY_CONSUMER_OFFSET.0;
const PULL: i32 = RequestCode::PULL_MESSAGE.0;

/// Proxies before all servers of a run.
pub(super) async fn path_of(run: &Run<'_>) -> Result<FaultPath, Failure> {
    let name_server = tokio::net::lookup_host(&run.name_server)
        .await?
        .next()
        .ok_or("the name server has no address")?;
    FaultPath::start(name_server, &brokers(&run.name_server).await?).await
}

async fn commits_that_are_lost_stop_nothing_and_cost_no_more_than_what_was_handled_meanwhile(
    target: &Target,
) -> TestResult {
    const MEANWHILE: usize = 600;
    let run = Run::new(target, "uncommitted", 4).await?;
    let path = path_of(&run).await?;
    let through = path.name_server.address().to_string();
    let consumer = run
        .consumer(&[("--name-server", &through), ("--delay-ms", "5")])
        .await?;
    let producer = run.producer(&[("--rate", "300"), ("--senders", "2")]).await?;
    run.progress(100, "before the commits are lost").await?;
    let committed = run.commits_catch_up().await?;
    run.history.fault("commits are lost", None);
    let lost = path
        .broker
        .inject(Direction::ToServer, Fault::DropRequest { code: UPDATE });
    for _ in 0..long() {
        run.progress(MEANWHILE, "while commits are lost").await?;
    }
    eventually("a commit that is lost", async || Ok(lost.hits() > 0)).await?;
    consumer.kill().await?;
    let bound = run.history.handled() - committed + HANDLERS;
    path.broker.heal();
    run.history.mended("commits are lost");
    let consumer = run.consumer(&[]).await?;
    let verdict = run.end(vec![producer], vec![consumer]).await?;
    report_figure(
        target,
        &format!("{} commits lost, the bound of duplicates is {bound}", lost.hits()),
    );
    verdict.complete()?;
    verdict.at_most(bound)
}

/// Nothing of what a consumer would tell a broker about a queue's offset goes there, pulls among them, which carry it.
fn forbid_commits(proxy: &FaultProxy) -> impl Fn() -> u64 + use<> {
    let rules = [UPDATE, PULL].map(|code| proxy.inject(Direction::ToServer, Fault::DropRequest { code }));
    move || rules.iter().map(|rule| rule.hits()).sum()
}

async fn a_member_that_cannot_learn_its_offsets_neither_pulls_nor_commits(target: &Target) -> TestResult {
    let run = Run::new(target, "unknown-offsets", 4).await?;
    let first = run.consumer(&[("--delay-ms", "2")]).await?;
    let producer = run.producer(&[("--rate", "200")]).await?;
    run.progress(200, "of the first member").await?;
    let before = run.commits_catch_up().await?;
    let at_first = run.committed().await?;

    let path = path_of(&run).await?;
    let through = path.name_server.address().to_string();
    let asked = path
        .broker
        .inject(Direction::ToServer, Fault::DropRequest { code: QUERY });
    let told = forbid_commits(&path.broker);
    run.history.fault("offsets cannot be asked for", None);
    let second = run.consumer(&[("--name-server", &through)]).await?;
    // Two queues and the retry topic fall to the second; each is asked for again and again.
    eventually(
        "questions for offsets, and the same questions again",
        async || Ok(asked.hits() >= 6),
    )
    .await?;
    expect("pulls and commits without an offset", told(), 0)?;
    let now = run.committed().await?;
    for (queue, offset) in &at_first {
        if now.get(queue).is_none_or(|now| now < offset) {
            return Err(format!("queue {queue} was committed at {offset}, and now {now:?}").into());
        }
    }
    let bound = run.history.handled() - before + HANDLERS;
    path.broker.heal();
    run.history.mended("offsets cannot be asked for");
    let verdict = run.end(vec![producer], vec![first, second]).await?;
    report_figure(target, &format!("the bound of duplicates is {bound}"));
    verdict.complete()?;
    // The queues moved once each way, and only what the first had not committed when it lost them may come again.
    verdict.at_most(bound)
}
