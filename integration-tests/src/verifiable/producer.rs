//! `verifiable-producer`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rocketmq_client::{Client, Message, Persisted, Producer};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    arguments::{Arguments, Flag},
    recorder::Recorder,
    terminated,
};
use crate::{
    Failure,
    history::{Event, Id, Member, Place, SendStatus},
};

/// Its options.
pub(super) const FLAGS: &[Flag] = &[
    Flag::required("--name-server", "host:port"),
    Flag::required("--topic", "the topic"),
    Flag::new("--proc", "producer", "the name of this process in the lines"),
    Flag::new("--group", "verifiable-producer", "the producer group"),
    Flag::new(
        "--rate",
        "100",
        "messages a second, over all senders; 0 for as fast as they go",
    ),
    Flag::new(
        "--count",
        "0",
        "messages, over all senders; 0 for no end but SIGTERM",
    ),
    Flag::new(
        "--senders",
        "1",
        "how many send side by side; each sends one after the other",
    ),
    Flag::new("--producer", "0", "the number of the first sender in the ids"),
    Flag::new(
        "--keys",
        "0",
        "how many ordering keys each sender uses in turn; 0 for none",
    ),
    Flag::new("--body", "0", "bytes of a body, at least those of its id"),
    Flag::new("--tag", "", "the tag of all messages"),
    Flag::new("--send-timeout-ms", "3000", "the time of one send"),
    Flag::new("--route-refresh-ms", "1000", "how often routes are asked for"),
    Flag::new("--threads", "2", "threads of the runtime"),
];

/// What all senders share.
#[derive(Debug)]
struct Load {
    topic: String,
    tag: String,
    keys: u32,
    body: usize,
    rate: f64,
    count: u64,
    /// How many sends were begun.
    begun: AtomicU64,
    start: Instant,
    stop: AtomicBool,
}

/// Runs `verifiable-producer` with this command line.
///
/// # Errors
/// When an option is wrong or the cluster cannot be reached. Sends that fail are lines and no errors.
pub fn produce(given: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let arguments = Arguments::read(FLAGS, given)?;
    let threads = arguments.parsed("--threads")?;
    super::run(threads, send_all(arguments))
}

async fn send_all(arguments: Arguments) -> Result<(), Failure> {
    let recorder = Recorder::new(arguments.text("--proc"));
    let client = Client::builder(arguments.text("--name-server"))
        .route_refresh_interval(arguments.millis("--route-refresh-ms")?)
        .connect()
        .await?;
    let producer = client
        .producer(arguments.text("--group"))
        .send_timeout(arguments.millis("--send-timeout-ms")?)
        .start()
        .await?;
    let load = Arc::new(Load {
        topic: arguments.text("--topic").to_owned(),
        tag: arguments.text("--tag").to_owned(),
        keys: arguments.parsed("--keys")?,
        body: arguments.parsed("--body")?,
        rate: arguments.parsed("--rate")?,
        count: arguments.parsed("--count")?,
        begun: AtomicU64::new(0),
        start: Instant::now(),
        stop: AtomicBool::new(false),
    });
    let first: u32 = arguments.parsed("--producer")?;
    let senders: u32 = arguments.parsed("--senders")?;
    recorder.say(Event::Member {
        state: Member::Ready,
        figures: Default::default(),
    });
    let mut tasks = JoinSet::new();
    for number in first..first.saturating_add(senders) {
        let (recorder, producer, load) = (recorder.clone(), producer.clone(), Arc::clone(&load));
        tasks.spawn(async move { load.send(number, &producer, &recorder).await });
    }
    let mut ended = async || while tasks.join_next().await.is_some() {};
    let done = tokio::select! {
        () = ended() => true,
        stopped = terminated() => {
            stopped?;
            false
        }
    };
    if !done {
        recorder.say(Event::Member {
            state: Member::Stopping,
            figures: Default::default(),
        });
        load.stop.store(true, Ordering::SeqCst);
        ended().await;
    }
    producer.shutdown().await;
    client.shutdown().await;
    recorder.say(Event::Member {
        state: Member::Left,
        figures: Default::default(),
    });
    Ok(())
}

impl Load {
    async fn send(&self, number: u32, producer: &Producer, recorder: &Recorder) {
        for sequence in 0.. {
            let turn = self.begun.fetch_add(1, Ordering::SeqCst);
            if self.count > 0 && turn >= self.count {
                return;
            }
            if self.rate > 0.0 {
                sleep_until(self.start + Duration::from_secs_f64(turn as f64 / self.rate)).await;
            }
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let id = Id {
                producer: number,
                sequence,
            };
            let key = sequence
                .checked_rem(self.keys)
                .map(|key| format!("{number}-{key}"));
            let mut message =
                Message::new(&self.topic, id.body(self.body)).property(Id::PROPERTY, id.to_string());
            if !self.tag.is_empty() {
                message = message.tag(&self.tag);
            }
            if let Some(key) = &key {
                message = message.sharding_key(key);
            }
            recorder.say(Event::Begin { id, key });
            let sent = producer.send(message).await;
            let failed = sent.is_err();
            recorder.say(match sent {
                Ok(receipt) => Event::Send {
                    id,
                    status: SendStatus::Ok,
                    place: Some(Place {
                        broker: receipt.queue.broker_name.to_string(),
                        topic: receipt.queue.topic.to_string(),
                        queue: receipt.queue.queue_id,
                        offset: receipt.queue_offset,
                    }),
                    error: None,
                },
                Err(error) => Event::Send {
                    id,
                    status: match error.persisted() {
                        Persisted::No => SendStatus::NotSent,
                        _ => SendStatus::Unknown,
                    },
                    place: None,
                    error: Some(error.to_string()),
                },
            });
            if failed {
                // Whatever is broken is not mended by asking at once.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
