//! `verifiable-consumer`.

mod kinds;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rocketmq_client::{Client, ConsumeFrom};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    arguments::{Arguments, Flag},
    behaviour::{self, Behaviour, End},
    recorder::{Delivery, Recorder, queue_name},
    terminated,
};
use crate::{
    Failure,
    history::{Event, Handled, Member},
    usage,
};
use kinds::Consumer;

/// Its options, beside those of the handler.
const FLAGS: [Flag; 25] = [
    Flag::required("--name-server", "host:port"),
    Flag::required("--topic", "the topics, by commas"),
    Flag::required("--group", "the consumer group"),
    Flag::new("--proc", "consumer", "the name of this process in the lines"),
    Flag::new("--kind", "concurrent", kinds::NAMES),
    Flag::new(
        "--instance",
        "",
        "the instance name, by which brokers know a member again; the name of the process if empty",
    ),
    Flag::new(
        "--offsets",
        "",
        "directory of the offsets of broadcasting; that of the user's home if empty",
    ),
    Flag::new(
        "--suspend-ms",
        "1000",
        "how long a queue or key in order pauses after a failure",
    ),
    Flag::new("--filter", "*", "tags, as a || b"),
    Flag::new("--from", "first", "where a new group starts: first or last"),
    Flag::new("--concurrency", "20", "handlers at a time"),
    Flag::new(
        "--batch",
        "8",
        "messages of one call, for the kinds that take several",
    ),
    Flag::new(
        "--max-reconsume-times",
        "16",
        "retries before a message is a dead letter",
    ),
    Flag::new(
        "--retry-level",
        "0",
        "delay level of retries, 1 to 18; 0 leaves it to the broker",
    ),
    Flag::new("--consume-timeout-ms", "900000", "how long a handler may take"),
    Flag::new("--commit-interval-ms", "1000", "how often offsets are committed"),
    Flag::new(
        "--rebalance-interval-ms",
        "1000",
        "how often queues are divided anew",
    ),
    Flag::new("--max-cached", "1000", "messages in the cache for each queue"),
    Flag::new(
        "--max-cached-bytes",
        "268435456",
        "bytes in the cache, over all queues",
    ),
    Flag::new(
        "--max-span",
        "2000",
        "offsets between the lowest unfinished and the newest message",
    ),
    Flag::new(
        "--grace-ms",
        "30000",
        "how long a stop waits for running handlers",
    ),
    Flag::new(
        "--heartbeat-ms",
        "30000",
        "how often brokers hear that this member is there",
    ),
    Flag::new("--route-refresh-ms", "1000", "how often routes are asked for"),
    Flag::new(
        "--watch-ms",
        "100",
        "how often queues and committed offsets are looked at; 0 for never",
    ),
    Flag::new("--threads", "2", "threads of the runtime"),
];

/// What every kind of consumer needs.
#[derive(Debug)]
struct Setup {
    arguments: Arguments,
    worker: Arc<Worker>,
}

/// The handler of all kinds.
#[derive(Debug)]
struct Worker {
    recorder: Recorder,
    behaviour: Behaviour,
}

impl Worker {
    /// Works on the messages of one call, one after the other, and stops at the first that is not done. Gives how many
    /// are done, and what became of that one.
    async fn handle(&self, messages: &[rocketmq_client::MessageView]) -> Result<(usize, End), Failure> {
        let call = self.recorder.next_call();
        let begun: Result<Vec<Delivery>, Failure> = messages
            .iter()
            .map(|message| self.recorder.begin(message, call))
            .collect();
        let (mut done, mut end) = (0, End::Done);
        for delivery in begun? {
            if end == End::Done {
                end = self.behaviour.work(delivery.id, delivery.attempt).await;
            }
            done += usize::from(end == End::Done);
            delivery.end(match end {
                End::Done => Handled::Ok,
                End::Failed => Handled::Failed,
                End::Rejected => Handled::Dead,
            });
        }
        Ok((done, end))
    }
}

/// What brokers know the member by.
fn identity(arguments: &Arguments) -> &str {
    match arguments.text("--instance") {
        "" => arguments.text("--proc"),
        instance => instance,
    }
}

