//! One question to many brokers: all answers, and of those that failed, why.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::tasks::join_all;

/// How many brokers are asked at a time.
const AT_A_TIME: usize = 16;

/// Runs a job for each place and collects the outcomes by its name.
pub(super) async fn for_each<P, T, F>(
    places: Vec<P>,
    name: impl Fn(&P) -> String + Send + Sync,
    job: impl Fn(P) -> F + Send + Sync,
) -> PerBroker<T>
where
    P: Send,
    T: Send,
    F: Future<Output = Result<T>> + Send,
{
    let names: Vec<_> = places.iter().map(name).collect();
    let room = &Semaphore::new(AT_A_TIME);
    let outcomes = join_all(places.into_iter().map(|place| {
        let work = job(place);
        async move {
            // Never closed, so there is always a permit some time.
            let _permit = room.acquire().await;
            work.await
        }
    }))
    .await;
    let mut all = PerBroker::default();
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome {
            Ok(answer) => drop(all.answers.insert(name, answer)),
            Err(error) => drop(all.failures.insert(name, error)),
        }
    }
    all
}

/// What each broker (or name server) answered, and why others did not.
///
/// A broker that failed does not hide the answers of the others, and is not hidden by them: take
/// [`complete`](Self::complete) where all of them count.
#[derive(Clone, Debug)]
#[must_use = "some brokers may have failed"]
pub struct PerBroker<T> {
    answers: BTreeMap<String, T>,
    failures: BTreeMap<String, Error>,
}

