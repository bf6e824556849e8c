//! What members of a group that pops ask of brokers, each in one place.
//!
//! Times of birth are sent as 0, for which a broker takes its own clock: one that is half a second ahead of this
//! machine's would refuse to serve at all.
//!
//! Protocol source: `MQClientAPIImpl`, `PullAPIWrapper#popAsync`, `PopMessageProcessor`, `NotificationProcessor`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::filter::Filter;
use crate::consumer::remote::Remote;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{BatchAck, BatchAcks, MASTER_ID, MessageQueue, OffsetBits};
use crate::protocol::requests::{
    AckMessage, BatchAckMessage, ChangeInvisibleTime, Notification, Notified, PopMessage, PopResult,
    init_mode,
};
use crate::protocol::{BrokerVersion, JsonBody, ReceiptHandle, ResponseCode};

/// The most messages that one pop may ask for.
pub(in crate::consumer) const MAX_BATCH: usize = 32;

/// How long a request may take that a broker does not hold.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a group without an offset starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Begin {
    Oldest,
    Newest,
}

/// What a group wants of a queue, or of all queues of a broker.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Source {
    /// The number -1 means all of the broker.
    pub(in crate::consumer) queue: MessageQueue,
    pub(in crate::consumer) filter: Filter,
    pub(in crate::consumer) begin: Begin,
    /// Whether a queue is popped only when all that was popped before is done with.
    pub(in crate::consumer) ordered: bool,
}

/// A message that was popped, as its next call names it.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Receipt {
    /// The topic that was asked for, as the user knows it.
    pub(in crate::consumer) topic: Arc<str>,
    pub(in crate::consumer) handle: ReceiptHandle,
}

impl Remote {
    /// Pops without waiting. `attempt` says that an ordered pop is one whose answer was lost.
    ///
    /// # Cancellation
    /// What the broker popped for it is invisible until its time is over.
    pub(in crate::consumer) async fn pop(
        &self,
        source: &Source,
        max_messages: usize,
        invisible: Duration,
        attempt: Option<String>,
    ) -> Result<PopResult> {
        let subscription = source.filter.subscription(&source.queue.topic, 0);
        let request = PopMessage {
            consumer_group: self.wire_group().to_owned(),
            topic: self.wire_topic(&source.queue),
            queue_id: source.queue.queue_id,
            max_msg_nums: i32::try_from(max_messages.min(MAX_BATCH)).unwrap_or(i32::MAX),
            invisible_time: millis(invisible),
            poll_time: 0,
            born_time: 0,
            init_mode: match source.begin {
                Begin::Oldest => init_mode::MIN,
                Begin::Newest => init_mode::MAX,
            },
            exp_type: Some(subscription.expression_type),
            exp: Some(subscription.sub_string),
            order: Some(source.ordered),
            attempt_id: attempt,
            broker_name: Some(source.queue.broker_name.to_string()),
        };
        self.ask(&source.queue.broker_name, MASTER_ID, &request).await
    }

    /// Waits at the broker until there is something to pop; it answers after `hold` at the latest. It may say so for a
    /// message that does not match the filter.
    ///
    /// # Cancellation
    /// Safe: nothing is popped.
    pub(in crate::consumer) async fn wait_for_messages(
        &self,
        source: &Source,
        hold: Duration,
        attempt: Option<String>,
    ) -> Result<Notified> {
        let request = Notification {
            consumer_group: self.wire_group().to_owned(),
            topic: self.wire_topic(&source.queue),
            queue_id: source.queue.queue_id,
            poll_time: millis(hold),
            born_time: 0,
            order: Some(source.ordered),
            attempt_id: attempt,
            broker_name: Some(source.queue.broker_name.to_string()),
        };
        let address = self.address(&source.queue.broker_name, MASTER_ID)?;
        let limit = hold.saturating_add(TIMEOUT);
        self.cluster().call_addr(&address, &request, limit).await
    }

    /// Tells the broker that a message is done with.
    pub(in crate::consumer) async fn ack(&self, receipt: &Receipt) -> Result<()> {
        let handle = &receipt.handle;
        let request = AckMessage {
            consumer_group: self.wire_group().to_owned(),
            topic: self.stored_topic(receipt),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.offset,
            broker_name: Some(handle.broker_name.to_string()),
        };
        self.ask(&handle.broker_name, MASTER_ID, &request).await?;
        Ok(())
    }

    /// Tells a broker that messages are done with, all of them with one request. The broker passes over those that it
    /// does not know.
    pub(in crate::consumer) async fn ack_all(&self, broker: &str, receipts: &[&Receipt]) -> Result<()> {
        let (acks, single) = batch(receipts, self.wire_group(), |receipt| {
            self.cluster().wire_name(&receipt.topic).into_owned()
        });
        if !acks.is_empty() {
            let body = BatchAcks {
                acks,
                broker_name: broker.to_owned(),
            };
            let body = body
                .to_body()
                .map_err(|error| Error::from_encode("batch of acknowledgements", error))?;
            self.ask(broker, MASTER_ID, &BatchAckMessage { body }).await?;
        }
        for receipt in single {
            self.ack(receipt).await?;
        }
        Ok(())
    }

