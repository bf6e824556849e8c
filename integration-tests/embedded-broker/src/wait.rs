//! Everything that happens later: pulls and pops that wait for a message, popped messages that come back, delay levels, delivery times, half messages whose
//! producers are asked, replies on their way to who waits for them, questions that only members can answer. All of it
//! hangs on one timer.

mod delay;
mod half;
mod long_poll;
pub(crate) mod pop;
mod relay;
mod reply;
mod timer;
mod wheel;

use rocketmq_client::protocol::Frame;

use crate::broker::Broker;
use crate::server::Session;

pub(crate) use self::delay::Delays;
pub(crate) use self::half::{Halves, immunity};
pub(crate) use self::long_poll::{HeldPull, release};
pub(crate) use self::pop::{HeldPop, Polls};
pub(crate) use self::relay::{Asker, Relays, gather, member_is_gone, question, relay};
pub(crate) use self::reply::{PendingReply, Replies, requester_is_gone};
pub(crate) use self::timer::{Timers, run as run_timers};
pub(crate) use self::wheel::Wheel;

/// A client has answered a request of the broker.
pub(crate) fn answered(broker: &Broker, session: &Session, frame: &Frame) {
    reply::answered(broker, session, frame);
    relay::answered(broker, session, frame);
}
