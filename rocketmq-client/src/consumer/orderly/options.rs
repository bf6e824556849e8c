//! The settings of ordered consumption and their defaults.

use std::time::Duration;

use super::keys::KeyOf;
use crate::consumer::outcome::{GiveBack, Retry};
use crate::protocol::names::DELAY_LEVEL_SECONDS;

/// The shortest and the longest pause of a lane. Java: `submitConsumeRequestLater`.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));

/// How often a message of one key is tried again unless said otherwise.
const KEYED_TIMES: i32 = 16;

/// What becomes of a message that failed as often as it may, where order is kept: see
/// [`PushConsumerBuilder::poison`](crate::PushConsumerBuilder::poison).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poison {
    /// It becomes a dead letter (`%DLQ%<group>`). What follows it goes on once a broker has taken it.
    #[default]
    DeadLetter,
    /// It goes back to the broker, which delivers it again later, after what follows it: delivery before order. After
    /// 16 such rounds, or as many as
    /// [`max_reconsume_times`](crate::PushConsumerBuilder::max_reconsume_times) says, it becomes a dead letter.
    GiveBack,
    /// It is left out and only logged and counted: lost to the group.
    Skip,
}

impl Poison {
    /// What the broker has to be told.
    pub(super) fn give_back(self) -> Option<GiveBack> {
        match self {
            Self::DeadLetter => Some(GiveBack::Dead),
            Self::GiveBack => Some(GiveBack::Later(0)),
            Self::Skip => None,
        }
    }
}

/// Of what the order is kept.
#[derive(Clone, Debug)]
pub(in crate::consumer) enum OrderedBy {
    Queue,
    Key(KeyOf),
}

/// See the setters of [`PushConsumerBuilder`](crate::PushConsumerBuilder).
#[derive(Clone, Debug)]
pub(in crate::consumer) struct OrderOptions {
    /// Absent if no order is kept.
    pub(in crate::consumer) by: Option<OrderedBy>,
    /// How long a lane pauses after a failure.
    pub(in crate::consumer) suspend: Duration,
    /// How often a message is tried again in its place, if that was set.
    pub(in crate::consumer) times: Option<i32>,
    pub(in crate::consumer) poison: Poison,
}

impl Default for OrderOptions {
    fn default() -> Self {
        Self {
            by: None,
            suspend: Duration::from_secs(1),
            times: None,
            poison: Poison::default(),
        }
    }
}

impl OrderOptions {
    /// How often a message is tried again before it is poison.
    pub(super) fn times(&self) -> i32 {
        match (self.times, &self.by) {
            (Some(times), _) => times,
            (None, Some(OrderedBy::Key(_))) => KEYED_TIMES,
            (None, _) => i32::MAX,
        }
    }

    /// How long a lane pauses before its first message is tried again.
    pub(super) fn pause(&self, retry: Retry) -> Duration {
        let pause = match retry {
            Retry::Broker => self.suspend,
            Retry::Level(level) => {
                let index = usize::from(level).saturating_sub(1);
                let seconds = DELAY_LEVEL_SECONDS.get(index).copied();
                seconds.map_or(PAUSES.1, Duration::from_secs)
            }
            Retry::After(delay) | Retry::Exactly(delay) => delay,
        };
        pause.clamp(PAUSES.0, PAUSES.1)
    }

    /// What is wrong with them, each with the setter's name.
    pub(in crate::consumer) fn faults(&self) -> Option<String> {
        let (min, max) = PAUSES;
        (!(min..=max).contains(&self.suspend)).then(|| {
            format!(
                "suspend_time is {:?}, it has to be from {min:?} to {max:?}",
                self.suspend
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_one_asked_for_within_bounds() {
        let options = OrderOptions {
            suspend: Duration::from_millis(700),
            ..OrderOptions::default()
        };
        for (retry, pause) in [
            (Retry::Broker, Duration::from_millis(700)),
            (Retry::Level(0), Duration::from_secs(1)),
            (Retry::Level(2), Duration::from_secs(5)),
            (Retry::Level(18), Duration::from_secs(30)),
            (Retry::Level(200), Duration::from_secs(30)),
            (Retry::After(Duration::ZERO), Duration::from_millis(10)),
            (Retry::After(Duration::from_secs(2)), Duration::from_secs(2)),
            (Retry::After(Duration::from_secs(3600)), Duration::from_secs(30)),
        ] {
            assert_eq!(options.pause(retry), pause, "{retry:?}");
        }
    }

    #[test]
    fn queues_try_without_end_and_keys_sixteen_times_unless_told_otherwise() {
        let mut options = OrderOptions {
            by: Some(OrderedBy::Queue),
            ..OrderOptions::default()
        };
        assert_eq!(options.times(), i32::MAX);
        options.by = Some(OrderedBy::Key(KeyOf::sharding_key()));
        assert_eq!(options.times(), 16);
        options.times = Some(3);
        assert_eq!(options.times(), 3);
    }
}
