//! One connection: pipelined requests over one socket.

mod io;

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::TransportOptions;
use super::inbound::Inbound;
use super::outgoing::{Hold, Outgoing, Pushed};
use super::seal::{Sealed, Signed};
use super::slots::{Ended, Opened, Slots};
use crate::error::{Error, ErrorKind, Persisted, Result, refuses_identity};
use crate::protocol::{Fields, Frame, ResponseCode};
use crate::sync::lock;
use crate::tasks::Tasks;

/// A request on its way out: what is encoded into the buffer of a connection.
#[derive(Debug)]
pub(crate) struct Outbound<'a, F: ?Sized> {
    pub(crate) code: i32,
    /// The name of the request, for errors.
    pub(crate) name: &'static str,
    /// The typed fields.
    pub(crate) fields: &'a F,
    /// Pairs that follow the typed fields.
    pub(crate) extra: &'a Fields,
    pub(crate) body: Bytes,
}

/// A handle to a live connection. The connection ends when the last handle and the last request in flight are gone.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    /// The tasks of this connection; dropping them asks them to stop.
    tasks: Tasks,
}

/// Who is at the other end of a stream.
#[derive(Clone, Debug)]
pub(super) struct PeerAddress {
    pub(super) address: Arc<str>,
    /// Whether the stream is encrypted.
    pub(super) secure: bool,
}

struct Shared {
    peer: Arc<str>,
    secure: bool,
    options: TransportOptions,
    slots: Mutex<Slots>,
    outgoing: Mutex<Outgoing>,
    /// Frames wait for the writer.
    to_write: Notify,
    /// A deadline is earlier than the sweep knows.
    to_sweep: Notify,
    /// A slot was freed; and how many wait for one.
    slot_freed: Notify,
    waiting_for_slot: AtomicUsize,
    /// The buffer was handed to the writer; and how many wait for room in it.
    buffer_freed: Notify,
    waiting_for_buffer: AtomicUsize,
    server_requests: Arc<Semaphore>,
    /// The group above this connection's: requests of the server do not keep the connection alive.
    tasks: Tasks,
    stop: CancellationToken,
    started: Instant,
    /// When the last byte came, in milliseconds since `started`.
    last_read: AtomicU64,
    /// How many requests have timed out since the last byte came.
    silent_timeouts: AtomicU32,
    /// When the last frame was whole, in milliseconds since `started`.
    last_frame: AtomicU64,
    /// How many requests have timed out since the last frame was whole.
    frameless_timeouts: AtomicU32,
}

/// Whether a request is answered; if not, what its frame takes of the sender's room.
#[derive(Debug)]
enum Way {
    Answered,
    OneWay(Option<Hold>),
}

/// What starting a request without waiting came to.
#[derive(Debug)]
pub(crate) enum Started {
    /// The request is in the buffer.
    InFlight(InFlight),
    /// As many are in flight, or as many bytes are waiting, as may.
    Full,
    /// It cannot be sent over this connection.
    Failed(Error),
}

/// A request in flight: a future that gives the response frame, or why there is none.
///
/// # Cancellation
/// Dropping it frees its slot. The frame leaves whole all the same, and the reply is dropped and counted.
#[must_use = "the reply goes to nobody unless it is awaited"]
pub(crate) struct InFlight {
    connection: Arc<Connection>,
    opaque: i32,
    /// Where the frame starts in the stream.
    position: u64,
    name: &'static str,
    started: Instant,
}

