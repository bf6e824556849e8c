//! A half message in the hands of its sender, and how its transaction is ended.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::{Outcome, Place, TransactionState, Transactions};
use crate::cluster::{outbound, read_response};
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::producer::SendReceipt;
use crate::protocol::bodies::MASTER_ID;
use crate::protocol::requests::EndTransaction;
use crate::protocol::{Fields, OffsetMessageId, ResponseCode};
use crate::transport::{backoff, random};

/// A message that is stored and not visible: commit it or roll it back.
///
/// Dropping it means that the outcome is unknown; the broker asks the
/// [`TransactionListener`](super::TransactionListener).
#[must_use = "a half message has to be committed or rolled back; the broker asks about one that is dropped"]
pub struct HalfMessage {
    running: Running,
    topic: String,
    receipt: SendReceipt,
    /// Where it was stored first.
    place: Place,
}

/// A transaction that has begun here. Dropping it leaves the outcome to the listener.
pub(super) struct Running {
    transactions: Arc<Transactions>,
    id: String,
    stored: bool,
    ended: bool,
    /// The shutdown of the producer waits for this.
    _in_work: TaskTrackerToken,
}

impl Running {
    /// A transaction begins with the send of its half message: from then on brokers may ask about it.
    pub(super) fn new(transactions: &Arc<Transactions>, id: String) -> Self {
        transactions.local.begin(&id);
        Self {
            transactions: Arc::clone(transactions),
            id,
            stored: false,
            ended: false,
            _in_work: transactions.in_work.token(),
        }
    }

    /// The half message is stored.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the broker does not say where.
    pub(super) fn stored(mut self, topic: String, receipt: SendReceipt) -> Result<HalfMessage> {
        let position: OffsetMessageId = receipt.offset_message_id.parse().map_err(|error| {
            Error::new(
                ErrorKind::Protocol,
                "the broker gave the half message an id that says no place",
            )
            .caused_by(error)
            .with_persisted(Persisted::Yes)
        })?;
        self.stored = true;
        let place = Place {
            address: None,
            broker_name: Some(receipt.queue.broker_name.to_string()),
            topic: Some(self.transactions.cluster.wire_name(&topic).into_owned()),
            queue_offset: receipt.queue_offset,
            log_offset: position.physical_offset,
            transaction_id: Some(self.id.clone()),
            user_topic: topic.clone(),
        };
        Ok(HalfMessage {
            running: self,
            topic,
            receipt,
            place,
        })
    }

    fn settle(&mut self, outcome: Outcome) {
        self.ended = true;
        self.transactions.local.end(&self.id, outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.stored {
            self.transactions.local.forget(&self.id);
        } else {
            // It may be stored nevertheless; its local part has not run and never will.
            self.transactions.local.end(&self.id, Outcome::RolledBack);
        }
    }
}

impl HalfMessage {
    /// Where the half message is stored: its queue is the one consumers will read, its offset that of the broker's own
    /// topic.
    #[must_use]
    pub fn receipt(&self) -> &SendReceipt {
        &self.receipt
    }

    /// The id of the transaction: the message's own id.
    #[must_use]
    pub fn transaction_id(&self) -> &str {
        &self.running.id
    }

    /// The topic of the message.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Makes the message visible. It is told as a request that the broker answers; only what certainly did not get
    /// there is told again, because committing twice duplicates the message.
    ///
    /// # Errors
    /// When it is not known whether the broker has heard of it. If it has not, it asks, and is told then.
    ///
    /// # Cancellation
    /// Dropped, it may or may not be committed; the broker asks the listener if it is not.
    pub async fn commit(mut self) -> Result<SendReceipt> {
        let told = self.end(TransactionState::Commit).await;
        self.running.settle(match told {
            Ok(()) => Outcome::Committed,
            Err(_) => Outcome::CommitUnconfirmed,
        });
        told?;
        Ok(self.receipt)
    }

    /// Drops the message: no consumer gets it. Told again, within the producer's send timeout, until the broker
    /// answers.
    ///
    /// # Errors
    /// When the broker did not answer. It asks, and is told then.
    ///
    /// # Cancellation
    /// Dropped, the broker asks the listener if it has not heard of it.
    pub async fn rollback(mut self) -> Result<()> {
        let told = self.end(TransactionState::Rollback).await;
        self.running.settle(Outcome::RolledBack);
        told
    }

