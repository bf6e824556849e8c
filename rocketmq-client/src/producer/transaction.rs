//! Transactions: a message that becomes visible when, and only if, a piece of local work succeeds.
//!
//! The message is first stored as a *half message* that no consumer sees. Then the local part runs, and its outcome
//! commits or rolls back the message. Whatever is lost on the way (this process, its connection, the broker), the
//! broker asks the producers of the group until one of them knows: that is what the [`TransactionListener`] is for.
//! Protocol source: `DefaultMQProducerImpl#sendMessageInTransaction`, `TransactionMQProducer`.

mod check;
mod half;
mod local;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Core, Producer, ProducerBuilder, SendReceipt, SendStatus};
use crate::cluster::{BoxFuture, Client, Cluster, ProducerMember, TransactionCheck};
use crate::error::{Error, Result};
use crate::message::{Message, MessageView};
use crate::protocol::{ResponseCode, ResponseError, property};
use crate::tasks::Tasks;

pub use half::HalfMessage;

use check::Checker;
use half::Running;
pub(super) use local::Place;
use local::{Local, Outcome};

/// What became of a transaction. Java: `LocalTransactionState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionState {
    /// It succeeded: consumers get the message.
    Commit,
    /// It failed, or never happened: nobody gets the message.
    Rollback,
    /// It cannot be told now; the broker asks again later, fifteen times unless configured otherwise.
    Unknown,
}

/// Tells what became of a transaction whose end the broker has not heard of.
///
/// It is asked about transactions of any producer of the group, of this process or of another one that has died, so it
/// has to look where the local part leaves its traces: in a database, mostly by
/// [`message_id`](MessageView::message_id) or [`keys`](MessageView::keys).
///
/// Closures from a [`MessageView`] to a future of a [`TransactionState`] are listeners. Java: `TransactionListener`,
/// whose `executeLocalTransaction` is the local part of [`TransactionalProducer::send`].
pub trait TransactionListener: Send + Sync + 'static {
    /// Tells what became of the transaction of this half message. A panic, and what takes longer than
    /// [`check_timeout`](ProducerBuilder::check_timeout), counts as [`TransactionState::Unknown`].
    fn check(&self, half: MessageView) -> impl Future<Output = TransactionState> + Send;
}

impl<C, F> TransactionListener for C
where
    C: Fn(MessageView) -> F + Send + Sync + 'static,
    F: Future<Output = TransactionState> + Send,
{
    fn check(&self, half: MessageView) -> impl Future<Output = TransactionState> + Send {
        self(half)
    }
}

/// What was committed: where its half message was stored, and what the local part gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<T> {
    /// The receipt of the half message: its id is the transaction's, its queue the one consumers read. The offset is
    /// that of the broker's own topic.
    pub receipt: SendReceipt,
    /// What the local part gave.
    pub value: T,
}

/// Why a transaction did not end well.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TransactionError<E> {
    /// The half message was not stored, or not as safely as the broker should. The local part did not run, and nobody
    /// gets the message.
    Send(Error),
    /// The local part failed, with this error of its own. The message is rolled back; if the broker could not be told,
    /// it asks.
    Local(E),
    /// The local part succeeded, and whether the broker has heard of it is unknown. If it has not, it asks, and the
    /// [`TransactionListener`] says so: the message is not lost.
    EndUnknown(Error),
}

impl<E: fmt::Display> fmt::Display for TransactionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => write!(
                f,
                "the half message was not sent, the local part did not run: {error}"
            ),
            Self::Local(error) => write!(f, "the local part failed, the message is rolled back: {error}"),
            Self::EndUnknown(error) => {
                write!(
                    f,
                    "the local part is done, the broker may not know it yet and asks: {error}"
                )
            }
        }
    }
}

/// The local part's own error need not be an [`Error`](std::error::Error), so that it may be a box of one; its text is
/// part of this one's.
impl<E: fmt::Debug + fmt::Display> std::error::Error for TransactionError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Send(error) | Self::EndUnknown(error) => Some(error),
            Self::Local(_) => None,
        }
    }
}

