//! Whether another attempt follows one that failed.
//!
//! Protocol source: `DefaultMQProducerImpl#sendDefaultImpl`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::attempt::{Attempt, Job};
use super::receipt::SendStatus;
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::protocol::ResponseCode;
use crate::transport::{backoff, random};

/// The codes after which Java tries again, on another broker if there is one: `DefaultMQProducer#retryResponseCodes`.
pub(super) const RETRY_CODES: [ResponseCode; 8] = [
    ResponseCode::TOPIC_NOT_EXIST,
    ResponseCode::SERVICE_NOT_AVAILABLE,
    ResponseCode::SYSTEM_ERROR,
    ResponseCode::SYSTEM_BUSY,
    ResponseCode::NO_PERMISSION,
    ResponseCode::NO_BUYER_ID,
    ResponseCode::NOT_IN_CURRENT_UNIT,
    ResponseCode::GO_AWAY,
];

/// For how long a broker that did not answer, or could not be reached, comes last.
const AVOIDED: Duration = Duration::from_secs(5);

impl Job {
    pub(super) fn may_retry(&self) -> bool {
        self.attempts < self.core.options.max_attempts && Instant::now() < self.deadline
    }

    /// Notes a failed attempt. Gives the final error if no other attempt may follow.
    pub(super) fn after_failure(&mut self, attempt: &Attempt, error: Error) -> Result<()> {
        self.persisted = worse(self.persisted, error.persisted());
        let cluster = &self.core.cluster;
        let options = &self.core.options;
        let broken = is_broken(&error);
        let code = error.response().map(|(code, _)| code);
        let retried = match code {
            // Java tries again; the answer would be the same, from this broker and from the others.
            _ if error.kind() == ErrorKind::Auth => false,
            Some(code) if SendStatus::of(code).is_some() => options.retry_when_not_stored_ok,
            Some(code) => options.retry_codes.contains(&code),
            // A success that cannot be read is a success: trying again would duplicate the message.
            None => broken && error.persisted() != Persisted::Yes,
        };
        if broken {
            self.avoid(attempt);
        } else if is_busy(&error) {
            let standings = cluster.remoting().pool().standings();
            standings.busy(&attempt.address, attempt.started, error.clone());
        } else if let (true, Some(table)) = (retried, &options.latency_fault_tolerance) {
            let standings = cluster.remoting().pool().standings();
            standings.slow(&attempt.address, table.not_available_after_failure());
        }
        if broken || code == Some(ResponseCode::TOPIC_NOT_EXIST) || code == Some(ResponseCode::NO_PERMISSION)
        {
            cluster.refresh_route_soon(&self.prepared.topic);
        }
        if !retried || !self.may_retry() {
            return Err(self.failed(attempt, error));
        }
        attempt.meters.retried();
        debug!(topic = self.prepared.topic, attempt = self.attempts, %error, "a send is tried again");
        self.failed_broker = Some(Arc::clone(&attempt.queue.broker_name));
        self.last_error = Some(self.describe(attempt, error));
        Ok(())
    }

    /// Lets other brokers come first: until a probe, or another send, is answered; without probes for a while.
    fn avoid(&self, attempt: &Attempt) {
        let options = &self.core.options;
        let cluster = &self.core.cluster;
        let detector = options.start_detector.then_some(options.detector);
        let for_how_long = match (&detector, &options.latency_fault_tolerance) {
            (Some(_), _) => None,
            (None, Some(table)) => Some(table.not_available_after_failure()),
            (None, None) => Some(AVOIDED),
        };
        let standings = cluster.remoting().pool().standings();
        let unattended = standings.broken(&attempt.address, for_how_long);
        if let (true, Some(detector)) = (unattended, detector) {
            cluster.detect(&attempt.address, &attempt.queue, detector);
        }
    }

    /// Gives the broker that has just refused the message a moment before it is asked again. One that is busy has been
    /// given it already.
    pub(super) async fn pause_before(&mut self, attempt: &mut Attempt) -> Result<()> {
        let refused = self
            .last_error
            .as_ref()
            .is_some_and(|error| error.response().is_some() && !is_busy(error));
        if !refused || self.failed_broker.as_ref() != Some(&attempt.queue.broker_name) {
            return Ok(());
        }
        let until = Instant::now() + backoff(self.attempts, random());
        match self.last_error.take() {
            Some(error) if until >= self.deadline => return Err(error),
            _ => sleep_until(until).await,
        }
        attempt.started = until;
        attempt.deadline = self.attempt_deadline(attempt.alternatives, until);
        Ok(())
    }

    /// The final error, counted.
    pub(super) fn failed(&self, attempt: &Attempt, error: Error) -> Error {
        let took = self.begun.elapsed();
        attempt
            .meters
            .failed(self.prepared.messages(), took, error.kind());
        self.describe(attempt, error)
    }

    pub(super) fn describe(&self, attempt: &Attempt, error: Error) -> Error {
        let Attempt { queue, address, .. } = attempt;
        let persisted = worse(self.persisted, error.persisted());
        let (attempts, max) = (self.attempts, self.core.options.max_attempts);
        error
            .context(format_args!(
                "send to topic {}, queue {} on {} ({address}), attempt {attempts} of {max}",
                self.prepared.topic, queue.queue_id, queue.broker_name
            ))
            .with_persisted(persisted)
            .at(Arc::clone(&queue.broker_name))
            .after(attempts)
    }
}

/// Whether the broker cannot be relied on at the moment.
fn is_broken(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Timeout | ErrorKind::Connect | ErrorKind::Tls | ErrorKind::Protocol
    )
}

/// Whether the broker takes nothing at the moment, whatever it is.
fn is_busy(error: &Error) -> bool {
    matches!(
        error.response(),
        Some((ResponseCode::SYSTEM_BUSY | ResponseCode::SERVICE_NOT_AVAILABLE, _))
    )
}

fn worse(one: Persisted, other: Persisted) -> Persisted {
    match (one, other) {
        (Persisted::Yes, _) | (_, Persisted::Yes) => Persisted::Yes,
        (Persisted::Maybe, _) | (_, Persisted::Maybe) => Persisted::Maybe,
        _ => Persisted::No,
    }
}
