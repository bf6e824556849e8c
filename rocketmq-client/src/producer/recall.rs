//! Taking back a message before it is delivered.
//!
//! Protocol source: `DefaultMQProducerImpl#recallMessage`, `RecallMessageProcessor`.

use super::Producer;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::requests::RecallMessage;
use crate::protocol::{BrokerVersion, RecallHandle, ResponseCode, names};

impl Producer {
    /// Takes back a message that waits for its delivery time, by the handle that its [receipt] has. Gives the id of the
    /// message. A message that was delivered meanwhile stays delivered: brokers refuse a handle whose time has come.
    ///
    /// [receipt]: crate::SendReceipt::recall_handle
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::builder().recall_messages(true).start().await?;
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, Message};
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    /// let producer = client.producer("orders-svc").start().await?;
    /// let reminder = Message::new("reminders", "pay").delay(Duration::from_secs(3600));
    /// let receipt = producer.send(reminder).await?;
    /// if let Some(handle) = &receipt.recall_handle {
    ///     assert_eq!(producer.recall("reminders", handle).await?, receipt.message_id);
    /// }
    /// client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a text that is no handle, or one of another topic; [`ErrorKind::Unsupported`] from a
    /// broker before 5.3.2; [`ErrorKind::Rejected`] from a broker where it is turned off, as it is by default
    /// (`recallMessageEnable`), or that finds the time of the message past or too far away.
    ///
    /// # Cancellation
    /// The message may be taken back or not.
    pub async fn recall(&self, topic: &str, handle: &str) -> Result<String> {
        let core = self.core();
        core.check_open()?;
        let wrong = |reason: String| Error::config(format!("recall of a message to topic {topic}: {reason}"));
        names::check_topic(topic).map_err(|error| wrong(error.to_string()))?;
        let parsed: RecallHandle = handle
            .parse()
            .map_err(|error| wrong(format!("{error}; pass the recall_handle of a receipt as it is")))?;
        let wire_topic = core.cluster.wire_name(topic);
        if parsed.topic != wire_topic {
            return Err(wrong(format!(
                "the handle is of a message to topic {}",
                parsed.topic
            )));
        }
        let context = format_args!("recall of message {} to topic {topic}", parsed.unique_key).to_string();
        // Makes the address of the broker known if nothing was sent yet.
        core.cluster
            .route(topic)
            .await
            .map_err(|error| error.context(&context))?;
        let address = core.cluster.master_addr(&parsed.broker_name).await?;
        let request = RecallMessage {
            producer_group: Some(core.wire_group.clone()),
            topic: wire_topic.into_owned(),
            recall_handle: handle.to_owned(),
            broker_name: Some(parsed.broker_name.clone()),
        };
        let timeout = core.options.send_timeout;
        let recalled = core.cluster.call_addr(&address, &request, timeout).await;
        if recalled
            .as_ref()
            .map_or_else(|error| error.response().is_some(), |_| true)
        {
            core.trace_recall(topic, &parsed.unique_key, recalled.is_ok());
        }
        match recalled {
            Ok(recalled) => Ok(recalled.msg_id),
            Err(error) => Err(explain(error).context(context)),
        }
    }
}

/// Adds what can be done about it.
fn explain(error: Error) -> Error {
    if error.kind() == ErrorKind::Unsupported {
        return error.context(format_args!(
            "the broker cannot take messages back, which is done from {} on",
            BrokerVersion::V5_3_2
        ));
    }
    match error.response() {
        Some((ResponseCode::NO_PERMISSION, _)) => error.context("turn on recallMessageEnable at the broker"),
        Some((ResponseCode::ILLEGAL_OPERATION, _)) => {
            error.context("the message was delivered, or is of another broker")
        }
        _ => error,
    }
}
