//! Senders of every kind at once, and a consumer that finds out what became of their messages.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    history::{History, Id, Place, Sent},
    scenario::{TestResult, eventually, report_figure},
    target::{Target, create_topic},
};
use rocketmq_client::{
    BatchReceipt, Batching, Client, ClientBuilder, ConsumeFrom, Message, MessageView, Persisted, Producer,
    PushConsumer, SendReceipt,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

/// How many sends of one sender are in flight at most, where they do not wait for each other.
const IN_FLIGHT: u32 = 32;

/// A way to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Awaited,
    Detached,
    Callback,
    OneWay,
    Batch,
    /// Detached, and gathered into batches with others.
    Gathered,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Awaited,
        Self::Detached,
        Self::Callback,
        Self::OneWay,
        Self::Batch,
        Self::Gathered,
    ];
}

/// How many messages a batch has.
const BATCH: u32 = 5;

/// A client for faults: it looks for routes every second, so that scenarios need not wait for half a minute.
pub(super) fn client(name_server: impl fmt::Display) -> ClientBuilder {
    Client::builder(name_server.to_string()).route_refresh_interval(Duration::from_secs(1))
}

/// What a send came to, for the history.
pub(super) fn outcome(result: &rocketmq_client::Result<SendReceipt>) -> Sent {
    match result {
        Ok(receipt) => Sent::Stored(Place {
            broker: receipt.queue.broker_name.to_string(),
            topic: receipt.queue.topic.to_string(),
            queue: receipt.queue.queue_id,
            offset: receipt.queue_offset,
        }),
        Err(error) if error.persisted() == Persisted::No => Sent::NotStored,
        Err(_) => Sent::Unknown,
    }
}

/// Sends one message that carries its id and notes how that ended.
pub(super) async fn send_noted(
    producer: &Producer,
    topic: &str,
    id: Id,
    history: &History,
) -> rocketmq_client::Result<SendReceipt> {
    history.begun(id);
    let result = producer.send(Message::new(topic, id.to_string())).await;
    history.sent(id, outcome(&result));
    result
}

/// A consumer that records what it gets.
pub(super) async fn record(
    client: &Client,
    group: &str,
    topic: &str,
    history: &Arc<History>,
) -> Result<PushConsumer, Failure> {
    let history = Arc::clone(history);
    let consumer = client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let history = Arc::clone(&history);
            async move {
                let queue = message.queue();
                let place = Place {
                    broker: queue.broker_name.to_string(),
                    topic: queue.topic.to_string(),
                    queue: queue.queue_id,
                    offset: message.queue_offset(),
                };
                history.received(std::str::from_utf8(message.body())?.parse()?, place);
                Ok::<_, Failure>(())
            }
        })
        .await?;
    Ok(consumer)
}

/// What all senders of a load share.
#[derive(Debug)]
struct Shared {
    topic: String,
    history: Arc<History>,
    stop: AtomicBool,
    /// What applications saw of errors.
    failures: Mutex<Vec<(Kind, String)>>,
    /// How long awaited sends took.
    latencies: Mutex<Vec<Duration>>,
    /// How many acknowledgements came from each broker.
    brokers: Mutex<BTreeMap<String, usize>>,
}

/// A panic while a lock was held is reported by its own test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// All messages of a batch have one end; they lie one behind the other.
    fn end_batch(&self, ids: &[Id], result: &rocketmq_client::Result<BatchReceipt>) {
        for (id, place) in ids.iter().zip(0..) {
            match result {
                Ok(receipt) => self.history.sent(
                    *id,
                    Sent::Stored(Place {
                        broker: receipt.queue.broker_name.to_string(),
                        topic: receipt.queue.topic.to_string(),
                        queue: receipt.queue.queue_id,
                        offset: receipt.queue_offset + place,
                    }),
                ),
                Err(error) => self.end(Kind::Batch, *id, &Err(error.clone())),
            }
        }
    }

    fn end(&self, kind: Kind, id: Id, result: &rocketmq_client::Result<SendReceipt>) {
        match result {
            Ok(receipt) => {
                let broker = receipt.queue.broker_name.to_string();
                *lock(&self.brokers).entry(broker).or_default() += 1;
            }
            Err(error) => lock(&self.failures).push((kind, error.to_string())),
        }
        self.history.sent(id, outcome(result));
    }
}

/// A topic under load from senders of all kinds.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    pub(super) history: Arc<History>,
    senders: JoinSet<()>,
    consumer: PushConsumer,
    reader: Client,
}

