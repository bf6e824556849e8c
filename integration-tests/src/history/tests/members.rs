//! Defects of members of a group: two of them kill and follow each other, and each handler's begin and end is known.

use super::*;

/// What a process says, in its own time.
fn line(ts: u64, proc: &str, event: Event) -> Line {
    Line {
        ts,
        proc: proc.to_owned(),
        event,
    }
}

fn begins(ts: u64, proc: &str, id: Id, call: u64) -> Line {
    let event = Event::Recv {
        id,
        place: place(id),
        key: Some(format!("key-{}", id.sequence % 2)),
        attempt: 1,
        call: Some(call),
    };
    line(ts, proc, event)
}

fn ends(ts: u64, proc: &str, id: Id, call: u64) -> Line {
    let event = Event::Ack {
        id,
        place: place(id),
        status: Handled::Ok,
        call: Some(call),
    };
    line(ts, proc, event)
}

fn kill(ts: u64, target: &str) -> Line {
    let event = Event::Fault {
        what: "kill".to_owned(),
        target: Some(target.to_owned()),
    };
    line(ts, "scenario", event)
}

fn says(ts: u64, proc: &str, state: Member) -> Line {
    let figures = Default::default();
    line(ts, proc, Event::Member { state, figures })
}

/// Producer 1 sends to queue 1. `first` handles 0 to 9 and is killed in the middle of 10; `second` goes on at 8, which
/// the first had not committed, and stops in order.
fn takeover() -> Vec<Line> {
    let mut lines = Vec::new();
    for sequence in 0..MESSAGES {
        for event in send(id(1, sequence), SendStatus::Ok) {
            lines.push(line(u64::from(sequence), "producer", event));
        }
    }
    for sequence in 0..10 {
        let call = u64::from(sequence);
        lines.push(begins(100 + 10 * call, "first", id(1, sequence), call));
        lines.push(ends(109 + 10 * call, "first", id(1, sequence), call));
    }
    lines.push(begins(200, "first", id(1, 10), 10));
    lines.push(kill(205, "first"));
    for sequence in 8..MESSAGES {
        let call = u64::from(sequence);
        lines.push(begins(300 + 10 * call, "second", id(1, sequence), call));
        lines.push(ends(309 + 10 * call, "second", id(1, sequence), call));
    }
    lines.push(says(1000, "second", Member::Left));
    lines.push(line(1001, "scenario", Event::Lag { messages: 0 }));
    lines
}

fn at(lines: &[Line], wanted: impl Fn(&Line) -> bool) -> usize {
    lines.iter().position(wanted).unwrap()
}

fn end_of(sequence: u32) -> impl Fn(&Line) -> bool {
    move |line| {
        line.proc == "second" && matches!(&line.event, Event::Ack { id, .. } if id.sequence == sequence)
    }
}

#[test]
fn a_takeover_after_a_kill_is_green_whatever_the_order_of_the_lines() {
    let mut lines = takeover();
    for _ in 0..2 {
        let verdict = check(&lines);
        assert!(verdict.one_owner().is_ok(), "{verdict}");
        assert!(verdict.one_handler_for_each_key().is_ok(), "{verdict}");
        // 8 and 9 had been handled; 10 was cut off, and nobody knows how far it was.
        assert_eq!((verdict.duplicates, verdict.retries), (3, 0));
        // As if the second process had been read first.
        lines.sort_by_key(|line| line.proc != "second");
    }
}

#[test]
fn a_queue_whose_next_owner_begins_before_the_last_one_has_ended_is_shared() {
    let mut lines = takeover();
    // The first is killed only after the second has begun.
    let kill_at = at(&lines, |line| matches!(line.event, Event::Fault { .. }));
    lines[kill_at].ts = 381;
    let verdict = check(&lines);
    let shared = Shared {
        place: place(id(1, 8)),
        first: "first".to_owned(),
        second: "second".to_owned(),
    };
    assert_eq!(verdict.shared_queues, [shared].into());
    assert!(verdict.ordered().is_ok());
    assert!(verdict.one_owner().is_err());
    // 8 and 10 have the same key.
    assert!(verdict.one_handler_for_each_key().is_err());
}

#[test]
fn two_handlers_of_one_process_at_one_queue_are_found_too() {
    let mut lines = takeover();
    let late = at(&lines, end_of(12));
    lines[late].ts += 2;
    lines.sort_by_key(|line| line.ts);
    let verdict = check(&lines);
    assert_eq!(verdict.shared_queues.len(), 1, "{verdict}");
    assert!(verdict.one_owner().is_err());
    assert!(
        verdict.one_handler_for_each_key().is_ok(),
        "12 and 13 are of different keys"
    );
}

#[test]
fn two_handlers_of_one_key_are_found() {
    let mut lines = takeover();
    let late = at(&lines, end_of(12));
    lines[late].ts += 12;
    lines.sort_by_key(|line| line.ts);
    let verdict = check(&lines);
    assert_eq!(verdict.shared_keys.len(), 1, "{verdict}");
    assert!(verdict.one_handler_for_each_key().is_err());
}

#[test]
fn messages_of_one_call_are_handled_together() {
    let mut lines = takeover();
    for line in &mut lines {
        let (Event::Recv { id, call, .. } | Event::Ack { id, call, .. }) = &mut line.event else {
            continue;
        };
        if line.proc == "second" && [14, 15].contains(&id.sequence) {
            *call = Some(99);
            line.ts = if matches!(line.event, Event::Recv { .. }) {
                440
            } else {
                455
            };
        }
    }
    let verdict = check(&lines);
    assert!(verdict.one_owner().is_ok(), "{verdict}");
    assert_eq!(verdict.duplicates, 3);
}

#[test]
fn a_handler_that_has_not_ended_when_its_process_stopped_in_order_is_cut() {
    let mut lines = takeover();
    let end = at(&lines, end_of(MESSAGES - 1));
    lines.remove(end);
    let verdict = check(&lines);
    assert_eq!(verdict.cut, [id(1, MESSAGES - 1)].into());
    assert_eq!(verdict.lost, [id(1, MESSAGES - 1)].into());
    assert!(verdict.complete().is_err());
}

#[test]
fn a_group_that_goes_back_too_far_exceeds_the_bound() {
    let mut lines = takeover();
    let bound = Bound {
        rate: 0.0,
        commit_interval: Duration::ZERO,
        in_flight: 1,
        span: 2,
        kills: 1,
        changes: 0,
        members: 1,
    };
    assert!(check(&lines).at_most(bound.duplicates()).is_ok());
    for sequence in 6..8 {
        let call = 200 + u64::from(sequence);
        lines.push(begins(
            230 + 10 * u64::from(sequence),
            "second",
            id(1, sequence),
            call,
        ));
        lines.push(ends(
            239 + 10 * u64::from(sequence),
            "second",
            id(1, sequence),
            call,
        ));
    }
    let verdict = check(&lines);
    assert!(verdict.one_owner().is_ok(), "{verdict}");
    assert!(verdict.at_most(bound.duplicates()).is_err());
}

#[test]
fn a_group_that_skips_what_was_in_a_handler_has_lost_it() {
    let mut lines = takeover();
    lines.retain(|line| {
        let skipped =
            matches!(&line.event, Event::Recv { id, .. } | Event::Ack { id, .. } if id.sequence == 10);
        !(line.proc == "second" && skipped)
    });
    let verdict = check(&lines);
    assert_eq!(verdict.lost, [id(1, 10)].into());
}
