//! One send from its first attempt to its last.
//!
//! Protocol source: `DefaultMQProducerImpl#sendDefaultImpl`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use super::prepare::{Needs, Prepared};
use super::receipt::SendReceipt;
use super::select::{Choice, Target};
use crate::error::{Error, Persisted, Result};
use crate::protocol::Fields;
use crate::protocol::bodies::MessageQueue;
use crate::telemetry::SendMeters;
use crate::transport::{Connection, InFlight, Outbound, Started};

/// One send from its first attempt to its last.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) core: Arc<Core>,
    pub(super) prepared: Prepared,
    pub(super) target: Target,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) attempts: u32,
    /// The worst of all attempts.
    pub(super) persisted: Persisted,
    pub(super) failed_broker: Option<Arc<str>>,
    /// Of the attempt before.
    pub(super) last_error: Option<Error>,
    /// Whether a message that is stored less safely than it should be is a failure.
    pub(super) require_ok: bool,
    /// What it takes of the room for messages in flight.
    pub(super) cost: Option<u32>,
    /// Whether its messages have taken room each for itself.
    pub(super) is_seated: bool,
}

/// Where one attempt goes.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) queue: MessageQueue,
    pub(super) address: Arc<str>,
    pub(super) meters: Arc<SendMeters>,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    /// Whether a further attempt could go to another broker.
    pub(super) alternatives: bool,
}

/// What the fast path came to.
pub(super) enum Fast {
    /// The request is in the buffer of its connection.
    InFlight(InFlight, Attempt),
    /// Something has to be waited for first.
    NotNow(Next),
}

/// What the slow way does first.
pub(super) enum Next {
    /// Chooses where to send to.
    Choose,
    /// Makes an attempt whose place was chosen already: choosing again would use up another turn.
    Try(Attempt),
    /// Sees what follows from an attempt that failed.
    After(Attempt, Error),
}

impl Job {
    pub(super) fn new(core: &Arc<Core>, prepared: Prepared, target: Target, timeout: Duration) -> Self {
        let begun = Instant::now();
        Self {
            core: Arc::clone(core),
            prepared,
            target,
            begun,
            deadline: begun + timeout,
            attempts: 0,
            persisted: Persisted::No,
            failed_broker: None,
            last_error: None,
            require_ok: core.options.require_ok,
            cost: None,
            is_seated: false,
        }
    }

    /// Takes room for the message, if there is some.
    pub(super) fn try_enter(&mut self) -> bool {
        if self.cost.is_none() && !self.is_seated {
            self.cost = self.core.room.try_enter(self.prepared.body.len());
        }
        self.cost.is_some() || self.is_seated
    }

    /// Makes the first attempt if nothing has to be waited for: there is room, the route is known, the broker is
    /// connected, no layer is installed.
    pub(super) fn start(&mut self) -> Fast {
        if !self.try_enter() {
            return Fast::NotNow(Next::Choose);
        }
        let Some(route) = self.core.cluster.known_publish_route(&self.prepared.topic) else {
            return Fast::NotNow(Next::Choose);
        };
        // Choosing by a function of the user is left to the slow way, which reports its mistakes.
        if matches!(self.target, Target::Chosen(_)) {
            return Fast::NotNow(Next::Choose);
        }
        let Ok(Choice::Go(attempt)) = self.choose(&route) else {
            return Fast::NotNow(Next::Choose);
        };
        if !self.is_known_to_fit(&attempt) {
            return Fast::NotNow(Next::Try(attempt));
        }
        let extra = Fields::new();
        let started = self.outbound(&attempt, &extra, |outbound| {
            let remoting = self.core.cluster.remoting();
            remoting.try_start(&attempt.address, outbound, attempt.deadline)
        });
        match started {
            Some(Started::InFlight(in_flight)) => {
                self.attempts = 1;
                Fast::InFlight(in_flight, attempt)
            }
            Some(Started::Failed(error)) => {
                self.attempts = 1;
                Fast::NotNow(Next::After(attempt, error))
            }
            Some(Started::Full) | None => Fast::NotNow(Next::Try(attempt)),
        }
    }

