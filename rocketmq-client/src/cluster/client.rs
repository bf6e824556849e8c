//! The handle that users hold.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tower::layer::Layer;
use tower::{BoxError, Service};
use tracing::{info, warn};

use super::discovery::Discovery;
use super::heartbeat::Members;
use super::inbound::ClusterInbound;
use super::name_server::NameServers;
use super::replies::Replies;
use super::route::Routes;
use super::version::Versions;
use super::{Cluster, identity, naming};
use crate::auth::{CredentialsProvider, Rotation};
use crate::error::{Error, Result};
use crate::memory::MemoryLimit;
use crate::protocol::names::Namespace;
use crate::protocol::{HeaderFormat, Request};
use crate::tasks::{Tasks, join_all};
use crate::telemetry;
use crate::trace::{Trace, Tracer};
#[cfg(feature = "tls")]
use crate::transport::Tls;
use crate::transport::{
    Call, Inbound, Pool, Remoting, Reply, RequestStack, Sign, Socks5, TransportOptions, layered,
};

/// The environment variable in which RocketMQ's own tools look for name servers.
const NAMESRV_ADDR: &str = "NAMESRV_ADDR";

/// A client of one RocketMQ cluster under one identity. Cloning is cheap; all clones share connections, routes and
/// heartbeats, and so do all producers and consumers made from them.
///
/// Call [`shutdown`](Self::shutdown) when done: it drains what is in flight and tells the brokers. Dropping the last
/// handle (producers and consumers hold one too) only asks everything to stop.
#[derive(Clone)]
pub struct Client(Arc<ClientHandle>);

struct ClientHandle {
    cluster: Arc<Cluster>,
    closed: AtomicBool,
}

impl Client {
    /// Connects to a cluster by its name servers, with the defaults of [`ClientBuilder`].
    ///
    /// Several name servers are separated by `;` or `,`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a list that is none,
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server can be reached.
    pub async fn connect(name_servers: impl Into<String>) -> Result<Self> {
        Self::builder(name_servers).connect().await
    }

    /// Options for a client of the cluster behind these name servers (`host:port`, several separated by `;` or `,`).
    pub fn builder(name_servers: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            name_servers: name_servers.into(),
            #[cfg(feature = "endpoint")]
            endpoint: None,
            options: Options::default(),
            namespace: None,
            trace: None,
            transport: TransportOptions::default(),
            layers: None,
            credentials: None,
            #[cfg(feature = "tls")]
            name_server_tls: None,
            #[cfg(feature = "tls")]
            broker_tls: None,
            proxies: Vec::new(),
        }
    }

    /// The name servers of the environment variable `NAMESRV_ADDR`, if it is set to something.
    #[must_use]
    pub fn name_servers_from_env() -> Option<String> {
        std::env::var(NAMESRV_ADDR)
            .ok()
            .filter(|list| !list.trim().is_empty())
    }

    /// The identity under which brokers know this client: `<ip>@<instance>`, and `@<unit>` if it is of a unit.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.0.cluster.client_id()
    }

    /// Makes any typed request of the protocol: for tools and tests.
    ///
    /// `target` is an address (`host:port`) or the name of a broker, which stands for its master. Topics and groups in
    /// requests and answers are as brokers name them, with a [namespace](ClientBuilder::namespace) before them.
    ///
    /// # Errors
    /// Whatever the transport gives; a refusal of the peer with its code, see [`Error::response`].
    ///
    /// # Cancellation
    /// Safe for the connection; the request may reach the peer all the same.
    pub async fn call<R: Request>(&self, target: impl AsRef<str>, request: R) -> Result<R::Response> {
        let cluster = &self.0.cluster;
        let timeout = cluster.options.request_timeout;
        let target = target.as_ref();
        if target.contains(':') {
            return cluster.call_addr(target, &request, timeout).await;
        }
        let address = cluster.master_addr(target).await?;
        cluster.call_addr(&address, &request, timeout).await
    }

    /// Makes any typed request of the protocol to whichever name server answers: for tools and tests.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if none answers; a refusal with its code.
    pub async fn call_name_server<R: Request>(&self, request: R) -> Result<R::Response> {
        self.0.cluster.call_name_server(&request).await
    }

    /// Stops everything that was made from this client, for all its clones: consumers first, then producers, which
    /// wait for what is in flight, then message trace; the groups are taken off the brokers and the connections closed.
    ///
    /// Takes at most four times [`ClientBuilder::shutdown_grace`]. Calling it again is harmless.
    pub async fn shutdown(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let cluster = &self.0.cluster;
        let grace = cluster.options.shutdown_grace;
        let consumers = cluster.members.consumers();
        let stopping = join_all(consumers.iter().map(|member| member.shutdown()));
        if tokio::time::timeout(grace, stopping).await.is_err() {
            warn!(
                client_id = cluster.client_id,
                "consumers were not done within the grace"
            );
        }
        let producers = cluster.members.producers();
        let stopping = join_all(producers.iter().map(|member| member.shutdown()));
        if tokio::time::timeout(grace, stopping).await.is_err() {
            warn!(
                client_id = cluster.client_id,
                "producers were not done within the grace"
            );
        }
        if let Some(tracer) = cluster.trace()
            && tokio::time::timeout(grace, tracer.close()).await.is_err()
        {
            warn!(
                client_id = cluster.client_id,
                "trace records were not sent within the grace"
            );
        }
        cluster.remoting.pool().drain(grace).await;
        if let Err(left) = cluster.tasks.stop(grace).await {
            warn!(client_id = cluster.client_id, ?left, "tasks were cut off");
        }
        info!(client_id = cluster.client_id, "shut down");
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.0.cluster
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        let tasks = &self.cluster.tasks;
        if !self.closed.load(Ordering::SeqCst) && !tasks.token().is_cancelled() {
            warn!(
                client_id = self.cluster.client_id,
                tasks = tasks.running(),
                "the last handle of a client was dropped without a shutdown; what was in flight is given up"
            );
        }
        tasks.cancel();
        self.cluster.members.clear();
    }
}

