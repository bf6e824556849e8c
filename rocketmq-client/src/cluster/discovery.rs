//! Where the list of name servers comes from: what the user gave, or what an HTTP address tells; and keeping it fresh.
//!
//! Protocol source: `ClientConfig`, `DefaultTopAddressing`, `MQClientAPIImpl#fetchNameServerAddr`.

#[cfg(feature = "endpoint")]
mod endpoint;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::name_server::parse_list;
use super::{ClientBuilder, Cluster};
use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "endpoint")]
use endpoint::Endpoint;

/// How long one look-up may take, of a name or of the HTTP address. Java: 3 s.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a list of name servers comes from.
#[derive(Debug)]
pub(super) struct Discovery {
    /// The user's own list. With an endpoint it is for as long as that one has told nothing.
    list: String,
    #[cfg(feature = "endpoint")]
    endpoint: Option<Endpoint>,
    /// Whether names that stand for several machines become the addresses of all of them. Not behind a proxy, which
    /// resolves names itself, nor with TLS, which verifies them.
    expand: bool,
}

impl Discovery {
    /// # Errors
    /// [`ErrorKind::Config`] for a list or an HTTP address that is none.
    pub(super) fn new(builder: &ClientBuilder) -> Result<Self> {
        #[cfg(feature = "endpoint")]
        let endpoint = builder
            .endpoint
            .as_deref()
            .map(|url| Endpoint::new(url, builder.options.unit_name.as_deref()))
            .transpose()?;
        #[cfg(feature = "endpoint")]
        let needed = endpoint.is_none();
        #[cfg(not(feature = "endpoint"))]
        let needed = true;
        if needed || !builder.name_servers.trim().is_empty() {
            parse_list(&builder.name_servers)?;
        }
        Ok(Self {
            list: builder.name_servers.clone(),
            #[cfg(feature = "endpoint")]
            endpoint,
            expand: builder.resolves_names(),
        })
    }

    /// The list to start with. A name that is not known is left as it is: dialing it will say so.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`] if the HTTP address tells none and the user gave none.
    pub(super) async fn first(&self) -> Result<Vec<Arc<str>>> {
        let addresses = match self.told().await {
            Ok(addresses) => addresses,
            Err(error) => {
                let own = parse_list(&self.list).map_err(|_| error.clone())?;
                warn!(%error, list = self.list, "no list of name servers, taking the one that was given");
                own
            }
        };
        Ok(self.expanded(&addresses).await.unwrap_or(addresses))
    }

    /// The list as it is now.
    ///
    /// # Errors
    /// Whatever keeps any part of it from being known.
    async fn look_up(&self) -> Result<Vec<Arc<str>>> {
        let addresses = self.told().await?;
        self.expanded(&addresses).await
    }

    async fn told(&self) -> Result<Vec<Arc<str>>> {
        #[cfg(feature = "endpoint")]
        if let Some(endpoint) = &self.endpoint {
            let list = endpoint.fetch(LOOK_UP_TIMEOUT).await?;
            return parse_list(&list).map_err(|error| endpoint.failed(&error));
        }
        parse_list(&self.list)
    }

    /// Names that stand for several machines become the addresses of all of them, or a client would stay with whichever
    /// its resolver gives first, dead or not. Other names stay: they are resolved at each dial.
    async fn expanded(&self, addresses: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        let mut all = Vec::new();
        for address in addresses {
            let found = match self.expand && is_name(address) {
                true => resolve(address).await?,
                false => Vec::new(),
            };
            if found.is_empty() {
                all.push(Arc::clone(address));
            }
            all.extend(found);
        }
        let mut seen = BTreeSet::new();
        all.retain(|address| seen.insert(Arc::clone(address)));
        Ok(all)
    }

    /// Whether the list can change at all.
    fn is_fixed(&self) -> bool {
        #[cfg(feature = "endpoint")]
        if self.endpoint.is_some() {
            return false;
        }
        let names = parse_list(&self.list).is_ok_and(|list| list.iter().any(|address| is_name(address)));
        !(self.expand && names)
    }
}

fn is_name(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_err()
}

