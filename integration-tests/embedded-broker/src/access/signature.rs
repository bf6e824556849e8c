//! The signature of a request: the Base64 of the HMAC-SHA1 of its values in the order of their keys, and its body.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rocketmq_client::protocol::Frame;
use sha1::Sha1;

use super::AccessStyle;

/// Clients up to this version sign queries by unique key without the mark that says so. Java: `Version.V4_9_3`.
const V4_9_3: i32 = 399;

pub(super) fn is_good(frame: &Frame, secret: &str, style: AccessStyle) -> bool {
    let Some(signature) = frame.fields.get("Signature") else {
        return false;
    };
    let Ok(signature) = STANDARD.decode(signature) else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    let without_mark = style == AccessStyle::PlainAcl || frame.version <= V4_9_3;
    // As into a Java map: of two values with one key the last one stays.
    let fields: BTreeMap<Vec<u16>, (&str, &str)> = frame
        .fields
        .iter()
        .map(|(key, value)| (key.encode_utf16().collect(), (key, value)))
        .collect();
    for (key, value) in fields.into_values() {
        if key == "Signature" || (key == "_UNIQUE_KEY_QUERY" && without_mark) {
            continue;
        }
        mac.update(value.as_bytes());
    }
    mac.update(&frame.body);
    mac.verify_slice(&signature).is_ok()
}