impl Connection {
    /// Takes over a stream whose other end is `peer`.
    pub(super) fn start<R, W>(
        reader: R,
        writer: W,
        peer: PeerAddress,
        options: TransportOptions,
        inbound: Arc<dyn Inbound>,
        tasks: &Tasks,
    ) -> Arc<Self>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let above = tasks.clone();
        let tasks = tasks.child();
        let shared = Arc::new(Shared {
            peer: peer.address,
            secure: peer.secure,
            slots: Mutex::new(Slots::new(options.max_in_flight)),
            outgoing: Mutex::new(Outgoing::new(options.format, options.max_buffered_bytes)),
            to_write: Notify::new(),
            to_sweep: Notify::new(),
            slot_freed: Notify::new(),
            waiting_for_slot: AtomicUsize::new(0),
            buffer_freed: Notify::new(),
            waiting_for_buffer: AtomicUsize::new(0),
            server_requests: Arc::new(Semaphore::new(options.max_server_requests)),
            options,
            tasks: above,
            stop: tasks.token().clone(),
            started: Instant::now(),
            last_read: AtomicU64::new(0),
            silent_timeouts: AtomicU32::new(0),
            last_frame: AtomicU64::new(0),
            frameless_timeouts: AtomicU32::new(0),
        });
        tasks.spawn("connection-write", |stop| {
            io::write(Arc::clone(&shared), writer, stop)
        });
        tasks.spawn("connection-read", |stop| {
            io::read(Arc::clone(&shared), reader, inbound, stop)
        });
        tasks.spawn("connection-sweep", |stop| io::sweep(Arc::clone(&shared), stop));
        Arc::new(Self { shared, tasks })
    }

    /// Puts a request into the buffer if that needs no waiting.
    pub(crate) fn try_start<F: Serialize + ?Sized>(
        self: &Arc<Self>,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
    ) -> Started {
        match self.shared.sign(outbound) {
            Ok(None) => self.try_start_sealed(&self.shared.unsigned(outbound), deadline),
            Ok(Some(signed)) => self.try_start_sealed(&signed.seal(), deadline),
            Err(error) => Started::Failed(error),
        }
    }

    fn try_start_sealed<F: Serialize + ?Sized>(
        self: &Arc<Self>,
        sealed: &Sealed<'_, F>,
        deadline: Instant,
    ) -> Started {
        let opaque = match self.shared.open(deadline) {
            Opened::Slot { opaque, .. } => opaque,
            Opened::Full => return Started::Full,
            Opened::Failed(error) => return Started::Failed(error.context(sealed.name)),
        };
        let mut in_flight = InFlight {
            connection: Arc::clone(self),
            opaque,
            position: 0,
            name: sealed.name,
            started: Instant::now(),
        };
        match self.shared.push(sealed, opaque, &mut Way::Answered) {
            Ok(Some(position)) => {
                in_flight.position = position;
                Started::InFlight(in_flight)
            }
            Ok(None) => Started::Full,
            Err(error) => Started::Failed(error),
        }
    }

    /// Puts a request into the buffer; waits for a slot and for room until the deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when the deadline comes first, [`ErrorKind::Connect`] when the connection breaks,
    /// [`ErrorKind::TooLarge`] for a frame above the limit. Nothing was sent in any of these cases.
    pub(crate) async fn start_request<F: Serialize + Sync + ?Sized>(
        self: &Arc<Self>,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
    ) -> Result<InFlight> {
        match self.shared.sign(outbound)? {
            None => self.start_sealed(&self.shared.unsigned(outbound), deadline).await,
            Some(signed) => self.start_sealed(&signed.seal(), deadline).await,
        }
    }

    async fn start_sealed<F: Serialize + Sync + ?Sized>(
        self: &Arc<Self>,
        sealed: &Sealed<'_, F>,
        deadline: Instant,
    ) -> Result<InFlight> {
        let shared = &self.shared;
        let opaque = {
            let waiting = Waiting::new(&shared.waiting_for_slot);
            loop {
                let mut freed = pin!(shared.slot_freed.notified());
                freed.as_mut().enable();
                match shared.open(deadline) {
                    Opened::Slot { opaque, .. } => break opaque,
                    Opened::Failed(error) => return Err(error.context(sealed.name)),
                    Opened::Full => {}
                }
                if timeout_at(deadline, freed).await.is_err() {
                    return Err(self.overloaded(sealed.name, waiting));
                }
            }
        };
        let mut in_flight = InFlight {
            connection: Arc::clone(self),
            opaque,
            position: 0,
            name: sealed.name,
            started: Instant::now(),
        };
        in_flight.position = self
            .push_when_room(sealed, opaque, Way::Answered, deadline)
            .await?;
        Ok(in_flight)
    }

    /// Puts a one-way request into the buffer; waits for room until the deadline. `hold` is given back once the frame
    /// is written, or lost with the connection.
    ///
    /// # Errors
    /// As [`start_request`](Self::start_request).
    pub(crate) async fn one_way<F: Serialize + Sync + ?Sized>(
        &self,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
        hold: Option<Hold>,
    ) -> Result<()> {
        if let Some(failure) = self.failure() {
            return Err(failure.context(outbound.name));
        }
        // One-way requests have no slot; the number only has to look like one. None is ever given out twice at once.
        let opaque = i32::MAX;
        let way = Way::OneWay(hold);
        match self.shared.sign(outbound)? {
            None => {
                let sealed = self.shared.unsigned(outbound);
                self.push_when_room(&sealed, opaque, way, deadline).await?;
            }
            Some(signed) => {
                self.push_when_room(&signed.seal(), opaque, way, deadline).await?;
            }
        }
        Ok(())
    }

    async fn push_when_room<F: Serialize + Sync + ?Sized>(
        &self,
        sealed: &Sealed<'_, F>,
        opaque: i32,
        mut way: Way,
        deadline: Instant,
    ) -> Result<u64> {
        let shared = &self.shared;
        if let Some(position) = shared.push(sealed, opaque, &mut way)? {
            return Ok(position);
        }
        let waiting = Waiting::new(&shared.waiting_for_buffer);
        loop {
            let mut freed = pin!(shared.buffer_freed.notified());
            freed.as_mut().enable();
            if let Some(position) = shared.push(sealed, opaque, &mut way)? {
                return Ok(position);
            }
            if timeout_at(deadline, freed).await.is_err() {
                return Err(self.overloaded(sealed.name, waiting));
            }
        }
    }

    fn overloaded(&self, name: &str, waiting: Waiting<'_>) -> Error {
        let also = waiting.0.load(Ordering::Relaxed).saturating_sub(1);
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "{name} to {}: no room among the requests in flight before the deadline ({also} others wait); send \
                 more slowly or raise the limits of the client",
                self.shared.peer
            ),
        )
        .at(Arc::clone(&self.shared.peer))
    }

    /// Why the connection is of no further use; `None` while it is.
    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.shared.slots).failure().cloned()
    }

    /// Whether requests can be made.
    pub(crate) fn is_usable(&self) -> bool {
        lock(&self.shared.slots).failure().is_none()
    }

    /// Waits until no requests can be made any more.
    pub(crate) async fn ended(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Whether the peer has ever sent a byte.
    pub(crate) fn has_heard(&self) -> bool {
        self.shared.has_heard()
    }

    /// Asks the connection to write what waits and to end then.
    pub(crate) fn stop(&self) {
        self.tasks.cancel();
    }

    /// Writes what waits, then ends the connection; at most `grace`. Requests in flight fail.
    pub(crate) async fn drain(&self, grace: Duration) {
        // What is still running after the grace is cut off by this.
        let _ = self.tasks.stop(grace).await;
        self.shared.fail(self.shared.closed());
    }

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> usize {
        lock(&self.shared.slots).in_flight()
    }

    #[cfg(test)]
    pub(crate) fn late_replies(&self) -> u64 {
        lock(&self.shared.slots).late_replies()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.shared.peer)
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn open(&self, deadline: Instant) -> Opened {
        let opened = lock(&self.slots).open(deadline);
        if matches!(opened, Opened::Slot { tell_sweep: true, .. }) {
            self.to_sweep.notify_one();
        }
        opened
    }

    /// The request with its signature; `None` when requests are not signed here.
    fn sign<F: Serialize + ?Sized>(&self, outbound: &Outbound<'_, F>) -> Result<Option<Signed>> {
        let Some(signer) = &self.options.signer else {
            return Ok(None);
        };
        let (common, format) = (self.options.common_fields.as_deref(), self.options.format);
        Signed::new(outbound, common, format, &**signer).map(Some)
    }

    /// Adds to the reason of a refusal for which name the request was signed, which the caller does not know.
    fn say_who_was_refused(&self, mut frame: Frame) -> Frame {
        let remark = frame.remark.as_deref().unwrap_or_default();
        if refuses_identity(ResponseCode(frame.code), remark) {
            let signed = match &self.options.signer {
                Some(signer) => format!("signed with access key {:?}", signer.refused()),
                None => "the request was not signed".to_owned(),
            };
            frame.remark = Some(format!("{remark} ({signed})"));
        }
        frame
    }

    fn unsigned<'a, F: ?Sized>(&'a self, outbound: &'a Outbound<'_, F>) -> Sealed<'a, F> {
        Sealed::unsigned(outbound, self.options.common_fields.as_deref())
    }

    /// Puts a frame into the buffer; `None` without room.
    fn push<F: Serialize + ?Sized>(
        &self,
        sealed: &Sealed<'_, F>,
        opaque: i32,
        way: &mut Way,
    ) -> Result<Option<u64>> {
        let pushed = {
            let mut outgoing = lock(&self.outgoing);
            let pushed = outgoing.push(sealed, opaque, matches!(way, Way::OneWay(_)));
            if let (Pushed::Queued { .. }, Way::OneWay(hold)) = (&pushed, way)
                && let Some(hold) = hold.take()
            {
                outgoing.hold(hold);
            }
            pushed
        };
        match pushed {
            Pushed::Queued {
                position,
                wake_writer,
            } => {
                if wake_writer {
                    self.to_write.notify_one();
                }
                Ok(Some(position))
            }
            Pushed::Full => Ok(None),
            Pushed::Refused(error) => Err(Error::from_encode(sealed.name, error)),
            Pushed::Closed => {
                let failure = lock(&self.slots).failure().cloned();
                Err(failure.unwrap_or_else(|| self.closed()).context(sealed.name))
            }
        }
    }

    fn respond(&self, frame: &Frame) {
        let pushed = lock(&self.outgoing).push_response(frame);
        match pushed {
            Pushed::Queued { wake_writer, .. } => {
                if wake_writer {
                    self.to_write.notify_one();
                }
            }
            Pushed::Full | Pushed::Closed | Pushed::Refused(_) => {
                tracing::debug!(peer = %self.peer, code = frame.code, ?pushed, "a response was not sent");
            }
        }
    }

    /// Ends the connection for all who use it. Frames that the writer has not taken yet are certainly not sent.
    fn fail(&self, error: Error) {
        lock(&self.outgoing).abort();
        let wakers = lock(&self.slots).fail(error);
        wakers.into_iter().for_each(Waker::wake);
        self.slot_freed.notify_waiters();
        self.buffer_freed.notify_waiters();
        self.stop.cancel();
    }

    fn closed(&self) -> Error {
        Error::closed(format_args!("the connection to {}", self.peer)).at(Arc::clone(&self.peer))
    }

    fn has_heard(&self) -> bool {
        self.last_read.load(Ordering::Relaxed) > 0
    }

    fn millis_since_start(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl InFlight {
    /// The connection that the request went over.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn timed_out(&self) -> Error {
        let peer = &self.connection.shared.peer;
        let waited = self.started.elapsed().as_millis();
        Error::new(
            ErrorKind::Timeout,
            format!(
                "{} to {peer}: no reply in {waited} ms; is the broker overloaded, frozen or unreachable?",
                self.name
            ),
        )
        .at(Arc::clone(peer))
        .with_persisted(Persisted::Maybe)
    }

    fn failed(&self, error: Error) -> Error {
        let sent = lock(&self.connection.shared.outgoing).is_handed_over(self.position);
        let persisted = if sent { Persisted::Maybe } else { Persisted::No };
        error.context(self.name).with_persisted(persisted)
    }
}

impl Future for InFlight {
    type Output = Result<Frame>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = lock(&self.connection.shared.slots).poll(self.opaque, context);
        ended.map(|ended| match ended {
            Ended::Reply(frame) => Ok(self.connection.shared.say_who_was_refused(frame)),
            Ended::Expired => Err(self.timed_out()),
            Ended::Failed(error) => Err(self.failed(error)),
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let shared = &self.connection.shared;
        lock(&shared.slots).close(self.opaque);
        // Whoever waits has counted itself before it looked for a slot, so it is either seen here or sees the slot.
        if shared.waiting_for_slot.load(Ordering::SeqCst) > 0 {
            shared.slot_freed.notify_one();
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("name", &self.name)
            .field("opaque", &self.opaque)
            .finish_non_exhaustive()
    }
}

/// Counts one who waits, for as long as it lives.
#[derive(Debug)]
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
