//! The clusters that scenarios run on.
//!
//! `TARGETS` is a comma list of `embedded` (the default), `rocketmq-5`, `rocketmq-4`, `host:port` of a name server
//! somewhere, and with the feature `docker` also `docker-5` and `docker-4`. The servers of a kind are started once per
//! process and shared by its scenarios, so names of topics and groups are unique to each run. A scenario that breaks
//! servers asks for its own, a [`Server`].

#[cfg(feature = "docker")]
mod docker;
mod embedded;
mod replicated;
pub mod secure;
mod server;

use std::{
    env, fmt,
    net::SocketAddr,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use rocketmq_client::protocol::{
    Json, ResponseCode,
    bodies::{MASTER_ID, TopicFilterType, permission},
    requests::{BrokerClusterInfo, CreateTopic, RouteInfo},
};
use tokio::net::lookup_host;

pub use replicated::Replicated;
pub use server::{Pair, Server, ServerSettings};

use crate::{
    Failure,
    admin::{call, refused_with},
    scenario::eventually,
};

/// A kind of target: one test of every scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The embedded broker, in this process.
    Embedded,
    /// Apache RocketMQ 5.5.0 as child processes.
    Rocketmq5,
    /// Apache RocketMQ 4.9.7 as child processes.
    Rocketmq4,
    /// A cluster that somebody else runs.
    Address,
    /// The official 5.x image, where Docker runs.
    #[cfg(feature = "docker")]
    Docker5,
    /// The official 4.9 image, where Docker runs.
    #[cfg(feature = "docker")]
    Docker4,
}

impl Kind {
    /// The targets of this kind in `TARGETS`; several addresses are several targets.
    ///
    /// # Errors
    /// When `TARGETS` holds something that is not a target: a misspelt one must not look like a success.
    pub fn selected(self) -> Result<Vec<Choice>, Failure> {
        let targets = env::var("TARGETS").unwrap_or_default();
        let mut choices = parse(&targets)?;
        choices.retain(|choice| choice.kind == self);
        Ok(choices)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Rocketmq5 => "rocketmq-5",
            Self::Rocketmq4 => "rocketmq-4",
            Self::Address => "host:port",
            #[cfg(feature = "docker")]
            Self::Docker5 => "docker-5",
            #[cfg(feature = "docker")]
            Self::Docker4 => "docker-4",
        })
    }
}

/// One entry of `TARGETS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    kind: Kind,
    address: Option<String>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => f.write_str(address),
            None => self.kind.fmt(f),
        }
    }
}

fn parse(targets: &str) -> Result<Vec<Choice>, Failure> {
    let mut choices = Vec::new();
    for entry in targets
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let (kind, address) = match entry {
            "embedded" => (Kind::Embedded, None),
            "rocketmq-5" => (Kind::Rocketmq5, None),
            "rocketmq-4" => (Kind::Rocketmq4, None),
            #[cfg(feature = "docker")]
            "docker-5" => (Kind::Docker5, None),
            #[cfg(feature = "docker")]
            "docker-4" => (Kind::Docker4, None),
            #[cfg(not(feature = "docker"))]
            "docker-5" | "docker-4" => {
                return Err(format!("target {entry} of TARGETS needs `--features docker`").into());
            }
            _ if entry
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                (Kind::Address, Some(entry.to_owned()))
            }
            _ => {
                return Err(format!(
                    "{entry:?} in TARGETS is no target: embedded, rocketmq-5, rocketmq-4, docker-5, docker-4 or host:port"
                )
                .into());
            }
        };
        choices.push(Choice { kind, address });
    }
    if choices.is_empty() {
        choices.push(Choice {
            kind: Kind::Embedded,
            address: None,
        });
    }
    Ok(choices)
}

/// A running cluster, and names in it that nobody else uses.
#[derive(Debug)]
pub struct Target {
    kind: Kind,
    scenario: String,
    name_server: String,
    /// Makes the names of this run of this scenario its own.
    run: String,
}

