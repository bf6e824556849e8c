//! Frames: a length, a header in one of two formats, a body.
//!
//! ```text
//! i32 total (without these 4 bytes) | i8 header format, i24 header length | header | body
//! ```
//!
//! Protocol source: `RemotingCommand`, `RocketMQSerializable`, `NettyDecoder`.

mod header;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{CodecError, Fields, Language, ResponseCode};

/// The largest frame that a peer accepts, in bytes after the length itself: 16 MiB, as in `NettyDecoder`.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// The version that this crate announces: that of RocketMQ 5.3.0.
///
/// Name servers answer with standard JSON from 401 (4.9.4) on.
pub const VERSION: i32 = 473;

const RESPONSE: i32 = 1;
const ONE_WAY: i32 = 2;

/// How a header is written. Each frame says which one it uses, so both ends may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderFormat {
    /// JSON text: what Java peers use unless told otherwise.
    #[default]
    Json,
    /// The compact ROCKETMQ form. Codes above 32767 do not fit; such frames are written as JSON.
    Binary,
}

/// One request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Request code or response code.
    pub code: i32,
    /// The sender's language.
    pub language: Language,
    /// The sender's version.
    pub version: i32,
    /// Ties a response to its request on one connection.
    pub opaque: i32,
    /// Bit 0: response; bit 1: one-way.
    pub flags: i32,
    /// Text for people, mostly the reason of an error.
    pub remark: Option<String>,
    /// The header fields.
    pub fields: Fields,
    /// The body; empty when absent.
    pub body: Bytes,
}

impl Frame {
    /// A request without fields or body.
    #[must_use]
    pub fn request(code: impl Into<i32>) -> Self {
        Self {
            code: code.into(),
            language: Language::RUST,
            version: VERSION,
            opaque: 0,
            flags: 0,
            remark: None,
            fields: Fields::new(),
            body: Bytes::new(),
        }
    }

    /// The response to the request with this `opaque`.
    #[must_use]
    pub fn response(code: ResponseCode, opaque: i32) -> Self {
        Self {
            opaque,
            flags: RESPONSE,
            ..Self::request(code.0)
        }
    }

    /// A refusal: an error code and the reason.
    #[must_use]
    pub fn refusal(code: ResponseCode, opaque: i32, remark: impl Into<String>) -> Self {
        Self {
            remark: Some(remark.into()),
            ..Self::response(code, opaque)
        }
    }

    /// Whether this answers a request.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// Whether the sender wants no response, not even an error.
    #[must_use]
    pub const fn is_one_way(&self) -> bool {
        self.flags & ONE_WAY != 0
    }

    /// Marks a request as one that gets no response.
    #[must_use]
    pub fn one_way(mut self) -> Self {
        self.flags |= ONE_WAY;
        self
    }

    /// Appends the frame to a buffer.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when the frame is above [`MAX_FRAME_BYTES`]; the buffer is then as it was.
    pub fn encode(&self, format: HeaderFormat, out: &mut BytesMut) -> Result<(), CodecError> {
        let head = Head {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flags: self.flags,
            remark: self.remark.as_deref(),
        };
        head.encode(format, &NoFields, &self.fields, self.body.len(), out)?;
        out.put_slice(&self.body);
        Ok(())
    }

    /// Reads a frame from the bytes after its length.
    ///
    /// # Errors
    /// [`CodecError`] with the offset inside the frame.
    pub fn decode(mut bytes: Bytes) -> Result<Self, CodecError> {
        if bytes.len() < 4 {
            let available = bytes.len();
            return Err(CodecError::Truncated {
                what: "header length",
                offset: 4,
                needed: 4,
                available,
            });
        }
        let mark = bytes.get_u32();
        let length = (mark & 0x00FF_FFFF) as usize;
        if length > bytes.len() {
            let available = bytes.len();
            return Err(CodecError::Truncated {
                what: "header",
                offset: 8,
                needed: length,
                available,
            });
        }
        let header = bytes.split_to(length);
        let mut frame = match mark >> 24 {
            0 => header::read_json(&header)?,
            1 => header::read_binary(header)?,
            other => {
                return Err(CodecError::invalid(
                    "header format",
                    4,
                    format!("unknown format {other}"),
                ));
            }
        };
        if !bytes.is_empty() {
            // An empty slice would keep the receive buffer alive for nothing.
            frame.body = bytes;
        }
        Ok(frame)
    }
}

