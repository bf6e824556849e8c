//! From the field map of a ROCKETMQ binary header to pairs.
//!
//! Each pair is an i16 key length, the key, an i32 value length and the value.

use super::super::CodecError;
use super::{Fields, Span};

impl Fields {
    /// Reads a field map that starts at `offset` of its header.
    ///
    /// Keys and values are gathered first and checked to be text all at once: this runs for every frame.
    pub(crate) fn from_binary(map: &[u8], offset: usize) -> Result<Self, CodecError> {
        let mut cursor = Cursor { rest: map, offset };
        let mut text = Vec::with_capacity(map.len());
        // A pair has six bytes at least, so the reservation is bounded by what has arrived.
        let mut spans = Vec::with_capacity(map.len() / 16);
        while !cursor.rest.is_empty() {
            let key_len = cursor.array("field name length").map(i16::from_be_bytes)?;
            let key = cursor.take(i64::from(key_len), "field name")?;
            let value_len = cursor.array("field value length").map(i32::from_be_bytes)?;
            let value = cursor.take(i64::from(value_len), "field value")?;
            // An empty string stands for null in this form.
            if key.is_empty() || value.is_empty() {
                continue;
            }
            let mark = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            let start = mark(text.len());
            text.extend_from_slice(key);
            let middle = mark(text.len());
            text.extend_from_slice(value);
            let end = mark(text.len());
            spans.push(Span { start, middle, end });
        }
        let not_text = || CodecError::invalid("field map", offset, "not UTF-8");
        let text = String::from_utf8(text).map_err(|_| not_text())?;
        // A character that lies half in a key and half in its value makes neither of them text.
        let is_cut = |at: u32| !text.is_char_boundary(at as usize);
        if spans
            .iter()
            .any(|span: &Span| is_cut(span.middle) || is_cut(span.end))
        {
            return Err(not_text());
        }
        Ok(Self { text, spans })
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let Some((value, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(what, N));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*value)
    }

    fn take(&mut self, len: i64, what: &'static str) -> Result<&'a [u8], CodecError> {
        let Ok(len) = usize::try_from(len) else {
            let reason = format!("negative length {len}");
            return Err(CodecError::invalid(what, self.offset, reason));
        };
        let Some((value, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.truncated(what, len));
        };
        self.rest = rest;
        self.offset += len;
        Ok(value)
    }

    fn truncated(&self, what: &'static str, needed: usize) -> CodecError {
        CodecError::Truncated {
            what,
            offset: self.offset,
            needed,
            available: self.rest.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_no_text() {
        // "\u{e9}" is two bytes; here one is the key and one the value.
        let map = [0, 1, 0xC3, 0, 0, 0, 1, 0xA9];
        let error = Fields::from_binary(&map, 21).unwrap_err();
        assert_eq!(error.to_string(), "field map at byte 21: not UTF-8");
        let map = [0, 2, 0xC3, 0xA9, 0, 0, 0, 1, b'x'];
        assert_eq!(Fields::from_binary(&map, 0).unwrap().get("\u{e9}"), Some("x"));
    }

    #[test]
    fn lengths_that_lie_are_told_with_their_place() {
        let error = Fields::from_binary(&[0, 9, b'a'], 21).unwrap_err().to_string();
        assert_eq!(error, "field name at byte 23 needs 9 bytes, 1 are left");
        let error = Fields::from_binary(&[0, 1, b'a', 0xFF, 0xFF, 0xFF, 0xFF], 0).unwrap_err();
        assert_eq!(error.to_string(), "field value at byte 7: negative length -1");
    }
}
