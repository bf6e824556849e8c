//! The dispatcher of message trace: gathers records into messages and sends them, one after the other where a broker
//! keeps up, a few at a time where it does not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Client, ClientBuilder, Cluster, TopicTemplate};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::names::AUTO_CREATE_TOPIC;
use crate::protocol::requests::SendMessageV2;
use crate::protocol::trace::TraceRecord;
use crate::protocol::{PropertiesBuf, property};
use crate::trace::{Trace, TraceStats, Tracer, now_millis};

/// The group that records are sent as. Java: `TraceConstants.GROUP_NAME_PREFIX`.
const GROUP: &str = "_INNER_TRACE_PRODUCER";

/// How large the body of one message gets. Java: 128 000.
const MAX_BODY_BYTES: usize = 118_000;

/// How many bytes the keys of one message get: brokers store 32 767 of properties.
const MAX_KEYS_BYTES: usize = 16 * 1024;

/// How many messages may be on their way.
const IN_FLIGHT: u32 = 4;

/// How long one message may take. Java: 5 s.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How many queues are tried for one message.
const ATTEMPTS: usize = 3;

/// Records that become one message.
#[derive(Debug, Default)]
struct Batch {
    body: String,
    /// What the message is found by.
    keys: Vec<String>,
    keys_bytes: usize,
    records: usize,
}

impl Batch {
    fn add(&mut self, record: &TraceRecord) {
        record.encode(&mut self.body);
        self.records += 1;
        let keys = record.keys().unwrap_or_default().split(' ');
        for key in std::iter::once(record.message_id()).chain(keys) {
            // A key for which there is no room is not found; the record is, by the id of its message.
            if !key.is_empty() && self.keys_bytes + key.len() < MAX_KEYS_BYTES {
                self.keys_bytes += key.len() + 1;
                self.keys.push(key.to_owned());
            }
        }
    }

    fn is_full(&self, size: usize) -> bool {
        self.records >= size || self.body.len() >= MAX_BODY_BYTES || self.keys_bytes >= MAX_KEYS_BYTES / 2
    }

    fn keys(mut self) -> (String, String) {
        let mut seen = HashSet::new();
        self.keys.retain(|key| seen.insert(key.clone()));
        (self.body, self.keys.join(" "))
    }
}

impl Cluster {
    /// Where to hand in what happens to messages; `None` unless the user asked for message trace.
    pub(crate) fn trace(&self) -> Option<&Tracer> {
        self.trace.as_deref()
    }

