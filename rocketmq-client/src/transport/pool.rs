//! Address to connection: dialed when needed, one dial at a time, with a back-off between failures.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info};

use super::TransportOptions;
use super::backoff::{backoff, random};
use super::connection::{Connection, PeerAddress};
use super::dial::{Dialer, Progress, Stream};
use super::inbound::Inbound;
use super::standing::Standings;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{lock, read, write};
use crate::tasks::Tasks;

/// The connections of one client.
pub(crate) struct Pool {
    peers: RwLock<HashMap<Arc<str>, Arc<Peer>>>,
    options: TransportOptions,
    dialer: Dialer,
    inbound: Arc<dyn Inbound>,
    tasks: Tasks,
    standings: Standings,
}

#[derive(Debug)]
struct Peer {
    address: Arc<str>,
    link: Mutex<Link>,
    /// Counts the dials that have ended.
    dialed: watch::Sender<u64>,
    /// What the dial of the moment is at.
    progress: Progress,
}

#[derive(Debug)]
struct Link {
    state: State,
    /// How many dials in a row failed, or gave a connection that broke before the peer said anything.
    failures: u32,
    /// When the next dial may start.
    not_before: Instant,
    last_error: Option<Error>,
}

#[derive(Debug)]
enum State {
    Down,
    Dialing,
    Up(Arc<Connection>),
}

