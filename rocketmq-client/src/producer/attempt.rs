//! One send: which queue to try, what an answer means, and whether to try again.
//!
//! Protocol source: `DefaultMQProducerImpl#sendDefaultImpl`, `MQFaultStrategy`, `MQClientAPIImpl#processSendResponse`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::Core;
use super::prepare::Prepared;
use super::receipt::{SendReceipt, SendStatus};
use crate::cluster::{TopicRoute, outbound_parts};
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{CodecError, Fields, Frame, ResponseCode, ResponseError};
use crate::transport::{Connection, InFlight, Outbound, Started, backoff, random};

/// The codes after which Java tries again, on another broker if there is one: `DefaultMQProducer#retryResponseCodes`.
pub(super) const RETRY_CODES: [ResponseCode; 8] = [
    ResponseCode::TOPIC_NOT_EXIST,
    ResponseCode::SERVICE_NOT_AVAILABLE,
    ResponseCode::SYSTEM_ERROR,
    ResponseCode::SYSTEM_BUSY,
    ResponseCode::NO_PERMISSION,
    ResponseCode::NO_BUYER_ID,
    ResponseCode::NOT_IN_CURRENT_UNIT,
    ResponseCode::GO_AWAY,
];

/// For how long a broker that did not answer, or could not be reached, comes last.
const AVOIDED: Duration = Duration::from_secs(5);

/// A user's function that gives the place of a queue among those it is shown.
type Choose = Box<dyn FnOnce(&[MessageQueue]) -> usize + Send>;

/// Which queue a message goes to.
pub(super) enum Target {
    /// The next one in turn, or the one that its sharding key says.
    Any,
    /// This one.
    Queue(MessageQueue),
    /// The one that this function chooses.
    Chosen(Choose),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Queue(queue) => write!(f, "Queue({queue})"),
            Self::Chosen(_) => f.write_str("Chosen"),
        }
    }
}

/// One send from its first attempt to its last.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) core: Arc<Core>,
    pub(super) prepared: Prepared,
    target: Target,
    deadline: Instant,
    attempts: u32,
    /// The worst of all attempts.
    persisted: Persisted,
    failed_broker: Option<Arc<str>>,
    /// What it takes of the room for messages in flight.
    cost: Option<u32>,
}

/// Where one attempt goes.
#[derive(Debug)]
pub(super) struct Attempt {
    queue: MessageQueue,
    address: Arc<str>,
    deadline: Instant,
    /// Whether a further attempt could go to another broker.
    alternatives: bool,
}

/// What the fast path came to.
pub(super) enum Fast {
    /// The request is in the buffer of its connection.
    InFlight(InFlight, Attempt),
    /// Something has to be waited for first.
    NotNow(Next),
}

/// What the slow way does first.
pub(super) enum Next {
    /// Chooses where to send to.
    Choose,
    /// Makes an attempt whose place was chosen already: choosing again would use up another turn.
    Try(Attempt),
    /// Sees what follows from an attempt that failed.
    After(Attempt, Error),
}

impl Job {
    pub(super) fn new(core: &Arc<Core>, prepared: Prepared, target: Target, timeout: Duration) -> Self {
        Self {
            core: Arc::clone(core),
            prepared,
            target,
            deadline: Instant::now() + timeout,
            attempts: 0,
            persisted: Persisted::No,
            failed_broker: None,
            cost: None,
        }
    }

    /// Takes room for the message, if there is some.
    pub(super) fn try_enter(&mut self) -> bool {
        if self.cost.is_none() {
            self.cost = self.core.room.try_enter(self.prepared.body.len());
        }
        self.cost.is_some()
    }

    /// Makes the first attempt if nothing has to be waited for: there is room, the route is known, the broker is
    /// connected, no layer is installed.
    pub(super) fn start(&mut self) -> Fast {
        if !self.try_enter() {
            return Fast::NotNow(Next::Choose);
        }
        let Some(route) = self.core.cluster.known_publish_route(&self.prepared.topic) else {
            return Fast::NotNow(Next::Choose);
        };
        // Choosing by a function of the user is left to the slow way, which reports its mistakes.
        if matches!(self.target, Target::Chosen(_)) {
            return Fast::NotNow(Next::Choose);
        }
        let Ok(attempt) = self.choose(&route) else {
            return Fast::NotNow(Next::Choose);
        };
        let extra = Fields::new();
        let started = self.outbound(&attempt, &extra, |outbound| {
            let remoting = self.core.cluster.remoting();
            remoting.try_start(&attempt.address, outbound, attempt.deadline)
        });
        match started {
            Some(Started::InFlight(in_flight)) => {
                self.attempts = 1;
                Fast::InFlight(in_flight, attempt)
            }
            Some(Started::Failed(error)) => {
                self.attempts = 1;
                Fast::NotNow(Next::After(attempt, error))
            }
            Some(Started::Full) | None => Fast::NotNow(Next::Try(attempt)),
        }
    }