/// Cuts frames out of a stream of bytes, however they were split on the way.
///
/// Sans-IO: feed it what arrived. Memory is bounded by the caller's buffer: nothing is reserved on the strength of
/// an announced length.
///
/// # Errors
/// [`CodecError`] when the stream is not made of frames; the connection is then of no further use.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let total = u32::from_be_bytes(*prefix) as usize;
    if total > MAX_FRAME_BYTES {
        let (size, limit) = (total as u64, MAX_FRAME_BYTES as u64);
        return Err(CodecError::TooLarge {
            what: "frame",
            size,
            limit,
        });
    }
    if total < 4 {
        return Err(CodecError::invalid(
            "frame length",
            0,
            format!("{total} leaves no room for a header"),
        ));
    }
    if buffer.len() < 4 + total {
        return Ok(None);
    }
    buffer.advance(4);
    Frame::decode(buffer.split_to(total).freeze()).map(Some)
}

/// What a header has besides its fields; lets a typed header be written without building a [`Frame`].
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Request code or response code.
    pub code: i32,
    /// The sender's language.
    pub language: Language,
    /// The sender's version.
    pub version: i32,
    /// Ties a response to its request on one connection.
    pub opaque: i32,
    /// Bit 0: response; bit 1: one-way.
    pub flags: i32,
    /// Text for people.
    pub remark: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// The head of a request.
    #[must_use]
    pub const fn request(code: i32, opaque: i32, one_way: bool) -> Self {
        let flags = if one_way { ONE_WAY } else { 0 };
        Self {
            code,
            language: Language::RUST,
            version: VERSION,
            opaque,
            flags,
            remark: None,
        }
    }

    /// The head of a response.
    #[must_use]
    pub const fn response(code: i32, opaque: i32, remark: Option<&'a str>) -> Self {
        Self {
            code,
            language: Language::RUST,
            version: VERSION,
            opaque,
            flags: RESPONSE,
            remark,
        }
    }

    /// Appends everything of a frame but its body, of which only the length is needed here: a caller may copy the
    /// body behind it or hand it to the socket as it is.
    ///
    /// `extra` are pairs that follow the typed fields (namespace, signature); a typed field wins over them.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when the frame is above [`MAX_FRAME_BYTES`], [`CodecError::Field`] when `fields` is
    /// no flat struct; the buffer is then as it was.
    pub fn encode<F: Serialize + ?Sized>(
        &self,
        format: HeaderFormat,
        fields: &F,
        extra: &Fields,
        body_len: usize,
        out: &mut BytesMut,
    ) -> Result<(), CodecError> {
        self.encode_all(format, fields, &[extra], body_len, out)
    }

    /// As [`encode`](Self::encode), with several lists of pairs that follow the typed fields.
    pub(crate) fn encode_all<F: Serialize + ?Sized>(
        &self,
        format: HeaderFormat,
        fields: &F,
        extra: &[&Fields],
        body_len: usize,
        out: &mut BytesMut,
    ) -> Result<(), CodecError> {
        let start = out.len();
        let result = self.encode_or_leave_rest(format, fields, extra, body_len, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn encode_or_leave_rest<F: Serialize + ?Sized>(
        &self,
        format: HeaderFormat,
        fields: &F,
        extra: &[&Fields],
        body_len: usize,
        out: &mut BytesMut,
    ) -> Result<(), CodecError> {
        let start = out.len();
        out.reserve(256);
        out.put_u64(0);
        let mark = match (format, i16::try_from(self.code)) {
            (HeaderFormat::Binary, Ok(code)) => {
                header::write_binary(self, code, fields, extra, out)?;
                1
            }
            _ => {
                header::write_json(self, fields, extra, out)?;
                0
            }
        };
        let header_len = out.len() - start - 8;
        let total = 4 + header_len + body_len;
        if total > MAX_FRAME_BYTES {
            let (size, limit) = (total as u64, MAX_FRAME_BYTES as u64);
            return Err(CodecError::TooLarge {
                what: "frame",
                size,
                limit,
            });
        }
        // Both fit: `total` is at most 16 MiB and at least four more than the header.
        let prefix = ((total as u64) << 32) | (mark << 24) | header_len as u64;
        if let Some(room) = out.get_mut(start..start + 8) {
            room.copy_from_slice(&prefix.to_be_bytes());
        }
        Ok(())
    }
}

/// The typed fields of a frame whose pairs are all in its [`Fields`].
#[derive(Serialize)]
pub(crate) struct NoFields;

#[cfg(test)]
mod tests;
