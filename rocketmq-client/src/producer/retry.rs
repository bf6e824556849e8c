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

    /// Notes a failed attempt. Gives the final error if no other attempt may follow; waits where trying at once would
    /// only make it worse.
    pub(super) async fn after_failure(&mut self, attempt: &Attempt, error: Error) -> Result<()> {
        self.persisted = worse(self.persisted, error.persisted());
        let broken = matches!(
            error.kind(),
            ErrorKind::Timeout | ErrorKind::Connect | ErrorKind::Tls | ErrorKind::Protocol
        );
        let cluster = &self.core.cluster;
        if broken {
            cluster.remoting().pool().suspect(&attempt.address, AVOIDED);
        }
        let code = error.response().map(|(code, _)| code);
        let retried = match code {
            // Java tries again; the answer would be the same, from this broker and from the others.
            _ if error.kind() == ErrorKind::Auth => false,
            Some(code) => self.core.options.retry_codes.contains(&code) || SendStatus::of(code).is_some(),
            // A success that cannot be read is a success: trying again would duplicate the message.
            None => broken && error.persisted() != Persisted::Yes,
        };
        if broken || code == Some(ResponseCode::TOPIC_NOT_EXIST) || code == Some(ResponseCode::NO_PERMISSION)
        {
            cluster.refresh_route_soon(&self.prepared.topic);
        }
        if !retried || !self.may_retry() {
            return Err(self.describe(attempt, error));
        }
        debug!(topic = self.prepared.topic, attempt = self.attempts, %error, "a send is tried again");
        self.failed_broker = Some(Arc::clone(&attempt.queue.broker_name));
        if error.response().is_some() && !attempt.alternatives {
            // The same broker again: give it a moment.
            let pause = backoff(self.attempts, random());
            let until = Instant::now() + pause;
            if until >= self.deadline {
                return Err(self.describe(attempt, error));
            }
            sleep_until(until).await;
        }
        Ok(())
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

fn worse(one: Persisted, other: Persisted) -> Persisted {
    match (one, other) {
        (Persisted::Yes, _) | (_, Persisted::Yes) => Persisted::Yes,
        (Persisted::Maybe, _) | (_, Persisted::Maybe) => Persisted::Maybe,
        _ => Persisted::No,
    }
}
