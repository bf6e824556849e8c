//! A TCP proxy on loopback that does to a connection what networks and broken peers do.
//!
//! It knows frames (length, header, body), so it can cut inside one, lie about one's length, or withhold, repeat and
//! change the answer to one kind of request. Bytes that are no frames pass unchanged. Nothing is buffered beyond one
//! header, one chunk, with the faults that concern answers one body, and with [`Fault::Repeat`] the copies.
//!
//! Clients learn the addresses of brokers from the route, past any proxy. [`FaultPath`] puts a proxy before a name
//! server too, and has it write the broker proxy's address into the answers.

mod edit;
mod pump;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::Failure;
use pump::{End, Pump, Requests};

/// Which half of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the client writes.
    ToServer,
    /// What the server writes.
    ToClient,
}

/// What to do to one direction of every connection. Positions count from 0 at the connection's first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Pass nothing on, with the connection open.
    Stall,
    /// End the connection once this many bytes have passed.
    Cut {
        /// Bytes of this direction that still pass.
        after: u64,
        /// In which way.
        how: Cut,
    },
    /// End the connection inside a frame that belongs to a request of this code: the request itself, or its answer.
    /// A frame that is shorter is spared.
    CutIn {
        /// Request code.
        code: i32,
        /// Bytes of the frame that still pass.
        after: usize,
        /// In which way.
        how: Cut,
    },
    /// Change one byte of a frame that belongs to a request of this code. A frame that is shorter is spared.
    FlipIn {
        /// Request code.
        code: i32,
        /// The byte's place in the frame.
        at: usize,
        /// The bits to turn over.
        mask: u8,
    },
    /// Change one byte.
    Flip {
        /// Its position.
        at: u64,
        /// The bits to turn over.
        mask: u8,
    },
    /// Announce a wrong length for a frame.
    LieAboutLength {
        /// Which frame of the connection, from 0.
        frame: u64,
        /// The length field.
        length: i32,
    },
    /// Swallow the answers to requests of this code. For [`Direction::ToClient`].
    DropAnswer {
        /// Request code.
        code: i32,
    },
    /// Swallow requests of this code: those of the client, or those that the server makes of its client.
    DropRequest {
        /// Request code.
        code: i32,
    },
    /// With [`Direction::ToClient`], answer requests of this code with another response code. With
    /// [`Direction::ToServer`], put them to the server under another request code: one that it does not know is
    /// refused at once, and nothing is done.
    Recode {
        /// Request code.
        code: i32,
        /// Response code or request code.
        to: i32,
    },
    /// Write the answers to requests of this code a second time. For [`Direction::ToClient`].
    Repeat {
        /// Request code.
        code: i32,
        /// How many more of these answers come before the copy.
        after: u32,
    },
    /// Precede the answers to requests of this code by a copy for somebody else. For [`Direction::ToClient`].
    Misaddress {
        /// Request code.
        code: i32,
        /// The bits of the opaque to turn over.
        mask: i32,
    },
    /// Write byte by byte, each in a segment of its own.
    Slice,
    /// Pass no more than so many bytes in a second.
    Throttle {
        /// Of one direction of one connection.
        bytes_per_second: u32,
    },
    /// Pass on every chunk this much later.
    Delay(Duration),
    /// Write one address for another wherever it occurs in a body. For [`Direction::ToClient`].
    Readdress {
        /// The address in the server's words.
        from: SocketAddr,
        /// The address that the client reads.
        to: SocketAddr,
    },
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// With RST: the peer's next read or write fails.
    Reset,
    /// With FIN: the peer reads an end of file.
    Finish,
}

/// A fault in force, and how often it struck.
#[derive(Debug)]
pub struct Rule {
    direction: Direction,
    fault: Fault,
    limit: u64,
    hits: AtomicU64,
}

impl Rule {
    /// How often the fault was done to a connection, a frame or a chunk.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Acquire)
    }

    /// Counts a hit, unless the rule is used up.
    fn strike(&self) -> bool {
        self.hits
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |hits| {
                (hits < self.limit).then_some(hits + 1)
            })
            .is_ok()
    }
}

type Rules = Arc<Vec<Arc<Rule>>>;

/// A proxy before one server. Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    /// Counts the calls of [`hang_up`](Self::hang_up).
    hang_ups: watch::Sender<(u64, Cut)>,
    connections: Arc<AtomicU64>,
    // Keeps the accept loop, and with it every connection.
    _tasks: JoinSet<()>,
}

