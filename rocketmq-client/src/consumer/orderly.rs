//! Consumption in order: one message at a time of each queue, or of each key.
//!
//! ```text
//! pull loop -> lanes of the queue (one, or one for each key) -> the line of lanes -> workers -> handler
//!                 ^                                                                     |
//!                 +------ a message that failed waits at the head of its lane <---------+
//! ```
//!
//! A lane is in the hands of one worker at a time, and goes on only when its first message is done with. So that no
//! other member handles the queue meanwhile, it is locked at its broker before the first pull, for as long as it is
//! owned and until the last handler has ended.
//!
//! What holds:
//!
//! - Nothing of a queue is started while its lock is not certain: it counts for 30 s from when it was asked for, where
//!   the broker keeps it for 60 s, and is in doubt from the end of the connection to the broker on, because a broker
//!   that restarts has forgotten its locks. A handler that still runs when the lock is lost is cut off.
//! - After a loss, consumption starts again at the offset that the broker has: what was cached is worth nothing.
//! - A queue that is given up is unlocked after its handlers have ended and their offset is confirmed, so that the next
//!   owner starts exactly there.
//!
//! Protocol source: `ConsumeMessageOrderlyService`, `RebalanceImpl#lockAll`, `ProcessQueue`.

mod builder;
mod entry;
mod keeper;
mod keys;
mod lanes;
mod later;
mod line;
mod lock;
mod options;
mod release;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

pub(super) use self::entry::consume_in_order;
use self::keeper::Keeper;
use self::keys::KeyOf;
pub(super) use self::lanes::{InOrder, OrderedQueue};
use self::later::Later;
use self::line::Line;
pub(super) use self::lock::LockInfo;
pub use self::options::Poison;
pub(super) use self::options::{OrderOptions, OrderedBy};
use super::process_queue::ProcessQueue;
use crate::message::MessageView;
use crate::protocol::Record;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// One lane: a queue and the hash of a key.
#[derive(Clone, Debug)]
struct Place {
    queue: Arc<OrderedQueue>,
    lane: u64,
}

/// What a consumer that keeps an order has beside what every consumer has.
#[derive(Debug)]
pub(super) struct Order {
    /// Absent if a queue is one lane.
    keys: Option<KeyOf>,
    /// Whether queues are locked: a group that broadcasts shares none.
    locking: bool,
    line: Line,
    /// Lanes whose first message failed.
    suspended: Later<Place>,
    /// What is owned of each broker, by its name.
    keepers: Mutex<HashMap<Arc<str>, Arc<Keeper>>>,
    /// The topics whose queues were divided before.
    divided: Mutex<HashSet<String>>,
}

impl Order {
    /// What the options ask for, if it is an order.
    pub(super) fn new(options: &OrderOptions, locking: bool) -> Option<Self> {
        let keys = match options.by.as_ref()? {
            OrderedBy::Queue => None,
            OrderedBy::Key(key) => Some(key.clone()),
        };
        Some(Self {
            keys,
            locking,
            line: Line::default(),
            suspended: Later::default(),
            keepers: Mutex::default(),
            divided: Mutex::default(),
        })
    }

    /// Takes the new messages of a queue into its lanes.
    pub(super) fn offer(&self, process: &Arc<ProcessQueue>, view: impl Fn(Record) -> MessageView) {
        let Some(InOrder { queue, .. }) = process.in_order() else {
            return;
        };
        let fresh = match &self.keys {
            None => process.fresh(|number, _| (number, 0)),
            // The records are cloned because a function of the user's must not be called under a lock.
            Some(keys) => process
                .fresh(|number, record| (number, record.clone()))
                .into_iter()
                .map(|(number, record)| (number, keys.lane_of(&view(record), number)))
                .collect(),
        };
        let ready = queue.add(process, fresh);
        self.list(queue, ready);
    }

    /// Lanes of a queue can be worked on.
    fn list(&self, queue: &Arc<OrderedQueue>, lanes: Vec<u64>) {
        self.line.push(lanes.into_iter().map(|lane| Place {
            queue: Arc::clone(queue),
            lane,
        }));
    }

    /// The pause of a lane is over.
    fn resume(&self, place: Place) {
        if place.queue.resume(place.lane) {
            self.line.push([place]);
        }
    }

    /// Lets lanes go on as their time comes.
    pub(super) async fn resume_regularly(&self, stop: &CancellationToken) {
        self.suspended.run(|place| self.resume(place), stop).await;
    }

    /// Lets all workers look again whether they are wanted.
    pub(super) fn wake_all(&self) {
        self.line.wake_all();
    }

    /// How the lock of a queue stands; absent without locks, or if the queue is not owned.
    pub(super) fn lock_info(&self, queue: &MessageQueue) -> Option<LockInfo> {
        let keeper = lock(&self.keepers).get(&queue.broker_name).cloned()?;
        Some(keeper.queue(queue)?.lock()?.info())
    }

    /// Notes that the queues of a topic are divided. Returns whether they were before.
    pub(super) fn divides_again(&self, topic: &str) -> bool {
        !lock(&self.divided).insert(topic.to_owned())
    }

    fn keepers(&self) -> Vec<Arc<Keeper>> {
        lock(&self.keepers).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
