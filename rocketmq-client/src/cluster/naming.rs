//! What things are called: by this client to its user, and by brokers.
//!
//! Inside this crate topics, groups and queues have the user's names. They become the brokers' where a request is
//! written, and the user's again where an answer is read. Protocol source: `ClientConfig`, `NamespaceUtil`.

use std::borrow::Cow;
use std::sync::Arc;

use super::{ClientBuilder, Cluster, Options};
use crate::protocol::Fields;
use crate::protocol::names::{self, NameError, Namespace};

impl Cluster {
    /// The namespace that names are put into, if there is one.
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.options.namespace.as_ref()
    }

    /// The name of a topic or group as it goes on the wire.
    pub(crate) fn wire_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match &self.options.namespace {
            Some(namespace) => namespace.wrap(name),
            None => Cow::Borrowed(name),
        }
    }

    /// The name of a topic or group as users know it.
    pub(crate) fn user_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match &self.options.namespace {
            Some(namespace) => namespace.unwrap(name),
            None => Cow::Borrowed(name),
        }
    }

    /// Checks the name of a topic of the user's.
    ///
    /// # Errors
    /// [`NameError`] if it is none, or too long with the namespace.
    pub(crate) fn check_topic(&self, topic: &str) -> Result<(), NameError> {
        names::check_topic(topic)?;
        self.namespace()
            .map_or(Ok(()), |namespace| namespace.check_topic(topic))
    }

    /// Checks the name of a group of the user's.
    ///
    /// # Errors
    /// [`NameError`] if it is none, or too long with the namespace.
    pub(crate) fn check_group(&self, group: &str) -> Result<(), NameError> {
        names::check_group(group)?;
        self.namespace()
            .map_or(Ok(()), |namespace| namespace.check_group(group))
    }

    /// Where a request goes that a broker's second server serves: there, if that is wanted.
    pub(crate) fn vip(&self, address: Arc<str>) -> Arc<str> {
        let second = self.options.vip_channel.then(|| vip_address(&address));
        second.flatten().map_or(address, Into::into)
    }

    /// The address by which routes know a broker: for that of a second server, that of the first.
    pub(super) fn first_server<'a>(&self, address: &'a str) -> Cow<'a, str> {
        if !self.options.vip_channel || self.routes.is_broker(address) {
            return Cow::Borrowed(address);
        }
        let first = address.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse::<u16>().ok()?.checked_add(2)?;
            Some(format!("{host}:{port}"))
        });
        first.map_or(Cow::Borrowed(address), Cow::Owned)
    }

    /// Whether requests say that this client belongs to a unit.
    pub(crate) fn unit_mode(&self) -> bool {
        self.options.unit_mode
    }
}

impl ClientBuilder {
    /// Puts all topics and groups into a namespace: brokers know them as `<namespace>%<name>`, users of this client by
    /// their bare names everywhere. Default: that of an instance's name server (`http://MQ_INST_<..>_<..>.<host>`),
    /// else none. Java: `setNamespace`.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message};
    ///
    /// let client = Client::builder(broker.name_server()).namespace("tenant-a").connect().await?;
    /// let producer = client.producer("orders-svc").start().await?;
    /// let receipt = producer.send(Message::new("orders", "paid")).await?;
    /// assert_eq!(&*receipt.queue.topic, "orders"); // it is tenant-a%orders on the broker
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The unit this client belongs to: a part of a deployment with a name. It is the end of the client's identity
    /// and, with `endpoint`, part of the address that name servers are asked of. Default none. Java:
    /// `setUnitName`.
    pub fn unit_name(mut self, name: impl Into<String>) -> Self {
        self.options.unit_name = Some(name.into());
        self
    }

    /// Whether sends, give-backs and heartbeats say that they are of a unit: brokers then mark the topics they make
    /// for retries. Default false. Java: `setUnitMode`.
    pub fn unit_mode(mut self, unit_mode: bool) -> Self {
        self.options.unit_mode = unit_mode;
        self
    }

    /// Says with every request which namespace the client is in, for servers that keep namespaces apart themselves:
    /// proxies and clouds; names stay as they are, and brokers of Apache RocketMQ take no notice. Default none. Java
    /// 5.x: `setNamespaceV2`.
    pub fn namespace_v2(mut self, namespace: impl Into<String>) -> Self {
        self.options.namespace_v2 = Some(namespace.into());
        self
    }

    /// Says with every request which zone the client is in. With `own_zone_only`, name servers of 5.x leave brokers of
    /// other zones out of routes. Default none. Java: `rocketmq.zone` and `rocketmq.zone.mode`.
    ///
    /// A signature covers the zone, which the one of Java's clients does not: those cannot have both.
    pub fn zone(mut self, name: impl Into<String>, own_zone_only: bool) -> Self {
        self.options.zone = Some((name.into(), own_zone_only));
        self
    }

    /// Whether requests that are neither pulls nor heartbeats go to a broker's second server, two below its port,
    /// where pulls do not hold them up. Default false. Java: `setVipChannelEnabled`.
    ///
    /// Brokers of 4.x and 5.x listen there; proxies do not.
    pub fn vip_channel(mut self, enabled: bool) -> Self {
        self.options.vip_channel = enabled;
        self
    }
}

/// The fields that every request of a client carries. Java: `NamespaceRpcHook`, `DynamicalExtFieldRPCHook`.
pub(super) fn common_fields(options: &Options) -> Option<Arc<Fields>> {
    let mut fields = Fields::new();
    if let Some(namespace) = &options.namespace_v2 {
        fields.push("nsd", "true");
        fields.push("ns", namespace);
    }
    if let Some((zone, own_zone_only)) = &options.zone {
        fields.push("__ZONE_NAME", zone);
        fields.push("__ZONE_MODE", if *own_zone_only { "true" } else { "false" });
    }
    let any = fields.iter().next().is_some();
    any.then(|| Arc::new(fields))
}

/// The address of a broker's second server. Java: `MixAll.brokerVIPChannel`.
pub(super) fn vip_address(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port
        .parse::<u16>()
        .ok()?
        .checked_sub(2)
        .filter(|port| *port > 0)?;
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests;