/// How questions of brokers are answered, and who can ask.
#[derive(Clone, Debug)]
pub(super) struct CheckOptions {
    concurrency: usize,
    queue: usize,
    timeout: Duration,
    topics: Vec<String>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            concurrency: 4,
            queue: 2000,
            timeout: Duration::from_secs(60),
            topics: Vec::new(),
        }
    }
}

impl CheckOptions {
    /// What cannot be used.
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        for (name, value) in [
            ("check_concurrency", self.concurrency),
            ("check_queue", self.queue),
        ] {
            if value == 0 {
                wrong.push(format!("{name} must be at least 1"));
            }
        }
        if self.timeout.is_zero() {
            wrong.push("check_timeout must be longer than nothing".to_owned());
        }
    }
}

/// Options of transactions.
impl ProducerBuilder {
    /// How many questions about transactions are answered at a time. Default 4. Java: `checkThreadPoolMaxSize`, 1.
    pub fn check_concurrency(mut self, count: usize) -> Self {
        self.options.checks.concurrency = count;
        self
    }

    /// How many questions about transactions may wait for their turn; what is above that is answered with
    /// [`TransactionState::Unknown`], so the broker asks again. Default 2000. Java: `checkRequestHoldMax`.
    pub fn check_queue(mut self, count: usize) -> Self {
        self.options.checks.queue = count;
        self
    }

    /// How long the listener may take for one question. Default 60 s.
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.options.checks.timeout = timeout;
        self
    }

    /// The topics that this group sends to in transactions. Only brokers that know a producer can ask it, so one that
    /// has not sent anything yet would not be asked about the transactions of others. Default none: then the brokers
    /// that create topics by themselves are made known, which are all of them unless `autoCreateTopicEnable` is off.
    pub fn transaction_topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.options.checks.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// Makes a producer of transactions and lets the brokers know of it, so that they can ask its listener.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_transactional(
        self,
        listener: impl TransactionListener,
    ) -> Result<TransactionalProducer> {
        let producer = self.start().await?;
        let core = Arc::clone(producer.core());
        let options = core.options.checks.clone();
        let (checks, waiting) = mpsc::channel(options.queue.max(1));
        let transactions = Arc::new(Transactions {
            group: core.group.clone(),
            wire_group: core.wire_group.clone(),
            cluster: Arc::clone(&core.cluster),
            tasks: core.tasks.clone(),
            send_timeout: core.options.send_timeout,
            local: Local::default(),
            checks,
            in_work: TaskTracker::new(),
            closed: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let checker = Checker::new(listener, &options);
        let answering = Arc::downgrade(&transactions);
        core.tasks
            .spawn("transaction-checks", |stop| checker.run(answering, waiting, stop));
        core.cluster
            .register_producer(Arc::clone(&transactions) as Arc<dyn ProducerMember>);
        core.make_known(&options.topics).await;
        Ok(TransactionalProducer(Arc::new(Handle {
            producer,
            transactions,
        })))
    }
}

impl Core {
    /// Lets the brokers that may hold half messages of this group know of it. What cannot be reached now hears of it
    /// with the heartbeats.
    async fn make_known(&self, topics: &[String]) {
        let template = &self.options.template;
        let topics = topics.iter().map(String::as_str).chain([&*template.topic]);
        for topic in topics {
            if let Err(error) = self.cluster.publish_route(topic, template).await {
                info!(group = self.group, topic, %error, "the brokers of this topic are not known yet");
            }
        }
        self.cluster.heartbeat_now().await;
    }
}

/// Sends messages in transactions. Cloning is cheap; clones share everything.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # #[derive(Clone, Default)] struct Database;
/// # impl Database {
/// #     async fn debit(&self, _transaction: &str) -> std::io::Result<u32> { Ok(41) }
/// #     async fn has(&self, _transaction: &str) -> bool { true }
/// # }
/// use rocketmq_client::{Client, Message, MessageView, TransactionState};
///
/// let database = Database::default();
/// let client = Client::connect(broker.name_server()).await?;
/// let known = database.clone();
/// let payments = client
///     .producer("payments-svc")
///     .start_transactional(move |half: MessageView| {
///         let database = known.clone();
///         async move {
///             match database.has(&half.message_id()).await {
///                 true => TransactionState::Commit,
///                 false => TransactionState::Rollback,
///             }
///         }
///     })
///     .await?;
///
/// let paid = payments
///     .send(Message::new("payments", "42 EUR"), |receipt| async move {
///         database.debit(&receipt.message_id).await // an error rolls the message back
///     })
///     .await?;
/// println!("{} is sent, {} EUR are left", paid.receipt.message_id, paid.value);
/// client.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # How often consumers get a message
/// At least once. Brokers store a half message anew for each question, and committing both copies duplicates the
/// message; so this producer ends a transaction at its newest place, and drops the copies of one that it has ended.
/// What is left is a producer that dies between its commit and the next question.
///
/// # When the local part takes long
/// A question that comes meanwhile is answered with [`TransactionState::Unknown`], without the listener; the outcome
/// follows when it is known.
#[derive(Clone)]
pub struct TransactionalProducer(Arc<Handle>);

/// What users share.
struct Handle {
    producer: Producer,
    transactions: Arc<Transactions>,
}

/// The transactions of one producer: a member of its group of its own, which brokers ask.
pub(super) struct Transactions {
    pub(super) group: String,
    /// The group as brokers know it.
    wire_group: String,
    cluster: Arc<Cluster>,
    tasks: Tasks,
    send_timeout: Duration,
    local: Local,
    checks: mpsc::Sender<TransactionCheck>,
    /// Transactions between their half message and their end.
    in_work: TaskTracker,
    closed: AtomicBool,
    answered: AtomicU64,
    refused: AtomicU64,
}

/// Figures of a [`TransactionalProducer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionStats {
    /// How many local parts run.
    pub running: usize,
    /// How many questions wait for the listener, or are with it.
    pub checking: usize,
    /// How many questions were answered, with whatever state.
    pub answered: u64,
    /// How many of them were answered with [`TransactionState::Unknown`] because too many were waiting.
    pub refused: u64,
}