impl Setup {
    fn identity(&self) -> &str {
        identity(&self.arguments)
    }

    fn consume_from(&self) -> Result<ConsumeFrom, Failure> {
        match self.arguments.text("--from") {
            "first" => Ok(ConsumeFrom::First),
            "last" => Ok(ConsumeFrom::Last),
            other => Err(format!("--from is {other:?}, it has to be first or last").into()),
        }
    }
}

/// Runs `verifiable-consumer` with this command line.
///
/// # Errors
/// When an option is wrong or the cluster cannot be reached.
pub fn consume(given: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let flags: Vec<Flag> = FLAGS.into_iter().chain(behaviour::FLAGS).collect();
    let arguments = Arguments::read(&flags, given)?;
    let threads = arguments.parsed("--threads")?;
    super::run(threads, consume_all(arguments))
}

async fn consume_all(arguments: Arguments) -> Result<(), Failure> {
    behaviour::be_quiet_about_panics();
    let recorder = Recorder::new(arguments.text("--proc"));
    let client = Client::builder(arguments.text("--name-server"))
        .instance_name(identity(&arguments))
        .heartbeat_interval(arguments.millis("--heartbeat-ms")?)
        .route_refresh_interval(arguments.millis("--route-refresh-ms")?)
        .connect()
        .await?;
    let watch = arguments.millis("--watch-ms")?;
    let setup = Setup {
        worker: Arc::new(Worker {
            recorder: recorder.clone(),
            behaviour: Behaviour::read(&arguments)?,
        }),
        arguments,
    };
    let consumer = Consumer::start(&client, &setup).await?;
    recorder.say(Event::Member {
        state: Member::Ready,
        figures: BTreeMap::new(),
    });
    let mut watcher = Watcher {
        recorder: &recorder,
        client: &client,
        arguments: &setup.arguments,
        queues: BTreeSet::new(),
        committed: BTreeMap::new(),
    };
    tokio::select! {
        stopped = terminated() => stopped?,
        never = watcher.watch(&consumer, watch) => never?,
    }
    recorder.say(Event::Member {
        state: Member::Stopping,
        figures: BTreeMap::new(),
    });
    let mut figures = consumer.shutdown().await;
    client.shutdown().await;
    figures.insert(
        "peak_kib".to_owned(),
        (usage::peak_resident_mib()? * 1024.0) as i64,
    );
    recorder.say(Event::Member {
        state: Member::Left,
        figures,
    });
    Ok(())
}

/// Tells what changes of the queues and of the group's offsets.
struct Watcher<'a> {
    recorder: &'a Recorder,
    client: &'a Client,
    arguments: &'a Arguments,
    queues: BTreeSet<String>,
    committed: BTreeMap<String, i64>,
}

impl Watcher<'_> {
    async fn watch(&mut self, consumer: &Consumer, every: Duration) -> Result<(), Failure> {
        if every.is_zero() {
            return std::future::pending().await;
        }
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            tick.tick().await;
            self.look_at_queues(consumer);
            if turn % 10 == 9 {
                self.look_at_offsets().await;
            }
        }
        Ok(())
    }

    fn look_at_queues(&mut self, consumer: &Consumer) {
        let now: BTreeSet<String> = consumer.queues().iter().map(queue_name).collect();
        for queue in self.queues.difference(&now).cloned() {
            self.recorder.say(Event::Revoked { queue });
        }
        for queue in now.difference(&self.queues).cloned() {
            self.recorder.say(Event::Assigned { queue });
        }
        self.queues = now;
    }

    async fn look_at_offsets(&mut self) {
        let (admin, group) = (self.client.admin(), self.arguments.text("--group"));
        for topic in self.arguments.list("--topic") {
            // A broker that is away is asked again in a moment.
            let Ok(stats) = admin.consume_stats_of(group, topic).await else {
                continue;
            };
            for (queue, progress) in &stats.offset_table.0 {
                let (queue, offset) = (queue_name(queue), progress.consumer_offset);
                if self.committed.insert(queue.clone(), offset) != Some(offset) {
                    self.recorder.say(Event::Committed { queue, offset });
                }
            }
        }
    }
}
