//! Answers, written straight into the connection's buffer.

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::frame::Head;
use rocketmq_client::protocol::{Fields, Frame, HeaderFormat, Language, ResponseCode};
use serde::Serialize;

/// What of a request's header the answer and the rules need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead {
    pub(crate) code: i32,
    pub(crate) opaque: i32,
    pub(crate) version: i32,
    pub(crate) language: Language,
    pub(crate) one_way: bool,
    /// The answer uses the form of the request.
    pub(crate) format: HeaderFormat,
}

impl RequestHead {
    pub(crate) fn of(frame: &Frame, format: HeaderFormat) -> Self {
        Self {
            code: frame.code,
            opaque: frame.opaque,
            version: frame.version,
            language: frame.language,
            one_way: frame.is_one_way(),
            format,
        }
    }
}

/// A request that is refused: a code and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ResponseCode,
    pub(crate) remark: String,
    /// Header fields that a real broker sends with this refusal too.
    pub(crate) fields: Fields,
}

impl Refusal {
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self {
            code,
            remark: remark.into(),
            fields: Fields::new(),
        }
    }

    /// Adds header fields.
    pub(crate) fn with<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (name, value) in pairs {
            self.fields.push(name, value);
        }
        self
    }
}

/// Where the answer to one request is written. A one-way request gets none, not even an error.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    head: RequestHead,
    out: &'a mut BytesMut,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(head: RequestHead, out: &'a mut BytesMut) -> Self {
        Self { head, out }
    }

    /// Answers with a frame.
    pub(crate) fn frame(self, frame: &Frame) {
        if self.head.one_way {
            return;
        }
        if let Err(error) = frame.encode(self.head.format, self.out) {
            self.refuse(&Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string()));
        }
    }

    /// Answers with typed fields and a body in pieces, each copied once.
    pub(crate) fn typed<F: Serialize>(
        self,
        code: ResponseCode,
        remark: Option<&str>,
        fields: &F,
        body: &[Bytes],
    ) {
        if self.head.one_way {
            return;
        }
        let length = body.iter().map(Bytes::len).sum();
        let head = Head::response(code.0, self.head.opaque, remark);
        match head.encode(self.head.format, fields, &Fields::new(), length, self.out) {
            Ok(()) => {
                self.out.reserve(length);
                for piece in body {
                    self.out.extend_from_slice(piece);
                }
            }
            Err(error) => self.refuse(&Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())),
        }
    }

    /// Answers with an error.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        if self.head.one_way {
            return;
        }
        let frame = Frame {
            fields: refusal.fields.clone(),
            remark: (!refusal.remark.is_empty()).then(|| refusal.remark.clone()),
            ..Frame::response(refusal.code, self.head.opaque)
        };
        if let Err(error) = frame.encode(self.head.format, self.out) {
            // Only a remark of megabytes can do this, and none is made here.
            tracing::error!(%error, code = self.head.code, "an answer cannot be encoded");
        }
    }
}
