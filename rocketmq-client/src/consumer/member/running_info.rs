//! What a member says of itself: settings under Java's names, queues, rates, and what its handlers are at.
//!
//! Tools read some of it: `mqadmin consumerStatus` compares subscriptions and looks for queues that are stuck, the
//! dashboard shows all of it.
//!
//! Protocol source: `DefaultMQPushConsumerImpl#consumerRunningInfo`, `MQClientInstance#consumerRunningInfo`,
//! `ConsumerRunningInfo`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::{answer, unreadable};
use crate::consumer::engine::Engine;
use crate::consumer::process_queue::ProcessQueue;
use crate::consumer::stats::QueueProgress;
use crate::protocol::bodies::{
    ConsumeFrom, ConsumeStatus, ConsumerRunningInfo, MessageQueue, ProcessQueueInfo,
};
use crate::protocol::requests::GetConsumerRunningInfo;
use crate::protocol::{Frame, Request};
use crate::sync::lock;

/// How many messages of a queue are named that handlers have.
const NAMED: usize = 32;

impl Engine {
    pub(super) fn running_info(&self, frame: Frame) -> Frame {
        let opaque = frame.opaque;
        let request = match GetConsumerRunningInfo::from_frame(frame) {
            Ok(request) => request,
            Err(error) => return unreadable(&self.group, opaque, "question for running information", &error),
        };
        answer(opaque, self.running(request.jstack_enable == Some(true)))
    }

    fn running(&self, stacks: bool) -> ConsumerRunningInfo {
        let queues = self.progress().into_iter().map(|progress| {
            let process = lock(&self.assignment).process(&progress.queue);
            let lock = self
                .order
                .as_ref()
                .and_then(|order| order.lock_info(&progress.queue));
            let lock = lock.unwrap_or_default();
            let info = ProcessQueueInfo {
                locked: lock.locked,
                last_lock_timestamp: lock.granted_at,
                ..queue_info(&progress, process.as_deref(), self.order.is_some())
            };
            (self.remote.wire_queue(&progress.queue), info)
        });
        ConsumerRunningInfo {
            properties: self.properties(),
            mq_table: queues.collect(),
            subscription_set: self.remote.wire_subscriptions(self.subscriptions.data()),
            status_table: self.status_table(),
            jstack: stacks.then(|| self.at_work()),
            ..ConsumerRunningInfo::default()
        }
    }

