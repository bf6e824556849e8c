//! Everything that happens later: pulls that wait for a message, delay levels. All of it hangs on one timer.

mod delay;
mod long_poll;
mod timer;

pub(crate) use self::delay::Delays;
pub(crate) use self::long_poll::{HeldPull, release};
pub(crate) use self::timer::{Timers, run as run_timers};