    /// Makes attempts until one succeeds or none may follow.
    pub(super) async fn run(mut self, mut next: Next) -> Result<SendReceipt> {
        if self.cost.is_none() {
            self.enter().await?;
        }
        loop {
            let attempt = match next {
                Next::Try(attempt) => attempt,
                Next::Choose => self.next_attempt().await?,
                Next::After(attempt, error) => {
                    self.after_failure(&attempt, error).await?;
                    self.next_attempt().await?
                }
            };
            self.attempts += 1;
            let extra = Fields::new();
            let core = Arc::clone(&self.core);
            let header = self
                .prepared
                .header(&core, &attempt.queue.broker_name, attempt.queue.queue_id);
            let outbound = outbound_parts::<SendMessageV2, _>(&header, &extra, self.prepared.body.clone());
            let answer = core
                .cluster
                .remoting()
                .request(&attempt.address, &outbound, attempt.deadline)
                .await;
            match answer.and_then(|frame| self.read(&attempt, frame)) {
                Ok(receipt) => return Ok(receipt),
                Err(error) => next = Next::After(attempt, error),
            }
        }
    }

    async fn enter(&mut self) -> Result<()> {
        let (room, when_full) = (&self.core.room, self.core.options.when_full);
        let entered = room
            .enter(self.prepared.body.len(), when_full, self.deadline)
            .await;
        let cost =
            entered.map_err(|error| error.context(format_args!("send to topic {}", self.prepared.topic)))?;
        self.cost = Some(cost);
        Ok(())
    }

    /// Fails at once without room: for sends that nobody waits for.
    pub(super) fn enter_or_fail(&mut self) -> Result<()> {
        match self.try_enter() {
            true => Ok(()),
            false => Err(self
                .core
                .room
                .full()
                .context(format_args!("send to topic {}", self.prepared.topic))),
        }
    }

    async fn next_attempt(&mut self) -> Result<Attempt> {
        let topic = &self.prepared.topic;
        let route = match self.core.cluster.known_publish_route(topic) {
            Some(route) => route,
            None => {
                let queues = self.core.options.default_topic_queue_nums;
                let asked = self.core.cluster.publish_route(topic, queues);
                let asked = timeout_at(self.deadline, asked).await.unwrap_or_else(|_| {
                    Err(Error::new(
                        ErrorKind::Timeout,
                        "no name server told the route before the deadline",
                    ))
                });
                asked.map_err(|error| {
                    error
                        .context(format_args!("send to topic {topic}"))
                        .after(self.attempts)
                        .with_persisted(self.persisted)
                })?
            }
        };
        if let Target::Chosen(_) = &self.target {
            self.fix_choice(&route)?;
        }
        self.choose(&route)
    }

    /// Asks the user's function once; further attempts go to the same queue.
    fn fix_choice(&mut self, route: &TopicRoute) -> Result<()> {
        let Target::Chosen(choose) = std::mem::replace(&mut self.target, Target::Any) else {
            return Ok(());
        };
        let queues = route.publish_queues();
        let index = choose(queues);
        let Some(queue) = queues.get(index) else {
            return Err(Error::config(format!(
                "send to topic {}: select_queue chose queue {index} of {}; choose one below that",
                self.prepared.topic,
                queues.len()
            )));
        };
        self.target = Target::Queue(queue.clone());
        Ok(())
    }

