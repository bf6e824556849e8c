//! The broker inside this process, for a first run without a cluster.

use std::sync::{Mutex, PoisonError};

use rocketmq_client::protocol::bodies::{TopicFilterType, permission};
use rocketmq_client::protocol::requests::CreateTopic;
use rocketmq_client::{Client, Result};
use rocketmq_embedded_broker::{DEFAULT_QUEUES, EmbeddedBroker};
use tracing::info;

use super::ConnectError;

/// A broker that lives as long as the binder. Its messages are in memory alone.
#[derive(Debug)]
pub(super) struct Embedded(Mutex<Option<EmbeddedBroker>>);

impl Embedded {
    pub(super) async fn start() -> std::result::Result<(Self, String), ConnectError> {
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

    /// Creates a topic as a first message would create it; one that exists stays as it is.
    pub(super) async fn create_topic(&self, client: &Client, topic: &str) -> Result<()> {
        let address = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(EmbeddedBroker::broker_address);
        let Some(address) = address else {
            return Ok(()); // stopped: whoever uses the topic will be told
        };
        let request = CreateTopic {
            topic: topic.to_owned(),
            default_topic: "TBW102".to_owned(),
            read_queue_nums: DEFAULT_QUEUES,
            write_queue_nums: DEFAULT_QUEUES,
            perm: permission::READ | permission::WRITE,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_sys_flag: Some(0),
            order: false,
            attributes: None,
        };
        client.call(address, request).await.map(drop)
    }

    /// Stops it; calling it again is harmless.
    pub(super) async fn stop(&self) {
        let broker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(broker) = broker {
            broker.shutdown().await;
        }
    }
}
