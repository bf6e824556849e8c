use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::consumer::flow::{Flow, TopicLimits};
use crate::consumer::stats::Meters;
use crate::protocol::{Properties, SysFlag, Text};

pub(super) const NO_LIMITS: Limits = Limits {
    messages: usize::MAX,
    bytes: usize::MAX,
    span: i64::MAX,
};

pub(super) fn record(offset: i64) -> Record {
    Record {
        queue_id: 0,
        flag: 0,
        queue_offset: offset,
        physical_offset: offset * 100,
        sys_flag: SysFlag::default(),
        born_timestamp: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_timestamp: 0,
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"body"),
        topic: Text::from_static("orders"),
        properties: Properties::default(),
    }
}

pub(super) fn queue(offset: i64, limits: Limits) -> ProcessQueue {
    ProcessQueue::new(
        MessageQueue::new("orders", "broker-a", 0),
        offset,
        limits,
        Budget::new(usize::MAX),
    )
}

pub(super) fn records(offsets: impl IntoIterator<Item = i64>) -> Vec<Record> {
    offsets.into_iter().map(record).collect()
}

fn take(queue: &ProcessQueue, count: usize) -> Vec<Claim> {
    (0..count).map(|_| queue.take_listed().0.unwrap()).collect()
}

#[test]
fn the_offset_to_commit_is_the_lowest_unfinished_one() {
    let queue = queue(10, NO_LIMITS);
    assert_eq!(queue.commit_offset(), 10);
    assert_eq!(queue.put(records([10, 11, 15]), 300), 3);
    let claims = take(&queue, 3);
    assert_eq!(queue.commit_offset(), 10);
    queue.finish(claims[1].number);
    assert_eq!(queue.commit_offset(), 10);
    queue.finish(claims[0].number);
    assert_eq!(queue.commit_offset(), 15);
    queue.finish(claims[2].number);
    assert_eq!(queue.commit_offset(), 16);
    assert!(queue.is_empty());
}

#[test]
fn offsets_that_match_no_filter_are_passed_once_nothing_is_left_before_them() {
    let queue = queue(0, NO_LIMITS);
    queue.put(records([3]), 100);
    queue.seen_up_to(40);
    assert_eq!(queue.commit_offset(), 3);
    let claim = queue.take_listed().0.unwrap();
    queue.finish(claim.number);
    assert_eq!(queue.commit_offset(), 40);
    queue.seen_up_to(7);
    assert_eq!(queue.commit_offset(), 40, "an answer from the past moves nothing");
}

#[test]
fn a_message_seen_before_is_not_taken_twice() {
    let queue = queue(5, NO_LIMITS);
    assert_eq!(queue.put(records([3, 4, 5, 6]), 100), 2);
    assert_eq!(queue.put(records([5, 6]), 100), 0);
    assert_eq!(queue.put(records([6, 7]), 100), 1);
    assert_eq!(queue.cached(), (3, 200));
}

#[test]
fn finishing_twice_counts_once() {
    let queue = queue(0, NO_LIMITS);
    queue.put(records([0, 1]), 100);
    let claims = take(&queue, 2);
    queue.finish(claims[1].number);
    queue.finish(claims[1].number);
    assert_eq!(queue.cached(), (1, 100));
    queue.finish(claims[0].number);
    assert_eq!(queue.cached(), (0, 0));
}

#[test]
fn a_message_that_was_put_back_pins_the_offset_and_comes_again() {
    let queue = queue(0, NO_LIMITS);
    queue.put(records(0..3), 300);
    let mut claims = take(&queue, 3);
    let first = claims.remove(0);
    for claim in &claims {
        queue.finish(claim.number);
    }
    assert!(queue.take_listed().0.is_none());
    assert!(queue.put_back(Claim {
        undelivered: Some(GiveBack::Dead),
        ..first
    }));
    assert_eq!(queue.commit_offset(), 0);
    let again = queue.take_listed().0.unwrap();
    assert_eq!(again.record.queue_offset, 0);
    assert_eq!(again.undelivered, Some(GiveBack::Dead));
    queue.finish(again.number);
    assert_eq!(queue.commit_offset(), 3);
}

