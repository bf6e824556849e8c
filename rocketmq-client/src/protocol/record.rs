//! Stored messages: what pull, query and view responses carry, and what a broker keeps.
//!
//! ```text
//! i32 size | i32 magic | i32 body CRC | i32 queue id | i32 flag | i64 queue offset | i64 physical offset
//! i32 sys flag | i64 born time | born host | i64 store time | store host | i32 reconsume times
//! i64 prepared transaction offset | i32 + body | i8 (V1) or i16 (V2) + topic | i16 + properties
//! ```
//!
//! A host is 4 or 16 address bytes (the sys flag says which) and an i32 port.
//! Protocol source: `MessageDecoder`, `MessageVersion`, `MessageExtEncoder`, `MessageSysFlag`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};

use super::text::Reader;
use super::{CodecError, Properties, Text};

const MAGIC_V1: i32 = 0xDAA3_20A7_u32.cast_signed();
const MAGIC_V2: i32 = 0xDAA3_20AB_u32.cast_signed();

/// The longest topic that a V1 record can hold, in bytes.
const MAX_TOPIC_V1: usize = 127;

/// Bits that a broker and its clients keep beside a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SysFlag(pub i32);

impl SysFlag {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 0x1;
    /// The topic's tags are of the multi-tag kind.
    pub const MULTI_TAGS: i32 = 0x2;
    /// A prepared transaction message.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// A committed transaction message.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// Mask of the transaction bits; both set means rolled back.
    pub const TRANSACTION_MASK: i32 = 0xC;
    /// The born host is an IPv6 address.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// The store host is an IPv6 address.
    pub const STORE_HOST_V6: i32 = 0x20;
    /// The body holds several messages that the client has to unwrap.
    pub const NEED_UNWRAP: i32 = 0x40;
    /// The body is a batch that the broker stored as one record.
    pub const INNER_BATCH: i32 = 0x80;
    /// Mask of the compression type.
    pub const COMPRESSION_MASK: i32 = 0x700;

    /// Whether all bits of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: i32) -> bool {
        self.0 & bits == bits
    }

    /// The same flag with `bits` set or cleared.
    #[must_use]
    pub const fn with(self, bits: i32, on: bool) -> Self {
        Self(if on { self.0 | bits } else { self.0 & !bits })
    }

    /// How the body is compressed, if it is.
    ///
    /// # Errors
    /// The type's number when it is none that the protocol knows.
    pub const fn compression(self) -> Result<Option<Compression>, i32> {
        if !self.has(Self::COMPRESSED) {
            return Ok(None);
        }
        match (self.0 & Self::COMPRESSION_MASK) >> 8 {
            // Zero is what clients before 4.9.4 write: they knew zlib only.
            0 | 3 => Ok(Some(Compression::Zlib)),
            1 => Ok(Some(Compression::Lz4)),
            2 => Ok(Some(Compression::Zstd)),
            other => Err(other),
        }
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// LZ4 frame format.
    Lz4,
    /// Zstandard frame.
    Zstd,
    /// zlib stream (RFC 1950).
    Zlib,
}

/// One stored message. Topic, properties and body share the buffer that they were decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The queue.
    pub queue_id: i32,
    /// The user's flag; the broker does not look at it.
    pub flag: i32,
    /// The position in the queue.
    pub queue_offset: i64,
    /// The position in the broker's log.
    pub physical_offset: i64,
    /// See [`SysFlag`]. Encoding sets the two host bits from the addresses.
    pub sys_flag: SysFlag,
    /// When the producer made the message: milliseconds since 1970.
    pub born_timestamp: i64,
    /// The producer's address as the broker saw it.
    pub born_host: SocketAddr,
    /// When the broker stored the message: milliseconds since 1970.
    pub store_timestamp: i64,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// How often a consumer group has given the message back.
    pub reconsume_times: i32,
    /// The position of the half message that this one completes; 0 otherwise.
    pub prepared_transaction_offset: i64,
    /// The body as stored, compressed if the flag says so.
    pub body: Bytes,
    /// The topic.
    pub topic: Text,
    /// The properties.
    pub properties: Properties,
}

impl Record {
    /// Reads all records of a response body.
    ///
    /// # Errors
    /// [`CodecError`] with the offset inside `bytes`. Java drops the rest of such a buffer silently; a caller here
    /// can tell the user.
    pub fn decode_all(bytes: Bytes) -> Result<Vec<Self>, CodecError> {
        let mut reader = Reader::new(bytes);
        // The smallest record has 91 bytes, so the reservation is bounded by what has arrived.
        let mut records = Vec::with_capacity((reader.remaining() / 256).clamp(1, 64));
        while reader.remaining() > 0 {
            records.push(Self::read(&mut reader)?);
        }
        Ok(records)
    }

