use bytes::Bytes;

use super::*;
use crate::protocol::{Properties, SysFlag, Text};

const LIMITS: Limits = Limits {
    messages: 10,
    bytes: 1000,
    span: 100,
};

fn queue(id: i32) -> MessageQueue {
    MessageQueue::new("orders", "broker-a", id)
}

fn record(offset: i64) -> Record {
    Record {
        queue_id: 0,
        flag: 0,
        queue_offset: offset,
        physical_offset: offset * 1000,
        sys_flag: SysFlag::default(),
        born_timestamp: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_timestamp: 0,
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::new(),
        topic: Text::from_static("orders"),
        properties: Properties::new(Text::from_static("")),
    }
}

fn batch(offsets: std::ops::Range<i64>) -> Cached {
    Cached {
        end: offsets.end,
        bytes: 100,
        records: offsets.map(record).collect(),
    }
}

/// Queues 0 to `count`, each opened at 0.
fn held(count: i32, automatic: bool) -> (Held, Vec<Turn>) {
    let mut held = Held::new(LIMITS, 25, automatic);
    let queues: Vec<_> = (0..count).map(queue).collect();
    let (added, _) = held.divide(&queues, |_| true, &CancellationToken::new());
    let mut turns = Vec::new();
    for (queue, turn) in added {
        assert!(held.open(&queue, &turn, 0, true));
        turns.push(turn);
    }
    (held, turns)
}

fn taken(held: &mut Held) -> Option<(i32, Vec<i64>)> {
    let taken = held.take()?;
    let offsets = taken.records.iter().map(|record| record.queue_offset);
    Some((taken.queue.queue_id, offsets.collect()))
}

fn position(held: &Held, id: i32) -> Option<i64> {
    held.standing(&queue(id))?.position
}

#[test]
fn queues_take_turns_and_each_keeps_its_order() {
    let (mut held, turns) = held(2, true);
    for offsets in [0..2, 2..4, 4..6] {
        assert!(held.put(&queue(0), &turns[0], batch(offsets)));
    }
    assert!(held.put(&queue(1), &turns[1], batch(0..1)));
    assert_eq!(taken(&mut held), Some((0, vec![0, 1])));
    assert_eq!(taken(&mut held), Some((1, vec![0])));
    assert_eq!(taken(&mut held), Some((0, vec![2, 3])));
    assert_eq!(taken(&mut held), Some((0, vec![4, 5])));
    assert_eq!(taken(&mut held), None);
    assert_eq!((position(&held, 0), position(&held, 1)), (Some(6), Some(1)));
}

#[test]
fn what_was_handed_out_is_committed_once_the_next_poll_says_that_it_is_handled() {
    let (mut held, turns) = held(1, true);
    held.put(&queue(0), &turns[0], batch(0..3));
    held.put(&queue(0), &turns[0], batch(3..5));
    held.count_as_handled();
    held.take();
    assert_eq!(held.due(), [], "the user works on it");
    held.count_as_handled();
    held.take();
    assert_eq!(held.due(), [(queue(0), 3)]);
    held.count_as_handled();
    assert_eq!(held.due(), [(queue(0), 5)]);
}

#[test]
fn without_automatic_commits_only_what_the_user_says_is_committed() {
    let (mut held, turns) = held(2, false);
    held.put(&queue(0), &turns[0], batch(0..3));
    held.take();
    held.count_as_handled();
    assert_eq!(held.due(), []);
    assert_eq!(held.commit(&queue(1), None), None, "nothing of it was handed out");
    assert_eq!(held.commit(&queue(0), None), Some(3));
    assert_eq!(held.due(), [(queue(0), 3)]);
    assert_eq!(
        held.commit(&queue(0), Some(1)),
        Some(1),
        "back, as the user wants it"
    );
    assert_eq!(held.due(), [(queue(0), 1)]);
    assert_eq!(held.commit(&queue(7), Some(1)), None);
}

#[test]
fn a_confirmed_offset_is_not_sent_again() {
    let (mut held, turns) = held(1, false);
    held.put(&queue(0), &turns[0], batch(0..3));
    held.take();
    held.commit(&queue(0), None);
    held.committed(&queue(0), 2);
    assert_eq!(held.due(), [(queue(0), 3)], "that was an older one");
    held.committed(&queue(0), 3);
    assert_eq!(held.due(), []);
}

