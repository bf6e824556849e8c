//! What a pull loop does when a pull fails, or brings something that cannot be read.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::received::Damaged;
use super::remote::Remote;
use crate::error::{Error, ErrorKind};
use crate::protocol::ResponseCode;
use crate::protocol::bodies::MessageQueue;
use crate::transport::{backoff, random};

/// The wait after the broker said "flow control" (215). Java: `PULL_TIME_DELAY_MILLS_WHEN_BROKER_FLOW_CONTROL`.
const FLOW_CONTROL: Duration = Duration::from_millis(20);

/// How often a message that cannot be read is pulled again before it is given up: the damage may be on the way.
const DAMAGED_TRIES: u32 = 3;

/// Does what can be done about a pull that failed, and waits as long as the error asks for. `failures` is how many
/// failed in a row, this one included.
pub(super) async fn recover(remote: &Remote, queue: &MessageQueue, failures: u32, error: &Error) {
    let group = remote.group();
    let mut wait = backoff(failures, random());
    match error.response().map(|(code, _)| code) {
        Some(ResponseCode::FLOW_CONTROL) => {
            debug!(%group, %queue, "the broker asks for less");
            // The first one is nothing unusual.
            wait = if failures == 1 { FLOW_CONTROL } else { wait };
        }
        // The broker was restarted, or has not seen the newest heartbeat yet.
        Some(
            ResponseCode::SUBSCRIPTION_NOT_EXIST
            | ResponseCode::SUBSCRIPTION_NOT_LATEST
            | ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
        ) => {
            info!(%group, %queue, %error, "the broker does not know the subscription, sending it again");
            tell_again(remote).await;
        }
        _ => {
            // A line for each doubling: a broker that is away for an hour does not fill a disk.
            if failures.is_power_of_two() {
                warn!(%group, %queue, failures, %error, "a pull failed, trying again");
            }
            if error.kind() == ErrorKind::Connect && failures.is_power_of_two() {
                // The broker may have come back somewhere else.
                remote.refresh(&queue.topic).await;
            }
            if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Auth) {
                // Somebody has to do something about it: asking every second is enough to notice.
                wait *= 5;
            }
        }
    }
    sleep(wait).await;
}

/// Tells the brokers who is here, unless that was done a moment ago.
pub(super) async fn tell_again(remote: &Remote) {
    if let Some(refused) = remote.heartbeat().await {
        error!(group = %remote.group(), %refused, "brokers refuse this consumer, it is not served until somebody permits it");
    }
}

/// A message that cannot be read is pulled again a few times, then it becomes a dead letter. Gives the offset behind
/// it if it was given up; else it is to be pulled again, from `offset` on, and the wait before that is over.
///
/// `tries` is how often in a row a message could not be read.
pub(super) async fn give_up_or_wait(
    remote: &Remote,
    queue: &MessageQueue,
    offset: i64,
    max_reconsume_times: i32,
    tries: &mut u32,
    damaged: Damaged,
) -> Option<i64> {
    let group = remote.group();
    *tries = tries.saturating_add(1);
    let Damaged { error, place } = damaged;
    if *tries >= DAMAGED_TRIES {
        // Only a place inside what was asked for is believed.
        let place = place.filter(|&(found, physical)| found >= offset && physical >= 0);
        if let Some((queue_offset, physical_offset)) = place {
            let given_up = remote
                .dead_letter(queue, physical_offset, max_reconsume_times)
                .await;
            match given_up {
                Ok(()) => {
                    error!(
                        %group, %queue, offset = queue_offset, %error,
                        "a message cannot be read, it is a dead letter now"
                    );
                    *tries = 0;
                    return Some(queue_offset.saturating_add(1));
                }
                Err(refused) => {
                    warn!(%group, %queue, %refused, "the broker cannot take the message");
                }
            }
        }
    }
    error!(%group, %queue, offset, %error, tries, "a message cannot be read, pulling it again");
    sleep(backoff(*tries, random())).await;
    None
}
