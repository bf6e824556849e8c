//! The three tasks of a connection: one writes, one reads, one watches deadlines. None of them does two of these, so
//! none can be kept from reading by a peer that does not read.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use super::super::inbound::Inbound;
use super::super::outgoing::{Batch, Swapped};
#[cfg(feature = "tls")]
use super::super::tls;
use super::Shared;
use crate::error::{Error, ErrorKind};
use crate::protocol::frame::next_frame;
use crate::protocol::{Frame, ResponseCode};
use crate::sync::lock;
use crate::tasks::catch;
use crate::telemetry;

/// How much room a read has at least, in bytes.
const READ_ROOM: usize = 16 * 1024;
/// How much is made when there is less.
const READ_BUFFER: usize = 64 * 1024;
/// How long the last write of a connection that is closed may take.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// With more requests in flight than this the writer lets those who are about to send go first: one write then carries
/// many frames. Below that it would only add to the latency.
const CROWD: usize = 8;
/// A silence of this length and enough requests without an answer mean that the peer is frozen.
const FROZEN_SILENCE: Duration = Duration::from_secs(1);
/// Bytes that make up no frame for so long, and enough requests without an answer, mean that the stream is out of step:
/// a length was damaged, and the answers that follow are taken for the rest of that frame.
const FRAMELESS: Duration = Duration::from_secs(5);

pub(super) async fn write<W>(shared: Arc<Shared>, mut writer: W, stop: CancellationToken)
where
    W: AsyncWrite + Send + Unpin + 'static,
{
    let mut batch = Batch::default();
    loop {
        let swapped = lock(&shared.outgoing).swap(&mut batch);
        match swapped {
            Swapped::Filled => {}
            Swapped::Closed => break,
            Swapped::Empty => {
                if stop
                    .run_until_cancelled(shared.to_write.notified())
                    .await
                    .is_none()
                {
                    // What was queued before the stop still leaves: unregistrations and the last commits.
                    lock(&shared.outgoing).close();
                } else if lock(&shared.slots).in_flight() > CROWD {
                    yield_now().await;
                }
                continue;
            }
        }
        if shared.waiting_for_buffer.load(Ordering::SeqCst) > 0 {
            shared.buffer_freed.notify_waiters();
        }
        let mut write = pin!(async {
            match batch.as_one() {
                Some(bytes) => writer.write_all(bytes).await?,
                None => writer.write_all_buf(&mut batch).await?,
            }
            // An encrypted stream may have taken bytes that are not on their way yet.
            writer.flush().await
        });
        let written = match stop.run_until_cancelled(write.as_mut()).await {
            Some(written) => written,
            None if lock(&shared.outgoing).is_aborted() => break,
            // The rest of a frame that is half written leaves too.
            None => {
                let rest = timeout(LAST_WRITE, write).await;
                rest.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            }
        };
        if let Err(error) = written {
            shared.fail(broken(&shared, "writing failed", error));
            break;
        }
        batch.release();
    }
    // For whoever is still in flight when the connection is closed from this side.
    shared.fail(shared.closed());
    // The other end learns that no more will come; if it is gone already, there is nobody to tell.
    let _ = timeout(LAST_WRITE, writer.shutdown()).await;
}

