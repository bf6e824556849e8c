//! From a typed header to pairs in a sink.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::ser::{Impossible, SerializeStruct, Serializer};

use super::super::CodecError;
use super::Fields;

/// Takes pairs of text, one at a time.
pub(crate) trait FieldSink {
    fn pair(&mut self, key: &str, value: &str) -> Result<(), CodecError>;

    /// A pair of which neither half needs escaping: a field's own name and a number or a boolean.
    fn plain_pair(&mut self, key: &'static str, value: &str) -> Result<(), CodecError> {
        self.pair(key, value)
    }
}

impl FieldSink for Fields {
    fn pair(&mut self, key: &str, value: &str) -> Result<(), CodecError> {
        self.push(key, value);
        Ok(())
    }
}

/// Pairs of the ROCKETMQ binary header: i16 key length, key, i32 value length, value.
pub(crate) struct BinarySink<'a>(pub(crate) &'a mut BytesMut);

impl FieldSink for BinarySink<'_> {
    fn pair(&mut self, key: &str, value: &str) -> Result<(), CodecError> {
        let too_large = |size: usize, limit: u64| CodecError::TooLarge {
            what: "header field",
            size: size as u64,
            limit,
        };
        let key_len = i16::try_from(key.len()).map_err(|_| too_large(key.len(), i16::MAX as u64))?;
        let value_len = i32::try_from(value.len()).map_err(|_| too_large(value.len(), i32::MAX as u64))?;
        self.0.reserve(6 + key.len() + value.len());
        // Names are short, and one copy is cheaper than three.
        let mut head = [0; 32];
        let end = 2 + key.len();
        if let Some((key_room, len_room)) = head
            .get_mut(..end + 4)
            .and_then(|head| head.split_at_mut_checked(end))
        {
            let (len, name) = key_room.split_at_mut(2);
            len.copy_from_slice(&key_len.to_be_bytes());
            name.copy_from_slice(key.as_bytes());
            len_room.copy_from_slice(&value_len.to_be_bytes());
            self.0.put_slice(head.get(..end + 4).unwrap_or_default());
        } else {
            self.0.put_i16(key_len);
            self.0.put_slice(key.as_bytes());
            self.0.put_i32(value_len);
        }
        self.0.put_slice(value.as_bytes());
        Ok(())
    }
}

/// Members of a JSON object without its braces.
pub(crate) struct JsonSink<'a> {
    pub(crate) out: &'a mut BytesMut,
    pub(crate) first: bool,
}

impl FieldSink for JsonSink<'_> {
    fn pair(&mut self, key: &str, value: &str) -> Result<(), CodecError> {
        self.out.reserve(key.len() + value.len() + 8);
        if !std::mem::take(&mut self.first) {
            self.out.put_u8(b',');
        }
        escape_into(key, self.out);
        self.out.put_u8(b':');
        escape_into(value, self.out);
        Ok(())
    }

    fn plain_pair(&mut self, key: &'static str, value: &str) -> Result<(), CodecError> {
        self.out.reserve(key.len() + value.len() + 8);
        self.out.put_slice(if std::mem::take(&mut self.first) {
            b"\""
        } else {
            b",\""
        });
        self.out.put_slice(key.as_bytes());
        self.out.put_slice(b"\":\"");
        self.out.put_slice(value.as_bytes());
        self.out.put_u8(b'"');
        Ok(())
    }
}

/// Writes a JSON string, quotes included; runs without special characters are copied at once.
pub(crate) fn escape_into(text: &str, out: &mut BytesMut) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut run = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.put_slice(bytes.get(run..at).unwrap_or_default());
        run = at + 1;
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.put_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.put_slice(bytes.get(run..).unwrap_or_default());
    out.put_u8(b'"');
}

/// Serializes a flat struct into a sink.
pub(crate) struct FieldWriter<'a, S>(pub(crate) &'a mut S);

macro_rules! refuse {
    ($($method:ident($($arg:ty),*) $what:literal;)*) => {
        $(fn $method(self, $(_: $arg),*) -> Result<Self::Ok, CodecError> { Err(self.refusal($what)) })*
    };
}

