//! Members that are asked to stop while everything runs at full load.

use integration_tests::{
    history::Event,
    scenario::{TestResult, long, report_figure},
    scenarios,
    target::Target,
};

use super::run::Run;
use crate::inbox::expect;

scenarios![a_member_that_is_stopped_under_full_load_loses_and_repeats_nothing];

async fn a_member_that_is_stopped_under_full_load_loses_and_repeats_nothing(target: &Target) -> TestResult {
    const BETWEEN: usize = 200;
    let run = Run::new(target, "stopped", 8).await?;
    let options = [("--delay-ms", "5"), ("--jitter-ms", "20")];
    let producer = run.producer(&[("--rate", "400"), ("--senders", "4")]).await?;
    let rounds = 4 * long();
    let mut stops = 0;
    let mut may_repeat = 0;
    for _ in 0..rounds {
        let member = run.consumer(&options).await?;
        let name = member.name().to_owned();
        let handled = run.history.handled();
        run.progress(BETWEEN, "before the stop").await?;
        member.stop().await?;
        stops += 1;
        let figure = |wanted: &str| {
            let figures = run.history.collect(|line| match &line.event {
                Event::Member { figures, .. } if line.proc == name => figures.get(wanted).copied(),
                _ => None,
            });
            figures.iter().sum::<i64>()
        };
        expect("handlers cut off", figure("handlers_cut_off"), 0)?;
        // A broker that is too busy to confirm in seconds may not have taken the commit.
        if figure("commits_unconfirmed") > 0 {
            may_repeat += run.history.handled() - handled;
        }
    }
    let last = run.consumer(&options).await?;
    let verdict = run.end(vec![producer], vec![last]).await?;
    report_figure(
        target,
        &format!("{stops} stops, the bound of duplicates is {may_repeat}"),
    );
    verdict.complete()?;
    verdict.at_most(may_repeat)
}
