//! How far queues and groups are.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Admin;
use super::fan_out::{Merged, PerBroker};
use super::reach::{Place, is_code};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{BrokerConsumeStats, ConsumeStats, MessageQueue, OffsetWrapper, QueueTimeSpan};
use crate::protocol::requests::{
    AllConsumeStats, CloneGroupOffset, ConsumeTimeSpan, EarliestStoreTime, GetConsumeStats, MaxOffset,
    MinOffset, QueryConsumerOffset, SearchOffset, UpdateConsumerOffset,
};
use crate::protocol::{Json, ResponseCode};

impl OffsetWrapper {
    /// How many messages the group has not consumed.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.broker_offset.saturating_sub(self.consumer_offset).max(0)
    }

    /// How many messages members hold that they have not committed. 5.x; 0 from brokers that do not tell it.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.pull_offset.saturating_sub(self.consumer_offset).max(0)
    }
}

impl ConsumeStats {
    /// How many messages the group has not consumed, in all queues.
    #[must_use]
    pub fn lag(&self) -> i64 {
        let lags = self.offset_table.0.values().map(OffsetWrapper::lag);
        lags.fold(0, i64::saturating_add)
    }

    /// How many messages members hold that they have not committed, in all queues.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        let held = self.offset_table.0.values().map(OffsetWrapper::in_flight);
        held.fold(0, i64::saturating_add)
    }

    /// The offsets of one queue.
    #[must_use]
    pub fn queue(&self, queue: &MessageQueue) -> Option<&OffsetWrapper> {
        self.offset_table.0.get(queue)
    }
}

