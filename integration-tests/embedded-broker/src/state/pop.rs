//! What a broker knows of messages that it handed out by POP: which are on their way, which queues wait for their
//! batch, and which groups take part at all.

mod flight;
mod modes;
mod orders;

pub(crate) use self::flight::{CheckPoint, Flight, Handed};
pub(crate) use self::modes::RequestModes;
pub(crate) use self::orders::{Committed, HandedOut, Orders};

/// How many revive queues there are. Java: `reviveQueueNum`.
pub(crate) const REVIVE_QUEUES: i32 = 8;

/// One queue of a topic, as a group sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) group: std::sync::Arc<str>,
    pub(crate) topic: std::sync::Arc<str>,
    pub(crate) queue_id: i32,
}