/// The one home of the defaults; each setter of [`ClientBuilder`] states its own.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) client_ip: Option<Ipv4Addr>,
    pub(crate) instance_name: Option<String>,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) namespace_v2: Option<String>,
    /// Its name, and whether brokers of other zones are left out.
    pub(crate) zone: Option<(String, bool)>,
    pub(crate) unit_name: Option<String>,
    pub(crate) unit_mode: bool,
    pub(crate) vip_channel: bool,
    pub(crate) request_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) route_refresh_interval: Duration,
    pub(crate) name_server_refresh_interval: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) memory_limit: Option<MemoryLimit>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_ip: None,
            instance_name: None,
            namespace: None,
            namespace_v2: None,
            zone: None,
            unit_name: None,
            unit_mode: false,
            vip_channel: false,
            request_timeout: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(30),
            route_refresh_interval: Duration::from_secs(30),
            name_server_refresh_interval: Duration::from_secs(120),
            shutdown_grace: Duration::from_secs(10),
            memory_limit: None,
        }
    }
}

/// Options of a [`Client`].
#[must_use = "a builder does nothing until `connect` is awaited"]
pub struct ClientBuilder {
    pub(super) name_servers: String,
    #[cfg(feature = "endpoint")]
    pub(super) endpoint: Option<String>,
    pub(super) options: Options,
    pub(super) namespace: Option<String>,
    pub(super) trace: Option<Trace>,
    transport: TransportOptions,
    layers: Option<Box<dyn FnOnce(RequestStack) -> RequestStack + Send>>,
    credentials: Option<Arc<dyn CredentialsProvider>>,
    #[cfg(feature = "tls")]
    name_server_tls: Option<Tls>,
    #[cfg(feature = "tls")]
    broker_tls: Option<Tls>,
    proxies: Vec<Socks5>,
}

impl ClientBuilder {
    /// The first half of the client's identity, also part of the ids of its messages. Default: the address by which
    /// this machine reaches its name servers; give another one where several machines have the same. Java: `clientIP`.
    pub fn client_ip(mut self, address: Ipv4Addr) -> Self {
        self.options.client_ip = Some(address);
        self
    }

