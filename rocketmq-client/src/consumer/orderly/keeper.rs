//! The locks of the queues of one broker: asked for, renewed and given back by one task, one request at a time, so that
//! no renewal overtakes the unlocking of a queue.
//!
//! Protocol source: `RebalanceImpl#lockAll`, `RebalancePushImpl#unlockDelay`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Order;
use super::lanes::OrderedQueue;
use super::lock::LIFE;
use crate::consumer::engine::Engine;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// How long before its end a lock is renewed: every 20 s. Java: `rocketmq.client.rebalance.lockInterval`.
const RENEW_BEFORE: Duration = Duration::from_secs(10);

/// The first wait for a lock that was not to be had, and the longest: it doubles in between. Java waits 20 s (4.9), or
/// for its next rebalance.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How often a broker is asked to unlock a queue; after that, the lock runs out by itself.
const UNLOCK_TRIES: u32 = 3;

/// The queues of one broker that this member has to do with.
#[derive(Debug)]
pub(super) struct Keeper {
    broker: Arc<str>,
    entries: Mutex<BTreeMap<MessageQueue, Entry>>,
    /// There is something to lock or to unlock.
    wake: Notify,
}

#[derive(Debug)]
struct Entry {
    queue: Arc<OrderedQueue>,
    /// Whether the queue is to be owned.
    wanted: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Owned, or to be.
    Kept,
    /// Given up, but its handlers still run: the lock is kept until they have ended.
    Leaving,
    /// To be unlocked, after so many tries.
    Unlocking(u32),
}

impl Entry {
    fn keep(&mut self) {
        self.stage = Stage::Kept;
        self.queue.set_leaving(false);
    }
}

