//! Compressed bodies.
//!
//! Protocol source: `ZlibCompressor`, `MessageSysFlag`.

use std::io::Read;

use bytes::Bytes;

use super::CodecError;
use super::record::Compression;

/// Decompresses a body; refuses to make more than `limit` bytes of it.
///
/// # Errors
/// [`CodecError::TooLarge`] above the limit, [`CodecError::Invalid`] when the body is not what its flag says or the
/// compression is one that this build cannot read (only zlib can be, which is what Java clients use by default).
pub fn decompress(body: &[u8], compression: Compression, limit: usize) -> Result<Bytes, CodecError> {
    let Compression::Zlib = compression else {
        let reason = format!(
            "compressed as {compression:?}, which this version cannot read; let the producer use zlib"
        );
        return Err(CodecError::invalid("body", 0, reason));
    };
    // One byte above the limit tells "exactly the limit" from "more".
    let cap = limit as u64 + 1;
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(limit));
    flate2::read::ZlibDecoder::new(body)
        .take(cap)
        .read_to_end(&mut out)
        .map_err(|error| CodecError::invalid("compressed body", 0, error.to_string()))?;
    if out.len() > limit {
        return Err(CodecError::TooLarge {
            what: "decompressed body",
            size: cap,
            limit: limit as u64,
        });
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_zlib_body_comes_back() {
        let body = b"again and again and again".repeat(100);
        assert_eq!(
            decompress(&zlib(&body), Compression::Zlib, body.len()).unwrap(),
            body
        );
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = zlib(&vec![0; 8 * 1024 * 1024]);
        let error = decompress(&bomb, Compression::Zlib, 1024).unwrap_err();
        assert_eq!(
            error.to_string(),
            "decompressed body of 1025 bytes is above the limit of 1024"
        );
    }

    #[test]
    fn noise_and_unknown_kinds_are_errors() {
        assert!(decompress(b"noise", Compression::Zlib, 1024).is_err());
        let error = decompress(b"x", Compression::Zstd, 1024).unwrap_err();
        assert!(error.to_string().contains("Zstd"), "{error}");
    }
}
