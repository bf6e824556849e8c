//! A binder without a broker: topics, groups, retry and dead letters in memory, for unit tests.
//!
//! It keeps the broker's promises that tests rely on (each group sees every message, members of a group
//! share them, failed deliveries come again after a delay, the last failure is dead-lettered) and tokio's
//! clock, so a test with a paused clock sees a retry of ten minutes in no time. It promises no order across
//! concurrent handlers and keeps nothing after the process ends.
//!
//! Everything is bounded: a group holds at most [`capacity`](MemoryBinderBuilder::capacity) messages that are
//! not settled, and senders wait for room; a topic shows its last
//! [`retained`](MemoryBinderBuilder::retained) messages.

mod group;
mod topic;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{
    binder::{
        BindError, Binder, BoundConsumer, ConsumerBinding, DeliveryHandler, Outbound, OutboundError,
        Persisted, ProducerBinding, SendReceipt,
    },
    memory::{
        group::{Group, Idle, Policy},
        topic::{Record, Topic},
    },
    message::Message,
    tasks::{StillRunning, Tasks},
};

/// Most topics that one binder holds.
const MAX_TOPICS: usize = 65_536;

/// An in-memory [`Binder`]. Clones share their topics.
///
/// ```
/// use stream_binder::{App, Config, Function, MemoryBinder, Payload};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::from_yaml(
///     "spring.cloud.stream.bindings: {square-in-0: {destination: num, group: g}, square-out-0: {destination: square}}",
/// )?;
/// let binder = MemoryBinder::new();
/// let square = Function::function("square", |Payload(n): Payload<i64>| async move { n * n });
/// let app = App::new(config).binder(binder.clone()).register(square).start().await?;
///
/// app.bridge().to_topic("num").send(7_i64).await?;
/// binder.idle().await;
/// assert_eq!(&binder.stored("square")[0].payload()[..], b"49");
/// # app.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryBinder(Arc<Shared>);

struct Shared {
    topics: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
    settings: Settings,
    idle: Arc<Idle>,
    schedulers: Tasks,
    closed: CancellationToken,
}

#[derive(Clone, Debug)]
struct Settings {
    capacity: usize,
    retained: usize,
    send_timeout: Duration,
    policy: Policy,
}

/// Settings of a [`MemoryBinder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MemoryBinderBuilder(Settings);

impl MemoryBinderBuilder {
    /// Messages that one group of one topic holds, from being sent to being settled. Senders wait for room.
    /// Default 1024.
    pub fn capacity(mut self, messages: usize) -> Self {
        self.0.capacity = messages.clamp(1, 1 << 24);
        self
    }

    /// The last messages of a topic that [`MemoryBinder::stored`] shows and a new group starts with.
    /// Default 1024.
    pub fn retained(mut self, messages: usize) -> Self {
        self.0.retained = messages;
        self
    }

    /// How long a send waits for room. Default 3 s.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.0.send_timeout = timeout;
        self
    }

    /// Deliveries of one message, the first included, before it is dead-lettered. Default 17, RocketMQ's first
    /// delivery and 16 more.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.0.policy.max_attempts = attempts.max(1);
        self
    }

    /// Time before a failed delivery comes again, where the handler does not say. Default RocketMQ's levels:
    /// 10 s, 30 s, 1 min, .. 2 h.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.0.policy.retry_delay = Some(delay);
        self
    }

    /// The binder.
    #[must_use]
    pub fn build(self) -> MemoryBinder {
        MemoryBinder(Arc::new(Shared {
            topics: Mutex::default(),
            settings: self.0,
            idle: Arc::default(),
            schedulers: Tasks::new(),
            closed: CancellationToken::new(),
        }))
    }
}

/// A message as a topic holds it.
#[derive(Clone, Debug)]
pub struct StoredMessage(Arc<Record>);

impl StoredMessage {
    /// The body.
    #[must_use]
    pub fn payload(&self) -> &bytes::Bytes {
        self.0.message.payload()
    }

    /// Tag, keys, headers and media type as sent.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// The id that the receipt and every delivery show.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.0.message_id
    }
}

impl Default for MemoryBinder {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBinder {
    /// A binder with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts the settings of a binder.
    pub fn builder() -> MemoryBinderBuilder {
        MemoryBinderBuilder(Settings {
            capacity: 1024,
            retained: 1024,
            send_timeout: Duration::from_secs(3),
            policy: Policy {
                max_attempts: 17,
                retry_delay: None,
            },
        })
    }

    /// The last messages of a topic, oldest first; empty when it does not exist. Dead letters of a group are
    /// in the topic `%DLQ%<group>`.
    #[must_use]
    pub fn stored(&self, topic: &str) -> Vec<StoredMessage> {
        let topic = self.0.topics().get(topic).cloned();
        topic
            .map(|topic| topic.retained().into_iter().map(StoredMessage).collect())
            .unwrap_or_default()
    }

    /// Waits until no message is queued, delayed or in a handler. Messages for a group without a running
    /// consumer count, so this would wait for them.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn idle(&self) {
        self.0.idle.wait().await;
    }
}

