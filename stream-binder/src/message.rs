//! An outgoing message, and what can become one.

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    failure::BoxError,
    headers::{Headers, names},
};

/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// Media type of text that Rust sends.
pub(crate) const TEXT: &str = "text/plain;charset=UTF-8";
/// Media type of plain bytes.
pub(crate) const OCTETS: &str = "application/octet-stream";

/// A message to be sent: payload, tag, keys, delay and headers.
///
/// ```
/// use std::time::Duration;
/// use stream_binder::Message;
///
/// let message = Message::json(&serde_json::json!({"id": 42}))?
///     .tag("vip")
///     .key("42")
///     .delay(Duration::from_secs(5))
///     .header("colour", "red");
/// assert_eq!(message.media_type(), Some("application/json"));
/// # Ok::<(), stream_binder::EncodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    payload: Bytes,
    content_type: Option<Cow<'static, str>>,
    tag: Option<String>,
    keys: Option<String>,
    delay: Option<Delay>,
    flag: i32,
    headers: Headers,
    // A reserved header with an unreadable value: reported when the message is sent.
    invalid: Option<String>,
}

/// When a message becomes visible to consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delay {
    /// The broker's delay level, 1 to 18 with the standard table (1 = 1 s, 2 = 5 s, 3 = 10 s, ..).
    Level(u8),
    /// About this long after the broker stored it. Needs a broker of version 5.0 or later.
    After(Duration),
}

impl Message {
    /// A message of plain bytes with no stated media type.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            content_type: None,
            tag: None,
            keys: None,
            delay: None,
            flag: 0,
            headers: Headers::new(),
            invalid: None,
        }
    }

    /// `value` as JSON, `application/json`.
    ///
    /// # Errors
    /// [`EncodeError`] when the value cannot be written as JSON (for instance a map whose keys are no text).
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, EncodeError> {
        let bytes = serde_json::to_vec(value).map_err(EncodeError::json::<T>)?;
        Ok(Self::new(bytes).content_type_static(JSON))
    }

    /// Text as it is, `text/plain;charset=UTF-8`. (A Spring producer quotes text as JSON; use
    /// [`json`](Self::json) to do the same.)
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(text.into()).content_type_static(TEXT)
    }

    /// Bytes as they are, `application/octet-stream`.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes).content_type_static(OCTETS)
    }

    pub(crate) fn content_type_static(mut self, media_type: &'static str) -> Self {
        self.content_type = Some(Cow::Borrowed(media_type));
        self
    }

    /// States the media type (header `contentType`).
    #[must_use]
    pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
        self.content_type = Some(Cow::Owned(media_type.into()));
        self
    }

    /// The tag, one per message.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = non_blank(tag.into());
        self
    }

    /// Adds one key by which the broker's index finds the message. A key holds no blank: RocketMQ separates
    /// keys by blanks.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        let key = key.as_ref().trim();
        if !key.is_empty() {
            match &mut self.keys {
                None => self.keys = Some(key.to_owned()),
                Some(keys) => {
                    keys.push(' ');
                    keys.push_str(key);
                }
            }
        }
        self
    }

    /// Delivers after the broker's delay level, 1 to 18 with the standard table.
    #[must_use]
    pub fn delay_level(mut self, level: u8) -> Self {
        self.delay = (level > 0).then_some(Delay::Level(level));
        self
    }

    /// Delivers about `delay` after the broker stored it. Needs a broker of version 5.0 or later.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = (!delay.is_zero()).then_some(Delay::After(delay));
        self
    }

    /// An application flag that consumers see.
    #[must_use]
    pub fn flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Sets a header. The names of the Java binder act as they do there: `TAGS`, `KEYS`, `DELAY`, `MQ_FLAG`
    /// and `contentType` set the corresponding field, `ROCKET_TAGS`, `ROCKET_KEYS`, `ROCKET_DELAY` and
    /// `ROCKET_MQ_FLAG` do so where the field is still empty; `TIMER_DELAY_SEC` and `TIMER_DELAY_MS` set the
    /// delay. Blank values are left out. A delay or flag that is no number makes the send fail (the Java
    /// binder sends at once and says nothing).
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.set_header(name.as_ref(), value.as_ref());
        self
    }

    /// Sets several headers, each as by [`header`](Self::header).
    #[must_use]
    pub fn headers<K: AsRef<str>, V: AsRef<str>>(
        mut self,
        headers: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        for (name, value) in headers {
            self.set_header(name.as_ref(), value.as_ref());
        }
        self
    }

    fn set_header(&mut self, name: &str, value: &str) {
        let text = value.trim();
        if text.is_empty() {
            return;
        }
        match name {
            names::CONTENT_TYPE => self.content_type = Some(Cow::Owned(text.to_owned())),
            names::TAGS => self.tag = Some(text.to_owned()),
            names::KEYS => self.keys = Some(text.to_owned()),
            names::DELAY => self.number(name, text, |message, level| message.delay = level_of(level)),
            names::MQ_FLAG => self.number(name, text, |message, flag| message.flag = flag),
            names::TIMER_DELAY_SEC => {
                self.number(name, text, |message, s: u64| {
                    message.delay = after(Duration::from_secs(s));
                });
            }
            names::TIMER_DELAY_MS => {
                self.number(name, text, |message, ms: u64| {
                    message.delay = after(Duration::from_millis(ms));
                });
            }
            names::ROCKET_TAGS => {
                self.tag.get_or_insert_with(|| text.to_owned());
            }
            names::ROCKET_KEYS => {
                self.keys.get_or_insert_with(|| text.to_owned());
            }
            names::ROCKET_DELAY if self.delay.is_none() => {
                self.number(name, text, |message, level| message.delay = level_of(level));
            }
            names::ROCKET_MQ_FLAG if self.flag == 0 => {
                self.number(name, text, |message, flag| message.flag = flag);
            }
            names::ROCKET_DELAY | names::ROCKET_MQ_FLAG => {}
            _ => self.headers.insert(name, value),
        }
    }

    fn number<N: std::str::FromStr>(&mut self, name: &str, text: &str, apply: impl FnOnce(&mut Self, N)) {
        match text.parse() {
            Ok(number) => apply(self, number),
            Err(_) => {
                self.invalid.get_or_insert_with(|| {
                    format!("header `{name}` is {text:?}: it must be a whole number in range")
                });
            }
        }
    }

    /// The body.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The stated media type.
    #[must_use]
    pub fn media_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The tag.
    #[must_use]
    pub fn tags(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The keys, separated by blanks.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.keys.as_deref()
    }

    /// The delay.
    #[must_use]
    pub fn delayed(&self) -> Option<Delay> {
        self.delay
    }

    /// The application flag.
    #[must_use]
    pub fn mq_flag(&self) -> i32 {
        self.flag
    }

    /// Headers that become user properties, without `contentType` (see [`media_type`](Self::media_type)).
    #[must_use]
    pub fn user_headers(&self) -> &Headers {
        &self.headers
    }

    /// The message unless one of its headers cannot be honoured.
    ///
    /// # Errors
    /// [`EncodeError`] that names the header and its value.
    pub(crate) fn checked(mut self) -> Result<Self, EncodeError> {
        match self.invalid.take() {
            None => Ok(self),
            Some(text) => Err(EncodeError { text, source: None }),
        }
    }

    /// Takes over `name` from a function's input where the message does not set it.
    pub(crate) fn inherit(&mut self, name: &str, value: &str) {
        if !self.headers.contains(name) {
            self.headers.insert(name, value);
        }
    }

    /// Gives the media type where none is stated.
    pub(crate) fn default_content_type(&mut self, media_type: &str) {
        if self.content_type.is_none() {
            self.content_type = Some(Cow::Owned(media_type.to_owned()));
        }
    }
}

