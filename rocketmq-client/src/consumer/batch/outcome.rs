//! What a handler decided about the messages of a batch.

use crate::consumer::handler::Fault;
use crate::consumer::outcome::{BoxError, Outcome, Retry};

/// What a handler decided about the messages of a batch, which it got in the order of their offsets.
#[derive(Debug)]
#[must_use = "an outcome decides whether the messages are acknowledged"]
#[non_exhaustive]
pub enum BatchOutcome {
    /// All are done with. Java: `CONSUME_SUCCESS`.
    Ack,
    /// Those before this index are done with, the others come again. An index of 0 means all of them, one behind the
    /// last none. Java: `ackIndex`, which names the last one that is done with, and `delayLevelWhenNextConsume`.
    RetryFrom(usize, Retry),
    /// An outcome for each message, in their order. A message without one counts as failed.
    Each(Vec<Outcome>),
}

impl BatchOutcome {
    /// The messages before this index are done with, the others come again, when the broker decides.
    pub const fn retry_from(index: usize) -> Self {
        Self::RetryFrom(index, Retry::Broker)
    }

    /// All messages come again. Java: `RECONSUME_LATER`.
    pub const fn retry_all(retry: Retry) -> Self {
        Self::RetryFrom(0, retry)
    }

    /// An outcome for each message, in their order.
    pub fn each(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        Self::Each(outcomes.into_iter().collect())
    }

    /// The outcome of each of so many messages.
    pub(super) fn of_each(self, messages: usize) -> Vec<Result<Outcome, Fault>> {
        match self {
            Self::Ack => (0..messages).map(|_| Ok(Outcome::Ack)).collect(),
            Self::RetryFrom(index, retry) => {
                let outcome = |at| if at < index { Outcome::Ack } else { retry.into() };
                (0..messages).map(|at| Ok(outcome(at))).collect()
            }
            Self::Each(outcomes) => {
                let missing = || {
                    Err(Fault::Failed(
                        "the handler gave no outcome for this message".into(),
                    ))
                };
                let mut outcomes = outcomes.into_iter().map(Ok);
                (0..messages)
                    .map(|_| outcomes.next().unwrap_or_else(missing))
                    .collect()
            }
        }
    }
}

/// What a handler of batches may return.
///
/// `()` acknowledges all. Of a `Result`, an error of any kind means that the delivery of all messages failed: it is
/// logged and they come again as the consumer's [`retry`](crate::PushConsumerBuilder::retry) says.
pub trait IntoBatchOutcome {
    /// The decision, or why there is none.
    ///
    /// # Errors
    /// The handler's own error: a failed delivery of all messages.
    fn into_batch_outcome(self) -> Result<BatchOutcome, BoxError>;
}

impl IntoBatchOutcome for () {
    fn into_batch_outcome(self) -> Result<BatchOutcome, BoxError> {
        Ok(BatchOutcome::Ack)
    }
}

impl IntoBatchOutcome for BatchOutcome {
    fn into_batch_outcome(self) -> Result<BatchOutcome, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError>> IntoBatchOutcome for Result<(), E> {
    fn into_batch_outcome(self) -> Result<BatchOutcome, BoxError> {
        self.map(|()| BatchOutcome::Ack).map_err(Into::into)
    }
}

impl<E: Into<BoxError>> IntoBatchOutcome for Result<BatchOutcome, E> {
    fn into_batch_outcome(self) -> Result<BatchOutcome, BoxError> {
        self.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(outcome: BatchOutcome, messages: usize) -> String {
        let letter = |outcome: Result<Outcome, Fault>| match outcome {
            Ok(Outcome::Ack) => 'a',
            Ok(Outcome::Retry(_)) => 'r',
            Ok(Outcome::Reject(_)) => 'x',
            Err(_) => 'f',
        };
        outcome.of_each(messages).into_iter().map(letter).collect()
    }

    #[test]
    fn each_message_gets_its_outcome() {
        let each =
            || BatchOutcome::each([Outcome::Ack, Outcome::Reject("no".into()), Retry::Level(1).into()]);
        for (outcome, wanted) in [
            (BatchOutcome::Ack, "aaa"),
            (BatchOutcome::retry_from(0), "rrr"),
            (BatchOutcome::retry_from(2), "aar"),
            (BatchOutcome::retry_from(3), "aaa"),
            (BatchOutcome::retry_from(99), "aaa"),
            (BatchOutcome::retry_all(Retry::Level(2)), "rrr"),
            (each(), "axr"),
        ] {
            let text = format!("{outcome:?}");
            assert_eq!(letters(outcome, 3), wanted, "{text}");
        }
        assert_eq!(
            letters(each(), 4),
            "axrf",
            "a message without an outcome has failed"
        );
        assert_eq!(letters(each(), 2), "ax");
    }

    #[test]
    fn what_a_handler_returns_becomes_an_outcome() {
        assert!(matches!(().into_batch_outcome(), Ok(BatchOutcome::Ack)));
        assert!(matches!(
            Ok::<(), BoxError>(()).into_batch_outcome(),
            Ok(BatchOutcome::Ack)
        ));
        assert!(matches!(
            Ok::<_, BoxError>(BatchOutcome::retry_from(1)).into_batch_outcome(),
            Ok(BatchOutcome::RetryFrom(1, Retry::Broker))
        ));
        let error = Err::<(), _>("disk full").into_batch_outcome().unwrap_err();
        assert_eq!(error.to_string(), "disk full");
    }
}
