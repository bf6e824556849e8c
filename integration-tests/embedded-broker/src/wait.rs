//! Everything that happens later: pulls that wait for a message, delay levels, half messages whose producers are asked,
//! replies on their way to who waits for them. All of it hangs on one timer.

mod delay;
mod half;
mod long_poll;
mod reply;
mod timer;

pub(crate) use self::delay::Delays;
pub(crate) use self::half::{Halves, immunity};
pub(crate) use self::long_poll::{HeldPull, release};
pub(crate) use self::reply::{PendingReply, Replies, answered, requester_is_gone};
pub(crate) use self::timer::{Timers, run as run_timers};
