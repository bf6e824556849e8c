//! What waits to be written: frames back to back, large bodies as segments of their own.
//!
//! Two of these take turns: requests are encoded into one while the writer writes the other.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::seal::Sealed;
use crate::protocol::frame::Head;
use crate::protocol::{CodecError, Fields, Frame, HeaderFormat};

/// Bodies above this many bytes are handed to the socket as they are; copying smaller ones is cheaper than a segment.
const LARGE_BODY: usize = 8 * 1024;

/// A one-way request waits for room while more than this many bytes wait to be written: nobody answers it, so its
/// sender would run ahead of the socket by as much as there is room. One write carries enough of them all the same.
const ONE_WAY_BYTES: usize = 512 * 1024;

/// Frames after this many bytes go into another buffer.
const PIECE_BYTES: usize = 256 * 1024;

/// A buffer that grew beyond this many bytes is not kept.
const KEPT_CAPACITY: usize = 1024 * 1024;

/// What a one-way request takes of its sender's room, in messages and bytes: given back once the socket has taken the
/// frame, for nobody else learns of that.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) _messages: OwnedSemaphorePermit,
    pub(crate) _bytes: OwnedSemaphorePermit,
}

/// Frames that wait, or that are being written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Those that came first.
    full: VecDeque<Piece>,
    /// That which takes more.
    last: Piece,
    /// How many bytes are left, segments included.
    bytes: usize,
    /// What is given back when all of it is written.
    holds: Vec<Hold>,
}

/// Whole frames back to back.
#[derive(Debug, Default)]
struct Piece {
    buffer: BytesMut,
    /// Large bodies, each with the position in `buffer` that it comes at.
    large: VecDeque<(usize, Bytes)>,
    /// How far `buffer` is written.
    at: usize,
}

impl Batch {
    /// The buffer for the next frame. Much that waits is in several buffers: one that doubled would take twice as much
    /// memory as it has bytes, and three times as much while it is copied.
    fn buffer(&mut self) -> &mut BytesMut {
        if self.last.buffer.len() >= PIECE_BYTES {
            let next = Piece {
                buffer: BytesMut::with_capacity(PIECE_BYTES + 2 * LARGE_BODY),
                ..Piece::default()
            };
            self.full.push_back(mem::replace(&mut self.last, next));
        }
        &mut self.last.buffer
    }

    fn put_body(&mut self, body: &Bytes) {
        let Piece { buffer, large, .. } = &mut self.last;
        if body.len() > LARGE_BODY {
            large.push_back((buffer.len(), body.clone()));
        } else {
            buffer.put_slice(body);
        }
    }

    fn reset(&mut self) {
        self.full.clear();
        let Piece { buffer, large, at } = &mut self.last;
        if buffer.capacity() > KEPT_CAPACITY {
            *buffer = BytesMut::new();
        }
        buffer.clear();
        large.clear();
        *at = 0;
        self.bytes = 0;
    }

    /// Gives back what its frames took: the socket has them.
    pub(super) fn release(&mut self) {
        self.holds.clear();
    }

    /// Everything that is left, if it is in one piece.
    pub(super) fn as_one(&self) -> Option<&[u8]> {
        (self.full.is_empty() && self.last.large.is_empty()).then(|| self.chunk())
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.full.iter().chain([&self.last])
    }
}

impl Piece {
    /// The part of the buffer that comes before the next segment.
    fn before_segment(&self) -> &[u8] {
        let end = self.large.front().map_or(self.buffer.len(), |(at, _)| *at);
        self.buffer.get(self.at..end).unwrap_or_default()
    }

    fn chunk(&self) -> &[u8] {
        match (self.before_segment(), self.large.front()) {
            ([], Some((_, body))) => body,
            (part, _) => part,
        }
    }

    /// What is left of it, as it lies in memory; parts may be empty.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let tail = std::iter::once((self.buffer.len(), None));
        let segments = self.large.iter().map(|(at, body)| (*at, Some(body)));
        let mut at = self.at;
        segments.chain(tail).flat_map(move |(until, body)| {
            let part = self.buffer.get(at..until).unwrap_or_default();
            at = until;
            [part, body.map_or(&[][..], |body| body)]
        })
    }

    /// Takes off as much as it has, at most; returns how much that was.
    fn advance(&mut self, count: usize) -> usize {
        let mut left = count;
        while left > 0 {
            let part = self.before_segment().len();
            if part > 0 {
                let step = part.min(left);
                self.at += step;
                left -= step;
            } else if let Some((_, body)) = self.large.front_mut() {
                let step = body.len().min(left);
                body.advance(step);
                left -= step;
                if body.is_empty() {
                    self.large.pop_front();
                }
            } else {
                break;
            }
        }
        count - left
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        let mut chunks = self.pieces().map(Piece::chunk);
        chunks.find(|chunk| !chunk.is_empty()).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.pieces().flat_map(Piece::parts);
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        while let Some(piece) = self.full.front_mut() {
            count -= piece.advance(count);
            if !piece.chunk().is_empty() {
                return;
            }
            // Its memory is free before that of the others is written.
            self.full.pop_front();
        }
        self.last.advance(count);
    }
}