impl fmt::Debug for MemoryBinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBinder")
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic, made when it does not exist; the error is a text.
    fn topic(&self, name: &str) -> Result<Arc<Topic>, String> {
        let mut topics = self.topics();
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-');
        if name.is_empty() || name.len() > 127 || !name.chars().all(legal) {
            return Err(format!(
                "illegal topic {name:?}: 1 to 127 characters of A-Z a-z 0-9 % | _ - are allowed"
            ));
        }
        if topics.len() >= MAX_TOPICS {
            return Err(format!(
                "no topic {name:?}: the memory binder holds at most {MAX_TOPICS} topics"
            ));
        }
        let name: Arc<str> = Arc::from(name);
        let topic = Arc::new(Topic::new(Arc::clone(&name), self.settings.retained));
        topics.insert(name, Arc::clone(&topic));
        Ok(topic)
    }

    /// The group of a topic; its scheduler is started with it.
    fn group(&self, topic: &Arc<Topic>, name: &Arc<str>) -> Result<Arc<Group>, String> {
        let dead_letters = self.topic(&format!("%DLQ%{name}"))?;
        let (group, new) = topic.group(name, || {
            let settings = &self.settings;
            Group::new(
                Arc::clone(name),
                settings.capacity,
                settings.policy.clone(),
                dead_letters,
                Arc::clone(&self.idle),
            )
        });
        if new {
            let scheduled = Arc::clone(&group);
            self.schedulers.spawn("memory-delay", |stop| async move {
                scheduled.deliver_delayed(stop).await;
            });
        }
        Ok(group)
    }
}

#[async_trait]
impl Binder for MemoryBinder {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn bind_consumer(
        &self,
        binding: ConsumerBinding,
        handler: DeliveryHandler,
    ) -> Result<Box<dyn BoundConsumer>, BindError> {
        let name = Arc::clone(&binding.name);
        let refused = |text: String| BindError::new(&*name, text);
        if self.0.closed.is_cancelled() {
            return Err(refused("the binder was shut down".to_owned()));
        }
        let topic = self.0.topic(&binding.destination).map_err(refused)?;
        let group = self.0.group(&topic, &binding.group).map_err(refused)?;
        let (paused, _) = watch::channel(!binding.auto_startup);
        let workers = Tasks::new();
        let busy = Arc::new(AtomicUsize::new(0));
        for _ in 0..binding.concurrency {
            let (group, handler, pause) = (Arc::clone(&group), handler.clone(), paused.subscribe());
            let (binding, topic) = (Arc::clone(&binding.name), Arc::clone(topic.name()));
            let busy = Arc::clone(&busy);
            workers.spawn("memory-consumer", |stop| async move {
                group.work(&binding, &topic, handler, &busy, pause, stop).await;
            });
        }
        Ok(Box::new(MemoryConsumer {
            workers,
            busy,
            paused,
        }))
    }

    async fn bind_producer(&self, binding: ProducerBinding) -> Result<Arc<dyn Outbound>, BindError> {
        if let (Some(name), Some(destination)) = (&binding.name, &binding.destination) {
            self.0
                .topic(destination)
                .map_err(|text| BindError::new(&**name, text))?;
        }
        Ok(Arc::new(MemoryOutbound(Arc::clone(&self.0))))
    }

    async fn shutdown(&self, grace: Duration) {
        self.0.closed.cancel();
        // Schedulers end at once when told; there is nothing to report.
        let _ = self.0.schedulers.stop(grace).await;
    }
}

#[derive(Debug)]
struct MemoryConsumer {
    workers: Tasks,
    busy: Arc<AtomicUsize>,
    paused: watch::Sender<bool>,
}

#[async_trait]
impl BoundConsumer for MemoryConsumer {
    fn pause(&self) {
        self.paused.send_replace(true);
    }

    fn resume(&self) {
        self.paused.send_replace(false);
    }

    async fn stop(&self, grace: Duration) -> usize {
        match self.workers.stop(grace).await {
            Ok(()) => 0,
            Err(StillRunning(_)) => self.busy.load(Ordering::Acquire),
        }
    }
}

struct MemoryOutbound(Arc<Shared>);

impl fmt::Debug for MemoryOutbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryOutbound")
    }
}

#[async_trait]
impl Outbound for MemoryOutbound {
    async fn send(&self, topic: &str, message: Message) -> Result<SendReceipt, OutboundError> {
        let shared = &self.0;
        if shared.closed.is_cancelled() {
            let text = format!("send to topic {topic}: the memory binder was shut down");
            return Err(OutboundError::new(text, Persisted::No).permanent());
        }
        let topic = shared
            .topic(topic)
            .map_err(|text| OutboundError::new(text, Persisted::No).permanent())?;
        let timeout = shared.settings.send_timeout;
        time::timeout(timeout, topic.send(message)).await.map_err(|_| {
            let text = format!(
                "send to topic {}: a group held {} unsettled messages for {timeout:?}; consume faster or raise the capacity",
                topic.name(), shared.settings.capacity,
            );
            OutboundError::new(text, Persisted::No)
        })
    }
}

#[cfg(test)]
mod tests;
