//! Messages on their way: handed out, not acknowledged, not yet due to come back.
//!
//! A real broker writes a check point for each pop and each acknowledgement into its revive topic and merges them when
//! their time has come. Here a check point is an entry that acknowledgements shrink, and that is gone when it is empty
//! or due; so what waits costs memory only while it waits.
//! Protocol source: `PopCheckPoint`, `PopBufferMergeService`, `PopReviveService`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::Place;
use crate::lock::lock;

/// How many check points there may be; each is for at most 32 messages.
const MAX_CHECK_POINTS: usize = 256 * 1024;

/// What names a check point: clients send it back with each acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handed {
    pub(crate) place: Place,
    pub(crate) start_offset: i64,
    /// When it was: milliseconds since 1970.
    pub(crate) pop_time: i64,
}

/// The messages of one queue that one pop handed out and that are not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckPoint {
    pub(crate) handed: Handed,
    /// Their offsets.
    pub(crate) pending: Vec<i64>,
    /// Whether coming back counts as one more attempt.
    pub(crate) counts: bool,
    /// How often it could not be brought back.
    pub(crate) failures: usize,
}

/// All check points, by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Flight(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    due: BTreeMap<(i64, u64), CheckPoint>,
    index: HashMap<Handed, (i64, u64)>,
    next_id: u64,
    /// When a timer will look at it.
    armed_at: Option<i64>,
}

impl Flight {
    /// Whether there is room for one more check point.
    pub(crate) fn has_room(&self) -> bool {
        lock(&self.0).due.len() < MAX_CHECK_POINTS
    }

    /// Takes a check point that is due at `due`. Says for when a timer has to be set, if it has.
    ///
    /// One of the same name can only be there after a reset within one millisecond: what is left of it comes back with
    /// the new one.
    pub(crate) fn put(&self, mut point: CheckPoint, due: i64) -> Option<i64> {
        let mut table = lock(&self.0);
        if let Some(earlier) = table.take(&point.handed) {
            point.pending.extend(earlier.pending);
            point.pending.sort_unstable();
            point.pending.dedup();
        }
        table.put(point, due);
        table.arm()
    }

    /// As [`put`](Self::put), under a name that nothing else has: the time of the pop is put off until it is free.
    /// Returns that time too.
    pub(crate) fn put_alone(&self, mut point: CheckPoint, invisible: i64) -> (Option<i64>, i64) {
        let mut table = lock(&self.0);
        while table.index.contains_key(&point.handed) {
            point.handed.pop_time = point.handed.pop_time.saturating_add(1);
        }
        let pop_time = point.handed.pop_time;
        table.put(point, pop_time.saturating_add(invisible));
        (table.arm(), pop_time)
    }

    /// Forgets messages that were handed out together: they are acknowledged. Those that are not on their way any more,
    /// or never were, are passed over.
    pub(crate) fn acknowledge(&self, handed: &Handed, offsets: &[i64]) {
        let mut table = lock(&self.0);
        let Some(&at) = table.index.get(handed) else {
            return;
        };
        let Some(point) = table.due.get_mut(&at) else {
            return;
        };
        point.pending.retain(|offset| !offsets.contains(offset));
        if point.pending.is_empty() {
            table.take(handed);
        }
    }

    /// Takes the first check point if it is due.
    pub(crate) fn take_due(&self, now: i64) -> Option<CheckPoint> {
        let mut table = lock(&self.0);
        let (&(due, _), point) = table.due.first_key_value()?;
        if due > now {
            return None;
        }
        let handed = point.handed.clone();
        table.take(&handed)
    }

    /// The timer that was set for `at` is over; false if it is not the one that counts.
    pub(crate) fn disarm(&self, at: i64) -> bool {
        let mut table = lock(&self.0);
        let counts = table.armed_at == Some(at);
        if counts {
            table.armed_at = None;
        }
        counts
    }

    /// All timers are gone.
    pub(crate) fn disarm_all(&self) {
        lock(&self.0).armed_at = None;
    }

    /// For when a timer has to be set, if it has.
    pub(crate) fn arm(&self) -> Option<i64> {
        lock(&self.0).arm()
    }
}