#[test]
fn a_group_that_starts_somewhere_keeps_the_place_only_if_commits_are_automatic() {
    for (automatic, due) in [(true, vec![(queue(0), 500)]), (false, vec![])] {
        let mut held = Held::new(LIMITS, 25, automatic);
        let (added, _) = held.divide(&[queue(0)], |_| true, &CancellationToken::new());
        held.open(&queue(0), &added[0].1, 500, false);
        assert_eq!(held.due(), due);
        let released = held.release(&queue(0)).unwrap();
        assert_eq!(released.offset, automatic.then_some(500));
    }
}

#[test]
fn after_a_seek_nothing_from_before_it_is_handed_out() {
    let stop = CancellationToken::new();
    let (mut held, turns) = held(2, true);
    held.put(&queue(0), &turns[0], batch(0..3));
    held.put(&queue(1), &turns[1], batch(0..1));
    let (turn, freed) = held.reposition(&queue(0), 7, None, &stop).unwrap();
    assert_eq!(freed, 100);
    assert!(turns[0].stop.is_cancelled());
    assert!(
        !held.put(&queue(0), &turns[0], batch(3..5)),
        "a pull of before was on its way"
    );
    assert!(!held.skip_to(&queue(0), &turns[0], 100));
    assert_eq!(held.may_pull(&queue(0), &turns[0]), None);
    assert_eq!(position(&held, 0), Some(7));
    assert!(held.put(&queue(0), &turn, batch(7..8)));
    assert_eq!(taken(&mut held), Some((1, vec![0])));
    assert_eq!(taken(&mut held), Some((0, vec![7])));
    assert!(
        held.reposition(&queue(0), 0, Some(&turns[0]), &stop).is_none(),
        "a loop whose turn is over moves nothing"
    );
}

#[test]
fn a_seek_moves_the_committed_offset_back() {
    let (mut held, turns) = held(1, true);
    held.put(&queue(0), &turns[0], batch(0..5));
    held.take();
    held.count_as_handled();
    assert_eq!(held.due(), [(queue(0), 5)]);
    held.reposition(&queue(0), 1, None, &CancellationToken::new());
    held.count_as_handled();
    assert_eq!(held.due(), [(queue(0), 1)]);
}

#[test]
fn a_queue_can_be_sought_before_its_first_offset_is_known() {
    let stop = CancellationToken::new();
    let mut held = Held::new(LIMITS, 25, true);
    let (added, _) = held.divide(&[queue(0)], |_| true, &stop);
    let (turn, _) = held.reposition(&queue(0), 4, None, &stop).unwrap();
    assert!(
        !held.open(&queue(0), &added[0].1, 0, true),
        "the answer about the first offset comes too late"
    );
    held.put(&queue(0), &turn, batch(4..6));
    held.take();
    held.count_as_handled();
    assert_eq!(held.due(), [(queue(0), 6)]);
}

#[test]
fn messages_that_do_not_match_move_the_position_only_behind_those_that_do() {
    let (mut held, turns) = held(1, true);
    assert!(held.skip_to(&queue(0), &turns[0], 4));
    assert_eq!(position(&held, 0), Some(4));
    held.put(&queue(0), &turns[0], batch(4..6));
    held.skip_to(&queue(0), &turns[0], 9);
    assert_eq!(position(&held, 0), Some(4));
    held.take();
    assert_eq!(position(&held, 0), Some(9));
}

#[test]
fn a_paused_queue_keeps_what_is_cached() {
    let (mut held, turns) = held(2, true);
    held.put(&queue(0), &turns[0], batch(0..2));
    held.put(&queue(1), &turns[1], batch(0..1));
    assert!(held.pause(&queue(0), true));
    assert_eq!(held.may_pull(&queue(0), &turns[0]), Some(false));
    held.put(&queue(0), &turns[0], batch(2..3));
    assert_eq!(taken(&mut held), Some((1, vec![0])));
    assert_eq!(taken(&mut held), None);
    assert!(held.pause(&queue(0), false));
    assert_eq!(held.may_pull(&queue(0), &turns[0]), Some(true));
    assert_eq!(taken(&mut held), Some((0, vec![0, 1])));
    assert_eq!(taken(&mut held), Some((0, vec![2])));
    assert!(!held.pause(&queue(9), true));
}

