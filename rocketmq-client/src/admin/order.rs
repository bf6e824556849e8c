//! The order configuration of topics: how many queues each broker has, in which order, kept by the name servers.

use std::collections::BTreeMap;

use super::Admin;
use crate::error::{Error, Result};

/// The name servers' namespace for it. Java: `NamesrvUtil.NAMESPACE_ORDER_TOPIC_CONFIG`.
pub(super) const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// The fixed order of a topic's queues, `broker-a:4;broker-b:4`. Name servers put it into routes only if they are
/// configured to (`orderMessageEnable`).
impl Admin {
    /// The order of a topic's queues: brokers with their numbers of queues. None if the topic has no fixed order.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers;
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) for a value that is no order.
    pub async fn order_config(&self, topic: &str) -> Result<Option<BTreeMap<String, u32>>> {
        match self.kv(ORDER_TOPIC_CONFIG, topic).await? {
            Some(text) => parse(&text).map(Some),
            None => Ok(None),
        }
    }

    /// Fixes the order of a topic's queues on every name server. Java: `createOrUpdateOrderConf` for a cluster.
    ///
    /// # Errors
    /// What a name server refuses, naming those that failed.
    pub async fn set_order_config(&self, topic: &str, queues: &BTreeMap<String, u32>) -> Result<()> {
        self.set_kv(ORDER_TOPIC_CONFIG, topic, &print(queues)).await
    }

    /// Sets the number of queues of one broker in the order of a topic; those of others stay. Java:
    /// `createOrUpdateOrderConf` for a broker.
    ///
    /// Two operators who do so at once may undo each other's change: name servers cannot compare and set.
    ///
    /// # Errors
    /// As [`set_order_config`](Self::set_order_config).
    pub async fn set_order_config_of_broker(&self, topic: &str, broker: &str, queues: u32) -> Result<()> {
        let mut order = self.order_config(topic).await?.unwrap_or_default();
        order.insert(broker.to_owned(), queues);
        self.set_order_config(topic, &order).await
    }

    /// Lets a topic have no fixed order any more. Doing so twice is harmless.
    ///
    /// # Errors
    /// As [`set_order_config`](Self::set_order_config).
    pub async fn delete_order_config(&self, topic: &str) -> Result<()> {
        self.delete_kv(ORDER_TOPIC_CONFIG, topic).await
    }
}

fn print(queues: &BTreeMap<String, u32>) -> String {
    let parts: Vec<_> = queues
        .iter()
        .map(|(broker, count)| format!("{broker}:{count}"))
        .collect();
    parts.join(";")
}

fn parse(text: &str) -> Result<BTreeMap<String, u32>> {
    let parts = text.split(';').filter(|part| !part.trim().is_empty());
    parts
        .map(|part| {
            let (broker, count) = part.trim().rsplit_once(':')?;
            Some((broker.to_owned(), count.parse().ok()?))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            Error::new(
                crate::ErrorKind::Protocol,
                format!("{text:?} is no order of queues; one looks like broker-a:4;broker-b:4"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_is_written() {
        let order = BTreeMap::from([("broker-a".to_owned(), 4), ("b".to_owned(), 0)]);
        assert_eq!(print(&order), "b:0;broker-a:4");
        assert_eq!(parse(&print(&order)).unwrap(), order);
        assert_eq!(parse("broker-a:4;").unwrap().len(), 1);
        for wrong in ["broker-a", "broker-a:x", "broker-a:-1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
