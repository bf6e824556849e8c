//! How many messages may come twice.

use std::time::Duration;

/// What a run was like, as far as it decides how many messages may have come twice.
///
/// A member that is killed has handled messages whose offsets it had not committed: those of one commit interval, those
/// in its handlers, and those above an unfinished one. A member that joins or leaves takes queues from others, whose
/// handlers go on for a moment and whose last commits may come too late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Messages that the whole group handles in a second.
    pub rate: f64,
    /// Between two commits.
    pub commit_interval: Duration,
    /// Handlers in flight in each member.
    pub in_flight: usize,
    /// Messages that were handled above the lowest unfinished one, over the queues of one member: not more than its
    /// span limit allows.
    pub span: usize,
    /// Members that were killed.
    pub kills: usize,
    /// Members that joined or left.
    pub changes: usize,
    /// Members at a time.
    pub members: usize,
}

impl Bound {
    /// `kills * (r * i + h + span) + changes * (h + r * i / members)`.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        let uncommitted = self.rate * self.commit_interval.as_secs_f64();
        let of_a_kill = uncommitted + self.in_flight as f64 + self.span as f64;
        let of_a_change = self.in_flight as f64 + uncommitted / self.members.max(1) as f64;
        let bound = self.kills as f64 * of_a_kill + self.changes as f64 * of_a_change;
        bound.ceil() as usize
    }
}
