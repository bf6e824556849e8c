//! Several messages of a queue at a time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cell, Claim, ProcessQueue, State};
use crate::protocol::names::RETRY_PREFIX;
use crate::protocol::{Record, property};

/// What a worker that wants a full batch finds.
#[derive(Debug)]
pub(in crate::consumer) enum Found {
    Batch(Vec<Claim>),
    /// Too little so far: it is worth another look then. Said once for each look.
    LookAgain(Instant),
    /// Nothing, or too little, and somebody will look again anyway.
    Nothing,
}

impl ProcessQueue {
    /// Takes up to `max` messages for the worker that found this queue first in line, and says whether the queue stays
    /// in line.
    pub(in crate::consumer) fn take_batch(&self, max: usize) -> (Option<Vec<Claim>>, bool) {
        let mut state = self.lock();
        let batch = state.take_batch(max, &self.queue.topic);
        state.listed = state.waiting() > 0;
        (batch, state.listed)
    }

    /// The same, but leaves the messages where they are as long as they are less than `max` and the first of them has
    /// not waited for `linger`.
    pub(in crate::consumer) fn take_full_batch(
        &self,
        max: usize,
        linger: Duration,
        now: Instant,
    ) -> (Found, bool) {
        let mut state = self.lock();
        let waiting = state.waiting();
        if waiting > 0 && waiting < max {
            let due = *state.full_until.get_or_insert_with(|| now + linger);
            if now < due {
                state.listed = false;
                if std::mem::replace(&mut state.looked_after, true) {
                    return (Found::Nothing, false);
                }
                return (Found::LookAgain(due), false);
            }
        }
        state.full_until = None;
        let batch = state.take_batch(max, &self.queue.topic);
        state.listed = state.waiting() > 0;
        (batch.map_or(Found::Nothing, Found::Batch), state.listed)
    }

    /// The look is due.
    pub(in crate::consumer) fn look_again(&self) {
        self.lock().looked_after = false;
    }
}

impl State {
    /// Messages of one topic, in the order they are handed out. One that the handler has decided about comes alone.
    fn take_batch(&mut self, max: usize, stored_in: &str) -> Option<Vec<Claim>> {
        let first = self.take()?;
        if first.undelivered.is_some() {
            return Some(vec![first]);
        }
        // Only of a retry topic can messages be of different ones.
        let mixed = stored_in.starts_with(RETRY_PREFIX);
        let room = max.min(self.waiting().saturating_add(1));
        let mut batch = Vec::with_capacity(room);
        let fits = |record: &Record, first: &Record| !mixed || origin_of(record) == origin_of(first);
        batch.push(first);
        while batch.len() < max {
            let next = match (self.again.front(), batch.first()) {
                (Some(next), Some(first)) => next.undelivered.is_none() && fits(&next.record, &first.record),
                (None, Some(first)) => self
                    .waiting_record()
                    .is_some_and(|next| fits(next, &first.record)),
                (_, None) => false,
            };
            match next.then(|| self.take()).flatten() {
                Some(claim) => batch.push(claim),
                None => break,
            }
        }
        Some(batch)
    }

    /// The next message that was not handed out yet.
    fn waiting_record(&self) -> Option<&Record> {
        let index = usize::try_from(self.next.checked_sub(self.first)?).ok()?;
        match &self.slots.get(index)?.cell {
            Cell::Waiting(record) => Some(record),
            _ => None,
        }
    }
}

/// The topic that a retried message was first sent to.
fn origin_of(record: &Record) -> Option<&str> {
    record.properties.get(property::RETRY_TOPIC)
}

#[cfg(test)]
mod tests {
    use crate::consumer::outcome::GiveBack;
    use crate::consumer::process_queue::tests::{NO_LIMITS, queue, record, records};
    use crate::protocol::{Properties, Text};

    use super::*;

    fn offsets(batch: &[Claim]) -> Vec<i64> {
        batch.iter().map(|claim| claim.record.queue_offset).collect()
    }

    fn taken(queue: &ProcessQueue, max: usize) -> Vec<i64> {
        offsets(&queue.take_batch(max).0.unwrap_or_default())
    }

