use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::protocol::ResponseCode;

fn open(slots: &mut Slots, deadline: Instant) -> i32 {
    match slots.open(deadline) {
        Opened::Slot { opaque, .. } => opaque,
        other => panic!("{other:?}"),
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn poll(slots: &mut Slots, opaque: i32) -> Poll<Ended> {
    slots.poll(opaque, &Context::from_waker(Waker::noop()))
}

fn reply(opaque: i32) -> Frame {
    Frame::response(ResponseCode::SUCCESS, opaque)
}

#[test]
fn a_late_reply_is_counted_and_reaches_nobody() {
    let mut slots = Slots::new(10);
    let first = open(&mut slots, later());
    slots.close(first);
    // Bring the ring round to the same slot.
    for _ in 0..FIRST_SLOTS - 1 {
        let opaque = open(&mut slots, later());
        slots.close(opaque);
    }
    let second = open(&mut slots, later());
    assert_eq!(second as usize & (FIRST_SLOTS - 1), first as usize);
    assert!(slots.resolve(reply(first)).is_none());
    assert!(poll(&mut slots, second).is_pending());
    assert_eq!(slots.late_replies(), 1);
    slots.resolve(reply(second));
    assert!(matches!(poll(&mut slots, second), Poll::Ready(Ended::Reply(_))));
    // The same reply twice: the second one is late too.
    slots.resolve(reply(second));
    assert_eq!(slots.late_replies(), 2);
    // Numbers that were never given out.
    for opaque in [-1, i32::MIN, i32::MAX, 999_999] {
        slots.resolve(reply(opaque));
    }
    assert_eq!(slots.late_replies(), 6);
}

#[test]
fn the_ring_grows_around_requests_that_stay() {
    let mut slots = Slots::new(10_000);
    let long_polls: Vec<_> = (0..100).map(|_| open(&mut slots, later())).collect();
    for _ in 0..5_000 {
        let opaque = open(&mut slots, later());
        assert!(!long_polls.contains(&opaque));
        slots.resolve(reply(opaque));
        assert!(matches!(
            poll(&mut slots, opaque),
            Poll::Ready(Ended::Reply(frame)) if frame.opaque == opaque
        ));
        slots.close(opaque);
    }
    assert_eq!(slots.in_flight(), 100);
    for opaque in long_polls {
        slots.resolve(reply(opaque));
        assert!(
            matches!(poll(&mut slots, opaque), Poll::Ready(Ended::Reply(frame)) if frame.opaque == opaque)
        );
    }
}

#[test]
fn no_more_than_the_limit_are_in_flight() {
    let mut slots = Slots::new(2);
    let first = open(&mut slots, later());
    open(&mut slots, later());
    assert!(matches!(slots.open(later()), Opened::Full));
    slots.close(first);
    open(&mut slots, later());
}

#[test]
fn a_sweep_ends_what_is_due_and_knows_what_is_next() {
    let mut slots = Slots::new(10);
    let now = Instant::now();
    let due = open(&mut slots, now);
    let Opened::Slot {
        opaque: later,
        tell_sweep,
    } = slots.open(now + Duration::from_secs(5))
    else {
        panic!("not opened");
    };
    assert!(!tell_sweep, "the sweep is due earlier anyway");
    let swept = slots.sweep(now);
    assert_eq!((swept.expired, swept.in_flight), (1, 2));
    assert_eq!(swept.next, Some(now + Duration::from_secs(5)));
    assert!(matches!(poll(&mut slots, due), Poll::Ready(Ended::Expired)));
    assert!(poll(&mut slots, later).is_pending());
    assert!(matches!(
        slots.open(now + Duration::from_secs(1)),
        Opened::Slot { tell_sweep: true, .. }
    ));
}

#[test]
fn a_failure_reaches_all_and_the_first_reason_counts() {
    let mut slots = Slots::new(10);
    let answered = open(&mut slots, later());
    let waiting = open(&mut slots, later());
    slots.resolve(reply(answered));
    slots.fail(Error::new(ErrorKind::Connect, "first"));
    slots.fail(Error::new(ErrorKind::Connect, "second"));
    assert!(matches!(poll(&mut slots, answered), Poll::Ready(Ended::Reply(_))));
    let Poll::Ready(Ended::Failed(error)) = poll(&mut slots, waiting) else {
        panic!("still waiting");
    };
    assert_eq!(error.to_string(), "first");
    assert!(matches!(slots.open(later()), Opened::Failed(_)));
}

#[test]
fn numbers_wrap_before_they_turn_negative() {
    let mut slots = Slots::new(10);
    slots.next = 0x7FFF_FFFF;
    assert_eq!(open(&mut slots, later()), i32::MAX);
    assert_eq!(open(&mut slots, later()), 0);
}
