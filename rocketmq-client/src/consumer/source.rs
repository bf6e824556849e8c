//! Which of a broker's replicas a queue is pulled from.
//!
//! Protocol source: `PullAPIWrapper#recalculatePullFromWhichNode`, `updatePullFromWhichNode`.

use crate::protocol::bodies::MASTER_ID;

/// The broker id to pull from: the master unless it suggests a slave, and the master again when that fails.
///
/// A slave only serves pulls. Offsets are committed to the master while there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// [`MASTER_ID`] is zero.
    id: i64,
}

impl Source {
    pub(super) fn id(self) -> i64 {
        self.id
    }

    /// A response says where to pull from next.
    pub(super) fn suggested(&mut self, id: i64) {
        self.id = id.max(MASTER_ID);
    }

    /// The replica of this id does not serve. `other` is a slave that may, if it is the master that is away; Java goes
    /// on asking the master until the name server has dropped it.
    pub(super) fn failed(&mut self, id: i64, other: Option<i64>) {
        self.id = match other {
            Some(slave) if id == MASTER_ID => slave,
            _ => MASTER_ID,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_followed_and_failures_lead_back_to_the_master() {
        let mut source = Source::default();
        assert_eq!(source.id(), MASTER_ID);
        source.suggested(1);
        assert_eq!(source.id(), 1);
        source.failed(1, None);
        assert_eq!(source.id(), MASTER_ID);
        source.suggested(-7);
        assert_eq!(source.id(), MASTER_ID, "nobody has such an id");
    }

    #[test]
    fn a_master_that_is_away_is_replaced_by_a_slave_if_there_is_one() {
        let mut source = Source::default();
        source.failed(MASTER_ID, Some(2));
        assert_eq!(source.id(), 2);
        source.failed(2, Some(2));
        assert_eq!(source.id(), MASTER_ID);
        source.failed(MASTER_ID, None);
        assert_eq!(source.id(), MASTER_ID);
    }
}
