//! What a handler's work led to, and what that means for the broker.
//!
//! Protocol source: `ConsumeMessageConcurrentlyService`, `DefaultMQPushConsumerImpl#sendMessageBack`.

use std::time::Duration;

use crate::protocol::names::DELAY_LEVEL_SECONDS;

/// Any error that a handler may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The highest delay level; brokers read higher ones as this.
const MAX_LEVEL: u8 = 18;

/// What a handler decided about a message.
#[derive(Debug)]
#[must_use = "an outcome decides whether the message is acknowledged"]
pub enum Outcome {
    /// Done: the message is not delivered to the group again.
    Ack,
    /// Not done: the group gets the message again, later. After the maximum of retries it becomes a dead letter.
    Retry(Retry),
    /// Never to be delivered again: the message goes to the group's dead-letter topic (`%DLQ%<group>`) at once. The
    /// error says why, for the log.
    Reject(BoxError),
}

/// When a message comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// As the broker decides: after 10 s, 30 s, 1 m, 2 m, .. 1 h, 2 h, longer with each attempt.
    #[default]
    Broker,
    /// After the broker's delay level 1 to 18 (1 s, 5 s, 10 s, 30 s, 1 m .. 10 m, 20 m, 30 m, 1 h, 2 h unless the
    /// broker is configured otherwise). 0 is read as 1, everything above 18 as 18.
    Level(u8),
    /// After this time, rounded up to the next delay level of a broker with default levels; at most 2 h.
    After(Duration),
    /// After this time, to the second, also where that is longer than the levels go: up to 3 days unless the broker is
    /// configured otherwise. Brokers before 5.0, and those that refuse it (a longer time, timers switched off), do as
    /// with [`After`](Self::After).
    ///
    /// It costs more than the others: no broker can time a message that is given back to it, so the client sends a
    /// copy, with its body, to the retry topic. A broker cuts due times to whole seconds: the message may come up to
    /// one second early.
    Exactly(Duration),
}

impl Retry {
    /// The delay level on the wire; 0 leaves it to the broker.
    pub(super) fn delay_level(self) -> i32 {
        match self {
            Self::Broker => 0,
            Self::Level(level) => i32::from(level.clamp(1, MAX_LEVEL)),
            Self::After(delay) | Self::Exactly(delay) => level_of(delay),
        }
    }
}

/// The first level that is no shorter than this.
fn level_of(delay: Duration) -> i32 {
    let shorter = DELAY_LEVEL_SECONDS
        .iter()
        .take_while(|&&seconds| Duration::from_secs(seconds) < delay)
        .count();
    let level = u8::try_from(shorter + 1).map_or(MAX_LEVEL, |level| level.min(MAX_LEVEL));
    i32::from(level)
}

impl From<Retry> for Outcome {
    fn from(retry: Retry) -> Self {
        Self::Retry(retry)
    }
}

/// What a handler may return.
///
/// `()` and [`Outcome`] say it plainly. Of a `Result`, an error of any kind means that the delivery failed: it is
/// logged and the message comes again as the consumer's [`retry`](super::PushConsumerBuilder::retry) says.
pub trait IntoOutcome {
    /// The decision, or why there is none.
    ///
    /// # Errors
    /// The handler's own error: a failed delivery.
    fn into_outcome(self) -> Result<Outcome, BoxError>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<Outcome, BoxError> {
        Ok(Outcome::Ack)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Result<Outcome, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<Outcome, BoxError> {
        self.map(|()| Outcome::Ack).map_err(Into::into)
    }
}

impl<E: Into<BoxError>> IntoOutcome for Result<Outcome, E> {
    fn into_outcome(self) -> Result<Outcome, BoxError> {
        self.map_err(Into::into)
    }
}

/// What has to be told to the broker about a message that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveBack {
    /// Deliver it again after this delay level; 0 leaves it to the broker.
    Later(i32),
    /// Deliver it again after this time, if the broker can.
    Timed(Duration),
    /// It is dead.
    Dead,
}