    /// Gathers records and sends them until the client ends.
    pub(super) async fn dispatch_trace(self: Arc<Self>, tracer: Arc<Tracer>, stop: CancellationToken) {
        let Some(mut waiting) = tracer.take_waiting() else {
            return;
        };
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT as usize));
        let dispatch = async {
            while let Some(batch) = next_batch(&mut waiting, &tracer).await {
                let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
                    return;
                };
                let (cluster, tracer) = (Arc::clone(&self), Arc::clone(&tracer));
                self.tasks.spawn("trace-send", |stop| async move {
                    stop.run_until_cancelled(cluster.send_trace(&tracer, batch)).await;
                    drop(permit);
                });
            }
            // Those on their way are waited for too; nobody closes the semaphore.
            let _ = in_flight.acquire_many(IN_FLIGHT).await;
        };
        stop.run_until_cancelled(dispatch).await;
        tracer.note_closed();
    }

    async fn send_trace(self: &Arc<Self>, tracer: &Tracer, batch: Batch) {
        let records = batch.records;
        match self.try_send_trace(tracer, batch).await {
            Ok(()) => tracer.note_sent(records),
            Err(error) => {
                tracer.note_failed(records);
                let topic = tracer.topic();
                warn!(topic, records, %error, "trace records are lost; is traceTopicEnable set on the brokers?");
            }
        }
    }

    async fn try_send_trace(self: &Arc<Self>, tracer: &Tracer, batch: Batch) -> Result<()> {
        let deadline = Instant::now() + SEND_TIMEOUT;
        let topic = tracer.topic();
        let too_late = || {
            Error::new(
                ErrorKind::Timeout,
                format!("no route of {topic} in {SEND_TIMEOUT:?}"),
            )
        };
        let route = timeout_at(deadline, self.publish_route(topic, &TopicTemplate::of_queues(1)))
            .await
            .unwrap_or_else(|_| Err(too_late()))?;
        let (body, keys) = batch.keys();
        let now = now_millis();
        let mut properties = PropertiesBuf::new();
        for (name, value) in [
            (property::KEYS, keys.as_str()),
            (property::UNIQUE_KEY, &self.unique_ids.at(now)),
            (property::WAIT, "true"),
        ] {
            let set = properties.set(name, value);
            set.map_err(|error| Error::from_encode("trace message", error))?;
        }
        let mut request = SendMessageV2 {
            producer_group: GROUP.to_owned(),
            topic: self.wire_name(topic).into_owned(),
            default_topic: AUTO_CREATE_TOPIC.to_owned(),
            default_topic_queue_nums: 1,
            queue_id: 0,
            sys_flag: 0,
            born_timestamp: now,
            flag: 0,
            properties: Some(properties.into_string()),
            reconsume_times: Some(0),
            unit_mode: Some(self.unit_mode()),
            max_reconsume_times: None,
            batch: Some(false),
            broker_name: None,
            body: Bytes::from(body),
        };
        let mut last = Error::new(ErrorKind::TopicNotFound, format!("{topic} has no queue"));
        let mut failed_broker = None;
        let queues = route.publish_queues();
        let first = route.next_turn();
        let mut tried = 0;
        for index in (first..queues.len()).chain(0..first) {
            let (Some(queue), Some(address)) = (queues.get(index), route.publish_address(index)) else {
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if tried == ATTEMPTS || left.is_zero() {
                break;
            }
            // The next queue of a broker that has just failed is no better.
            if failed_broker == Some(&queue.broker_name) {
                continue;
            }
            tried += 1;
            request.queue_id = queue.queue_id;
            request.broker_name = Some(queue.broker_name.to_string());
            match self.call_addr(address, &request, left / 2).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
            failed_broker = Some(&queue.broker_name);
        }
        Err(last)
    }
}

/// The next records, as many as belong together; `None` when there are no more.
async fn next_batch(waiting: &mut mpsc::Receiver<TraceRecord>, tracer: &Tracer) -> Option<Batch> {
    let options = tracer.options();
    let closing = tracer.closing();
    let mut batch = Batch::default();
    let mut deadline = None;
    while !batch.is_full(options.batch_size) {
        let next = match waiting.try_recv() {
            Ok(record) => Some(record),
            Err(_) if closing.is_cancelled() => break,
            Err(_) => {
                let received = closing.run_until_cancelled(waiting.recv());
                match deadline {
                    None => received.await.flatten(),
                    Some(deadline) => match timeout_at(deadline, received).await {
                        Ok(received) => received.flatten(),
                        Err(_) => break,
                    },
                }
            }
        };
        if let Some(record) = next {
            deadline.get_or_insert_with(|| Instant::now() + options.max_wait);
            batch.add(&record);
        }
    }
    (batch.records > 0).then_some(batch)
}

impl Client {
    /// What became of the records of message trace so far; `None` without [`ClientBuilder::trace`].
    #[must_use]
    pub fn trace_stats(&self) -> Option<TraceStats> {
        self.cluster().trace().map(Tracer::stats)
    }
}

impl ClientBuilder {
    /// Writes message trace: what happens to each message that this client sends or consumes goes to a trace topic,
    /// where `mqadmin queryMsgTraceById` and the dashboard read it. Default: nothing is written. Java: `enableMsgTrace`.
    ///
    /// Sends and handlers do not wait for it. A broker with `traceOn=false` in its configuration is left out.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use rocketmq_client::{Client, Message, Trace};
    ///
    /// let client = Client::builder(broker.name_server()).trace(Trace::new()).connect().await?;
    /// let producer = client.producer("orders-svc").start().await?;
    /// producer.send(Message::new("orders", "paid").key("order-42")).await?;
    /// client.shutdown().await; // sends what is left
    /// assert_eq!(client.trace_stats().map(|stats| stats.sent), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }
}

#[cfg(test)]
mod tests;