    /// Reads the one record of a view response or of a pushed message.
    ///
    /// # Errors
    /// [`CodecError`] with the offset; more than one record is an error too.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let record = Self::read(&mut reader)?;
        match reader.remaining() {
            0 => Ok(record),
            _ => Err(CodecError::invalid(
                "record",
                reader.offset(),
                "bytes after the only record",
            )),
        }
    }

    fn read(outer: &mut Reader) -> Result<Self, CodecError> {
        let start = outer.offset();
        let size = outer.i32("record size")?;
        let rest = outer.take_signed(i64::from(size) - 4, "record")?;
        let mut reader = Reader::new(rest);
        Self::read_fields(&mut reader).map_err(|error| error.shifted(start + 4))
    }

    fn read_fields(reader: &mut Reader) -> Result<Self, CodecError> {
        let magic = reader.i32("magic")?;
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(CodecError::invalid(
                "magic",
                0,
                format!("{magic:#x} is no message version"),
            ));
        }
        let crc = reader.i32("body CRC")?;
        let queue_id = reader.i32("queue id")?;
        let flag = reader.i32("flag")?;
        let queue_offset = reader.i64("queue offset")?;
        let physical_offset = reader.i64("physical offset")?;
        let sys_flag = SysFlag(reader.i32("sys flag")?);
        let born_timestamp = reader.i64("born timestamp")?;
        let born_host = read_host(reader, sys_flag.has(SysFlag::BORN_HOST_V6), "born host")?;
        let store_timestamp = reader.i64("store timestamp")?;
        let store_host = read_host(reader, sys_flag.has(SysFlag::STORE_HOST_V6), "store host")?;
        let reconsume_times = reader.i32("reconsume times")?;
        let prepared_transaction_offset = reader.i64("prepared transaction offset")?;
        let body_len = reader.i32("body length")?;
        let body_at = reader.offset();
        let body = reader.take_signed(i64::from(body_len), "body")?;
        if crc != 0 && crc != body_crc(&body) {
            return Err(CodecError::invalid(
                "body",
                body_at,
                "its checksum does not match",
            ));
        }
        let topic_len = if magic == MAGIC_V1 {
            i64::from(reader.i8("topic length")?)
        } else {
            i64::from(reader.i16("topic length")?)
        };
        let topic = reader.text(topic_len, "topic")?;
        let properties_len = reader.i16("properties length")?;
        let properties = Properties::new(reader.text(i64::from(properties_len), "properties")?);
        if reader.remaining() > 0 {
            return Err(CodecError::invalid(
                "record",
                reader.offset(),
                "bytes after the properties",
            ));
        }
        Ok(Self {
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag,
            born_timestamp,
            born_host,
            store_timestamp,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            topic,
            properties,
        })
    }

    /// Appends the record; V2 only where the topic is too long for V1.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when topic, properties or body are above what the format holds; the buffer is then
    /// as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), CodecError> {
        let topic = self.topic.as_bytes();
        let properties = self.properties.as_bytes();
        let too_large = |what, size: usize, limit: u64| CodecError::TooLarge {
            what,
            size: size as u64,
            limit,
        };
        let properties_len = i16::try_from(properties.len())
            .map_err(|_| too_large("properties", properties.len(), i16::MAX as u64))?;
        let topic_len =
            i16::try_from(topic.len()).map_err(|_| too_large("topic", topic.len(), i16::MAX as u64))?;
        let body_len = i32::try_from(self.body.len())
            .map_err(|_| too_large("body", self.body.len(), i32::MAX as u64))?;
        let size = self.encoded_len();
        let total = i32::try_from(size).map_err(|_| too_large("record", size, i32::MAX as u64))?;
        let sys_flag = self
            .sys_flag
            .with(SysFlag::BORN_HOST_V6, self.born_host.is_ipv6())
            .with(SysFlag::STORE_HOST_V6, self.store_host.is_ipv6());
        out.reserve(size);
        out.put_i32(total);
        let v1 = topic.len() <= MAX_TOPIC_V1;
        out.put_i32(if v1 { MAGIC_V1 } else { MAGIC_V2 });
        out.put_i32(body_crc(&self.body));
        out.put_i32(self.queue_id);
        out.put_i32(self.flag);
        out.put_i64(self.queue_offset);
        out.put_i64(self.physical_offset);
        out.put_i32(sys_flag.0);
        out.put_i64(self.born_timestamp);
        write_host(self.born_host, out);
        out.put_i64(self.store_timestamp);
        write_host(self.store_host, out);
        out.put_i32(self.reconsume_times);
        out.put_i64(self.prepared_transaction_offset);
        out.put_i32(body_len);
        out.put_slice(&self.body);
        if v1 {
            out.put_u8(topic_len.to_be_bytes()[1]);
        } else {
            out.put_i16(topic_len);
        }
        out.put_slice(topic);
        out.put_i16(properties_len);
        out.put_slice(properties);
        Ok(())
    }

    /// How many bytes [`Record::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let host = |address: SocketAddr| if address.is_ipv6() { 20 } else { 8 };
        let topic = self.topic.len();
        let topic_len = if topic <= MAX_TOPIC_V1 { 1 } else { 2 };
        // 74 = the numbers of the fixed part and the length fields of body and properties.
        74 + host(self.born_host)
            + host(self.store_host)
            + self.body.len()
            + topic_len
            + topic
            + self.properties.as_bytes().len()
    }
}

/// The checksum of a stored body: CRC-32 without its top bit.
#[must_use]
pub fn body_crc(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7FFF_FFFF).cast_signed()
}

fn read_host(reader: &mut Reader, v6: bool, what: &'static str) -> Result<SocketAddr, CodecError> {
    let address = if v6 {
        IpAddr::V6(Ipv6Addr::from(reader.array::<16>(what)?))
    } else {
        IpAddr::V4(Ipv4Addr::from(reader.array::<4>(what)?))
    };
    let at = reader.offset();
    let port = reader.i32(what)?;
    let port =
        u16::try_from(port).map_err(|_| CodecError::invalid(what, at, format!("{port} is no port")))?;
    Ok(SocketAddr::new(address, port))
}

fn write_host(host: SocketAddr, out: &mut BytesMut) {
    match host.ip() {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
    out.put_i32(i32::from(host.port()));
}

#[cfg(test)]
mod tests;
