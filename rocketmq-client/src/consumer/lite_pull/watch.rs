//! Who is told of changes: of the share of a consumer, and of the queues of any topic.
//!
//! Protocol source: `DefaultLitePullConsumerImpl#fetchTopicMessageQueuesAndCompare`, `MessageQueueListener`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::engine::Lite;
use crate::error::Result;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::panic_text;

/// What became of the queues of a topic in a division. See
/// [`assignment_listener`](super::LitePullConsumerBuilder::assignment_listener).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AssignmentChange<'a> {
    /// The topic.
    pub topic: &'a str,
    /// All queues of the topic.
    pub all: &'a [MessageQueue],
    /// Those that are this consumer's now.
    pub assigned: &'a [MessageQueue],
}

/// Somebody who wants to know of divisions.
pub(in crate::consumer) struct AssignmentListener(Box<dyn Fn(&AssignmentChange<'_>) + Send + Sync>);

impl AssignmentListener {
    pub(in crate::consumer) fn new(listener: impl Fn(&AssignmentChange<'_>) + Send + Sync + 'static) -> Self {
        Self(Box::new(listener))
    }

    pub(in crate::consumer) fn call(&self, change: &AssignmentChange<'_>) {
        guard("assignment", || (self.0)(change));
    }
}

impl fmt::Debug for AssignmentListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssignmentListener")
    }
}

type TopicListener = Arc<dyn Fn(&str, &[MessageQueue]) + Send + Sync>;

/// The topics that are looked at.
#[derive(Default)]
pub(super) struct Watched {
    /// The queues that each topic had when its queues were first divided.
    first_seen: HashMap<Arc<str>, BTreeSet<MessageQueue>>,
    /// What was last known of topics that somebody listens to.
    listeners: BTreeMap<String, (TopicListener, BTreeSet<MessageQueue>)>,
}

impl Watched {
    /// Notes the queues that a topic has; a topic that does not exist yet has none.
    pub(super) fn see(&mut self, topic: &Arc<str>, queues: &[MessageQueue]) {
        if !self.first_seen.contains_key(topic) {
            self.first_seen
                .insert(Arc::clone(topic), queues.iter().cloned().collect());
        }
    }

    /// Whether a queue came up while the consumer was running.
    pub(super) fn is_new(&self, queue: &MessageQueue) -> bool {
        let first = self.first_seen.get(&queue.topic);
        first.is_some_and(|first| !first.contains(queue))
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("listeners", &self.listeners.keys())
            .finish_non_exhaustive()
    }
}

impl Lite {
    /// Calls a listener whenever the queues of a topic are not what they were.
    pub(super) async fn listen(
        &self,
        topic: &str,
        listener: impl Fn(&str, &[MessageQueue]) + Send + Sync + 'static,
    ) -> Result<()> {
        self.check_open()?;
        self.remote.check_topic(topic)?;
        let queues = self.remote.queues(topic).await?;
        let known = queues.into_iter().collect();
        let listener: TopicListener = Arc::new(listener);
        lock(&self.watched)
            .listeners
            .insert(topic.to_owned(), (listener, known));
        Ok(())
    }

    /// Looks at the topics that somebody listens to, every so often.
    pub(super) async fn watch_topics(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = time::interval(self.options.topic_check_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if stop.run_until_cancelled(self.look_at_topics()).await.is_none() {
                return;
            }
        }
    }

    async fn look_at_topics(&self) {
        let topics: Vec<_> = lock(&self.watched).listeners.keys().cloned().collect();
        for topic in topics {
            self.remote.refresh(&topic).await;
            let queues = match self.remote.queues(&topic).await {
                Ok(queues) => queues,
                Err(error) => {
                    debug!(group = %self.group, topic, %error, "the queues of a topic are not known");
                    continue;
                }
            };
            let found: BTreeSet<_> = queues.into_iter().collect();
            let listener = {
                let mut watched = lock(&self.watched);
                let Some((listener, known)) = watched.listeners.get_mut(&topic) else {
                    continue;
                };
                if *known == found {
                    continue;
                }
                known.clone_from(&found);
                Arc::clone(listener)
            };
            let queues: Vec<_> = found.into_iter().collect();
            guard("topic", || listener(&topic, &queues));
        }
    }
}

/// Runs the user's code: a panic in it must not end the task that calls it.
fn guard(listener: &'static str, call: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
        let panic = panic_text(&*panic);
        error!(listener, panic, "a listener panicked");
    }
}
