//! The two forms of a header.

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::super::fields::{BinarySink, FieldSink, FieldWriter, JsonSink, escape_into};
use super::super::text::Reader;
use super::super::{CodecError, Fields, Language};
use super::{Frame, Head};

pub(super) fn write_binary<F: Serialize + ?Sized>(
    head: &Head<'_>,
    code: i16,
    fields: &F,
    extra: &[&Fields],
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    out.put_i16(code);
    out.put_u8(head.language.0);
    // The version has 16 bits here; all that exist fit.
    out.put_i16(i16::try_from(head.version).unwrap_or(i16::MAX));
    out.put_i32(head.opaque);
    out.put_i32(head.flags);
    let remark = head.remark.unwrap_or_default();
    out.put_u32(length("remark", remark.len())?);
    out.put_slice(remark.as_bytes());
    let start = out.len();
    out.put_u32(0);
    let mut sink = BinarySink(out);
    fields.serialize(FieldWriter(&mut sink))?;
    for (key, value) in extra.iter().copied().flat_map(Fields::iter) {
        sink.pair(key, value)?;
    }
    let map_len = length("header fields", out.len() - start - 4)?;
    if let Some(room) = out.get_mut(start..start + 4) {
        room.copy_from_slice(&map_len.to_be_bytes());
    }
    Ok(())
}

fn length(what: &'static str, len: usize) -> Result<u32, CodecError> {
    let limit = i32::MAX as u64;
    u32::try_from(len)
        .ok()
        .filter(|&len| u64::from(len) <= limit)
        .ok_or(CodecError::TooLarge {
            what,
            size: len as u64,
            limit,
        })
}

pub(super) fn write_json<F: Serialize + ?Sized>(
    head: &Head<'_>,
    fields: &F,
    extra: &[&Fields],
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    let mut number = itoa::Buffer::new();
    out.put_slice(b"{\"code\":");
    out.put_slice(number.format(head.code).as_bytes());
    // An empty map is written too: Java clients read it from some responses without asking whether it is there.
    out.put_slice(b",\"extFields\":{");
    let mut sink = JsonSink { out, first: true };
    fields.serialize(FieldWriter(&mut sink))?;
    for (key, value) in extra.iter().copied().flat_map(Fields::iter) {
        sink.pair(key, value)?;
    }
    out.put_slice(b"},\"flag\":");
    out.put_slice(number.format(head.flags).as_bytes());
    out.put_slice(b",\"language\":\"");
    out.put_slice(head.language.name().unwrap_or("OTHER").as_bytes());
    out.put_slice(b"\",\"opaque\":");
    out.put_slice(number.format(head.opaque).as_bytes());
    if let Some(remark) = head.remark {
        out.put_slice(b",\"remark\":");
        escape_into(remark, out);
    }
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    out.put_slice(number.format(head.version).as_bytes());
    out.put_u8(b'}');
    Ok(())
}

pub(super) fn read_binary(header: Bytes) -> Result<Frame, CodecError> {
    let mut reader = Reader::new(header);
    let mut frame = Frame::request(reader.i16("code")?);
    frame.language = Language(reader.i8("language")?.cast_unsigned());
    frame.version = i32::from(reader.i16("version")?);
    frame.opaque = reader.i32("opaque")?;
    frame.flags = reader.i32("flag")?;
    let remark_len = reader.i32("remark length")?;
    if remark_len != 0 {
        frame.remark = Some(reader.text(i64::from(remark_len), "remark")?.as_str().to_owned());
    }
    let map_len = reader.i32("field map length")?;
    let map_at = reader.offset();
    let map = reader.take_signed(i64::from(map_len), "field map")?;
    if reader.remaining() > 0 {
        return Err(CodecError::invalid(
            "header",
            reader.offset(),
            "bytes after the field map",
        ));
    }
    frame.fields = Fields::from_binary(&map, map_at)?;
    Ok(frame)
}

pub(super) fn read_json(header: &[u8]) -> Result<Frame, CodecError> {
    let json: JsonHeader<'_> = serde_json::from_slice(header).map_err(|error| CodecError::Json {
        what: "header",
        message: error.to_string(),
    })?;
    let mut frame = Frame::request(json.code);
    frame.language = json.language.0;
    frame.version = json.version;
    frame.opaque = json.opaque;
    frame.flags = json.flag;
    frame.remark = json.remark.map(Cow::into_owned);
    frame.fields = json.ext_fields.unwrap_or_default();
    Ok(frame)
}

#[derive(Deserialize)]
struct JsonHeader<'a> {
    #[serde(default)]
    code: i32,
    #[serde(default)]
    language: JsonLanguage,
    #[serde(default)]
    version: i32,
    #[serde(default)]
    opaque: i32,
    #[serde(default)]
    flag: i32,
    #[serde(borrow)]
    remark: Option<Cow<'a, str>>,
    #[serde(rename = "extFields")]
    ext_fields: Option<Fields>,
}

struct JsonLanguage(Language);

impl Default for JsonLanguage {
    fn default() -> Self {
        Self(Language::JAVA)
    }
}

impl<'de> Deserialize<'de> for JsonLanguage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;
        impl<'de> Visitor<'de> for NameOrNumber {
            type Value = JsonLanguage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a language name")
            }

            fn visit_str<E>(self, name: &str) -> Result<JsonLanguage, E> {
                // fastjson reads a name it does not know as null.
                Ok(JsonLanguage(Language::from_name(name).unwrap_or(Language::OTHER)))
            }

            fn visit_u64<E>(self, ordinal: u64) -> Result<JsonLanguage, E> {
                Ok(JsonLanguage(
                    u8::try_from(ordinal).map_or(Language::OTHER, Language),
                ))
            }

            fn visit_unit<E>(self) -> Result<JsonLanguage, E> {
                Ok(JsonLanguage::default())
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}
