use super::*;
use crate::consumer::budget::Budget;
use crate::consumer::process_queue::Limits;

const TOPIC: &str = "orders";

fn queue(id: i32) -> MessageQueue {
    MessageQueue::new(TOPIC, "broker-a", id)
}

fn process(id: i32, offset: i64) -> Arc<ProcessQueue> {
    let limits = Limits {
        messages: 10,
        bytes: 1000,
        span: 10,
    };
    Arc::new(ProcessQueue::new(
        queue(id),
        offset,
        limits,
        Budget::new(usize::MAX),
    ))
}

fn names(queues: &[Added]) -> Vec<i32> {
    queues.iter().map(|added| added.queue.queue_id).collect()
}

#[test]
fn a_division_keeps_what_stays_and_reports_the_rest() {
    let (mut assignment, stop) = (Assignment::default(), CancellationToken::new());
    let (added, removed) = assignment.divide(TOPIC, &[queue(0), queue(1)], &stop);
    assert_eq!(names(&added), [0, 1]);
    assert!(removed.is_empty());
    let (added_later, removed) = assignment.divide(TOPIC, &[queue(1), queue(2)], &stop);
    assert_eq!(names(&added_later), [2]);
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].queue, queue(0));
    assert_eq!(removed[0].offset, None, "its first offset was never known");
    assert!(added[0].stop.is_cancelled());
    assert!(!added[1].stop.is_cancelled());
}

#[test]
fn another_topic_is_not_touched() {
    let (mut assignment, stop) = (Assignment::default(), CancellationToken::new());
    assignment.divide(TOPIC, &[queue(0)], &stop);
    let (_, removed) = assignment.divide("payments", &[], &stop);
    assert!(removed.is_empty());
    assert_eq!(assignment.iter().count(), 1);
}

#[test]
fn a_lost_queue_is_committed_as_far_as_it_was_consumed() {
    let (mut assignment, stop) = (Assignment::default(), CancellationToken::new());
    let (added, _) = assignment.divide(TOPIC, &[queue(0)], &stop);
    let process = process(0, 5);
    assert!(assignment.open(&process, 5, true, &added[0].stop));
    process.seen_up_to(9);
    let (_, removed) = assignment.divide(TOPIC, &[], &stop);
    assert_eq!(removed[0].offset, Some(9));
}

#[test]
fn what_finishes_after_the_loss_of_a_queue_moves_nothing() {
    let (mut assignment, stop) = (Assignment::default(), CancellationToken::new());
    let (first, _) = assignment.divide(TOPIC, &[queue(0)], &stop);
    let old = process(0, 5);
    assert!(assignment.open(&old, 5, true, &first[0].stop));
    assignment.divide(TOPIC, &[], &stop);
    let (second, _) = assignment.divide(TOPIC, &[queue(0)], &stop);
    assert!(
        !assignment.open(&old, 5, true, &first[0].stop),
        "a task of the first ownership cannot open the second"
    );
    let new = process(0, 3);
    assert!(assignment.open(&new, 3, true, &second[0].stop));
    old.seen_up_to(100);
    assert_eq!(assignment.progress_of(&queue(0)), None);
    assert_eq!(assignment.offsets.offset(&queue(0)), Some(3));
    assert_eq!(assignment.due(), []);
}

#[test]
fn a_reset_moves_the_offset_back_and_forgets_the_cache() {
    let (mut assignment, stop) = (Assignment::default(), CancellationToken::new());
    let (added, _) = assignment.divide(TOPIC, &[queue(0)], &stop);
    let old = process(0, 50);
    assert!(assignment.open(&old, 50, true, &added[0].stop));
    let new = process(0, 7);
    assert!(assignment.reopen(&new, 7, &added[0].stop));
    old.seen_up_to(100);
    assert_eq!(assignment.due(), [(queue(0), 7)]);
}

#[test]
fn a_queue_that_appears_later_is_told_from_one_that_was_there() {
    let (mut assignment, stop) = (Assignment::default(), CancellationToken::new());
    let topic: Arc<str> = TOPIC.into();
    assignment.see(&topic, &[queue(0)]);
    let (added, _) = assignment.divide(TOPIC, &[queue(0)], &stop);
    assert!(!added[0].appeared);
    assignment.see(&topic, &[queue(0), queue(1)]);
    let (added, _) = assignment.divide(TOPIC, &[queue(0), queue(1)], &stop);
    assert_eq!(names(&added), [1]);
    assert!(added[0].appeared);
    let payments: Arc<str> = "payments".into();
    let its_queue = MessageQueue::new("payments", "broker-a", 0);
    assignment.see(&payments, &[]);
    let (added, _) = assignment.divide("payments", &[its_queue], &stop);
    assert!(
        added[0].appeared,
        "the topic did not exist when the group started"
    );
}
