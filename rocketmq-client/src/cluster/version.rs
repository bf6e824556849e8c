//! Which version each broker is of, as its answers to heartbeats say.
//!
//! Features that an old broker would silently ignore ask for it. Every broker that this client has a connection to was
//! told who is here and has answered, so the version is mostly known without another request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::Cluster;
use crate::error::{Error, Result};
use crate::protocol::BrokerVersion;
use crate::sync::lock;

/// The versions of brokers by address; a heartbeat to a broker that was replaced corrects it.
#[derive(Debug, Default)]
pub(super) struct Versions(Mutex<HashMap<Arc<str>, BrokerVersion>>);

impl Versions {
    pub(super) fn note(&self, address: &Arc<str>, version: BrokerVersion) {
        let mut versions = lock(&self.0);
        if versions.get(address) != Some(&version) {
            versions.insert(Arc::clone(address), version);
        }
    }

    fn of(&self, address: &str) -> Option<BrokerVersion> {
        lock(&self.0).get(address).copied()
    }
}

impl Cluster {
    /// The version of a broker that has answered a heartbeat.
    pub(crate) fn known_broker_version(&self, address: &str) -> Option<BrokerVersion> {
        self.versions.of(&self.first_server(address))
    }

    /// The same, from a heartbeat of now if there was none before.
    ///
    /// # Errors
    /// As the transport gives them; the deadline is one of the caller's.
    ///
    /// # Cancellation
    /// Safe.
    pub(crate) async fn broker_version(&self, address: &str, deadline: Instant) -> Result<BrokerVersion> {
        let address: Arc<str> = self.first_server(address).into();
        if let Some(version) = self.versions.of(&address) {
            return Ok(version);
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        match self.ask_version(&address, timeout).await? {
            Some(version) => Ok(version),
            None => Err(Error::closed(
                "the client, of which no group is registered any more,",
            )),
        }
    }
}
