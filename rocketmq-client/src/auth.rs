//! Who this client is to brokers that ask: credentials, where they come from, and the signature of a request.
//!
//! A request carries its access key and a signature over the values of all its header fields, in the order of their
//! keys, and its body. Nothing else is covered: not the request's code, and no time. Whoever can read the traffic can
//! repeat a request, so signatures belong inside TLS.
//!
//! Protocol source: `AclClientRPCHook`, `AclUtils`, `AclSigner`, `DefaultAuthenticationContextBuilder`.

mod provider;
mod sign;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::secret::Secret;

pub(crate) use provider::Rotation;
pub use provider::{CredentialsProvider, IssuedCredentials, RotatingCredentials};
pub(crate) use sign::Signer;

/// A name that a broker knows, and the secret that proves it.
///
/// The same pair serves the access control lists of 4.9 and the users of 5.x, where the access key is the name of the
/// user and the secret key its password. Java: `AclClientRPCHook(new SessionCredentials(accessKey, secretKey))`.
///
/// ```
/// use rocketmq_client::Credentials;
///
/// let credentials = Credentials::new("orders-svc", "12345678");
/// assert_eq!(format!("{credentials:?}"), r#"Credentials { access_key: "orders-svc", secret_key: ***, security_token: None }"#);
/// ```
#[derive(Clone, Debug)]
pub struct Credentials {
    access_key: Arc<str>,
    secret_key: Secret,
    security_token: Option<Secret>,
}

impl Credentials {
    /// An access key and its secret. Servers of 4.9 want more than six characters for each.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<Secret>) -> Self {
        Self {
            access_key: access_key.into().into(),
            secret_key: secret_key.into(),
            security_token: None,
        }
    }

    /// Adds the token of temporary credentials, which requests carry and signatures cover. Apache RocketMQ's own
    /// servers do not look at it; those of clouds do. Java: `SessionCredentials(accessKey, secretKey, securityToken)`.
    #[must_use]
    pub fn security_token(mut self, token: impl Into<Secret>) -> Self {
        self.security_token = Some(token.into());
        self
    }

    /// The name by which the broker knows the client. It is no secret: every request carries it.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The signature of these bytes: the Base64 of their HMAC-SHA1 under the secret key. For servers and tests.
    #[must_use]
    pub fn signature(&self, content: &[u8]) -> String {
        sign::signature(&self.secret_key, [content])
    }

    /// Whether both are one, or clones of one.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.access_key, &other.access_key) && self.secret_key.is_same(&other.secret_key)
    }

    fn check(&self) -> Result<()> {
        let blank = |text: &str| text.trim().is_empty();
        let mut wrong = Vec::new();
        if blank(&self.access_key) {
            wrong.push("the access key is blank");
        }
        if blank(self.secret_key.expose()) {
            wrong.push("the secret key is blank");
        }
        if self
            .security_token
            .as_ref()
            .is_some_and(|token| blank(token.expose()))
        {
            wrong.push("the security token is blank; leave it away where there is none");
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::config(format!(
                "credentials cannot be used: {}",
                wrong.join("; ")
            ))),
        }
    }
}

/// Prints the access key alone.
impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access key {:?}", self.access_key)
    }
}

#[cfg(test)]
mod tests;
