//! Output bindings: producers shared by those that send alike.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rocketmq_client::{self as client, Client, Producer};
use tokio::sync::OnceCell;
use tracing::warn;

use super::message::outgoing;
use crate::binder::{BindError, Outbound, OutboundError, ProducerBinding, SendReceipt, SendStatus};
use crate::config::{Config, RocketMqProducerProperties, SendType};
use crate::failure::ErrorChain;
use crate::message::Message;

/// The producers by what they are asked to do. Bindings of one group with the same properties share one.
#[derive(Debug, Default)]
pub(super) struct Producers(Mutex<HashMap<RocketMqProducerProperties, Arc<OnceCell<Producer>>>>);

impl Producers {
    /// The producer with these properties, started by whoever asks first.
    async fn of(&self, client: &Client, properties: &RocketMqProducerProperties) -> client::Result<Producer> {
        let cell = {
            let mut producers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(producers.entry(properties.clone()).or_default())
        };
        cell.get_or_try_init(|| start(client, properties)).await.cloned()
    }
}

async fn start(client: &Client, properties: &RocketMqProducerProperties) -> client::Result<Producer> {
    let retries = match properties.send_type {
        SendType::Sync => properties.retry_times_when_send_failed,
        SendType::Async => properties.retry_times_when_send_async_failed,
        SendType::OneWay => 0,
    };
    let threshold = properties.compress_msg_body_threshold;
    client
        .producer(properties.group.as_str())
        .send_timeout(properties.send_msg_timeout)
        .max_attempts(retries.saturating_add(1))
        .retry_when_not_stored_ok(properties.retry_another_broker)
        .max_message_bytes(usize::try_from(properties.max_message_size).unwrap_or(usize::MAX))
        .compress_from_bytes(usize::try_from(threshold).unwrap_or(usize::MAX))
        .start()
        .await
}

/// Finds or starts the producer of a binding; that of the bridge's topics has the properties of no binding.
pub(super) async fn bind(
    client: &Client,
    config: &Config,
    producers: &Producers,
    binding: &ProducerBinding,
) -> Result<Arc<dyn Outbound>, BindError> {
    let name = binding.name.as_deref().unwrap_or_default();
    let properties = config.rocketmq().producer(name);
    let producer = producers.of(client, &properties).await.map_err(|error| {
        let name = if name.is_empty() { "StreamBridge" } else { name };
        BindError::new(name, ErrorChain(&error).to_string())
    })?;
    Ok(Arc::new(Sender {
        producer,
        send_type: properties.send_type,
    }))
}

/// The sender of one output binding.
#[derive(Debug)]
struct Sender {
    producer: Producer,
    send_type: SendType,
}

#[async_trait]
impl Outbound for Sender {
    async fn send(&self, topic: &str, message: Message) -> Result<SendReceipt, OutboundError> {
        let message = outgoing(topic, &message)?;
        match self.send_type {
            SendType::Sync => {
                let receipt = self.producer.send(message).await.map_err(failed)?;
                Ok(confirmed(topic, receipt))
            }
            SendType::Async => {
                // Waits for room, so that a fast sender is slowed down rather than refused.
                self.producer.ready().await.map_err(failed)?;
                let name: Arc<str> = topic.into();
                let topic = Arc::clone(&name);
                self.producer.send(message).on_complete(move |result| {
                    if let Err(error) = result {
                        let (persisted, error) = (error.persisted(), ErrorChain(&error));
                        warn!(topic = &*name, %error, ?persisted, "an asynchronous send failed");
                    }
                });
                Ok(unconfirmed(topic))
            }
            SendType::OneWay => {
                self.producer.send(message).one_way().await.map_err(failed)?;
                Ok(unconfirmed(topic.into()))
            }
        }
    }
}

fn confirmed(topic: &str, receipt: client::SendReceipt) -> SendReceipt {
    let status = match receipt.status {
        client::SendStatus::Ok => SendStatus::Ok,
        client::SendStatus::FlushDiskTimeout => SendStatus::FlushDiskTimeout,
        client::SendStatus::FlushSlaveTimeout => SendStatus::FlushSlaveTimeout,
        client::SendStatus::SlaveNotAvailable => SendStatus::SlaveNotAvailable,
        _ => SendStatus::Unconfirmed,
    };
    SendReceipt::new(
        receipt.message_id,
        topic,
        receipt.queue.queue_id,
        receipt.queue_offset,
    )
    .broker(receipt.queue.broker_name)
    .status(status)
}

fn unconfirmed(topic: Arc<str>) -> SendReceipt {
    SendReceipt::new("", topic, -1, -1).status(SendStatus::Unconfirmed)
}

fn failed(error: client::Error) -> OutboundError {
    let failed = OutboundError::new(ErrorChain(&error).to_string(), error.persisted());
    if error.is_retryable() {
        failed
    } else {
        failed.permanent()
    }
}
