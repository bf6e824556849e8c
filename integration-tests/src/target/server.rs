//! Servers that are started here: shared ones, and ones that a scenario may break.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use tokio::task::spawn_blocking;

use super::Kind;
use crate::{
    Failure,
    real::{RealCluster, Version},
};

/// What servers of one's own are started with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSettings {
    /// How many brokers the name server has.
    pub brokers: u16,
    /// Whether a send to an unknown topic creates it.
    pub auto_create_topics: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            brokers: 1,
            auto_create_topics: true,
        }
    }
}

/// A cluster for one scenario alone. It ends when dropped.
#[derive(Debug)]
pub struct Server(Running);

#[derive(Debug)]
enum Running {
    Real(Arc<RealCluster>),
}

impl Server {
    pub(super) async fn start(kind: Kind, settings: ServerSettings) -> Result<Self, Failure> {
        match kind {
            Kind::Rocketmq5 => Self::start_real(Version::V5, settings).await,
            Kind::Rocketmq4 => Self::start_real(Version::V4, settings).await,
            _ => Err(format!("{kind} has no servers of one's own").into()),
        }
    }

    async fn start_real(version: Version, settings: ServerSettings) -> Result<Self, Failure> {
        let wishes = BTreeMap::from([(
            "autoCreateTopicEnable".to_owned(),
            settings.auto_create_topics.to_string(),
        )]);
        let start = move || RealCluster::start(version, settings.brokers, &wishes);
        Ok(Self(Running::Real(Arc::new(spawn_blocking(start).await??))))
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> String {
        match &self.0 {
            Running::Real(cluster) => cluster.name_server(),
        }
    }

    /// Ends a broker at once, as a crash does. What it acknowledged it must still have when it is restarted.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, broker: usize) -> Result<(), Failure> {
        self.on_real(move |cluster| cluster.kill(broker)).await
    }

    /// Starts a broker that was killed, with its data, and waits until it serves.
    ///
    /// # Errors
    /// When it runs, or does not get ready.
    pub async fn restart(&self, broker: usize) -> Result<(), Failure> {
        self.on_real(move |cluster| cluster.restart(broker)).await
    }

    /// Makes a broker fall silent, with its connections open.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&self, broker: usize) -> Result<(), Failure> {
        self.on_real(move |cluster| cluster.freeze(broker)).await
    }

    /// Ends the silence.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&self, broker: usize) -> Result<(), Failure> {
        self.on_real(move |cluster| cluster.thaw(broker)).await
    }

    async fn on_real(
        &self,
        action: impl FnOnce(&RealCluster) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        match &self.0 {
            Running::Real(cluster) => {
                let cluster = Arc::clone(cluster);
                spawn_blocking(move || action(&cluster)).await?
            }
        }
    }
}

/// The name server of the servers that all scenarios of this process share. The first caller starts them; they end
/// with the process.
pub(super) async fn shared(kind: Kind) -> Result<String, Failure> {
    #[cfg(feature = "docker")]
    if let Some(name_server) = shared_container(kind).await? {
        return Ok(name_server);
    }
    static V5: OnceLock<Result<RealCluster, String>> = OnceLock::new();
    static V4: OnceLock<Result<RealCluster, String>> = OnceLock::new();
    let (cell, version) = match kind {
        Kind::Rocketmq5 => (&V5, Version::V5),
        Kind::Rocketmq4 => (&V4, Version::V4),
        _ => return Err(format!("{kind} cannot be started").into()),
    };
    let start = move || {
        let started = cell.get_or_init(|| {
            RealCluster::start(version, 1, &BTreeMap::new()).map_err(|error| error.to_string())
        });
        started
            .as_ref()
            .map(RealCluster::name_server)
            .map_err(Clone::clone)
    };
    Ok(spawn_blocking(start).await??)
}

#[cfg(feature = "docker")]
async fn shared_container(kind: Kind) -> Result<Option<String>, Failure> {
    use super::docker::Container;
    use tokio::sync::OnceCell;

    static V5: OnceCell<Result<Container, String>> = OnceCell::const_new();
    static V4: OnceCell<Result<Container, String>> = OnceCell::const_new();
    let (cell, version) = match kind {
        Kind::Docker5 => (&V5, Version::V5),
        Kind::Docker4 => (&V4, Version::V4),
        _ => return Ok(None),
    };
    let start = async || {
        Container::start(version.number())
            .await
            .map_err(|error| error.to_string())
    };
    match cell.get_or_init(start).await {
        Ok(container) => Ok(Some(container.name_server().to_owned())),
        Err(error) => Err(error.clone().into()),
    }
}
