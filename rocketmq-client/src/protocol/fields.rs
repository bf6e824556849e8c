//! Header fields: the string-to-string map of a frame, and the bridge between it and typed headers.
//!
//! A typed header is a plain struct with serde derives. Writing goes straight into the frame's buffer through one
//! of three sinks (binary, JSON, list); reading parses each value from its text, and an error names the field.
//! Java writes `null` members not at all and everything else by `toString`; so does this module.
//! Protocol source: `RemotingCommand#makeCustomHeaderToNet`, `RocketMQSerializable`.

mod binary;
mod json;
mod read;
mod write;

pub(crate) use write::{BinarySink, FieldSink, FieldWriter, JsonSink, escape_into};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;

/// The fields of one header, in the order of the wire.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Keys and values back to back: one allocation however many fields there are.
    text: String,
    spans: Vec<Span>,
}

/// Where one pair lies in the text: the key ends where its value starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    middle: u32,
    end: u32,
}

impl Fields {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: String::new(),
            spans: Vec::new(),
        }
    }

    pub(crate) fn with_capacity(text: usize, pairs: usize) -> Self {
        Self {
            text: String::with_capacity(text),
            spans: Vec::with_capacity(pairs),
        }
    }

    /// The fields that a typed header has on the wire.
    ///
    /// # Errors
    /// [`CodecError::Field`] when the header holds something other than scalars and optional scalars.
    pub fn from_header<T: Serialize + ?Sized>(header: &T) -> Result<Self, CodecError> {
        let mut fields = Self::new();
        header.serialize(FieldWriter(&mut fields))?;
        Ok(fields)
    }

    /// Reads a typed header; fields that it does not know are ignored, as Java does.
    ///
    /// # Errors
    /// [`CodecError::Field`] that names the field which is missing or cannot be read.
    pub fn header<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        T::deserialize(read::HeaderReader(self))
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Appends a field; one that is there already stays, and the first one counts.
    pub fn push(&mut self, key: &str, value: &str) {
        let start = self.mark();
        self.text.push_str(key);
        let middle = self.mark();
        self.text.push_str(value);
        self.finish(start, middle);
    }

    /// All pairs in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|span| {
            let key = self
                .text
                .get(span.start as usize..span.middle as usize)
                .unwrap_or_default();
            let value = self
                .text
                .get(span.middle as usize..span.end as usize)
                .unwrap_or_default();
            (key, value)
        })
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn mark(&self) -> u32 {
        // A header is at most 16 MiB, the frame's own cap, so this never saturates.
        u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    fn finish(&mut self, start: u32, middle: u32) {
        let end = self.mark();
        self.spans.push(Span { start, middle, end });
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Credentials travel as fields; a log line must never show them.
        const SECRETS: [&str; 3] = ["AccessKey", "Signature", "SecurityToken"];
        let mut map = f.debug_map();
        for (key, value) in self.iter() {
            map.entry(&key, &if SECRETS.contains(&key) { "***" } else { value });
        }
        map.finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Self::new();
        for (key, value) in pairs {
            fields.push(key, value);
        }
        fields
    }
}

#[cfg(test)]
mod tests;