#[test]
fn bytes_are_held_until_the_last_message_of_a_response_is_finished() {
    let budget = Budget::new(usize::MAX);
    let queue = ProcessQueue::new(
        MessageQueue::new("orders", "a", 0),
        0,
        NO_LIMITS,
        Arc::clone(&budget),
    );
    queue.put(records(0..3), 300);
    queue.put(records(3..4), 50);
    assert_eq!(budget.used(), 350);
    let claims = take(&queue, 4);
    queue.finish(claims[0].number);
    queue.finish(claims[1].number);
    assert_eq!(budget.used(), 350);
    queue.finish(claims[3].number);
    assert_eq!(budget.used(), 300);
    queue.finish(claims[2].number);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_dropped_queue_lets_waiting_messages_go_and_keeps_its_offset_below_them() {
    let budget = Budget::new(usize::MAX);
    let queue = ProcessQueue::new(
        MessageQueue::new("orders", "a", 0),
        0,
        NO_LIMITS,
        Arc::clone(&budget),
    );
    queue.put(records(0..2), 200);
    queue.put(records(2..4), 200);
    let mut claims = take(&queue, 2);
    assert_eq!(queue.drop_waiting(), 2);
    assert_eq!(budget.used(), 200, "the running ones still hold their response");
    assert!(queue.take_listed().0.is_none());
    assert_eq!(queue.put(records(4..6), 100), 0);
    queue.finish(claims[0].number);
    assert_eq!(queue.commit_offset(), 1);
    assert!(!queue.put_back(claims.remove(1)));
    assert_eq!(queue.commit_offset(), 1, "what was not handled is not passed");
    assert_eq!(budget.used(), 0);
}

fn is_ready<F: Future<Output = ()>>(future: std::pin::Pin<&mut F>) -> bool {
    matches!(
        future.poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(())
    )
}

#[test]
fn each_limit_stops_the_pull_until_it_is_kept_again() {
    let wanted = Wanted {
        messages: 2,
        bytes: 10,
    };
    let limits = [
        Limits {
            messages: 4,
            ..NO_LIMITS
        },
        Limits {
            bytes: 45,
            ..NO_LIMITS
        },
        Limits { span: 1, ..NO_LIMITS },
    ];
    for limit in limits {
        let queue = queue(0, limit);
        assert!(is_ready(pin!(queue.room_for(wanted))), "an empty queue has room");
        queue.put(records(0..1), 20);
        queue.put(records(1..3), 20);
        let claims = take(&queue, 3);
        let mut room = pin!(queue.room_for(wanted));
        assert!(!is_ready(room.as_mut()), "{limit:?}");
        queue.finish(claims[0].number);
        assert!(is_ready(room.as_mut()), "{limit:?}");
    }
}

#[test]
fn a_share_of_the_topic_narrows_the_limits_and_a_larger_one_lets_a_waiting_pull_go_on() {
    let flow = Flow::new(TopicLimits {
        messages: Some(3),
        bytes: None,
    });
    let topic: Arc<str> = "orders".into();
    let message_queue = MessageQueue::new("orders", "broker-a", 0);
    let watch = QueueWatch::new(
        "billing",
        &message_queue,
        Meters::new("billing".into()).of(&topic),
    );
    let queue = queue(0, NO_LIMITS).watched(flow.share(&topic), watch);
    assert_eq!(queue.pull_size(32), 3);
    let wanted = Wanted {
        messages: queue.pull_size(2),
        bytes: 0,
    };
    queue.put(records(0..2), 20);
    let mut room = pin!(queue.room_for(wanted));
    assert!(!is_ready(room.as_mut()));
    queue.look_for_room();
    assert!(!is_ready(room.as_mut()), "nothing has changed");
    let claim = queue.take_listed().0.unwrap();
    queue.finish(claim.number);
    assert!(is_ready(room.as_mut()));
}

#[test]
fn what_is_in_the_cache_is_told_by_offsets() {
    let queue = queue(0, NO_LIMITS);
    assert_eq!(queue.contents().offsets, None);
    queue.put(records([3, 5, 8, 9]), 100);
    let mut claims = take(&queue, 3);
    queue.finish(claims[0].number);
    let contents = queue.contents();
    assert_eq!(contents.offsets, Some((5, 9)));
    assert_eq!(contents.messages, 3);
    assert_eq!(contents.running, [5, 8]);
    queue.put_back(claims.pop().unwrap());
    assert_eq!(queue.contents().again, 1);
    queue.drop_waiting();
    assert!(queue.contents().dropped);
}

#[test]
fn a_queue_is_in_line_once_and_only_while_it_has_something_to_hand_out() {
    let queue = queue(0, NO_LIMITS);
    assert!(!queue.list());
    queue.put(records(0..2), 10);
    assert!(queue.list());
    assert!(!queue.list());
    assert!(matches!(queue.take_listed(), (Some(_), true)));
    assert!(matches!(queue.take_listed(), (Some(_), false)));
    assert!(!queue.list());
    queue.put(records(2..3), 10);
    assert!(queue.list());
}

proptest! {
    /// Against a plain set of unfinished offsets.
    #[test]
    fn any_order_of_completion_gives_the_offset_of_the_model(
        gaps in proptest::collection::vec(1i64..4, 1..60),
        batch in 1usize..9,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        let budget = Budget::new(usize::MAX);
        let queue = ProcessQueue::new(MessageQueue::new("t", "b", 0), 0, NO_LIMITS, Arc::clone(&budget));
        let mut offset = 0;
        let offsets: Vec<i64> = gaps.iter().map(|gap| { offset += gap; offset }).collect();
        for chunk in offsets.chunks(batch) {
            queue.put(records(chunk.iter().copied()), chunk.len() * 10);
        }
        let mut model: BTreeSet<i64> = offsets.iter().copied().collect();
        let mut running = take(&queue, offsets.len());
        for index in order {
            if running.is_empty() {
                break;
            }
            let claim = running.swap_remove(index.index(running.len()));
            model.remove(&claim.record.queue_offset);
            queue.finish(claim.number);
            let expected = model.first().copied().unwrap_or(offset + 1);
            prop_assert_eq!(queue.commit_offset(), expected);
            prop_assert_eq!(queue.cached().0, model.len());
        }
        for claim in &running {
            queue.finish(claim.number);
        }
        prop_assert_eq!(budget.used(), 0);
        prop_assert_eq!(queue.commit_offset(), offset + 1);
    }
}