#[test]
fn the_limits_of_a_queue_stop_its_pulls_until_it_is_polled() {
    for full in [
        vec![batch(0..10)],
        vec![Cached {
            bytes: 1000,
            ..batch(0..1)
        }],
        vec![
            batch(0..1),
            Cached {
                records: vec![record(101)],
                ..batch(0..0)
            },
        ],
    ] {
        let (mut held, turns) = held(1, true);
        let batches = full.len();
        for batch in full {
            assert_eq!(held.may_pull(&queue(0), &turns[0]), Some(true));
            held.put(&queue(0), &turns[0], batch);
        }
        assert_eq!(held.may_pull(&queue(0), &turns[0]), Some(false));
        for _ in 0..batches {
            held.take();
        }
        assert_eq!(held.may_pull(&queue(0), &turns[0]), Some(true));
    }
}

#[test]
fn the_limit_for_all_queues_stops_each_of_them() {
    let (mut held, turns) = held(4, true);
    for (id, turn) in (0..3).zip(&turns) {
        assert_eq!(held.may_pull(&queue(id), turn), Some(true));
        held.put(&queue(id), turn, batch(0..9));
    }
    assert_eq!(held.may_pull(&queue(3), &turns[3]), Some(false));
    held.release(&queue(0));
    assert_eq!(
        held.may_pull(&queue(3), &turns[3]),
        Some(true),
        "what is given up does not count"
    );
    held.put(&queue(3), &turns[3], batch(0..9));
    assert_eq!(held.may_pull(&queue(1), &turns[1]), Some(false));
    held.reposition(&queue(3), 0, None, &CancellationToken::new());
    assert_eq!(
        held.may_pull(&queue(1), &turns[1]),
        Some(true),
        "what is sought away does not count"
    );
}

#[test]
fn a_division_keeps_what_stays_and_tells_what_to_commit_of_what_goes() {
    let stop = CancellationToken::new();
    let (mut held, turns) = held(3, true);
    held.put(&queue(0), &turns[0], batch(0..2));
    held.put(&queue(2), &turns[2], batch(0..4));
    held.take();
    held.count_as_handled();
    let (added, released) = held.divide(&[queue(2), queue(3)], |_| true, &stop);
    assert_eq!(added.len(), 1);
    assert_eq!(added[0].0, queue(3));
    let released: Vec<_> = released
        .iter()
        .map(|released| (released.queue.queue_id, released.offset, released.freed))
        .collect();
    // Nothing is told of a queue of which nothing was done.
    assert_eq!(released, [(0, Some(2), 0), (1, None, 0)]);
    assert!(turns[0].stop.is_cancelled() && !turns[2].stop.is_cancelled());
    assert_eq!(taken(&mut held), Some((2, vec![0, 1, 2, 3])));
    assert_eq!(taken(&mut held), None);
}

#[test]
fn what_was_handed_out_of_a_lost_queue_and_not_handled_is_not_committed() {
    let (mut held, turns) = held(1, true);
    held.put(&queue(0), &turns[0], batch(0..2));
    held.put(&queue(0), &turns[0], batch(2..4));
    held.take();
    held.count_as_handled();
    held.take();
    let released = held.release(&queue(0)).unwrap();
    assert_eq!(released.offset, Some(2), "the user still works on the rest");
    assert_eq!(released.freed, 0);
    held.count_as_handled();
    assert_eq!(held.due(), []);
}

#[test]
fn a_new_filter_starts_the_queues_of_the_topic_where_they_were_polled() {
    let stop = CancellationToken::new();
    let (mut held, turns) = held(2, true);
    held.put(&queue(0), &turns[0], batch(0..2));
    held.put(&queue(0), &turns[0], batch(2..4));
    held.take();
    let restarted: Vec<_> = held
        .start_anew("orders", &stop)
        .into_iter()
        .map(|(queue, position, _, freed)| (queue.queue_id, position, freed))
        .collect();
    assert_eq!(restarted, [(0, 2, 100), (1, 0, 0)]);
    assert_eq!(taken(&mut held), None);
    assert!(held.start_anew("payments", &stop).is_empty());
}