/// The addresses of a name that stands for several machines; nothing if it stands for one.
async fn resolve(name: &str) -> Result<Vec<Arc<str>>> {
    let unknown = |reason: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::NameServer,
            format!("name server {name}: its name cannot be resolved: {reason}"),
        )
    };
    match timeout(LOOK_UP_TIMEOUT, lookup_host(name)).await {
        Ok(Ok(found)) => Ok(machines(found.collect())),
        Ok(Err(error)) => Err(unknown(&error)),
        Err(_) => Err(unknown(&format_args!("no answer in {LOOK_UP_TIMEOUT:?}"))),
    }
}

/// One IPv4 and one IPv6 address are usually two ways to one machine.
fn machines(mut found: Vec<SocketAddr>) -> Vec<Arc<str>> {
    found.sort();
    found.dedup();
    let v4 = found.iter().filter(|address| address.is_ipv4()).count();
    let v6 = found.len() - v4;
    if v4.max(v6) < 2 {
        return Vec::new();
    }
    found.retain(|address| address.is_ipv4() == (v4 >= v6));
    found.iter().map(|address| address.to_string().into()).collect()
}

impl Cluster {
    /// Looks the list up again and again. Whatever fails leaves the old one.
    pub(super) async fn refresh_name_servers(self: Arc<Self>, discovery: Discovery, stop: CancellationToken) {
        if discovery.is_fixed() {
            return;
        }
        let mut tick = interval(self.options.name_server_refresh_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the first list was just looked up.
        tick.tick().await;
        let mut warned = String::new();
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let Some(found) = stop.run_until_cancelled(discovery.look_up()).await else {
                return;
            };
            match found {
                Ok(addresses) => {
                    warned.clear();
                    self.use_name_servers(addresses);
                }
                // Once for each reason: an endpoint may be down for days.
                Err(error) => {
                    let text = error.to_string();
                    if warned != text {
                        warn!(%error, "no new list of name servers, the old one is kept");
                        warned = text;
                    }
                }
            }
        }
    }

    fn use_name_servers(&self, addresses: Vec<Arc<str>>) {
        let list = addresses.join("; ");
        if !addresses.is_empty() {
            // Before they are in use, so that they are dialed as what they are.
            self.remoting.pool().set_name_servers(&addresses);
        }
        if self.name_servers.replace(addresses) {
            info!(list, "the name servers changed");
            // Those that left are not asked any more: their connections end.
            self.forget_old_peers();
        }
    }
}

impl ClientBuilder {
    /// How often the list of name servers is looked up again: at the [`endpoint`](Self::endpoint), and the names in it
    /// that stand for several addresses. Default 120 s. Java: 120 s.
    ///
    /// Whatever fails leaves the old list; a change closes the connections to name servers that left.
    pub fn name_server_refresh_interval(mut self, interval: Duration) -> Self {
        self.options.name_server_refresh_interval = interval;
        self
    }
}

impl super::Client {
    /// The addresses of the name servers, as they are known now.
    #[must_use]
    pub fn name_servers(&self) -> Vec<String> {
        let addresses = self.cluster().name_servers.addresses();
        addresses.iter().map(ToString::to_string).collect()
    }
}

#[cfg(feature = "endpoint")]
impl super::Client {
    /// Options for a client that is told its name servers by an HTTP address, see [`ClientBuilder::endpoint`].
    pub fn discover(endpoint: impl Into<String>) -> ClientBuilder {
        Self::builder("").endpoint(endpoint)
    }
}

#[cfg(feature = "endpoint")]
impl ClientBuilder {
    /// Asks an HTTP address for the list of name servers, at the start and every
    /// [120 s](Self::name_server_refresh_interval). The first line of its answer is the list. Java: the address that is
    /// made of `rocketmq.namesrv.domain` and `rocketmq.namesrv.domain.subgroup`, `http://<domain>:8080/rocketmq/nsaddr`.
    ///
    /// With a [unit](Self::unit_name), `-<unit>?nofix=1` is appended, as Java does. A list that was given to
    /// [`Client::builder`](super::Client::builder) too is used as long as the address has told none. Only `http://` is
    /// supported; redirects are not followed, and an answer may have 64 KiB.
    ///
    /// # Errors
    /// [`connect`](Self::connect) fails with [`ErrorKind::Config`] for what is no such address, and with
    /// [`ErrorKind::NameServer`] if it does not answer and no list was given.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }
}

/// A look-up that failed.
#[cfg(feature = "endpoint")]
fn failed(url: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::NameServer,
        format!(
            "no name servers from {url}: {reason}; it has to answer with their list, host:port;host:port"
        ),
    )
}

#[cfg(test)]
mod tests;
