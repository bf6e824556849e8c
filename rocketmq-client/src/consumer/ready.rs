//! The line in which queues with messages wait for a worker.
//!
//! A worker takes one message of the first queue in line and sends the queue to the end, so that a queue with much to
//! do does not keep the others waiting. The cost of a message is two short locks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::process_queue::{Claim, ProcessQueue};
use crate::sync::lock;

/// Queues that have messages to hand out, in turn.
#[derive(Debug, Default)]
pub(super) struct Ready {
    line: Mutex<VecDeque<Arc<ProcessQueue>>>,
    wake: Notify,
    idle: AtomicUsize,
}

impl Ready {
    /// Puts a queue that got messages in line and wakes a worker.
    pub(super) fn offer(&self, queue: &Arc<ProcessQueue>) {
        {
            let mut line = lock(&self.line);
            // Under the lock of the line, or a worker could unlist the queue between the question and the answer.
            if queue.list() {
                line.push_back(Arc::clone(queue));
            }
        }
        self.wake.notify_one();
    }

    /// The next message, if there is one.
    pub(super) fn take(&self) -> Option<(Arc<ProcessQueue>, Claim)> {
        self.take_by(|queue| queue.take_listed())
    }

    /// The next of what `take` takes out of a queue, if there is any; `take` also says whether the queue stays in line.
    /// Wakes another worker when there is more.
    pub(super) fn take_by<T>(
        &self,
        take: impl Fn(&Arc<ProcessQueue>) -> (Option<T>, bool),
    ) -> Option<(Arc<ProcessQueue>, T)> {
        let mut line = lock(&self.line);
        while let Some(queue) = line.pop_front() {
            let (taken, more) = take(&queue);
            if more {
                line.push_back(Arc::clone(&queue));
            }
            let Some(taken) = taken else { continue };
            // Workers wake each other as long as there is work: none is woken in vain when one can do it all.
            if !line.is_empty() && self.idle.load(Ordering::Relaxed) > 0 {
                self.wake.notify_one();
            }
            return Some((queue, taken));
        }
        None
    }

    /// Waits for what `take` takes out of the line, as long as `wanted` says that the worker is.
    ///
    /// # Cancellation
    /// Safe: nothing is taken.
    pub(super) async fn next<T>(
        &self,
        take: impl Fn(&Self) -> Option<T>,
        wanted: impl Fn() -> bool,
    ) -> Option<T> {
        while wanted() {
            if let Some(found) = take(self) {
                return Some(found);
            }
            let _idle = Idle::enter(&self.idle);
            // Once more, now that it is counted: who fills the line after this look sees the counter and notifies,
            // and a notification without a waiter is kept.
            if let Some(found) = take(self) {
                return Some(found);
            }
            self.wake.notified().await;
        }
        // What woke this worker may have been meant for one that stays.
        self.wake.notify_one();
        None
    }

    /// Lets all workers look again whether they are wanted.
    pub(super) fn wake_all(&self) {
        self.wake.notify_waiters();
    }
}

/// Counts a waiting worker.
struct Idle<'a>(&'a AtomicUsize);

impl<'a> Idle<'a> {
    fn enter(idle: &'a AtomicUsize) -> Self {
        idle.fetch_add(1, Ordering::Relaxed);
        Self(idle)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::consumer::budget::Budget;
    use crate::consumer::process_queue::Limits;
    use crate::protocol::bodies::MessageQueue;
    use crate::protocol::{Properties, Record, SysFlag, Text};

    fn queue(id: i32, messages: i64) -> Arc<ProcessQueue> {
        let limits = Limits {
            messages: 1000,
            bytes: usize::MAX,
            span: 1000,
        };
        let queue = ProcessQueue::new(
            MessageQueue::new("orders", "broker-a", id),
            0,
            limits,
            Budget::new(usize::MAX),
        );
        let record = |queue_offset| Record {
            queue_id: id,
            flag: 0,
            queue_offset,
            physical_offset: 0,
            sys_flag: SysFlag::default(),
            born_timestamp: 0,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_timestamp: 0,
            store_host: ([127, 0, 0, 1], 2).into(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::new(),
            topic: Text::from_static("orders"),
            properties: Properties::default(),
        };
        queue.put((0..messages).map(record), 10);
        Arc::new(queue)
    }

    #[test]
    fn queues_take_turns() {
        let ready = Ready::default();
        ready.offer(&queue(0, 4));
        ready.offer(&queue(1, 2));
        let order: Vec<i32> = std::iter::from_fn(|| ready.take())
            .map(|(queue, _)| queue.queue.queue_id)
            .collect();
        assert_eq!(order, [0, 1, 0, 1, 0, 0]);
    }

    #[test]
    fn a_dropped_queue_leaves_the_line() {
        let ready = Ready::default();
        let (dropped, other) = (queue(0, 4), queue(1, 1));
        ready.offer(&dropped);
        ready.offer(&other);
        dropped.drop_waiting();
        assert_eq!(ready.take().unwrap().0.queue.queue_id, 1);
        assert!(ready.take().is_none());
    }

    #[tokio::test]
    async fn one_offer_of_many_messages_wakes_as_many_workers_as_it_has() {
        let ready = Arc::new(Ready::default());
        let gate = Arc::new(tokio::sync::Barrier::new(5));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let (ready, gate) = (Arc::clone(&ready), Arc::clone(&gate));
            workers.spawn(async move {
                let claimed = ready.next(Ready::take, || true).await.unwrap();
                // Nobody gets past here before all five have a message.
                gate.wait().await;
                claimed.1.number
            });
        }
        tokio::task::yield_now().await;
        ready.offer(&queue(0, 5));
        let mut numbers = workers.join_all().await;
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }
}