fn non_blank(text: String) -> Option<String> {
    (!text.trim().is_empty()).then_some(text)
}

fn level_of(level: u8) -> Option<Delay> {
    (level > 0).then_some(Delay::Level(level))
}

fn after(delay: Duration) -> Option<Delay> {
    (!delay.is_zero()).then_some(Delay::After(delay))
}

/// A value that cannot be made a message.
#[derive(Debug)]
pub struct EncodeError {
    text: String,
    source: Option<BoxError>,
}

impl EncodeError {
    pub(crate) fn json<T: ?Sized>(error: serde_json::Error) -> Self {
        let text = format!("cannot write `{}` as JSON", std::any::type_name::<T>());
        Self {
            text,
            source: Some(error.into()),
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_java_binders_header_names_set_fields_and_no_properties() {
        let message = Message::new("x")
            .header("TAGS", "vip")
            .header("KEYS", "a b")
            .header("DELAY", "2")
            .header("MQ_FLAG", "7")
            .header("contentType", "text/csv")
            .header("blank", " ")
            .header("colour", "red");
        assert_eq!(message.tags(), Some("vip"));
        assert_eq!(message.keys(), Some("a b"));
        assert_eq!(message.delayed(), Some(Delay::Level(2)));
        assert_eq!(message.mq_flag(), 7);
        assert_eq!(message.media_type(), Some("text/csv"));
        assert_eq!(
            message.user_headers().iter().collect::<Vec<_>>(),
            [("colour", "red")]
        );
    }

    #[test]
    fn the_rocket_names_only_fill_what_is_empty() {
        let message = Message::new("x")
            .tag("mine")
            .header("ROCKET_TAGS", "theirs")
            .header("ROCKET_KEYS", "k");
        assert_eq!(message.tags(), Some("mine"));
        assert_eq!(message.keys(), Some("k"));
        assert!(message.user_headers().is_empty());
    }

    #[test]
    fn a_delay_that_is_no_number_is_an_error_and_not_an_immediate_send() {
        let error = Message::new("x").header("DELAY", "soon").checked().unwrap_err();
        assert_eq!(
            error.to_string(),
            "header `DELAY` is \"soon\": it must be a whole number in range"
        );
        assert!(
            Message::new("x")
                .header("DELAY", "0")
                .checked()
                .unwrap()
                .delayed()
                .is_none()
        );
    }

    #[test]
    fn timer_headers_are_honoured() {
        let message = Message::new("x").header("TIMER_DELAY_MS", "1500");
        assert_eq!(message.delayed(), Some(Delay::After(Duration::from_millis(1500))));
    }

    #[test]
    fn keys_are_joined_by_blanks() {
        assert_eq!(Message::new("x").key("a").key(" ").key("b").keys(), Some("a b"));
    }
}