impl From<Retry> for GiveBack {
    fn from(retry: Retry) -> Self {
        match retry {
            Retry::Exactly(delay) => Self::Timed(delay),
            retry => Self::Later(retry.delay_level()),
        }
    }
}

impl GiveBack {
    /// The delay level of a send-back request.
    pub(super) fn delay_level(self) -> i32 {
        match self {
            Self::Later(level) => level,
            Self::Timed(delay) => level_of(delay),
            Self::Dead => -1,
        }
    }

    /// The delay level of a copy that the client itself sends to the retry topic: there the broker's own choice has
    /// to be spelled out. `reconsume_times` counts the retries so far.
    pub(super) fn explicit_level(self, reconsume_times: i32) -> i32 {
        match self {
            Self::Later(0) => reconsume_times.max(0).saturating_add(3).min(i32::from(MAX_LEVEL)),
            Self::Later(level) => level,
            Self::Timed(delay) => level_of(delay),
            Self::Dead => 0,
        }
    }

    /// The number of retries that a copy carries: what makes the broker call it dead is one above the maximum.
    pub(super) fn next_reconsume_times(self, reconsume_times: i32, max_reconsume_times: i32) -> i32 {
        match self {
            Self::Later(_) | Self::Timed(_) => reconsume_times.max(0).saturating_add(1),
            Self::Dead => max_reconsume_times.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_handler_returns_becomes_an_outcome() {
        assert!(matches!(().into_outcome(), Ok(Outcome::Ack)));
        assert!(matches!(Ok::<(), BoxError>(()).into_outcome(), Ok(Outcome::Ack)));
        assert!(matches!(
            Ok::<_, BoxError>(Outcome::Retry(Retry::Level(3))).into_outcome(),
            Ok(Outcome::Retry(Retry::Level(3)))
        ));
        assert!(matches!(
            Outcome::Reject("no".into()).into_outcome(),
            Ok(Outcome::Reject(_))
        ));
        let error = Err::<(), _>("disk full").into_outcome().unwrap_err();
        assert_eq!(error.to_string(), "disk full");
        assert!(
            Err::<Outcome, _>(std::io::Error::other("x"))
                .into_outcome()
                .is_err()
        );
    }

    #[test]
    fn delays_round_up_to_the_next_level() {
        for (retry, level) in [
            (Retry::Broker, 0),
            (Retry::Level(0), 1),
            (Retry::Level(7), 7),
            (Retry::Level(200), 18),
            (Retry::After(Duration::ZERO), 1),
            (Retry::After(Duration::from_secs(1)), 1),
            (Retry::After(Duration::from_millis(1001)), 2),
            (Retry::After(Duration::from_secs(60)), 5),
            (Retry::After(Duration::from_secs(7200)), 18),
            (Retry::After(Duration::from_secs(999_999)), 18),
            (Retry::Exactly(Duration::from_secs(61)), 6),
        ] {
            assert_eq!(retry.delay_level(), level, "{retry:?}");
        }
    }

    #[test]
    fn a_copy_for_the_retry_topic_has_the_level_the_broker_would_choose() {
        assert_eq!(GiveBack::Later(0).delay_level(), 0);
        assert_eq!(GiveBack::Dead.delay_level(), -1);
        for (times, level) in [(0, 3), (1, 4), (15, 18), (i32::MAX, 18), (-5, 3)] {
            assert_eq!(GiveBack::Later(0).explicit_level(times), level);
        }
        assert_eq!(GiveBack::Later(5).explicit_level(9), 5);
        assert_eq!(
            GiveBack::from(Retry::Exactly(Duration::from_secs(7))).explicit_level(9),
            3
        );
        assert_eq!(GiveBack::from(Retry::Level(7)), GiveBack::Later(7));
        assert_eq!(GiveBack::Later(0).next_reconsume_times(2, 16), 3);
        assert_eq!(GiveBack::Dead.next_reconsume_times(2, 16), 17);
    }
}