    /// The settings that operators know from Java, as far as they mean something here; no secrets.
    fn properties(&self) -> BTreeMap<String, String> {
        let (options, cluster) = (&self.options, self.remote.cluster());
        let concurrency = self
            .concurrency
            .load(std::sync::atomic::Ordering::Relaxed)
            .to_string();
        let mib = |bytes: usize| (bytes / (1024 * 1024)).to_string();
        let or_none = |limit: Option<String>| limit.unwrap_or_else(|| "-1".to_owned());
        let name_servers = cluster.name_server_addrs().join(";");
        let from = match options.consume_from.announced() {
            ConsumeFrom::First => "CONSUME_FROM_FIRST_OFFSET",
            ConsumeFrom::Timestamp => "CONSUME_FROM_TIMESTAMP",
            ConsumeFrom::Last => "CONSUME_FROM_LAST_OFFSET",
        };
        let mut properties: BTreeMap<String, String> = [
            ("PROP_NAMESERVER_ADDR", name_servers.clone()),
            ("PROP_THREADPOOL_CORE_SIZE", concurrency.clone()),
            ("PROP_CONSUMEORDERLY", self.order.is_some().to_string()),
            ("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY".to_owned()),
            ("PROP_CLIENT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
            ("PROP_CONSUMER_START_TIMESTAMP", self.started.to_string()),
            ("namesrvAddr", name_servers),
            ("language", "RUST".to_owned()),
            ("consumerGroup", cluster.wire_name(&self.group).into_owned()),
            ("messageModel", self.message_model_name().to_owned()),
            ("consumeFromWhere", from.to_owned()),
            ("allocateMessageQueueStrategy", options.allocate.name().to_owned()),
            ("consumeThreadMin", concurrency.clone()),
            ("consumeThreadMax", concurrency),
            ("consumeConcurrentlyMaxSpan", options.limits.span.to_string()),
            ("pullThresholdForQueue", options.limits.messages.to_string()),
            ("pullThresholdSizeForQueue", mib(options.limits.bytes)),
            (
                "pullThresholdForTopic",
                or_none(options.topic_limits.messages.map(|limit| limit.to_string())),
            ),
            (
                "pullThresholdSizeForTopic",
                or_none(options.topic_limits.bytes.map(mib)),
            ),
            ("pullInterval", millis(options.pull_interval)),
            ("pullBatchSize", options.pull_batch_size.to_string()),
            ("postSubscriptionWhenPull", options.post_subscription.to_string()),
            ("consumeMessageBatchMaxSize", options.batch_size.to_string()),
            ("maxReconsumeTimes", options.max_reconsume_times.to_string()),
            (
                "consumeTimeout",
                (options.consume_timeout.as_secs() / 60).to_string(),
            ),
            (
                "awaitTerminationMillisWhenShutdown",
                millis(options.shutdown_grace),
            ),
            ("persistConsumerOffsetInterval", millis(options.commit_interval)),
            (
                "heartbeatBrokerInterval",
                millis(cluster.options().heartbeat_interval),
            ),
            (
                "pollNameServerInterval",
                millis(cluster.options().route_refresh_interval),
            ),
            ("unitMode", cluster.unit_mode().to_string()),
            ("vipChannelEnabled", cluster.options().vip_channel.to_string()),
            ("enableTrace", cluster.trace().is_some().to_string()),
            ("clientRebalance", "true".to_owned()),
            ("maxCachedBytes", options.max_cached_bytes.to_string()),
            ("paused", self.paused.borrow().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(bytes) = options.pull_batch_bytes {
            properties.insert("pullBatchSizeInBytes".to_owned(), bytes.to_string());
        }
        if let Some(refused) = self.refusal.text() {
            properties.insert("refused".to_owned(), refused);
        }
        properties
    }

    /// The rates of each topic that is subscribed to.
    fn status_table(&self) -> BTreeMap<String, ConsumeStatus> {
        let cluster = self.remote.cluster();
        let mut table: BTreeMap<_, _> = self
            .subscriptions
            .table()
            .keys()
            .map(|topic| (cluster.wire_name(topic).into_owned(), ConsumeStatus::default()))
            .collect();
        for rates in self.meters.rates() {
            table.insert(cluster.wire_name(&rates.topic).into_owned(), rates.to_status());
        }
        table
    }

    /// What takes the place of stacks: a consumer here has no threads of its own, it has workers and messages that they
    /// are at.
    fn at_work(&self) -> String {
        let mut text = String::new();
        let wanted = self.concurrency.load(std::sync::atomic::Ordering::Relaxed);
        let alive = lock(&self.alive).len();
        let processes: Vec<_> = {
            let assignment = lock(&self.assignment);
            assignment
                .iter()
                .filter_map(|(queue, process)| Some((queue.clone(), process?.contents())))
                .collect()
        };
        let running: usize = processes.iter().map(|(_, contents)| contents.running.len()).sum();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "workers: {alive} of {wanted}; messages that were handed out: {running}; tasks: {} receiving, {} handling, \
             {} keeping up",
            self.intake.running(),
            self.workers.running(),
            self.upkeep.running(),
        );
        for (queue, contents) in processes {
            let MessageQueue {
                topic,
                broker_name,
                queue_id,
            } = &queue;
            let _ = write!(
                text,
                "{topic} {broker_name} {queue_id}: {} cached, {} handed out",
                contents.messages,
                contents.running.len(),
            );
            if !contents.running.is_empty() {
                let _ = write!(text, ", offsets");
                for offset in contents.running.iter().take(NAMED) {
                    let _ = write!(text, " {offset}");
                }
                if contents.running.len() > NAMED {
                    let _ = write!(text, " ..");
                }
            }
            if contents.again > 0 {
                let _ = write!(text, ", {} to be handed out again", contents.again);
            }
            text.push('\n');
        }
        text
    }
}

fn queue_info(progress: &QueueProgress, process: Option<&ProcessQueue>, orderly: bool) -> ProcessQueueInfo {
    let contents = process.map(ProcessQueue::contents);
    let in_work = contents
        .as_ref()
        .filter(|_| orderly)
        .map(|contents| contents.running.as_slice())
        .unwrap_or_default();
    let (min, max) = contents
        .as_ref()
        .and_then(|contents| contents.offsets)
        .unwrap_or_default();
    ProcessQueueInfo {
        cached_msg_count: saturating(progress.cached),
        cached_msg_min_offset: min,
        cached_msg_max_offset: max,
        cached_msg_size_in_mib: saturating(progress.cached_bytes / (1024 * 1024)),
        commit_offset: progress.consumed.unwrap_or(-1),
        transaction_msg_count: saturating(in_work.len()),
        transaction_msg_min_offset: in_work.first().copied().unwrap_or_default(),
        transaction_msg_max_offset: in_work.last().copied().unwrap_or_default(),
        droped: contents.as_ref().is_some_and(|contents| contents.dropped),
        last_pull_timestamp: since_1970(progress.last_pull),
        last_consume_timestamp: since_1970(progress.last_consumed),
        ..ProcessQueueInfo::default()
    }
}

fn saturating(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}

fn since_1970(time: Option<SystemTime>) -> i64 {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
