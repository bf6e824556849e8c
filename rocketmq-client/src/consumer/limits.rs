//! Settings of a push consumer: what it may hold beside the limits of a queue, how it pulls, and what watches it.

use std::time::Duration;

use super::builder::PushConsumerBuilder;
use super::spans::{Link, SpanLinker};
use crate::memory::MemoryLimit;

impl PushConsumerBuilder {
    /// How many messages of one topic may be received and not yet done with: each queue of the topic that this member
    /// owns may have an equal part of it, at least one, and keeps to its own limit too. From 1; default without limit.
    /// Java: `pullThresholdForTopic`, which replaces the limit of queues and is divided by the queues of all topics.
    pub fn max_cached_messages_per_topic(mut self, messages: usize) -> Self {
        self.options.topic_limits.messages = Some(messages);
        self
    }

    /// How many bytes may be held for one topic, divided in the same way; a queue may always hold one response. From 1;
    /// default without limit. Java: `pullThresholdSizeForTopic`.
    pub fn max_cached_bytes_per_topic(mut self, bytes: usize) -> Self {
        self.options.topic_limits.bytes = Some(bytes);
        self
    }

    /// A limit that this consumer shares with others, of other clients too. Default that of the
    /// [client](crate::ClientBuilder::memory_limit). Java has no such limit.
    pub fn memory_limit(mut self, limit: &MemoryLimit) -> Self {
        self.options.memory_limit = Some(limit.clone());
        self
    }

    /// How many bytes one pull asks for. Default is what the broker is configured to (256 KiB of messages in memory).
    /// Brokers before 5.0 take no notice, and 5.5 neither. Java: `pullBatchSizeInBytes`.
    pub fn pull_batch_bytes(mut self, bytes: u32) -> Self {
        self.options.pull_batch_bytes = Some(bytes);
        self
    }

    /// How long a queue rests after a pull that brought messages. Default zero. Java: `pullInterval`.
    pub fn pull_interval(mut self, interval: Duration) -> Self {
        self.options.pull_interval = interval;
        self
    }

    /// Whether each pull carries the filter of its topic, so that a broker need not know it from the heartbeats. Default
    /// false. Java: `postSubscriptionWhenPull`.
    ///
    /// A subscription of this member then holds for its own pulls even while other members of the group differ.
    pub fn post_subscription(mut self, post: bool) -> Self {
        self.options.post_subscription = post;
        self
    }

    /// Links the spans of handlers with those of the producers; see [`SpanLinker`] and [`telemetry`](crate::telemetry).
    /// Default none: the spans name the producer's trace.
    pub fn span_linker(mut self, linker: impl SpanLinker) -> Self {
        self.options.link = Link::by(linker);
        self
    }
}
