//! A checker that cannot fail proves nothing: each test plants a defect in a sound history and wants it found.

use super::{check::check, *};

mod files;
mod members;
mod outages;

const PRODUCERS: u32 = 3;
const MESSAGES: u32 = 20;

fn id(producer: u32, sequence: u32) -> Id {
    Id { producer, sequence }
}

fn place(id: Id) -> Place {
    let queue = i32::try_from(id.producer % 2).unwrap();
    // Producers 0 and 2 share a queue, so their offsets interleave.
    let offset = i64::from(id.sequence * PRODUCERS + id.producer);
    Place {
        broker: "a".to_owned(),
        topic: "t".to_owned(),
        queue,
        offset,
    }
}

/// Lines of one process in the order of these events, one in each microsecond.
fn timed(events: Vec<Event>) -> Vec<Line> {
    let line = |(ts, event)| Line {
        ts,
        proc: "scenario".to_owned(),
        event,
    };
    (0..).zip(events).map(line).collect()
}

fn verdict(events: Vec<Event>) -> Verdict {
    check(&timed(events))
}

fn begun(id: Id) -> Event {
    Event::Begin { id, key: None }
}

fn sent(id: Id, status: SendStatus) -> Event {
    Event::Send {
        id,
        status,
        place: (status == SendStatus::Ok).then(|| place(id)),
        error: None,
    }
}

/// A send that ends once.
fn send(id: Id, status: SendStatus) -> [Event; 2] {
    [begun(id), sent(id, status)]
}

/// A delivery that is handled at once.
fn receive(id: Id) -> [Event; 2] {
    receive_at(id, place(id))
}

fn receive_at(id: Id, place: Place) -> [Event; 2] {
    [
        Event::Recv {
            id,
            place: place.clone(),
            key: None,
            attempt: 1,
            call: None,
        },
        Event::Ack {
            id,
            place,
            status: Handled::Ok,
            call: None,
        },
    ]
}

/// Everything sent, acknowledged and received once, in order.
fn sound() -> Vec<Event> {
    let ids =
        || (0..MESSAGES).flat_map(|sequence| (0..PRODUCERS).map(move |producer| id(producer, sequence)));
    let sent = ids().flat_map(|id| send(id, SendStatus::Ok));
    sent.chain(ids().flat_map(receive)).collect()
}

fn reception(events: &[Event], wanted: Id) -> usize {
    events
        .iter()
        .position(|event| matches!(event, Event::Recv { id, .. } if *id == wanted))
        .unwrap()
}

#[test]
fn a_sound_history_is_green() {
    let verdict = verdict(sound());
    assert_eq!(verdict, Verdict::default());
    assert!(verdict.one_owner().is_ok() && verdict.one_handler_for_each_key().is_ok());
    assert!(verdict.at_most(0).is_ok());
}

#[test]
fn a_dropped_message_is_lost() {
    for sequence in [0, 7, MESSAGES - 1] {
        let mut events = sound();
        let at = reception(&events, id(1, sequence));
        events.drain(at..at + 2);
        let verdict = verdict(events);
        assert_eq!(verdict.lost, [id(1, sequence)].into());
        assert!(verdict.complete().is_err());
    }
}

#[test]
fn a_message_that_no_handler_has_ended_well_is_lost() {
    for status in [Handled::Failed, Handled::Panicked, Handled::Cut] {
        let mut events = sound();
        let at = reception(&events, id(1, 7));
        events[at + 1] = Event::Ack {
            id: id(1, 7),
            place: place(id(1, 7)),
            status,
            call: None,
        };
        assert_eq!(verdict(events.clone()).lost, [id(1, 7)].into(), "{status:?}");
        events.remove(at + 1);
        assert_eq!(verdict(events).lost, [id(1, 7)].into(), "no end at all");
    }
}

#[test]
fn an_acknowledgement_of_a_message_that_never_comes_is_a_loss() {
    let mut events = sound();
    let phantom = id(1, MESSAGES);
    events.extend(send(phantom, SendStatus::Ok));
    assert_eq!(verdict(events).lost, [phantom].into());
}

#[test]
fn a_message_of_unknown_fate_may_come_or_not_and_at_any_time() {
    let mut events = sound();
    let missing = id(1, MESSAGES);
    events.extend(send(missing, SendStatus::Unknown));
    assert!(verdict(events.clone()).ordered().is_ok());
    let late = id(1, MESSAGES + 1);
    events.extend(send(late, SendStatus::Ok));
    events.extend(receive(late));
    events.extend(receive(missing));
    assert!(verdict(events).ordered().is_ok());
}

#[test]
fn a_message_that_nobody_sent_is_a_ghost() {
    let mut events = sound();
    let ghost = id(1, MESSAGES + 5);
    events.extend(receive(ghost));
    let verdict = verdict(events);
    assert_eq!(verdict.ghosts, [ghost].into());
    assert!(verdict.complete().is_err());
}

