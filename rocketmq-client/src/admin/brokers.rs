//! Brokers and name servers: who is there, how they are configured, what they have counted.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Admin;
use super::fan_out::PerBroker;
use super::runtime::BrokerRuntime;
use crate::error::{Error, Result};
use crate::protocol::Json;
use crate::protocol::bodies::{BrokerStatsData, ClusterInfo};
use crate::protocol::requests::{
    AddWritePermission, BrokerConfig, BrokerRuntimeInfo, CleanExpiredConsumeQueues, DeleteExpiredCommitLogs,
    NameServerConfig, UpdateBrokerConfig, UpdateNameServerConfig, ViewBrokerStats, WipeWritePermission,
};

/// Brokers and name servers: who is there, how they are configured, what they have counted.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// let admin = client.admin();
/// for (name, runtime) in admin.broker_runtime().await?.complete()? {
///     println!("{name} runs {} since {:?}", runtime.version, runtime.boot_time());
/// }
/// let config = admin.at_broker("broker-a").broker_config().await?.complete()?;
/// assert_eq!(config["broker-a"]["brokerClusterName"], "DefaultCluster");
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// The brokers of all clusters, with their addresses. Java: `examineBrokerClusterInfo`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub async fn cluster_info(&self) -> Result<ClusterInfo> {
        self.known_brokers().await
    }

    /// The name servers that this client knows, as `host:port`. Java: `getNameServerAddressList`.
    #[must_use]
    pub fn name_servers(&self) -> Vec<String> {
        let all = self.cluster().name_server_addrs();
        all.iter().map(ToString::to_string).collect()
    }

    /// What each broker of the scope, slaves too, says of its state. Java: `fetchBrokerRuntimeStats`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn broker_runtime(&self) -> Result<PerBroker<BrokerRuntime>> {
        let places = self.masters_and_slaves().await?;
        let all = self.ask(places, &BrokerRuntimeInfo {}).await;
        Ok(all.map(|Json(found)| BrokerRuntime::new(found.table)))
    }

    /// The configuration of each broker of the scope, slaves too, by Java's names. Java: `getBrokerConfig`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn broker_config(&self) -> Result<PerBroker<BTreeMap<String, String>>> {
        let places = self.masters_and_slaves().await?;
        let all = self.ask(places, &BrokerConfig {}).await;
        Ok(all.map(|found| read_properties(&found.text)))
    }

    /// Changes settings of each broker of the scope, slaves too. Java: `updateBrokerConfig`.
    ///
    /// Brokers ignore names that they do not know; read the configuration back to be sure.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for text that no line can hold;
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) with `NO_PERMISSION` for settings that cannot be changed while
    /// a broker runs; naming the brokers that failed and those that did it.
    pub async fn update_broker_config<K, V>(&self, settings: impl IntoIterator<Item = (K, V)>) -> Result<()>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let body = write_properties(settings)?;
        let places = self.masters_and_slaves().await?;
        let all = self.tell(places, &UpdateBrokerConfig { body }).await;
        all.context("change of the broker configuration").done()
    }

    /// The configuration of each name server, by its address. Java: `getNameServerConfig`.
    pub async fn name_server_config(&self) -> PerBroker<BTreeMap<String, String>> {
        let all = self.ask_name_servers(&NameServerConfig {}).await;
        all.map(|found| read_properties(&found.0))
    }

    /// Changes settings of each name server. Java: `updateNameServerConfig`.
    ///
    /// # Errors
    /// As [`update_broker_config`](Self::update_broker_config), naming name servers by their addresses.
    pub async fn update_name_server_config<K, V>(
        &self,
        settings: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let body = write_properties(settings)?;
        let all = self.ask_name_servers(&UpdateNameServerConfig { body }).await;
        all.map(drop)
            .context("change of the name server configuration")
            .done()
    }

    /// Takes the write permission from all topics of a broker in the routes of every name server, so that producers
    /// leave it while consumers drain it. Gives how many topics each name server changed. Java: `wipeWritePermOfBroker`.
    pub async fn wipe_write_permission(&self, broker: &str) -> PerBroker<i32> {
        let request = WipeWritePermission {
            broker_name: broker.to_owned(),
        };
        self.ask_name_servers(&request)
            .await
            .map(|wiped| wiped.wipe_topic_count)
    }

    /// Undoes [`wipe_write_permission`](Self::wipe_write_permission). Java: `addWritePermOfBroker`.
    pub async fn add_write_permission(&self, broker: &str) -> PerBroker<i32> {
        let request = AddWritePermission {
            broker_name: broker.to_owned(),
        };
        self.ask_name_servers(&request)
            .await
            .map(|added| added.add_topic_count)
    }

    /// What each master of the scope has counted under a name and key, for instance `TOPIC_PUT_NUMS` of a topic, or
    /// `GROUP_GET_NUMS` of `topic@group`. None for a broker that has counted nothing. Java: `viewBrokerStatsData`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn broker_stats(&self, name: &str, key: &str) -> Result<PerBroker<Option<BrokerStatsData>>> {
        let places = self.masters().await?;
        let request = &ViewBrokerStats {
            stats_name: name.to_owned(),
            stats_key: key.to_owned(),
        };
        let all = self.each(places, |place| async move {
            match self.call(&place, request).await {
                Ok(Json(found)) => Ok(Some(found)),
                Err(error) if says_absent(&error) => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(all.await)
    }

    /// Lets each master of the scope remove consume queues whose messages are gone. Java: `cleanExpiredConsumerQueue`.
    ///
    /// # Errors
    /// What a broker refuses, naming those that failed.
    pub async fn clean_expired_consume_queues(&self) -> Result<()> {
        let places = self.masters().await?;
        self.tell(places, &CleanExpiredConsumeQueues {}).await.done()
    }

    /// Lets each master of the scope remove log files that are past their time at once. Java: `deleteExpiredCommitLog`.
    ///
    /// # Errors
    /// What a broker refuses, naming those that failed.
    pub async fn delete_expired_commit_logs(&self) -> Result<()> {
        let places = self.masters().await?;
        self.tell(places, &DeleteExpiredCommitLogs {}).await.done()
    }
}

/// Brokers have no code of its own for "nothing was counted".
fn says_absent(error: &Error) -> bool {
    error
        .response()
        .is_some_and(|(_, remark)| remark.ends_with("not exist"))
}

/// Lines of `key=value`, as Java's `MixAll#properties2String` writes them: without escapes.
fn read_properties(text: &Bytes) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(text);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .collect()
}

