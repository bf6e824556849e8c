//! The handle that users hold.

mod slave;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rocketmq_client::protocol::BrokerVersion;
use tokio::net::TcpListener;

use crate::access::{AccessStyle, User};
use crate::broker::{self, Broker};
use crate::families;
use crate::lock::lock;
use crate::options::Options;
use crate::server;
#[cfg(feature = "tls")]
use crate::server::{Acceptor, TlsMode};
use crate::tasks::Tasks;
use crate::wait::{self, Delays, Halves, Wheel};

/// How long a stop waits for tasks that are cut off; they end at once unless the runtime is very busy.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// A name server and a broker in this process. Dropping it stops them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
/// assert!(broker.name_server().starts_with("127.0.0.1:"));
/// broker.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EmbeddedBroker {
    broker: Arc<Broker>,
    #[cfg(feature = "tls")]
    acceptor: Arc<Acceptor>,
    running: Mutex<Option<Tasks>>,
    slave_running: Mutex<Option<Tasks>>,
}

impl EmbeddedBroker {
    /// Starts with default settings on a free port of 127.0.0.1. It is ready when this returns.
    ///
    /// # Errors
    /// The system's, if no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Settings, see [`Builder`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder(Options::default())
    }

    /// The name server's address, `ip:port`: what clients are configured with.
    #[must_use]
    pub fn name_server(&self) -> String {
        self.broker.name_server.to_string()
    }

    /// The broker's address, `ip:port`: what routes say. The name server's unless
    /// [`Builder::broker_port`] was set.
    #[must_use]
    pub fn broker_address(&self) -> String {
        self.broker.address.to_string()
    }

    /// What is stored and has gone.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = self.broker.store.stats();
        Stats {
            messages: stats.messages,
            bytes: stats.bytes,
            evicted: stats.evicted,
            connections: self.broker.sessions.len(),
        }
    }

    /// Adds a user or replaces the one of that name, for requests from now on. Does nothing on a broker without
    /// [`access_control`](Builder::access_control).
    pub fn set_user(&self, user: User) {
        if let Some(access) = &self.broker.access {
            access.put(user);
        }
    }

    /// Removes a user, for requests from now on.
    pub fn remove_user(&self, name: &str) {
        if let Some(access) = &self.broker.access {
            access.remove(name);
        }
    }

    /// Stops for good: closes the ports and all connections and waits until their tasks are gone.
    pub async fn shutdown(self) {
        self.kill_slave().await;
        self.kill().await;
    }

    /// Stops as a crash does: the ports are closed and every connection is cut where it is, in the middle of an
    /// answer if need be. Messages, topics, groups and offsets stay for [`restart`](Self::restart): every message
    /// that was acknowledged is there again. Members, queue locks and held pulls are gone. (A real broker that is
    /// killed may also lose up to five seconds of committed offsets; here they stay.) A [slave](Builder::slave) goes on.
    ///
    /// Killing a broker that is not running does nothing.
    pub async fn kill(&self) {
        let running = lock(&self.running).take();
        if let Some(tasks) = running {
            tasks.stop(STOP_GRACE).await;
            self.broker.polls.clear();
            self.broker.timers.clear();
            // Those of the slave, which goes on, are answered; the others' connections are gone.
            self.broker.release_all();
            self.broker.locks.clear();
            self.broker.replies.clear();
            self.broker.relays.clear();
        }
    }

    /// Starts again after [`kill`](Self::kill), on the same ports and with the messages of before. Does nothing if
    /// it is running.
    ///
    /// # Errors
    /// The system's, if a port was taken by someone else in the meantime.
    pub async fn restart(&self) -> io::Result<()> {
        if lock(&self.running).is_some() {
            return Ok(());
        }
        let listeners = Listeners::bind_again(&self.broker).await?;
        self.run(listeners);
        Ok(())
    }

    fn run(&self, listeners: Listeners) {
        let tasks = Tasks::new();
        let spawner = tasks.spawner();
        for (listener, routes) in listeners.with_routes(self.broker.options.version) {
            let routes = Arc::new(routes);
            spawner.spawn(server::serve(
                Arc::clone(&self.broker),
                routes,
                listener,
                false,
                #[cfg(feature = "tls")]
                Arc::clone(&self.acceptor),
                tasks.spawner(),
            ));
        }
        spawner.spawn(wait::run_timers(Arc::clone(&self.broker)));
        spawner.spawn(broker::keep_house(Arc::clone(&self.broker)));
        Delays::resume(&self.broker);
        Wheel::resume(&self.broker);
        Halves::resume(&self.broker);
        wait::pop::resume_revival(&self.broker);
        *lock(&self.running) = Some(tasks);
    }
}

