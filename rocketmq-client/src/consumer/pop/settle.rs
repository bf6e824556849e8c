//! A popped message at a worker: it is started as long as it is this member's, and then the broker is told what became
//! of it.
//!
//! Protocol source: `ConsumeMessagePopConcurrentlyService`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Pop;
use super::acks::Ack;
use super::leases::{Lease, Popping, Start};
use crate::consumer::engine::{Counters, Engine};
use crate::consumer::outcome::GiveBack;
use crate::consumer::process_queue::ProcessQueue;
use crate::message::MessageView;
use crate::protocol::names::DELAY_LEVEL_SECONDS;
use crate::transport::{backoff, random};

/// After how many seconds a message comes again that failed, by the number of its deliveries so far. Java:
/// `DefaultMQPushConsumerImpl#popDelayLevel`.
const RETRY_SECONDS: [u64; 16] = [
    10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// How often it is tried to give a message back before it is left to its invisible time.
const TRIES: u32 = 3;

impl Engine {
    /// Whether a handler may be called with a message that was taken; one that was pulled always. Otherwise the message
    /// is out of the process queue.
    pub(in crate::consumer) fn starts(&self, process: &ProcessQueue, number: u64) -> bool {
        let Some(popping) = process.popping() else {
            return true;
        };
        let start = popping.start(number);
        if start == Start::Over
            && let Some(pop) = &self.pop
        {
            Counters::add(&pop.counters.skipped, 1);
            info!(group = %self.group, queue = %process.queue, "the invisible time of a message was over before its turn came, it comes again");
        }
        if start != Start::Yes {
            process.finish(number);
        }
        start == Start::Yes
    }

    /// Carries out what was decided about a popped message; `None` is an acknowledgement.
    pub(in crate::consumer) async fn settle_popped(
        &self,
        process: &Arc<ProcessQueue>,
        popping: &Popping,
        number: u64,
        message: &MessageView,
        decision: Option<GiveBack>,
    ) {
        let (Some(lease), Some(pop)) = (popping.take(number).await, &self.pop) else {
            process.finish(number);
            return;
        };
        let acknowledge = match decision {
            None => {
                Counters::add(&self.counters.acknowledged, 1);
                true
            }
            Some(_) if self.is_abandoned() => return,
            Some(give_back) => self.give_back_popped(message, &lease, give_back, pop).await,
        };
        if acknowledge {
            let process = Arc::clone(process);
            pop.acks.push(Ack {
                lease,
                process,
                number,
            });
        } else {
            process.finish(number);
        }
    }

    /// Lets a message come again, or makes it a dead letter: then it is to be acknowledged.
    async fn give_back_popped(
        &self,
        message: &MessageView,
        lease: &Lease,
        give_back: GiveBack,
        pop: &Pop,
    ) -> bool {
        let is_last = message.reconsume_times() >= self.options.max_reconsume_times;
        if is_last || give_back == GiveBack::Dead {
            if self.give_back(message, GiveBack::Dead).await {
                return true;
            }
            Counters::add(&self.counters.not_given_back, 1);
        }
        let delay = retry_delay(give_back, message.reconsume_times());
        for failures in 1..=TRIES {
            match self.remote.change_invisible(&lease.receipt, delay).await {
                Ok(_) => {
                    debug!(group = %self.group, ?message, ?delay, "gave the message back");
                    return false;
                }
                Err(error) if failures < TRIES && error.is_retryable() && !lease.is_over() => {
                    sleep(backoff(failures, random())).await;
                }
                Err(error) => {
                    warn!(group = %self.group, ?message, %error, "the message could not be given back, it comes again when its time is over");
                    break;
                }
            }
        }
        Counters::add(&pop.counters.unconfirmed, 1);
        false
    }
}

/// When a message comes again.
fn retry_delay(give_back: GiveBack, reconsume_times: i32) -> Duration {
    let seconds = match give_back {
        GiveBack::Timed(delay) => return delay,
        GiveBack::Later(level) if level > 0 => {
            let index = usize::try_from(level - 1).unwrap_or(0);
            DELAY_LEVEL_SECONDS.get(index).or(DELAY_LEVEL_SECONDS.last())
        }
        GiveBack::Later(_) | GiveBack::Dead => {
            let times = usize::try_from(reconsume_times).unwrap_or(0);
            RETRY_SECONDS.get(times).or(RETRY_SECONDS.last())
        }
    };
    Duration::from_secs(seconds.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_message_waits_longer_each_time() {
        for (times, seconds) in [(-1, 10), (0, 10), (1, 30), (15, 7200), (99, 7200)] {
            let delay = retry_delay(GiveBack::Later(0), times);
            assert_eq!(delay, Duration::from_secs(seconds), "{times}");
        }
        assert_eq!(retry_delay(GiveBack::Dead, 2), Duration::from_secs(60));
    }

    #[test]
    fn what_the_handler_asks_for_is_obeyed() {
        assert_eq!(retry_delay(GiveBack::Later(1), 9), Duration::from_secs(1));
        assert_eq!(retry_delay(GiveBack::Later(5), 0), Duration::from_secs(60));
        assert_eq!(retry_delay(GiveBack::Later(99), 0), Duration::from_secs(7200));
        let exactly = Duration::from_millis(1500);
        assert_eq!(retry_delay(GiveBack::Timed(exactly), 7), exactly);
    }
}
