//! One delivery through one function: attempts, panic isolation, outputs, log lines.

use std::{fmt, sync::Arc};

use tokio::time;
use tracing::{Instrument, Span, info, info_span, warn};

use crate::{
    bridge::OutputBinding,
    delivery::Delivery,
    failure::{ErrorChain, Failure, Outcome},
    function::{Invoke, context::Context, output::Output},
    headers::names,
    layers::{panic::catch, retry::LocalRetry},
};

/// Everything between the binder and a user's function, without user layers.
pub(crate) struct Pipeline {
    pub(crate) invoke: Invoke,
    pub(crate) cx: Context,
    pub(crate) output: Option<Arc<OutputBinding>>,
    pub(crate) retry: LocalRetry,
}

impl Pipeline {
    /// Calls the function until it succeeds, fails for good, or the local attempts are used up.
    pub(crate) async fn run(&self, mut delivery: Delivery) -> Outcome {
        let mut attempt = 1;
        loop {
            let span = self.span(&delivery);
            let failure = match catch(self.attempt(&delivery).instrument(span)).await {
                Ok(Ok(())) => return Outcome::Ack,
                Ok(Err(failure)) => failure,
                Err(panic) => Failure::retry(panic),
            };
            self.log(&delivery, &failure);
            let pause = if failure.is_retry() {
                self.retry.pause_after(attempt)
            } else {
                None
            };
            let Some(pause) = pause else {
                return Outcome::Failed(failure);
            };
            time::sleep(pause).await;
            attempt += 1;
            delivery.meta_mut().set_local_attempt(attempt);
        }
    }

    /// What the function logs is tied to the message by this span.
    fn span(&self, delivery: &Delivery) -> Span {
        let meta = delivery.meta();
        let (function, topic, message_id) = (&*self.cx.function, meta.topic(), meta.message_id());
        info_span!("process", function, topic, message_id, attempt = meta.attempt())
    }

    /// Outputs are stored and confirmed before the input can be acknowledged: a crash in between repeats the
    /// input, it never loses an output.
    async fn attempt(&self, delivery: &Delivery) -> Result<(), Failure> {
        let output = (self.invoke)(delivery, &self.cx).await?;
        if output.is_empty() {
            return Ok(());
        }
        self.send(delivery, output).await
    }

    async fn send(&self, delivery: &Delivery, output: Output) -> Result<(), Failure> {
        let Some(binding) = &self.output else {
            return Ok(());
        };
        for mut message in output {
            for name in names::INHERITED {
                if let Some(value) = delivery.headers().get(name) {
                    message.inherit(name, value);
                }
            }
            if let Err(error) = binding.send(message).await {
                return Err(if error.is_retryable() {
                    Failure::retry(error)
                } else {
                    Failure::reject(error)
                });
            }
        }
        Ok(())
    }

    fn log(&self, delivery: &Delivery, failure: &Failure) {
        let meta = delivery.meta();
        let error = ErrorChain(&**failure.error());
        let next = match failure {
            Failure::Retry(_) | Failure::RetryIn(..) | Failure::RetryLevel(..) => "retry",
            Failure::Reject(_) => "dead letter",
            Failure::Skip(_) => "skipped",
        };
        let function: &str = &self.cx.function;
        let (binding, message_id, attempt) = (meta.binding(), meta.message_id(), meta.attempt());
        let local_attempt = meta.local_attempt();
        if matches!(failure, Failure::Skip(_)) {
            info!(function, binding, message_id, attempt, local_attempt, next, %error, "delivery skipped");
        } else {
            warn!(function, binding, message_id, attempt, local_attempt, next, %error, "delivery failed");
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("function", &self.cx.function)
            .finish_non_exhaustive()
    }
}