#[test]
fn a_message_reported_as_not_stored_is_a_ghost_when_it_comes() {
    let mut events = sound();
    let ghost = id(1, MESSAGES);
    events.extend(send(ghost, SendStatus::NotSent));
    assert!(verdict(events.clone()).complete().is_ok());
    events.extend(receive(ghost));
    assert_eq!(verdict(events).ghosts, [ghost].into());
}

#[test]
fn two_swapped_messages_are_out_of_order_and_nothing_else() {
    for sequence in [0, 7, MESSAGES - 2] {
        let mut events = sound();
        let (a, b) = (
            reception(&events, id(2, sequence)),
            reception(&events, id(2, sequence + 1)),
        );
        events.swap(a, b);
        events.swap(a + 1, b + 1);
        let verdict = verdict(events);
        assert_eq!(verdict.disordered, [id(2, sequence)].into());
        assert!(verdict.complete().is_ok());
        assert!(verdict.ordered().is_err());
    }
}

#[test]
fn messages_of_different_producers_or_keys_have_no_order() {
    let mut events = sound();
    let (a, b) = (reception(&events, id(0, 7)), reception(&events, id(2, 7)));
    events.swap(a, b);
    assert!(verdict(events).ordered().is_ok());

    let mut events = sound();
    for event in &mut events {
        if let Event::Begin { id, key } = event {
            *key = Some((id.sequence % 2).to_string());
        }
    }
    let other = |sequence| reception(&events, id(2, sequence));
    let (a, b, c) = (other(7), other(8), other(9));
    let mut swapped = events.clone();
    swapped.swap(a, b);
    assert!(verdict(swapped).ordered().is_ok());
    let mut swapped = events.clone();
    swapped.swap(a, c);
    assert_eq!(verdict(swapped).disordered, [id(2, 7)].into());
}

#[test]
fn a_repeated_message_is_a_duplicate_and_no_fault() {
    let mut events = sound();
    events.extend(receive(id(1, MESSAGES - 1)));
    let verdict = verdict(events);
    assert_eq!(verdict.duplicates, 1);
    assert!(verdict.ordered().is_ok());
    assert!(verdict.at_most(1).is_ok() && verdict.at_most(0).is_err());
}

#[test]
fn a_message_that_comes_again_because_its_handler_failed_is_a_retry_and_no_duplicate() {
    let mut events = sound();
    let at = reception(&events, id(1, 7));
    let failed = Event::Ack {
        id: id(1, 7),
        place: place(id(1, 7)),
        status: Handled::Failed,
        call: None,
    };
    events[at + 1] = failed;
    let mut elsewhere = place(id(1, 7));
    elsewhere.topic = "%RETRY%g".to_owned();
    events.extend(receive_at(id(1, 7), elsewhere.clone()));
    let once = verdict(events.clone());
    assert_eq!((once.retries, once.duplicates), (1, 0));
    assert!(once.ordered().is_ok());
    events.extend(receive_at(id(1, 7), elsewhere));
    let twice = verdict(events);
    assert_eq!((twice.retries, twice.duplicates), (1, 1));
}

#[test]
fn a_replay_of_the_last_messages_is_in_order() {
    let mut events = sound();
    for sequence in MESSAGES - 4..MESSAGES {
        events.extend(receive(id(1, sequence)));
    }
    let verdict = verdict(events);
    assert_eq!(verdict.duplicates, 4);
    assert!(verdict.ordered().is_ok());
}

#[test]
fn a_replay_that_skips_a_message_is_out_of_order() {
    let mut events = sound();
    for sequence in [MESSAGES - 4, MESSAGES - 2] {
        events.extend(receive(id(1, sequence)));
    }
    assert_eq!(verdict(events).disordered, [id(1, MESSAGES - 2)].into());
}

#[test]
fn a_new_message_before_a_replay_has_caught_up_is_out_of_order() {
    let mut events = sound();
    let (replayed, new) = (id(1, MESSAGES - 4), id(1, MESSAGES));
    events.extend(send(new, SendStatus::Ok));
    events.extend(receive(replayed));
    events.extend(receive(new));
    assert_eq!(verdict(events).disordered, [new].into());
}

#[test]
fn two_messages_in_one_place_are_a_conflict() {
    let taken = place(id(1, 3));
    let stored = Event::Send {
        id: id(1, MESSAGES),
        status: SendStatus::Ok,
        place: Some(taken.clone()),
        error: None,
    };
    for event in [receive_at(id(1, 4), taken.clone())[0].clone(), stored] {
        let mut events = sound();
        events.push(event);
        let verdict = verdict(events);
        assert_eq!(verdict.conflicts, [taken.clone()].into());
        assert!(verdict.complete().is_err());
    }
}

