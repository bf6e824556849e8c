//! The broker inside this process, for a first run without a cluster.

use std::sync::{Mutex, PoisonError};

use rocketmq_embedded_broker::EmbeddedBroker;
use tracing::info;

use super::ConnectError;

/// A broker that lives as long as the binder. Its messages are in memory alone.
#[derive(Debug)]
pub(super) struct Embedded(Mutex<Option<EmbeddedBroker>>);

impl Embedded {
    pub(super) async fn start() -> Result<(Self, String), ConnectError> {
        let broker = EmbeddedBroker::start()
            .await
            .map_err(|error| ConnectError(format!("cannot start the embedded broker: {error}")))?;
        let name_server = broker.name_server();
        info!(
            name_server,
            "no name server is configured: started an embedded broker, whose messages go with the process"
        );
        Ok((Self(Mutex::new(Some(broker))), name_server))
    }

    /// Stops it; calling it again is harmless.
    pub(super) async fn stop(&self) {
        let broker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(broker) = broker {
            broker.shutdown().await;
        }
    }
}