pub(super) async fn read<R>(
    shared: Arc<Shared>,
    mut reader: R,
    inbound: Arc<dyn Inbound>,
    stop: CancellationToken,
) where
    R: AsyncRead + Send + Unpin + 'static,
{
    let mut buffer = BytesMut::with_capacity(READ_BUFFER);
    let mut replies = Vec::new();
    let mut wakers = Vec::new();
    loop {
        if buffer.capacity() - buffer.len() < READ_ROOM {
            buffer.reserve(READ_BUFFER);
        }
        let read = match stop.run_until_cancelled(reader.read_buf(&mut buffer)).await {
            None => return,
            Some(Ok(0)) => return shared.fail(closed(&shared, !buffer.is_empty())),
            Some(Ok(count)) => count,
            Some(Err(error)) => return shared.fail(broken(&shared, "reading failed", error)),
        };
        trace!(peer = %shared.peer, bytes = read, "read");
        shared
            .last_read
            .store(shared.millis_since_start().max(1), Ordering::Relaxed);
        shared.silent_timeouts.store(0, Ordering::Relaxed);
        let unframed = buffer.len();
        let damage = loop {
            match next_frame(&mut buffer) {
                Ok(Some(frame)) if frame.is_response() => replies.push(frame),
                Ok(Some(frame)) => serve(&shared, &*inbound, frame),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if buffer.len() < unframed {
            shared
                .last_frame
                .store(shared.last_read.load(Ordering::Relaxed), Ordering::Relaxed);
            shared.frameless_timeouts.store(0, Ordering::Relaxed);
        }
        {
            let mut slots = lock(&shared.slots);
            let late = slots.late_replies();
            wakers.extend(replies.drain(..).filter_map(|reply| slots.resolve(reply)));
            let late = slots.late_replies() - late;
            drop(slots);
            if late > 0 {
                telemetry::late_replies(&shared.peer, late);
                debug!(peer = %shared.peer, late, "replies came after their requests had ended");
            }
        }
        wakers.drain(..).for_each(Waker::wake);
        if let Some(error) = damage {
            let peer = &shared.peer;
            warn!(%peer, %error, "the peer sent what is no frame, the connection is closed");
            let text = format!("{peer} sent what is no frame: {error}; is it a RocketMQ remoting port?");
            let error = Error::new(ErrorKind::Protocol, text).caused_by(error);
            return shared.fail(error.at(Arc::clone(peer)));
        }
    }
}

/// Starts to serve a request of the server, if there are not too many in work.
fn serve(shared: &Arc<Shared>, inbound: &dyn Inbound, frame: Frame) {
    let (code, opaque, one_way) = (frame.code, frame.opaque, frame.is_one_way());
    let Ok(permit) = Arc::clone(&shared.server_requests).try_acquire_owned() else {
        warn!(peer = %shared.peer, code, "too many requests of the server at a time, one is refused");
        if !one_way {
            shared.respond(&Frame::refusal(
                ResponseCode::SYSTEM_BUSY,
                opaque,
                "too many requests at a time",
            ));
        }
        return;
    };
    let Some(request) = inbound.serve(&shared.peer, frame) else {
        debug!(peer = %shared.peer, code, "a request of the server is not known");
        if !one_way {
            let remark = format!(" request type {code} not supported");
            shared.respond(&Frame::refusal(
                ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
                opaque,
                remark,
            ));
        }
        return;
    };
    let serving = Arc::clone(shared);
    shared.tasks.spawn("server-request", |stop| async move {
        let _permit = permit;
        let response = match stop.run_until_cancelled(catch(request)).await {
            None => return,
            Some(Ok(response)) => response,
            Some(Err(panic)) => {
                tracing::error!(peer = %serving.peer, code, %panic, "serving a request of the server panicked");
                Frame::refusal(ResponseCode::SYSTEM_ERROR, opaque, "the handler panicked")
            }
        };
        if !one_way {
            serving.respond(&Frame { opaque, ..response });
        }
    });
}

pub(super) async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let now = Instant::now();
        let swept = lock(&shared.slots).sweep(now);
        swept.wakers.into_iter().for_each(Waker::wake);
        let heard = shared.started + Duration::from_millis(shared.last_read.load(Ordering::Relaxed));
        let silence = now.saturating_duration_since(heard);
        if swept.expired > 0 {
            let unanswered =
                shared.silent_timeouts.fetch_add(swept.expired, Ordering::Relaxed) + swept.expired;
            let framed = shared.started + Duration::from_millis(shared.last_frame.load(Ordering::Relaxed));
            let frameless = shared
                .frameless_timeouts
                .fetch_add(swept.expired, Ordering::Relaxed)
                + swept.expired;
            // Bytes came in between, or both counts were equal.
            if frameless >= shared.options.frozen_after
                && unanswered < frameless
                && now.saturating_duration_since(framed) >= FRAMELESS
            {
                let peer = &shared.peer;
                warn!(%peer, frameless, "what the peer sends is no frame, the connection is closed");
                let text = format!(
                    "{peer} left {frameless} requests in a row without an answer and sent bytes that make no frame; \
                     was a length damaged on the way?"
                );
                return shared.fail(Error::new(ErrorKind::Protocol, text).at(Arc::clone(peer)));
            }
            if unanswered >= shared.options.frozen_after && silence >= FROZEN_SILENCE {
                let peer = &shared.peer;
                warn!(%peer, unanswered, ?silence, "the peer counts as frozen, the connection is closed");
                let text = format!("{peer} left {unanswered} requests in a row without an answer");
                return shared.fail(Error::new(ErrorKind::Connect, text).at(Arc::clone(peer)));
            }
        }
        let idle_at = heard + shared.options.idle_timeout;
        if swept.in_flight == 0 && idle_at <= now {
            let peer = &shared.peer;
            debug!(%peer, "the connection is idle and closed");
            let text = format!("the connection to {peer} was closed after a long silence");
            return shared.fail(Error::new(ErrorKind::Connect, text).at(Arc::clone(peer)));
        }
        // An idle connection with a request in flight is looked at again when that request is over.
        let idle_at = idle_at.max(now + Duration::from_secs(1));
        let next = swept.next.map_or(idle_at, |deadline| deadline.min(idle_at));
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.to_sweep.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The peer has closed the connection.
fn closed(shared: &Shared, in_a_frame: bool) -> Error {
    if !shared.has_heard() && shared.secure {
        return broken(shared, "reading failed", std::io::ErrorKind::UnexpectedEof.into());
    }
    let how = match (in_a_frame, shared.has_heard()) {
        (true, _) => " in the middle of a frame",
        (false, false) => " before it said anything; does it want TLS?",
        (false, true) => "",
    };
    let peer = &shared.peer;
    let text = format!("the connection was closed by {peer}{how}");
    Error::new(ErrorKind::Connect, text).at(Arc::clone(peer))
}

fn broken(shared: &Shared, what: &str, error: std::io::Error) -> Error {
    // A server may refuse the client's certificate after the handshake has ended for the client.
    #[cfg(feature = "tls")]
    if shared.secure && !shared.has_heard() {
        return tls::failure(&shared.peer, error);
    }
    let text = format!("the connection to {} broke: {what}: {error}", shared.peer);
    Error::new(ErrorKind::Connect, text)
        .caused_by(error)
        .at(Arc::clone(&shared.peer))
}