impl Table {
    fn put(&mut self, point: CheckPoint, due: i64) {
        let at = (due, self.next_id);
        self.next_id += 1;
        self.index.insert(point.handed.clone(), at);
        self.due.insert(at, point);
    }

    fn arm(&mut self) -> Option<i64> {
        let (&(due, _), _) = self.due.first_key_value()?;
        if self.armed_at.is_some_and(|at| at <= due) {
            return None;
        }
        self.armed_at = Some(due);
        Some(due)
    }

    fn take(&mut self, handed: &Handed) -> Option<CheckPoint> {
        let at = self.index.remove(handed)?;
        let point = self.due.remove(&at);
        // A queue that was long once must not keep the room for it.
        if self.index.capacity() > 1024 && self.index.len() < self.index.capacity() / 4 {
            let room = self.index.len() * 2;
            self.index.shrink_to(room);
        }
        point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(start_offset: i64, pop_time: i64) -> Handed {
        Handed {
            place: Place {
                group: "g".into(),
                topic: "t".into(),
                queue_id: 0,
            },
            start_offset,
            pop_time,
        }
    }

    fn point(start_offset: i64, pop_time: i64, pending: &[i64]) -> CheckPoint {
        CheckPoint {
            handed: handed(start_offset, pop_time),
            pending: pending.to_vec(),
            counts: true,
            failures: 0,
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_due_in_the_order_of_its_times() {
        let flight = Flight::default();
        flight.put(point(0, 10, &[0, 1, 2]), 100);
        flight.put(point(3, 11, &[3]), 50);
        flight.put(point(4, 12, &[4]), 70);
        flight.acknowledge(&handed(0, 10), &[1]);
        flight.acknowledge(&handed(4, 12), &[4]);
        assert_eq!(flight.take_due(49), None);
        assert_eq!(flight.take_due(50).unwrap().pending, [3]);
        assert_eq!(flight.take_due(99), None);
        assert_eq!(flight.take_due(100).unwrap().pending, [0, 2]);
        assert_eq!(flight.take_due(1000), None);
    }

    #[test]
    fn there_is_one_timer_and_an_earlier_one_takes_its_place() {
        let flight = Flight::default();
        assert_eq!(flight.arm(), None);
        assert_eq!(flight.put(point(0, 10, &[0]), 100), Some(100));
        assert_eq!(flight.put(point(1, 10, &[1]), 200), None);
        assert_eq!(flight.put(point(2, 10, &[2]), 50), Some(50));
        assert!(!flight.disarm(100), "another one counts");
        assert!(flight.disarm(50));
        assert_eq!(flight.take_due(50).unwrap().pending, [2]);
        assert_eq!(flight.arm(), Some(100));
        assert_eq!(flight.arm(), None);
        flight.disarm_all();
        assert_eq!(flight.arm(), Some(100));
    }

    #[test]
    fn an_acknowledgement_of_something_else_changes_nothing() {
        let flight = Flight::default();
        flight.put(point(0, 10, &[0]), 100);
        flight.acknowledge(&handed(0, 11), &[0]);
        flight.acknowledge(&handed(1, 10), &[0]);
        flight.acknowledge(&handed(0, 10), &[7]);
        assert_eq!(flight.take_due(99), None);
        flight.acknowledge(&handed(0, 10), &[0]);
        flight.acknowledge(&handed(0, 10), &[0]);
        assert_eq!(flight.take_due(i64::MAX), None);
    }

    #[test]
    fn a_name_that_is_taken_is_put_off_or_shared_and_loses_nothing() {
        let flight = Flight::default();
        flight.put(point(0, 10, &[0, 1]), 100);
        let (_, pop_time) = flight.put_alone(point(0, 10, &[0]), 5);
        assert_eq!(pop_time, 11);
        flight.put(point(0, 10, &[1, 2]), 200);
        assert_eq!(flight.take_due(16).unwrap().pending, [0]);
        assert_eq!(flight.take_due(199), None);
        assert_eq!(flight.take_due(200).unwrap().pending, [0, 1, 2]);
    }

    #[test]
    fn there_is_an_end_to_the_room() {
        let flight = Flight::default();
        for start in 0..i64::try_from(MAX_CHECK_POINTS).unwrap() {
            assert!(flight.has_room());
            flight.put(point(start, 0, &[]), 0);
        }
        assert!(!flight.has_room());
    }
}
