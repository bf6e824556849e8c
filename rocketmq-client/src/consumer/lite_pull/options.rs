//! The settings of a lite-pull consumer and their defaults, in one place.

use std::sync::Arc;
use std::time::Duration;

use crate::consumer::allocate::{AllocateAveragely, AllocateStrategy};
use crate::consumer::first_offset::ConsumeFrom;
use crate::consumer::process_queue::Limits;
use crate::memory::MemoryLimit;
use crate::protocol::bodies::MessageModel;

/// See the setters of [`LitePullConsumerBuilder`](super::LitePullConsumerBuilder).
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) automatic: bool,
    pub(super) commit_interval: Duration,
    pub(super) consume_from: ConsumeFrom,
    pub(super) message_model: MessageModel,
    pub(super) pull_batch_size: usize,
    pub(super) limits: Limits,
    pub(super) max_cached_messages: usize,
    pub(super) max_cached_bytes: usize,
    pub(super) memory_limit: Option<MemoryLimit>,
    pub(super) broker_suspend: Duration,
    pub(super) pull_timeout: Duration,
    pub(super) rebalance_interval: Duration,
    pub(super) topic_check_interval: Duration,
    pub(super) allocate: Arc<dyn AllocateStrategy>,
}

/// The shortest time between two automatic commits. Java: `MIN_AUTOCOMMIT_INTERVAL_MILLIS`.
const SHORTEST_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

impl Default for Options {
    fn default() -> Self {
        Self {
            automatic: true,
            commit_interval: Duration::from_secs(5),
            consume_from: ConsumeFrom::Last,
            message_model: MessageModel::Clustering,
            pull_batch_size: 32,
            limits: Limits {
                messages: 1000,
                bytes: 100 * 1024 * 1024,
                span: 2000,
            },
            max_cached_messages: 10_000,
            max_cached_bytes: 256 * 1024 * 1024,
            memory_limit: None,
            broker_suspend: Duration::from_secs(20),
            pull_timeout: Duration::from_secs(30),
            rebalance_interval: Duration::from_secs(20),
            topic_check_interval: Duration::from_secs(30),
            allocate: Arc::new(AllocateAveragely),
        }
    }
}

impl Options {
    /// What is wrong with them, each with the setter's name.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut range = |name: &str, value: usize, min: usize, max: usize| {
            if !(min..=max).contains(&value) {
                faults.push(format!("{name} is {value}, it has to be from {min} to {max}"));
            }
        };
        range("pull_batch_size", self.pull_batch_size, 1, 1024);
        range("max_cached_messages_per_queue", self.limits.messages, 1, 65_535);
        range("max_cached_messages", self.max_cached_messages, 1, usize::MAX);
        range(
            "max_cached_bytes_per_queue",
            self.limits.bytes,
            64 * 1024,
            usize::MAX,
        );
        range("max_cached_bytes", self.max_cached_bytes, 64 * 1024, usize::MAX);
        if !(1..=65_535).contains(&self.limits.span) {
            faults.push(format!(
                "max_span is {}, it has to be from 1 to 65535",
                self.limits.span
            ));
        }
        if self.commit_interval < SHORTEST_COMMIT_INTERVAL {
            faults.push(format!(
                "commit_interval is {:?}, it has to be at least {SHORTEST_COMMIT_INTERVAL:?}",
                self.commit_interval
            ));
        }
        if self.pull_timeout <= self.broker_suspend {
            faults.push(format!(
                "pull_timeout is {:?}, it has to be longer than broker_suspend, which is {:?}",
                self.pull_timeout, self.broker_suspend
            ));
        }
        for (name, value) in [
            ("rebalance_interval", self.rebalance_interval),
            ("topic_check_interval", self.topic_check_interval),
            ("broker_suspend", self.broker_suspend),
        ] {
            if value < Duration::from_millis(10) {
                faults.push(format!("{name} is {value:?}, it has to be at least 10ms"));
            }
        }
        faults
    }
}
