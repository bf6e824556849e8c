//! What handlers began and ended, line by line: a line is a queue or a key, and its messages count up from 0.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use integration_tests::scenario::TestResult;

/// The record of one scenario; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    lines: BTreeMap<String, Line>,
    begun: usize,
    by: BTreeMap<String, usize>,
    faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Line {
    /// Who is at it, and with what.
    open: Option<(String, u32)>,
    /// What was begun last.
    last: Option<u32>,
    /// The first that nobody has begun yet.
    next: u32,
    ended: BTreeSet<u32>,
}

/// A message that is being handled. Dropped without [`done`](Self::done), it was cut off.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Ledger,
    line: String,
    owner: String,
    number: u32,
    done: bool,
}

impl Ledger {
    /// A handler begins with a message of a line.
    pub(super) fn begin(&self, line: &str, owner: &str, number: u32) -> Entry {
        let mut book = self.book();
        let book = &mut *book;
        book.begun += 1;
        let entry = book.lines.entry(line.to_owned()).or_default();
        if let Some((other, at)) = &entry.open {
            let fault = format!("{line}: {owner} began {number} while {other} was at {at}");
            book.faults.push(fault);
        }
        // On, or back to an earlier one and on from there: never past one that nobody has begun.
        let follows = entry
            .last
            .map_or(number == 0, |last| number == last + 1 || number <= last);
        if !follows || number > entry.next {
            let fault = format!("{line}: {owner} began {number} after {:?}", entry.last);
            book.faults.push(fault);
        }
        entry.open = Some((owner.to_owned(), number));
        entry.last = Some(number);
        entry.next = entry.next.max(number + 1);
        Entry {
            ledger: self.clone(),
            line: line.to_owned(),
            owner: owner.to_owned(),
            number,
            done: false,
        }
    }

    /// How many handlers have begun, repeated ones included.
    pub(super) fn begun(&self) -> usize {
        self.book().begun
    }

    /// How many different messages were handled to the end.
    pub(super) fn ended(&self) -> usize {
        self.book().lines.values().map(|line| line.ended.len()).sum()
    }

    /// How many messages a member has handled to the end.
    pub(super) fn ended_by(&self, owner: &str) -> usize {
        self.book().by.get(owner).copied().unwrap_or(0)
    }

    /// What was handled of a line.
    pub(super) fn of(&self, line: &str) -> BTreeSet<u32> {
        let book = self.book();
        book.lines
            .get(line)
            .map(|line| line.ended.clone())
            .unwrap_or_default()
    }

    /// Fails if two were at a line at a time, or one was passed over.
    pub(super) fn verdict(&self) -> TestResult {
        match self.book().faults.as_slice() {
            [] => Ok(()),
            faults => Err(format!("{} faults, the first: {}", faults.len(), faults[0]).into()),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The handler has done its work.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        if self.done {
            *book.by.entry(self.owner.clone()).or_default() += 1;
        }
        if let Some(line) = book.lines.get_mut(&self.line) {
            // Somebody else's beginning in the meantime is a fault that is noted already.
            line.open
                .take_if(|(owner, number)| *owner == self.owner && *number == self.number);
            if self.done {
                line.ended.insert(self.number);
            }
        }
    }
}

#[test]
fn the_ledger_notices_two_at_a_time_and_one_that_is_passed_over() {
    let planted = |plant: fn(&Ledger)| {
        let ledger = Ledger::default();
        ledger.begin("a", "x", 0).done();
        plant(&ledger);
        ledger.verdict().is_err()
    };
    assert!(!planted(|ledger| ledger.begin("a", "x", 1).done()));
    assert!(!planted(|ledger| {
        ledger.begin("a", "x", 1).done();
        ledger.begin("a", "y", 0).done();
        ledger.begin("a", "y", 1).done();
        drop(ledger.begin("a", "y", 2));
        ledger.begin("a", "x", 2).done();
    }));
    assert!(planted(|ledger| ledger.begin("a", "x", 2).done()));
    assert!(planted(|ledger| ledger.begin("b", "x", 1).done()));
    assert!(planted(|ledger| {
        let open = ledger.begin("a", "x", 1);
        ledger.begin("a", "y", 1).done();
        open.done();
    }));
    assert!(planted(|ledger| {
        for number in [1, 2, 0, 2] {
            ledger.begin("a", "x", number).done();
        }
    }));
}