impl Load {
    /// Makes a topic and puts it under load. `writer` sends; a client of its own reads from `name_server`.
    pub(super) async fn start(target: &Target, name_server: &str, writer: &Client) -> Result<Self, Failure> {
        let (topic, group) = (target.topic("load"), target.group("load"));
        create_topic(name_server, &topic, 2).await?;
        let history = Arc::new(History::new());
        let reader = client(name_server).connect().await?;
        let consumer = record(&reader, &group, &topic, &history).await?;
        let shared = Arc::new(Shared {
            topic,
            history: Arc::clone(&history),
            stop: AtomicBool::new(false),
            failures: Mutex::default(),
            latencies: Mutex::default(),
            brokers: Mutex::default(),
        });
        let mut senders = JoinSet::new();
        for (number, kind) in (0..).zip(Kind::ALL) {
            let mut producer = writer.producer(target.group(&format!("{kind:?}")));
            if kind == Kind::Gathered {
                producer = producer.batching(Batching::default());
            }
            let producer = producer.start().await?;
            senders.spawn(send(kind, producer, number, Arc::clone(&shared)));
        }
        Ok(Self {
            shared,
            history,
            senders,
            consumer,
            reader,
        })
    }

    /// Waits until so many more sends were acknowledged.
    pub(super) async fn traffic(&self, when: &str) -> TestResult {
        const LOAD: usize = 300;
        let before = self.history.acknowledged();
        eventually(&format!("traffic {when}"), async || {
            Ok(self.history.acknowledged() >= before + LOAD)
        })
        .await
    }

    /// Waits until so many brokers acknowledge.
    pub(super) async fn served_by(&self, brokers: usize) -> TestResult {
        lock(&self.shared.brokers).clear();
        eventually(&format!("acknowledgements from {brokers} brokers"), async || {
            Ok(lock(&self.shared.brokers).len() == brokers)
        })
        .await
    }

    /// Ends the senders, waits for everything that was acknowledged, and judges it. Gives what applications saw of
    /// errors in sends that ask for an answer.
    pub(super) async fn end(mut self, target: &Target) -> Result<Vec<String>, Failure> {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.senders.join_next().await {
            ended?;
        }
        let waited = eventually("every acknowledged message", async || {
            Ok(self.history.outstanding() == 0)
        });
        waited
            .await
            .map_err(|failure| format!("{failure}: {}", self.history.check()))?;
        self.consumer.shutdown().await;
        self.reader.shutdown().await;
        report_figure(target, &self.to_string());
        self.history.check().complete()?;
        let failures = lock(&self.shared.failures);
        Ok(failures
            .iter()
            .filter(|(kind, _)| *kind != Kind::OneWay)
            .map(|(kind, error)| format!("{kind:?}: {error}"))
            .collect())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unknown, not_stored) = self.history.unacknowledged();
        let mut latencies = lock(&self.shared.latencies).clone();
        latencies.sort_unstable();
        let percentile = |per_cent: usize| latencies.get(latencies.len() * per_cent / 100).copied();
        write!(
            f,
            "{} acknowledged, {unknown} unknown (one-way among them), {not_stored} not stored; longest time without \
             an acknowledgement {:?}; awaited p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            self.history.acknowledged(),
            self.history.longest_silence(),
            percentile(50).unwrap_or_default(),
            percentile(99).unwrap_or_default(),
            latencies.last().copied().unwrap_or_default(),
        )
    }
}

/// Sends numbered messages until told to stop, and records how each ended.
async fn send(kind: Kind, producer: Producer, number: u32, shared: Arc<Shared>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    let mut handles = JoinSet::new();
    let mut sequence = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let id = Id {
            producer: number,
            sequence,
        };
        sequence += 1;
        let message = |id: Id| Message::new(&shared.topic, id.to_string());
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return;
        };
        if kind != Kind::Batch {
            shared.history.begun(id);
        }
        match kind {
            Kind::Awaited => {
                let started = Instant::now();
                let result = producer.send(message(id)).await;
                lock(&shared.latencies).push(started.elapsed());
                shared.end(kind, id, &result);
            }
            Kind::Batch => {
                let ids: Vec<Id> = (0..BATCH)
                    .map(|place| Id {
                        producer: number,
                        sequence: id.sequence * BATCH + place,
                    })
                    .collect();
                ids.iter().for_each(|id| shared.history.begun(*id));
                let result = producer.send_batch(ids.iter().copied().map(message)).await;
                shared.end_batch(&ids, &result);
            }
            Kind::Detached | Kind::Gathered => {
                let handle = producer.send(message(id)).detach();
                let shared = Arc::clone(&shared);
                handles.spawn(async move {
                    shared.end(kind, id, &handle.await);
                    drop(permit);
                });
                while handles.try_join_next().is_some() {}
            }
            Kind::Callback => {
                let message = message(id);
                let shared = Arc::clone(&shared);
                producer.send(message).on_complete(move |result| {
                    shared.end(kind, id, &result);
                    drop(permit);
                });
            }
            Kind::OneWay => match producer.send(message(id)).one_way().await {
                Ok(()) => shared.history.sent(id, Sent::Unknown),
                Err(error) => shared.end(kind, id, &Err(error)),
            },
        }
        // Some hundred messages a second for each sender are plenty on a small machine.
        sleep(Duration::from_millis(5)).await;
    }
    // All that is in flight has ended once all permits are back.
    let _ = in_flight.acquire_many(IN_FLIGHT).await;
}