    /// Changes when somebody else gets a message. Gives the handle that is valid from now on.
    pub(in crate::consumer) async fn change_invisible(
        &self,
        receipt: &Receipt,
        invisible: Duration,
    ) -> Result<ReceiptHandle> {
        let handle = &receipt.handle;
        let request = ChangeInvisibleTime {
            consumer_group: self.wire_group().to_owned(),
            topic: self.stored_topic(receipt),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.offset,
            invisible_time: millis(invisible),
            broker_name: Some(handle.broker_name.to_string()),
        };
        let changed = self.ask(&handle.broker_name, MASTER_ID, &request).await?;
        if changed.pop_time == 0 {
            // An ordered message that is done with: there is nothing to change.
            return Ok(handle.clone());
        }
        Ok(handle.changed(changed.pop_time, changed.invisible_time, changed.revive_qid))
    }

    /// Fails if one of these brokers is known to be too old to pop.
    pub(in crate::consumer) fn check_can_pop(&self, queues: &[MessageQueue]) -> Result<()> {
        for queue in queues {
            let Ok(address) = self.address(&queue.broker_name, MASTER_ID) else {
                continue;
            };
            if let Some(version) = self.cluster().known_broker_version(&address)
                && version < BrokerVersion::V5_0_0
            {
                return Err(self.cannot_pop(&queue.broker_name, &format!("it is of {version}")));
            }
        }
        Ok(())
    }

    /// The same error for a broker that said no.
    pub(in crate::consumer) fn cannot_pop(&self, broker: &str, why: &str) -> Error {
        let text = format!(
            "broker {broker} cannot hand out messages to group {} by POP: {why}; brokers can from 5.0 on: upgrade it, or \
             use a push consumer without pop()",
            self.group()
        );
        Error::new(ErrorKind::Unsupported, text).at(broker)
    }

    /// The topic that a message is stored in, as the broker names it.
    fn stored_topic(&self, receipt: &Receipt) -> String {
        let topic = self.cluster().wire_name(&receipt.topic);
        receipt.handle.topic.name(&topic, self.wire_group())
    }
}

/// Whether a broker said that it does not know a request.
pub(in crate::consumer) fn is_unknown_request(error: &Error) -> bool {
    let code = error.response().map(|(code, _)| code);
    code == Some(ResponseCode::REQUEST_CODE_NOT_SUPPORTED)
}

pub(in crate::consumer) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Acknowledgements that share all but their offsets, as one each; and those that cannot be put so.
fn batch<'a>(
    receipts: &[&'a Receipt],
    group: &str,
    wire_topic: impl Fn(&Receipt) -> String,
) -> (Vec<BatchAck>, Vec<&'a Receipt>) {
    let mut single = Vec::new();
    let mut batches: BTreeMap<_, OffsetBits> = BTreeMap::new();
    for &receipt in receipts {
        let handle = &receipt.handle;
        let bit = handle.offset.checked_sub(handle.start_offset);
        let Some(bit) = bit.and_then(|bit| u16::try_from(bit).ok()) else {
            single.push(receipt);
            continue;
        };
        let key = (
            &receipt.topic,
            handle.topic,
            handle.queue_id,
            handle.start_offset,
            handle.pop_time,
            handle.invisible_time,
            handle.revive_queue_id,
        );
        batches.entry(key).or_default().insert(bit);
    }
    // Any of them has the topic: only its name in the broker's words is missing in the keys.
    let topics: BTreeMap<&Arc<str>, String> = receipts
        .iter()
        .map(|receipt| (&receipt.topic, wire_topic(receipt)))
        .collect();
    let acks = batches.into_iter().map(|(key, offsets)| {
        let (topic, kind, queue_id, start_offset, pop_time, invisible_time, revive_queue_id) = key;
        BatchAck {
            offsets,
            consumer_group: group.to_owned(),
            invisible_time,
            pop_time,
            queue_id,
            retry: kind.token().to_owned(),
            revive_queue_id,
            start_offset,
            topic: topics.get(topic).cloned().unwrap_or_default(),
        }
    });
    (acks.collect(), single)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(handle: &str) -> Receipt {
        Receipt {
            topic: "orders".into(),
            handle: handle.parse().unwrap(),
        }
    }

    #[test]
    fn acks_of_one_pop_and_queue_are_one_batch() {
        let receipts = [
            receipt("100 5 60000 3 0 b 2 100"),
            receipt("100 5 60000 3 0 b 2 109"),
            receipt("100 5 60000 3 0 b 3 100"),
            receipt("7 5 60000 3 1 b 0 7"),
            receipt("100 6 60000 3 0 b 2 101"),
        ];
        let all: Vec<&Receipt> = receipts.iter().collect();
        let (acks, single) = batch(&all, "g", |receipt| format!("ns%{}", receipt.topic));
        assert!(single.is_empty());
        let seen: Vec<_> = acks
            .iter()
            .map(|ack| {
                let offsets: Vec<_> = ack.offsets.iter().collect();
                (&*ack.retry, ack.queue_id, ack.pop_time, ack.start_offset, offsets)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("0", 2, 5, 100, vec![0, 9]),
                ("0", 2, 6, 100, vec![1]),
                ("0", 3, 5, 100, vec![0]),
                ("1", 0, 5, 7, vec![0]),
            ]
        );
        assert!(
            acks.iter()
                .all(|ack| ack.topic == "ns%orders" && ack.consumer_group == "g")
        );
    }

    #[test]
    fn an_offset_far_from_its_start_is_acknowledged_by_itself() {
        let receipts = [
            receipt("100 5 60000 3 0 b 2 99"),
            receipt("0 5 60000 3 0 b 2 65536"),
            receipt("-9223372036854775808 5 60000 3 0 b 2 9223372036854775807"),
        ];
        let all: Vec<&Receipt> = receipts.iter().collect();
        let (acks, single) = batch(&all, "g", |receipt| receipt.topic.to_string());
        assert!(acks.is_empty());
        assert_eq!(single.len(), 3);
    }
}
