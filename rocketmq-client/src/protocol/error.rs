//! What can be wrong with bytes.

use std::borrow::Cow;
use std::fmt;

/// Bytes that do not follow the protocol, and where they stop doing so.
///
/// Decoding is total: any input gives a value or one of these, never a panic, and never an allocation larger
/// than the input or a stated cap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The input ends inside a value.
    Truncated {
        /// The value that was being read.
        what: &'static str,
        /// Where the value starts, in bytes from the start of the input.
        offset: usize,
        /// How many bytes the value has.
        needed: usize,
        /// How many bytes were left.
        available: usize,
    },
    /// A value that cannot be.
    Invalid {
        /// The value that was being read.
        what: &'static str,
        /// Where the value starts, in bytes from the start of the input.
        offset: usize,
        /// Why it cannot be.
        reason: Cow<'static, str>,
    },
    /// A length above its cap; nothing was allocated for it.
    TooLarge {
        /// The value that was being read or written.
        what: &'static str,
        /// The announced or actual size in bytes.
        size: u64,
        /// The cap in bytes.
        limit: u64,
    },
    /// A header field that is missing or cannot be read as its type.
    Field(String),
    /// A body that is not the JSON its request or response has.
    Json {
        /// The body that was being read.
        what: &'static str,
        /// What the JSON parser said.
        message: String,
    },
}

impl CodecError {
    pub(crate) fn invalid(what: &'static str, offset: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid {
            what,
            offset,
            reason: reason.into(),
        }
    }

    /// Makes the offset of an error inside a part one inside the whole, which has `by` bytes before the part.
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        match &mut self {
            Self::Truncated { offset, .. } | Self::Invalid { offset, .. } => *offset += by,
            _ => {}
        }
        self
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated {
                what,
                offset,
                needed,
                available,
            } => {
                write!(
                    f,
                    "{what} at byte {offset} needs {needed} bytes, {available} are left"
                )
            }
            Self::Invalid { what, offset, reason } => write!(f, "{what} at byte {offset}: {reason}"),
            Self::TooLarge { what, size, limit } => {
                write!(f, "{what} of {size} bytes is above the limit of {limit}")
            }
            Self::Field(message) => f.write_str(message),
            Self::Json { what, message } => write!(f, "body {what}: {message}"),
        }
    }
}

impl std::error::Error for CodecError {}

impl serde::de::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Field(message.to_string())
    }
}

impl serde::ser::Error for CodecError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Field(message.to_string())
    }
}
