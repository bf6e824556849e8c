//! A topic, a group, and processes that send to it and consume it.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::raw::{pull, records};
use integration_tests::{
    Failure,
    admin::{call, refused_with},
    history::{Event, Handled, History, Id, Place, Progress, Verdict},
    scenario::{TestResult, eventually, report_figure},
    target::{Target, brokers, create_topic},
    verifiable::Program,
};
use rocketmq_client::{
    Client,
    protocol::{
        ResponseCode,
        names::dlq_topic,
        requests::{MaxOffset, QueryConsumerOffset},
    },
};

/// What is handled at a time in each member, unless a scenario says otherwise.
pub(super) const HANDLERS: usize = 8;

/// Processes around one topic of one group.
pub(super) struct Run<'a> {
    target: &'a Target,
    pub(super) history: Arc<History>,
    pub(super) name_server: String,
    pub(super) topic: String,
    pub(super) group: String,
    queues: i32,
    started: AtomicU32,
}

impl<'a> Run<'a> {
    /// Makes a topic on the shared servers.
    pub(super) async fn new(target: &'a Target, stem: &str, queues: i32) -> Result<Self, Failure> {
        Self::on(target, target.name_server(), stem, queues).await
    }

    /// Makes a topic on other servers.
    pub(super) async fn on(
        target: &'a Target,
        name_server: &str,
        stem: &str,
        queues: i32,
    ) -> Result<Self, Failure> {
        let topic = target.topic(stem);
        create_topic(name_server, &topic, queues).await?;
        Ok(Self {
            target,
            history: Arc::new(History::new()),
            name_server: name_server.to_owned(),
            topic,
            group: target.group(stem),
            queues,
            started: AtomicU32::new(0),
        })
    }

