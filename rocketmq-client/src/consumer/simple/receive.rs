//! One receive: looks everywhere, and waits at all brokers at a time where there was nothing.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use super::member::Core;
use super::{Counters, Received};
use crate::consumer::first_offset::ConsumeFrom;
use crate::consumer::pop::calls::{Begin, MAX_BATCH, Receipt, Source, is_unknown_request};
use crate::consumer::pop::popped;
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::property;
use crate::protocol::requests::PopStatus;
use crate::tasks::join_all;

/// How long a broker may hold the question for messages. Brokers with default settings do not wake it for messages that
/// come again, so this is how late those may be.
const HOLD: Duration = Duration::from_secs(5);

/// The longest wait after somebody else got the message, or the filter did not want it.
const UNMATCHED: Duration = Duration::from_millis(200);

/// How long to wait before a topic without a broker is looked for again, and a broker that could not be asked is asked.
const AGAIN: Duration = Duration::from_millis(500);

/// Messages on their way to the caller of a receive. Should he give up, they are given back.
struct OnTheWay {
    core: Arc<Core>,
    messages: Vec<Received>,
}

impl OnTheWay {
    fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::clone(core),
            messages: Vec::new(),
        }
    }

    /// The caller has them.
    fn arrive(mut self) -> Vec<Received> {
        let messages = std::mem::take(&mut self.messages);
        Counters::add(&self.core.counters.received, messages.len());
        messages
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let receipts = self.messages.drain(..).map(|message| message.receipt).collect();
        let core = Arc::clone(&self.core);
        // Not of the consumer's own tasks: it may be what ends.
        let release = move |_| async move { core.release(receipts).await };
        self.core.remote.cluster().tasks().spawn("release", release);
    }
}

impl Core {
    pub(super) async fn receive(
        self: &Arc<Self>,
        max_messages: usize,
        invisible: Duration,
    ) -> Result<Vec<Received>> {
        let receive = self.look_and_wait(max_messages, invisible);
        match self.tasks.token().run_until_cancelled(receive).await {
            Some(received) => received,
            None => self.check_open().map(|()| Vec::new()),
        }
    }

    async fn look_and_wait(
        self: &Arc<Self>,
        max_messages: usize,
        invisible: Duration,
    ) -> Result<Vec<Received>> {
        let deadline = Instant::now() + self.options.await_duration;
        let mut unmatched = 0u32;
        loop {
            let sources = self.sources().await?;
            let received = self.look(&sources, max_messages, invisible).await?;
            if !received.is_empty() {
                return Ok(received);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(received);
            }
            if sources.is_empty() {
                sleep(AGAIN.min(left)).await;
                self.find_topics().await;
            } else if self.wait(&sources, HOLD.min(left)).await {
                // Twice in a row: somebody else has it, or the filter does not want it.
                unmatched = unmatched.saturating_add(1);
                let millis = 1u64.checked_shl(unmatched).map_or(u64::MAX, |millis| millis - 2);
                sleep(Duration::from_millis(millis).min(UNMATCHED).min(left)).await;
            } else {
                unmatched = 0;
            }
        }
    }

    /// All brokers of all topics, in turn another one first.
    async fn sources(&self) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut failed = None;
        for (topic, filter) in &self.subscriptions {
            let queues = match self.remote.queues(topic).await {
                Ok(queues) => queues,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let brokers: BTreeSet<Arc<str>> = queues.into_iter().map(|queue| queue.broker_name).collect();
            sources.extend(brokers.into_iter().map(|broker| Source {
                queue: MessageQueue::new(Arc::clone(topic), broker, -1),
                filter: filter.clone(),
                begin: match self.options.consume_from {
                    ConsumeFrom::First => Begin::Oldest,
                    _ => Begin::Newest,
                },
                ordered: self.options.orderly,
            }));
        }
        match (sources.len(), failed) {
            (0, Some(error)) => Err(error),
            (0, None) => Ok(sources),
            (count, _) => {
                sources.rotate_left(self.next_turn() % count);
                Ok(sources)
            }
        }
    }

