//! Whether the group consumed a topic before this member came.
//!
//! A queue without a committed offset is one of two things: part of a topic that the group begins with, or new in a
//! topic that the group has been consuming. Where the group starts at the end of queues, the difference matters: what is
//! in the first was sent before the group wanted it, what is in the second would be lost. A member that was there tells
//! them apart by itself. One that comes later looks at the other queues of the topic: if the group has consumed
//! anything of them, it has been here. It looks before it joins, because from then on the group may be this member.
//!
//! A broker that is asked does not tell offset 0 from none, so neither counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::engine::Engine;
use super::first_offset::{ConsumeFrom, NewQueues};
use crate::error::Result;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::join_all;

/// How many queues are asked about at a time.
const AT_A_TIME: usize = 64;

/// A broker that takes longer is passed over: the start must not hang on one that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// For each topic that was looked at, whether the group had consumed any of it.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<HashMap<Arc<str>, bool>>);

impl Standing {
    /// Whether the group had consumed any of the topic when this member came.
    pub(super) fn is_established(&self, topic: &str) -> bool {
        lock(&self.0).get(topic).copied().unwrap_or(false)
    }

    fn is_known(&self, topic: &str) -> bool {
        lock(&self.0).contains_key(topic)
    }
}

impl Engine {
    /// Finds out where a topic is and what there is of it, before the group hears of this member.
    pub(super) async fn look_before_joining(&self, topic: &Arc<str>) {
        if let Ok(queues) = self.remote.queues(topic).await {
            lock(&self.assignment).see(topic, &queues);
            self.look_at(topic, &queues).await;
        }
    }

    /// Finds out whether the group has consumed any of a topic, once.
    pub(super) async fn look_at(&self, topic: &Arc<str>, queues: &[MessageQueue]) {
        let matters = self.local.is_none()
            && self.options.consume_from == ConsumeFrom::Last
            && self.options.new_queues == NewQueues::FromStart
            && *topic != self.retry_topic;
        if !matters || queues.is_empty() || self.standing.is_known(topic) {
            return;
        }
        if let Some(established) = has_consumed(queues, |queue| self.remote.has_consumed(queue)).await {
            debug!(group = %self.group, %topic, established, "looked whether the group has consumed the topic");
            lock(&self.standing.0).insert(Arc::clone(topic), established);
        }
    }
}

/// Whether any of these queues has been consumed; `None` if nobody answered.
async fn has_consumed<'a, F>(
    queues: &'a [MessageQueue],
    ask: impl Fn(&'a MessageQueue) -> F + Sync,
) -> Option<bool>
where
    F: Future<Output = Result<bool>> + Send,
{
    let mut silent: BTreeSet<&str> = BTreeSet::new();
    let mut answered = false;
    for some in queues.chunks(AT_A_TIME) {
        let some = some.iter().filter(|queue| !silent.contains(&*queue.broker_name));
        let answers = join_all(some.map(|queue| {
            let answer = timeout(PATIENCE, ask(queue));
            async move { (queue, answer.await) }
        }));
        for (queue, answer) in answers.await {
            match answer {
                Ok(Ok(true)) => return Some(true),
                Ok(Ok(false)) => answered = true,
                _ => {
                    silent.insert(&queue.broker_name);
                }
            }
        }
    }
    answered.then_some(false)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn queues(broker: &str, count: i32) -> Vec<MessageQueue> {
        (0..count)
            .map(|queue| MessageQueue::new("orders", broker, queue))
            .collect()
    }

    #[tokio::test]
    async fn one_consumed_queue_is_enough() {
        let queues = queues("broker-a", 200);
        let consumed = has_consumed(&queues, async |queue| Ok(queue.queue_id == 170));
        assert_eq!(consumed.await, Some(true));
        let consumed = has_consumed(&queues, async |_| Ok(false));
        assert_eq!(consumed.await, Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_answer_is_passed_over() {
        let mut both = queues("broker-a", 300);
        both.extend(queues("broker-b", 3));
        let refused = || Error::new(ErrorKind::Connect, "refused");
        let of_b = |answer: bool| {
            move |queue: &MessageQueue| {
                let is_b = &*queue.broker_name == "broker-b";
                async move { if is_b { Ok(answer) } else { pending().await } }
            }
        };
        assert_eq!(has_consumed(&both, of_b(true)).await, Some(true));
        assert_eq!(has_consumed(&both, of_b(false)).await, Some(false));
        let nobody = has_consumed(&both, async |_| Err(refused()));
        assert_eq!(nobody.await, None);
    }
}
