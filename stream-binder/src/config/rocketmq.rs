//! `spring.cloud.stream.rocketmq.*`: the properties of the RocketMQ binder, merged and typed.
//!
//! Each value is taken from the first of: the binding, `rocketmq.default`, `rocketmq.binder`, the built-in default.

use std::time::Duration;

/// `rocketmq.binder.*`: what concerns the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RocketMqBinderProperties {
    /// Addresses of the name servers as `host:port`; empty when none is configured.
    pub name_servers: Vec<String>,
    /// Between two heartbeats to the brokers; 30 s by default.
    pub heartbeat_broker_interval: Duration,
    /// Between two looks at the name server for changed routes; 30 s by default.
    pub poll_name_server_interval: Duration,
}

/// `rocketmq.bindings.<name>.consumer.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RocketMqConsumerProperties {
    /// Tags to receive, `tagA || tagB`; `*`, the default, for all.
    pub subscription: String,
    /// Who of a group receives a message; one of them, always.
    pub message_model: MessageModel,
    /// Where a group without stored offset starts; the last offset by default.
    pub consume_from_where: ConsumeFromWhere,
    /// Messages asked for by one pull; 32 by default.
    pub pull_batch_size: u32,
    /// Messages held per queue before pulling pauses; 1000 by default.
    pub pull_threshold_for_queue: u32,
    /// MiB of bodies held per queue before pulling pauses; 100 by default.
    pub pull_threshold_size_for_queue: u32,
    /// Distance between the first and last offset held per queue before pulling pauses; 2000 by default.
    pub consume_max_span: u32,
    /// How long a function may take for one message before it is cut off; 15 minutes by default.
    pub consume_timeout: Duration,
    /// Between two commits of offsets to the broker; 5 s by default.
    pub persist_consumer_offset_interval: Duration,
    /// Deliveries after the first before a message is dead-lettered; 16 by default (`-1`), 0 dead-letters at once.
    pub max_reconsume_times: u32,
    /// Who chooses the delay of the next delivery; the broker by default.
    pub delay_level_when_next_consume: DelayLevelWhenNextConsume,
}

/// Who of a consumer group receives a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageModel {
    /// `CLUSTERING`: one member of the group.
    Clustering,
}

/// Where a consumer group without stored offset starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsumeFromWhere {
    /// `CONSUME_FROM_LAST_OFFSET`: messages stored from now on.
    LastOffset,
    /// `CONSUME_FROM_FIRST_OFFSET`: everything the broker still has.
    FirstOffset,
    /// `CONSUME_FROM_TIMESTAMP`: messages stored in the last 30 minutes and from now on.
    Timestamp,
}

/// What happens to the time of the next delivery of a failed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DelayLevelWhenNextConsume {
    /// `-1`: no further delivery, straight to the dead-letter topic.
    DeadLetter,
    /// `0`: the broker chooses, longer with each delivery.
    Broker,
    /// A fixed delay level, 1 (1 s) to 18 (2 h) on a broker with the usual levels.
    Level(u8),
}

/// `rocketmq.bindings.<name>.producer.*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RocketMqProducerProperties {
    /// Producer group; bindings with the same group and the same other properties share one producer.
    pub group: String,
    /// Bound of one send, retries included; 3 s by default.
    pub send_msg_timeout: Duration,
    /// Further attempts of an awaited send; 2 by default.
    pub retry_times_when_send_failed: u32,
    /// Further attempts of an asynchronous send; 2 by default.
    pub retry_times_when_send_async_failed: u32,
    /// Whether a stored but not yet safe message (flush or replica late) is sent to another broker; `false` by default.
    pub retry_another_broker: bool,
    /// Bodies of at least this many bytes are compressed; 4096 by default.
    pub compress_msg_body_threshold: u32,
    /// Largest body in bytes; 4 MiB by default.
    pub max_message_size: u32,
    /// How a send is done; awaited by default.
    pub send_type: SendType,
}

/// How an output binding sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendType {
    /// `Sync`: the broker's receipt is awaited.
    Sync,
    /// `Async`: the send goes on by itself; a failure is logged.
    Async,
    /// `OneWay`: nobody asks the broker for a receipt.
    OneWay,
}
