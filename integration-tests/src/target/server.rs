//! Servers that are started here: shared ones, and ones that a scenario may break.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::{
    runtime::{Builder, Runtime},
    sync::OnceCell,
    task::spawn_blocking,
};

use super::Kind;
#[cfg(feature = "docker")]
use super::docker;
use crate::{
    Failure,
    real::{RealCluster, Version},
    scenario::skip,
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
    Embedded(EmbeddedBroker),
    Real(Arc<RealCluster>),
}

impl Server {
    pub(super) async fn start(kind: Kind, settings: ServerSettings) -> Result<Self, Failure> {
        match kind {
            Kind::Embedded if settings.brokers == 1 => {
                let builder = EmbeddedBroker::builder().auto_create_topics(settings.auto_create_topics);
                Ok(Self(Running::Embedded(builder.start().await?)))
            }
            Kind::Embedded => Err(skip("an embedded broker is alone")),
            Kind::Rocketmq5 => Self::start_real(Version::V5, settings).await,
            Kind::Rocketmq4 => Self::start_real(Version::V4, settings).await,
            _ => Err(skip(format!("{kind}: these servers are not ours to break"))),
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
            Running::Embedded(broker) => broker.name_server(),
            Running::Real(cluster) => cluster.name_server(),
        }
    }

    /// Ends a broker at once, as a crash does. What it acknowledged it must still have when it is restarted.
    /// The embedded broker takes its name server with it.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(embedded) => {
                embedded.kill().await;
                Ok(())
            }
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.kill(broker)).await,
        }
    }

    /// Starts a broker that was killed, with its data, and waits until it serves.
    ///
    /// # Errors
    /// When it runs, or does not get ready.
    pub async fn restart(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(embedded) => Ok(embedded.restart().await?),
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.restart(broker)).await,
        }
    }

    /// Makes a broker fall silent, with its connections open.
    ///
    /// # Errors
    /// When it does not run; a [`skip`] on the embedded broker, which cannot stop without the test.
    pub async fn freeze(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(_) => Err(skip("an embedded broker is not a process to be stopped")),
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.freeze(broker)).await,
        }
    }

    /// Ends the silence.
    ///
    /// # Errors
    /// When it does not run; a [`skip`] on the embedded broker.
    pub async fn thaw(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(_) => Err(skip("an embedded broker is not a process to be stopped")),
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.thaw(broker)).await,
        }
    }
}

/// The real servers' calls block.
async fn on_thread(
    cluster: &Arc<RealCluster>,
    action: impl FnOnce(&RealCluster) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let cluster = Arc::clone(cluster);
    spawn_blocking(move || action(&cluster)).await?
}

/// The name server of the servers that all scenarios of this process share. The first caller starts them; they end
/// with the process.
pub(super) async fn shared(kind: Kind) -> Result<String, Failure> {
    static V5: OnceLock<Result<RealCluster, String>> = OnceLock::new();
    static V4: OnceLock<Result<RealCluster, String>> = OnceLock::new();
    let (cell, version) = match kind {
        Kind::Embedded => return shared_embedded().await,
        Kind::Rocketmq5 => (&V5, Version::V5),
        Kind::Rocketmq4 => (&V4, Version::V4),
        #[cfg(feature = "docker")]
        Kind::Docker5 | Kind::Docker4 => return docker::shared(kind).await,
        Kind::Address => return Err(format!("{kind} cannot be started").into()),
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

/// Each scenario has a runtime of its own that ends with it, so the shared broker has one too.
async fn shared_embedded() -> Result<String, Failure> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    static BROKER: OnceCell<Result<EmbeddedBroker, String>> = OnceCell::const_new();
    let broker = BROKER
        .get_or_init(async || {
            let runtime = RUNTIME.get_or_init(|| {
                let built = Builder::new_multi_thread().worker_threads(2).enable_all().build();
                built.map_err(|error| error.to_string())
            });
            let starting = runtime
                .as_ref()
                .map_err(Clone::clone)?
                .spawn(EmbeddedBroker::start());
            let started = starting.await.map_err(|error| error.to_string())?;
            started.map_err(|error| error.to_string())
        })
        .await;
    match broker {
        Ok(broker) => Ok(broker.name_server()),
        Err(error) => Err(error.clone().into()),
    }
}