impl<T> Default for PerBroker<T> {
    fn default() -> Self {
        Self {
            answers: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl<T> PerBroker<T> {
    /// The answers by the name of the broker; of name servers, by their address.
    pub fn answers(&self) -> &BTreeMap<String, T> {
        &self.answers
    }

    /// Why the others did not answer.
    pub fn failures(&self) -> &BTreeMap<String, Error> {
        &self.failures
    }

    /// The answer of one broker.
    pub fn get(&self, broker: &str) -> Option<&T> {
        self.answers.get(broker)
    }

    /// The answers, if nobody failed.
    ///
    /// # Errors
    /// That of the first broker that failed, with the names of all that did and of all that did not; its
    /// [`source`](std::error::Error::source) is a [`PartialFailure`].
    pub fn complete(self) -> Result<BTreeMap<String, T>> {
        match PartialFailure::of(&self) {
            None => Ok(self.answers),
            Some(failure) => Err(failure.into_error()),
        }
    }

    /// Changes the answers.
    pub(super) fn map<U>(self, change: impl Fn(T) -> U) -> PerBroker<U> {
        let answers = self.answers.into_iter();
        PerBroker {
            answers: answers.map(|(name, answer)| (name, change(answer))).collect(),
            failures: self.failures,
        }
    }

    /// One value made of all answers.
    ///
    /// # Errors
    /// As [`complete`](Self::complete), if there is no answer at all.
    pub(super) fn merge<U: Default>(self, mut add: impl FnMut(&mut U, T)) -> Result<Merged<U>> {
        if self.answers.is_empty()
            && let Some(failure) = PartialFailure::of(&self)
        {
            return Err(failure.into_error());
        }
        let mut value = U::default();
        for answer in self.answers.into_values() {
            add(&mut value, answer);
        }
        Ok(Merged {
            value,
            failures: self.failures,
        })
    }

    /// Counts a failure that says "there is none here" as no answer, unless nobody has another one.
    pub(super) fn without(mut self, absent: impl Fn(&Error) -> bool) -> Self {
        let kept: BTreeMap<_, _> = self
            .failures
            .iter()
            .filter(|(_, error)| !absent(error))
            .map(|(name, error)| (name.clone(), error.clone()))
            .collect();
        if !(self.answers.is_empty() && kept.is_empty()) {
            self.failures = kept;
        }
        self
    }

    /// Puts what was being done before the texts of all failures.
    pub(super) fn context(mut self, what: impl fmt::Display) -> Self {
        let failures = std::mem::take(&mut self.failures);
        self.failures = failures
            .into_iter()
            .map(|(name, error)| (name, error.context(&what)))
            .collect();
        self
    }
}

impl PerBroker<()> {
    /// For what is done rather than asked.
    pub(super) fn done(self) -> Result<()> {
        self.complete().map(drop)
    }
}

/// One value made of the answers of several brokers; it dereferences to the value.
#[derive(Clone, Debug)]
#[must_use = "some brokers may have failed"]
pub struct Merged<T> {
    value: T,
    failures: BTreeMap<String, Error>,
}

impl<T> Merged<T> {
    /// Why some brokers have no part in the value.
    pub fn failures(&self) -> &BTreeMap<String, Error> {
        &self.failures
    }

    /// The value as far as it is known.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The value, if every broker has a part in it.
    ///
    /// # Errors
    /// As [`PerBroker::complete`].
    pub fn complete(self) -> Result<T> {
        let failure = PartialFailure {
            done: Vec::new(),
            failures: self.failures,
        };
        match failure.failures.is_empty() {
            true => Ok(self.value),
            false => Err(failure.into_error()),
        }
    }
}

impl<T> Deref for Merged<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Which brokers failed, and which did what was asked: the [`source`](std::error::Error::source) of an error of an
/// operation on several brokers.
#[derive(Clone, Debug)]
pub struct PartialFailure {
    done: Vec<String>,
    failures: BTreeMap<String, Error>,
}

impl PartialFailure {
    fn of<T>(all: &PerBroker<T>) -> Option<Self> {
        (!all.failures.is_empty()).then(|| Self {
            done: all.answers.keys().cloned().collect(),
            failures: all.failures.clone(),
        })
    }

    /// The brokers that did it.
    #[must_use]
    pub fn done(&self) -> &[String] {
        &self.done
    }

    /// The brokers that did not, and why.
    #[must_use]
    pub fn failures(&self) -> &BTreeMap<String, Error> {
        &self.failures
    }

    fn into_error(self) -> Error {
        let Some(first) = self.failures.values().next().cloned() else {
            return Error::config("no broker failed");
        };
        if self.failures.len() == 1 && self.done.is_empty() {
            return first;
        }
        first
            .context(format_args!(
                "failed on {}, done on {}",
                names(self.failures.keys()),
                names(self.done.iter())
            ))
            .caused_by(self)
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(String::as_str).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

impl fmt::Display for PartialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, error)) in self.failures.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PartialFailure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn two(first: Result<i32>, second: Result<i32>) -> PerBroker<i32> {
        let mut all = PerBroker::default();
        for (name, outcome) in [("broker-a", first), ("broker-b", second)] {
            match outcome {
                Ok(answer) => drop(all.answers.insert(name.to_owned(), answer)),
                Err(error) => drop(all.failures.insert(name.to_owned(), error)),
            }
        }
        all
    }

    fn timeout() -> Error {
        Error::new(ErrorKind::Timeout, "no reply")
    }

    #[test]
    fn a_broker_that_failed_is_named_beside_those_that_did_it() {
        let error = two(Ok(1), Err(timeout())).complete().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.to_string(),
            "failed on broker-b, done on broker-a: no reply"
        );
        let source = std::error::Error::source(&error).unwrap();
        let failure = source.downcast_ref::<PartialFailure>().unwrap();
        assert_eq!(failure.done(), ["broker-a"]);
        assert_eq!(failure.to_string(), "broker-b: no reply");
    }

    #[test]
    fn what_others_answered_is_merged_and_the_failure_stays_visible() {
        let merged = two(Ok(1), Err(timeout()))
            .merge(|sum: &mut i32, answer| *sum += answer)
            .unwrap();
        assert_eq!((*merged, merged.failures().len()), (1, 1));
        assert_eq!(merged.complete().unwrap_err().kind(), ErrorKind::Timeout);
        assert!(
            two(Err(timeout()), Err(timeout()))
                .merge(|sum: &mut i32, answer| *sum += answer)
                .is_err()
        );
    }

    #[test]
    fn absence_is_a_failure_only_where_it_is_so_everywhere() {
        let absent = |error: &Error| error.kind() == ErrorKind::TopicNotFound;
        let gone = || Error::new(ErrorKind::TopicNotFound, "gone");
        assert!(two(Ok(1), Err(gone())).without(absent).complete().is_ok());
        assert_eq!(two(Err(gone()), Err(gone())).without(absent).failures().len(), 2);
        let mixed = two(Err(gone()), Err(timeout())).without(absent);
        assert_eq!(mixed.complete().unwrap_err().kind(), ErrorKind::Timeout);
    }
}
