//! Sends through the embedded broker beside what the loopback interface allows, in one run.
//!
//! The limit is a plain tokio server that answers each frame of 1.2 KiB with one of 150 bytes, and a client of as many
//! tasks as requests in flight, each awaiting its own reply, with one write for each wake-up. Rounds of the two
//! alternate, so that both see the same machine.
//!
//! `cargo bench -p integration-tests --bench loopback`

#![expect(
    clippy::disallowed_methods,
    reason = "the limit owes nothing to this project, its task groups included"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use integration_tests::report::{Report, Spread};
use rocketmq_client::{Client, Message, Producer};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

const ROUNDS: usize = 7;
const IN_FLIGHT: usize = 256;
const REQUESTS: u64 = 150_000;
const AWAITED: usize = 5_000;
const REQUEST_BYTES: usize = 1_228;
const REPLY_BYTES: usize = 150;
const BODY: usize = 1_024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limit = Arc::new(Limit::connect(serve().await?).await?);
    let broker = EmbeddedBroker::start().await?;
    let client = Client::connect(broker.name_server()).await?;
    let producer = client.producer("loopback-bench").start().await?;
    let body = Bytes::from(vec![b'x'; BODY]);

    let (mut raw_rates, mut send_rates) = (Vec::new(), Vec::new());
    let (mut raw_trips, mut send_trips) = (Vec::new(), Vec::new());
    // The first round warms both up and does not count.
    for round in 0..=ROUNDS {
        let raw_rate = rate(&limit, |limit| async move { limit.request().await }).await;
        let send_rate = rate(&(producer.clone(), body.clone()), |(producer, body)| async move {
            send(&producer, body).await;
        })
        .await;
        let raw_trip = median_trip(|| limit.request()).await;
        let send_trip = median_trip(|| send(&producer, body.clone())).await;
        if round > 0 {
            raw_rates.push(raw_rate);
            send_rates.push(send_rate);
            raw_trips.push(raw_trip);
            send_trips.push(send_trip);
        }
    }
    producer.shutdown().await;
    client.shutdown().await;
    broker.shutdown().await;

    let ratio = |ours: &[f64], raw: &[f64]| Spread::of(ours.iter().zip(raw).map(|(ours, raw)| ours / raw));
    let (rate_ratio, trip_ratio) = (ratio(&send_rates, &raw_rates), ratio(&send_trips, &raw_trips));
    let mut report = Report::new("loopback", &["loopback limit", "embedded broker", "ratio"]);
    report.row(
        format!("1 KiB, {IN_FLIGHT} in flight: requests per second"),
        [Spread::of(raw_rates), Spread::of(send_rates), rate_ratio],
    );
    report.row(
        "1 KiB, awaited: p50 in microseconds",
        [Spread::of(raw_trips), Spread::of(send_trips), trip_ratio],
    );
    report.note("bars: at least 0.5 of the limit's rate in flight, at most 1.6 of its round trip awaited");
    report.finish();
    Ok(())
}

async fn send(producer: &Producer, body: Bytes) {
    producer
        .send(Message::new("loopback-bench", body))
        .await
        .expect("the embedded broker stores the message");
}

/// Requests per second with [`IN_FLIGHT`] tasks that each await their own reply.
async fn rate<C, F>(context: &C, request: fn(C) -> F) -> f64
where
    C: Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let left = Arc::new(AtomicU64::new(REQUESTS));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..IN_FLIGHT {
        let (context, left) = (context.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                request(context.clone()).await;
            }
        });
    }
    tasks.join_all().await;
    REQUESTS as f64 / start.elapsed().as_secs_f64()
}

/// The median of single requests, in microseconds.
async fn median_trip<F: Future<Output = ()>>(mut request: impl FnMut() -> F) -> f64 {
    let mut trips = Vec::with_capacity(AWAITED);
    for _ in 0..AWAITED {
        let start = Instant::now();
        request().await;
        trips.push(start.elapsed().as_nanos() as f64 / 1_000.0);
    }
    Spread::of(trips).median
}

/// Answers each request as soon as it is there, one write for each read.
async fn serve() -> std::io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                socket.set_nodelay(true)?;
                let mut input = BytesMut::with_capacity(256 * 1024);
                let mut output = BytesMut::with_capacity(64 * 1024);
                while socket.read_buf(&mut input).await? > 0 {
                    while input.len() >= REQUEST_BYTES {
                        let number = input.get_u32();
                        input.advance(REQUEST_BYTES - 4);
                        output.put_u32(number);
                        output.put_bytes(0, REPLY_BYTES - 4);
                    }
                    socket.write_all(&output).await?;
                    output.clear();
                    input.reserve(64 * 1024);
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok(address)
}

/// The leanest client that still hands each caller its own reply.
struct Limit {
    next: AtomicU32,
    output: Mutex<BytesMut>,
    wake: Notify,
    waiting: Mutex<HashMap<u32, oneshot::Sender<()>>>,
}

impl Limit {
    async fn connect(address: std::net::SocketAddr) -> std::io::Result<Arc<Self>> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (read, write) = socket.into_split();
        let limit = Arc::new(Self {
            next: AtomicU32::new(0),
            output: Mutex::default(),
            wake: Notify::new(),
            waiting: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&limit).write(write));
        tokio::spawn(Arc::clone(&limit).read(read));
        Ok(limit)
    }

    async fn request(&self) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, replied) = oneshot::channel();
        self.waiting.lock().expect("not poisoned").insert(number, reply);
        {
            let mut output = self.output.lock().expect("not poisoned");
            output.put_u32(number);
            output.put_bytes(b'x', REQUEST_BYTES - 4);
        }
        self.wake.notify_one();
        replied.await.expect("the server answers");
    }

    async fn write(self: Arc<Self>, mut socket: OwnedWriteHalf) {
        let mut writing = BytesMut::new();
        loop {
            self.wake.notified().await;
            std::mem::swap(&mut *self.output.lock().expect("not poisoned"), &mut writing);
            if socket.write_all(&writing).await.is_err() {
                return;
            }
            writing.clear();
        }
    }

    async fn read(self: Arc<Self>, mut socket: OwnedReadHalf) {
        let mut input = BytesMut::with_capacity(64 * 1024);
        while socket.read_buf(&mut input).await.is_ok_and(|bytes| bytes > 0) {
            let mut waiting = self.waiting.lock().expect("not poisoned");
            while input.len() >= REPLY_BYTES {
                let number = input.get_u32();
                input.advance(REPLY_BYTES - 4);
                if let Some(reply) = waiting.remove(&number) {
                    let _ = reply.send(());
                }
            }
            drop(waiting);
            input.reserve(16 * 1024);
        }
    }
}
