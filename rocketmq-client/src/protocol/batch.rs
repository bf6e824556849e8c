//! Several messages in one body: what a batch send carries, and what a topic of the kind `BatchCQ` stores as one record.
//!
//! ```text
//! i32 size | i32 0 | i32 0 | i32 flag | i32 + body | i16 + properties      once for each message
//! ```
//!
//! Protocol source: `MessageDecoder#encodeMessage`, `MessageDecoder#decodeMessages`, `MessageDecoder#decodeMessage`.

use bytes::{BufMut, Bytes, BytesMut};

use super::text::Reader;
use super::{CodecError, Properties, Record, SysFlag, Text, decompress};

/// What a message takes in a batch besides its body and its properties, in bytes.
pub const BATCH_OVERHEAD: usize = 22;

/// The largest body of a stored batch that is unwrapped, in bytes.
const MAX_UNWRAPPED_BYTES: usize = 32 * 1024 * 1024;

/// One message of a batch. Body and properties share the buffer that they were decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchMessage {
    /// The user's flag.
    pub flag: i32,
    /// The body.
    pub body: Bytes,
    /// The properties.
    pub properties: Properties,
}

/// Appends one message to the body of a batch.
///
/// # Errors
/// [`CodecError::TooLarge`] when the body or the properties are above what the format holds; the buffer is then as it
/// was.
pub fn encode_batch_message(
    flag: i32,
    body: &[u8],
    properties: &str,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let too_large = |what, size: usize, limit: u64| CodecError::TooLarge {
        what,
        size: size as u64,
        limit,
    };
    let properties_len = i16::try_from(properties.len())
        .map_err(|_| too_large("properties", properties.len(), i16::MAX as u64))?;
    let size = BATCH_OVERHEAD
        .saturating_add(body.len())
        .saturating_add(properties.len());
    let total = i32::try_from(size).map_err(|_| too_large("body", body.len(), i32::MAX as u64))?;
    let body_len = i32::try_from(body.len()).map_err(|_| too_large("body", body.len(), i32::MAX as u64))?;
    out.reserve(size);
    out.put_i32(total);
    // Magic and checksum are the broker's to fill in.
    out.put_i64(0);
    out.put_i32(flag);
    out.put_i32(body_len);
    out.put_slice(body);
    out.put_i16(properties_len);
    out.put_slice(properties.as_bytes());
    Ok(())
}

/// Cuts the body of a batch into its messages.
///
/// # Errors
/// [`CodecError`] with the offset inside `body`.
pub fn decode_batch(body: Bytes) -> Result<Vec<BatchMessage>, CodecError> {
    let mut reader = Reader::new(body);
    // The smallest message has 22 bytes, so the reservation is bounded by what has arrived.
    let mut messages = Vec::with_capacity((reader.remaining() / 128).clamp(1, 64));
    while reader.remaining() > 0 {
        messages.push(read(&mut reader)?);
    }
    Ok(messages)
}

fn read(outer: &mut Reader) -> Result<BatchMessage, CodecError> {
    let start = outer.offset();
    let size = outer.i32("size of a message of a batch")?;
    let mut reader = Reader::new(outer.take_signed(i64::from(size) - 4, "message of a batch")?);
    read_fields(&mut reader).map_err(|error| error.shifted(start + 4))
}

fn read_fields(reader: &mut Reader) -> Result<BatchMessage, CodecError> {
    // Whoever writes them writes zeros; nobody reads them.
    reader.i32("magic")?;
    reader.i32("body CRC")?;
    let flag = reader.i32("flag")?;
    let body_len = reader.i32("body length")?;
    let body = reader.take_signed(i64::from(body_len), "body")?;
    let properties_len = reader.i16("properties length")?;
    let properties: Text = reader.text(i64::from(properties_len), "properties")?;
    match reader.remaining() {
        0 => Ok(BatchMessage {
            flag,
            body,
            properties: Properties::new(properties),
        }),
        _ => Err(CodecError::invalid(
            "message of a batch",
            reader.offset(),
            "bytes after the properties",
        )),
    }
}

impl Record {
    /// Whether this is a whole batch stored as one record, as brokers of 5.x do for topics of the kind `BatchCQ`.
    #[must_use]
    pub const fn is_batch(&self) -> bool {
        self.sys_flag.has(SysFlag::NEED_UNWRAP | SysFlag::INNER_BATCH)
    }

    /// The messages of a batch that is stored as one record, each with its own offset, flag, body and properties; all
    /// else is the record's. A record that is no batch comes back alone.
    ///
    /// # Errors
    /// [`CodecError`] when the body is no batch.
    pub fn unwrap_batch(self) -> Result<Vec<Self>, CodecError> {
        if !self.is_batch() {
            return Ok(vec![self]);
        }
        let body = match self.sys_flag.compression() {
            Ok(None) => self.body.clone(),
            Ok(Some(compression)) => decompress(&self.body, compression, MAX_UNWRAPPED_BYTES)?,
            Err(kind) => {
                let reason = format!("compression {kind} is unknown to this version");
                return Err(CodecError::invalid("body", 0, reason));
            }
        };
        let sys_flag = self.sys_flag.with(
            SysFlag::NEED_UNWRAP | SysFlag::INNER_BATCH | SysFlag::COMPRESSED,
            false,
        );
        let messages = decode_batch(body)?.into_iter();
        Ok((self.queue_offset..)
            .zip(messages)
            .map(|(queue_offset, message)| Self {
                queue_offset,
                sys_flag,
                flag: message.flag,
                body: message.body,
                properties: message.properties,
                reconsume_times: 0,
                topic: self.topic.clone(),
                ..self
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
