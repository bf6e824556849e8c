//! One consumer group of one topic: what is queued, what is delayed, and the workers' loop.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    binder::DeliveryHandler,
    failure::{ErrorChain, Outcome, RetryDelay, Settlement},
    headers::names,
    memory::topic::{Record, Topic},
    message::{Delay, Message},
};

/// RocketMQ's standard delay levels 1 to 18, in seconds.
const LEVELS: [u64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// The level of the first redelivery in RocketMQ is 3; each further one is one level higher.
const FIRST_RETRY_LEVEL: u32 = 3;

/// What happens to failed deliveries.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) max_attempts: u32,
    pub(super) retry_delay: Option<Duration>,
}

impl Policy {
    /// The pause before the attempt that follows attempt number `failed`.
    fn pause(&self, delay: RetryDelay, failed: u32) -> Duration {
        match delay {
            RetryDelay::After(pause) => pause,
            RetryDelay::Level(level) => level_duration(u32::from(level)),
            RetryDelay::Broker => self.retry_delay.unwrap_or_else(|| {
                level_duration(FIRST_RETRY_LEVEL.saturating_add(failed.saturating_sub(1)))
            }),
        }
    }
}

/// Level 0 is no delay; levels above the table are its last.
fn level_duration(level: u32) -> Duration {
    let Some(index) = level.checked_sub(1) else {
        return Duration::ZERO;
    };
    let index = usize::try_from(index).unwrap_or(usize::MAX).min(LEVELS.len() - 1);
    Duration::from_secs(LEVELS.get(index).copied().unwrap_or_default())
}

/// Counts messages that are not settled, over all groups of a binder.
#[derive(Debug, Default)]
pub(super) struct Idle {
    unsettled: AtomicUsize,
    reached_zero: Notify,
}

impl Idle {
    fn add(&self) {
        self.unsettled.fetch_add(1, Ordering::AcqRel);
    }

    fn remove(&self) {
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.reached_zero.notify_waiters();
        }
    }

    pub(super) async fn wait(&self) {
        loop {
            let zero = self.reached_zero.notified();
            if self.unsettled.load(Ordering::Acquire) == 0 {
                return;
            }
            zero.await;
        }
    }
}

/// An unsettled message. Dropping it settles it.
struct Item {
    record: Arc<Record>,
    attempt: u32,
    room: Option<OwnedSemaphorePermit>,
    idle: Arc<Idle>,
}

impl Drop for Item {
    fn drop(&mut self) {
        self.idle.remove();
    }
}

struct Delayed {
    due: Instant,
    sequence: u64,
    item: Item,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.sequence) == (other.due, other.sequence)
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Item>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    sequence: u64,
}

pub(super) struct Group {
    name: Arc<str>,
    policy: Policy,
    dead_letters: Arc<Topic>,
    idle: Arc<Idle>,
    // One permit per message from being sent to being settled.
    room: Arc<Semaphore>,
    // One permit per message in `ready`.
    ready: Semaphore,
    earlier: Notify,
    queue: Mutex<Queue>,
}

