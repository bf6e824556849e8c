//! From pairs of text to a typed header.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::super::CodecError;
use super::Fields;

/// Shows the fields to serde as a map.
pub(super) struct HeaderReader<'a>(pub(super) &'a Fields);

impl<'de> Deserializer<'de> for HeaderReader<'de> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_map(Pairs {
            fields: self.0,
            at: 0,
            value: None,
        })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Pairs<'a> {
    fields: &'a Fields,
    at: usize,
    value: Option<ValueReader<'a>>,
}

impl<'de> MapAccess<'de> for Pairs<'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        let Some(span) = self.fields.spans.get(self.at) else {
            return Ok(None);
        };
        self.at += 1;
        let text = &self.fields.text;
        let key = text
            .get(span.start as usize..span.middle as usize)
            .unwrap_or_default();
        let value = text
            .get(span.middle as usize..span.end as usize)
            .unwrap_or_default();
        self.value = Some(ValueReader { key, value });
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(CodecError::Field("a value was asked for before its key".into())),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.fields.len().saturating_sub(self.at))
    }
}

struct ValueReader<'a> {
    key: &'a str,
    value: &'a str,
}

impl ValueReader<'_> {
    fn parse<T: std::str::FromStr>(&self, expected: &str) -> Result<T, CodecError> {
        self.value.trim().parse().map_err(|_| {
            let shown: String = self.value.chars().take(64).collect();
            CodecError::Field(format!(
                "header field {:?}: cannot read {shown:?} as {expected}",
                self.key
            ))
        })
    }
}

macro_rules! numbers {
    ($($method:ident => $visit:ident $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            visitor.$visit(self.parse($what)?)
        })*
    };
}

impl<'de> Deserializer<'de> for ValueReader<'de> {
    type Error = CodecError;

    numbers! {
        deserialize_i8 => visit_i8 "a number"; deserialize_i16 => visit_i16 "a number";
        deserialize_i32 => visit_i32 "a number"; deserialize_i64 => visit_i64 "a number";
        deserialize_u8 => visit_u8 "a number"; deserialize_u16 => visit_u16 "a number";
        deserialize_u32 => visit_u32 "a number"; deserialize_u64 => visit_u64 "a number";
        deserialize_f32 => visit_f32 "a number"; deserialize_f64 => visit_f64 "a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        // Java's Boolean.parseBoolean: anything that is not "true" is false.
        visitor.visit_bool(self.value.eq_ignore_ascii_case("true"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_enum(self.value.into_deserializer())
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.value)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}
