//! Who is connected, and what a member says of itself.

use std::collections::BTreeMap;

use super::Admin;
use super::fan_out::{Merged, PerBroker};
use super::reach::{Place, is_code};
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::bodies::{
    Connection, ConsumeDirectlyResult, ConsumerConnection, ConsumerRunningInfo, MessageQueue,
    ProducerConnection, ProducerInfo,
};
use crate::protocol::requests::{
    AllProducers, ConsumeMessageDirectly, ConsumerConnectionList, ConsumerStatusOfGroup,
    GetConsumerRunningInfo, ProducerConnectionList,
};
use crate::protocol::{Json, ResponseCode};

/// Who is connected, and what a member says of itself.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// use rocketmq_client::Message;
///
/// let admin = client.admin();
/// let producer = client.producer("orders-svc").start().await?;
/// producer.send(Message::new("orders", "1")).await?;
/// match admin.producer_connection("orders-svc", "orders").await {
///     Ok(connected) => println!("{} producers", connected.connection_set.len()),
///     // Brokers know a producer from its first heartbeat on.
///     Err(error) => println!("none yet: {error}"),
/// }
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// The members of a consumer group and what they subscribe. A member has a connection to each broker; each client
    /// is listed once. Java: `examineConsumerConnectionInfo`.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) with `CONSUMER_NOT_ONLINE` if no broker has a member.
    pub async fn consumer_connection(&self, group: &str) -> Result<Merged<ConsumerConnection>> {
        let places = self.places_of_group(group, None).await?;
        let request = ConsumerConnectionList {
            consumer_group: group.to_owned(),
        };
        let all = self.ask(places, &request).await.without(is_offline);
        let all = all.context(format_args!("members of group {group}"));
        all.merge(|merged: &mut ConsumerConnection, Json(found)| {
            let known = std::mem::take(&mut merged.connection_set);
            let mut subscriptions = std::mem::take(&mut merged.subscription_table);
            subscriptions.extend(found.subscription_table);
            *merged = ConsumerConnection {
                connection_set: once_each(known.into_iter().chain(found.connection_set)),
                subscription_table: subscriptions,
                ..found
            };
        })
    }

    /// The producers of a group that are connected to the brokers of a topic; each client is listed once. Java:
    /// `examineProducerConnectionInfo`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`](crate::ErrorKind::TopicNotFound) if no broker has the topic;
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if no broker has a producer of the group.
    pub async fn producer_connection(&self, group: &str, topic: &str) -> Result<Merged<ProducerConnection>> {
        let places = self.places_of_topic(topic).await?;
        let request = ProducerConnectionList {
            producer_group: group.to_owned(),
        };
        // There is no code of its own for "no producer".
        let none = |error: &Error| is_code(error, &[ResponseCode::SYSTEM_ERROR]);
        let all = self.ask(places, &request).await.without(none);
        let all = all.context(format_args!("producers of group {group}"));
        all.merge(|merged: &mut ProducerConnection, Json(found)| {
            let known = std::mem::take(&mut merged.connection_set);
            merged.connection_set = once_each(known.into_iter().chain(found.connection_set));
        })
    }

    /// All producers that are connected to each master of the scope, by group. Java: `getAllProducerInfo`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn producers(&self) -> Result<PerBroker<BTreeMap<String, Vec<ProducerInfo>>>> {
        let places = self.masters().await?;
        let all = self.ask(places, &AllProducers {}).await;
        Ok(all.map(|Json(found)| found.data))
    }

    /// What a member of a group says of itself: settings, queues, rates, and the stacks of its threads if they are
    /// wanted and it is written in Java. The broker asks the member. Java: `getConsumerRunningInfo`.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) with `SYSTEM_ERROR` if the member is connected to no broker
    /// of its group, with `CONSUME_MSG_TIMEOUT` if it does not answer the broker within ten seconds;
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the broker does not answer within
    /// [`timeout`](Self::timeout).
    pub async fn consumer_running_info(
        &self,
        group: &str,
        client_id: &str,
        stacks: bool,
    ) -> Result<ConsumerRunningInfo> {
        let request = GetConsumerRunningInfo {
            consumer_group: group.to_owned(),
            client_id: client_id.to_owned(),
            jstack_enable: Some(stacks),
        };
        let places = self.places_of_group(group, None).await?;
        let mut last = None;
        for place in &places {
            match self.call(place, &request).await {
                Ok(Json(info)) => return Ok(info),
                Err(error) => last = Some(error),
            }
        }
        let what = format_args!("running information of {client_id} of group {group}");
        Err(last
            .unwrap_or_else(|| Error::config("the group has no broker"))
            .context(what))
    }

    /// The offsets that the members of a group have of a topic, as they say themselves; of one member or of all. The
    /// brokers ask the members. Java: `getConsumeStatus`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`](crate::ErrorKind::TopicNotFound) if no broker has the topic;
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if no broker has a member.
    pub async fn consumer_status(
        &self,
        group: &str,
        topic: &str,
        client_id: Option<&str>,
    ) -> Result<Merged<BTreeMap<String, BTreeMap<MessageQueue, i64>>>> {
        let places = self.places_of_topic(topic).await?;
        let request = ConsumerStatusOfGroup {
            topic: topic.to_owned(),
            group: group.to_owned(),
            client_addr: client_id.map(str::to_owned),
        };
        let all = self.ask(places, &request).await;
        let all = all.context(format_args!("offsets of the members of group {group}"));
        all.merge(|merged: &mut BTreeMap<String, BTreeMap<_, _>>, Json(found)| {
            for (client, offsets) in found.consumer_table {
                merged.entry(client).or_default().extend(offsets.0);
            }
        })
    }

    /// Lets a member of a group consume one message now, whatever its offsets are, and says what came of it. The broker
    /// that has the message asks the member. Java: `consumeMessageDirectly`.
    ///
    /// # Errors
    /// As [`consumer_running_info`](Self::consumer_running_info). Raise [`timeout`](Self::timeout) for slow handlers;
    /// brokers wait ten seconds.
    pub async fn consume_message_directly(
        &self,
        group: &str,
        client_id: &str,
        message: &MessageView,
    ) -> Result<ConsumeDirectlyResult> {
        let id = message.offset_message_id();
        let address = id.store_host.to_string();
        let place = Place {
            name: address.clone(),
            address: address.into(),
        };
        let request = ConsumeMessageDirectly {
            consumer_group: group.to_owned(),
            client_id: Some(client_id.to_owned()),
            msg_id: Some(id.to_string()),
            broker_name: None,
            topic: Some(message.topic().to_owned()),
            body: bytes::Bytes::new(),
        };
        let result = self.call(&place, &request).await;
        let Json(result) = result.map_err(|error| {
            error.context(format_args!(
                "message {} to {client_id} of group {group}",
                message.message_id()
            ))
        })?;
        Ok(result)
    }
}

/// Connections of which no two have one client.
fn once_each<C: FromIterator<Connection>>(connections: impl Iterator<Item = Connection>) -> C {
    let by_client: BTreeMap<_, _> = connections.map(|one| (one.client_id.clone(), one)).collect();
    by_client.into_values().collect()
}

pub(super) fn is_offline(error: &Error) -> bool {
    is_code(error, &[ResponseCode::CONSUMER_NOT_ONLINE])
}