/// What one side of the double buffer knows besides its frames.
#[derive(Debug)]
pub(super) struct Outgoing {
    batch: Batch,
    format: HeaderFormat,
    limit: usize,
    /// How many bytes have ever been encoded on this connection: the position of the next frame in the stream.
    position: u64,
    /// Frames that start before this position were taken by the writer.
    handed_over: u64,
    /// The writer sleeps and has to be woken.
    writer_idle: bool,
    closed: bool,
    aborted: bool,
}

/// What putting a frame into the buffer came to.
#[derive(Debug)]
pub(super) enum Pushed {
    /// The frame is in the stream from this position on.
    Queued { position: u64, wake_writer: bool },
    /// There is no room at the moment.
    Full,
    /// The connection takes no more frames.
    Closed,
    /// It is no frame that can be written.
    Refused(CodecError),
}

impl Outgoing {
    pub(super) fn new(format: HeaderFormat, limit: usize) -> Self {
        Self {
            batch: Batch::default(),
            format,
            limit,
            position: 0,
            handed_over: 0,
            writer_idle: false,
            closed: false,
            aborted: false,
        }
    }

    pub(super) fn push<F: Serialize + ?Sized>(
        &mut self,
        sealed: &Sealed<'_, F>,
        opaque: i32,
        one_way: bool,
    ) -> Pushed {
        let head = Head {
            version: sealed.version,
            ..Head::request(sealed.code, opaque, one_way)
        };
        let limit = match one_way {
            true => self.limit.min(ONE_WAY_BYTES),
            false => self.limit,
        };
        self.put(&head, sealed.fields, &sealed.extra, sealed.body, limit)
    }

    /// Keeps what the frame that was pushed last took, until it is written.
    pub(super) fn hold(&mut self, hold: Hold) {
        self.batch.holds.push(hold);
    }

    pub(super) fn push_response(&mut self, frame: &Frame) -> Pushed {
        let head = Head::response(frame.code, frame.opaque, frame.remark.as_deref());
        self.put(
            &head,
            &crate::protocol::frame::NoFields,
            &[&frame.fields],
            &frame.body,
            self.limit,
        )
    }

    fn put<F: Serialize + ?Sized>(
        &mut self,
        head: &Head<'_>,
        fields: &F,
        extra: &[&Fields],
        body: &Bytes,
        limit: usize,
    ) -> Pushed {
        if self.closed {
            return Pushed::Closed;
        }
        // One frame is always let in, or a frame above the limit would wait for ever.
        if self.batch.bytes > 0 && self.batch.bytes + body.len() > limit {
            return Pushed::Full;
        }
        let buffer = self.batch.buffer();
        let before = buffer.len();
        if let Err(error) = head.encode_all(self.format, fields, extra, body.len(), buffer) {
            return Pushed::Refused(error);
        }
        let header = buffer.len() - before;
        self.batch.put_body(body);
        let position = self.position;
        let size = header + body.len();
        self.batch.bytes += size;
        self.position += size as u64;
        Pushed::Queued {
            position,
            wake_writer: mem::take(&mut self.writer_idle),
        }
    }

    /// Exchanges what waits for the written-out `batch`. Without anything to write, the writer counts as asleep.
    pub(super) fn swap(&mut self, batch: &mut Batch) -> Swapped {
        batch.reset();
        if self.batch.bytes == 0 {
            self.writer_idle = true;
            return if self.closed {
                Swapped::Closed
            } else {
                Swapped::Empty
            };
        }
        mem::swap(&mut self.batch, batch);
        self.handed_over = self.position;
        Swapped::Filled
    }

    /// Whether the frame at this position was taken by the writer, and so may have reached the peer.
    pub(super) fn is_handed_over(&self, position: u64) -> bool {
        position < self.handed_over
    }

    /// Takes no more frames; what waits is still written.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes no more frames and forgets those that wait.
    pub(super) fn abort(&mut self) {
        self.closed = true;
        self.aborted = true;
        self.batch = Batch::default();
    }

    /// Whether frames were forgotten: the connection broke.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted
    }
}

/// What the writer got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// Frames.
    Filled,
    /// Nothing; it will be woken.
    Empty,
    /// Nothing, and there will be nothing.
    Closed,
}

#[cfg(test)]
mod tests;
