//! Silences, with and without a fault that explains them.

use super::*;

fn at(ms: u64, event: Event) -> Line {
    Line {
        ts: ms * 1000,
        proc: "scenario".to_owned(),
        event,
    }
}

fn fault(what: &str) -> Event {
    let what = what.to_owned();
    Event::Fault { what, target: None }
}

fn mended(what: &str) -> Event {
    let what = what.to_owned();
    Event::Mended { what }
}

fn stored(ms: u64) -> Line {
    let sequence = u32::try_from(ms).unwrap();
    at(ms, sent(id(0, sequence), SendStatus::Ok))
}

#[test]
fn a_silence_that_no_fault_explains_is_told_apart() {
    let lines = [
        stored(0),
        stored(10),
        at(11, fault("broker")),
        stored(100),
        at(150, mended("broker")),
        stored(300),
        stored(340),
        // What failed is no progress.
        at(345, sent(id(0, 1000), SendStatus::NotSent)),
        stored(350),
    ];
    let outages = Outages::of(&lines, Progress::Sends);
    assert_eq!(outages.longest_outside_faults, Duration::from_millis(40));
    let recovered = |what: &str, ms| (what.to_owned(), Duration::from_millis(ms));
    assert_eq!(
        outages.recoveries,
        [recovered("broker", 89), recovered("broker", 150)]
    );
    assert_eq!(outages.longest_recovery(), Duration::from_millis(150));
    assert_eq!(Outages::of(&lines, Progress::Handled), Outages::default());
}

#[test]
fn a_silence_before_the_fault_is_not_explained_by_it() {
    let lines = [
        stored(0),
        stored(70),
        at(71, fault("broker")),
        stored(80),
        stored(500),
    ];
    // The broker is not mended: whatever is slow then is its fault.
    let outages = Outages::of(&lines, Progress::Sends);
    assert_eq!(outages.longest_outside_faults, Duration::from_millis(70));
}
