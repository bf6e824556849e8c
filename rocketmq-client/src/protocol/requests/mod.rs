//! Typed requests, one file for each family.

mod acl;
mod admin;
mod client;
mod offset;
mod pop;
mod pull;
mod query;
mod reply;
mod route;
mod send;
mod server;
mod stats;
mod transaction;

pub use acl::*;
pub use admin::*;
pub use client::*;
pub use offset::*;
pub use pop::*;
pub use pull::*;
pub use query::*;
pub use reply::*;
pub use route::*;
pub use send::*;
pub use server::*;
pub use stats::*;
pub use transaction::*;

use super::RequestMeta;

/// All requests, by family: what tests and fuzzers walk, and what a broker knows even if it does not serve it.
#[expect(unused_qualifications, reason = "each family has a table of this name")]
pub const REQUESTS: &[&[RequestMeta]] = &[
    acl::TABLE,
    admin::TABLE,
    client::TABLE,
    offset::TABLE,
    pop::TABLE,
    pull::TABLE,
    query::TABLE,
    reply::TABLE,
    route::TABLE,
    send::TABLE,
    server::TABLE,
    stats::TABLE,
    transaction::TABLE,
];

#[cfg(test)]
mod tests;