    /// Makes attempts until one succeeds or none may follow.
    pub(super) async fn run(mut self, mut next: Next) -> Result<SendReceipt> {
        if self.cost.is_none() && !self.is_seated {
            self.enter().await?;
        }
        loop {
            let attempt = match next {
                Next::Try(attempt) => attempt,
                Next::Choose => self.next_attempt().await?,
                Next::After(attempt, error) => {
                    self.after_failure(&attempt, error)?;
                    let mut next = self.next_attempt().await?;
                    self.pause_before(&mut next).await?;
                    next
                }
            };
            self.attempts += 1;
            if let Err(error) = self.fit(&attempt).await {
                next = Next::After(attempt, error);
                continue;
            }
            let extra = Fields::new();
            let core = Arc::clone(&self.core);
            let header = self
                .prepared
                .header(&core, &attempt.queue.broker_name, attempt.queue.queue_id);
            let outbound = self.prepared.outbound(&header, &extra);
            let answer = core
                .cluster
                .remoting()
                .request(&attempt.address, &outbound, attempt.deadline)
                .await;
            match answer.and_then(|frame| self.read(&attempt, frame)) {
                Ok(receipt) => return Ok(receipt),
                Err(error) => next = Next::After(attempt, error),
            }
        }
    }

    async fn enter(&mut self) -> Result<()> {
        let (room, when_full) = (&self.core.room, self.core.options.when_full);
        let entered = room
            .enter(self.prepared.body.len(), when_full, self.deadline)
            .await;
        let cost =
            entered.map_err(|error| error.context(format_args!("send to topic {}", self.prepared.topic)))?;
        self.cost = Some(cost);
        Ok(())
    }

    /// Fails at once without room: for sends that nobody waits for.
    pub(super) fn enter_or_fail(&mut self) -> Result<()> {
        match self.try_enter() {
            true => Ok(()),
            false => Err(self
                .core
                .room
                .full()
                .context(format_args!("send to topic {}", self.prepared.topic))),
        }
    }

    /// Whether the broker is known to honour what the message asks for: so it is for a message that asks for nothing
    /// special.
    fn is_known_to_fit(&mut self, attempt: &Attempt) -> bool {
        if self.prepared.needs == Needs::Nothing {
            return true;
        }
        let version = self.core.cluster.known_broker_version(&attempt.address);
        version.is_some_and(|version| self.prepared.fit(version).is_ok())
    }

    /// Makes sure that the broker honours what the message asks for; a broker that has not said its version yet is
    /// asked.
    async fn fit(&mut self, attempt: &Attempt) -> Result<()> {
        if self.prepared.needs == Needs::Nothing {
            return Ok(());
        }
        let version = self
            .core
            .cluster
            .broker_version(&attempt.address, attempt.deadline);
        self.prepared.fit(version.await?)
    }

    fn outbound<T>(
        &self,
        attempt: &Attempt,
        extra: &Fields,
        run: impl FnOnce(&Outbound<'_, super::prepare::SendHeader<'_>>) -> T,
    ) -> T {
        let queue = &attempt.queue;
        let header = self
            .prepared
            .header(&self.core, &queue.broker_name, queue.queue_id);
        run(&self.prepared.outbound(&header, extra))
    }

    /// Puts the message into the buffer of a connection and asks for no answer. Its room is given back when the frame
    /// is written.
    pub(super) async fn one_way(mut self) -> Result<SendReceipt> {
        let (room, when_full) = (&self.core.room, self.core.options.when_full);
        let body = self.prepared.body.len();
        let hold = room.hold(body, when_full, self.deadline).await;
        let hold =
            hold.map_err(|error| error.context(format_args!("send to topic {}", self.prepared.topic)))?;
        let attempt = self.next_attempt().await?;
        if let Err(error) = self.fit(&attempt).await {
            return Err(self.describe(&attempt, error));
        }
        let core = Arc::clone(&self.core);
        let queue = &attempt.queue;
        let header = self.prepared.header(&core, &queue.broker_name, queue.queue_id);
        let extra = Fields::new();
        let outbound = self.prepared.outbound(&header, &extra);
        let sent = core
            .cluster
            .remoting()
            .one_way(&attempt.address, &outbound, self.deadline, Some(hold));
        let sent = sent.await;
        self.attempts = 1;
        match sent {
            Ok(()) => Ok(self.unanswered(attempt)),
            Err(error) => Err(self.failed(&attempt, error)),
        }
    }

    /// The broker is about to stop: its connection takes nothing new.
    pub(super) fn retire(&self, attempt: &Attempt, connection: &Arc<Connection>) {
        let pool = self.core.cluster.remoting().pool();
        pool.retire(&attempt.address, connection);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(cost) = self.cost {
            self.core.room.leave(cost);
        }
    }
}
