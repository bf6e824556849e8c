//! Compressed bodies, both ways.
//!
//! zlib is always there; LZ4 and Zstandard come with the cargo features `lz4` and `zstd`, which are on by default.
//! Protocol source: `ZlibCompressor`, `Lz4Compressor`, `ZstdCompressor`, `MessageSysFlag`.

use std::io::{Read, Write};

use bytes::Bytes;

use super::CodecError;
use super::record::{Compression, SysFlag};

impl Compression {
    /// Whether this build can write and read it.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Self::Zlib => true,
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// The levels that it takes, the weakest first; one that has no levels takes only 0.
    #[must_use]
    pub const fn levels(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Zlib => 0..=9,
            Self::Lz4 => 0..=0,
            Self::Zstd => 1..=22,
        }
    }

    /// The bits of the [`SysFlag`] of a body that is compressed so, as clients write them from 4.9.4 on.
    ///
    /// Older consumers know zlib only and take every compressed body for it.
    #[must_use]
    pub const fn sys_flag(self) -> i32 {
        let kind = match self {
            Self::Lz4 => 1,
            Self::Zstd => 2,
            Self::Zlib => 3,
        };
        SysFlag::COMPRESSED | kind << 8
    }
}

/// Compresses a body; a level outside of [`Compression::levels`] is taken for the nearest one inside.
///
/// # Errors
/// [`CodecError::Invalid`] when this build lacks the compression.
pub fn compress(body: &[u8], compression: Compression, level: u32) -> Result<Bytes, CodecError> {
    let levels = compression.levels();
    let level = level.clamp(*levels.start(), *levels.end());
    // Writing to memory does not fail for want of room, so an error is the compressor's own.
    let failed =
        |error: std::io::Error| CodecError::invalid("body", 0, format!("cannot be compressed: {error}"));
    let out = Vec::with_capacity(body.len() / 2);
    let out = match compression {
        Compression::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(out, flate2::Compression::new(level));
            encoder
                .write_all(body)
                .and_then(|()| encoder.finish())
                .map_err(failed)?
        }
        #[cfg(feature = "lz4")]
        Compression::Lz4 => {
            // Blocks that do not refer to each other are the only ones that Java reads, and the default.
            let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
            encoder.write_all(body).map_err(failed)?;
            encoder.finish().map_err(|error| failed(error.into()))?
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            let level = i32::try_from(level).unwrap_or(i32::MAX);
            let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(failed)?;
            encoder
                .write_all(body)
                .and_then(|()| encoder.finish())
                .map_err(failed)?
        }
        #[cfg(not(all(feature = "lz4", feature = "zstd")))]
        _ => return Err(missing(compression)),
    };
    Ok(out.into())
}

/// Decompresses a body; refuses to make more than `limit` bytes of it.
///
/// # Errors
/// [`CodecError::TooLarge`] above the limit, [`CodecError::Invalid`] when the body is not what its flag says or this
/// build lacks the compression.
pub fn decompress(body: &[u8], compression: Compression, limit: usize) -> Result<Bytes, CodecError> {
    match compression {
        Compression::Zlib => read_capped(flate2::read::ZlibDecoder::new(body), body.len(), limit),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => {
            // The decoder takes the end of its input for the end of the frame if that is between two blocks. Behind a
            // body that was cut there it finds the size of a block that cannot be.
            let endless = body.chain(std::io::repeat(0xFF));
            read_capped(lz4_flex::frame::FrameDecoder::new(endless), body.len(), limit)
        }
        #[cfg(feature = "zstd")]
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(unreadable)?;
            read_capped(decoder, body.len(), limit)
        }
        #[cfg(not(all(feature = "lz4", feature = "zstd")))]
        _ => Err(missing(compression)),
    }
}

fn read_capped(decoder: impl Read, compressed: usize, limit: usize) -> Result<Bytes, CodecError> {
    // One byte above the limit tells "exactly the limit" from "more".
    let cap = (limit as u64).saturating_add(1);
    let mut out = Vec::with_capacity(compressed.saturating_mul(4).min(limit));
    decoder.take(cap).read_to_end(&mut out).map_err(unreadable)?;
    if out.len() > limit {
        return Err(CodecError::TooLarge {
            what: "decompressed body",
            size: cap,
            limit: limit as u64,
        });
    }
    Ok(out.into())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn unreadable(error: std::io::Error) -> CodecError {
    CodecError::invalid("compressed body", 0, error.to_string())
}

#[cfg(not(all(feature = "lz4", feature = "zstd")))]
fn missing(compression: Compression) -> CodecError {
    let reason = format!(
        "{compression:?} is not built in; turn on the cargo feature of that name, or let the producer use zlib"
    );
    CodecError::invalid("body", 0, reason)
}

#[cfg(test)]
mod tests;