impl TransactionalProducer {
    /// Sends a half message, runs the local part, and commits the message if it gives `Ok`, or rolls it back if it
    /// gives `Err`. The local part is given the receipt of the half message, whose id is that of the transaction.
    ///
    /// For an outcome that is neither, see [`begin`](Self::begin).
    ///
    /// # Errors
    /// See [`TransactionError`].
    ///
    /// # Cancellation
    /// Dropped, or after a panic of the local part, the outcome is unknown and the broker asks the listener.
    pub async fn send<T, E, F>(
        &self,
        message: Message,
        local: impl FnOnce(SendReceipt) -> F,
    ) -> Result<Committed<T>, TransactionError<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let half = self.begin(message).await.map_err(TransactionError::Send)?;
        match local(half.receipt().clone()).await {
            Ok(value) => {
                let receipt = half.commit().await.map_err(TransactionError::EndUnknown)?;
                Ok(Committed { receipt, value })
            }
            Err(error) => {
                let transaction_id = half.transaction_id().to_owned();
                if let Err(unknown) = half.rollback().await {
                    warn!(transaction_id, error = %unknown, "a rollback did not get there, the broker asks");
                }
                Err(TransactionError::Local(error))
            }
        }
    }

    /// Sends a half message; the transaction is ended by [`HalfMessage::commit`] or [`HalfMessage::rollback`]. Dropping
    /// the half message means that the outcome is unknown: the broker asks the listener.
    ///
    /// # Errors
    /// As a send. A half message that is stored, but not flushed or replicated in time, is rolled back and gives an
    /// error with the broker's code. [`ErrorKind::Config`](crate::ErrorKind::Config) for a message with a delay, a
    /// delivery time, or that answers another one: brokers lose such half messages.
    ///
    /// # Cancellation
    /// Dropped, the half message may be stored; asked about it this producer rolls it back.
    pub async fn begin(&self, message: Message) -> Result<HalfMessage> {
        let transactions = &self.0.transactions;
        let topic = message.topic().to_owned();
        let failed =
            |error: Error| error.context(format_args!("transaction with a message to topic {topic}"));
        transactions.check_open().map_err(failed)?;
        check_kind(&message).map_err(failed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let id = transactions.cluster.unique_ids().at(millis);
        let message = message
            .set(property::UNIQUE_KEY, &id)
            .set(property::TRANSACTION_PREPARED, "true")
            .set(property::PRODUCER_GROUP, &transactions.wire_group);
        // From now on a question about it is not one for the listener.
        let running = Running::new(transactions, id);
        let receipt = self.0.producer.send(message).await.map_err(failed)?;
        let status = receipt.status;
        let half = running.stored(topic.clone(), receipt).map_err(failed)?;
        if status != SendStatus::Ok {
            let refused = not_safe(status, half.receipt());
            if let Err(unknown) = half.rollback().await {
                warn!(error = %unknown, "a half message that is not safe is not rolled back yet; the broker asks");
            }
            return Err(failed(refused));
        }
        Ok(half)
    }

    /// The producer group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0.transactions.group
    }

    /// The same producer for messages outside of transactions.
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.0.producer
    }

    /// The client that this producer belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.0.producer.client()
    }

    /// What runs and has run.
    #[must_use]
    pub fn stats(&self) -> TransactionStats {
        let transactions = &self.0.transactions;
        let (running, checking) = transactions.local.count();
        TransactionStats {
            running,
            checking,
            answered: transactions.answered.load(Ordering::Relaxed),
            refused: transactions.refused.load(Ordering::Relaxed),
        }
    }

    /// Takes no more transactions, waits for those that run, and takes the group off the brokers, which then ask other
    /// members about what is left. Idempotent; the client does it too when it is shut down.
    pub async fn shutdown(&self) {
        let transactions = &self.0.transactions;
        let grace = transactions.cluster.options().shutdown_grace;
        if tokio::time::timeout(grace, transactions.shutdown())
            .await
            .is_err()
        {
            warn!(
                group = transactions.group,
                "transactions ran when the grace was over; the broker asks about them"
            );
        }
        self.0.producer.shutdown().await;
    }
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalProducer")
            .field("group", &self.0.transactions.group)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let transactions = &self.transactions;
        if !transactions.closed.swap(true, Ordering::SeqCst) {
            transactions.cluster.forget_producer(&**transactions);
        }
    }
}