impl FaultProxy {
    /// Listens on a free loopback port and passes everything on to `upstream`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(upstream: SocketAddr) -> Result<Self, Failure> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream).await
    }

    /// As [`start`](Self::start), on a given address: where a proxy was before.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start_at(address: SocketAddr, upstream: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (rules, watched) = watch::channel(Rules::default());
        let (hang_ups, hung_up) = watch::channel((0, Cut::Finish));
        let connections = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let line = Line {
            upstream,
            rules: watched,
            hung_up,
        };
        tasks.spawn(accept(listener, line, Arc::clone(&connections)));
        Ok(Self {
            address,
            rules,
            hang_ups,
            connections,
            _tasks: tasks,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    /// Does this to all connections, present and future, until [`heal`](Self::heal).
    pub fn inject(&self, direction: Direction, fault: Fault) -> Arc<Rule> {
        self.inject_times(direction, fault, u64::MAX)
    }

    /// Does this so many times.
    pub fn inject_times(&self, direction: Direction, fault: Fault, times: u64) -> Arc<Rule> {
        let rule = Arc::new(Rule {
            direction,
            fault,
            limit: times,
            hits: AtomicU64::new(0),
        });
        self.rules
            .send_modify(|rules| Arc::make_mut(rules).push(Arc::clone(&rule)));
        rule
    }

    /// Ends all connections, as a server does that finds them idle.
    pub fn hang_up(&self, how: Cut) {
        self.hang_ups.send_modify(|(count, last)| {
            *count += 1;
            *last = how;
        });
    }

    /// Ends all faults but [`Fault::Readdress`], which is no fault but a way to be in the path.
    pub fn heal(&self) {
        self.rules.send_modify(|rules| {
            Arc::make_mut(rules).retain(|rule| matches!(rule.fault, Fault::Readdress { .. }));
        });
    }
}

/// A name server and its brokers, each behind a proxy.
#[derive(Debug)]
pub struct FaultPath {
    /// Before the name server; clients are given its address.
    pub name_server: FaultProxy,
    /// Before the first broker; clients find its address in the route.
    pub broker: FaultProxy,
    /// Before the other brokers.
    pub others: Vec<FaultProxy>,
}

impl FaultPath {
    /// Puts the proxies in place.
    ///
    /// # Errors
    /// When no port can be had, or there is no broker.
    pub async fn start(name_server: SocketAddr, brokers: &[SocketAddr]) -> Result<Self, Failure> {
        let (first, others) = brokers.split_first().ok_or("no broker to put a proxy before")?;
        let name_server = FaultProxy::start(name_server).await?;
        let broker = before(&name_server, *first).await?;
        let mut proxies = Vec::new();
        for other in others {
            proxies.push(before(&name_server, *other).await?);
        }
        Ok(Self {
            name_server,
            broker,
            others: proxies,
        })
    }
}

/// A proxy before a broker that this name server tells of.
async fn before(name_server: &FaultProxy, broker: SocketAddr) -> Result<FaultProxy, Failure> {
    let proxy = FaultProxy::start(broker).await?;
    let readdress = Fault::Readdress {
        from: broker,
        to: proxy.address(),
    };
    name_server.inject(Direction::ToClient, readdress);
    Ok(proxy)
}

/// What every connection of a proxy needs.
#[derive(Debug, Clone)]
struct Line {
    upstream: SocketAddr,
    rules: watch::Receiver<Rules>,
    hung_up: watch::Receiver<(u64, Cut)>,
}

async fn accept(listener: TcpListener, line: Line, connections: Arc<AtomicU64>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.fetch_add(1, Ordering::AcqRel);
                let mut line = line.clone();
                // Only what comes from now on concerns this connection.
                line.hung_up.mark_unchanged();
                tasks.spawn(connection(client, line));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn connection(mut client: TcpStream, mut line: Line) {
    let Ok(mut server) = TcpStream::connect(line.upstream).await else {
        return;
    };
    let rules = line.rules;
    // Small writes must leave at once, or slicing would be undone by the kernel.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let requests = Arc::new(Requests::default());
    let ended: Result<((), ()), End> = {
        let (client_reader, client_writer) = client.split();
        let (server_reader, server_writer) = server.split();
        let up = Pump::new(
            Direction::ToServer,
            client_reader,
            server_writer,
            rules.clone(),
            Arc::clone(&requests),
        );
        let down = Pump::new(Direction::ToClient, server_reader, client_writer, rules, requests);
        tokio::select! {
            ended = async { tokio::try_join!(up.run(), down.run()) } => ended,
            Ok(()) = line.hung_up.changed() => Err(End::Cut(line.hung_up.borrow().1)),
        }
    };
    if matches!(ended, Err(End::Cut(Cut::Reset))) {
        // The sockets close right after this, so a failure to linger leaves a plain close.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// The one lock of the proxy, poisoned only by a panic that some test reports.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

#[cfg(test)]
mod tests;
