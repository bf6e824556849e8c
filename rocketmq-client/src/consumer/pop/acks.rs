//! Acknowledgements on their way to brokers: one request at a time for each broker, and what gathers meanwhile goes
//! with the next one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::calls::{Receipt, is_unknown_request};
use super::leases::Lease;
use crate::consumer::engine::{Counters, Engine};
use crate::consumer::process_queue::ProcessQueue;
use crate::error::Result;
use crate::sync::lock;
use crate::transport::{backoff, random};

/// The most acknowledgements in one request.
const MAX_ACKS: usize = 256;

/// A message that is done with, in a process queue that it leaves when the broker knows.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) lease: Lease,
    pub(super) process: Arc<ProcessQueue>,
    pub(super) number: u64,
}

/// A lane for each broker. Bounded by the process queues: a message stays in its own until it is out of here.
#[derive(Default)]
pub(super) struct Acks(Mutex<HashMap<Arc<str>, Arc<Lane>>>);

#[derive(Default)]
struct Lane {
    waiting: Mutex<VecDeque<Ack>>,
    added: Notify,
}

impl Acks {
    pub(super) fn push(&self, ack: Ack) {
        let lane = {
            let mut lanes = lock(&self.0);
            let broker = &ack.lease.receipt.handle.broker_name;
            Arc::clone(lanes.entry(Arc::clone(broker)).or_default())
        };
        lock(&lane.waiting).push_back(ack);
        lane.added.notify_one();
    }
}

impl Lane {
    fn take(&self) -> Vec<Ack> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.len().min(MAX_ACKS);
        waiting.drain(..count).collect()
    }
}

impl Engine {
    /// Sees to it that what is popped from a broker is acknowledged there.
    pub(super) fn run_acks(self: &Arc<Self>, broker: &Arc<str>) {
        let Some(pop) = &self.pop else { return };
        let lane = {
            let mut lanes = lock(&pop.acks.0);
            if lanes.contains_key(broker) {
                return;
            }
            let lane = Arc::<Lane>::default();
            lanes.insert(Arc::clone(broker), Arc::clone(&lane));
            lane
        };
        let (engine, broker) = (Arc::clone(self), Arc::clone(broker));
        pop.tasks.spawn("ack", move |stop| async move {
            engine.send_acks(&broker, &lane, &stop).await;
        });
    }

    /// Ends when it is asked to and nothing is left.
    async fn send_acks(&self, broker: &str, lane: &Lane, stop: &CancellationToken) {
        loop {
            let acks = lane.take();
            if !acks.is_empty() {
                self.send(broker, acks, stop).await;
                continue;
            }
            if stop.is_cancelled() {
                return;
            }
            // A notification without a waiter is kept: what is added from here on is not missed.
            stop.run_until_cancelled(lane.added.notified()).await;
        }
    }

    async fn send(&self, broker: &str, acks: Vec<Ack>, stop: &CancellationToken) {
        let Some(pop) = &self.pop else { return };
        let expired = acks.iter().filter(|ack| ack.lease.is_over()).count();
        Counters::add(&pop.counters.expired, expired);
        let mut failures = 0u32;
        let mut left: Vec<&Ack> = acks.iter().collect();
        loop {
            let receipts: Vec<&Receipt> = left.iter().map(|ack| &ack.lease.receipt).collect();
            let Err(error) = self.acknowledge(broker, &receipts).await else {
                break;
            };
            failures += 1;
            // An acknowledgement that comes too late is worth one try: the broker may be late itself.
            left.retain(|ack| !ack.lease.is_over());
            let unconfirmed = if error.is_retryable() && !self.is_abandoned() {
                receipts.len() - left.len()
            } else {
                receipts.len()
            };
            Counters::add(&pop.counters.unconfirmed, unconfirmed);
            if unconfirmed > 0 {
                warn!(group = %self.group, broker, messages = unconfirmed, %error, "acknowledgements are not confirmed, these messages come again");
            }
            if unconfirmed == receipts.len() {
                break;
            }
            debug!(group = %self.group, broker, failures, %error, "acknowledgements failed, trying again");
            let pause = sleep(backoff(failures, random()));
            if stop.is_cancelled() {
                // The grace ends this, not a promise to be quick.
                pause.await;
            } else {
                stop.run_until_cancelled(pause).await;
            }
        }
        for ack in acks {
            ack.process.finish(ack.number);
            if let Some(popping) = ack.process.popping() {
                popping.settle();
            }
        }
    }

    async fn acknowledge(&self, broker: &str, receipts: &[&Receipt]) -> Result<()> {
        if let [receipt] = receipts {
            return self.remote.ack(receipt).await;
        }
        match self.remote.ack_all(broker, receipts).await {
            Err(error) if is_unknown_request(&error) => {
                // A broker of 5.0 takes them one by one.
                for receipt in receipts {
                    self.remote.ack(receipt).await?;
                }
                Ok(())
            }
            done => done,
        }
    }
}
