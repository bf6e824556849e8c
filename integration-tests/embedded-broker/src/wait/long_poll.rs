//! Pulls that found the end of their queue and wait for the next message.
//!
//! A pull waits in its queue, under the queue's own lock, so no message can arrive unseen. A matching message or the
//! timer takes it out and hands it to its connection, which runs it once more without waiting again. The answer is
//! made only there, when the connection can take it: a client that does not read costs no memory for answers.
//! Protocol source: `PullRequestHoldService`.

use std::sync::Arc;
use std::time::Duration;

use rocketmq_client::protocol::requests::PullMessage;
use tokio::time::Instant;

use super::timer::{Event, TimerKey};
use crate::broker::Broker;
use crate::server::{RequestHead, Session};
use crate::store::TagFilter;

/// The longest time that a pull is held, whatever the client asks for.
const MAX_SUSPEND: Duration = Duration::from_secs(300);

/// One pull that waits.
#[derive(Debug)]
pub(crate) struct HeldPull {
    pub(crate) id: u64,
    pub(crate) filter: TagFilter,
    pub(crate) head: RequestHead,
    pub(crate) request: Box<PullMessage>,
    session: Arc<Session>,
    timer: TimerKey,
}

impl HeldPull {
    /// Makes a pull wait, unless its connection has too many already.
    pub(crate) fn new(
        broker: &Broker,
        session: &Arc<Session>,
        head: RequestHead,
        request: &PullMessage,
        filter: &TagFilter,
    ) -> Option<Self> {
        if !session.take_hold() {
            return None;
        }
        let suspend = Duration::from_millis(u64::try_from(request.suspend_timeout_millis).unwrap_or(0));
        let id = broker.timers.next_id();
        let event = Event::PullTimeout {
            topic: Arc::from(request.topic.as_str()),
            queue_id: request.queue_id,
            id,
        };
        Some(Self {
            id,
            filter: filter.clone(),
            head,
            request: Box::new(request.clone()),
            session: Arc::clone(session),
            timer: broker
                .timers
                .set(Instant::now() + suspend.min(MAX_SUSPEND), event),
        })
    }
}

/// Hands pulls back to their connections, because of a message or because their topic is gone.
pub(crate) fn release(broker: &Broker, woken: Vec<HeldPull>) {
    for held in woken {
        broker.timers.cancel(held.timer);
        hand_back(held);
    }
}

pub(super) fn time_out(broker: &Broker, topic: &str, queue_id: i32, id: u64) {
    if let Some(held) = broker.store.take_waiting(topic, queue_id, id) {
        hand_back(held);
    }
}

fn hand_back(held: HeldPull) {
    let session = Arc::clone(&held.session);
    session.resume(held);
}
