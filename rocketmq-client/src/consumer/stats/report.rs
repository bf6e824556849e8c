//! What a consumer tells of its work when it is asked.

use std::sync::Arc;

use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{QueueProgress, SAMPLE_INTERVAL, TopicRates};
use crate::consumer::engine::Engine;
use crate::consumer::process_queue::ProcessQueue;
use crate::consumer::push::PushConsumer;
use crate::error::Result;
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;
use crate::tasks::join_all;

/// How many questions for the end of a queue are open at a time.
const QUESTIONS: usize = 32;

impl PushConsumer {
    /// How fast messages are received and handled, by topic, over the last minute. Java: `ConsumerStatsManager`, which
    /// operators see in `mqadmin consumerStatus`.
    ///
    /// ```
    /// # use rocketmq_client::{Client, ConsumeFrom, Message, MessageView};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # producer.send(Message::new("orders", "paid")).await?;
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .start(|_: MessageView| async {})
    ///     .await?;
    /// # while consumer.stats().acknowledged == 0 {
    /// #     tokio::task::yield_now().await;
    /// # }
    /// for rates in consumer.rates() {
    ///     println!("{}: {:.0} a second, {:?} each", rates.topic, rates.acknowledged_per_second, rates.handle_time);
    /// }
    /// for queue in consumer.progress_at_brokers().await? {
    ///     println!("{}: {:?} behind", queue.queue, queue.lag());
    /// }
    /// # assert!(consumer.rates().iter().any(|rates| rates.acknowledged_per_second > 0.0));
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn rates(&self) -> Vec<TopicRates> {
        self.engine().meters.rates()
    }

    /// How far each owned queue is consumed, as far as the answers to pulls tell. Asks nobody.
    ///
    /// While a queue is paused, or its cache is full, it is not pulled, and [`max_offset`](QueueProgress::max_offset)
    /// stays behind.
    #[must_use]
    pub fn progress(&self) -> Vec<QueueProgress> {
        self.engine().progress()
    }

    /// How far each owned queue is consumed, and how far it reaches on its broker now.
    ///
    /// # Errors
    /// The first one of a broker that does not answer.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn progress_at_brokers(&self) -> Result<Vec<QueueProgress>> {
        let engine = self.engine();
        engine.ask_for_ends().await?;
        Ok(engine.progress())
    }
}

impl Engine {
    /// Notes the counters, and tells a recorder what is to be measured from time to time.
    pub(in crate::consumer) async fn measure_regularly(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = time::interval(SAMPLE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and there is nothing to note yet.
        tick.reset();
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.meters.sample();
            let mut messages = 0;
            for process in self.processes() {
                messages += process.cached().0;
                if let Some(watch) = process.watch() {
                    watch.tell_lag(process.commit_offset());
                }
            }
            self.meters.tell_cached(messages, self.budget.used());
        }
    }

    fn processes(&self) -> Vec<Arc<ProcessQueue>> {
        let assignment = lock(&self.assignment);
        assignment
            .iter()
            .filter_map(|(_, process)| process.map(Arc::clone))
            .collect()
    }

    pub(in crate::consumer) fn progress(&self) -> Vec<QueueProgress> {
        let assignment = lock(&self.assignment);
        assignment
            .iter()
            .map(|(queue, process)| progress_of(queue, process))
            .collect()
    }

    async fn ask_for_ends(&self) -> Result<()> {
        for some in self.processes().chunks(QUESTIONS) {
            let asked = join_all(some.iter().map(|process| self.remote.max_offset(&process.queue))).await;
            for (process, offset) in some.iter().zip(asked) {
                let offset = offset?;
                if let Some(watch) = process.watch() {
                    watch.set_max_offset(offset);
                    watch.tell_lag(process.commit_offset());
                }
            }
        }
        Ok(())
    }
}

fn progress_of(queue: &MessageQueue, process: Option<&Arc<ProcessQueue>>) -> QueueProgress {
    let (cached, cached_bytes) = process.map_or((0, 0), |process| process.cached());
    let watch = process.and_then(|process| process.watch());
    QueueProgress {
        queue: queue.clone(),
        consumed: process.map(|process| process.commit_offset()),
        max_offset: watch.and_then(|watch| watch.max_offset()),
        cached,
        cached_bytes,
        last_pull: watch.and_then(|watch| watch.last_pull()),
        last_consumed: watch.and_then(|watch| watch.last_consumed()),
    }
}
