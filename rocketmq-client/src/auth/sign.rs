//! The signature of a request.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use tokio::sync::Notify;

use super::Credentials;
use crate::protocol::Fields;
use crate::secret::Secret;
use crate::sync::{read, write};
use crate::transport::{Sign, Unsigned};

const ACCESS_KEY: &str = "AccessKey";
const SIGNATURE: &str = "Signature";
const SECURITY_TOKEN: &str = "SecurityToken";

/// Says that a query is for a unique key. Brokers of 4.9 leave it out of what they sign; those of 5.x leave it out for
/// clients up to 4.9.3 alone.
const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";
const V4_9_3: i32 = 399;

/// Signs with the credentials of the moment.
pub(crate) struct Signer {
    key: RwLock<Arc<Key>>,
    /// Wakes whoever fetches credentials: a broker has refused these.
    refused: Notify,
}

/// Credentials, with the secret in the form in which it is used.
struct Key {
    credentials: Credentials,
    mac: Hmac<Sha1>,
}

impl Key {
    fn new(credentials: Credentials) -> Self {
        Self {
            mac: keyed(&credentials.secret_key),
            credentials,
        }
    }
}

impl Signer {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            key: RwLock::new(Arc::new(Key::new(credentials))),
            refused: Notify::new(),
        }
    }

    /// Signs with other credentials from the next request on.
    pub(super) fn renew(&self, credentials: Credentials) {
        *write(&self.key) = Arc::new(Key::new(credentials));
    }

    pub(super) fn access_key(&self) -> Arc<str> {
        Arc::clone(&read(&self.key).credentials.access_key)
    }

    /// Completes when a broker has refused credentials since it was last called.
    pub(super) async fn refusal(&self) {
        self.refused.notified().await;
    }
}

impl Sign for Signer {
    fn sign(&self, request: &mut Unsigned<'_>) {
        let key = Arc::clone(&read(&self.key));
        let fields = &mut request.fields;
        fields.push(ACCESS_KEY, &key.credentials.access_key);
        if let Some(token) = &key.credentials.security_token {
            fields.push(SECURITY_TOKEN, token.expose());
        }
        let mut mac = key.mac.clone();
        if update_with_fields(&mut mac, fields) {
            request.version = V4_9_3;
        }
        mac.update(request.body);
        let signature = finish(mac);
        fields.push(SIGNATURE, &signature);
    }

    fn refused(&self) -> Arc<str> {
        self.refused.notify_one();
        self.access_key()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.access_key()).finish()
    }
}

/// Feeds the values in the order of their keys; tells whether the request has to announce an old version.
fn update_with_fields(mac: &mut Hmac<Sha1>, fields: &Fields) -> bool {
    let mut pairs: Vec<(&str, &str)> = fields.iter().collect();
    pairs.sort_by(|(one, _), (other, _)| java_order(one, other));
    let mut unique_key_query = false;
    let mut pairs = pairs.into_iter().peekable();
    while let Some((key, value)) = pairs.next() {
        // Of two pairs with one key a Java server keeps the last.
        let again = pairs.peek().is_some_and(|(next, _)| *next == key);
        if again || key == SIGNATURE {
            continue;
        }
        if key == UNIQUE_KEY_QUERY {
            unique_key_query = true;
            continue;
        }
        mac.update(value.as_bytes());
    }
    unique_key_query
}

/// `String#compareTo`: by UTF-16 units, which differs from the order of bytes beyond U+D7FF alone.
fn java_order(one: &str, other: &str) -> Ordering {
    match one.is_ascii() && other.is_ascii() {
        true => one.cmp(other),
        false => one.encode_utf16().cmp(other.encode_utf16()),
    }
}

pub(super) fn signature<'a>(secret: &Secret, content: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut mac = keyed(secret);
    for part in content {
        mac.update(part);
    }
    finish(mac)
}

fn keyed(secret: &Secret) -> Hmac<Sha1> {
    Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length")
}

fn finish(mac: Hmac<Sha1>) -> String {
    STANDARD.encode(mac.finalize().into_bytes())
}