/// Lines of `key=value`, as Java's `Properties#load` reads them: with escapes.
fn write_properties<K, V>(settings: impl IntoIterator<Item = (K, V)>) -> Result<Bytes>
where
    K: AsRef<str>,
    V: AsRef<str>,
{
    let mut text = String::new();
    for (key, value) in settings {
        let (key, value) = (key.as_ref(), value.as_ref());
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "=:#!\\".contains(c)) {
            return Err(Error::config(format!("{key:?} is no name of a setting")));
        }
        if value.contains(['\n', '\r']) {
            return Err(Error::config(format!(
                "the value of {key} has several lines, which a setting cannot have"
            )));
        }
        text.push_str(key);
        text.push('=');
        // A leading blank would be dropped, a backslash taken for the start of an escape.
        if value.starts_with([' ', '\t']) {
            text.push('\\');
        }
        text.push_str(&value.replace('\\', "\\\\"));
        text.push('\n');
    }
    match text.is_empty() {
        true => Err(Error::config("no setting is given")),
        false => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_java_loads_them() {
        let written = write_properties([("storePath", "C:\\store"), ("motd", " a=b"), ("empty", "")]);
        assert_eq!(written.unwrap(), "storePath=C:\\\\store\nmotd=\\ a=b\nempty=\n");
        for (key, value) in [("", "x"), ("a b", "x"), ("a=b", "x"), ("a", "x\ny")] {
            assert!(write_properties([(key, value)]).is_err(), "{key:?} {value:?}");
        }
        let nothing: [(&str, &str); 0] = [];
        assert!(write_properties(nothing).is_err());
    }

    #[test]
    fn settings_are_read_as_java_prints_them() {
        let read = read_properties(&Bytes::from_static(b"a=1\nno line\npath=C:\\x=y\n"));
        assert_eq!(read.len(), 2);
        assert_eq!(read["path"], "C:\\x=y");
    }
}
