//! When a message comes again whose handler has not said so: it failed, panicked or hung.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::error;

use super::builder::PushConsumerBuilder;
use super::outcome::Retry;
use crate::tasks::panic_text;

/// The answer of one consumer.
#[derive(Clone)]
pub(super) enum RetryPolicy {
    Always(Retry),
    ByAttempt(Arc<dyn Fn(u32) -> Retry + Send + Sync>),
}

impl RetryPolicy {
    /// When the message comes again whose delivery number `attempt`, from 1, has failed.
    pub(super) fn after(&self, attempt: u32) -> Retry {
        let policy = match self {
            Self::Always(retry) => return *retry,
            Self::ByAttempt(policy) => policy,
        };
        // It is the user's, and a panic here would end a worker.
        catch_unwind(AssertUnwindSafe(|| policy(attempt))).unwrap_or_else(|panic| {
            let panic = panic_text(&*panic);
            error!(attempt, panic, "the retry policy panicked, the broker decides");
            Retry::Broker
        })
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::Always(Retry::Broker)
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(retry) => retry.fmt(f),
            Self::ByAttempt(_) => f.write_str("ByAttempt"),
        }
    }
}

impl PushConsumerBuilder {
    /// When a message comes again whose handler failed, panicked or did not end in time, and a leased one that was
    /// dropped. Default [`Retry::Broker`]. A handler that says itself when ([`Outcome::Retry`](super::Outcome::Retry))
    /// is obeyed. Java: `delayLevelWhenNextConsume` of the context, whose default is the broker's choice; 3 after the
    /// consume timeout.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rocketmq_client::{Client, MessageView, Retry};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .retry(Retry::After(Duration::from_secs(30)))
    ///     .max_reconsume_times(5)
    ///     .start(|message: MessageView| async move { Err::<(), _>(format!("no luck with {message:?}")) })
    ///     .await?;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = RetryPolicy::Always(retry);
        self
    }

    /// As [`retry`](Self::retry), by the number of the delivery that failed, from 1. If the function panics, the broker
    /// decides.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rocketmq_client::{Client, Retry};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .retry_by_attempt(|attempt| match attempt {
    ///         1 => Retry::Level(1),
    ///         2..=5 => Retry::After(Duration::from_secs(60)),
    ///         _ => Retry::Exactly(Duration::from_secs(24 * 3600)),
    ///     });
    /// # drop(consumer);
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_by_attempt(mut self, policy: impl Fn(u32) -> Retry + Send + Sync + 'static) -> Self {
        self.options.retry = RetryPolicy::ByAttempt(Arc::new(policy));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_panics_leaves_it_to_the_broker() {
        let policy = RetryPolicy::ByAttempt(Arc::new(|attempt| match attempt {
            1 => Retry::Level(7),
            _ => panic!("on purpose"),
        }));
        assert_eq!(policy.after(1), Retry::Level(7));
        assert_eq!(policy.after(2), Retry::Broker);
        assert_eq!(RetryPolicy::default().after(1), Retry::Broker);
    }
}
