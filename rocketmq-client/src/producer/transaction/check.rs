//! Questions of brokers about half messages, and the listener that answers them: a bounded queue, a bounded number at a
//! time, a deadline for each.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::local::Answer;
use super::{CheckOptions, Place, TransactionListener, TransactionState, Transactions};
use crate::cluster::{BoxFuture, TransactionCheck};
use crate::message::MessageView;
use crate::protocol::property;
use crate::tasks::catch;

impl Transactions {
    /// Takes a question over: answers at once what is known, puts the rest into the queue of the listener.
    pub(super) async fn take_check(&self, check: TransactionCheck) {
        let id = transaction_id(&check.half);
        let place = Place::of_check(&check);
        let state = match self.local.asked(&id, place.clone()) {
            Answer::Now(state) => state,
            Answer::Asked => return,
            Answer::Ask => {
                let Err(full) = self.checks.try_send(check) else {
                    return;
                };
                self.local.checked(&id);
                self.refused.fetch_add(1, Ordering::Relaxed);
                warn!(group = self.group, %full, "too many questions about transactions; one is not asked now");
                TransactionState::Unknown
            }
        };
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.answer(&place, &id, state).await;
    }
}

/// The id that the sender gave the message; of one without, the broker's.
fn transaction_id(half: &MessageView) -> String {
    half.property(property::UNIQUE_KEY)
        .map_or_else(|| half.message_id(), str::to_owned)
}

type Listen = Arc<dyn Fn(MessageView) -> BoxFuture<'static, TransactionState> + Send + Sync>;

/// Asks the listener.
pub(super) struct Checker {
    listen: Listen,
    permits: Arc<Semaphore>,
    limit: Duration,
}

impl Checker {
    pub(super) fn new(listener: impl TransactionListener, options: &CheckOptions) -> Self {
        let listener = Arc::new(listener);
        Self {
            listen: Arc::new(move |half| {
                let listener = Arc::clone(&listener);
                Box::pin(async move { listener.check(half).await })
            }),
            permits: Arc::new(Semaphore::new(options.concurrency)),
            limit: options.timeout,
        }
    }

    /// Asks about one half message after the other, some at a time, until nobody holds the producer any more.
    pub(super) async fn run(
        self,
        transactions: Weak<Transactions>,
        mut waiting: mpsc::Receiver<TransactionCheck>,
        stop: CancellationToken,
    ) {
        loop {
            let next = async {
                let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
                Some((permit, waiting.recv().await?))
            };
            let Some(Some((permit, check))) = stop.run_until_cancelled(next).await else {
                return;
            };
            let Some(transactions) = transactions.upgrade() else {
                return;
            };
            let (listen, limit) = (Arc::clone(&self.listen), self.limit);
            let tasks = transactions.tasks.clone();
            tasks.spawn("transaction-check", |stop| async move {
                let _permit = permit;
                let asked = ask(&transactions, &listen, limit, check);
                stop.run_until_cancelled(asked).await;
            });
        }
    }
}

async fn ask(transactions: &Transactions, listen: &Listen, limit: Duration, check: TransactionCheck) {
    let id = transaction_id(&check.half);
    let listened = timeout(limit, catch(async { listen(check.half).await })).await;
    let state = match listened {
        Ok(Ok(state)) => state,
        Ok(Err(panic)) => {
            error!(
                transaction_id = id,
                panic, "the transaction listener panicked; the broker asks again"
            );
            TransactionState::Unknown
        }
        Err(_) => {
            warn!(
                transaction_id = id,
                ?limit,
                "the transaction listener took too long; the broker asks again"
            );
            TransactionState::Unknown
        }
    };
    if let Some(place) = transactions.local.checked(&id) {
        transactions.answered.fetch_add(1, Ordering::Relaxed);
        transactions.answer(&place, &id, state).await;
    }
}
