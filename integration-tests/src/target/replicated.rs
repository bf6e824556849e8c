//! A master and its slave.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::task::spawn_blocking;

use super::{Kind, server::on_thread};
use crate::{
    Failure,
    real::{RealCluster, Version},
    scenario::skip,
};

const MASTER: usize = 0;
const SLAVE: usize = 1;

/// One broker with a slave that may be read (`slaveReadEnable`), for one scenario alone. It ends when dropped.
#[derive(Debug)]
pub struct Replicated(Running);

#[derive(Debug)]
enum Running {
    /// The slave reads the same store; the name server ends with the master.
    Embedded(Box<EmbeddedBroker>),
    Real(Arc<RealCluster>),
}

impl Replicated {
    pub(super) async fn start(kind: Kind) -> Result<Self, Failure> {
        let version = match kind {
            Kind::Embedded => {
                let broker = EmbeddedBroker::builder().slave(true).start().await?;
                return Ok(Self(Running::Embedded(Box::new(broker))));
            }
            Kind::Rocketmq5 => Version::V5,
            Kind::Rocketmq4 => Version::V4,
            _ => return Err(skip(format!("{kind}: no slave to be had"))),
        };
        let start = move || RealCluster::start_replicated(version, &BTreeMap::new());
        Ok(Self(Running::Real(Arc::new(spawn_blocking(start).await??))))
    }

    /// The embedded broker, for what cannot be done to a real one.
    #[must_use]
    pub fn embedded(&self) -> Option<&EmbeddedBroker> {
        match &self.0 {
            Running::Embedded(broker) => Some(broker),
            Running::Real(_) => None,
        }
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> String {
        match &self.0 {
            Running::Embedded(broker) => broker.name_server(),
            Running::Real(cluster) => cluster.name_server(),
        }
    }

    /// The address of the master.
    ///
    /// # Errors
    /// None in practice.
    pub fn master(&self) -> Result<SocketAddr, Failure> {
        match &self.0 {
            Running::Embedded(broker) => Ok(broker.broker_address().parse()?),
            Running::Real(cluster) => cluster.broker_address(MASTER),
        }
    }

    /// The address of the slave.
    ///
    /// # Errors
    /// None in practice.
    pub fn slave(&self) -> Result<SocketAddr, Failure> {
        match &self.0 {
            Running::Embedded(broker) => broker.slave_address().ok_or_else(|| "no slave".into()),
            Running::Real(cluster) => cluster.broker_address(SLAVE),
        }
    }

    /// Ends the master as a crash does.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_master(&self) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(broker) => broker.kill().await,
            Running::Real(cluster) => on_thread(cluster, |cluster| cluster.kill(MASTER)).await?,
        }
        Ok(())
    }

    /// Starts the master again with its data.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart_master(&self) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(broker) => Ok(broker.restart().await?),
            Running::Real(cluster) => on_thread(cluster, |cluster| cluster.restart(MASTER)).await,
        }
    }

    /// Ends the slave as a crash does.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_slave(&self) -> Result<(), Failure> {
        match &self.0 {
            Running::Embedded(broker) => broker.kill_slave().await,
            Running::Real(cluster) => on_thread(cluster, |cluster| cluster.kill(SLAVE)).await?,
        }
        Ok(())
    }
}
