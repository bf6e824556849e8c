//! What a handler's work led to: acknowledged, to be retried, rejected or skipped.

use std::{error::Error, fmt, time::Duration};

/// Any error that can travel between tasks.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// A failed delivery, and what shall happen to the message.
///
/// Every `std::error::Error` becomes [`Failure::Retry`] through `?`; the other three are chosen by name:
///
/// ```
/// # use std::time::Duration;
/// use stream_binder::{Failure, Text};
///
/// async fn orders(Text(text): Text) -> Result<(), Failure> {
///     let amount: u64 = text.parse()?;                                 // retried, later dead-lettered
///     match amount {
///         0 => Err(Failure::reject("an order of nothing")),            // dead-lettered now
///         1 => Err(Failure::skip("too small to bother")),              // acknowledged, logged
///         2 => Err(Failure::retry_in(Duration::from_secs(10), "shop closed")),
///         _ => Ok(()),
///     }
/// }
/// ```
///
/// It is not itself a `std::error::Error`: that is what makes the conversion of all others possible.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Deliver again, when the broker's policy says so.
    Retry(BoxError),
    /// Deliver again after about this time. A broker with delay levels rounds up to the next level.
    RetryIn(Duration, BoxError),
    /// Deliver again after the broker's delay level 1 to 18.
    RetryLevel(u8, BoxError),
    /// Never deliver again: the message goes to the dead letters now.
    Reject(BoxError),
    /// Never deliver again and do not keep: acknowledged, with a log line.
    Skip(BoxError),
}

impl Failure {
    /// Deliver again when the broker's policy says so. The text or error says why.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self::Retry(error.into())
    }

    /// Deliver again after about `delay`.
    pub fn retry_in(delay: Duration, error: impl Into<BoxError>) -> Self {
        Self::RetryIn(delay, error.into())
    }

    /// Deliver again after the broker's delay level, 1 to 18.
    pub fn retry_level(level: u8, error: impl Into<BoxError>) -> Self {
        Self::RetryLevel(level, error.into())
    }

    /// Send the message to the dead letters now.
    pub fn reject(error: impl Into<BoxError>) -> Self {
        Self::Reject(error.into())
    }

    /// Acknowledge the message although it was not handled.
    pub fn skip(error: impl Into<BoxError>) -> Self {
        Self::Skip(error.into())
    }

    /// Why the delivery failed.
    #[must_use]
    pub fn error(&self) -> &BoxError {
        match self {
            Self::Retry(error)
            | Self::RetryIn(_, error)
            | Self::RetryLevel(_, error)
            | Self::Reject(error)
            | Self::Skip(error) => error,
        }
    }

    /// Whether the message shall be delivered again.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        matches!(self, Self::Retry(_) | Self::RetryIn(..) | Self::RetryLevel(..))
    }
}

/// Everything that is an error asks for another attempt.
impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Retry(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ErrorChain(&**self.error()))
    }
}

/// What a handler's service answers for one delivery.
#[derive(Debug)]
#[must_use = "an outcome decides whether the message is acknowledged"]
#[non_exhaustive]
pub enum Outcome {
    /// Handled.
    Ack,
    /// Not handled; the failure says what is next.
    Failed(Failure),
}

/// What a binder does with a message, read off an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Done with it.
    Ack,
    /// Deliver again.
    Retry(RetryDelay),
    /// To the dead letters.
    Reject,
}

/// When a retried message comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryDelay {
    /// As the broker or the binding's policy decides.
    Broker,
    /// At the broker's delay level.
    Level(u8),
    /// After this time.
    After(Duration),
}

impl Outcome {
    /// Whether the message is done with and nothing failed.
    #[must_use]
    pub fn is_ack(&self) -> bool {
        matches!(self, Self::Ack)
    }

    /// What the binder has to do with the message.
    #[must_use]
    pub fn settlement(&self) -> Settlement {
        match self {
            Self::Ack | Self::Failed(Failure::Skip(_)) => Settlement::Ack,
            Self::Failed(Failure::Retry(_)) => Settlement::Retry(RetryDelay::Broker),
            Self::Failed(Failure::RetryIn(delay, _)) => Settlement::Retry(RetryDelay::After(*delay)),
            Self::Failed(Failure::RetryLevel(level, _)) => Settlement::Retry(RetryDelay::Level(*level)),
            Self::Failed(Failure::Reject(_)) => Settlement::Reject,
        }
    }

    /// Why it failed, `None` when it did not.
    #[must_use]
    pub fn error(&self) -> Option<&BoxError> {
        match self {
            Self::Ack => None,
            Self::Failed(failure) => Some(failure.error()),
        }
    }
}

impl From<Result<(), Failure>> for Outcome {
    fn from(result: Result<(), Failure>) -> Self {
        match result {
            Ok(()) => Self::Ack,
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Prints an error with all its causes: `a: b: c`. A cause that is already told is left out.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.contains(&text) {
                told.push_str(": ");
                told.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_asks_for_a_retry() {
        fn parse(text: &str) -> Result<u32, Failure> {
            Ok(text.parse::<u32>()?)
        }
        let failure = parse("x").unwrap_err();
        assert!(failure.is_retry());
        assert_eq!(failure.to_string(), "invalid digit found in string");
    }

    #[test]
    fn a_chain_tells_each_cause_once() {
        #[derive(Debug)]
        struct Told(&'static str, Option<Box<Self>>);
        impl fmt::Display for Told {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        impl Error for Told {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.1.as_deref().map(|cause| cause as _)
            }
        }
        let refused = || Box::new(Told("refused", None));
        let dial = Told("cannot dial", Some(refused()));
        assert_eq!(ErrorChain(&dial).to_string(), "cannot dial: refused");
        let dial = Told("cannot dial: refused", Some(refused()));
        assert_eq!(ErrorChain(&dial).to_string(), "cannot dial: refused");
    }

    #[test]
    fn each_failure_settles_as_its_name_says() {
        let second = Duration::from_secs(1);
        let cases = [
            (Failure::retry("x"), Settlement::Retry(RetryDelay::Broker)),
            (
                Failure::retry_in(second, "x"),
                Settlement::Retry(RetryDelay::After(second)),
            ),
            (
                Failure::retry_level(3, "x"),
                Settlement::Retry(RetryDelay::Level(3)),
            ),
            (Failure::reject("x"), Settlement::Reject),
            (Failure::skip("x"), Settlement::Ack),
        ];
        for (failure, expected) in cases {
            assert_eq!(Outcome::Failed(failure).settlement(), expected);
        }
        assert_eq!(Outcome::Ack.settlement(), Settlement::Ack);
    }
}
