//! Which queue an attempt goes to.
//!
//! Protocol source: `MQFaultStrategy#selectOneMessageQueue`, `TopicPublishInfo`, `SelectMessageQueueByHash`.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::attempt::{Attempt, Job};
use crate::cluster::TopicRoute;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::MessageQueue;

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

impl Job {
    pub(super) async fn next_attempt(&mut self) -> Result<Attempt> {
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

    pub(super) fn choose(&self, route: &TopicRoute) -> Result<Attempt> {
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
}