impl Pool {
    pub(crate) fn new(options: TransportOptions, inbound: Arc<dyn Inbound>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            peers: RwLock::new(HashMap::new()),
            dialer: Dialer::new(options.dial.clone()),
            options,
            inbound,
            tasks,
            standings: Standings::default(),
        })
    }

    /// The live connection to an address, if there is one.
    pub(crate) fn ready(&self, address: &str) -> Option<Arc<Connection>> {
        let peers = read(&self.peers);
        let link = lock(&peers.get(address)?.link);
        match &link.state {
            State::Up(connection) if connection.is_usable() => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// The live connection to an address; dials if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when the dial fails, or when the back-off after earlier failures lasts longer than the
    /// deadline; [`ErrorKind::Timeout`] when the deadline passes during the dial; [`ErrorKind::Tls`] when no secure
    /// connection comes about.
    ///
    /// # Cancellation
    /// Safe; the dial goes on for whoever comes next.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        address: &str,
        deadline: Instant,
    ) -> Result<Arc<Connection>> {
        let peer = self.peer(address);
        let mut dialed = peer.dialed.subscribe();
        let mut waited = false;
        loop {
            dialed.mark_unchanged();
            {
                let mut link = lock(&peer.link);
                link.notice_failure();
                match &link.state {
                    State::Up(connection) => return Ok(Arc::clone(connection)),
                    // A dial that waits for its back-off is of no use to who cannot wait that long.
                    State::Dialing => {
                        if let (true, Some(error)) = (link.not_before >= deadline, &link.last_error) {
                            return Err(error.clone());
                        }
                    }
                    State::Down => {
                        // The dial that was waited for has failed.
                        if let (true, Some(error)) = (waited, &link.last_error) {
                            return Err(error.clone());
                        }
                        if self.tasks.token().is_cancelled() {
                            return Err(Error::closed("the client"));
                        }
                        if let (true, Some(error)) = (link.not_before >= deadline, &link.last_error) {
                            return Err(error.clone());
                        }
                        link.state = State::Dialing;
                        self.spawn_dial(&peer, link.not_before);
                    }
                }
            }
            waited = true;
            if timeout_at(deadline, dialed.changed()).await.is_err() {
                return Err(self.dialer.took_too_long(
                    ErrorKind::Timeout,
                    &peer.address,
                    &peer.progress,
                    "before the deadline",
                ));
            }
        }
    }

    fn spawn_dial(self: &Arc<Self>, peer: &Arc<Peer>, not_before: Instant) {
        let pool = Arc::clone(self);
        let peer = Arc::clone(peer);
        self.tasks.spawn("dial", |stop| async move {
            let dial = async {
                sleep_until(not_before).await;
                pool.dial(&peer).await
            };
            let outcome = stop
                .run_until_cancelled(dial)
                .await
                .unwrap_or_else(|| Err(Error::closed("the client")));
            let connected = outcome.is_ok();
            {
                let mut link = lock(&peer.link);
                match outcome {
                    Ok(connection) => link.state = State::Up(connection),
                    Err(error) => {
                        debug!(address = %peer.address, failures = link.failures, %error, "a dial failed");
                        link.back_off(error);
                    }
                }
            }
            peer.dialed.send_modify(|count| *count += 1);
            if connected {
                info!(address = %peer.address, "connected");
                pool.inbound.connected(&peer.address);
            }
        });
    }

    async fn dial(&self, peer: &Peer) -> Result<Arc<Connection>> {
        let address = &peer.address;
        Ok(match self.dialer.dial(address, &peer.progress).await? {
            Stream::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                self.start(reader, writer, address, false)
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => {
                let (reader, writer) = tokio::io::split(*stream);
                self.start(reader, writer, address, true)
            }
        })
    }

    fn start<R, W>(&self, reader: R, writer: W, address: &Arc<str>, secure: bool) -> Arc<Connection>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let peer = PeerAddress {
            address: Arc::clone(address),
            secure,
        };
        let (options, inbound) = (self.options.clone(), Arc::clone(&self.inbound));
        Connection::start(reader, writer, peer, options, inbound, &self.tasks)
    }

    /// Tells which addresses are name servers; all others are brokers. They may be dialed differently.
    pub(crate) fn set_name_servers(&self, addresses: &[Arc<str>]) {
        self.dialer.set_name_servers(addresses);
    }

    fn peer(&self, address: &str) -> Arc<Peer> {
        if let Some(peer) = read(&self.peers).get(address) {
            return Arc::clone(peer);
        }
        let mut peers = write(&self.peers);
        let address: Arc<str> = address.into();
        let peer = peers
            .entry(Arc::clone(&address))
            .or_insert_with(|| Arc::new(Peer::new(address)));
        Arc::clone(peer)
    }

    /// Lets go of a connection whose peer wants no more requests on it; what is in flight on it goes on.
    pub(crate) fn retire(&self, address: &str, connection: &Arc<Connection>) {
        let peer = self.peer(address);
        let mut link = lock(&peer.link);
        if matches!(&link.state, State::Up(current) if Arc::ptr_eq(current, connection)) {
            link.state = State::Down;
            link.last_error = None;
        }
    }

    /// How the peers have answered lately.
    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Forgets peers that are not wanted any more; their connections end with their last request.
    pub(crate) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.standings.retain(&wanted);
        write(&self.peers).retain(|address, _| wanted(address));
    }

    /// Addresses to which there is a live connection.
    pub(crate) fn connected(&self) -> Vec<Arc<str>> {
        let peers = read(&self.peers);
        let live = peers.values().filter(
            |peer| matches!(&lock(&peer.link).state, State::Up(connection) if connection.is_usable()),
        );
        live.map(|peer| Arc::clone(&peer.address)).collect()
    }

    /// Writes what waits on all connections and ends them; at most `grace` each, all at a time.
    pub(crate) async fn drain(&self, grace: Duration) {
        let peers: Vec<_> = write(&self.peers).drain().map(|(_, peer)| peer).collect();
        let connections: Vec<_> = peers
            .iter()
            .filter_map(|peer| match &lock(&peer.link).state {
                State::Up(connection) => Some(Arc::clone(connection)),
                _ => None,
            })
            .collect();
        // They are asked to stop first, so that waiting for one lets the others go on.
        for connection in &connections {
            connection.stop();
        }
        let deadline = Instant::now() + grace;
        for connection in connections {
            connection
                .drain(deadline.saturating_duration_since(Instant::now()))
                .await;
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("connected", &self.connected())
            .finish_non_exhaustive()
    }
}

impl Peer {
    fn new(address: Arc<str>) -> Self {
        Self {
            address,
            link: Mutex::new(Link {
                state: State::Down,
                failures: 0,
                not_before: Instant::now(),
                last_error: None,
            }),
            dialed: watch::Sender::new(0),
            progress: Progress::default(),
        }
    }
}

impl Link {
    /// A connection that broke is no connection. One that never said anything counts as a failed dial, or a peer
    /// that accepts and closes would be dialed without end.
    fn notice_failure(&mut self) {
        let State::Up(connection) = &self.state else {
            return;
        };
        let Some(error) = connection.failure() else {
            return;
        };
        if connection.has_heard() {
            self.failures = 0;
            self.not_before = Instant::now();
            self.last_error = Some(error);
            self.state = State::Down;
        } else {
            self.back_off(error);
        }
    }

    fn back_off(&mut self, error: Error) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + backoff(self.failures, random());
        self.last_error = Some(error);
        self.state = State::Down;
    }
}

#[cfg(test)]
mod tests;