    async fn end(&self, state: TransactionState) -> Result<()> {
        let Running { transactions, id, .. } = &self.running;
        let deadline = Instant::now() + transactions.send_timeout;
        let mut attempts = 0;
        loop {
            attempts += 1;
            // A question that came meanwhile says where the half message is by now.
            let newest = transactions.local.newest_place(id);
            let from_check = newest.is_some();
            let place = newest.as_ref().unwrap_or(&self.place);
            // A commit has one attempt that can end in doubt, a rollback as many as it takes.
            let attempt_deadline = match state {
                TransactionState::Rollback => deadline.min(Instant::now() + transactions.send_timeout / 3),
                _ => deadline,
            };
            let told = transactions.tell(place, id, state, from_check, attempt_deadline);
            let error = match told.await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let harmless = state == TransactionState::Rollback || error.persisted() == Persisted::No;
            let again = matches!(
                error.kind(),
                ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Busy
            );
            let pause = Instant::now() + backoff(attempts, random());
            if !(harmless && again) || pause >= deadline {
                let what = match state {
                    TransactionState::Commit => "commit",
                    _ => "rollback",
                };
                return Err(error
                    .context(format_args!(
                        "{what} of transaction {} with topic {}",
                        id, self.topic
                    ))
                    .after(attempts));
            }
            debug!(transaction_id = id, %error, attempts, "the end of a transaction is told again");
            sleep_until(pause).await;
        }
    }
}

impl fmt::Debug for HalfMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HalfMessage")
            .field("transaction_id", &self.running.id)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Transactions {
    /// Tells a broker the end of a transaction and waits for its answer.
    async fn tell(
        &self,
        place: &Place,
        id: &str,
        state: TransactionState,
        from_check: bool,
        deadline: Instant,
    ) -> Result<()> {
        let address = self.address_of(place)?;
        let request = self.end_request(place, id, state, from_check);
        let extra = Fields::new();
        let answer = self
            .cluster
            .remoting()
            .request(&address, &outbound(&request, &extra), deadline)
            .await;
        let told = answer.and_then(|frame| read_response::<EndTransaction>(&address, frame));
        self.told(place, id, state, from_check, told.as_ref().err());
        told.map(drop).map_err(|error| match error.response() {
            // Of these it is known that the broker has done nothing.
            Some((ResponseCode::SYSTEM_BUSY | ResponseCode::SLAVE_NOT_AVAILABLE, _)) => {
                error.with_persisted(Persisted::No)
            }
            Some(_) => error.with_persisted(Persisted::Maybe),
            None => error,
        })
    }

    /// Answers a question. Lost answers are harmless: the broker asks again. An outcome that the broker confirms is
    /// remembered, because brokers of 5.x write down what is done every few seconds only, and may ask about a copy before.
    pub(super) async fn answer(&self, place: &Place, id: &str, state: TransactionState) {
        let outcome = match state {
            TransactionState::Commit => Outcome::Committed,
            TransactionState::Rollback => Outcome::RolledBack,
            TransactionState::Unknown => return self.answer_unknown(place, id).await,
        };
        let deadline = Instant::now() + self.send_timeout;
        let told = self.tell(place, id, state, true, deadline).await;
        // A commit stays a commit when its copies are rolled back.
        if told.is_ok() && !self.local.has_ended(id) {
            self.local.end(id, outcome);
        }
    }

    async fn answer_unknown(&self, place: &Place, id: &str) {
        let state = TransactionState::Unknown;
        let request = self.end_request(place, id, state, true);
        let answered = match self.address_of(place) {
            Ok(address) => self.cluster.one_way(&address, &request).await,
            Err(error) => Err(error),
        };
        self.told(place, id, state, true, answered.as_ref().err());
    }

    /// Every end of a transaction that was told comes through here.
    fn told(
        &self,
        place: &Place,
        id: &str,
        state: TransactionState,
        from_check: bool,
        error: Option<&Error>,
    ) {
        debug!(
            group = self.group,
            transaction_id = id,
            ?state,
            from_check,
            queue_offset = place.queue_offset,
            error = error.map(tracing::field::display),
            "told the end of a transaction"
        );
        if let (Some(tracer), None) = (self.cluster.trace(), error) {
            self.trace_end(tracer, place, id, state, from_check);
        }
    }

    pub(in crate::producer) fn address_of(&self, place: &Place) -> Result<Arc<str>> {
        if let Some(address) = &place.address {
            return Ok(Arc::clone(address));
        }
        let name = place.broker_name.as_deref().unwrap_or_default();
        self.cluster.broker_addr(name, MASTER_ID).ok_or_else(|| {
            Error::new(
                ErrorKind::Connect,
                format!("broker {name}, which has the half message, is in no route any more"),
            )
        })
    }

    fn end_request(
        &self,
        place: &Place,
        id: &str,
        state: TransactionState,
        from_check: bool,
    ) -> EndTransaction {
        EndTransaction {
            topic: place.topic.clone(),
            producer_group: self.wire_group.clone(),
            tran_state_table_offset: place.queue_offset,
            commit_log_offset: place.log_offset,
            commit_or_rollback: match state {
                TransactionState::Commit => EndTransaction::COMMIT,
                TransactionState::Rollback => EndTransaction::ROLLBACK,
                TransactionState::Unknown => EndTransaction::UNKNOWN,
            },
            from_transaction_check: Some(from_check),
            msg_id: id.to_owned(),
            transaction_id: place.transaction_id.clone(),
            broker_name: place.broker_name.clone(),
        }
    }
}