/// What neither a header nor one of its fields can hold, whichever of the two serializers meets it.
macro_rules! refuse_compounds {
    () => {
        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<(), CodecError> {
            Err(self.refusal("an enum with data"))
        }

        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, CodecError> {
            Err(self.refusal("a list"))
        }

        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CodecError> {
            Err(self.refusal("a tuple"))
        }

        fn serialize_tuple_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct, CodecError> {
            Err(self.refusal("a tuple"))
        }

        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant, CodecError> {
            Err(self.refusal("an enum with data"))
        }

        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CodecError> {
            Err(self.refusal("a map"))
        }

        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant, CodecError> {
            Err(self.refusal("an enum with data"))
        }
    };
}

impl<S> FieldWriter<'_, S> {
    fn refusal(&self, what: &str) -> CodecError {
        CodecError::Field(format!(
            "a header is a flat struct of scalars, it cannot hold {what}"
        ))
    }
}

impl<'a, S: FieldSink> Serializer for FieldWriter<'a, S> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Impossible<(), CodecError>;
    type SerializeTuple = Impossible<(), CodecError>;
    type SerializeTupleStruct = Impossible<(), CodecError>;
    type SerializeTupleVariant = Impossible<(), CodecError>;
    type SerializeMap = Impossible<(), CodecError>;
    type SerializeStruct = StructWriter<'a, S>;
    type SerializeStructVariant = Impossible<(), CodecError>;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<StructWriter<'a, S>, CodecError> {
        Ok(StructWriter(self.0))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        value.serialize(self)
    }

    refuse! {
        serialize_bool(bool) "a lone value"; serialize_i8(i8) "a lone value"; serialize_i16(i16) "a lone value";
        serialize_i32(i32) "a lone value"; serialize_i64(i64) "a lone value"; serialize_u8(u8) "a lone value";
        serialize_u16(u16) "a lone value"; serialize_u32(u32) "a lone value"; serialize_u64(u64) "a lone value";
        serialize_f32(f32) "a lone value"; serialize_f64(f64) "a lone value"; serialize_char(char) "a lone value";
        serialize_str(&str) "a lone value"; serialize_bytes(&[u8]) "bytes"; serialize_none() "nothing";
        serialize_unit() "a unit"; serialize_unit_variant(&'static str, u32, &'static str) "a lone value";
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    refuse_compounds!();
}

pub(crate) struct StructWriter<'a, S>(&'a mut S);

impl<S: FieldSink> SerializeStruct for StructWriter<'_, S> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        value.serialize(ValueWriter { sink: self.0, key })
    }

    fn end(self) -> Result<(), CodecError> {
        Ok(())
    }
}

/// Serializes one member as text; `None` writes nothing.
struct ValueWriter<'a, S> {
    sink: &'a mut S,
    key: &'static str,
}

impl<S: FieldSink> ValueWriter<'_, S> {
    fn text(self, value: &str) -> Result<(), CodecError> {
        self.sink.pair(self.key, value)
    }

    fn refusal(&self, what: &str) -> CodecError {
        CodecError::Field(format!("header field {:?} cannot hold {what}", self.key))
    }
}

macro_rules! integers {
    ($($method:ident($ty:ty);)*) => {
        $(fn $method(self, value: $ty) -> Result<(), CodecError> {
            self.sink.plain_pair(self.key, itoa::Buffer::new().format(value))
        })*
    };
}

impl<S: FieldSink> Serializer for ValueWriter<'_, S> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Impossible<(), CodecError>;
    type SerializeTuple = Impossible<(), CodecError>;
    type SerializeTupleStruct = Impossible<(), CodecError>;
    type SerializeTupleVariant = Impossible<(), CodecError>;
    type SerializeMap = Impossible<(), CodecError>;
    type SerializeStruct = Impossible<(), CodecError>;
    type SerializeStructVariant = Impossible<(), CodecError>;

    integers! {
        serialize_i8(i8); serialize_i16(i16); serialize_i32(i32); serialize_i64(i64);
        serialize_u8(u8); serialize_u16(u16); serialize_u32(u32); serialize_u64(u64);
    }

    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.sink
            .plain_pair(self.key, if value { "true" } else { "false" })
    }

    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        self.text(&value.to_string())
    }

    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        self.text(&value.to_string())
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.text(value)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), CodecError> {
        Err(self.refusal("bytes"))
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), CodecError> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        value.serialize(self)
    }

    refuse_compounds!();

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, CodecError> {
        Err(self.refusal("a struct"))
    }
}
