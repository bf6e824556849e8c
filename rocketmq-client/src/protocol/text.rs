//! Text that stays in the buffer it was received in, and the cursor that cuts values out of it.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::CodecError;

/// UTF-8 text that shares the buffer it was received in; cloning copies no text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// Checks that `bytes` are UTF-8.
    ///
    /// # Errors
    /// [`CodecError::Invalid`] with the offset of the first byte that is not.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, CodecError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(error) => Err(CodecError::invalid("text", error.valid_up_to(), "not UTF-8")),
        }
    }

    /// Text known at compile time.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when the value was made; checking again is the price of safe code and short for names.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// How many bytes the text has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of the text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the text, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

/// Reads big-endian values from the front of a shared buffer; knows where it stands, for errors.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    offset: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `len` bytes, shared with the buffer.
    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, CodecError> {
        if len > self.bytes.len() {
            let available = self.bytes.len();
            return Err(CodecError::Truncated {
                what,
                offset: self.offset,
                needed: len,
                available,
            });
        }
        self.offset += len;
        Ok(self.bytes.split_to(len))
    }

    /// Like [`Reader::take`] for a length that came from the wire as a signed number.
    pub(crate) fn take_signed(&mut self, len: i64, what: &'static str) -> Result<Bytes, CodecError> {
        match usize::try_from(len) {
            Ok(len) => self.take(len, what),
            Err(_) => Err(CodecError::invalid(
                what,
                self.offset,
                format!("negative length {len}"),
            )),
        }
    }

    pub(crate) fn text(&mut self, len: i64, what: &'static str) -> Result<Text, CodecError> {
        let offset = self.offset;
        let bytes = self.take_signed(len, what)?;
        Text::from_utf8(bytes).map_err(|_| CodecError::invalid(what, offset, "not UTF-8"))
    }

    pub(crate) fn i8(&mut self, what: &'static str) -> Result<i8, CodecError> {
        self.array(what).map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, CodecError> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, CodecError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, CodecError> {
        self.array(what).map(i64::from_be_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let Some(value) = self.bytes.first_chunk::<N>().copied() else {
            let available = self.bytes.len();
            return Err(CodecError::Truncated {
                what,
                offset: self.offset,
                needed: N,
                available,
            });
        };
        self.offset += N;
        bytes::Buf::advance(&mut self.bytes, N);
        Ok(value)
    }
}