impl Keeper {
    fn new(broker: Arc<str>) -> Self {
        Self {
            broker,
            entries: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn queue(&self, queue: &MessageQueue) -> Option<Arc<OrderedQueue>> {
        lock(&self.entries)
            .get(queue)
            .map(|entry| Arc::clone(&entry.queue))
    }

    fn want(&self, queue: &MessageQueue, locking: bool) -> Arc<OrderedQueue> {
        let ordered = {
            let mut entries = lock(&self.entries);
            let entry = entries.entry(queue.clone()).or_insert_with(|| Entry {
                queue: Arc::new(OrderedQueue::new(queue.clone(), locking)),
                wanted: true,
                stage: Stage::Kept,
            });
            entry.wanted = true;
            Arc::clone(&entry.queue)
        };
        self.wake.notify_one();
        ordered
    }

    /// The queue is given up. Returns it if somebody has to see to its leaving now.
    pub(super) fn leave(&self, queue: &MessageQueue) -> Option<Arc<OrderedQueue>> {
        let mut entries = lock(&self.entries);
        let entry = entries.get_mut(queue)?;
        entry.wanted = false;
        (entry.stage == Stage::Kept).then(|| {
            entry.stage = Stage::Leaving;
            entry.queue.set_leaving(true);
            Arc::clone(&entry.queue)
        })
    }

    /// Its handlers have ended and their offset is known to the broker. A queue that is wanted again by now stays.
    pub(super) fn left(&self, queue: &MessageQueue) {
        {
            let mut entries = lock(&self.entries);
            let Some(entry) = entries.get_mut(queue) else {
                return;
            };
            let locks = entry.queue.lock().is_some();
            match (entry.wanted, locks) {
                (true, _) => entry.keep(),
                (false, true) => entry.stage = Stage::Unlocking(0),
                (false, false) => {
                    entries.remove(queue);
                }
            }
        }
        self.wake.notify_one();
    }

    pub(super) fn broker(&self) -> &Arc<str> {
        &self.broker
    }

    pub(super) fn queues(&self) -> Vec<Arc<OrderedQueue>> {
        lock(&self.entries)
            .values()
            .map(|entry| Arc::clone(&entry.queue))
            .collect()
    }

    /// What is to be locked now.
    fn due(&self, now: Instant) -> Vec<Arc<OrderedQueue>> {
        let entries = lock(&self.entries);
        let kept = entries.values().filter(|entry| match entry.stage {
            Stage::Kept => true,
            // A lock that was given up during the leaving is not taken back.
            Stage::Leaving => entry.queue.lock().is_some_and(|lock| !lock.is_over()),
            Stage::Unlocking(_) => false,
        });
        kept.filter(|entry| {
            let until = entry.queue.lock().and_then(|lock| lock.until());
            until.is_none_or(|until| until <= now + RENEW_BEFORE)
        })
        .map(|entry| Arc::clone(&entry.queue))
        .collect()
    }

    /// When the next lock has to be renewed, of those that are held.
    fn next_renewal(&self) -> Option<Instant> {
        let entries = lock(&self.entries);
        let untils = entries
            .values()
            .filter_map(|entry| entry.queue.lock().and_then(|lock| lock.until()));
        untils.min().map(|until| until - RENEW_BEFORE)
    }

    fn to_unlock(&self) -> Vec<MessageQueue> {
        let entries = lock(&self.entries);
        entries
            .iter()
            .filter(|(_, entry)| matches!(entry.stage, Stage::Unlocking(_)))
            .map(|(queue, _)| queue.clone())
            .collect()
    }

    /// The broker has unlocked these, or could not be told.
    fn unlocked(&self, queues: &[MessageQueue], told: bool) {
        let mut entries = lock(&self.entries);
        for queue in queues {
            let Some(entry) = entries.get_mut(queue) else {
                continue;
            };
            if let Some(lock) = entry.queue.lock() {
                lock.give_up();
            }
            match entry.stage {
                _ if entry.wanted => entry.keep(),
                Stage::Unlocking(tries) if !told && tries + 1 < UNLOCK_TRIES => {
                    entry.stage = Stage::Unlocking(tries + 1);
                }
                _ => {
                    entries.remove(queue);
                }
            }
        }
    }

    fn doubt(&self) {
        for queue in self.queues() {
            if let Some(lock) = queue.lock() {
                lock.doubt();
            }
        }
    }
}

impl Order {
    /// This member wants to own the queue from now on.
    fn want(&self, queue: &MessageQueue) -> (Arc<OrderedQueue>, Option<Arc<Keeper>>) {
        let mut new = None;
        let keeper = {
            let mut keepers = lock(&self.keepers);
            let keeper = keepers.entry(Arc::clone(&queue.broker_name)).or_insert_with(|| {
                let keeper = Arc::new(Keeper::new(Arc::clone(&queue.broker_name)));
                new = self.locking.then(|| Arc::clone(&keeper));
                keeper
            });
            Arc::clone(keeper)
        };
        (keeper.want(queue, self.locking), new)
    }
}

impl Engine {
    /// What keeps the order of a queue that was assigned to this member; absent if no order is kept.
    pub(in crate::consumer) fn keep_order_of(
        self: &Arc<Self>,
        queue: &MessageQueue,
    ) -> Option<Arc<OrderedQueue>> {
        let (ordered, keeper) = self.order.as_ref()?.want(queue);
        if let Some(keeper) = keeper {
            let engine = Arc::clone(self);
            self.upkeep.spawn(
                "locks",
                |stop| async move { engine.keep_locks(&keeper, &stop).await },
            );
        }
        Some(ordered)
    }

    async fn keep_locks(&self, keeper: &Keeper, stop: &CancellationToken) {
        let mut patience = RETRY.0;
        loop {
            // Not cut off: what is asked for and not waited for could be granted after it was given back.
            self.unlock_left(keeper).await;
            let settled = self.lock_due(keeper).await;
            let now = Instant::now();
            let next = match keeper.next_renewal() {
                _ if !settled => Some(now + patience),
                renewal => renewal.map(|at| at.max(now + RETRY.0)),
            };
            patience = if settled {
                RETRY.0
            } else {
                patience.saturating_mul(2).min(RETRY.1)
            };
            let connection = self.remote.connection_to(keeper.broker());
            let woken = stop.run_until_cancelled(async {
                tokio::select! {
                    () = keeper.wake.notified() => true,
                    () = async { match next {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    } } => false,
                    () = async { match &connection {
                        Some(connection) => connection.ended().await,
                        None => std::future::pending().await,
                    } } => {
                        debug!(group = %self.group, broker = %keeper.broker, "the connection ended, locks are in doubt");
                        keeper.doubt();
                        true
                    }
                }
            });
            match woken.await {
                Some(true) => patience = RETRY.0,
                Some(false) => {}
                None => return,
            }
        }
    }

    /// Asks for the locks that are missing or are about to run out. Returns whether all are held now.
    async fn lock_due(&self, keeper: &Keeper) -> bool {
        let due = keeper.due(Instant::now());
        if due.is_empty() {
            return true;
        }
        let asked_at = Instant::now();
        let asked: Vec<MessageQueue> = due.iter().map(|queue| queue.queue().clone()).collect();
        let granted = match self.remote.lock_queues(keeper.broker(), &asked).await {
            Ok(granted) => granted,
            Err(error) => {
                // What is held stays so until it runs out.
                warn!(group = %self.group, broker = %keeper.broker, queues = asked.len(), %error, "queues could not be locked, trying again");
                return false;
            }
        };
        let mut all = true;
        for queue in due {
            let Some(lock) = queue.lock() else { continue };
            if granted.contains(queue.queue()) {
                let was_held = lock.info().locked;
                lock.grant(asked_at);
                if !was_held {
                    debug!(group = %self.group, queue = %queue.queue(), "queue locked");
                }
                // Also if it was held: it may have run out for a moment since it was asked for.
                if let Some(order) = &self.order {
                    order.list(&queue, queue.unpark());
                }
                continue;
            }
            all = false;
            if lock.info().refusals == 0 {
                info!(group = %self.group, queue = %queue.queue(), "another member has the queue locked, asking again");
            }
            lock.refuse();
        }
        all
    }

    async fn unlock_left(&self, keeper: &Keeper) {
        let queues = keeper.to_unlock();
        if queues.is_empty() {
            return;
        }
        let told = match self.remote.unlock_queues(keeper.broker(), &queues).await {
            Ok(()) => true,
            Err(error) => {
                warn!(
                    group = %self.group, broker = %keeper.broker, queues = queues.len(), %error,
                    "queues could not be unlocked, at worst their next owner waits for a minute"
                );
                false
            }
        };
        keeper.unlocked(&queues, told);
    }
}

const _: () = assert!(RENEW_BEFORE.as_secs() < LIFE.as_secs());
