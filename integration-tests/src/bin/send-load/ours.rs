//! The load through `rocketmq-client`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use integration_tests::Failure;
use integration_tests::load::{AWAITING, BATCH, IN_FLIGHT, Mode, Outcome};
use rocketmq_client::{Client, Message, Producer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::{Load, Tally};

pub(crate) async fn run(load: Load) -> Result<Outcome, Failure> {
    let client = Client::connect(&load.name_server).await?;
    let producer = client
        .producer("send-load")
        .compress_from_bytes(None)
        .start()
        .await?;
    let source = Source {
        producer: producer.clone(),
        topic: load.topic.as_str().into(),
        body: Bytes::from(vec![b'x'; load.body]),
    };
    let outcome = load
        .measure(|tally| part(source.clone(), load.mode, tally))
        .await?;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(outcome)
}

#[derive(Clone)]
struct Source {
    producer: Producer,
    topic: Arc<str>,
    body: Bytes,
}

impl Source {
    fn message(&self) -> Message {
        Message::new(&*self.topic, self.body.clone())
    }
}

async fn part(source: Source, mode: Mode, tally: Arc<Tally>) -> Result<(), Failure> {
    match mode {
        Mode::Awaited => awaited(source.clone(), tally).await,
        Mode::Awaited64 => {
            let mut tasks = JoinSet::new();
            for _ in 0..AWAITING {
                tasks.spawn(awaited(source.clone(), Arc::clone(&tally)));
            }
            tasks.join_all().await;
        }
        Mode::Async => in_flight(&source, &tally).await?,
        Mode::OneWay => one_way(&source, &tally).await,
        Mode::Batch => batches(&source, &tally).await,
    }
    fence(&source).await
}

/// What was sent before has left when this is answered; a broker that is busy with it may refuse at first.
async fn fence(source: &Source) -> Result<(), Failure> {
    let mut attempt = 1;
    while let Err(error) = source.producer.send(source.message()).await {
        if attempt == 20 {
            return Err(error.into());
        }
        attempt += 1;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn awaited(source: Source, tally: Arc<Tally>) {
    loop {
        let start = Instant::now();
        if tally.is_over(start) {
            return;
        }
        let sent = source.producer.send(source.message()).await;
        tally.note(start, 1, sent);
    }
}

async fn in_flight(source: &Source, tally: &Arc<Tally>) -> Result<(), Failure> {
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let start = Instant::now();
        if tally.is_over(start) {
            break;
        }
        let tally = Arc::clone(tally);
        source.producer.send(source.message()).on_complete(move |sent| {
            tally.note(start, 1, sent);
            drop(permit);
        });
    }
    let _all = room.acquire_many(IN_FLIGHT as u32).await?;
    Ok(())
}

async fn batches(source: &Source, tally: &Tally) {
    loop {
        let start = Instant::now();
        if tally.is_over(start) {
            return;
        }
        let batch = (0..BATCH).map(|_| source.message());
        let sent = source.producer.send_batch(batch).await;
        tally.note(start, BATCH as u64, sent);
    }
}

async fn one_way(source: &Source, tally: &Tally) {
    loop {
        let start = Instant::now();
        if tally.is_over(start) {
            return;
        }
        let sent = source.producer.send(source.message()).one_way().await;
        tally.note(start, 1, sent);
    }
}