    /// Pops what there is.
    async fn look(
        self: &Arc<Self>,
        sources: &[Source],
        max_messages: usize,
        invisible: Duration,
    ) -> Result<Vec<Received>> {
        let mut on_the_way = OnTheWay::new(self);
        let mut failed = None;
        let mut asked = 0;
        for source in sources {
            loop {
                let wanted = max_messages
                    .saturating_sub(on_the_way.messages.len())
                    .min(MAX_BATCH);
                if wanted == 0 {
                    return Ok(on_the_way.arrive());
                }
                match self.pop_in_background(source, wanted, invisible).await {
                    Ok(mut more) => {
                        asked += 1;
                        let count = more.messages.len();
                        on_the_way.messages.append(&mut more.messages);
                        if count < wanted {
                            break;
                        }
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        match failed {
            Some(error) if asked == 0 => Err(error),
            Some(error) => {
                warn!(group = self.group(), %error, "a broker could not be asked for messages, others were");
                Ok(on_the_way.arrive())
            }
            None => Ok(on_the_way.arrive()),
        }
    }

    /// Pops once, to the end even if nobody waits for it any more.
    async fn pop_in_background(
        self: &Arc<Self>,
        source: &Source,
        wanted: usize,
        invisible: Duration,
    ) -> Result<OnTheWay> {
        let (give, take) = oneshot::channel();
        let (core, source) = (Arc::clone(self), source.clone());
        self.tasks.spawn("pop", move |_| async move {
            // What nobody takes is given back as it is dropped.
            let _ = give.send(core.pop(&source, wanted, invisible).await);
        });
        match take.await {
            Ok(popped) => popped,
            Err(_) => Err(Error::closed(format_args!(
                "simple consumer of group {}",
                self.group()
            ))),
        }
    }

    async fn pop(self: &Arc<Self>, source: &Source, wanted: usize, invisible: Duration) -> Result<OnTheWay> {
        let attempt = source.ordered.then(|| self.remote.cluster().unique_ids().next());
        let mut answer = self.remote.pop(source, wanted, invisible, attempt.clone()).await;
        if attempt.is_some() && answer.as_ref().is_err_and(Error::is_retryable) {
            // The broker gives the same messages to the same attempt; otherwise their queue would be blocked.
            answer = self.remote.pop(source, wanted, invisible, attempt).await;
        }
        let broker = &source.queue.broker_name;
        let result = answer.map_err(|error| {
            if is_unknown_request(&error) {
                self.remote.cannot_pop(broker, &error.to_string())
            } else {
                error
            }
        })?;
        let mut on_the_way = OnTheWay::new(self);
        if result.status != PopStatus::Found {
            return Ok(on_the_way);
        }
        let wire_topic = self.remote.wire_topic(&source.queue);
        let bytes = result.messages.len();
        let popped = match popped::read(result, &source.queue, &wire_topic, source.ordered) {
            Ok(popped) => popped,
            Err(error) => {
                error!(group = self.group(), queue = %source.queue, bytes, %error, "the answer to a pop cannot be read, its messages come again");
                Counters::add(&self.counters.unreadable, 1);
                return Ok(on_the_way);
            }
        };
        if let Some(damaged) = popped.damaged {
            error!(
                group = self.group(), queue = %source.queue, error = %damaged.error, place = ?damaged.place,
                "a popped message cannot be read, it comes again"
            );
            Counters::add(&self.counters.unreadable, 1);
        }
        let mut unwanted = Vec::new();
        for (record, handle) in popped.messages {
            let receipt = Receipt {
                topic: Arc::clone(&source.queue.topic),
                handle,
            };
            // A broker compares only hashes of tags.
            if !source.filter.matches(record.properties.get(property::TAGS)) {
                unwanted.push(receipt);
                continue;
            }
            let queue = MessageQueue {
                queue_id: record.queue_id,
                ..source.queue.clone()
            };
            let message = MessageView::in_namespace(record, queue, self.remote.cluster().namespace());
            on_the_way.messages.push(Received { message, receipt });
        }
        for receipt in unwanted {
            if let Err(error) = self.remote.ack(&receipt).await {
                debug!(group = self.group(), %error, "a message that is not wanted comes again");
            }
        }
        Ok(on_the_way)
    }

    /// Waits until one of the brokers has something; whether one has.
    ///
    /// # Cancellation
    /// Safe: nothing is popped.
    async fn wait(&self, sources: &[Source], hold: Duration) -> bool {
        let questions = sources.iter().map(|source| async move {
            match self.remote.wait_for_messages(source, hold, None).await {
                Ok(answer) => {
                    if answer.polling_full == Some(true) && !answer.has_msg {
                        sleep(AGAIN.min(hold)).await;
                    }
                    answer.has_msg
                }
                Err(error) => {
                    debug!(group = self.group(), queue = %source.queue, %error, "could not wait at a broker");
                    sleep(AGAIN.min(hold)).await;
                    false
                }
            }
        });
        first_true(questions).await
    }

    /// Gives messages back that nobody has seen.
    async fn release(&self, receipts: Vec<Receipt>) {
        Counters::add(&self.counters.released, receipts.len());
        for some in receipts.chunks(MAX_BATCH) {
            let released = some
                .iter()
                .map(|receipt| self.remote.change_invisible(receipt, Duration::ZERO));
            for error in join_all(released).await.into_iter().filter_map(Result::err) {
                debug!(group = self.group(), %error, "a message could not be given back, it comes again when its time is over");
            }
        }
    }
}

/// Whether one of these says yes; waits for all to know that none does.
async fn first_true<F: Future<Output = bool>>(futures: impl IntoIterator<Item = F>) -> bool {
    let mut waiting: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        let mut found = false;
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(yes) => {
                found |= yes;
                false
            }
            Poll::Pending => true,
        });
        if found || waiting.is_empty() {
            Poll::Ready(found)
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    type Boxed = Pin<Box<dyn Future<Output = bool> + Send>>;

    #[tokio::test]
    async fn one_yes_is_enough_and_all_have_to_say_no() {
        let some: [Boxed; 3] = [Box::pin(ready(false)), Box::pin(pending()), Box::pin(ready(true))];
        assert!(first_true(some).await);
        let none: [Boxed; 2] = [Box::pin(ready(false)), Box::pin(ready(false))];
        assert!(!first_true(none).await);
        let nobody: [Boxed; 0] = [];
        assert!(!first_true(nobody).await);
    }
}