impl Transactions {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::closed(format_args!(
                "transactional producer {}",
                self.group
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl ProducerMember for Transactions {
    fn group(&self) -> &str {
        &self.group
    }

    fn checks_transactions(&self) -> bool {
        true
    }

    fn check_transaction(&self, check: TransactionCheck) -> BoxFuture<'_, ()> {
        Box::pin(self.take_check(check))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closed.store(true, Ordering::SeqCst);
            self.in_work.close();
            self.in_work.wait().await;
            if self.cluster.unregister_producer(self).await {
                info!(group = self.group, "transactions shut down");
            }
        })
    }
}

/// Brokers lose half messages that are something else besides.
fn check_kind(message: &Message) -> Result<()> {
    const DELAYS: [&str; 4] = [
        property::DELAY,
        property::TIMER_DELAY_SEC,
        property::TIMER_DELAY_MS,
        property::TIMER_DELIVER_MS,
    ];
    let wrong = |what: &str| {
        Err(Error::config(format!(
            "it has {what}, which cannot be part of a transaction; send it with a plain producer instead"
        )))
    };
    if DELAYS.iter().any(|name| message.get(name).is_some()) {
        return wrong("a delay or delivery time");
    }
    if message.get(property::MESSAGE_TYPE).is_some() || message.get(property::CORRELATION_ID).is_some() {
        return wrong("a place in a request and reply");
    }
    Ok(())
}

/// The half message is stored less safely than the broker should: the local part must not run.
fn not_safe(status: SendStatus, receipt: &SendReceipt) -> Error {
    let code = match status {
        SendStatus::FlushDiskTimeout => ResponseCode::FLUSH_DISK_TIMEOUT,
        SendStatus::FlushSlaveTimeout => ResponseCode::FLUSH_SLAVE_TIMEOUT,
        _ => ResponseCode::SLAVE_NOT_AVAILABLE,
    };
    let remark =
        "the half message is stored, but not as safely as it should be; it is rolled back".to_owned();
    Error::from_response(
        "half message",
        &receipt.queue.broker_name,
        ResponseError::Refused { code, remark },
    )
}

#[cfg(test)]
mod tests;