    /// A name that no other process of this run has.
    fn name(&self, of: &str) -> String {
        format!("{of}-{}", self.started.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts to send.
    pub(super) async fn producer(&self, options: &[(&str, &str)]) -> Result<Program, Failure> {
        let number = self.started.load(Ordering::Relaxed).to_string();
        let own = [
            ("--name-server", &*self.name_server),
            ("--topic", &self.topic),
            ("--producer", &number),
        ];
        let executable = env!("CARGO_BIN_EXE_verifiable-producer");
        let options: Vec<_> = own.into_iter().chain(options.iter().copied()).collect();
        let mut program = Program::start(executable, &self.name("producer"), &options, &self.history)?;
        program.ready().await?;
        Ok(program)
    }

    /// Starts a member of the group and waits until it has joined.
    pub(super) async fn consumer(&self, options: &[(&str, &str)]) -> Result<Program, Failure> {
        let mut program = self.joining(options, &[])?;
        program.ready().await?;
        Ok(program)
    }

    /// Starts a member of the group.
    pub(super) fn joining(
        &self,
        options: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Program, Failure> {
        let handlers = HANDLERS.to_string();
        let own = [
            ("--name-server", &*self.name_server),
            ("--topic", &self.topic),
            ("--group", &self.group),
            ("--concurrency", &handlers),
        ];
        let executable = Path::new(env!("CARGO_BIN_EXE_verifiable-consumer"));
        let options: Vec<_> = own.into_iter().chain(options.iter().copied()).collect();
        let name = self.name("consumer");
        Program::start_with(executable, &name, &options, environment, &self.history)
    }

    /// Waits until so many more messages are handled.
    pub(super) async fn progress(&self, messages: usize, when: &str) -> TestResult {
        let before = self.history.handled();
        eventually(&format!("{messages} handled messages {when}"), async || {
            Ok(self.history.handled() >= before + messages)
        })
        .await
        .map_err(|failure| format!("{failure}: {}", self.history.check()).into())
    }

    /// Waits until everything that was acknowledged is handled.
    pub(super) async fn all_handled(&self) -> TestResult {
        eventually("every acknowledged message", async || {
            Ok(self.history.outstanding() == 0)
        })
        .await
        .map_err(|failure| format!("{failure}: {}", self.history.check()).into())
    }

    /// Waits until the group has committed everything, or tells how far it is behind.
    pub(super) async fn no_lag(&self) -> TestResult {
        let mut lag = 0;
        let caught_up = eventually("a lag of 0", async || {
            lag = self.lag().await?;
            Ok(lag == 0)
        })
        .await;
        self.history.note(Event::Lag { messages: lag });
        caught_up
    }

    async fn lag(&self) -> Result<i64, Failure> {
        let mut lag = 0;
        for broker in brokers(&self.name_server).await? {
            for queue_id in 0..self.queues {
                let topic = self.topic.clone();
                let max = call(broker, &MaxOffset { topic, queue_id }).await?.offset;
                lag += max - self.committed_at(broker, queue_id).await?.unwrap_or(0).min(max);
            }
        }
        Ok(lag)
    }

    /// What the group has committed of each queue of the first broker.
    pub(super) async fn committed(&self) -> Result<BTreeMap<i32, i64>, Failure> {
        let brokers = brokers(&self.name_server).await?;
        let broker = brokers.first().ok_or("no broker")?;
        let mut committed = BTreeMap::new();
        for queue in 0..self.queues {
            if let Some(offset) = self.committed_at(*broker, queue).await? {
                committed.insert(queue, offset);
            }
        }
        Ok(committed)
    }

    async fn committed_at(&self, broker: SocketAddr, queue_id: i32) -> Result<Option<i64>, Failure> {
        let query = QueryConsumerOffset {
            consumer_group: self.group.clone(),
            topic: self.topic.clone(),
            queue_id,
            set_zero_if_not_found: Some(false),
        };
        match call(broker, &query).await {
            Ok(answer) => Ok(Some(answer.offset)),
            Err(error) if refused_with(&error, ResponseCode::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next offset of each queue of the first broker behind what has been handled so far.
    pub(super) fn handled_up_to(&self) -> BTreeMap<i32, i64> {
        let mut up_to = BTreeMap::new();
        let handled = self.history.collect(|line| match &line.event {
            Event::Ack {
                place,
                status: Handled::Ok,
                ..
            } if place.topic == self.topic => Some((place.queue, place.offset + 1)),
            _ => None,
        });
        for (queue, next) in handled {
            let furthest = up_to.entry(queue).or_insert(next);
            *furthest = next.max(*furthest);
        }
        up_to
    }

    /// Waits until the group has committed all that has been handled by now, which has to happen soon whatever else
    /// goes on. Gives how many deliveries were handled by then: they may not come again.
    pub(super) async fn commits_catch_up(&self) -> Result<usize, Failure> {
        let handled = self.history.handled();
        let wanted = self.handled_up_to();
        eventually("commits of what is handled", async || {
            let committed = self.committed().await?;
            Ok(wanted
                .iter()
                .all(|(queue, next)| committed.get(queue).is_some_and(|offset| offset >= next)))
        })
        .await?;
        Ok(handled)
    }

    /// How many times members got a queue of the topic, and lost one.
    pub(super) fn moves(&self) -> (usize, usize) {
        let own = format!("{}:", self.topic);
        let count = |wanted: fn(&Event) -> Option<&String>| {
            self.history
                .count(|line| wanted(&line.event).is_some_and(|queue| queue.starts_with(&own)))
        };
        let assigned = count(|event| match event {
            Event::Assigned { queue } => Some(queue),
            _ => None,
        });
        let revoked = count(|event| match event {
            Event::Revoked { queue } => Some(queue),
            _ => None,
        });
        (assigned, revoked)
    }

    /// Stops the producers, waits until everything is handled and committed, stops the consumers, and judges all.
    pub(super) async fn end(
        &self,
        producers: Vec<Program>,
        consumers: Vec<Program>,
    ) -> Result<Verdict, Failure> {
        for producer in producers {
            producer.stop().await?;
        }
        self.all_handled().await?;
        self.no_lag().await?;
        for consumer in &consumers {
            consumer.terminate().await?;
        }
        for consumer in consumers {
            consumer.ended_well().await?;
        }
        self.judge()
    }

    /// The verdict on all there is, which is reported. The history is kept where `HISTORIES` says.
    pub(super) fn judge(&self) -> Result<Verdict, Failure> {
        let verdict = self.history.check();
        report_figure(
            self.target,
            &format!(
                "{} acknowledged, {} handled; {verdict:#}; {}",
                self.history.acknowledged(),
                self.history.handled(),
                self.history.outages(Progress::Handled),
            ),
        );
        if let Some(directory) = env::var_os("HISTORIES") {
            let name = format!("{}-{}.jsonl", self.target.scenario(), self.target.kind());
            self.history.save(&Path::new(&directory).join(name))?;
        }
        Ok(verdict)
    }

    /// A figure that the members say they have at their end, added up.
    pub(super) fn figure(&self, name: &str) -> i64 {
        let figures = self.history.collect(|line| match &line.event {
            Event::Member { figures, .. } => figures.get(name).copied(),
            _ => None,
        });
        figures.iter().sum()
    }

    /// The ids of the group's dead letters, once there are so many. They count as handled from now on.
    pub(super) async fn bury(&self, wanted: usize) -> Result<Vec<Id>, Failure> {
        let topic = dlq_topic(&self.group);
        let broker = *brokers(&self.name_server).await?.first().ok_or("no broker")?;
        let mut dead: Vec<(Id, Place)> = Vec::new();
        eventually(&format!("{wanted} dead letters"), async || {
            let next = i64::try_from(dead.len())?;
            // Until the first is there, there may be no topic either.
            if let Ok(pulled) = pull(broker, &self.group, &topic, 0, next, "*").await {
                for record in records(&pulled)? {
                    let place = Place {
                        broker: String::new(),
                        topic: topic.clone(),
                        queue: 0,
                        offset: record.queue_offset,
                    };
                    dead.push((Id::of_body(&record.body)?, place));
                }
            }
            Ok(dead.len() >= wanted)
        })
        .await?;
        for (id, place) in &dead {
            self.history.note(Event::Ack {
                id: *id,
                place: place.clone(),
                status: Handled::Dead,
                call: None,
            });
        }
        Ok(dead.into_iter().map(|(id, _)| id).collect())
    }

    /// A client of the scenario's own.
    pub(super) async fn client(&self, name: &str) -> Result<Client, Failure> {
        let builder = Client::builder(&self.name_server).instance_name(name);
        Ok(builder
            .route_refresh_interval(Duration::from_secs(1))
            .connect()
            .await?)
    }
}