/// Figures of an [`EmbeddedBroker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many messages are stored.
    pub messages: usize,
    /// What they take of the memory limit, in bytes.
    pub bytes: usize,
    /// How many messages had to go because of the limit.
    pub evicted: u64,
    /// How many connections are open.
    pub connections: usize,
}

/// Settings of an [`EmbeddedBroker`].
#[derive(Clone, Debug)]
pub struct Builder(Options);

impl Builder {
    /// The address to bind; default 127.0.0.1. It is also the one that routes tell to clients, so a wildcard
    /// address is refused. Whoever can reach the port can read, write and delete everything, unless there is
    /// [`access_control`](Self::access_control).
    #[must_use]
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.0.bind = address;
        self
    }

    /// The name server's port; default 0, a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.0.port = port;
        self
    }

    /// Gives the broker a port of its own, 0 for a free one. By default name server and broker share one port.
    #[must_use]
    pub fn broker_port(mut self, port: u16) -> Self {
        self.0.broker_port = Some(port);
        self
    }

    /// Whether there is a second server two below the broker's port, which serves everything but pulls; default false.
    /// With a free port, one is looked for that has room for both. Real brokers always have one.
    #[must_use]
    pub fn vip_channel(mut self, on: bool) -> Self {
        self.0.vip_channel = on;
        self
    }

    /// Whether the broker has a slave, with id 1 and a port of its own, which serves pulls of the same messages; default
    /// false. Groups whose configuration says so (`brokerId`) are sent to it, as by real brokers with `slaveReadEnable`.
    /// See [`EmbeddedBroker::hold_slave`] and [`EmbeddedBroker::kill_slave`] for what can happen to it.
    #[must_use]
    pub fn slave(mut self, on: bool) -> Self {
        self.0.slave = on;
        self
    }

    /// Whether there is a topic for message trace, `RMQ_SYS_TRACE_TOPIC`; default false. Java: `traceTopicEnable`.
    #[must_use]
    pub fn trace_topic(mut self, on: bool) -> Self {
        self.0.trace_topic = on;
        self
    }

    /// The broker's name; default `broker-a`.
    #[must_use]
    pub fn broker_name(mut self, name: impl Into<String>) -> Self {
        self.0.broker_name = name.into();
        self
    }

    /// The cluster's name; default `DefaultCluster`.
    #[must_use]
    pub fn cluster_name(mut self, name: impl Into<String>) -> Self {
        self.0.cluster_name = name.into();
        self
    }

    /// How many queues a topic that a send creates has at the most; default 8. Clients ask for 4 unless told
    /// otherwise. Between 1 and 4096; other values are cut.
    #[must_use]
    pub fn default_queues(mut self, queues: i32) -> Self {
        self.0.default_queues = queues.clamp(1, crate::state::MAX_QUEUES);
        self
    }

    /// Whether a send to an unknown topic creates it; default true.
    #[must_use]
    pub fn auto_create_topics(mut self, on: bool) -> Self {
        self.0.auto_create_topics = on;
        self
    }

    /// Whether a consumer of an unknown group creates it; default true.
    #[must_use]
    pub fn auto_create_groups(mut self, on: bool) -> Self {
        self.0.auto_create_groups = on;
        self
    }

    /// How many bytes messages may take, with about 200 for each besides its own; default 256 MiB. Above it the
    /// oldest go, whatever their topic and whether they were consumed or not.
    #[must_use]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.0.memory_limit = bytes;
        self
    }

    /// How large the body of a message may be, in bytes; default 4 MiB, at most 15 MiB because of the limit for
    /// frames.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.0.max_message_bytes = bytes.min(15 * 1024 * 1024);
        self
    }

    /// Refuses transactions; default false. Java: `rejectTransactionMessage`.
    #[must_use]
    pub fn reject_transactions(mut self, on: bool) -> Self {
        self.0.reject_transactions = on;
        self
    }

    /// How old a half message has to be before its producer is asked; default 6 s. Java: `transactionTimeOut`.
    #[must_use]
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.0.transaction_timeout = timeout;
        self
    }

    /// How often producers are asked about their half messages; default 30 s, at least 10 ms. Java:
    /// `transactionCheckInterval`.
    #[must_use]
    pub fn transaction_check_interval(mut self, interval: Duration) -> Self {
        self.0.transaction_check_interval = interval.max(Duration::from_millis(10));
        self
    }

    /// How often a producer is asked about one half message before that is put away into
    /// `TRANS_CHECK_MAX_TIME_TOPIC`; default 15. Java: `transactionCheckMax`.
    #[must_use]
    pub fn transaction_check_max(mut self, times: u32) -> Self {
        self.0.transaction_check_max = times;
        self
    }

    /// How long a queue stays locked for a consumer in order that does not renew the lock, in steps of a millisecond;
    /// default 60 s. Java: the system property `rocketmq.broker.rebalance.lockMaxLiveTime`.
    #[must_use]
    pub fn queue_lock_life(mut self, life: Duration) -> Self {
        self.0.queue_lock_life = life;
        self
    }

    /// Whether replies are stored in the reply topic besides being passed on; default true. Java:
    /// `storeReplyMessageEnable`.
    #[must_use]
    pub fn store_replies(mut self, on: bool) -> Self {
        self.0.store_replies = on;
        self
    }

    /// Lets the broker serve only requests that a [`user`](Self::user) has signed and has the right to make, and refuse
    /// others in this style. By default everybody may do everything. The name server never asks.
    #[must_use]
    pub fn access_control(mut self, style: AccessStyle) -> Self {
        self.0.access = Some(style);
        self
    }

    /// Adds a user, for [`access_control`](Self::access_control).
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.0.users.push(user);
        self
    }

    /// Which connections are accepted; default [`TlsMode::Permissive`]: TLS and plain text on the same ports, as on
    /// real servers.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_mode(mut self, mode: TlsMode) -> Self {
        self.0.tls.mode = mode;
        self
    }

    /// The certificate with its chain, and its key, as PEM. By default the broker makes a certificate of its own for
    /// `localhost`, `127.0.0.1` and `::1`, which no client has a reason to trust.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_identity(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.0.tls.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Asks clients that use TLS for a certificate of this authority (PEM). By default none is asked for. Java:
    /// `tls.server.need.client.auth=require`, `tls.server.trustCertPath`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_client_authority(mut self, authority: impl Into<String>) -> Self {
        self.0.tls.client_authority = Some(authority.into());
        self
    }

    /// Whether messages can be taken back before they are delivered; default false, as on a real broker
    /// (`recallMessageEnable`).
    #[must_use]
    pub fn recall_messages(mut self, on: bool) -> Self {
        self.0.recall_messages = on;
        self
    }

    /// The version that the broker says it has, and whose features it leaves out if it is older; default 5.5.0. Before
    /// 5.0.0 it ignores delivery times, before 5.3.2 it takes no message back, before 5.5.0 it ignores priorities.
    #[must_use]
    pub fn version(mut self, version: BrokerVersion) -> Self {
        self.0.version = version;
        self
    }

    /// Starts. It is ready when this returns.
    ///
    /// # Errors
    /// `InvalidInput` for a wildcard address, names that RocketMQ does not allow or certificates that cannot be used; the system's if a port cannot be
    /// bound.
    pub async fn start(self) -> io::Result<EmbeddedBroker> {
        let options = self.0;
        check(&options)?;
        #[cfg(feature = "tls")]
        let acceptor = Arc::new(Acceptor::new(options.tls.clone())?);
        let listeners = Listeners::bind(&options, options.port, options.broker_port).await?;
        let slave = match options.slave {
            true => Some(listen(SocketAddr::new(options.bind, 0), "slave").await?),
            false => None,
        };
        let slave_address = slave.as_ref().map(TcpListener::local_addr).transpose()?;
        let random = RandomState::new().hash_one(std::process::id());
        let broker = Broker::new(
            options,
            listeners.name_server_address()?,
            listeners.broker_address()?,
            slave_address,
            random,
        );
        let embedded = EmbeddedBroker {
            broker: Arc::new(broker),
            #[cfg(feature = "tls")]
            acceptor,
            running: Mutex::new(None),
            slave_running: Mutex::new(None),
        };
        embedded.run(listeners);
        if let Some(slave) = slave {
            embedded.run_slave(slave);
        }
        Ok(embedded)
    }
}

