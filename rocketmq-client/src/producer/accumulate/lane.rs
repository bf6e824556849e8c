//! One lane: what goes the same way, batch after batch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::attempt::{Job, Next};
use super::super::batch::{self, BatchReceipt};
use super::super::prepare::Prepared;
use super::super::select::Target;
use super::super::{Core, SendReceipt};
use super::{Accumulator, Entry, LEAVES};
use crate::cluster::TopicRoute;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::ResponseCode;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// What the messages of a lane have in common besides their topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneKey {
    pub(super) waits_for_store: bool,
    pub(super) way: Way,
}

/// Where a lane goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody has said yet which queues the topic has. As long as there is such a lane, all of its topic go there, so
    /// that none overtakes another.
    Unknown,
    /// To any queue, each batch to the next one.
    Any,
    /// To this one.
    Queue(MessageQueue),
}

#[derive(Debug)]
pub(super) struct Lane {
    key: LaneKey,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// When the first message came that waits now.
    since: Instant,
    /// Tells the task of the lane that it need not linger.
    full: Arc<Notify>,
}

impl Lane {
    pub(super) fn wake(&self) {
        self.full.notify_one();
    }

    fn is_full(&self, accumulator: &Accumulator) -> bool {
        let limits = &accumulator.batching;
        self.bytes >= limits.max_bytes || self.entries.len() >= limits.max_messages
    }

    fn push(&mut self, entry: Entry) {
        // What a batch leaves behind keeps the time of the first: it has waited long enough when that batch is stored.
        if self.entries.is_empty() {
            self.since = Instant::now();
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        Some(entry)
    }
}

/// Puts an entry at the end of its lane, which is opened if there is none.
pub(super) fn push(core: &Arc<Core>, entry: Entry) {
    let Some(accumulator) = &core.accumulator else {
        return;
    };
    let topic = entry.message.topic.clone();
    let mut key = entry.key();
    let mut all = lock(&accumulator.lanes);
    // Nearly always the topic is there, so its name is only copied for a new one.
    let lanes = match all.get_mut(&topic) {
        Some(lanes) => lanes,
        None => all.entry(topic.clone()).or_default(),
    };
    let waits_for_store = key.waits_for_store;
    let is_open = |lane: &Lane| lane.key.way == Way::Unknown && lane.key.waits_for_store == waits_for_store;
    if lanes.iter().any(is_open) {
        key.way = Way::Unknown;
    }
    if let Some(lane) = lanes.iter_mut().find(|lane| lane.key == key) {
        lane.push(entry);
        if lane.is_full(accumulator) {
            lane.wake();
        }
        return;
    }
    lanes.push(open(core, &topic, key, entry));
}

fn open(core: &Arc<Core>, topic: &str, key: LaneKey, entry: Entry) -> Lane {
    let full = Arc::new(Notify::new());
    let mut lane = Lane {
        key: key.clone(),
        entries: VecDeque::new(),
        bytes: 0,
        since: Instant::now(),
        full: Arc::clone(&full),
    };
    lane.push(entry);
    let run = Run {
        core: Arc::clone(core),
        topic: topic.to_owned(),
        key,
        full,
    };
    core.tasks.spawn("lane", |stop| async move {
        stop.run_until_cancelled(run.run()).await;
    });
    lane
}

/// The task of a lane.
struct Run {
    core: Arc<Core>,
    topic: String,
    key: LaneKey,
    full: Arc<Notify>,
}

/// What a lane has to do next.
enum Step {
    Wait(Instant),
    Send(Vec<Entry>),
    End,
}

impl Run {
    async fn run(self) {
        if self.key.way == Way::Unknown {
            self.find_ways().await;
            return;
        }
        loop {
            match self.next() {
                Step::Wait(until) => {
                    tokio::select! {
                        () = sleep_until(until) => {}
                        () = self.full.notified() => {}
                    }
                }
                Step::Send(entries) => self.send(entries).await,
                Step::End => return,
            }
        }
    }

    fn next(&self) -> Step {
        let Some(accumulator) = &self.core.accumulator else {
            return Step::End;
        };
        let mut all = lock(&accumulator.lanes);
        let Some(lane) = self.own(&mut all).filter(|lane| !lane.entries.is_empty()) else {
            // Under the same lock, so that nothing comes to a lane that nobody looks after.
            self.close(&mut all);
            return Step::End;
        };
        let due = lane.since + accumulator.batching.linger;
        if due > Instant::now() && !lane.is_full(accumulator) && !accumulator.closing.load(Ordering::SeqCst) {
            return Step::Wait(due);
        }
        Step::Send(take(lane, accumulator))
    }

    /// Asks which queues the topic has and lets the messages go on in lanes of their own.
    async fn find_ways(&self) {
        let Some(accumulator) = &self.core.accumulator else {
            return;
        };
        loop {
            let Some(until) = self.deadline(accumulator) else {
                return;
            };
            let route = self.route(until).await;
            let entries: Vec<_> = {
                let mut all = lock(&accumulator.lanes);
                let lane = self.own(&mut all);
                lane.map(|lane| lane.entries.drain(..).collect())
                    .unwrap_or_default()
            };
            let mut ready = Vec::with_capacity(entries.len());
            for mut entry in entries {
                // Outside of the lock: a user's function may be asked. Meanwhile more may come to this lane.
                match route.clone().and_then(|route| entry.choose(&route)) {
                    Ok(()) => ready.push(entry),
                    Err(error) => entry.finish(Err(error)),
                }
            }
            if self.distribute(accumulator, ready) {
                return;
            }
        }
    }

