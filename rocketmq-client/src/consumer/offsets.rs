//! What this member has consumed of the queues it owns, and what it has to tell the brokers.
//!
//! Protocol source: `RemoteBrokerOffsetStore`.

use std::collections::HashMap;

use crate::protocol::bodies::MessageQueue;

/// How often each offset is sent: commits travel one-way, so one may be lost without a trace. Pulls carry the offset
/// too, so even both may.
const TIMES_SENT: u8 = 2;

/// The offsets of the owned queues.
///
/// An offset only moves forward, except by [`reset`](Self::reset). A queue enters with an offset that the broker
/// answered or that follows from one, never with a guess: a failed query leaves it out, and what is not in the table
/// cannot be committed.
#[derive(Debug, Default)]
pub(super) struct OffsetTable(HashMap<MessageQueue, Entry>);

#[derive(Debug)]
struct Entry {
    offset: i64,
    sent: u8,
}

impl OffsetTable {
    /// The queue is owned from now on and consumed from `offset` on. `committed` says that the broker has this very
    /// offset already.
    pub(super) fn own(&mut self, queue: MessageQueue, offset: i64, committed: bool) {
        // Zero is what a broker without an offset answers anyway; sending it could only undo another member's work.
        let sent = if committed || offset <= 0 { TIMES_SENT } else { 0 };
        self.0.insert(queue, Entry { offset, sent });
    }

    /// The queue belongs to somebody else from now on. Returns the offset it was left at.
    pub(super) fn disown(&mut self, queue: &MessageQueue) -> Option<i64> {
        self.0.remove(queue).map(|entry| entry.offset)
    }

    /// Everything below `offset` is consumed. Ignored for a queue that is not owned, and if it would go back.
    pub(super) fn advance(&mut self, queue: &MessageQueue, offset: i64) {
        if let Some(entry) = self.0.get_mut(queue).filter(|entry| entry.offset < offset) {
            *entry = Entry { offset, sent: 0 };
        }
    }

    /// Consumption goes on at `offset`, whether that is forward or back: the broker or an operator said so.
    pub(super) fn reset(&mut self, queue: &MessageQueue, offset: i64) {
        if let Some(entry) = self.0.get_mut(queue) {
            *entry = Entry { offset, sent: 0 };
        }
    }

    /// What has been consumed, if the queue is owned.
    pub(super) fn offset(&self, queue: &MessageQueue) -> Option<i64> {
        self.0.get(queue).map(|entry| entry.offset)
    }

    /// All offsets.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&MessageQueue, i64)> {
        self.0.iter().map(|(queue, entry)| (queue, entry.offset))
    }

    /// What has to be sent now. Counts it as sent.
    pub(super) fn due(&mut self) -> Vec<(MessageQueue, i64)> {
        let due = self.0.iter_mut().filter(|(_, entry)| entry.sent < TIMES_SENT);
        due.map(|(queue, entry)| {
            entry.sent += 1;
            (queue.clone(), entry.offset)
        })
        .collect()
    }

    /// Sending this offset failed: it is due again, unless a newer one is.
    pub(super) fn failed(&mut self, queue: &MessageQueue, offset: i64) {
        if let Some(entry) = self.0.get_mut(queue).filter(|entry| entry.offset == offset) {
            entry.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("orders", "broker-a", id)
    }

    #[test]
    fn an_offset_moves_forward_only_except_by_a_reset() {
        let mut table = OffsetTable::default();
        table.own(queue(0), 10, true);
        table.advance(&queue(0), 12);
        table.advance(&queue(0), 11);
        assert_eq!(table.offset(&queue(0)), Some(12));
        table.reset(&queue(0), 3);
        assert_eq!(table.offset(&queue(0)), Some(3));
        assert_eq!(table.due(), [(queue(0), 3)]);
    }

    #[test]
    fn a_queue_that_is_not_owned_is_never_committed() {
        let mut table = OffsetTable::default();
        table.advance(&queue(0), 12);
        table.reset(&queue(0), 12);
        assert_eq!(table.due(), []);
        table.own(queue(0), 10, true);
        table.advance(&queue(0), 12);
        assert_eq!(table.disown(&queue(0)), Some(12));
        table.advance(&queue(0), 13);
        assert_eq!(table.due(), []);
    }

    #[test]
    fn nothing_is_sent_before_something_was_consumed() {
        let mut table = OffsetTable::default();
        table.own(queue(0), 10, true);
        table.own(queue(1), 0, false);
        assert_eq!(table.due(), []);
        // A group that starts at the end keeps its place even if it crashes before the first message.
        table.own(queue(2), 500, false);
        assert_eq!(table.due(), [(queue(2), 500)]);
    }

    #[test]
    fn each_offset_is_sent_twice_and_after_a_failure_again() {
        let mut table = OffsetTable::default();
        table.own(queue(0), 0, true);
        table.advance(&queue(0), 5);
        assert_eq!(table.due(), [(queue(0), 5)]);
        assert_eq!(table.due(), [(queue(0), 5)]);
        assert_eq!(table.due(), []);
        table.failed(&queue(0), 4);
        assert_eq!(table.due(), [], "an older offset that failed matters no more");
        table.failed(&queue(0), 5);
        assert_eq!(table.due(), [(queue(0), 5)]);
    }
}