fn check(options: &Options) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if options.bind.is_unspecified() {
        let bind = options.bind;
        return wrong(format!(
            "{bind} is no address that clients can be told; bind one of this machine's addresses"
        ));
    }
    for (what, name) in [
        ("broker", &options.broker_name),
        ("cluster", &options.cluster_name),
    ] {
        if let Err(error) = rocketmq_client::protocol::names::check_topic(name) {
            return wrong(format!("the name of the {what} becomes a topic, and {error}"));
        }
    }
    Ok(())
}

/// The ports: one with both roles, or one for each.
struct Listeners {
    name_server: TcpListener,
    broker: Option<TcpListener>,
    /// Two below the broker's port.
    second: Option<TcpListener>,
}

/// How many free ports are tried for one whose second neighbour below is free too.
const PORTS_TRIED: u32 = 64;

impl Listeners {
    async fn bind(options: &Options, port: u16, broker_port: Option<u16>) -> io::Result<Self> {
        let any_port = broker_port.unwrap_or(port) == 0;
        let mut tried = 0;
        loop {
            tried += 1;
            match Self::bind_once(options, port, broker_port).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && any_port && tried < PORTS_TRIED => {
                }
                bound => return bound,
            }
        }
    }

    async fn bind_once(options: &Options, port: u16, broker_port: Option<u16>) -> io::Result<Self> {
        let ip = options.bind;
        let name_server = listen(SocketAddr::new(ip, port), "name server").await?;
        let broker = match broker_port {
            Some(port) => Some(listen(SocketAddr::new(ip, port), "broker").await?),
            None => None,
        };
        let first = broker.as_ref().unwrap_or(&name_server).local_addr()?;
        let second = match options.vip_channel {
            true => {
                let port = first.port().checked_sub(2).filter(|port| *port > 0);
                let port = port.ok_or_else(|| {
                    let text = format!("there is no port two below {first} for the broker's second server");
                    io::Error::new(io::ErrorKind::InvalidInput, text)
                })?;
                Some(listen(SocketAddr::new(ip, port), "broker's second server").await?)
            }
            false => None,
        };
        Ok(Self {
            name_server,
            broker,
            second,
        })
    }

    async fn bind_again(broker: &Broker) -> io::Result<Self> {
        let own_port = broker.address != broker.name_server;
        let broker_port = own_port.then_some(broker.address.port());
        Self::bind(&broker.options, broker.name_server.port(), broker_port).await
    }

    fn name_server_address(&self) -> io::Result<SocketAddr> {
        self.name_server.local_addr()
    }

    fn broker_address(&self) -> io::Result<SocketAddr> {
        self.broker.as_ref().unwrap_or(&self.name_server).local_addr()
    }

    fn with_routes(self, version: BrokerVersion) -> Vec<(TcpListener, server::Routes)> {
        let mut served = match self.broker {
            None => vec![(
                self.name_server,
                families::name_server().and(families::broker(version)),
            )],
            Some(broker) => vec![
                (self.name_server, families::name_server()),
                (broker, families::broker(version)),
            ],
        };
        if let Some(second) = self.second {
            served.push((second, families::second_server(version)));
        }
        served
    }
}

async fn listen(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot bind {address} for the {what}: {error}"),
        )
    })
}