impl Group {
    pub(super) fn new(
        name: Arc<str>,
        capacity: usize,
        policy: Policy,
        dead_letters: Arc<Topic>,
        idle: Arc<Idle>,
    ) -> Self {
        Self {
            name,
            policy,
            dead_letters,
            idle,
            room: Arc::new(Semaphore::new(capacity)),
            ready: Semaphore::new(0),
            earlier: Notify::new(),
            queue: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn reserve(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    pub(super) fn try_reserve(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Queues a stored message, after its delay if it has one.
    pub(super) fn put(&self, record: Arc<Record>, room: Option<OwnedSemaphorePermit>) {
        let delay = match record.message.delayed() {
            None => Duration::ZERO,
            Some(Delay::Level(level)) => level_duration(u32::from(level)),
            Some(Delay::After(delay)) => delay,
        };
        self.idle.add();
        self.put_item(
            Item {
                record,
                attempt: 1,
                room,
                idle: Arc::clone(&self.idle),
            },
            delay,
        );
    }

    fn put_item(&self, item: Item, delay: Duration) {
        let mut queue = self.queue();
        if delay.is_zero() {
            queue.ready.push_back(item);
            drop(queue);
            self.ready.add_permits(1);
        } else {
            queue.sequence += 1;
            let sequence = queue.sequence;
            let due = Instant::now() + delay;
            queue.delayed.push(Reverse(Delayed { due, sequence, item }));
            drop(queue);
            self.earlier.notify_one();
        }
    }

    /// Moves delayed messages to the queue when their time has come, until told to stop.
    pub(super) async fn deliver_delayed(&self, stop: CancellationToken) {
        loop {
            let next = self.release_due();
            let sleep = async {
                match next {
                    Some(due) => time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.earlier.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Queues what is due; when the next one is.
    fn release_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut queue = self.queue();
        let mut released = 0;
        let next = loop {
            match queue.delayed.peek() {
                None => break None,
                Some(Reverse(first)) if first.due > now => break Some(first.due),
                Some(_) => {
                    if let Some(Reverse(first)) = queue.delayed.pop() {
                        queue.ready.push_back(first.item);
                        released += 1;
                    }
                }
            }
        };
        drop(queue);
        self.ready.add_permits(released);
        next
    }

    /// One worker: takes a message, has it handled, settles it, until told to stop. `busy` counts handlers that
    /// have not answered; one that is cut off stays counted.
    pub(super) async fn work(
        &self,
        binding: &Arc<str>,
        topic: &Arc<str>,
        handler: DeliveryHandler,
        busy: &AtomicUsize,
        mut paused: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        loop {
            let next = async {
                // The sender lives as long as the binding; without it nothing can resume.
                paused.wait_for(|paused| !paused).await.ok()?;
                self.ready.acquire().await.ok().map(|permit| permit.forget())
            };
            if stop.run_until_cancelled(next).await.flatten().is_none() {
                return;
            }
            if stop.is_cancelled() || *paused.borrow() {
                self.ready.add_permits(1); // came too late: leave the message to others, or to later
                continue;
            }
            let Some(item) = self.queue().ready.pop_front() else {
                continue;
            };
            let delivery = item
                .record
                .delivery(binding, topic, item.attempt, self.policy.max_attempts);
            let taken = Taken {
                group: self,
                item: Some(item),
            };
            busy.fetch_add(1, Ordering::AcqRel);
            let outcome = handler.handle(delivery).await;
            busy.fetch_sub(1, Ordering::AcqRel);
            taken.settle(&outcome);
        }
    }

    fn settle(&self, mut item: Item, outcome: &Outcome) {
        match outcome.settlement() {
            Settlement::Ack => {}
            Settlement::Retry(delay) if item.attempt < self.policy.max_attempts => {
                let pause = self.policy.pause(delay, item.attempt);
                item.attempt += 1;
                self.put_item(item, pause);
            }
            Settlement::Retry(_) | Settlement::Reject => self.dead_letter(item, outcome),
        }
    }

    /// The copy is stored before the source is settled.
    fn dead_letter(&self, mut item: Item, outcome: &Outcome) {
        let reason = outcome
            .error()
            .map(|error| ErrorChain(&**error).to_string())
            .unwrap_or_default();
        let origin = item
            .record
            .message_id
            .rsplit_once('-')
            .map_or("", |(topic, _)| topic);
        let message = Message::clone(&item.record.message)
            .delay_level(0)
            .header(names::DEAD_LETTER_REASON, reason)
            .header(names::DEAD_LETTER_ATTEMPTS, item.attempt.to_string())
            .header(names::DEAD_LETTER_TOPIC, origin);
        let id = Arc::clone(&item.record.message_id);
        self.dead_letters.store_dead_letter(message, id, item.room.take());
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// A message in a handler. If the handler is cut off, the message goes back to the queue, unsettled.
struct Taken<'a> {
    group: &'a Group,
    item: Option<Item>,
}

impl Taken<'_> {
    fn settle(mut self, outcome: &Outcome) {
        if let Some(item) = self.item.take() {
            self.group.settle(item, outcome);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.group.put_item(item, Duration::ZERO);
        }
    }
}
