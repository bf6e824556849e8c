//! The RocketMQ binder: bindings on the one client of a cluster.
//!
//! However many bindings there are, they share one [`Client`]: one connection per broker, one heartbeat, one route
//! cache. An input binding is a push consumer, an output binding uses the producer of its group.
//!
//! A failed delivery is given back to the broker, which delivers it again later and in the end moves it to
//! `%DLQ%<group>`; `push.max-reconsume-times` and `push.delay-level-when-next-consume` say how often and when.
//! [`Failure::reject`](crate::Failure::reject) moves a message there at once.

#[cfg(feature = "embedded")]
mod embedded;
mod inbound;
mod message;
mod outbound;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rocketmq_client::Client;
use tokio::time;
use tracing::warn;

use crate::binder::{
    BindError, Binder, BoundConsumer, ConsumerBinding, DeliveryHandler, Outbound, ProducerBinding,
};
use crate::config::Config;
use crate::failure::ErrorChain;

/// Binds functions to the topics of one RocketMQ cluster.
///
/// [`App`](crate::App) makes one by itself. Make it by hand to bind several applications of one process to the
/// same client, or to wrap it.
#[derive(Debug)]
pub struct RocketMqBinder {
    client: Client,
    config: Config,
    producers: outbound::Producers,
    #[cfg(feature = "embedded")]
    embedded: Option<embedded::Embedded>,
}

impl RocketMqBinder {
    /// Connects to the name servers that `config` has. Where it has none, the feature `embedded` starts a broker inside
    /// this process, which ends with the binder.
    ///
    /// # Errors
    /// [`ConnectError`] when no name server can be reached or none is configured.
    ///
    /// # Cancellation
    /// Leaves nothing running.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let properties = config.rocketmq().binder();
        #[cfg(feature = "embedded")]
        let (embedded, name_servers) = if properties.name_servers.is_empty() {
            let (embedded, name_server) = embedded::Embedded::start().await?;
            (Some(embedded), vec![name_server])
        } else {
            (None, properties.name_servers)
        };
        #[cfg(not(feature = "embedded"))]
        let name_servers = properties.name_servers;
        if name_servers.is_empty() {
            return Err(ConnectError(
                "no name server is configured: set spring.cloud.stream.rocketmq.binder.name-server or the environment \
                 variable NAMESRV_ADDR to host:port, or build with the feature `embedded` for a broker in this process"
                    .to_owned(),
            ));
        }
        let client = Client::builder(name_servers.join(";"))
            .heartbeat_interval(properties.heartbeat_broker_interval)
            .route_refresh_interval(properties.poll_name_server_interval)
            .shutdown_grace(config.shutdown_timeout())
            .connect()
            .await
            .map_err(|error| {
                let key = "spring.cloud.stream.rocketmq.binder.name-server";
                ConnectError(format!(
                    "{}; the address comes from {key} ({})",
                    ErrorChain(&error),
                    config.origin(key)
                ))
            })?;
        Ok(Self {
            client,
            config: config.clone(),
            producers: outbound::Producers::default(),
            #[cfg(feature = "embedded")]
            embedded,
        })
    }

    /// The client that all bindings share, for what bindings do not offer.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Has the embedded broker, if there is one, create the topic of a binding before anybody looks for it. A topic
    /// that comes into being with its first message is seen by consumers only some moments later.
    #[cfg(feature = "embedded")]
    async fn create_topic(&self, binding: &str, topic: &str) -> Result<(), BindError> {
        match &self.embedded {
            Some(embedded) => embedded.create_topic(&self.client, topic).await.map_err(|error| {
                BindError::new(
                    binding,
                    format!(
                        "the embedded broker refuses topic {topic}: {}",
                        ErrorChain(&error)
                    ),
                )
            }),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Binder for RocketMqBinder {
    fn kind(&self) -> &str {
        "rocketmq"
    }

    async fn bind_consumer(
        &self,
        binding: ConsumerBinding,
        handler: DeliveryHandler,
    ) -> Result<Box<dyn BoundConsumer>, BindError> {
        #[cfg(feature = "embedded")]
        self.create_topic(&binding.name, &binding.destination).await?;
        inbound::bind(&self.client, &self.config, binding, handler).await
    }

    async fn bind_producer(&self, binding: ProducerBinding) -> Result<Arc<dyn Outbound>, BindError> {
        #[cfg(feature = "embedded")]
        if let (Some(name), Some(destination)) = (&binding.name, &binding.destination) {
            self.create_topic(name, destination).await?;
        }
        outbound::bind(&self.client, &self.config, &self.producers, &binding).await
    }

    async fn shutdown(&self, grace: Duration) {
        if time::timeout(grace, self.client.shutdown()).await.is_err() {
            warn!(
                ?grace,
                "the client was not shut down within the grace; what was in flight is given up"
            );
        }
        #[cfg(feature = "embedded")]
        if let Some(embedded) = &self.embedded {
            embedded.stop().await;
        }
    }
}

/// Why a cluster cannot be used: which address, where it was configured, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError(String);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConnectError {}
