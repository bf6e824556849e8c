//! Handlers that fail in every way there is, and messages that nobody can handle.

use std::collections::BTreeSet;

use integration_tests::{
    fault_proxy::{Direction, Fault},
    history::{Event, Handled, Id},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::protocol::RequestCode;

use super::{commits::path_of, run::Run};
use crate::inbox::expect;

scenarios![
    handlers_that_panic_hang_and_fail_cost_their_own_messages_a_delay_and_nothing_else,
    handlers_that_block_their_threads_cost_no_queue,
    poison_dies_once_and_its_neighbours_flow,
    a_message_that_no_broker_takes_back_outlives_the_process,
];

const BACK: i32 = RequestCode::CONSUMER_SEND_MSG_BACK.0;
const SEND: i32 = RequestCode::SEND_MESSAGE_V2.0;
/// A code that no broker knows: it refuses at once.
const NO_REQUEST: i32 = 9_999;

/// How many handlers have ended so.
fn ended(run: &Run<'_>, how: Handled) -> usize {
    run.history
        .count(|line| matches!(&line.event, Event::Ack { status, .. } if *status == how))
}

async fn handlers_that_panic_hang_and_fail_cost_their_own_messages_a_delay_and_nothing_else(
    target: &Target,
) -> TestResult {
    let run = Run::new(target, "misbehaving", 4).await?;
    let options = [
        ("--panic-percent", "3"),
        ("--hang-percent", "2"),
        ("--fail-percent", "5"),
        ("--retry-level", "1"),
        ("--consume-timeout-ms", "1000"),
        ("--delay-ms", "5"),
    ];
    let consumer = run.consumer(&options).await?;
    let producer = run
        .producer(&[("--rate", "150"), ("--senders", "2"), ("--count", "600")])
        .await?;
    producer.ended_well().await?;
    let verdict = run.end(Vec::new(), vec![consumer]).await?;
    verdict.complete()?;
    expect("duplicates", verdict.duplicates, 0)?;
    let (panicked, cut) = (ended(&run, Handled::Panicked), ended(&run, Handled::Cut));
    let failed = ended(&run, Handled::Failed);
    expect(
        "every kind of failure",
        panicked > 0 && cut > 0 && failed > 0,
        true,
    )?;
    for (what, counted) in [
        ("panicked", panicked),
        ("timed_out", cut),
        ("retried", panicked + cut + failed),
        ("acknowledged", run.history.handled()),
    ] {
        expect(what, run.figure(what), i64::try_from(counted)?)?;
    }
    Ok(())
}

async fn handlers_that_block_their_threads_cost_no_queue(target: &Target) -> TestResult {
    const MESSAGES: usize = 150;
    let run = Run::new(target, "blocking", 4).await?;
    // As many handlers as block all threads of the runtime, at once and without end.
    let options = [
        ("--block-ms", "50"),
        ("--heartbeat-ms", "1000"),
        ("--watch-ms", "20"),
    ];
    let consumer = run.consumer(&options).await?;
    let count = MESSAGES.to_string();
    let producer = run.producer(&[("--rate", "0"), ("--count", &count)]).await?;
    producer.ended_well().await?;
    run.all_handled().await?;
    expect("queues that it lost", run.moves().1, 0)?;
    let verdict = run.end(Vec::new(), vec![consumer]).await?;
    verdict.complete()?;
    expect("duplicates", verdict.duplicates, 0)
}

async fn poison_dies_once_and_its_neighbours_flow(target: &Target) -> TestResult {
    const MESSAGES: u32 = 200;
    const EVERY: u32 = 25;
    let run = Run::new(target, "poison", 4).await?;
    let options = [
        ("--poison-every", &*EVERY.to_string()),
        ("--max-reconsume-times", "2"),
        ("--retry-level", "1"),
    ];
    let consumer = run.consumer(&options).await?;
    let count = MESSAGES.to_string();
    let producer = run.producer(&[("--rate", "0"), ("--count", &count)]).await?;
    producer.ended_well().await?;
    let poison: BTreeSet<u32> = (0..MESSAGES).step_by(EVERY as usize).collect();
    // The neighbours wait for nothing.
    eventually("every good message", async || {
        Ok(run.history.handled() >= MESSAGES as usize - poison.len())
    })
    .await?;
    let dead = run.bury(poison.len()).await?;
    let verdict = run.end(Vec::new(), vec![consumer]).await?;
    verdict.complete()?;
    let letters: BTreeSet<u32> = dead.iter().map(|id| id.sequence).collect();
    expect("dead letters", dead.len(), poison.len())?;
    expect("dead messages", &letters, &poison)?;
    expect(
        "deliveries of each",
        ended(&run, Handled::Failed),
        3 * poison.len(),
    )?;
    expect("duplicates", verdict.duplicates, 0)
}

/// Neither the send-back nor the copy to the retry topic gets through; then the process is killed.
async fn a_message_that_no_broker_takes_back_outlives_the_process(target: &Target) -> TestResult {
    const MESSAGES: usize = 50;
    let run = Run::new(target, "kept", 2).await?;
    let path = path_of(&run).await?;
    let refuse = |code| {
        let fault = Fault::Recode { code, to: NO_REQUEST };
        path.broker.inject(Direction::ToServer, fault)
    };
    let (backs, copies) = (refuse(BACK), refuse(SEND));
    let through = path.name_server.address().to_string();
    let first = run
        .consumer(&[("--name-server", &through), ("--poison-every", "10")])
        .await?;
    let count = MESSAGES.to_string();
    let producer = run.producer(&[("--rate", "0"), ("--count", &count)]).await?;
    producer.ended_well().await?;
    eventually(
        "every good message, and a second refusal of a bad one",
        async || {
            let refused = backs.hits() > 5 && copies.hits() > 5;
            Ok(refused && run.history.outstanding() == MESSAGES / 10)
        },
    )
    .await?;
    let bad: BTreeSet<Id> = run.history.check().lost;
    let committed = run.committed().await?;
    let places = run.history.collect(|line| match &line.event {
        Event::Recv { id, place, .. } if bad.contains(id) => Some(place.clone()),
        _ => None,
    });
    for place in places {
        let offset = committed.get(&place.queue).copied().unwrap_or_default();
        if offset > place.offset {
            return Err(format!("{place} is in nobody's hands, and {offset} is committed").into());
        }
    }
    let handled = run.history.handled();
    first.kill().await?;
    let second = run.consumer(&[]).await?;
    let verdict = run.end(Vec::new(), vec![second]).await?;
    verdict.complete()?;
    verdict.at_most(handled)
}
