//! Pulling what is in balance: the user's task for each queue of this member's share, again and again.
//!
//! Protocol source: `MQPullConsumerScheduleService`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::consumer::PullConsumer;
use crate::error::{Error, Result};
use crate::protocol::bodies::MessageQueue;
use crate::tasks::{Tasks, catch};

/// How long a queue waits whose task panicked. Java: the delay after an exception.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// A task that runs for each queue of a share; see [`PullConsumer::schedule`]. Dropping it ends it at the next `await`
/// of the tasks.
#[must_use = "the tasks end when it is dropped"]
#[derive(Debug)]
pub struct PullSchedule(Tasks);

impl PullConsumer {
    /// Runs a task for each queue of a [registered](super::PullConsumerBuilder::register) topic that is this member's, as
    /// long as it is: again and again, each time after the wait that it returned. Queues run side by side; a queue that
    /// goes to another member while its task runs is left at the task's next `await`. Java:
    /// `MQPullConsumerScheduleService#registerPullTaskCallback`, with `PullTaskContext#setPullNextDelayTimeMillis`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, MessageQueue, PullConsumer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// async fn archive(puller: &PullConsumer, queue: &MessageQueue) -> rocketmq_client::Result<()> {
    ///     let offset = puller.committed(queue).await?.unwrap_or(0);
    ///     let pulled = puller.pull(queue, "*", offset, 32).wait().await?;
    ///     for message in &pulled.messages {
    ///         println!("{message:?}");
    ///     }
    ///     puller.update_offset(queue, pulled.next_offset)?;
    ///     puller.persist(queue).await
    /// }
    ///
    /// let puller = client.pull_consumer("archive").register("orders", "*").start().await?;
    /// let schedule = puller.schedule("orders", |puller, queue| async move {
    ///     match archive(&puller, &queue).await {
    ///         Ok(()) => Duration::ZERO,
    ///         Err(_) => Duration::from_secs(1),
    ///     }
    /// })?;
    /// // ..
    /// drop(schedule);
    /// puller.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the topic is not registered;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the consumer was shut down.
    pub fn schedule<T, F>(&self, topic: &str, task: T) -> Result<PullSchedule>
    where
        T: Fn(Self, MessageQueue) -> F + Send + Sync + 'static,
        F: Future<Output = Duration> + Send + 'static,
    {
        let puller = self.puller();
        puller.check_open()?;
        let topic = puller.remote.cluster().user_name(topic).into_owned();
        if !puller.registered.contains(&topic) || !puller.options.rebalance {
            return Err(Error::config(format!(
                "topic {topic} is not divided: register it before the consumer of group {} starts",
                puller.group
            )));
        }
        let tasks = puller.tasks.child();
        let schedule = PullSchedule(tasks.clone());
        let (consumer, task) = (self.clone(), Arc::new(task));
        let all = tasks.clone();
        tasks.spawn("schedule", move |stop| async move {
            let follow = follow(&consumer, &topic, &task, &all);
            stop.run_until_cancelled(follow).await;
        });
        Ok(schedule)
    }
}

/// Starts and ends tasks as queues come and go.
async fn follow<T, F>(consumer: &PullConsumer, topic: &str, task: &Arc<T>, tasks: &Tasks)
where
    T: Fn(PullConsumer, MessageQueue) -> F + Send + Sync + 'static,
    F: Future<Output = Duration> + Send + 'static,
{
    let mut balance = consumer.puller().balance.subscribe();
    let mut running: BTreeMap<MessageQueue, CancellationToken> = BTreeMap::new();
    loop {
        let share: Vec<_> = {
            let balance = balance.borrow_and_update();
            let of_topic = balance.iter().filter(|queue| *queue.topic == *topic);
            of_topic.cloned().collect()
        };
        running.retain(|queue, stop| {
            let stays = share.contains(queue);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for queue in share {
            if running.contains_key(&queue) {
                continue;
            }
            let stop = tasks.token().child_token();
            running.insert(queue.clone(), stop.clone());
            let (consumer, task) = (consumer.clone(), Arc::clone(task));
            tasks.spawn("pull", move |_| async move {
                stop.run_until_cancelled(repeat(&consumer, &queue, &*task)).await;
            });
        }
        if balance.changed().await.is_err() {
            return;
        }
    }
}

async fn repeat<T, F>(consumer: &PullConsumer, queue: &MessageQueue, task: &T)
where
    T: Fn(PullConsumer, MessageQueue) -> F + Sync,
    F: Future<Output = Duration> + Send,
{
    loop {
        let ran = catch(task(consumer.clone(), queue.clone())).await;
        let wait = ran.unwrap_or_else(|panic| {
            error!(group = consumer.group(), %queue, %panic, "the task of a queue panicked");
            AFTER_A_PANIC
        });
        sleep(wait).await;
        // A task that never waits must not keep the others from running.
        tokio::task::coop::consume_budget().await;
    }
}

impl Drop for PullSchedule {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