    fn choose(&self, route: &TopicRoute) -> Result<Attempt> {
        let queues = route.publish_queues();
        let (queue, address) = match &self.target {
            Target::Queue(wanted) => {
                let found = queues.iter().position(|queue| queue == wanted);
                let address = match found.and_then(|index| route.publish_address(index)) {
                    Some(address) => Arc::clone(address),
                    None => return Err(self.no_such_queue(wanted)),
                };
                (wanted.clone(), address)
            }
            _ => {
                let index = match self.prepared.sharding_hash {
                    // Java: `SelectMessageQueueByHash`.
                    Some(hash) => hash.unsigned_abs() as usize % queues.len().max(1),
                    None => self.next_in_turn(route),
                };
                match (queues.get(index), route.publish_address(index)) {
                    (Some(queue), Some(address)) => (queue.clone(), Arc::clone(address)),
                    // A publish route has queues; this is for the compiler.
                    _ => return Err(Error::config("the topic has no queue that can be written")),
                }
            }
        };
        let alternatives = matches!(self.target, Target::Any)
            && self.prepared.sharding_hash.is_none()
            && queues.iter().any(|other| other.broker_name != queue.broker_name);
        Ok(Attempt {
            deadline: self.attempt_deadline(alternatives),
            queue,
            address,
            alternatives,
        })
    }

    /// The next queue in turn whose broker has neither just failed this message nor is suspect; if there is none, one
    /// of another broker at least; else the next one.
    fn next_in_turn(&self, route: &TopicRoute) -> usize {
        let queues = route.publish_queues();
        let pool = self.core.cluster.remoting().pool();
        let first = route.next_turn();
        let places = (first..queues.len()).chain(0..first);
        let mut other_broker = None;
        for place in places {
            let (Some(queue), Some(address)) = (queues.get(place), route.publish_address(place)) else {
                continue;
            };
            if self.failed_broker.as_ref() == Some(&queue.broker_name) {
                continue;
            }
            if !pool.is_suspect(address) {
                return place;
            }
            other_broker.get_or_insert(place);
        }
        other_broker.unwrap_or(first)
    }

    /// All that is left, unless another broker could be tried with a part of it.
    fn attempt_deadline(&self, alternatives: bool) -> Instant {
        if !alternatives && self.core.options.attempt_timeout.is_none() {
            return self.deadline;
        }
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let attempts_left = self.core.options.max_attempts.saturating_sub(self.attempts);
        let share = match self.core.options.attempt_timeout {
            Some(limit) => left.min(limit),
            None => left / attempts_left.max(1),
        };
        now + share
    }

    fn no_such_queue(&self, queue: &MessageQueue) -> Error {
        Error::config(format!(
            "send to topic {}: queue {queue} is none of its queues that can be written; take one of the topic's route",
            self.prepared.topic
        ))
    }

    fn outbound<T>(
        &self,
        attempt: &Attempt,
        extra: &Fields,
        run: impl FnOnce(&Outbound<'_, super::prepare::SendHeader<'_>>) -> T,
    ) -> T {
        let queue = &attempt.queue;
        let header = self
            .prepared
            .header(&self.core, &queue.broker_name, queue.queue_id);
        run(&outbound_parts::<SendMessageV2, _>(
            &header,
            extra,
            self.prepared.body.clone(),
        ))
    }

    /// Puts the message into the buffer of a connection and asks for no answer.
    pub(super) async fn one_way(mut self) -> Result<()> {
        let attempt = self.next_attempt().await?;
        let core = Arc::clone(&self.core);
        let queue = &attempt.queue;
        let header = self.prepared.header(&core, &queue.broker_name, queue.queue_id);
        let extra = Fields::new();
        let outbound = outbound_parts::<SendMessageV2, _>(&header, &extra, self.prepared.body.clone());
        let sent = core
            .cluster
            .remoting()
            .one_way(&attempt.address, &outbound, self.deadline);
        sent.await.map_err(|error| {
            self.attempts = 1;
            self.describe(&attempt, error)
        })
    }

    /// What the frame that answered an attempt says.
    pub(super) fn read(&mut self, attempt: &Attempt, frame: Frame) -> Result<SendReceipt> {
        let code = ResponseCode(frame.code);
        let Some(status) = SendStatus::of(code) else {
            return Err(refusal(attempt, &frame));
        };
        let malformed = |error| {
            Error::from_response("SendMessageV2", &attempt.address, ResponseError::Malformed(error))
                .with_persisted(Persisted::Yes)
        };
        let place = Place::read(&frame.fields).map_err(malformed)?;
        self.core.cluster.remoting().pool().trust(&attempt.address);
        if status != SendStatus::Ok && self.core.options.retry_when_not_stored_ok && self.may_retry() {
            return Err(refusal(attempt, &frame).with_persisted(Persisted::Yes));
        }
        let mut queue = attempt.queue.clone();
        queue.queue_id = place.queue_id;
        Ok(SendReceipt {
            message_id: std::mem::take(&mut self.prepared.message_id),
            offset_message_id: place.message_id.to_owned(),
            queue,
            queue_offset: place.queue_offset,
            status,
            attempts: self.attempts,
        })
    }

