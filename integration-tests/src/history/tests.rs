//! A checker that cannot fail proves nothing: each test plants a defect in a sound history and wants it found.

use super::*;

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

/// Everything sent, acknowledged and received once, in order.
fn sound() -> Vec<Event> {
    let ids =
        || (0..MESSAGES).flat_map(|sequence| (0..PRODUCERS).map(move |producer| id(producer, sequence)));
    let sent = ids().flat_map(|id| send(id, Sent::Stored(place(id))));
    let received = ids().map(|id| Event::Received(id, place(id)));
    sent.chain(received).collect()
}

/// A send that ends once.
fn send(id: Id, outcome: Sent) -> [Event; 2] {
    [Event::Begun(id), Event::Sent(id, outcome)]
}

fn reception(events: &[Event], wanted: Id) -> usize {
    events
        .iter()
        .position(|event| matches!(event, Event::Received(id, _) if *id == wanted))
        .unwrap()
}

#[test]
fn a_sound_history_is_green() {
    let verdict = check(&sound());
    assert_eq!(verdict, Verdict::default());
    assert!(verdict.complete().is_ok() && verdict.ordered().is_ok());
}

#[test]
fn a_dropped_message_is_lost() {
    for sequence in [0, 7, MESSAGES - 1] {
        let mut events = sound();
        events.remove(reception(&events, id(1, sequence)));
        let verdict = check(&events);
        assert_eq!(verdict.lost, [id(1, sequence)].into());
        assert!(verdict.complete().is_err());
    }
}

#[test]
fn an_acknowledgement_of_a_message_that_never_comes_is_a_loss() {
    let mut events = sound();
    let phantom = id(1, MESSAGES);
    events.extend(send(phantom, Sent::Stored(place(phantom))));
    assert_eq!(check(&events).lost, [phantom].into());
}

#[test]
fn a_message_of_unknown_fate_may_come_or_not() {
    let mut events = sound();
    let missing = id(1, MESSAGES);
    events.extend(send(missing, Sent::Unknown));
    assert!(check(&events).ordered().is_ok());
    events.push(Event::Received(missing, place(missing)));
    assert!(check(&events).ordered().is_ok());
}

#[test]
fn a_message_that_nobody_sent_is_a_ghost() {
    let mut events = sound();
    let ghost = id(1, MESSAGES + 5);
    events.push(Event::Received(ghost, place(ghost)));
    let verdict = check(&events);
    assert_eq!(verdict.ghosts, [ghost].into());
    assert!(verdict.complete().is_err());
}

#[test]
fn a_message_reported_as_not_stored_is_a_ghost_when_it_comes() {
    let mut events = sound();
    let ghost = id(1, MESSAGES);
    events.extend(send(ghost, Sent::NotStored));
    assert!(check(&events).complete().is_ok());
    events.push(Event::Received(ghost, place(ghost)));
    assert_eq!(check(&events).ghosts, [ghost].into());
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
        let verdict = check(&events);
        assert_eq!(verdict.disordered, [id(2, sequence)].into());
        assert!(verdict.complete().is_ok());
        assert!(verdict.ordered().is_err());
    }
}

#[test]
fn messages_of_different_producers_have_no_order() {
    let mut events = sound();
    let (a, b) = (reception(&events, id(0, 7)), reception(&events, id(2, 7)));
    events.swap(a, b);
    assert!(check(&events).ordered().is_ok());
}

#[test]
fn a_repeated_message_is_a_duplicate_and_no_fault() {
    let mut events = sound();
    let last = id(1, MESSAGES - 1);
    events.push(Event::Received(last, place(last)));
    let verdict = check(&events);
    assert_eq!(verdict.duplicates, 1);
    assert!(verdict.ordered().is_ok());
}

#[test]
fn a_replay_of_the_last_messages_is_in_order() {
    let mut events = sound();
    for sequence in MESSAGES - 4..MESSAGES {
        events.push(Event::Received(id(1, sequence), place(id(1, sequence))));
    }
    let verdict = check(&events);
    assert_eq!(verdict.duplicates, 4);
    assert!(verdict.ordered().is_ok());
}

#[test]
fn a_replay_that_skips_a_message_is_out_of_order() {
    let mut events = sound();
    for sequence in [MESSAGES - 4, MESSAGES - 2] {
        events.push(Event::Received(id(1, sequence), place(id(1, sequence))));
    }
    assert_eq!(check(&events).disordered, [id(1, MESSAGES - 2)].into());
}

#[test]
fn a_new_message_before_a_replay_has_caught_up_is_out_of_order() {
    let mut events = sound();
    let (replayed, new) = (id(1, MESSAGES - 4), id(1, MESSAGES));
    events.extend(send(new, Sent::Stored(place(new))));
    events.push(Event::Received(replayed, place(replayed)));
    events.push(Event::Received(new, place(new)));
    assert_eq!(check(&events).disordered, [new].into());
}

#[test]
fn two_messages_in_one_place_are_a_conflict() {
    let taken = place(id(1, 3));
    for event in [
        Event::Received(id(1, 4), taken.clone()),
        Event::Sent(id(1, MESSAGES), Sent::Stored(taken.clone())),
    ] {
        let mut events = sound();
        events.push(event);
        let verdict = check(&events);
        assert_eq!(verdict.conflicts, [taken.clone()].into());
        assert!(verdict.complete().is_err());
    }
}

#[test]
fn a_send_that_never_ends_is_found_and_so_is_one_that_ends_twice() {
    for sequence in [0, 7, MESSAGES - 1] {
        let wanted = id(1, sequence);
        let is_end = |event: &Event| matches!(event, Event::Sent(id, _) if *id == wanted);
        let mut events = sound();
        let at = events.iter().position(is_end).unwrap();
        let end = events.remove(at);
        let verdict = check(&events);
        assert_eq!(verdict.unended, [wanted].into());
        assert!(verdict.complete().is_err());

        events.push(end.clone());
        assert!(check(&events).ordered().is_ok());
        events.push(end);
        let verdict = check(&events);
        assert_eq!(verdict.ended_again, [wanted].into());
        assert!(verdict.complete().is_err());
    }
}

#[test]
fn a_message_that_is_delivered_but_whose_send_was_never_reported_is_found() {
    let mut events = sound();
    let silent = id(1, MESSAGES);
    events.extend([Event::Begun(silent), Event::Received(silent, place(silent))]);
    let verdict = check(&events);
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
fn outstanding_counts_what_is_acknowledged_and_not_yet_received() {
    let history = History::new();
    history.sent(id(0, 0), Sent::Stored(place(id(0, 0))));
    history.sent(id(0, 1), Sent::Unknown);
    history.sent(id(0, 2), Sent::Stored(place(id(0, 2))));
    assert_eq!((history.acknowledged(), history.outstanding()), (2, 2));
    history.received(id(0, 2), place(id(0, 2)));
    assert_eq!(history.outstanding(), 1);
    assert_eq!(history.check().lost, [id(0, 0)].into());
}

#[test]
fn ids_survive_their_text() {
    let id = id(7, 4_000_000_000);
    assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
    for text in ["", "7", "7/", "/7", "a/b", "1/-1"] {
        assert!(text.parse::<Id>().is_err(), "{text}");
    }
}