/// How far queues and groups are.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// use rocketmq_client::Message;
/// use rocketmq_client::admin::SubscriptionGroupConfig;
///
/// let admin = client.admin();
/// admin.create_group(&SubscriptionGroupConfig::new("billing")).await?;
/// let producer = client.producer("orders-svc").start().await?;
/// let receipt = producer.send(Message::new("orders", "1")).await?;
///
/// admin.set_offset("billing", &receipt.queue, 0).await?;
/// assert_eq!(admin.consume_stats_of("billing", "orders").await?.lag(), 1);
/// admin.set_offset("billing", &receipt.queue, 1).await?;
/// assert_eq!(admin.consume_stats_of("billing", "orders").await?.lag(), 0);
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// How far a group is in everything it consumes. Java: `examineConsumeStats`.
    ///
    /// # Errors
    /// The failure of the first broker if none answers.
    pub async fn consume_stats(&self, group: &str) -> Result<Merged<ConsumeStats>> {
        self.stats_of(group, None).await
    }

    /// How far a group is in one topic. Java: `examineConsumeStats`.
    ///
    /// Brokers leave out a topic that no member of a group with members subscribes now.
    ///
    /// # Errors
    /// The failure of the first broker if none answers.
    pub async fn consume_stats_of(&self, group: &str, topic: &str) -> Result<Merged<ConsumeStats>> {
        self.stats_of(group, Some(topic)).await
    }

    async fn stats_of(&self, group: &str, topic: Option<&str>) -> Result<Merged<ConsumeStats>> {
        let places = match topic {
            // The topic may be on brokers that have no retry topic of the group yet.
            Some(topic) => self.places_of_topic(topic).await?,
            None => self.places_of_group(group, None).await?,
        };
        let request = GetConsumeStats {
            consumer_group: group.to_owned(),
            topic: topic.map(str::to_owned),
        };
        let all = self.ask(places, &request).await;
        let all = all.context(format_args!("progress of group {group}"));
        all.merge(|stats: &mut ConsumeStats, Json(found)| {
            stats.offset_table.0.extend(found.offset_table.0);
            stats.consume_tps += found.consume_tps;
        })
    }

    /// How far all groups are, on each master of the scope. Java: `fetchConsumeStatsInBroker`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn all_consume_stats(&self) -> Result<PerBroker<BrokerConsumeStats>> {
        let places = self.masters().await?;
        let all = self.ask(places, &AllConsumeStats { order: false }).await;
        Ok(all.map(|Json(found)| found))
    }

    /// From when to when messages of each queue were stored, and how late a group is in it. Java:
    /// `queryConsumeTimeSpan`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic; the failure of the first broker if none answers.
    pub async fn consume_time_spans(&self, group: &str, topic: &str) -> Result<Merged<Vec<QueueTimeSpan>>> {
        let places = self.places_of_topic(topic).await?;
        let request = ConsumeTimeSpan {
            topic: topic.to_owned(),
            group: group.to_owned(),
        };
        let all = self.ask(places, &request).await;
        all.merge(|spans: &mut Vec<QueueTimeSpan>, Json(found)| {
            spans.extend(found.consume_time_span_set);
            spans.sort_by(|a, b| a.message_queue.cmp(&b.message_queue));
        })
    }

    /// The oldest offset of a queue. Java: `minOffset`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let place = self.place_of(queue).await?;
        let request = MinOffset {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
        };
        Ok(self.call(&place, &request).await?.offset)
    }

    /// One past the newest offset of a queue. Java: `maxOffset`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let place = self.place_of(queue).await?;
        self.max_at(&place, queue).await
    }

    pub(super) async fn max_at(&self, place: &Place, queue: &MessageQueue) -> Result<i64> {
        let request = MaxOffset {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
        };
        Ok(self.call(place, &request).await?.offset)
    }

    /// The first offset that was stored at a time or later; of a time after the newest message, one past it.
    ///
    /// Brokers of 4.9 answer with the message that is nearest in time, and with the newest one for a time after it.
    /// Java: `searchOffset`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known.
    pub async fn search_offset(&self, queue: &MessageQueue, time: SystemTime) -> Result<i64> {
        let place = self.place_of(queue).await?;
        self.search_at(&place, queue, millis(time), None).await
    }

    /// The last offset that was stored at a time or earlier. Brokers of 5.x; those of 4.9 answer as for
    /// [`search_offset`](Self::search_offset). Java: `searchOffset` with `BoundaryType.UPPER`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known.
    pub async fn search_last_offset(&self, queue: &MessageQueue, time: SystemTime) -> Result<i64> {
        let place = self.place_of(queue).await?;
        self.search_at(&place, queue, millis(time), Some("UPPER")).await
    }

    pub(super) async fn search_at(
        &self,
        place: &Place,
        queue: &MessageQueue,
        timestamp: i64,
        boundary: Option<&str>,
    ) -> Result<i64> {
        let request = SearchOffset {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            timestamp,
            boundary_type: boundary.map(str::to_owned),
        };
        Ok(self.call(place, &request).await?.offset)
    }

    /// When the oldest message of a queue was stored: milliseconds since 1970, none if the queue is empty. Java:
    /// `earliestMsgStoreTime`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known.
    pub async fn earliest_store_time(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        let place = self.place_of(queue).await?;
        let request = EarliestStoreTime {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
        };
        let found = self.call(&place, &request).await?.timestamp;
        Ok((found >= 0).then_some(found))
    }

    /// The offset that a group has committed of a queue; none if it has committed nothing.
    ///
    /// Brokers of 4.9 say 0 instead of none while all messages of the queue are still in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known.
    pub async fn committed_offset(&self, group: &str, queue: &MessageQueue) -> Result<Option<i64>> {
        let place = self.place_of(queue).await?;
        let request = QueryConsumerOffset {
            consumer_group: group.to_owned(),
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            set_zero_if_not_found: Some(false),
        };
        match self.call(&place, &request).await {
            Ok(found) => Ok(Some(found.offset)),
            Err(error) if is_code(&error, &[ResponseCode::QUERY_NOT_FOUND]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the offset that a group has committed of a queue. Java: `updateConsumeOffset`.
    ///
    /// This is for groups without members: one that consumes the queue commits its own offset over it. See
    /// [`reset_queue_offset`](Self::reset_queue_offset) for groups with members.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known; [`ErrorKind::Rejected`] with
    /// `SUBSCRIPTION_GROUP_NOT_EXIST` by brokers of 5.x for a group that they do not know.
    pub async fn set_offset(&self, group: &str, queue: &MessageQueue, offset: i64) -> Result<()> {
        let place = self.place_of(queue).await?;
        self.commit_at(&place, group, queue, offset).await
    }

    pub(super) async fn commit_at(
        &self,
        place: &Place,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
    ) -> Result<()> {
        let request = UpdateConsumerOffset {
            consumer_group: group.to_owned(),
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            commit_offset: offset,
        };
        self.call(place, &request).await.map(drop)
    }

    /// Gives one group the offsets of another, of one topic or of all that the other has consumed. Java:
    /// `cloneGroupOffset`, which does nothing without a topic.
    ///
    /// # Errors
    /// What a broker refuses, naming the brokers that failed and those that did it.
    pub async fn clone_group_offset(&self, from: &str, to: &str, topic: Option<&str>) -> Result<()> {
        let topics: BTreeSet<String> = match topic {
            Some(topic) => BTreeSet::from([topic.to_owned()]),
            None => {
                let stats = self.consume_stats(from).await?.complete()?;
                let queues = stats.offset_table.0.into_keys();
                queues.map(|queue| queue.topic.to_string()).collect()
            }
        };
        for topic in topics {
            let places = match self.places_of_topic(&topic).await {
                Ok(places) => places,
                // Deleted, while its offsets are still there.
                Err(error) if error.kind() == ErrorKind::TopicNotFound => continue,
                Err(error) => return Err(error),
            };
            let request = CloneGroupOffset {
                src_group: from.to_owned(),
                dest_group: to.to_owned(),
                topic: Some(topic.clone()),
                offline: true,
            };
            let all = self.tell(places, &request).await;
            all.context(format_args!(
                "clone the offsets of group {from} in topic {topic} for group {to}"
            ))
            .done()?;
        }
        Ok(())
    }

    pub(super) async fn place_of(&self, queue: &MessageQueue) -> Result<Place> {
        self.place_of_broker(&queue.broker_name).await
    }
}

/// Milliseconds since 1970; times before are 0.
pub(super) fn millis(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// Whether an error says that nobody of a group is there, or that the group has never been.
pub(super) fn needs_offline_reset(error: &Error) -> bool {
    let Some((code, remark)) = error.response() else {
        return false;
    };
    code == ResponseCode::CONSUMER_NOT_ONLINE
        // "THe consumer group <..> not exist": it has committed nothing in one of the queues.
        || (code == ResponseCode::SYSTEM_ERROR && remark.ends_with("not exist"))
}
