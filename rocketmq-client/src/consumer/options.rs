//! The settings of a push consumer and their defaults, in one place.

use std::sync::Arc;
use std::time::Duration;

use super::allocate::{AllocateAveragely, AllocateStrategy};
use super::broadcast::Broadcasting;
use super::first_offset::{ConsumeFrom, NewQueues};
use super::flow::TopicLimits;
use super::orderly::OrderOptions;
use super::pop::PopOptions;
use super::process_queue::Limits;
use super::retry_policy::RetryPolicy;
use super::spans::Link;
use crate::memory::MemoryLimit;

/// See the setters of [`PushConsumerBuilder`](super::PushConsumerBuilder).
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) concurrency: usize,
    pub(super) consume_from: ConsumeFrom,
    pub(super) new_queues: NewQueues,
    /// Else the group's members share the queues.
    pub(super) broadcasting: Option<Broadcasting>,
    pub(super) max_reconsume_times: i32,
    /// When a message comes again that failed.
    pub(super) retry: RetryPolicy,
    /// How many messages a handler of batches gets at the most.
    pub(super) batch_size: usize,
    /// How long a batch may wait to be filled.
    pub(super) batch_linger: Duration,
    pub(super) pull_batch_size: usize,
    /// Left to the broker if absent.
    pub(super) pull_batch_bytes: Option<u32>,
    pub(super) pull_interval: Duration,
    /// Whether each pull carries the subscription.
    pub(super) post_subscription: bool,
    pub(super) limits: Limits,
    pub(super) topic_limits: TopicLimits,
    pub(super) max_cached_bytes: usize,
    pub(super) memory_limit: Option<MemoryLimit>,
    pub(super) link: Link,
    pub(super) consume_timeout: Duration,
    pub(super) commit_interval: Duration,
    pub(super) rebalance_interval: Duration,
    pub(super) shutdown_grace: Duration,
    pub(super) paused: bool,
    /// How long a message waits here that could not be given back. Java: `submitConsumeRequestLater`.
    pub(super) requeue_delay: Duration,
    pub(super) allocate: Arc<dyn AllocateStrategy>,
    pub(super) order: OrderOptions,
    /// Set if the broker divides the work.
    pub(super) pop: Option<PopOptions>,
}

/// Above this a worker would be a task that never has anything to do.
const MAX_CONCURRENCY: usize = 10_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 20,
            consume_from: ConsumeFrom::Last,
            new_queues: NewQueues::default(),
            broadcasting: None,
            max_reconsume_times: 16,
            retry: RetryPolicy::default(),
            batch_size: 1,
            batch_linger: Duration::ZERO,
            pull_batch_size: 32,
            pull_batch_bytes: None,
            pull_interval: Duration::ZERO,
            post_subscription: false,
            limits: Limits {
                messages: 1000,
                bytes: 100 * 1024 * 1024,
                span: 2000,
            },
            topic_limits: TopicLimits::default(),
            max_cached_bytes: 256 * 1024 * 1024,
            memory_limit: None,
            link: Link::default(),
            consume_timeout: Duration::from_secs(15 * 60),
            commit_interval: Duration::from_secs(5),
            rebalance_interval: Duration::from_secs(20),
            shutdown_grace: Duration::from_secs(30),
            paused: false,
            requeue_delay: Duration::from_secs(5),
            allocate: Arc::new(AllocateAveragely),
            order: OrderOptions::default(),
            pop: None,
        }
    }
}

impl Options {
    /// What is wrong with them, each with the setter's name.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.order.faults().into_iter().collect();
        let mut range = |name: &str, value: usize, min: usize, max: usize| {
            if !(min..=max).contains(&value) {
                faults.push(format!("{name} is {value}, it has to be from {min} to {max}"));
            }
        };
        range("concurrency", self.concurrency, 1, MAX_CONCURRENCY);
        range("pull_batch_size", self.pull_batch_size, 1, 1024);
        range("the size of batches", self.batch_size, 1, 1024);
        range(
            "max_cached_messages_per_queue",
            self.limits.messages,
            self.pull_batch_size,
            65_535,
        );
        range(
            "max_cached_bytes_per_queue",
            self.limits.bytes,
            64 * 1024,
            usize::MAX,
        );
        range("max_cached_bytes", self.max_cached_bytes, 64 * 1024, usize::MAX);
        for (name, limit) in [
            ("max_cached_messages_per_topic", self.topic_limits.messages),
            ("max_cached_bytes_per_topic", self.topic_limits.bytes),
            (
                "pull_batch_bytes",
                self.pull_batch_bytes.map(|bytes| bytes as usize),
            ),
        ] {
            if let Some(limit) = limit {
                range(name, limit, 1, i32::MAX as usize);
            }
        }
        if !(1..=65_535).contains(&self.limits.span) {
            faults.push(format!(
                "max_span is {}, it has to be from 1 to 65535",
                self.limits.span
            ));
        }
        if let Some(pop) = &self.pop {
            pop.faults(self.consume_from, &mut faults);
            if self.order.by.is_some() {
                faults.push("pop is for consumers that keep no order; a simple consumer with orderly() receives in order".into());
            }
            if self.broadcasting.is_some() {
                faults
                    .push("pop is for groups whose members share the messages, not for broadcasting".into());
            }
        }
        if self.max_reconsume_times < 0 {
            faults.push("max_reconsume_times is above 2147483647".into());
        }
        faults.extend(self.broadcasting.iter().flat_map(Broadcasting::faults));
        for (name, value) in [
            ("consume_timeout", self.consume_timeout),
            ("commit_interval", self.commit_interval),
            ("rebalance_interval", self.rebalance_interval),
        ] {
            if value < Duration::from_millis(10) {
                faults.push(format!("{name} is {value:?}, it has to be at least 10ms"));
            }
        }
        faults
    }
}

/// The highest concurrency, for a change at run time.
pub(super) fn clamp_concurrency(concurrency: usize) -> usize {
    concurrency.clamp(1, MAX_CONCURRENCY)
}
