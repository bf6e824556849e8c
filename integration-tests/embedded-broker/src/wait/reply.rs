//! Replies on their way: the broker passes a reply on to the client that waits for it, and answers the replier only
//! when that client has confirmed it, is gone, or has said nothing for ten seconds.
//!
//! Protocol source: `ReplyMessageProcessor`, `Broker2Client#callClient`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rocketmq_client::protocol::{Frame, ResponseCode};
use tokio::time::Instant;

use super::timer::{Event, TimerKey};
use crate::broker::Broker;
use crate::families;
use crate::lock::lock;
use crate::server::{Reply, RequestHead, Session};
use crate::store::Appended;

/// How long a requester may take to confirm a reply.
const CONFIRM: Duration = Duration::from_secs(10);
/// How many replies may be on their way.
const MAX_PENDING: usize = 16 * 1024;

/// A reply that its requester has not confirmed.
#[derive(Debug)]
pub(crate) struct PendingReply {
    /// Who sent the reply and waits for the answer.
    pub(crate) replier: Arc<Session>,
    pub(crate) head: RequestHead,
    /// The client that it is for.
    pub(crate) requester: String,
    pub(crate) queue_id: i32,
    /// Where the reply was stored, if replies are.
    pub(crate) stored: Option<Appended>,
}

/// All replies on their way, by the requester's connection and the number of the request that carries them.
#[derive(Debug, Default)]
pub(crate) struct Replies(Mutex<HashMap<(u64, i32), (PendingReply, TimerKey)>>);

impl Replies {
    /// Waits for the confirmation. Gives the reply back if too many are waited for.
    pub(crate) fn wait(
        broker: &Broker,
        requester: &Session,
        opaque: i32,
        pending: PendingReply,
    ) -> Result<(), PendingReply> {
        let session = requester.id();
        let mut replies = lock(&broker.replies.0);
        if replies.len() >= MAX_PENDING {
            return Err(pending);
        }
        let event = Event::ReplyTimeout { session, opaque };
        let timer = broker.timers.set(Instant::now() + CONFIRM, event);
        replies.insert((session, opaque), (pending, timer));
        Ok(())
    }

    /// Takes a reply back that could not be passed on.
    pub(crate) fn take(broker: &Broker, session: u64, opaque: i32) -> Option<PendingReply> {
        let (pending, timer) = lock(&broker.replies.0).remove(&(session, opaque))?;
        broker.timers.cancel(timer);
        Some(pending)
    }

    /// Forgets all: their connections are gone.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// A client has answered a request of the broker, perhaps one of these.
pub(super) fn answered(broker: &Broker, session: &Session, frame: &Frame) {
    if let Some(pending) = Replies::take(broker, session.id(), frame.opaque) {
        finish(broker, &pending, frame.code == ResponseCode::SUCCESS.0);
    }
}

/// A connection is closed: what was on its way to it does not arrive.
pub(crate) fn requester_is_gone(broker: &Broker, session: u64) {
    let opaques: Vec<_> = lock(&broker.replies.0)
        .keys()
        .filter(|(to, _)| *to == session)
        .map(|(_, opaque)| *opaque)
        .collect();
    for opaque in opaques {
        time_out(broker, session, opaque);
    }
}

pub(super) fn time_out(broker: &Broker, session: u64, opaque: i32) {
    if let Some(pending) = Replies::take(broker, session, opaque) {
        finish(broker, &pending, false);
    }
}

/// Answers the replier.
fn finish(broker: &Broker, pending: &PendingReply, confirmed: bool) {
    let mut out = BytesMut::new();
    families::answer_reply(broker, pending, confirmed, Reply::new(pending.head, &mut out));
    // A replier that is gone wants no answer.
    pending.replier.push(out.freeze());
}
