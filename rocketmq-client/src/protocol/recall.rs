//! The handle by which a message that waits for its delivery time is taken back.
//!
//! It is the URL-safe Base64, with padding, of `v1 <topic> <broker> <delivery time> <unique key>`.
//! Protocol source: `RecallMessageHandle`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};

use super::CodecError;

/// Says which timed message is meant, and which broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle {
    /// The topic that the message will be delivered to.
    pub topic: String,
    /// The name of the broker.
    pub broker_name: String,
    /// When the broker will deliver the message: milliseconds since 1970.
    pub deliver_timestamp: i64,
    /// The id that the client gave the message.
    pub unique_key: String,
}

const VERSION: &str = "v1";

/// Brokers write padding; handles that lost it on their way are still good.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl fmt::Display for RecallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            broker_name,
            deliver_timestamp,
            unique_key,
        } = self;
        let text = format!("{VERSION} {topic} {broker_name} {deliver_timestamp} {unique_key}");
        f.write_str(&general_purpose::URL_SAFE.encode(text))
    }
}

impl FromStr for RecallHandle {
    type Err = CodecError;

    fn from_str(handle: &str) -> Result<Self, CodecError> {
        let wrong = |reason: String| CodecError::invalid("recall handle", 0, reason);
        let bytes = LENIENT
            .decode(handle)
            .map_err(|error| wrong(format!("not Base64: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
        let parts: Vec<_> = text.split(' ').collect();
        let [version, topic, broker_name, deliver_timestamp, unique_key] = parts[..] else {
            return Err(wrong(format!("{} parts instead of 5", parts.len())));
        };
        if version != VERSION {
            return Err(wrong(format!("version {version:?} is unknown")));
        }
        let deliver_timestamp = deliver_timestamp
            .parse()
            .map_err(|_| wrong(format!("{deliver_timestamp:?} is no time")))?;
        Ok(Self {
            topic: topic.to_owned(),
            broker_name: broker_name.to_owned(),
            deliver_timestamp,
            unique_key: unique_key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by the Java class.
    const JAVA: &str =
        "djEgVG9waWNUZXN0IGJyb2tlci1hIDE3MDAwMDAwMDAwMDAgN0YwMDAwMDEwMDAwMkE5RjAwMDAwMDAwMDAwMDAwMkE=";

    fn handle() -> RecallHandle {
        RecallHandle {
            topic: "TopicTest".into(),
            broker_name: "broker-a".into(),
            deliver_timestamp: 1_700_000_000_000,
            unique_key: "7F00000100002A9F000000000000002A".into(),
        }
    }

    #[test]
    fn a_handle_is_the_one_that_java_writes() {
        assert_eq!(handle().to_string(), JAVA);
        assert_eq!(JAVA.parse(), Ok(handle()));
        assert_eq!(JAVA.trim_end_matches('=').parse(), Ok(handle()));
    }

    #[test]
    fn what_is_no_handle_is_refused_with_the_reason() {
        let encode = |text: &str| general_purpose::URL_SAFE.encode(text);
        for (handle, reason) in [
            ("?".to_owned(), "not Base64"),
            (encode(""), "1 parts instead of 5"),
            (encode("v1 t b 5 u more"), "6 parts instead of 5"),
            (encode("v2 t b 5 u"), "version \"v2\" is unknown"),
            (encode("v1 t b soon u"), "\"soon\" is no time"),
        ] {
            let error = handle.parse::<RecallHandle>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = text.parse::<RecallHandle>();
            let _ = general_purpose::URL_SAFE.encode(bytes).parse::<RecallHandle>();
        }
    }
}