    /// When the last message must have left; nothing if there is none any more, and the lane is closed then.
    fn deadline(&self, accumulator: &Accumulator) -> Option<Instant> {
        let mut all = lock(&accumulator.lanes);
        let deadline = self
            .own(&mut all)
            .and_then(|lane| lane.entries.iter().map(|entry| entry.deadline).max());
        if deadline.is_none() {
            self.close(&mut all);
        }
        deadline
    }

    /// Puts entries into the lanes they belong to. Closes this one if nothing came to it meanwhile; true then.
    fn distribute(&self, accumulator: &Accumulator, entries: Vec<Entry>) -> bool {
        let mut all = lock(&accumulator.lanes);
        let lanes = all.entry(self.topic.clone()).or_default();
        for entry in entries {
            let key = entry.key();
            match lanes.iter_mut().find(|lane| lane.key == key) {
                Some(lane) => {
                    lane.push(entry);
                    if lane.is_full(accumulator) {
                        lane.wake();
                    }
                }
                None => lanes.push(open(&self.core, &self.topic, key, entry)),
            }
        }
        let is_done = self.own(&mut all).is_none_or(|lane| lane.entries.is_empty());
        if is_done {
            self.close(&mut all);
        }
        is_done
    }

    /// The lane that this is the task of.
    fn own<'a>(&self, all: &'a mut HashMap<String, Vec<Lane>>) -> Option<&'a mut Lane> {
        let lanes = all.get_mut(&self.topic)?;
        lanes.iter_mut().find(|lane| Arc::ptr_eq(&lane.full, &self.full))
    }

    /// Takes the lane away, with what is in it.
    fn close(&self, all: &mut HashMap<String, Vec<Lane>>) {
        let Some(lanes) = all.get_mut(&self.topic) else {
            return;
        };
        lanes.retain(|lane| !Arc::ptr_eq(&lane.full, &self.full));
        if lanes.is_empty() {
            all.remove(&self.topic);
        }
    }

    async fn route(&self, deadline: Instant) -> Result<Arc<TopicRoute>> {
        let cluster = &self.core.cluster;
        if let Some(route) = cluster.known_publish_route(&self.topic) {
            return Ok(route);
        }
        let template = &self.core.options.template;
        let asked = timeout_at(deadline, cluster.publish_route(&self.topic, template)).await;
        asked
            .unwrap_or_else(|_| {
                let text = "no name server told the route before the deadline";
                Err(Error::new(ErrorKind::Timeout, text))
            })
            .map_err(|error| error.context(super::send_to(&self.topic)))
    }

    /// Sends what was taken together, in parts if the broker finds it too large.
    async fn send(&self, entries: Vec<Entry>) {
        let mut parts = vec![entries];
        while let Some(mut entries) = parts.pop() {
            let count = entries.len();
            if count == 0 {
                continue;
            }
            let deadline = entries.iter().map(|entry| entry.deadline).max();
            let sent = match self.prepare(&entries) {
                Ok(prepared) => self.send_together(prepared, deadline).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(receipts) => {
                    for (entry, receipt) in entries.into_iter().zip(receipts) {
                        entry.finish(Ok(receipt));
                    }
                }
                Err(error) if count > 1 && is_too_large(&error) => {
                    // The first half is sent first.
                    parts.push(entries.split_off(count / 2));
                    parts.push(entries);
                }
                Err(error) => {
                    for (index, entry) in entries.into_iter().enumerate() {
                        let error = error.clone();
                        let error = match count {
                            1 => error,
                            _ => error.context(format_args!("message {} of a batch of {count}", index + 1)),
                        };
                        entry.finish(Err(error));
                    }
                }
            }
        }
    }

    fn prepare(&self, entries: &[Entry]) -> Result<Prepared> {
        match entries {
            [only] => Prepared::new(only.message.clone(), &self.core),
            _ => batch::encode(entries.iter().map(|entry| &entry.message), &self.core),
        }
    }

    async fn send_together(
        &self,
        mut prepared: Prepared,
        deadline: Option<Instant>,
    ) -> Result<Vec<SendReceipt>> {
        let core = &self.core;
        match prepared.is_compressed_elsewhere() {
            true => prepared.compress_elsewhere(core).await,
            false => prepared.compress(&core.options),
        }
        let target = match &self.key.way {
            Way::Queue(queue) => Target::Queue(queue.clone()),
            Way::Any | Way::Unknown => Target::Any,
        };
        let is_batch = prepared.is_batch();
        let left = deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let mut job = Job::new(core, prepared, target, left);
        job.is_seated = true;
        let receipt = job.run(Next::Choose).await?;
        Ok(match is_batch {
            true => BatchReceipt::from_joined(receipt).into_receipts(),
            false => vec![receipt],
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // However the task ends, even by a panic: nothing may come to a lane that nobody looks after, and what is in it
        // keeps the producer alive.
        if let Some(accumulator) = &self.core.accumulator {
            self.close(&mut lock(&accumulator.lanes));
        }
    }
}

/// Takes the next batch; entries whose sends were given up are left out.
fn take(lane: &mut Lane, accumulator: &Accumulator) -> Vec<Entry> {
    let limits = &accumulator.batching;
    let mut taken = Vec::new();
    let mut bytes = 0usize;
    while let Some(next) = lane.entries.front() {
        let with_next = bytes.saturating_add(next.bytes);
        if !taken.is_empty() && (with_next > limits.max_bytes || taken.len() >= limits.max_messages) {
            break;
        }
        let Some(mut entry) = lane.pop() else {
            break;
        };
        if entry.stage.advance(LEAVES) {
            bytes = with_next;
            entry.waiting = None;
            taken.push(entry);
        }
    }
    taken
}

fn is_too_large(error: &Error) -> bool {
    let code = error.response().map(|(code, _)| code);
    code == Some(ResponseCode::MESSAGE_ILLEGAL) || error.kind() == ErrorKind::TooLarge
}
