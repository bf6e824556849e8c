//! More messages than memory, and clocks that jump.

use std::path::Path;

use integration_tests::{
    history::Id,
    scenario::{TestResult, long, report_figure, skip},
    scenarios,
    target::Target,
};
use rocketmq_client::Message;

use super::run::Run;
use crate::inbox::expect;

scenarios![
    a_flood_before_a_slow_handler_stays_within_the_byte_cap,
    a_clock_that_jumps_disturbs_nobody,
];

const MIB: f64 = 1024.0 * 1024.0;

async fn a_flood_before_a_slow_handler_stays_within_the_byte_cap(target: &Target) -> TestResult {
    const BODY: usize = 1024;
    const CAP: usize = 16 << 20;
    const BATCHES: u32 = 200;
    const BATCH: u32 = 256;
    let run = Run::new(target, "flood", 8).await?;
    let cap = CAP.to_string();
    let options = [
        ("--max-cached-bytes", &*cap),
        ("--max-cached", "65535"),
        ("--max-span", "65535"),
        ("--delay-ms", "20"),
        ("--concurrency", "2"),
    ];
    // What a member takes that has nothing to do.
    let idle = run.consumer(&options).await?;
    let base = idle.peak_resident_mib()?;
    idle.stop().await?;
    let client = run.client("flood").await?;
    let producer = client.producer("flood").compress_from_bytes(None).start().await?;
    for batch in 0..BATCHES {
        let ids = (0..BATCH).map(|place| Id {
            producer: 1,
            sequence: batch * BATCH + place,
        });
        producer
            .send_batch(ids.map(|id| Message::new(&run.topic, id.body(BODY))))
            .await?;
    }
    let member = run.consumer(&options).await?;
    // By then every queue has pulled as much as it may.
    run.progress(150, "of the flood").await?;
    let peak = member.peak_resident_mib()?;
    member.kill().await?;
    client.shutdown().await;
    let limit = base + 1.5 * CAP as f64 / MIB;
    report_figure(
        target,
        &format!("{base:.1} MiB at rest, {peak:.1} MiB in the flood, the limit is {limit:.1} MiB"),
    );
    expect(
        "more than the cap was there",
        f64::from(BATCHES * BATCH) * BODY as f64 > 2.0 * CAP as f64,
        true,
    )?;
    if peak > limit {
        return Err(format!("{peak:.1} MiB were resident, the limit is {limit:.1} MiB").into());
    }
    Ok(())
}

/// Where libfaketime may be.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

async fn a_clock_that_jumps_disturbs_nobody(target: &Target) -> TestResult {
    let library = FAKETIME
        .iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| skip("libfaketime is not installed, no clock can be made to jump"))?;
    let run = Run::new(target, "clock", 4).await?;
    let file = std::env::temp_dir().join(format!("clock-{}-{}", std::process::id(), target.kind()));
    let jump = |to: &str| std::fs::write(&file, format!("{to}\n"));
    jump("+0")?;
    let environment = [
        ("LD_PRELOAD", *library),
        (
            "FAKETIME_TIMESTAMP_FILE",
            file.to_str().ok_or("an odd directory")?,
        ),
        ("FAKETIME_NO_CACHE", "1"),
        // Timers of a process that sleeps do not jump with the clock.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut member = run.joining(&[("--heartbeat-ms", "1000")], &environment)?;
    member.ready().await?;
    let producer = run.producer(&[("--rate", "100")]).await?;
    let rounds = long();
    for _ in 0..rounds {
        for to in ["+3600", "-3600", "+30d", "-30d", "+0"] {
            run.progress(20, "before a jump").await?;
            run.history.fault("the clock jumps", None);
            jump(to)?;
            run.history.mended("the clock jumps");
        }
    }
    run.progress(50, "after the last jump").await?;
    expect("queues that were lost", run.moves().1, 0)?;
    let verdict = run.end(vec![producer], vec![member]).await;
    std::fs::remove_file(&file)?;
    let verdict = verdict?;
    verdict.complete()?;
    expect("duplicates", verdict.duplicates, 0)
}
