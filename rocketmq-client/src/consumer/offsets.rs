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
    /// The broker itself has said so.
    from_broker: bool,
}

impl Entry {
    fn new(offset: i64) -> Self {
        Self {
            offset,
            sent: 0,
            from_broker: false,
        }
    }
}

impl OffsetTable {
    /// The queue is owned from now on and consumed from `offset` on. `committed` says that the broker has this very
    /// offset already.
    pub(super) fn own(&mut self, queue: MessageQueue, offset: i64, committed: bool) {
        // Zero is what a broker without an offset answers anyway; sending it could only undo another member's work.
        let sent = if committed || offset <= 0 { TIMES_SENT } else { 0 };
        let entry = Entry {
            offset,
            sent,
            from_broker: committed,
        };
        self.0.insert(queue, entry);
    }

    /// The queue belongs to somebody else from now on. Returns the offset it was left at.
    pub(super) fn disown(&mut self, queue: &MessageQueue) -> Option<i64> {
        self.0.remove(queue).map(|entry| entry.offset)
    }

    /// Everything below `offset` is consumed. Ignored for a queue that is not owned, and if it would go back.
    pub(super) fn advance(&mut self, queue: &MessageQueue, offset: i64) {
        if let Some(entry) = self.0.get_mut(queue).filter(|entry| entry.offset < offset) {
            *entry = Entry::new(offset);
        }
    }

    /// Consumption goes on at `offset`, whether that is forward or back: the broker or an operator said so.
    pub(super) fn reset(&mut self, queue: &MessageQueue, offset: i64) {
        if let Some(entry) = self.0.get_mut(queue) {
            *entry = Entry::new(offset);
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

    /// What the broker may not know of a queue yet.
    ///
    /// Its own offset is not told back to it with the pulls: one that it comes to late, behind the last commit of a
    /// consumer that has just stopped, would undo that commit.
    pub(super) fn news(&self, queue: &MessageQueue) -> Option<i64> {
        let entry = self.0.get(queue).filter(|entry| !entry.from_broker)?;
        Some(entry.offset)
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
    fn what_the_broker_has_said_itself_is_no_news_to_it() {
        let mut table = OffsetTable::default();
        table.own(queue(0), 10, true);
        table.own(queue(1), 10, false);
        assert_eq!((table.news(&queue(0)), table.news(&queue(1))), (None, Some(10)));
        table.advance(&queue(0), 11);
        assert_eq!(table.news(&queue(0)), Some(11));
        table.own(queue(0), 11, true);
        table.reset(&queue(0), 11);
        assert_eq!(
            table.news(&queue(0)),
            Some(11),
            "an operator's word has to be passed on"
        );
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