    /// The broker is about to stop: its connection takes nothing new.
    pub(super) fn retire(&self, attempt: &Attempt, connection: &Arc<Connection>) {
        let pool = self.core.cluster.remoting().pool();
        pool.retire(&attempt.address, connection);
    }

    fn may_retry(&self) -> bool {
        self.attempts < self.core.options.max_attempts && Instant::now() < self.deadline
    }

    /// Notes a failed attempt. Gives the final error if no other attempt may follow; waits where trying at once would
    /// only make it worse.
    async fn after_failure(&mut self, attempt: &Attempt, error: Error) -> Result<()> {
        self.persisted = worse(self.persisted, error.persisted());
        let broken = matches!(
            error.kind(),
            ErrorKind::Timeout | ErrorKind::Connect | ErrorKind::Protocol
        );
        let cluster = &self.core.cluster;
        if broken {
            cluster.remoting().pool().suspect(&attempt.address, AVOIDED);
        }
        let code = error.response().map(|(code, _)| code);
        let retried = match code {
            Some(code) => self.core.options.retry_codes.contains(&code) || SendStatus::of(code).is_some(),
            // A success that cannot be read is a success: trying again would duplicate the message.
            None => broken && error.persisted() != Persisted::Yes,
        };
        if broken || code == Some(ResponseCode::TOPIC_NOT_EXIST) || code == Some(ResponseCode::NO_PERMISSION)
        {
            cluster.refresh_route_soon(&self.prepared.topic);
        }
        if !retried || !self.may_retry() {
            return Err(self.describe(attempt, error));
        }
        debug!(topic = self.prepared.topic, attempt = self.attempts, %error, "a send is tried again");
        self.failed_broker = Some(Arc::clone(&attempt.queue.broker_name));
        if error.response().is_some() && !attempt.alternatives {
            // The same broker again: give it a moment.
            let pause = backoff(self.attempts, random());
            let until = Instant::now() + pause;
            if until >= self.deadline {
                return Err(self.describe(attempt, error));
            }
            sleep_until(until).await;
        }
        Ok(())
    }

    fn describe(&self, attempt: &Attempt, error: Error) -> Error {
        let Attempt { queue, address, .. } = attempt;
        let persisted = worse(self.persisted, error.persisted());
        let (attempts, max) = (self.attempts, self.core.options.max_attempts);
        error
            .context(format_args!(
                "send to topic {}, queue {} on {} ({address}), attempt {attempts} of {max}",
                self.prepared.topic, queue.queue_id, queue.broker_name
            ))
            .with_persisted(persisted)
            .at(Arc::clone(&queue.broker_name))
            .after(attempts)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(cost) = self.cost {
            self.core.room.leave(cost);
        }
    }
}

/// What a receipt needs of [`SendResultHeader`](crate::protocol::requests::SendResultHeader): read in place, since this
/// is done for every message.
struct Place<'a> {
    message_id: &'a str,
    queue_id: i32,
    queue_offset: i64,
}

impl<'a> Place<'a> {
    fn read(fields: &'a Fields) -> Result<Self, CodecError> {
        let field = |name| {
            let missing = || CodecError::Field(format!("missing field `{name}`"));
            fields.get(name).ok_or_else(missing)
        };
        Ok(Self {
            message_id: field("msgId")?,
            queue_id: number("queueId", field("queueId")?)?,
            queue_offset: number("queueOffset", field("queueOffset")?)?,
        })
    }
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, CodecError> {
    let wrong = |_| CodecError::Field(format!("header field {name:?}: cannot read {text:?}"));
    text.parse().map_err(wrong)
}

/// A code that is no success. Of most it is known that nothing was stored; code 1 stands for anything.
fn refusal(attempt: &Attempt, frame: &Frame) -> Error {
    let persisted = match ResponseCode(frame.code) {
        ResponseCode::SYSTEM_ERROR => Persisted::Maybe,
        _ => Persisted::No,
    };
    Error::from_response("SendMessageV2", &attempt.address, ResponseError::refused(frame))
        .with_persisted(persisted)
}

fn worse(one: Persisted, other: Persisted) -> Persisted {
    match (one, other) {
        (Persisted::Yes, _) | (_, Persisted::Yes) => Persisted::Yes,
        (Persisted::Maybe, _) | (_, Persisted::Maybe) => Persisted::Maybe,
        _ => Persisted::No,
    }
}
