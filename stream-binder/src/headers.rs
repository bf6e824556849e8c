//! Headers of a message: the names Spring uses, and a compact map.
//!
//! A header is a RocketMQ user property: text to text. The names below are those of the Java binder
//! (`RocketMQConst`), so a Java and a Rust service read each other's messages.

use std::{fmt, str::FromStr};

use crate::failure::BoxError;

/// Names of headers with a meaning, spelled as the Java binder spells them.
pub mod names {
    /// Media type of the payload. Written on every message that has one.
    pub const CONTENT_TYPE: &str = "contentType";
    /// Outgoing: the message's tag.
    pub const TAGS: &str = "TAGS";
    /// Outgoing: the message's keys, separated by blanks.
    pub const KEYS: &str = "KEYS";
    /// Outgoing: delay level, 1 to 18 on a broker with the standard table.
    pub const DELAY: &str = "DELAY";
    /// Outgoing: an application flag, a 32-bit number.
    pub const MQ_FLAG: &str = "MQ_FLAG";
    /// Outgoing: delay in whole seconds (brokers 5.0 and later).
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    /// Outgoing: delay in milliseconds (brokers 5.0 and later).
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";

    /// Incoming: tag. Outgoing: used when `TAGS` is absent.
    pub const ROCKET_TAGS: &str = "ROCKET_TAGS";
    /// Incoming: keys. Outgoing: used when `KEYS` is absent.
    pub const ROCKET_KEYS: &str = "ROCKET_KEYS";
    /// Incoming: application flag. Outgoing: used when `MQ_FLAG` is absent.
    pub const ROCKET_MQ_FLAG: &str = "ROCKET_MQ_FLAG";
    /// Outgoing: used when `DELAY` is absent.
    pub const ROCKET_DELAY: &str = "ROCKET_DELAY";
    /// Incoming: topic.
    pub const ROCKET_MQ_TOPIC: &str = "ROCKET_MQ_TOPIC";
    /// Incoming: message id given by the producer.
    pub const ROCKET_MQ_MESSAGE_ID: &str = "ROCKET_MQ_MESSAGE_ID";
    /// Incoming: when the producer made the message, milliseconds since 1970.
    pub const ROCKET_MQ_BORN_TIMESTAMP: &str = "ROCKET_MQ_BORN_TIMESTAMP";
    /// Incoming: host of the producer, without port.
    pub const ROCKET_MQ_BORN_HOST: &str = "ROCKET_MQ_BORN_HOST";
    /// Incoming: queue id.
    pub const ROCKET_MQ_QUEUE_ID: &str = "ROCKET_MQ_QUEUE_ID";

    /// On a dead letter of the memory binder: why the last attempt failed.
    pub const DEAD_LETTER_REASON: &str = "deadLetterReason";
    /// On a dead letter of the memory binder: how often it was delivered.
    pub const DEAD_LETTER_ATTEMPTS: &str = "deadLetterAttempts";
    /// On a dead letter of the memory binder: the topic from which it comes.
    pub const DEAD_LETTER_TOPIC: &str = "deadLetterTopic";

    /// Copied from a function's input to its outputs: ties a reaction to its cause.
    pub const CORRELATION_ID: &str = "correlationId";

    /// Headers that a function's outputs inherit from its input when they do not set them: correlation and
    /// W3C trace context. Everything else stays with the input (the Java binder copies all of them and so
    /// leaks tags, keys and the source topic into the output).
    pub const INHERITED: [&str; 4] = [CORRELATION_ID, "traceparent", "tracestate", "baggage"];
}

/// Text headers of one message, in the order in which they were set.
///
/// Names are compared exactly, as the broker does. All texts share one buffer, so a message with many headers
/// costs two allocations and one without headers costs none. A message carries few headers; looking one up
/// is a scan.
///
/// ```
/// let mut headers = stream_binder::Headers::new();
/// headers.insert("colour", "red");
/// headers.insert("price", "7");
/// assert_eq!(headers.get("colour"), Some("red"));
/// assert_eq!(headers.parse::<u32>("price").unwrap(), Some(7));
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    text: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    middle: usize,
    end: usize,
}

impl Headers {
    /// An empty set; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: String::new(),
            entries: Vec::new(),
        }
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether `name` is present.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The value of `name` as a `T`, `None` when the header is absent.
    ///
    /// # Errors
    /// [`HeaderError`] when the value is present and is no `T`.
    pub fn parse<T>(&self, name: &str) -> Result<Option<T>, HeaderError>
    where
        T: FromStr,
        T::Err: Into<BoxError>,
    {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value
                .parse()
                .map(Some)
                .map_err(|e: T::Err| HeaderError::unreadable(name, value, e)),
        }
    }

    /// Sets `name`, replacing an earlier value.
    pub fn insert(&mut self, name: &str, value: &str) {
        self.remove(name);
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        self.text.push_str(value);
        self.entries.push(Entry {
            start,
            middle,
            end: self.text.len(),
        });
    }

    /// Removes `name`; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(at) = self.iter().position(|(key, _)| key == name) else {
            return false;
        };
        self.entries.remove(at);
        if self.entries.is_empty() {
            self.text.clear();
        }
        true
    }

    /// Number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| {
            let name = self.text.get(entry.start..entry.middle).unwrap_or_default();
            let value = self.text.get(entry.middle..entry.end).unwrap_or_default();
            (name, value)
        })
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Equal when both hold the same names with the same values, whatever the order.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl Eq for Headers {}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        headers.extend(pairs);
        headers
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Extend<(K, V)> for Headers {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (name, value) in pairs {
            self.insert(name.as_ref(), value.as_ref());
        }
    }
}

/// A header that is missing or cannot be read.
#[derive(Debug)]
pub struct HeaderError {
    text: String,
    source: Option<BoxError>,
}

impl HeaderError {
    pub(crate) fn missing(name: &str) -> Self {
        Self {
            text: format!("header `{name}` is missing; the producer has to set it"),
            source: None,
        }
    }

    pub(crate) fn unreadable(name: &str, value: &str, error: impl Into<BoxError>) -> Self {
        Self {
            text: format!("header `{name}` has the unreadable value {value:?}"),
            source: Some(error.into()),
        }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HeaderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_set_twice_keeps_the_last_value() {
        let mut headers: Headers = [("a", "1"), ("b", "2")].into_iter().collect();
        headers.insert("a", "3");
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.get("a"), Some("3"));
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("b", "2"), ("a", "3")]);
    }

    #[test]
    fn a_removed_header_is_gone_and_the_others_stay() {
        let mut headers: Headers = [("a", "1"), ("ü", "grüße"), ("c", "")].into_iter().collect();
        assert!(headers.remove("a"));
        assert!(!headers.remove("a"));
        assert_eq!(headers.get("ü"), Some("grüße"));
        assert_eq!(headers.get("c"), Some(""));
    }

    #[test]
    fn an_unreadable_value_names_the_header_and_the_value() {
        let headers: Headers = [("price", "cheap")].into_iter().collect();
        let error = headers.parse::<u32>("price").unwrap_err();
        assert_eq!(
            error.to_string(),
            "header `price` has the unreadable value \"cheap\""
        );
        assert!(headers.parse::<u32>("absent").unwrap().is_none());
    }
}