    /// The second half of the client's identity. Default: process id and a random number, so that two clients never
    /// share an identity; a name of your own keeps it the same across restarts. Java: `instanceName`.
    pub fn instance_name(mut self, name: impl Into<String>) -> Self {
        self.options.instance_name = Some(name.into());
        self
    }

    /// How long a dial may take, with the handshakes of a proxy and of TLS. Default 3 s. Java: `connectTimeoutMillis`.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.transport.dial.connect_timeout = timeout;
        self
    }

    /// How long requests may take that are neither sends nor pulls. Default 3 s. Java: `mqClientApiTimeout`.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// How often brokers are told who is here. Default 30 s; brokers forget after 120 s. Java:
    /// `heartbeatBrokerInterval`.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.options.heartbeat_interval = interval;
        self
    }

    /// How often routes are asked for again. Default 30 s. Java: `pollNameServerInterval`.
    pub fn route_refresh_interval(mut self, interval: Duration) -> Self {
        self.options.route_refresh_interval = interval;
        self
    }

    /// How long each step of a shutdown may take: stopping consumers, draining producers, closing connections.
    /// Default 10 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.options.shutdown_grace = grace;
        self
    }

    /// How headers are written. Default [`HeaderFormat::Binary`]: all brokers since 3.x read it, and it costs half of
    /// what JSON does. Java: `rocketmq.serialize.type`, which is JSON there.
    pub fn header_format(mut self, format: HeaderFormat) -> Self {
        self.transport.format = format;
        self
    }

    /// How many requests may be in flight on one connection; more wait. Default 65535. Java:
    /// `com.rocketmq.remoting.clientAsyncSemaphoreValue`.
    pub fn max_in_flight(mut self, count: usize) -> Self {
        self.transport.max_in_flight = count;
        self
    }

    /// How many bytes may wait to be written on one connection before requests wait; one frame is always let in.
    /// Default 32 MiB.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.transport.max_buffered_bytes = bytes;
        self
    }

    /// Puts a tower layer around every request this client makes: for tracing, test doubles, policies. The first
    /// layer is the outermost one. Without layers requests take a way that builds no [`Call`].
    pub fn request_layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<RequestStack> + Send + 'static,
        L::Service: Service<Call, Response = Reply> + Clone + Send + Sync + 'static,
        <L::Service as Service<Call>>::Error: Into<BoxError>,
        <L::Service as Service<Call>>::Future: Send + 'static,
    {
        let outer = self.layers.take();
        self.layers = Some(Box::new(move |innermost| {
            let stack = layered(&layer, innermost, "request");
            match outer {
                Some(outer) => outer(stack),
                None => stack,
            }
        }));
        self
    }

    /// Signs every request with these, or with what this provider gives: [`Credentials`](crate::Credentials) that stay,
    /// [`RotatingCredentials`](crate::RotatingCredentials), or a [`CredentialsProvider`] of your own. Default: requests
    /// are not signed. Java: an `AclClientRPCHook` as `rpcHook`.
    ///
    /// A request that is refused because of who made it fails with [`ErrorKind::Auth`](crate::ErrorKind::Auth) and is not
    /// tried again. Signatures do not cover the time, so whoever can read the traffic can repeat a request: use
    /// [`tls`](Self::tls) too.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rocketmq_embedded_broker::{AccessStyle, Action, EmbeddedBroker, User};
    /// # let user = User::new("orders-svc", "12345678").topic("orders", [Action::Pub]);
    /// # let broker = EmbeddedBroker::builder().access_control(AccessStyle::Users).user(user).start().await?;
    /// use rocketmq_client::{Client, Credentials, ErrorKind, Message};
    ///
    /// let client = Client::builder(broker.name_server())
    ///     .credentials(Credentials::new("orders-svc", "12345678"))
    ///     .connect()
    ///     .await?;
    /// let producer = client.producer("orders-svc").start().await?;
    /// producer.send(Message::new("orders", "42 apples")).await?;
    ///
    /// let error = producer.send(Message::new("payments", "42")).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Auth);
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials(mut self, provider: impl CredentialsProvider) -> Self {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// Encrypts the connections to name servers and brokers. Default: plain text. Java: `useTLS`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rocketmq_embedded_broker::{EmbeddedBroker, TlsMode};
    /// # let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    /// # let authority = made.cert.pem();
    /// # let broker = EmbeddedBroker::builder()
    /// #     .tls_mode(TlsMode::Enforcing)
    /// #     .tls_identity(made.cert.pem(), made.signing_key.serialize_pem())
    /// #     .start()
    /// #     .await?;
    /// use rocketmq_client::{Client, ErrorKind, Message, Tls};
    ///
    /// // `authority` is the PEM text of whoever signed the servers' certificates.
    /// let client = Client::builder(broker.name_server()).tls(Tls::new().ca_pem(authority)).connect().await?;
    /// let producer = client.producer("orders-svc").start().await?;
    /// producer.send(Message::new("orders", "42 apples")).await?;
    ///
    /// // Whom nobody vouches for is not spoken to.
    /// let error = Client::builder(broker.name_server()).tls(Tls::new()).connect().await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Tls);
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: Tls) -> Self {
        self.name_server_tls(tls.clone()).broker_tls(tls)
    }

    /// Encrypts the connections to name servers alone, or differently from those to brokers. A name server that is a
    /// broker too is connected as a name server.
    #[cfg(feature = "tls")]
    pub fn name_server_tls(mut self, tls: Tls) -> Self {
        self.name_server_tls = Some(tls);
        self
    }

    /// Encrypts the connections to brokers alone, or differently from those to name servers.
    #[cfg(feature = "tls")]
    pub fn broker_tls(mut self, tls: Tls) -> Self {
        self.broker_tls = Some(tls);
        self
    }

    /// A limit on the bytes of received messages that all consumers of this client share, with those of other clients
    /// that have it too; see [`MemoryLimit`]. Default none: each consumer has its own limit only.
    pub fn memory_limit(mut self, limit: &MemoryLimit) -> Self {
        self.options.memory_limit = Some(limit.clone());
        self
    }

    /// Connects through a proxy. Of several, the first that serves an address is used. Java: `socksProxyConfig`.
    pub fn socks5(mut self, proxy: Socks5) -> Self {
        self.proxies.push(proxy);
        self
    }

    /// After how long a server is given up that acknowledges nothing, as when packets vanish without a word: the
    /// kernel then breaks the connection, which every request on it learns at once. Idle connections are probed, so
    /// that they are noticed too. Default 8 s; zero leaves it to the system, which may take a quarter of an hour.
    /// `TCP_USER_TIMEOUT` and `SO_KEEPALIVE`; where the system has only the latter, that.
    pub fn tcp_user_timeout(mut self, timeout: Duration) -> Self {
        self.transport.dial.tcp_user_timeout = timeout;
        self
    }

    /// Connects: learns the name servers, reaches one of them and starts the background work. Brokers are connected when
    /// they are needed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with all options that cannot be used,
    /// [`ErrorKind::Auth`](crate::ErrorKind::Auth) if the provider of the credentials gives none,
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server can be reached.
    pub async fn connect(mut self) -> Result<Client> {
        self.check()?;
        self.options.namespace = match &self.namespace {
            // Checked just now.
            Some(name) => Namespace::new(name).ok(),
            None => self
                .name_servers
                .split([';', ','])
                .find_map(|address| Namespace::of_instance(address.trim())),
        };
        let discovery = Discovery::new(&self)?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::config("a client needs a tokio runtime; call connect inside one").caused_by(error)
        })?;
        self.secure()?;
        let rotation = match self.credentials.take() {
            Some(provider) => Some(Rotation::start(provider).await?),
            None => None,
        };
        if let Some(rotation) = &rotation {
            self.transport.signer = Some(Arc::clone(rotation.signer()) as Arc<dyn Sign>);
        }
        let name_servers = NameServers::new(discovery.first().await?);
        let tasks = Tasks::new(runtime);
        let inbound = Arc::new(ClusterInbound::default());
        let connect_timeout = self.transport.dial.connect_timeout;
        self.transport.common_fields = naming::common_fields(&self.options);
        let pool = Pool::new(
            self.transport,
            Arc::clone(&inbound) as Arc<dyn Inbound>,
            tasks.child(),
        );
        let remoting = Remoting::new(pool, self.layers);
        name_servers.reach(remoting.pool(), connect_timeout).await?;
        let address = match self.options.client_ip {
            Some(address) => address,
            None => identity::local_address(&name_servers.current()).await,
        };
        let cluster = Arc::new(Cluster {
            client_id: identity::client_id(
                address,
                self.options.instance_name.as_deref(),
                self.options.unit_name.as_deref(),
            ),
            options: self.options,
            remoting,
            name_servers,
            routes: Routes::default(),
            members: Members::default(),
            versions: Versions::default(),
            replies: Replies::default(),
            unique_ids: identity::unique_ids(address),
            trace: self.trace.map(Tracer::new),
            tasks,
        });
        inbound.attach(&cluster);
        cluster
            .tasks
            .spawn("heartbeats", |stop| Arc::clone(&cluster).heartbeats(stop));
        cluster
            .tasks
            .spawn("routes", |stop| Arc::clone(&cluster).refresh_routes(stop));
        if let Some(rotation) = rotation {
            cluster.tasks.spawn("credentials", |stop| rotation.run(stop));
        }
        if let Some(tracer) = &cluster.trace {
            let tracer = Arc::clone(tracer);
            cluster
                .tasks
                .spawn("trace", |stop| Arc::clone(&cluster).dispatch_trace(tracer, stop));
        }
        cluster.tasks.spawn("name-servers", |stop| {
            Arc::clone(&cluster).refresh_name_servers(discovery, stop)
        });
        telemetry::describe();
        info!(client_id = cluster.client_id, "connected to a cluster");
        Ok(Client(Arc::new(ClientHandle {
            cluster,
            closed: AtomicBool::new(false),
        })))
    }

    /// Whether the names of name servers may be replaced by addresses.
    pub(super) fn resolves_names(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.name_server_tls.is_some() {
            return false;
        }
        self.proxies.is_empty()
    }

    /// Reads what proxies and certificates need.
    fn secure(&mut self) -> Result<()> {
        let dial = &mut self.transport.dial;
        dial.proxies = self.proxies.iter().map(Socks5::proxy).collect::<Result<_>>()?;
        #[cfg(feature = "tls")]
        {
            dial.name_server_tls = self.name_server_tls.as_ref().map(Tls::connector).transpose()?;
            dial.broker_tls = self.broker_tls.as_ref().map(Tls::connector).transpose()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let options = &self.options;
        let mut wrong = Vec::new();
        for (name, value) in [
            ("connect_timeout", self.transport.dial.connect_timeout),
            ("request_timeout", options.request_timeout),
            ("heartbeat_interval", options.heartbeat_interval),
            ("route_refresh_interval", options.route_refresh_interval),
            (
                "name_server_refresh_interval",
                options.name_server_refresh_interval,
            ),
        ] {
            if value.is_zero() {
                wrong.push(format!("{name} must be longer than nothing"));
            }
        }
        wrong.extend(self.trace.iter().flat_map(Trace::faults));
        if self.transport.max_in_flight == 0 {
            wrong.push("max_in_flight must be at least 1".to_owned());
        }
        for (name, value) in [
            ("instance_name", &options.instance_name),
            ("unit_name", &options.unit_name),
            ("namespace_v2", &options.namespace_v2),
            ("zone", &options.zone.as_ref().map(|(name, _)| name.clone())),
        ] {
            if value.as_deref().is_some_and(|value| value.trim().is_empty()) {
                wrong.push(format!("{name} must not be blank"));
            }
        }
        if let Some(Err(error)) = self.namespace.as_deref().map(Namespace::new) {
            wrong.push(error.to_string());
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::config(format!(
                "client options cannot be used: {}",
                wrong.join("; ")
            ))),
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("name_servers", &self.name_servers)
            .field("namespace", &self.namespace)
            .field("options", &self.options)
            .field("transport", &self.transport)
            .field("layers", &self.layers.is_some())
            .field("credentials", &self.credentials.is_some())
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
