//! What the machine allows: a prepared frame whose number alone changes, one buffer, one task that writes it with one
//! write for each wake-up, one that reads, and a map from numbers to whoever waits.
//!
//! Against the instant broker alone, which is its own name server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use integration_tests::Failure;
use integration_tests::load::{AWAITING, BATCH, IN_FLIGHT, Mode, Outcome};
use rocketmq_client::protocol::frame::Head;
use rocketmq_client::protocol::requests::SendMessageV2;
use rocketmq_client::protocol::{Fields, HeaderFormat, Request, RequestCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Load, Tally};

/// Where the number of a frame with a binary header is: behind length, header length, code, language and version.
const NUMBER_AT: usize = 4 + 4 + 2 + 1 + 2;
/// One-way sends wait while more than this waits to be written.
const BUFFERED: usize = 1 << 20;

pub(crate) async fn run(load: Load) -> Result<Outcome, Failure> {
    let client = Client::connect(&load).await?;
    load.measure(|tally| part(Arc::clone(&client), load.mode, tally))
        .await
}

async fn part(client: Arc<Client>, mode: Mode, tally: Arc<Tally>) -> Result<(), Failure> {
    match mode {
        Mode::Awaited => awaited(Arc::clone(&client), tally, 1).await,
        Mode::Batch => awaited(Arc::clone(&client), tally, BATCH as u64).await,
        Mode::Awaited64 => {
            let mut tasks = JoinSet::new();
            for _ in 0..AWAITING {
                tasks.spawn(awaited(Arc::clone(&client), Arc::clone(&tally), 1));
            }
            tasks.join_all().await;
        }
        Mode::Async => {
            let room = Arc::new(Semaphore::new(IN_FLIGHT));
            loop {
                let permit = Arc::clone(&room).acquire_owned().await?;
                let start = Instant::now();
                if tally.is_over(start) {
                    break;
                }
                client.send(Some(Waiter::Noted(start, Arc::clone(&tally), permit)));
            }
            let _all = room.acquire_many(IN_FLIGHT as u32).await?;
        }
        Mode::OneWay => loop {
            let start = Instant::now();
            if tally.is_over(start) {
                break;
            }
            while client.send(None) > BUFFERED {
                client.written.notified().await;
            }
            tally.note(start, 1, Ok::<_, Failure>(()));
        },
    }
    client.request().await
}

async fn awaited(client: Arc<Client>, tally: Arc<Tally>, messages: u64) {
    loop {
        let start = Instant::now();
        if tally.is_over(start) {
            return;
        }
        tally.note(start, messages, client.request().await);
    }
}

struct Client {
    frame: Bytes,
    one_way_frame: Bytes,
    next: AtomicU32,
    output: Mutex<BytesMut>,
    to_write: Notify,
    written: Notify,
    waiting: Mutex<HashMap<u32, Waiter>>,
}

enum Waiter {
    Task(oneshot::Sender<()>),
    Noted(Instant, Arc<Tally>, OwnedSemaphorePermit),
}

impl Client {
    async fn connect(load: &Load) -> Result<Arc<Self>, Failure> {
        let socket = TcpStream::connect(&load.name_server).await?;
        socket.set_nodelay(true)?;
        let (read, write) = socket.into_split();
        let client = Arc::new(Self {
            frame: frame(load, false)?,
            one_way_frame: frame(load, true)?,
            next: AtomicU32::new(0),
            output: Mutex::default(),
            to_write: Notify::new(),
            written: Notify::new(),
            waiting: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&client).write(write));
        tokio::spawn(Arc::clone(&client).read(read));
        Ok(client)
    }

    async fn request(&self) -> Result<(), Failure> {
        let (reply, replied) = oneshot::channel();
        self.send(Some(Waiter::Task(reply)));
        Ok(replied.await?)
    }

    /// Puts a frame into the buffer; how much waits there then. Without a waiter it is one-way.
    fn send(&self, waiter: Option<Waiter>) -> usize {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & 0x7FFF_FFFF;
        let frame = match waiter {
            Some(waiter) => {
                lock(&self.waiting).insert(number, waiter);
                &self.frame
            }
            None => &self.one_way_frame,
        };
        let buffered = {
            let mut output = lock(&self.output);
            let at = output.len() + NUMBER_AT;
            output.put_slice(frame);
            if let Some(place) = output.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_be_bytes());
            }
            output.len()
        };
        self.to_write.notify_one();
        buffered
    }

    async fn write(self: Arc<Self>, mut socket: OwnedWriteHalf) {
        let mut writing = BytesMut::new();
        loop {
            self.to_write.notified().await;
            std::mem::swap(&mut *lock(&self.output), &mut writing);
            if socket.write_all(&writing).await.is_err() {
                return;
            }
            writing.clear();
            self.written.notify_one();
        }
    }

    async fn read(self: Arc<Self>, mut socket: OwnedReadHalf) {
        let mut input = BytesMut::with_capacity(64 * 1024);
        while socket.read_buf(&mut input).await.is_ok_and(|bytes| bytes > 0) {
            let mut waiting = lock(&self.waiting);
            while let Some(length) = input.first_chunk::<4>() {
                let length = 4 + u32::from_be_bytes(*length) as usize;
                let (Some(_), Some(mut number)) = (input.get(..length), input.get(NUMBER_AT..)) else {
                    break;
                };
                match waiting.remove(&number.get_u32()) {
                    Some(Waiter::Task(reply)) => {
                        let _ = reply.send(());
                    }
                    Some(Waiter::Noted(start, tally, permit)) => {
                        tally.note(start, 1, Ok::<_, Failure>(()));
                        drop(permit);
                    }
                    None => {}
                }
                input.advance(length);
            }
            drop(waiting);
            input.reserve(16 * 1024);
        }
    }
}

/// A whole frame, as `rocketmq-client` would write it.
fn frame(load: &Load, one_way: bool) -> Result<Bytes, Failure> {
    let is_batch = load.mode == Mode::Batch;
    let properties = "UNIQ_KEY\u{1}7F0000010001ABCDEF0100001234002A\u{2}";
    let mut body = BytesMut::new();
    if is_batch {
        for _ in 0..BATCH {
            // Size, magic, checksum, flag, body, properties.
            body.put_u32((22 + load.body + properties.len()) as u32);
            body.put_bytes(0, 12);
            body.put_u32(load.body as u32);
            body.put_bytes(b'x', load.body);
            body.put_u16(properties.len() as u16);
            body.put_slice(properties.as_bytes());
        }
    } else {
        body.put_bytes(b'x', load.body);
    }
    let code = if is_batch {
        RequestCode::SEND_BATCH_MESSAGE
    } else {
        SendMessageV2::CODE
    };
    let request = SendMessageV2 {
        producer_group: "send-load".into(),
        topic: load.topic.clone(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties: Some(properties.into()),
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: is_batch.then_some(true),
        broker_name: Some("instant".into()),
        body: Bytes::new(),
    };
    let mut out = BytesMut::new();
    let head = Head::request(code.0, 0, one_way);
    head.encode(
        HeaderFormat::Binary,
        &request,
        &Fields::new(),
        body.len(),
        &mut out,
    )?;
    out.put_slice(&body);
    Ok(out.freeze())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
