//! The last step before a request is encoded: the fields that all requests of a client carry, and the signature.
//!
//! Without a signer the typed fields go straight into the buffer of the connection. With one they become a list
//! first, because a signature covers all pairs in the order of their keys, and the body.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::connection::Outbound;
use crate::error::{Error, Result};
use crate::protocol::frame::{NoFields, VERSION};
use crate::protocol::{CodecError, Fields, HeaderFormat};

/// Signs requests.
pub(crate) trait Sign: fmt::Debug + Send + Sync + 'static {
    /// Adds to a request the pairs that prove who sends it.
    ///
    /// Called on the way of every request, so it must neither block nor wait.
    fn sign(&self, request: &mut Unsigned<'_>);

    /// Learns that a peer has refused a request because of who sent it; gives the name that it was signed with. Must
    /// not block.
    fn refused(&self) -> Arc<str>;
}

/// A request with all its pairs, as its signer gets it.
#[derive(Debug)]
pub(crate) struct Unsigned<'a> {
    /// Every pair that the request has on the wire.
    pub(crate) fields: Fields,
    pub(crate) body: &'a [u8],
    /// The version that the request announces.
    pub(crate) version: i32,
}

/// A signed request.
#[derive(Debug)]
pub(super) struct Signed {
    code: i32,
    name: &'static str,
    fields: Fields,
    body: Bytes,
    version: i32,
}

/// A request to which nothing is added any more.
#[derive(Debug)]
pub(super) struct Sealed<'a, F: ?Sized> {
    pub(super) code: i32,
    /// The name of the request, for errors.
    pub(super) name: &'static str,
    pub(super) fields: &'a F,
    pub(super) extra: [&'a Fields; 2],
    pub(super) body: &'a Bytes,
    pub(super) version: i32,
}

static NONE: Fields = Fields::new();

impl<'a, F: ?Sized> Sealed<'a, F> {
    /// A request as it is, and the pairs that all requests carry.
    pub(super) fn unsigned(outbound: &'a Outbound<'_, F>, common: Option<&'a Fields>) -> Self {
        Self {
            code: outbound.code,
            name: outbound.name,
            fields: outbound.fields,
            extra: [outbound.extra, common.unwrap_or(&NONE)],
            body: &outbound.body,
            version: VERSION,
        }
    }
}

impl Signed {
    /// Signs a request and the pairs that all requests carry.
    ///
    /// A Java server reads an empty value of a binary header as null, and checks the signature of the word `null`. So a
    /// pair without a value, which means nothing to it either way, is left out there.
    ///
    /// # Errors
    /// When the fields cannot be put on the wire.
    pub(super) fn new<F: Serialize + ?Sized>(
        outbound: &Outbound<'_, F>,
        common: Option<&Fields>,
        format: HeaderFormat,
        signer: &dyn Sign,
    ) -> Result<Self> {
        let refused = |error: CodecError| Error::from_encode(outbound.name, error);
        let mut fields = Fields::from_header(outbound.fields).map_err(refused)?;
        for list in [Some(outbound.extra), common].into_iter().flatten() {
            for (key, value) in list.iter() {
                fields.push(key, value);
            }
        }
        // Codes that do not fit are written as JSON.
        let binary = format == HeaderFormat::Binary && i16::try_from(outbound.code).is_ok();
        if binary && fields.iter().any(|(_, value)| value.is_empty()) {
            fields = fields.iter().filter(|(_, value)| !value.is_empty()).collect();
        }
        let mut unsigned = Unsigned {
            fields,
            body: &outbound.body,
            version: VERSION,
        };
        signer.sign(&mut unsigned);
        let Unsigned { fields, version, .. } = unsigned;
        Ok(Self {
            code: outbound.code,
            name: outbound.name,
            fields,
            body: outbound.body.clone(),
            version,
        })
    }

    pub(super) fn seal(&self) -> Sealed<'_, NoFields> {
        Sealed {
            code: self.code,
            name: self.name,
            fields: &NoFields,
            extra: [&self.fields, &NONE],
            body: &self.body,
            version: self.version,
        }
    }
}

#[cfg(test)]
mod tests;
