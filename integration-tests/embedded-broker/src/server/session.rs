//! One connection: a task that reads requests, serves them in order and writes the answers of one read at once.
//!
//! The task does not read while it writes, so a client that does not take its answers is slowed down by TCP and
//! costs a bounded amount of memory. What comes from elsewhere (a held pull that goes on, a change in a group) is put
//! into the session as a note, and turned into bytes by this task alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::frame::{Head, next_frame};
use rocketmq_client::protocol::requests::NotifyConsumerIdsChanged;
use rocketmq_client::protocol::{Fields, HeaderFormat, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[cfg(feature = "tls")]
use super::tls::{Accepted, Acceptor};
use super::{Context, Reply, Routes};
use crate::broker::Broker;
use crate::families;
use crate::lock::lock;
use crate::state::Members;
use crate::wait::{self, HeldPop, HeldPull};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How many bytes of answers are collected before they are written.
const WRITE_BYTES: usize = 256 * 1024;
/// Buffers that grew beyond this are given back.
const KEEP_BYTES: usize = 1024 * 1024;
/// How many pulls and pops one connection may hold; a client has one for each queue it consumes.
const MAX_HELD: usize = 16 * 1024;
/// How many frames of others, and bytes of them, may wait to be written to one connection; one is always let in.
const MAX_FRAMES: usize = 1024;
const MAX_FRAME_BYTES: usize = 32 * 1024 * 1024;
/// How many connections there may be.
const MAX_SESSIONS: usize = 4096;
/// A connection without a sign of life for this long is closed. Java: `channelExpiredTimeout`, idle 120 s.
const IDLE_MILLIS: i64 = 120_000;

/// What others know of a connection.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    peer: SocketAddr,
    /// Whether this is a connection of the slave.
    of_slave: bool,
    notes: Mutex<Notes>,
    noted: Notify,
    closing: Notify,
    closed: AtomicBool,
    held: AtomicUsize,
    last_active: AtomicI64,
    next_opaque: AtomicU64,
}

#[derive(Debug, Default)]
struct Notes {
    resumed: VecDeque<HeldPull>,
    popping: VecDeque<HeldPop>,
    changed_groups: BTreeSet<Arc<str>>,
    frames: VecDeque<Bytes>,
    frame_bytes: usize,
}

impl Notes {
    fn has_room(&self) -> bool {
        self.frames.len() < MAX_FRAMES && self.frame_bytes < MAX_FRAME_BYTES
    }

    fn take_frame(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.frame_bytes -= frame.len();
        Some(frame)
    }
}

impl Session {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the client talks to the slave.
    pub(crate) fn is_of_slave(&self) -> bool {
        self.of_slave
    }

    /// Who has said to be there where this connection leads.
    pub(crate) fn members<'a>(&self, broker: &'a Broker) -> &'a Members {
        if self.of_slave {
            &broker.slave.members
        } else {
            &broker.members
        }
    }

    /// Counts one more held pull; false if there are too many.
    pub(crate) fn take_hold(&self) -> bool {
        let taken = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < MAX_HELD).then_some(held + 1)
            });
        taken.is_ok() && !self.closed.load(Ordering::Acquire)
    }

    /// Lets the connection run a held pull once more.
    pub(crate) fn resume(&self, held: HeldPull) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        if !self.closed.load(Ordering::Acquire) {
            lock(&self.notes).resumed.push_back(held);
            self.noted.notify_one();
        }
    }

    /// Counts one held request less: it is answered without having waited.
    pub(crate) fn release_hold(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether requests of this connection may be waiting.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Lets the connection run a held pop once more; false if it is closed.
    pub(crate) fn resume_pop(&self, held: HeldPop) -> bool {
        self.release_hold();
        let resumed = {
            let mut notes = lock(&self.notes);
            // Under the lock: closing empties the notes under it.
            let open = !self.closed.load(Ordering::Acquire);
            if open {
                notes.popping.push_back(held);
            }
            open
        };
        if resumed {
            self.noted.notify_one();
        }
        resumed
    }

    /// Lets the connection tell its client that a group has changed.
    pub(crate) fn group_changed(&self, group: &Arc<str>) {
        if !self.closed.load(Ordering::Acquire) {
            lock(&self.notes).changed_groups.insert(Arc::clone(group));
            self.noted.notify_one();
        }
    }

    /// A number for a request of the broker to this client.
    pub(crate) fn next_opaque(&self) -> i32 {
        self.next_opaque.fetch_add(1, Ordering::Relaxed) as i32
    }

    /// Lets the connection write a frame that was made elsewhere: a request of the broker, or a late answer. False if
    /// the connection is closed or has too many of them already.
    pub(crate) fn push(&self, frame: Bytes) -> bool {
        let pushed = {
            let mut notes = lock(&self.notes);
            // Under the lock: closing empties the notes under it.
            let room = notes.has_room() && !self.closed.load(Ordering::Acquire);
            if room {
                notes.frame_bytes += frame.len();
                notes.frames.push_back(frame);
            }
            room
        };
        if pushed {
            self.noted.notify_one();
        }
        pushed
    }

    fn close(&self) {
        self.closing.notify_one();
    }
}

/// All open connections.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<u64, Arc<Session>>>,
    next_id: AtomicU64,
}

