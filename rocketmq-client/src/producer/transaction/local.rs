//! What this process knows of its transactions: which run, which are asked about, how the last ones ended.
//!
//! Brokers store a half message anew before each question, so one transaction may have several half messages, of which
//! the newest is the one to be ended and the others are to be dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::TransactionState;
use crate::cluster::TransactionCheck;
use crate::sync::lock;

/// How many ended transactions are remembered: their copies are asked about within a check interval of the broker.
const REMEMBERED: usize = 16 * 1024;

/// Where a half message is, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::producer) struct Place {
    /// The address of the broker that asked; absent: the one that has this name.
    pub(super) address: Option<Arc<str>>,
    pub(super) broker_name: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) queue_offset: i64,
    pub(super) log_offset: i64,
    pub(in crate::producer) transaction_id: Option<String>,
    /// The topic of the message, as users know it.
    pub(in crate::producer) user_topic: String,
}

impl Place {
    pub(super) fn of_check(check: &TransactionCheck) -> Self {
        Self {
            address: Some(Arc::clone(&check.address)),
            broker_name: check.header.broker_name.clone(),
            topic: check.header.topic.clone(),
            queue_offset: check.header.tran_state_table_offset,
            log_offset: check.header.commit_log_offset,
            transaction_id: check.header.transaction_id.clone(),
            user_topic: check.half.topic().to_owned(),
        }
    }
}

/// How a transaction ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The broker has confirmed the commit: further copies of the half message would duplicate the message.
    Committed,
    /// The broker may not have heard of it.
    CommitUnconfirmed,
    RolledBack,
}

/// What to do about a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The outcome is known, or is known not to be.
    Now(TransactionState),
    /// The listener is asked.
    Ask,
    /// The listener is being asked already, and will answer this question too.
    Asked,
}

#[derive(Debug)]
enum Known {
    /// The local part runs; the newest question about it.
    Running(Option<Place>),
    /// The listener is being asked; the newest question.
    Checking(Place),
    Ended(Outcome),
}

#[derive(Debug, Default)]
pub(super) struct Local(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By message id.
    known: HashMap<String, Known>,
    /// The ids of ended ones, oldest first.
    ended: VecDeque<String>,
}

impl Local {
    /// A transaction begins.
    pub(super) fn begin(&self, id: &str) {
        lock(&self.0).known.insert(id.to_owned(), Known::Running(None));
    }

    /// The newest place of a running transaction, if a broker has asked about it.
    pub(super) fn newest_place(&self, id: &str) -> Option<Place> {
        match lock(&self.0).known.get(id) {
            Some(Known::Running(place)) => place.clone(),
            _ => None,
        }
    }

    /// A running transaction has ended.
    pub(super) fn end(&self, id: &str, outcome: Outcome) {
        let mut inner = lock(&self.0);
        if inner
            .known
            .insert(id.to_owned(), Known::Ended(outcome))
            .is_some_and(|was| matches!(was, Known::Ended(_)))
        {
            return;
        }
        inner.ended.push_back(id.to_owned());
        if inner.ended.len() > REMEMBERED
            && let Some(oldest) = inner.ended.pop_front()
        {
            inner.known.remove(&oldest);
        }
    }

    /// Whether the end of a transaction is known, and the broker knows it.
    pub(super) fn has_ended(&self, id: &str) -> bool {
        let inner = lock(&self.0);
        let known = inner.known.get(id);
        matches!(
            known,
            Some(Known::Ended(Outcome::Committed | Outcome::RolledBack))
        )
    }

    /// Nobody here knows how a running transaction ends: the listener is asked.
    pub(super) fn forget(&self, id: &str) {
        let mut inner = lock(&self.0);
        if let Some(Known::Running(_)) = inner.known.get(id) {
            inner.known.remove(id);
        }
    }

    /// A broker asks.
    pub(super) fn asked(&self, id: &str, place: Place) -> Answer {
        let mut inner = lock(&self.0);
        match inner.known.get_mut(id) {
            Some(Known::Running(newest)) => {
                *newest = Some(place);
                Answer::Now(TransactionState::Unknown)
            }
            Some(Known::Checking(newest)) => {
                *newest = place;
                Answer::Asked
            }
            Some(Known::Ended(outcome)) => Answer::Now(match outcome {
                // A copy: its original is visible already.
                Outcome::Committed | Outcome::RolledBack => TransactionState::Rollback,
                Outcome::CommitUnconfirmed => TransactionState::Commit,
            }),
            None => {
                inner.known.insert(id.to_owned(), Known::Checking(place));
                Answer::Ask
            }
        }
    }

    /// The listener has been asked: the place of the newest question, which is the one to answer.
    pub(super) fn checked(&self, id: &str) -> Option<Place> {
        let mut inner = lock(&self.0);
        match inner.known.remove(id) {
            Some(Known::Checking(place)) => Some(place),
            Some(other) => {
                inner.known.insert(id.to_owned(), other);
                None
            }
            None => None,
        }
    }

    /// How many run, and how many are asked about.
    pub(super) fn count(&self) -> (usize, usize) {
        let inner = lock(&self.0);
        let count = |wanted: fn(&Known) -> bool| inner.known.values().filter(|known| wanted(known)).count();
        (
            count(|known| matches!(known, Known::Running(_))),
            count(|known| matches!(known, Known::Checking(_))),
        )
    }
}
