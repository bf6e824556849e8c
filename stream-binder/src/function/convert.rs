//! Payload to value, by media type, including what Spring producers write.
//!
//! The media type is the message's `contentType`, else the binding's `content-type`, else JSON; that is
//! Spring's order. Three habits of Spring producers matter here:
//! - text goes out as a JSON string, with quotes, and is labelled `application/json`, or even `text/plain`
//!   when the binding says so;
//! - text that already looks like JSON may go out unquoted;
//! - a byte array goes out as base64 in a JSON string.

use std::{borrow::Cow, fmt, str::Utf8Error};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};

use crate::{failure::Failure, message};

/// The families of media types that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Json,
    Text,
    Octets,
    Unknown,
}

impl Family {
    /// Parameters (`;charset=..`) and letter case do not matter.
    pub(crate) fn of(media_type: &str) -> Self {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case(message::JSON) {
            return Self::Json;
        }
        let lower = essence.to_ascii_lowercase();
        match lower.split_once('/') {
            Some((_, sub)) if sub == "json" || sub.ends_with("+json") => Self::Json,
            Some(("text", sub)) if !sub.is_empty() => Self::Text,
            Some(_) if lower == message::OCTETS => Self::Octets,
            _ => Self::Unknown,
        }
    }
}

/// A payload that cannot be read as the type that the function asks for. Becomes [`Failure::Reject`]: the
/// same bytes would fail again.
#[derive(Debug)]
pub struct DecodeError {
    text: String,
    source: Option<crate::BoxError>,
}

impl DecodeError {
    fn new<T: ?Sized>(what: impl fmt::Display, body: &[u8], source: Option<crate::BoxError>) -> Self {
        let wanted = std::any::type_name::<T>();
        Self {
            text: format!("payload is no `{wanted}` {what}; it starts with {}", Start(body)),
            source,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        let DecodeError { mut text, source } = error;
        if let Some(source) = source {
            text = format!("{text}: {source}");
        }
        Self::Reject(text.into())
    }
}

/// The first bytes of a body, for an error text.
struct Start<'a>(&'a [u8]);

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        let shown = self.0.get(..SHOWN).unwrap_or(self.0);
        let more = if self.0.len() > shown.len() { ".." } else { "" };
        write!(f, "\"{}{more}\"", shown.escape_ascii())
    }
}

/// JSON, whatever the media type says.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|e| DecodeError::new::<T>("in JSON", body, Some(e.into())))
}

/// By media type. JSON and text that fit no `T` as they are get a second look as plain text, so that a
/// `Payload<String>` reads text that a producer labelled as JSON without quoting it.
pub(crate) fn payload<T: DeserializeOwned>(media_type: &str, body: &[u8]) -> Result<T, DecodeError> {
    match Family::of(media_type) {
        Family::Json => json_or_text(body),
        // `42` and `true` are readable text; what is no JSON is a string.
        Family::Text => json_or_text(body),
        Family::Octets => T::deserialize(value::BytesDeserializer::<value::Error>::new(body))
            .or_else(|_| json_or_text(body)),
        Family::Unknown => {
            let what = format!("because the content type `{media_type}` has no decoder");
            Err(DecodeError::new::<T>(what, body, None))
        }
    }
}

fn json_or_text<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let error = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let as_text = std::str::from_utf8(body)
        .ok()
        .and_then(|text| T::deserialize(IntoDeserializer::<value::Error>::into_deserializer(text)).ok());
    as_text.ok_or_else(|| DecodeError::new::<T>("in JSON", body, Some(error.into())))
}

/// Text: a JSON string loses its quotes unless the message says `text/..` and is not quoted at all.
pub(crate) fn text(body: &[u8]) -> Result<String, DecodeError> {
    let plain = std::str::from_utf8(body).map_err(not_utf8(body))?;
    Ok(unquoted(plain).map_or_else(|| plain.to_owned(), Cow::into_owned))
}

fn not_utf8(body: &[u8]) -> impl FnOnce(Utf8Error) -> DecodeError {
    move |error| DecodeError::new::<str>("in UTF-8", body, Some(error.into()))
}

/// The content of a JSON string, `None` when `text` is not one whole JSON string.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let trimmed = text.trim();
    if !(trimmed.len() >= 2 && trimmed.starts_with('"') && trimmed.ends_with('"')) {
        return None;
    }
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Borrowed<'_>>(trimmed)
        .ok()
        .map(|text| text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Order {
        id: u64,
    }

    #[test]
    fn media_types_fall_into_families() {
        let cases = [
            ("application/json", Family::Json),
            ("application/json;charset=UTF-8", Family::Json),
            ("Application/Vnd.Order+JSON", Family::Json),
            ("text/plain", Family::Text),
            ("text/xml; charset=utf-8", Family::Text),
            ("application/octet-stream", Family::Octets),
            ("application/xml", Family::Unknown),
            ("not a mime", Family::Unknown),
            ("", Family::Unknown),
        ];
        for (media_type, family) in cases {
            assert_eq!(Family::of(media_type), family, "{media_type}");
        }
    }

    #[test]
    fn what_a_spring_producer_sends_is_read() {
        // Body and contentType as observed from StreamBridge.
        assert_eq!(
            payload::<Order>("application/json", br#"{"id":7}"#).unwrap(),
            Order { id: 7 }
        );
        assert_eq!(
            payload::<String>("application/json", br#""plain string""#).unwrap(),
            "plain string"
        );
        assert_eq!(
            payload::<String>("application/json", br#"{"msg":"s"}"#).unwrap(),
            r#"{"msg":"s"}"#
        );
        assert_eq!(
            payload::<String>("text/plain", br#""text-binding""#).unwrap(),
            "text-binding"
        );
        assert_eq!(
            payload::<String>("text/plain;charset=UTF-8", b"native").unwrap(),
            "native"
        );
        assert_eq!(payload::<i64>("application/json", b"42").unwrap(), 42);
        assert_eq!(
            payload::<Order>("text/plain", br#"{"id":7}"#).unwrap(),
            Order { id: 7 }
        );
        assert_eq!(payload::<String>("application/json", br#""""#).unwrap(), "");
        assert_eq!(text(br#""plain string""#).unwrap(), "plain string");
        assert_eq!(text(b"native").unwrap(), "native");
        assert_eq!(text("\"gr\\u00fc\u{df}e\"".as_bytes()).unwrap(), "grüße");
    }

    #[test]
    fn text_with_quotes_inside_is_left_alone() {
        assert_eq!(text(br#""a" and "b""#).unwrap(), r#""a" and "b""#);
        assert_eq!(text(br#"""#).unwrap(), r#"""#);
    }

    #[test]
    fn a_payload_of_another_type_is_rejected_and_says_what_it_saw() {
        let failure = Failure::from(payload::<i64>("application/json", br#""twelve""#).unwrap_err());
        assert!(matches!(failure, Failure::Reject(_)));
        let text = failure.to_string();
        assert!(
            text.starts_with(r#"payload is no `i64` in JSON; it starts with "\"twelve\"""#),
            "{text}"
        );
        assert!(text.contains("invalid type: string"), "{text}");
    }

    #[test]
    fn an_unknown_content_type_is_named() {
        let failure = Failure::from(payload::<i64>("not a mime", b"1").unwrap_err());
        assert!(
            failure
                .to_string()
                .contains("content type `not a mime` has no decoder"),
            "{failure}"
        );
    }
}
