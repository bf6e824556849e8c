//! How often a send allocates, and how much memory a client holds whose broker does not read: counted, because that is
//! what stays the same on every machine.
//!
//! The broker is a process of its own, so that all that is counted here is the client's.

use std::alloc::System;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rocketmq_client::{Client, ErrorKind, Message, Producer};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What one test allocates is not for the other to count.
static ALONE: Mutex<()> = Mutex::const_new(());

const SENDS: usize = 1_000;
/// What runs beside the sends may allocate too, a little.
const ELSEWHERE: f64 = 0.5;
/// The topic of the message, its properties and its id; the names and the values of the answer; the id in the receipt.
const AWAITED: f64 = 6.0 + ELSEWHERE;
/// The task and what holds its groups open; who is told of the end.
const DETACHED: f64 = AWAITED + 3.0;
/// The message alone.
const ONE_WAY: f64 = 3.0 + ELSEWHERE;
/// What the client may hold of one-way messages, in bytes: two buffers that grow to 1 MiB, and no body besides.
const HELD: usize = 2 << 20;

struct Broker {
    process: Child,
    name_server: String,
    _stdin: Option<ChildStdin>,
}

impl Broker {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_instant-broker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the instant broker starts");
        let stdin = process.stdin.take();
        let mut line = String::new();
        let output = process.stdout.take().expect("its output is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it says that it is ready");
        let name_server = line.trim().strip_prefix("ready name_server=");
        let name_server = name_server.expect("it says where it is");
        Self {
            name_server: name_server.to_owned(),
            process,
            _stdin: stdin,
        }
    }
}

impl Broker {
    fn signal(&self, signal: &str) {
        let process = self.process.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &process])
            .status()
            .expect("there is a kill");
        assert!(sent.success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Allocations for each of [`SENDS`] sends, after as many that do not count.
macro_rules! per_send {
    ($send:expr) => {{
        for _ in 0..SENDS {
            $send;
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..SENDS {
            $send;
        }
        let counted = region.change();
        (counted.allocations + counted.reallocations) as f64 / SENDS as f64
    }};
}

#[tokio::test]
async fn a_send_allocates_no_more_than_it_must() {
    let _alone = ALONE.lock().await;
    let broker = Broker::start();
    let client = Client::connect(&broker.name_server).await.unwrap();
    let producer: Producer = client.producer("allocations").start().await.unwrap();
    let body = Bytes::from(vec![b'x'; 1_024]);
    let message = || Message::new("allocations", body.clone());

    let awaited = per_send!(producer.send(message()).await.unwrap());
    let detached = per_send!(producer.send(message()).detach().await.unwrap());
    let one_way = per_send!(producer.send(message()).one_way().await.unwrap());
    println!("allocations: awaited {awaited:.2}, detached {detached:.2}, one-way {one_way:.2}");
    assert!(awaited <= AWAITED, "an awaited send allocates {awaited} times");
    assert!(detached <= DETACHED, "a detached send allocates {detached} times");
    assert!(one_way <= ONE_WAY, "a one-way send allocates {one_way} times");

    producer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_does_not_read_makes_one_way_senders_wait_instead_of_filling_the_memory() {
    let _alone = ALONE.lock().await;
    let broker = Broker::start();
    let client = Client::connect(&broker.name_server).await.unwrap();
    let producer = client
        .producer("allocations")
        .send_timeout(Duration::from_millis(500))
        .start()
        .await
        .unwrap();
    let body = Bytes::from(vec![b'x'; 4_000]);
    producer
        .send(Message::new("allocations", body.clone()))
        .await
        .unwrap();
    let region = Region::new(ALLOCATOR);

    broker.signal("STOP");
    let mut sent = 0_u32;
    let error = loop {
        // A body of its own for each: what the client keeps of it counts.
        let message = Message::new("allocations", body.to_vec());
        match producer.send(message).one_way().await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    let counted = region.change();
    let held = counted.bytes_allocated.saturating_sub(counted.bytes_deallocated);
    broker.signal("CONT");
    println!("{held} bytes are held after {sent} messages");
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert!(held <= HELD, "{held} bytes are held after {sent} messages");

    producer.send(Message::new("allocations", body)).await.unwrap();
    producer.shutdown().await;
    client.shutdown().await;
}
