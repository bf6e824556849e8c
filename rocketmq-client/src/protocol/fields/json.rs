//! From the `extFields` object of a JSON header to pairs.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Fields;

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::with_capacity(256, 16);
                loop {
                    let start = fields.mark();
                    if map.next_key_seed(AppendTo(&mut fields.text))?.is_none() {
                        return Ok(fields);
                    }
                    let middle = fields.mark();
                    if map.next_value_seed(AppendTo(&mut fields.text))? {
                        fields.finish(start, middle);
                    } else {
                        fields.text.truncate(start as usize);
                    }
                }
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Appends a scalar to the text, as Java converts it to a string; says whether it was one.
struct AppendTo<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for AppendTo<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AppendTo<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        self.0.push_str(value);
        Ok(true)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(true)
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        self.0.push_str(itoa::Buffer::new().format(value));
        Ok(true)
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        self.0.push_str(itoa::Buffer::new().format(value));
        Ok(true)
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        self.0.push_str(&value.to_string());
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}
