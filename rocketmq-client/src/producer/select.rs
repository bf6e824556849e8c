//! Which queue an attempt goes to.
//!
//! Protocol source: `MQFaultStrategy#selectOneMessageQueue`, `TopicPublishInfo`, `SelectMessageQueueByHash`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::Core;
use super::attempt::{Attempt, Job};
use super::queue_selector;
use crate::cluster::{TopicRoute, TopicTemplate};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::names::{DLQ_PREFIX, RETRY_PREFIX};
use crate::transport::{Standing, Standings};

/// How often a broker that has to take a message is looked for in the route.
const AWAY_POLL: Duration = Duration::from_millis(200);

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

/// What choosing a queue came to.
pub(super) enum Choice {
    /// An attempt can be made there.
    Go(Attempt),
    /// All that could take the message refuse to: nothing before this time.
    Busy(Arc<str>, Instant),
    /// The broker that has to take it has no master.
    Away(Arc<str>),
}

impl Job {
    /// Where to send to next. Waits, at most until the deadline, for the route, for a broker that is busy to take
    /// messages again, and for the broker of a key to come back.
    pub(super) async fn next_attempt(&mut self) -> Result<Attempt> {
        loop {
            let route = route(&self.core, &self.prepared.topic, self.deadline).await;
            let route = route.map_err(|error| self.before_an_attempt(error))?;
            if let Target::Chosen(_) = &self.target {
                self.fix_choice(&route)?;
            }
            match self.choose(&route)? {
                Choice::Go(attempt) => return Ok(attempt),
                Choice::Busy(address, next) => {
                    let standings = self.core.cluster.remoting().pool().standings();
                    standings.well_again(&address, next.min(self.deadline)).await;
                    if Instant::now() >= self.deadline {
                        let refusal = standings.refusal(&address);
                        let busy = || Error::new(ErrorKind::Busy, format!("the broker {address} was busy"));
                        return Err(self.out_of_time(|| refusal.unwrap_or_else(busy)));
                    }
                }
                Choice::Away(broker) => {
                    self.core.cluster.refresh_route_soon(&self.prepared.topic);
                    let again = Instant::now() + AWAY_POLL;
                    sleep_until(again.min(self.deadline)).await;
                    if again >= self.deadline {
                        return Err(self.out_of_time(|| {
                            Error::new(
                                ErrorKind::Connect,
                                format!(
                                    "broker {broker} has no master at the moment, and the message has to go to a \
                                     queue of it"
                                ),
                            )
                            .at(broker)
                        }));
                    }
                }
            }
        }
    }

    /// The error when the deadline came while there was nowhere to send to.
    fn out_of_time(&mut self, why: impl FnOnce() -> Error) -> Error {
        match self.last_error.take() {
            Some(error) => error,
            None => self.before_an_attempt(why()),
        }
    }

    fn before_an_attempt(&self, error: Error) -> Error {
        error
            .context(format_args!("send to topic {}", self.prepared.topic))
            .after(self.attempts)
            .with_persisted(self.persisted)
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

    pub(super) fn choose(&self, route: &TopicRoute) -> Result<Choice> {
        let queues = route.publish_queues();
        let fixed = match (&self.target, self.prepared.sharding_hash) {
            (Target::Queue(wanted), _) => match queues.iter().position(|queue| queue == wanted) {
                Some(place) => Some(place),
                None => return Err(self.no_such_queue(wanted)),
            },
            // Java: `SelectMessageQueueByHash`.
            (_, Some(hash)) => Some(queue_selector::place_of(hash, queues.len())),
            _ => None,
        };
        let standings = self.core.cluster.remoting().pool().standings();
        let place = match fixed {
            Some(place) => place,
            None => match self.next_in_turn(route, standings) {
                Ok(place) => place,
                Err(wait) => return Ok(wait),
            },
        };
        let Some(queue) = queues.get(place) else {
            // A publish route has queues; this is for the compiler.
            return Err(Error::config("the topic has no queue that can be written"));
        };
        let Some(address) = route.publish_address(place) else {
            return Ok(Choice::Away(Arc::clone(&queue.broker_name)));
        };
        if fixed.is_some()
            && let Err(next) = standings.claim(address)
        {
            return Ok(Choice::Busy(Arc::clone(address), next));
        }
        let alternatives =
            fixed.is_none() && queues.iter().any(|other| other.broker_name != queue.broker_name);
        let started = Instant::now();
        Ok(Choice::Go(Attempt {
            started,
            deadline: self.attempt_deadline(alternatives, started),
            queue: queue.clone(),
            address: Arc::clone(address),
            meters: Arc::clone(route.meters()),
            alternatives,
        }))
    }

    /// The next queue in turn whose broker is well and has not just failed this message; if there is none, the best
    /// there is.
    fn next_in_turn(&self, route: &TopicRoute, standings: &Standings) -> Result<usize, Choice> {
        let queues = route.publish_queues();
        let first = route.next_turn();
        let mut best = None;
        for place in (first..queues.len()).chain(0..first) {
            let (Some(queue), Some(address)) = (queues.get(place), route.publish_address(place)) else {
                continue;
            };
            let failed = self.failed_broker.as_ref() == Some(&queue.broker_name);
            let rank = match standings.of(address) {
                // One at a time may try whether the broker takes messages again.
                Standing::Busy(_) => match standings.claim(address) {
                    Ok(()) => return Ok(place),
                    Err(next) => Rank::Busy(next),
                },
                Standing::Good if !failed => return Ok(place),
                Standing::Slow if !failed => Rank::SlowOther,
                Standing::Good => Rank::Failed,
                Standing::Slow => Rank::SlowFailed,
                Standing::Broken if !failed => Rank::BrokenOther,
                Standing::Broken => Rank::BrokenFailed,
            };
            if best.is_none_or(|(than, _)| rank < than) {
                best = Some((rank, place));
            }
        }
        match best {
            Some((Rank::Busy(next), place)) => {
                let address = route.publish_address(place).map(Arc::clone);
                Err(Choice::Busy(address.unwrap_or_else(|| "".into()), next))
            }
            Some((_, place)) => Ok(place),
            // None has a master: whose turn it is says so.
            None => Ok(first),
        }
    }

    /// All that is left, unless another broker could be tried with a part of it.
    pub(super) fn attempt_deadline(&self, alternatives: bool, now: Instant) -> Instant {
        if !alternatives && self.core.options.attempt_timeout.is_none() {
            return self.deadline;
        }
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
}

/// The route of a topic, as known or as a name server tells before the deadline.
async fn route(core: &Core, topic: &str, deadline: Instant) -> Result<Arc<TopicRoute>> {
    if let Some(route) = core.cluster.known_publish_route(topic) {
        return Ok(route);
    }
    // Of a topic of a group that its name servers do not know yet, a broker may have one queue already; it never makes
    // more.
    let of_group = TopicTemplate::of_queues(1);
    let template = match topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX) {
        true => &of_group,
        false => &core.options.template,
    };
    let asked = core.cluster.publish_route(topic, template);
    timeout_at(deadline, asked).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            "no name server told the route before the deadline",
        ))
    })
}

/// How good a queue is that is not simply the next, from good to bad.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    SlowOther,
    Failed,
    SlowFailed,
    /// Waiting is needed, until then.
    Busy(Instant),
    BrokenOther,
    BrokenFailed,
}

#[cfg(test)]
mod tests;
