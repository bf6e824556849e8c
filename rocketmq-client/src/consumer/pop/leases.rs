//! For how long popped messages are this member's.
//!
//! The time runs on this machine's steady clock, from before the messages were asked for: clocks of brokers may differ,
//! and jump. As long as a handler has a message, its time is renewed; where order is kept, so is that of all messages
//! that wait for it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::calls::{MAX_BATCH, Receipt};
use crate::consumer::engine::{Counters, Engine};
use crate::consumer::process_queue::ProcessQueue;
use crate::sync::lock;
use crate::tasks::join_all;

/// A popped message is this member's until the deadline.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) receipt: Receipt,
    pub(super) deadline: Instant,
}

impl Lease {
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// What a process queue of popped messages knows of them, by their numbers there.
#[derive(Debug)]
pub(in crate::consumer) struct Popping {
    leases: Mutex<HashMap<u64, Held>>,
    /// A renewal has ended.
    renewed: Notify,
    /// A broker knows that a message is done with.
    settled: Notify,
    /// Whether messages are renewed that wait for others.
    ordered: bool,
}

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// Whether a handler has it.
    running: bool,
    /// Whether its handle is about to change.
    renewing: bool,
}

/// Whether a handler may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Yes,
    /// The time of the message is over.
    Over,
    /// It was given back.
    Gone,
}

impl Popping {
    pub(super) fn new(ordered: bool) -> Self {
        Self {
            leases: Mutex::default(),
            renewed: Notify::new(),
            settled: Notify::new(),
            ordered,
        }
    }

    pub(super) fn add(&self, leases: impl IntoIterator<Item = (u64, Lease)>) {
        let held = |(number, lease)| {
            let held = Held {
                lease,
                running: false,
                renewing: false,
            };
            (number, held)
        };
        lock(&self.leases).extend(leases.into_iter().map(held));
    }

    /// A worker has the message and is about to call the handler.
    pub(super) fn start(&self, number: u64) -> Start {
        let mut leases = lock(&self.leases);
        match leases.get_mut(&number) {
            None => Start::Gone,
            Some(held) if held.lease.is_over() => {
                leases.remove(&number);
                Start::Over
            }
            Some(held) => {
                held.running = true;
                Start::Yes
            }
        }
    }

    /// Takes the lease of a message out, with the handle that is valid now.
    pub(super) async fn take(&self, number: u64) -> Option<Lease> {
        loop {
            // Registered before the look: the end of a renewal in between is not missed.
            let mut renewed = pin!(self.renewed.notified());
            renewed.as_mut().enable();
            {
                let mut leases = lock(&self.leases);
                if !leases.get(&number)?.renewing {
                    return leases.remove(&number).map(|held| held.lease);
                }
            }
            renewed.await;
        }
    }

    /// A broker knows that a message is done with.
    pub(super) fn settle(&self) {
        self.settled.notify_one();
    }

    /// Waits until a broker knows that another message is done with: its queue may be free.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// All messages that no handler has.
    pub(super) fn drain(&self) -> Vec<Receipt> {
        let mut leases = lock(&self.leases);
        let drained = leases.extract_if(|_, held| !held.running);
        drained.map(|(_, held)| held.lease.receipt).collect()
    }

    /// What is to be renewed now: from half of the time on.
    fn due(&self, length: Duration) -> Vec<(u64, Receipt)> {
        let now = Instant::now();
        let mut leases = lock(&self.leases);
        let due = leases.iter_mut().filter(|(_, held)| {
            let wanted = held.running || self.ordered;
            let left = held.lease.deadline.saturating_duration_since(now);
            // What is over is somebody else's.
            wanted && !held.renewing && !left.is_zero() && left <= length / 2
        });
        due.map(|(&number, held)| {
            held.renewing = true;
            (number, held.lease.receipt.clone())
        })
        .collect()
    }

    /// A renewal has ended; `None` if it failed.
    fn renew(&self, number: u64, lease: Option<Lease>) {
        if let Some(held) = lock(&self.leases).get_mut(&number) {
            held.renewing = false;
            if let Some(lease) = lease {
                held.lease = lease;
            }
        }
        self.renewed.notify_waiters();
    }
}

impl Engine {
    /// Renews what handlers have of a process queue, as long as there is one.
    pub(super) async fn renew_regularly(&self, process: Weak<ProcessQueue>, stop: CancellationToken) {
        let Some(pop) = &self.pop else { return };
        let length = pop.options.invisible_time;
        let mut tick = interval((length / 8).clamp(Duration::from_millis(100), Duration::from_secs(5)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let Some(process) = process.upgrade() else { return };
            let Some(popping) = process.popping() else { return };
            let due = popping.due(length);
            for some in due.chunks(MAX_BATCH) {
                let renewals = some
                    .iter()
                    .map(|(number, receipt)| self.renew(popping, *number, receipt, length));
                // Not cut off: the old handles are void as soon as the broker has the requests.
                let renewed = join_all(renewals).await.into_iter().filter(|&renewed| renewed);
                Counters::add(&pop.counters.renewed, renewed.count());
            }
        }
    }

    async fn renew(&self, popping: &Popping, number: u64, receipt: &Receipt, length: Duration) -> bool {
        let deadline = Instant::now() + length;
        let lease = match self.remote.change_invisible(receipt, length).await {
            Ok(handle) => Some(Lease {
                receipt: Receipt {
                    topic: Arc::clone(&receipt.topic),
                    handle,
                },
                deadline,
            }),
            Err(error) => {
                debug!(group = %self.group, topic = %receipt.topic, %error, "an invisible time could not be renewed, trying again");
                None
            }
        };
        let renewed = lease.is_some();
        popping.renew(number, lease);
        renewed
    }
}

#[cfg(test)]
mod tests;