    #[test]
    fn a_batch_has_what_there_is_up_to_its_size() {
        let queue = queue(0, NO_LIMITS);
        assert!(queue.take_batch(3).0.is_none());
        queue.put(records([1, 2, 3, 4, 5]), 100);
        assert!(queue.list());
        let (batch, more) = queue.take_batch(3);
        assert_eq!((offsets(&batch.unwrap()), more), (vec![1, 2, 3], true));
        let (batch, more) = queue.take_batch(3);
        assert_eq!((offsets(&batch.unwrap()), more), (vec![4, 5], false));
    }

    #[test]
    fn a_batch_finished_in_any_order_commits_up_to_the_lowest_unfinished() {
        let queue = queue(0, NO_LIMITS);
        queue.put(records([0, 1, 2, 3]), 100);
        let batch = queue.take_batch(4).0.unwrap();
        queue.finish(batch[3].number);
        queue.finish(batch[0].number);
        assert_eq!(queue.commit_offset(), 1);
        queue.finish(batch[1].number);
        queue.finish(batch[2].number);
        assert_eq!(queue.commit_offset(), 4);
    }

    #[test]
    fn messages_that_come_again_are_taken_first_and_decided_ones_alone() {
        let queue = queue(0, NO_LIMITS);
        queue.put(records([0, 1, 2, 3]), 100);
        let mut batch = queue.take_batch(3).0.unwrap();
        batch[1].undelivered = Some(GiveBack::Dead);
        for claim in batch {
            assert!(queue.put_back(claim));
        }
        assert_eq!(taken(&queue, 10), [0]);
        assert_eq!(taken(&queue, 10), [1]);
        assert_eq!(taken(&queue, 10), [2, 3]);
    }

    #[test]
    fn messages_of_different_topics_do_not_share_a_batch() {
        let retried = ProcessQueue::new(
            crate::protocol::bodies::MessageQueue::new("%RETRY%billing", "broker-a", 0),
            0,
            NO_LIMITS,
            crate::consumer::budget::Budget::new(usize::MAX),
        );
        let of = |offset, topic: &str| Record {
            properties: Properties::new(Text::from(format!("RETRY_TOPIC\u{1}{topic}\u{2}"))),
            ..record(offset)
        };
        retried.put(
            [
                of(0, "orders"),
                of(1, "orders"),
                of(2, "refunds"),
                of(3, "orders"),
            ],
            100,
        );
        assert_eq!(taken(&retried, 10), [0, 1]);
        assert_eq!(taken(&retried, 10), [2]);
        assert_eq!(taken(&retried, 10), [3]);
    }

    #[test]
    fn a_batch_waits_to_be_filled_but_not_for_ever() {
        let (now, linger) = (Instant::now(), Duration::from_secs(5));
        let queue = queue(0, NO_LIMITS);
        queue.put(records([0, 1]), 100);
        assert!(queue.list());
        let (found, listed) = queue.take_full_batch(3, linger, now);
        assert!(matches!(found, Found::LookAgain(due) if due == now + linger) && !listed);
        // More comes, but not enough; somebody looks again already.
        queue.put(records([2, 3]), 100);
        assert!(queue.list(), "it can be listed again");
        let (found, listed) = queue.take_full_batch(5, linger, now + linger / 2);
        assert!(matches!(found, Found::Nothing) && !listed);
        // Enough.
        queue.put(records([4]), 100);
        let (found, _) = queue.take_full_batch(5, linger, now + linger / 2);
        assert!(matches!(found, Found::Batch(batch) if batch.len() == 5));
        // What comes next waits anew, and no longer than that.
        queue.put(records([5]), 100);
        let later = now + linger;
        queue.look_again();
        let (found, _) = queue.take_full_batch(5, linger, later);
        assert!(matches!(found, Found::LookAgain(due) if due == later + linger));
        let (found, _) = queue.take_full_batch(5, linger, later + linger);
        assert!(matches!(found, Found::Batch(batch) if batch.len() == 1));
    }
}
