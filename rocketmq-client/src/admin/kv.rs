//! Key-value configuration of the name servers.

use std::collections::BTreeMap;

use super::Admin;
use super::reach::is_code;
use crate::error::{Error, Result};
use crate::protocol::requests::{DeleteKvConfig, KvConfig, KvList, PutKvConfig};
use crate::protocol::{Json, ResponseCode};

/// Values that name servers keep, by namespace and key.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// let admin = client.admin();
/// admin.set_kv("shop", "region", "eu").await?;
/// assert_eq!(admin.kv("shop", "region").await?.as_deref(), Some("eu"));
/// admin.delete_kv("shop", "region").await?;
/// assert_eq!(admin.kv("shop", "region").await?, None);
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// A value, if there is one. Java: `getKVConfig`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub async fn kv(&self, namespace: &str, key: &str) -> Result<Option<String>> {
        let request = KvConfig {
            namespace: namespace.to_owned(),
            key: key.to_owned(),
        };
        match self.cluster().call_name_server(&request).await {
            Ok(found) => Ok(found.value),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All values of a namespace, by key; empty if there is no such namespace. Java: `getKVListByNamespace`.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub async fn kv_list(&self, namespace: &str) -> Result<BTreeMap<String, String>> {
        let request = KvList {
            namespace: namespace.to_owned(),
        };
        match self.cluster().call_name_server(&request).await {
            Ok(Json(found)) => Ok(found.table),
            Err(error) if is_absent(&error) => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// Sets a value on every name server: they do not tell each other. Java: `createAndUpdateKvConfig`.
    ///
    /// # Errors
    /// What a name server refuses, naming those that failed.
    pub async fn set_kv(&self, namespace: &str, key: &str, value: &str) -> Result<()> {
        let request = PutKvConfig {
            namespace: namespace.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        self.ask_name_servers(&request).await.map(drop).done()
    }

    /// Removes a value from every name server. Removing what is not there is harmless. Java: `deleteKvConfig`.
    ///
    /// # Errors
    /// What a name server refuses, naming those that failed.
    pub async fn delete_kv(&self, namespace: &str, key: &str) -> Result<()> {
        let request = DeleteKvConfig {
            namespace: namespace.to_owned(),
            key: key.to_owned(),
        };
        self.ask_name_servers(&request).await.map(drop).done()
    }
}

fn is_absent(error: &Error) -> bool {
    is_code(error, &[ResponseCode::QUERY_NOT_FOUND])
}
