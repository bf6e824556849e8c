//! The one error of this crate: what went wrong, where, why, and what to do about it.
//!
//! A caller decides by [`Error::kind`]; a sender also by [`Error::persisted`], because "it failed" and "it is not
//! stored" are two different things.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::protocol::{CodecError, ResponseCode, ResponseError};

/// What every fallible operation of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. One pointer wide; cloning shares the cause.
///
/// `Display` is one sentence that names what, where, why and the remedy; [`source`](StdError::source) leads to the
/// cause.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    persisted: Persisted,
    message: String,
    response: Option<(ResponseCode, String)>,
    broker: Option<Arc<str>>,
    attempts: u32,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of failure that a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, a name or a message cannot be used as it is. Nothing was sent.
    Config,
    /// No name server answered.
    NameServer,
    /// No broker has the topic, and none may create it.
    TopicNotFound,
    /// A broker could not be reached, or the connection to it broke.
    Connect,
    /// No secure connection: the peer does not speak TLS, or its certificate, or ours, is not accepted. Nothing was sent.
    Tls,
    /// A server does not accept who this client says it is, or does not let it do this.
    Auth,
    /// The deadline passed.
    Timeout,
    /// The broker is too busy at the moment.
    Busy,
    /// The broker said no.
    Rejected,
    /// Something is above a size limit. Nothing was sent.
    TooLarge,
    /// The broker stored the message, but less safely than the send [required](crate::SendBuilder::require_ok).
    NotDurable,
    /// The peer does not know the request.
    Unsupported,
    /// The peer sent what cannot be read.
    Protocol,
    /// This client has as much in flight as it may have.
    Overloaded,
    /// The client, producer or consumer was shut down.
    Closed,
}

/// Whether the broker may have stored a message whose send failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Persisted {
    /// It is certainly not stored: sending it again cannot duplicate it.
    #[default]
    No,
    /// It may be stored: the request left, the answer did not come.
    Maybe,
    /// It is stored.
    Yes,
}

impl Error {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the broker may have stored the message. [`Persisted::No`] for everything that is not a send.
    #[must_use]
    pub fn persisted(&self) -> Persisted {
        self.0.persisted
    }

    /// Whether the same call may work later without a change on this side.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::NameServer
            | ErrorKind::Connect
            | ErrorKind::Timeout
            | ErrorKind::Busy
            | ErrorKind::Overloaded => true,
            ErrorKind::Config
            | ErrorKind::TopicNotFound
            | ErrorKind::Tls
            | ErrorKind::Auth
            | ErrorKind::Rejected
            | ErrorKind::TooLarge
            | ErrorKind::NotDurable
            | ErrorKind::Unsupported
            | ErrorKind::Protocol
            | ErrorKind::Closed => false,
        }
    }

    /// What the peer answered, if it answered: the code and its reason.
    #[must_use]
    pub fn response(&self) -> Option<(ResponseCode, &str)> {
        self.0
            .response
            .as_ref()
            .map(|(code, remark)| (*code, remark.as_str()))
    }

    /// The peer that the last attempt went to: a broker name or `host:port`.
    #[must_use]
    pub fn broker(&self) -> Option<&str> {
        self.0.broker.as_deref()
    }

    /// How many attempts were made before giving up; 0 when nothing was attempted.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            persisted: Persisted::No,
            message: message.into(),
            response: None,
            broker: None,
            attempts: 0,
            source: None,
        }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn closed(what: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Closed,
            format!("{what} is shut down; make a new one to go on"),
        )
    }

    /// The error for what a peer answered to the request `what`.
    pub(crate) fn from_response(what: &str, peer: &str, error: ResponseError) -> Self {
        match error {
            ResponseError::Refused { code, remark } => {
                let kind = match code {
                    _ if refuses_identity(code, &remark) => ErrorKind::Auth,
                    ResponseCode::TOPIC_NOT_EXIST => ErrorKind::TopicNotFound,
                    ResponseCode::SYSTEM_BUSY
                    | ResponseCode::SERVICE_NOT_AVAILABLE
                    | ResponseCode::FLOW_CONTROL
                    | ResponseCode::GO_AWAY => ErrorKind::Busy,
                    ResponseCode::REQUEST_CODE_NOT_SUPPORTED | ResponseCode::VERSION_NOT_SUPPORTED => {
                        ErrorKind::Unsupported
                    }
                    _ => ErrorKind::Rejected,
                };
                let remedy = match kind {
                    ErrorKind::Auth => {
                        "; check the credentials of this client, and on the server the user, its secret and what it \
                         may do"
                    }
                    _ => "",
                };
                let mut error = Self::new(
                    kind,
                    format!("{what} to {peer}: refused with {code}: {remark}{remedy}"),
                );
                error.0.response = Some((code, remark));
                error.at(peer)
            }
            ResponseError::Malformed(cause) => Self::new(
                ErrorKind::Protocol,
                format!("{what} to {peer}: the answer cannot be read"),
            )
            .caused_by(cause)
            .at(peer),
        }
    }

    /// The error for a message that a broker stored less safely than it should.
    pub(crate) fn not_durable(peer: &str, status: &str, response: (ResponseCode, String)) -> Self {
        let mut error = Self::new(
            ErrorKind::NotDurable,
            format!(
                "{peer} stored the message, but with {status}, and SEND_OK is required; see to its disk and its \
                 slaves, or take what it can give"
            ),
        );
        error.0.response = Some(response);
        error.at(peer).with_persisted(Persisted::Yes)
    }

    /// The error for a request that cannot be put on the wire.
    pub(crate) fn from_encode(what: &str, error: CodecError) -> Self {
        let kind = match error {
            CodecError::TooLarge { .. } => ErrorKind::TooLarge,
            _ => ErrorKind::Config,
        };
        Self::new(kind, format!("{what} cannot be sent: {error}")).caused_by(error)
    }

    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn at(mut self, broker: impl Into<Arc<str>>) -> Self {
        self.0.broker = Some(broker.into());
        self
    }

    pub(crate) fn after(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn with_persisted(mut self, persisted: Persisted) -> Self {
        self.0.persisted = persisted;
        self
    }

    /// Puts what was being done before the text, as in `send to topic orders: ..`.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }
}

/// Whether a refusal is about who asks, and not about what is asked.
///
/// Brokers of 5.x answer `NO_PERMISSION`, which they also answer for a topic that nobody may write at the moment; those
/// of 4.9 answer `SYSTEM_ERROR` with the name of a Java exception. Java: `AuthenticationPipeline`,
/// `AuthorizationPipeline`, `PlainAccessValidator`.
pub(crate) fn refuses_identity(code: ResponseCode, remark: &str) -> bool {
    const OF_5: [&str; 6] = [
        "has no permission to access",
        "signature",
        "user:",
        "username",
        "authentication",
        "authorization",
    ];
    match code {
        ResponseCode::SYSTEM_ERROR => remark.contains("AclException"),
        ResponseCode::NO_PERMISSION => {
            let remark = remark.to_ascii_lowercase();
            OF_5.iter().any(|text| remark.contains(text))
        }
        _ => false,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.0.persisted {
            Persisted::No => Ok(()),
            Persisted::Maybe => f.write_str("; the message may have been stored"),
            Persisted::Yes => f.write_str("; the message is stored"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            persisted,
            message,
            response,
            broker,
            attempts,
            source,
        } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("persisted", persisted)
            .field("message", message)
            .field("response", response)
            .field("broker", broker)
            .field("attempts", attempts)
            .field("source", source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| {
            let source: &(dyn StdError + 'static) = &**source;
            source
        })
    }
}

#[cfg(test)]
mod tests;
