//! Why brokers refuse a member: what an operator has to know who wonders why nothing is consumed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tracing::error;

use super::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::sync::lock;

/// What the last refusals for lack of permission said, until that is permitted again; by topic, or of the group.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    some: AtomicBool,
    texts: Mutex<BTreeMap<Arc<str>, String>>,
}

impl Refusal {
    /// Keeps the error if it is a refusal. Returns whether it is the first one since this was permitted.
    fn note(&self, of: &Arc<str>, error: &Error) -> bool {
        if error.kind() != ErrorKind::Auth {
            return false;
        }
        let mut texts = lock(&self.texts);
        self.some.store(true, Ordering::Relaxed);
        texts.insert(Arc::clone(of), error.to_string()).is_none()
    }

    /// This was permitted. Costs next to nothing while nothing is refused.
    pub(super) fn clear(&self, of: &str) {
        if self.is_some() {
            let mut texts = lock(&self.texts);
            texts.remove(of);
            self.some.store(!texts.is_empty(), Ordering::Relaxed);
        }
    }

    pub(super) fn is_some(&self) -> bool {
        self.some.load(Ordering::Relaxed)
    }

    pub(super) fn text(&self) -> Option<String> {
        lock(&self.texts).values().next().cloned()
    }
}

impl Engine {
    /// A broker did not do what was asked of it, for a topic or the group. What it refuses for lack of permission is said
    /// loudly, once: it is asked for again every now and then, because permissions change.
    pub(super) fn note_refusal(&self, of: &Arc<str>, refused: &Error) {
        if self.refusal.note(of, refused) {
            error!(
                group = %self.group, %of, %refused,
                "brokers refuse what this consumer needs, it is not consumed until somebody permits it"
            );
        }
    }

    /// Tells the brokers who is here, and keeps why they refuse it, if they do.
    pub(super) async fn heartbeat(&self) {
        if let Some(refused) = self.remote.heartbeat().await {
            self.note_refusal(&self.group, &refused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_kept_until_the_same_is_permitted_and_counts_as_new_then() {
        let (refusal, orders) = (Refusal::default(), Arc::from("orders"));
        assert!(!refusal.note(&orders, &Error::new(ErrorKind::Timeout, "slow")));
        assert_eq!((refusal.is_some(), refusal.text()), (false, None));
        assert!(refusal.note(&orders, &Error::new(ErrorKind::Auth, "no")));
        assert!(!refusal.note(&orders, &Error::new(ErrorKind::Auth, "still no")));
        refusal.clear("invoices");
        assert!(refusal.text().unwrap().contains("still no"));
        refusal.clear("orders");
        assert_eq!((refusal.is_some(), refusal.text()), (false, None));
        assert!(refusal.note(&orders, &Error::new(ErrorKind::Auth, "no again")));
    }
}