impl Sessions {
    pub(super) fn open(&self, peer: SocketAddr, of_slave: bool, now: i64) -> Option<Arc<Session>> {
        let mut open = lock(&self.open);
        if open.len() >= MAX_SESSIONS {
            return None;
        }
        let session = Arc::new(Session {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            peer,
            of_slave,
            notes: Mutex::default(),
            noted: Notify::new(),
            closing: Notify::new(),
            closed: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            last_active: AtomicI64::new(now),
            next_opaque: AtomicU64::new(0),
        });
        open.insert(session.id, Arc::clone(&session));
        Some(session)
    }

    /// Takes a connection off the table; what is noted for it is dropped. Returns the pops that were to go on: somebody
    /// else may go on instead.
    pub(crate) fn forget(&self, session: &Session) -> VecDeque<HeldPop> {
        session.closed.store(true, Ordering::Release);
        let notes = std::mem::take(&mut *lock(&session.notes));
        lock(&self.open).remove(&session.id);
        notes.popping
    }

    /// Closes connections on which nothing has come or gone for too long.
    pub(crate) fn close_idle(&self, now: i64) {
        for session in lock(&self.open).values() {
            let idle = now.saturating_sub(session.last_active.load(Ordering::Relaxed));
            if idle > IDLE_MILLIS {
                tracing::info!(peer = %session.peer, idle_ms = idle, "an idle connection is closed");
                session.close();
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.open).len()
    }
}

/// Whom a connection serves, and with what.
#[derive(Clone, Copy)]
pub(super) struct Served<'a> {
    pub(super) broker: &'a Arc<Broker>,
    pub(super) session: &'a Arc<Session>,
    pub(super) routes: &'a Routes,
}

impl Served<'_> {
    /// Serves a connection until one of both sides closes it.
    pub(super) async fn run(self, stream: TcpStream, #[cfg(feature = "tls")] acceptor: &Acceptor) {
        let session = self.session;
        // Answers are coalesced here, so Nagle's algorithm could only add delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, peer = %session.peer, "socket options");
        }
        #[cfg(feature = "tls")]
        let serving = async {
            match acceptor.accept(stream).await? {
                Accepted::Plain(stream) => self.serve(stream).await,
                Accepted::Tls(stream) => self.serve(stream).await,
            }
        };
        #[cfg(not(feature = "tls"))]
        let serving = self.serve(stream);
        let ended = tokio::select! {
            ended = serving => ended,
            () = session.closing.notified() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %session.peer, "a connection ended");
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) -> io::Result<()> {
        let Self {
            broker,
            session,
            routes,
        } = self;
        let connection = Connection {
            broker,
            session,
            routes,
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
        };
        connection.run().await
    }
}

struct Connection<'a, S> {
    broker: &'a Arc<Broker>,
    session: &'a Arc<Session>,
    routes: &'a Routes,
    stream: S,
    input: BytesMut,
    output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(mut self) -> io::Result<()> {
        loop {
            self.input.reserve(READ_BYTES);
            let read = tokio::select! {
                read = self.stream.read_buf(&mut self.input) => Some(read?),
                () = self.session.noted.notified() => None,
            };
            match read {
                Some(0) => return Ok(()),
                Some(_) => self.serve_input().await?,
                None => self.serve_notes().await?,
            }
        }
    }

    async fn serve_input(&mut self) -> io::Result<()> {
        loop {
            let format = match self.input.get(4) {
                Some(1) => HeaderFormat::Binary,
                _ => HeaderFormat::Json,
            };
            let frame = match next_frame(&mut self.input) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, peer = %self.session.peer, "no RocketMQ frame, the connection is closed");
                    self.flush().await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            if frame.is_response() {
                wait::answered(self.broker, self.session, &frame);
            } else {
                self.routes
                    .dispatch(self.broker, self.session, frame, format, &mut self.output);
            }
            if self.output.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        if self.input.is_empty() && self.input.capacity() > KEEP_BYTES {
            self.input = BytesMut::new();
        }
        self.flush().await
    }

    async fn serve_notes(&mut self) -> io::Result<()> {
        let groups = std::mem::take(&mut lock(&self.session.notes).changed_groups);
        for group in groups {
            self.notify_group_changed(&group);
        }
        loop {
            let frame = lock(&self.session.notes).take_frame();
            let Some(frame) = frame else { break };
            self.output.extend_from_slice(&frame);
            if self.output.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        loop {
            let resumed = lock(&self.session.notes).resumed.pop_front();
            let Some(held) = resumed else { break };
            let reply = Reply::new(held.head, &mut self.output);
            families::pull::resume(self.broker, self.session, &held, reply);
            if self.output.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        loop {
            let popping = lock(&self.session.notes).popping.pop_front();
            let Some(held) = popping else { break };
            let context = Context {
                broker: self.broker,
                session: self.session,
                head: held.head,
            };
            let reply = Reply::new(held.head, &mut self.output);
            families::pop::resume(context, held, reply);
            if self.output.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    fn notify_group_changed(&mut self, group: &str) {
        let request = NotifyConsumerIdsChanged {
            consumer_group: group.to_owned(),
        };
        let opaque = self.session.next_opaque();
        let head = Head::request(NotifyConsumerIdsChanged::CODE.0, opaque, true);
        if let Err(error) = head.encode(HeaderFormat::Json, &request, &Fields::new(), 0, &mut self.output) {
            tracing::error!(%error, group, "a notification cannot be encoded");
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await?;
            // An encrypted stream may have taken bytes that are not on their way yet.
            self.stream.flush().await?;
            self.output.clear();
            if self.output.capacity() > KEEP_BYTES {
                self.output = BytesMut::new();
            }
        }
        self.session
            .last_active
            .store(self.broker.clock.now(), Ordering::Relaxed);
        Ok(())
    }
}
