//! The network side: accepting connections, cutting frames, finding the route of a request, writing answers.

mod accept;
mod reply;
mod routes;
mod session;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use self::accept::serve;
pub(crate) use self::reply::{Refusal, Reply, RequestHead};
pub(crate) use self::routes::{Context, Routes, unreadable};
pub(crate) use self::session::{Session, Sessions};
#[cfg(feature = "tls")]
pub use self::tls::TlsMode;
#[cfg(feature = "tls")]
pub(crate) use self::tls::{Acceptor, TlsOptions};
