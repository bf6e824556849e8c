//! Suppliers: polled on a schedule, what they return is sent.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    bridge::OutputBinding,
    failure::{ErrorChain, Failure},
    function::{Poll, context::Context},
    layers::panic::catch,
    message::Message,
};

/// Pauses between attempts to send a supplied message.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A bound supplier.
pub(crate) struct Poller {
    pub(crate) poll: Poll,
    pub(crate) cx: Context,
    pub(crate) output: Arc<OutputBinding>,
    pub(crate) initial_delay: Duration,
    pub(crate) fixed_delay: Duration,
    pub(crate) max_messages_per_poll: u32,
}

impl Poller {
    /// Polls until told to stop. The delay runs from the end of one poll to the start of the next; a call or
    /// a send that runs when the stop comes may finish (the shutdown's bound cuts it off).
    pub(crate) async fn run(self, mut paused: watch::Receiver<bool>, stop: CancellationToken) {
        let mut pause = self.initial_delay;
        loop {
            let next = async {
                time::sleep(pause).await;
                // The sender lives as long as the application; without it nothing can resume.
                paused.wait_for(|paused| !paused).await.is_ok()
            };
            if stop.run_until_cancelled(next).await != Some(true) {
                return;
            }
            for _ in 0..self.max_messages_per_poll {
                if stop.is_cancelled() || !self.call(&stop).await {
                    break;
                }
            }
            pause = self.fixed_delay;
        }
    }

    /// Calls the supplier once; says whether it had something, so that an empty one ends the poll.
    async fn call(&self, stop: &CancellationToken) -> bool {
        let failure = match catch((self.poll)(&self.cx)).await {
            Ok(Ok(output)) => {
                let any = !output.is_empty();
                for message in output {
                    self.send(message, stop).await;
                }
                return any;
            }
            Ok(Err(failure)) => failure,
            Err(panic) => Failure::retry(panic),
        };
        let function: &str = &self.cx.function;
        let error = ErrorChain(&**failure.error());
        warn!(function, binding = &*self.output.name, %error, "supplier failed; it is polled again");
        false
    }

    /// Sends until it is stored. The supplier is not asked for more meanwhile, so nothing piles up; only a
    /// message that would be refused again, or a shutdown, gives up.
    async fn send(&self, message: Message, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(failed) = self.output.send(message.clone()).await else {
                return;
            };
            let function: &str = &self.cx.function;
            let (binding, persisted) = (&*self.output.name, failed.persisted());
            let error = ErrorChain(&failed).to_string();
            if !failed.is_retryable() {
                error!(function, binding, ?persisted, %error, "supplied message refused and dropped");
                return;
            }
            warn!(function, binding, ?persisted, ?pause, %error, "supplied message not sent; trying again");
            if stop.run_until_cancelled(time::sleep(pause)).await.is_none() {
                error!(
                    function,
                    binding,
                    ?persisted,
                    "supplied message not sent before the stop"
                );
                return;
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}
