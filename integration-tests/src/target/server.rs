//! Servers that are started here: shared ones, and ones that a scenario may break.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rocketmq_embedded_broker::{Builder, EmbeddedBroker};
use tokio::{
    runtime::{self, Runtime},
    sync::{MappedMutexGuard, Mutex, MutexGuard, OnceCell},
    task::spawn_blocking,
};

#[cfg(feature = "docker")]
use super::docker;
use super::{Kind, embedded::EmbeddedCluster};
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
    /// Further settings of real brokers, in their own words. The embedded one knows `rejectTransactionMessage` alone.
    pub broker: BTreeMap<String, String>,
}

impl ServerSettings {
    /// Two brokers.
    #[must_use]
    pub fn pair() -> Self {
        Self {
            brokers: 2,
            ..Self::default()
        }
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            brokers: 1,
            auto_create_topics: true,
            broker: BTreeMap::new(),
        }
    }
}

/// A cluster that a scenario may break. It ends when dropped.
#[derive(Debug)]
pub struct Server(Running);

#[derive(Debug)]
enum Running {
    Embedded(EmbeddedCluster),
    Real(Arc<RealCluster>),
}

impl Server {
    pub(super) async fn start(kind: Kind, settings: ServerSettings) -> Result<Self, Failure> {
        match kind {
            Kind::Embedded => Ok(Self(Running::Embedded(EmbeddedCluster::start(&settings).await?))),
            Kind::Rocketmq5 => Self::start_real(Version::V5, settings).await,
            Kind::Rocketmq4 => Self::start_real(Version::V4, settings).await,
            _ => Err(skip(format!("{kind}: these servers are not ours to break"))),
        }
    }

    async fn start_real(version: Version, settings: ServerSettings) -> Result<Self, Failure> {
        let mut wishes = settings.broker;
        wishes.insert(
            "autoCreateTopicEnable".to_owned(),
            settings.auto_create_topics.to_string(),
        );
        let start = move || RealCluster::start(version, settings.brokers, &wishes);
        Ok(Self(Running::Real(Arc::new(spawn_blocking(start).await??))))
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> String {
        match &self.0 {
            Running::Embedded(cluster) => cluster.name_server(),
            Running::Real(cluster) => cluster.name_server(),
        }
    }

    /// Ends a broker at once, as a crash does. What it acknowledged it must still have when it is restarted.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(cluster) => cluster.kill(broker).await,
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.kill(broker)).await,
        }
    }

    /// Ends a broker as an administrator does: with SIGTERM, so that it says good-bye. The embedded one has nothing to
    /// say or to write, so it is killed.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub async fn stop(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(cluster) => cluster.kill(broker).await,
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.stop(broker)).await,
        }
    }

    /// Starts a broker that was killed or stopped, with its data, and waits until it serves.
    ///
    /// # Errors
    /// When it runs, or does not get ready.
    pub async fn restart(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(cluster) => cluster.restart(broker).await,
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.restart(broker)).await,
        }
    }

    /// Makes a broker fall silent, with its connections open.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(cluster) => cluster.freeze(broker),
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.freeze(broker)).await,
        }
    }

    /// Ends the silence.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&self, broker: usize) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(cluster) => cluster.thaw(broker),
            Running::Real(cluster) => on_thread(cluster, move |cluster| cluster.thaw(broker)).await,
        }
    }

    /// Undoes what a scenario did that failed halfway.
    async fn mend(&self) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(_) => Ok(()),
            Running::Real(cluster) => on_thread(cluster, RealCluster::mend).await,
        }
    }
}

/// Two brokers that one scenario at a time has, and may break: real ones take too long to start to be started for each.
#[derive(Debug)]
pub struct Pair(Held);

#[derive(Debug)]
enum Held {
    Own(Server),
    Shared(MappedMutexGuard<'static, Server>),
}

impl Deref for Pair {
    type Target = Server;

    fn deref(&self) -> &Server {
        match &self.0 {
            Held::Own(server) => server,
            Held::Shared(server) => server,
        }
    }
}

impl Pair {
    pub(super) async fn open(kind: Kind) -> Result<Self, Failure> {
        static V5: Mutex<Option<Server>> = Mutex::const_new(None);
        static V4: Mutex<Option<Server>> = Mutex::const_new(None);
        let shared = match kind {
            Kind::Rocketmq5 => &V5,
            Kind::Rocketmq4 => &V4,
            _ => {
                return Ok(Self(Held::Own(
                    Server::start(kind, ServerSettings::pair()).await?,
                )));
            }
        };
        let mut held = shared.lock().await;
        match held.as_ref() {
            Some(server) => server.mend().await?,
            None => *held = Some(Server::start(kind, ServerSettings::pair()).await?),
        }
        let server = MutexGuard::try_map(held, Option::as_mut).map_err(|_| "the pair was just started")?;
        Ok(Self(Held::Shared(server)))
    }
}

/// An embedded broker with what the real ones here have.
fn embedded() -> Builder {
    EmbeddedBroker::builder()
        .vip_channel(true)
        .trace_topic(true)
        .recall_messages(true)
        .transaction_timeout(Duration::from_secs(1))
        .transaction_check_interval(Duration::from_secs(1))
}

/// The real servers' calls block.
pub(super) async fn on_thread(
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
                let built = runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build();
                built.map_err(|error| error.to_string())
            });
            let starting = runtime.as_ref().map_err(Clone::clone)?.spawn(embedded().start());
            let started = starting.await.map_err(|error| error.to_string())?;
            started.map_err(|error| error.to_string())
        })
        .await;
    match broker {
        Ok(broker) => Ok(broker.name_server()),
        Err(error) => Err(error.clone().into()),
    }
}