impl Target {
    /// Connects to the shared servers of a kind, and starts them first if this is their first use.
    ///
    /// # Errors
    /// When they cannot be started or reached.
    pub async fn open(choice: &Choice, scenario: &str) -> Result<Self, Failure> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let name_server = match &choice.address {
            Some(address) => address.clone(),
            None => server::shared(choice.kind).await?,
        };
        // Long names break limits of the servers (127 for a topic), so the scenario lends its beginning only.
        let stem: String = scenario.chars().take(40).collect();
        let count = RUNS.fetch_add(1, Ordering::Relaxed);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self {
            kind: choice.kind,
            scenario: scenario.to_owned(),
            name_server,
            run: format!("{stem}-{seconds:x}-{:x}-{count}", process::id()),
        })
    }

    /// Of which kind this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The scenario that it was opened for.
    #[must_use]
    pub fn scenario(&self) -> &str {
        &self.scenario
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> &str {
        &self.name_server
    }

    /// A topic name for this run alone. The topic does not exist yet.
    #[must_use]
    pub fn topic(&self, stem: &str) -> String {
        format!("{stem}-{}", self.run)
    }

    /// A group name for this run alone.
    #[must_use]
    pub fn group(&self, stem: &str) -> String {
        format!("{stem}-{}", self.run)
    }

    /// The address of the name server, looked up if it is a name.
    ///
    /// # Errors
    /// When the name is unknown.
    pub async fn name_server_address(&self) -> Result<SocketAddr, Failure> {
        resolve(&self.name_server).await
    }

    /// The addresses of the masters, in the order of their names.
    ///
    /// # Errors
    /// When the name server does not answer, or knows no broker.
    pub async fn brokers(&self) -> Result<Vec<SocketAddr>, Failure> {
        brokers(&self.name_server).await
    }

    /// The address of the first master: the only one of the shared servers.
    ///
    /// # Errors
    /// As [`brokers`](Self::brokers).
    pub async fn first_broker(&self) -> Result<SocketAddr, Failure> {
        let brokers = self.brokers().await?;
        brokers.first().copied().ok_or_else(|| "no broker".into())
    }

    /// Creates a topic on every broker, and returns when the name server knows it.
    ///
    /// # Errors
    /// When a broker refuses, or the name server does not hear of the topic.
    pub async fn create_topic(&self, topic: &str, queues_on_each_broker: i32) -> Result<(), Failure> {
        create_topic(&self.name_server, topic, queues_on_each_broker).await
    }

    /// Servers of the same kind for one scenario alone, which may break them.
    ///
    /// # Errors
    /// A [`skip`](crate::scenario::skip) when somebody else runs the servers, a failure when they do not start.
    pub async fn own_servers(&self, settings: ServerSettings) -> Result<Server, Failure> {
        Server::start(self.kind, settings).await
    }

    /// A master with a slave of the same kind, for this scenario alone.
    ///
    /// # Errors
    /// As [`own_servers`](Self::own_servers).
    pub async fn replicated(&self) -> Result<Replicated, Failure> {
        Replicated::start(self.kind).await
    }

    /// Two brokers of the same kind, for this scenario alone until it drops them: it may break them, and the next one
    /// gets them mended. What other scenarios stored is still there.
    ///
    /// # Errors
    /// As [`own_servers`](Self::own_servers).
    pub async fn pair(&self) -> Result<Pair, Failure> {
        Pair::open(self.kind).await
    }
}

/// As [`Target::brokers`], of any name server.
///
/// # Errors
/// When the name server does not answer, or knows no broker.
pub async fn brokers(name_server: &str) -> Result<Vec<SocketAddr>, Failure> {
    let Json(cluster) = call(resolve(name_server).await?, &BrokerClusterInfo {}).await?;
    let mut addresses = Vec::new();
    for broker in cluster.broker_addr_table.values() {
        if let Some(address) = broker.broker_addrs.get(&MASTER_ID) {
            addresses.push(resolve(address).await?);
        }
    }
    if addresses.is_empty() {
        return Err(format!("name server {name_server} knows no broker").into());
    }
    Ok(addresses)
}

/// As [`Target::create_topic`], on any cluster.
///
/// # Errors
/// When a broker refuses, or the name server does not hear of the topic.
pub async fn create_topic(name_server: &str, topic: &str, queues_on_each_broker: i32) -> Result<(), Failure> {
    let brokers = brokers(name_server).await?;
    let request = CreateTopic {
        topic: topic.to_owned(),
        default_topic: "TBW102".to_owned(),
        read_queue_nums: queues_on_each_broker,
        write_queue_nums: queues_on_each_broker,
        perm: permission::READ | permission::WRITE,
        topic_filter_type: TopicFilterType::SingleTag,
        topic_sys_flag: Some(0),
        order: false,
        attributes: None,
    };
    for broker in &brokers {
        call(*broker, &request).await?;
    }
    let name_server = resolve(name_server).await?;
    let route = RouteInfo {
        topic: topic.to_owned(),
        accept_standard_json_only: Some(true),
    };
    eventually(
        &format!("a route of {topic} to {} brokers", brokers.len()),
        async || match call(name_server, &route).await {
            Ok(Json(route)) => Ok(route.queue_datas.len() == brokers.len()),
            Err(error) if refused_with(&error, ResponseCode::TOPIC_NOT_EXIST) => Ok(false),
            Err(error) => Err(error),
        },
    )
    .await
}

async fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let found = lookup_host(address)
        .await
        .map_err(|error| format!("{address}: {error}"))?
        .next();
    found.ok_or_else(|| format!("{address} has no address").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_broker_is_the_default() {
        for targets in ["", " ", ","] {
            assert_eq!(
                parse(targets).unwrap(),
                [Choice {
                    kind: Kind::Embedded,
                    address: None
                }]
            );
        }
    }

    #[test]
    fn kinds_and_addresses_are_told_apart() {
        let choices = parse("rocketmq-5, embedded,[::1]:9876,example.org:1").unwrap();
        let kinds: Vec<Kind> = choices.iter().map(|choice| choice.kind).collect();
        assert_eq!(
            kinds,
            [Kind::Rocketmq5, Kind::Embedded, Kind::Address, Kind::Address]
        );
        assert_eq!(choices[2].address.as_deref(), Some("[::1]:9876"));
    }

    #[test]
    fn a_misspelt_target_is_an_error() {
        for targets in [
            "rocketmq5",
            "embedded,localhost",
            ":80",
            "host:port",
            "host:99999",
        ] {
            assert!(parse(targets).is_err(), "{targets}");
        }
    }
}