#[test]
fn a_message_whose_body_is_another_is_altered() {
    let mut events = sound();
    events.push(Event::Altered {
        place: place(id(1, 3)),
        reason: "not what was sent".to_owned(),
    });
    let verdict = verdict(events);
    assert_eq!(verdict.altered, [place(id(1, 3))].into());
    assert!(verdict.complete().is_err());
}

#[test]
fn what_the_group_is_behind_in_the_end_is_a_fault() {
    let mut events = sound();
    events.push(Event::Lag { messages: 0 });
    assert!(verdict(events.clone()).complete().is_ok());
    events.push(Event::Lag { messages: 3 });
    let behind = verdict(events.clone());
    assert_eq!(behind.lag, Some(3));
    assert!(behind.complete().is_err());
    events.push(Event::Lag { messages: 0 });
    assert!(verdict(events).complete().is_ok());
}

#[test]
fn a_send_that_never_ends_is_found_and_so_is_one_that_ends_twice() {
    for sequence in [0, 7, MESSAGES - 1] {
        let wanted = id(1, sequence);
        let is_end = |event: &Event| matches!(event, Event::Send { id, .. } if *id == wanted);
        let mut events = sound();
        let at = events.iter().position(is_end).unwrap();
        let end = events.remove(at);
        let found = verdict(events.clone());
        assert_eq!(found.unended, [wanted].into());
        assert!(found.complete().is_err());

        events.push(end.clone());
        assert!(verdict(events.clone()).complete().is_ok());
        events.push(end);
        let found = verdict(events);
        assert_eq!(found.ended_again, [wanted].into());
        assert!(found.complete().is_err());
    }
}

#[test]
fn a_message_that_is_delivered_but_whose_send_was_never_reported_is_found() {
    let mut events = sound();
    let silent = id(1, MESSAGES);
    events.push(begun(silent));
    events.extend(receive(silent));
    let verdict = verdict(events);
    assert_eq!(verdict.unended, [silent].into());
    assert_eq!(verdict.ghosts, [silent].into());
}

#[test]
fn ends_are_counted_by_kind_and_silences_measured() {
    let history = History::new();
    assert_eq!(history.longest_silence(), Duration::ZERO);
    for (sequence, outcome) in [
        (0, Sent::Stored(place(id(0, 0)))),
        (1, Sent::Unknown),
        (2, Sent::NotStored),
        (3, Sent::Unknown),
        (4, Sent::Stored(place(id(0, 4)))),
    ] {
        history.begun(id(0, sequence));
        history.sent(id(0, sequence), outcome);
    }
    assert_eq!((history.acknowledged(), history.unacknowledged()), (2, (2, 1)));
    assert!(history.longest_silence() > Duration::ZERO);
    assert_eq!(history.check().lost.len(), 2);
}

#[test]
fn outstanding_counts_what_is_acknowledged_and_not_yet_handled() {
    let history = History::new();
    history.sent(id(0, 0), Sent::Stored(place(id(0, 0))));
    history.sent(id(0, 1), Sent::Unknown);
    history.sent(id(0, 2), Sent::Stored(place(id(0, 2))));
    assert_eq!((history.acknowledged(), history.outstanding()), (2, 2));
    history.received(id(0, 2), place(id(0, 2)));
    history.received(id(0, 2), place(id(0, 2)));
    assert_eq!(history.outstanding(), 1);
    assert_eq!((history.handled(), history.handled_messages()), (2, 1));
    assert_eq!(history.check().lost, [id(0, 0)].into());
    // The handler may be faster than the receipt.
    history.received(id(0, 3), place(id(0, 3)));
    history.sent(id(0, 3), Sent::Stored(place(id(0, 3))));
    assert_eq!(history.outstanding(), 1);
}

#[test]
fn the_bound_counts_what_a_kill_and_a_change_may_cost() {
    let bound = Bound {
        rate: 100.0,
        commit_interval: Duration::from_millis(500),
        in_flight: 8,
        span: 20,
        kills: 3,
        changes: 2,
        members: 4,
    };
    assert_eq!(bound.duplicates(), 3 * (50 + 8 + 20) + 2 * 8 + 25);
    let alone = Bound {
        kills: 0,
        members: 0,
        ..bound
    };
    assert_eq!(alone.duplicates(), 2 * (8 + 50));
}

#[test]
fn ids_survive_their_text_and_their_body() {
    let id = id(7, 4_000_000_000);
    assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
    for length in [0, 12, 13, 14, 100] {
        let body = id.body(length);
        assert_eq!(body.len(), length.max(12));
        assert_eq!(Id::of_body(body.as_bytes()).unwrap(), id);
    }
    for text in ["", "7", "7/", "/7", "a/b", "1/-1"] {
        assert!(text.parse::<Id>().is_err(), "{text}");
    }
}
