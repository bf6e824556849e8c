//! A scripted server for tests: it speaks frames, keeps what it was asked, and answers as it is told.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use crate::protocol::frame::next_frame;
use crate::protocol::{Fields, Frame, HeaderFormat, Request, Response, ResponseCode};
use crate::sync::lock;
use crate::tasks::Tasks;

/// What the server does with one request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Responds; the opaque is filled in.
    Respond(Frame),
    /// Writes bytes as they are, then ends the connection with a reset.
    BytesThenReset(Bytes),
    /// Writes bytes as they are.
    Bytes(Bytes),
    /// Says nothing.
    Silence,
    /// Ends the connection.
    Close,
}

impl Answer {
    pub(crate) fn done() -> Self {
        Self::Respond(Frame::response(ResponseCode::SUCCESS, 0))
    }

    pub(crate) fn code(code: ResponseCode) -> Self {
        Self::Respond(Frame::refusal(code, 0, "scripted"))
    }

    pub(crate) fn with<R: Response>(response: R) -> Self {
        Self::Respond(response.into_frame(0).unwrap())
    }
}

#[derive(Debug)]
pub(crate) struct FakeServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Frame>>>,
    changed: Arc<tokio::sync::Notify>,
    push: broadcast::Sender<Frame>,
    tasks: Tasks,
}

impl FakeServer {
    /// Starts on a free port.
    pub(crate) async fn start(script: impl Fn(&Frame) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// Starts on a given address, for instance one where another fake was before.
    pub(crate) async fn start_at(
        address: SocketAddr,
        script: impl Fn(&Frame) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(Handle::current());
        let fake = Self {
            address,
            requests: Arc::default(),
            changed: Arc::default(),
            push: broadcast::Sender::new(64),
            tasks,
        };
        let requests = Arc::clone(&fake.requests);
        let changed = Arc::clone(&fake.changed);
        let push = fake.push.clone();
        let script = Arc::new(script);
        let connections = fake.tasks.child();
        fake.tasks.spawn("fake-accept", |stop| async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (requests, script) = (Arc::clone(&requests), Arc::clone(&script));
                let changed = Arc::clone(&changed);
                let mut pushed = push.subscribe();
                connections.spawn("fake-connection", |stop| async move {
                    let record = |frame: &Frame| {
                        lock(&requests).push(frame.clone());
                        changed.notify_waiters();
                        script(frame)
                    };
                    // Any end of the connection is fine for a fake.
                    let _ = stop.run_until_cancelled(talk(stream, &mut pushed, record)).await;
                });
            }
        });
        fake
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Everything it was asked so far.
    pub(crate) fn requests(&self) -> Vec<Frame> {
        lock(&self.requests).clone()
    }

    /// What it was asked of one kind.
    pub(crate) fn requests_of<R: Request>(&self) -> Vec<R> {
        let requests = self
            .requests()
            .into_iter()
            .filter(|frame| frame.code == R::CODE.0);
        requests.map(|frame| R::from_frame(frame).unwrap()).collect()
    }

    /// Waits until it was asked so many requests of a kind.
    pub(crate) async fn asked<R: Request>(&self, count: usize) -> Vec<R> {
        loop {
            let changed = self.changed.notified();
            let requests = self.requests_of::<R>();
            if requests.len() >= count {
                return requests;
            }
            changed.await;
        }
    }

    /// Sends a frame to everybody who is connected.
    pub(crate) fn push(&self, frame: Frame) {
        self.push.send(frame).unwrap();
    }

    /// Ends the listener and all connections.
    pub(crate) async fn kill(self) -> SocketAddr {
        self.tasks.stop(std::time::Duration::from_secs(5)).await.unwrap();
        self.address
    }
}

async fn talk(
    mut stream: TcpStream,
    pushed: &mut broadcast::Receiver<Frame>,
    script: impl Fn(&Frame) -> Answer,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut out = BytesMut::new();
    loop {
        while let Some(frame) = next_frame(&mut buffer).unwrap() {
            match script(&frame) {
                Answer::Respond(response) => {
                    let opaque = frame.opaque;
                    if !frame.is_one_way() {
                        put(&Frame { opaque, ..response }, &mut out);
                    }
                }
                Answer::Bytes(bytes) => out.extend_from_slice(&bytes),
                Answer::BytesThenReset(bytes) => {
                    stream.write_all(&bytes).await?;
                    // Closing with a zero linger resets the connection.
                    stream.set_zero_linger()?;
                    return Ok(());
                }
                Answer::Silence => {}
                Answer::Close => return Ok(()),
            }
        }
        stream.write_all(&out).await?;
        out.clear();
        tokio::select! {
            read = stream.read_buf(&mut buffer) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            Ok(frame) = pushed.recv() => put(&frame, &mut out),
        }
    }
}

fn put(frame: &Frame, out: &mut BytesMut) {
    frame.encode(HeaderFormat::Json, out).unwrap();
}

/// A response that has nothing but header fields.
pub(crate) fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Answer {
    Answer::Respond(Frame {
        fields: Fields::from_iter(pairs),
        ..Frame::response(ResponseCode::SUCCESS, 0)
    })
}
