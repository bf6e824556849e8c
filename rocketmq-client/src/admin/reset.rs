//! Moving a group to other offsets.
//!
//! Brokers of 5.x keep the new offset themselves and give it to whoever pulls next. Brokers of 4.9 tell the members,
//! which then begin anew there; where there is no member, the committed offsets are set instead.
//! Protocol source: `AdminBrokerProcessor#resetOffset`, `Broker2Client#resetOffset`,
//! `DefaultMQAdminExtImpl#resetOffsetNew`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Admin;
use super::fan_out::Merged;
use super::offsets::{millis, needs_offline_reset};
use super::reach::Place;
use crate::error::Result;
use crate::protocol::Json;
use crate::protocol::bodies::{ConsumeStats, MessageQueue, QueueData, permission};
use crate::protocol::requests::{GetConsumeStats, ResetOffset};

/// Where a group begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// At the oldest message.
    First,
    /// Behind the newest message.
    Last,
    /// At the first message that was stored at this time or later.
    Time(SystemTime),
}

impl ResetTo {
    /// Milliseconds since 1970, or -1 for the end.
    fn timestamp(self) -> i64 {
        match self {
            Self::First => 0,
            Self::Last => -1,
            Self::Time(time) => millis(time),
        }
    }
}

/// New offsets by queue.
type Offsets = BTreeMap<MessageQueue, i64>;

/// Moving a group to other offsets.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// use rocketmq_client::Message;
/// use rocketmq_client::admin::{ResetTo, SubscriptionGroupConfig};
///
/// let admin = client.admin();
/// admin.create_group(&SubscriptionGroupConfig::new("billing")).await?;
/// let producer = client.producer("orders-svc").start().await?;
/// let receipt = producer.send(Message::new("orders", "1")).await?;
///
/// let moved = admin.reset_offsets("billing", "orders", ResetTo::Last).await?.complete()?;
/// assert_eq!(moved[&receipt.queue], 1);
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// Lets a group begin anew in all queues of a topic, further back or further on; gives the new offsets. Works with
    /// and without members. Java: `resetOffsetNew`, `resetOffsetByTimestamp` with `force`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`](crate::ErrorKind::TopicNotFound) if no broker has the topic; [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) with
    /// `SUBSCRIPTION_GROUP_NOT_EXIST` by brokers of 5.x for a group that they do not know. The failure of the first
    /// broker if none did it.
    pub async fn reset_offsets(&self, group: &str, topic: &str, to: ResetTo) -> Result<Merged<Offsets>> {
        let route = self.fresh_route(topic).await?;
        let (places, queues) = (self.places_of_route(&route), &route.queue_datas);
        let request = &ResetOffset {
            topic: topic.to_owned(),
            group: group.to_owned(),
            timestamp: to.timestamp(),
            force: true,
            queue_id: None,
            offset: None,
        };
        let all = self.each(places, |place| async move {
            match self.call(&place, request).await {
                Ok(Json(table)) => Ok(table.offset_table.0),
                Err(error) if needs_offline_reset(&error) => {
                    let queues = queues_of(topic, &place, queues);
                    self.reset_committed(&place, group, queues, to).await
                }
                Err(error) => Err(error),
            }
        });
        let all = all
            .await
            .context(format_args!("reset of group {group} in topic {topic}"));
        all.merge(|offsets: &mut Offsets, found| offsets.extend(found))
    }

    /// Lets a group begin anew further back, but in no queue further on; gives the offsets of the queues that were
    /// moved. Java: `resetOffsetByTimestamp` without `force`, which brokers of 5.x pay no attention to: this asks for
    /// each queue by itself.
    ///
    /// # Errors
    /// As [`reset_offsets`](Self::reset_offsets).
    pub async fn rewind_offsets(&self, group: &str, topic: &str, to: ResetTo) -> Result<Merged<Offsets>> {
        let route = self.fresh_route(topic).await?;
        let (places, queues) = (self.places_of_route(&route), &route.queue_datas);
        let all = self.each(places, |place| async move {
            let stats = self.stats_at(&place, group, topic).await?;
            let mut moved = Offsets::new();
            for queue in queues_of(topic, &place, queues) {
                let target = self.target_of(&place, &queue, to).await?;
                let consumed = stats.queue(&queue).map_or(0, |at| at.consumer_offset);
                if target < consumed {
                    self.reset_at(&place, group, &queue, target).await?;
                    moved.insert(queue, target);
                }
            }
            Ok(moved)
        });
        let all = all
            .await
            .context(format_args!("rewind of group {group} in topic {topic}"));
        all.merge(|offsets: &mut Offsets, found| offsets.extend(found))
    }

    /// Lets a group go on at an offset of one queue. Java: `resetOffsetByQueueId`.
    ///
    /// Brokers of 4.9 can only set the committed offset, which members that consume the queue commit over: stop them
    /// first.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if no broker of that name is known; [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) for an offset outside the queue
    /// or a group that a broker of 5.x does not know.
    pub async fn reset_queue_offset(&self, group: &str, queue: &MessageQueue, offset: i64) -> Result<()> {
        let place = self.place_of(queue).await?;
        let reset = self.reset_at(&place, group, queue, offset).await;
        reset.map_err(|error| error.context(format_args!("reset of group {group} in queue {queue}")))
    }

    async fn reset_at(&self, place: &Place, group: &str, queue: &MessageQueue, offset: i64) -> Result<()> {
        // Of 4.9 the request would reset all queues to the beginning: it knows neither field.
        if !self.is_v5(place).await? {
            return self.commit_at(place, group, queue, offset).await;
        }
        let request = ResetOffset {
            topic: queue.topic.to_string(),
            group: group.to_owned(),
            timestamp: 0,
            force: true,
            queue_id: Some(queue.queue_id),
            offset: Some(offset),
        };
        self.call(place, &request).await.map(drop)
    }

    /// What a reset does where the broker has nobody to tell.
    async fn reset_committed(
        &self,
        place: &Place,
        group: &str,
        queues: Vec<MessageQueue>,
        to: ResetTo,
    ) -> Result<Offsets> {
        let mut moved = Offsets::new();
        for queue in queues {
            let target = self.target_of(place, &queue, to).await?;
            self.commit_at(place, group, &queue, target).await?;
            moved.insert(queue, target);
        }
        Ok(moved)
    }

    async fn target_of(&self, place: &Place, queue: &MessageQueue, to: ResetTo) -> Result<i64> {
        match to {
            ResetTo::Last => self.max_at(place, queue).await,
            to => self.search_at(place, queue, to.timestamp(), None).await,
        }
    }

    async fn stats_at(&self, place: &Place, group: &str, topic: &str) -> Result<ConsumeStats> {
        let request = GetConsumeStats {
            consumer_group: group.to_owned(),
            topic: Some(topic.to_owned()),
        };
        Ok(self.call(place, &request).await?.0)
    }
}

/// The queues of a broker that can be read.
fn queues_of(topic: &str, place: &Place, queues: &[QueueData]) -> Vec<MessageQueue> {
    // A slave answers for its master.
    let broker = place.name.split('#').next().unwrap_or_default();
    let readable = queues
        .iter()
        .filter(|data| data.broker_name == broker && data.perm & permission::READ != 0);
    readable
        .flat_map(|data| (0..data.read_queue_nums).map(|id| MessageQueue::new(topic, broker, id)))
        .collect()
}
