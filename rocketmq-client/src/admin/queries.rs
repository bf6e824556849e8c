//! Finding messages: by id, by key, by place, by time.
//!
//! Protocol source: `MQAdminImpl`, `QueryMessageProcessor`.

use std::ops::{Bound, RangeBounds};
use std::time::SystemTime;

use super::Admin;
use super::fan_out::Merged;
use super::offsets::millis;
use super::reach::{Place, is_code};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageView;
use crate::protocol::bodies::{ConsumeQueuePage, MessageQueue, SubscriptionData, permission};
use crate::protocol::requests::{
    MinOffset, PullMessage, PullStatus, QueryConsumeQueue, QueryMessage, ResumeCheckHalfMessage, ViewMessage,
    pull_flag,
};
use crate::protocol::{OffsetMessageId, Record, ResponseCode};

/// The group under which tools read. Every broker has it. Java: `MixAll.TOOLS_CONSUMER_GROUP`.
const TOOLS_CONSUMER: &str = "TOOLS_CONSUMER";
/// How many messages with one unique key a broker gives at the most. Java: `defaultQueryMaxNum`.
const MAX_UNIQUE: i32 = 32;
/// How many messages are pulled at a time.
const PULL_BATCH: i32 = 32;

/// From when to when a message was stored, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    begin: i64,
    end: i64,
}

impl Default for TimeRange {
    fn default() -> Self {
        Self {
            begin: 0,
            end: i64::MAX,
        }
    }
}

impl<R: RangeBounds<SystemTime>> From<R> for TimeRange {
    fn from(range: R) -> Self {
        Self {
            begin: match range.start_bound() {
                Bound::Included(time) => millis(*time),
                Bound::Excluded(time) => millis(*time).saturating_add(1),
                Bound::Unbounded => 0,
            },
            end: match range.end_bound() {
                Bound::Included(time) => millis(*time),
                Bound::Excluded(time) => millis(*time).saturating_sub(1),
                Bound::Unbounded => i64::MAX,
            },
        }
    }
}

/// What a query by key is narrowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyQuery {
    max: i32,
    times: TimeRange,
}

impl Default for KeyQuery {
    fn default() -> Self {
        Self {
            max: 64,
            times: TimeRange::default(),
        }
    }
}

impl KeyQuery {
    /// How many messages of each broker are looked at, the newest first. Default 64, which is the most that brokers
    /// give.
    #[must_use]
    pub fn max(self, messages: u8) -> Self {
        Self {
            max: i32::from(messages),
            ..self
        }
    }

    /// When the messages were stored. Default at any time.
    #[must_use]
    pub fn stored(self, times: impl Into<TimeRange>) -> Self {
        Self {
            times: times.into(),
            ..self
        }
    }
}

/// Finding messages: by id, by key, by place, by time.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// # let client = rocketmq_client::Client::connect(broker.name_server()).await?;
/// use rocketmq_client::Message;
///
/// let admin = client.admin();
/// let producer = client.producer("orders-svc").start().await?;
/// let receipt = producer.send(Message::new("orders", "42 apples").key("order-42")).await?;
///
/// let by_id = admin.view_message("orders", &receipt.message_id).await?;
/// let by_place = admin.message_at(&receipt.queue, receipt.queue_offset as i64).await?;
/// assert_eq!(by_id.body(), by_place.unwrap().body());
/// let recent = admin.messages("orders", .., 100).await?;
/// assert_eq!(recent.len(), 1);
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
impl Admin {
    /// The message with an id: the one that its producer gave it, or the one that says where it is stored. Java:
    /// `viewMessage`, `queryMessage` with an id.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] with `QUERY_NOT_FOUND` or `SYSTEM_ERROR` if there is no such message; whatever keeps the
    /// brokers of the topic from answering.
    pub async fn view_message(&self, topic: &str, id: &str) -> Result<MessageView> {
        // Both kinds look alike. One that names a broker of the cluster says where the message is.
        if let Ok(place) = id.parse::<OffsetMessageId>()
            && self.is_known(&place).await?
        {
            return self.view_at(topic, place).await;
        }
        let found = self.query_by_unique_key(topic, id).await?;
        let failures = found.failures().values().next().cloned();
        match (found.into_inner().into_iter().next(), failures) {
            (Some(message), _) => Ok(message),
            (None, Some(error)) => Err(error),
            (None, None) => Err(no_message(format_args!("message {id} of topic {topic}"))),
        }
    }

    async fn is_known(&self, id: &OffsetMessageId) -> Result<bool> {
        let host = id.store_host.to_string();
        let info = self.known_brokers().await?;
        let mut brokers = info.broker_addr_table.values();
        Ok(brokers.any(|broker| broker.broker_addrs.values().any(|address| *address == host)))
    }

    /// The message that is stored at a place, as [`MessageView::offset_message_id`] says it.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] with `SYSTEM_ERROR` if there is no message at this place.
    pub async fn view_at(&self, topic: &str, id: OffsetMessageId) -> Result<MessageView> {
        let address = id.store_host.to_string();
        let place = Place {
            name: address.clone(),
            address: address.into(),
        };
        let request = ViewMessage {
            topic: Some(topic.to_owned()),
            offset: id.physical_offset,
        };
        let found = self.call(&place, &request).await?;
        let broker = self.name_of(&place.address).await?;
        let mut messages = decode(found.0, &broker)?;
        match messages.is_empty() {
            false => Ok(messages.swap_remove(0)),
            true => Err(no_message(format_args!("message {id}"))),
        }
    }

    /// The name of the broker with this address; the address itself if no name server knows it.
    async fn name_of(&self, address: &str) -> Result<String> {
        let info = self.known_brokers().await?;
        let broker = info
            .broker_addr_table
            .into_values()
            .find(|broker| broker.broker_addrs.values().any(|known| known == address));
        Ok(broker.map_or_else(|| address.to_owned(), |broker| broker.broker_name))
    }

    /// The messages that have a key, oldest first; empty if there is none. Brokers know messages by key only a moment
    /// after they stored them. Java: `queryMessage` with a key.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic; the failure of the first broker if none answers.
    pub async fn query_by_key(
        &self,
        topic: &str,
        key: &str,
        query: KeyQuery,
    ) -> Result<Merged<Vec<MessageView>>> {
        let request = QueryMessage {
            topic: topic.to_owned(),
            key: key.to_owned(),
            max_num: query.max,
            begin_timestamp: query.times.begin,
            end_timestamp: query.times.end,
            unique_key_query: Some(false),
        };
        // Brokers compare hashes, and have both kinds of keys in one table.
        self.query(request, |message| message.keys().any(|one| one == key))
            .await
    }

    /// The messages that have the id which their producer gave them: more than one if it was sent again, or is retried.
    /// Java: `queryMessageByUniqKey`.
    ///
    /// # Errors
    /// As [`query_by_key`](Self::query_by_key).
    pub async fn query_by_unique_key(&self, topic: &str, id: &str) -> Result<Merged<Vec<MessageView>>> {
        let times = TimeRange::default();
        let request = QueryMessage {
            topic: topic.to_owned(),
            key: id.to_owned(),
            max_num: MAX_UNIQUE,
            begin_timestamp: times.begin,
            end_timestamp: times.end,
            unique_key_query: Some(true),
        };
        self.query(request, |message| message.message_id() == id).await
    }

    async fn query(
        &self,
        request: QueryMessage,
        wanted: impl Fn(&MessageView) -> bool,
    ) -> Result<Merged<Vec<MessageView>>> {
        let places = self.places_of_topic(&request.topic).await?;
        let request = &request;
        let all = self.each(places, |place| async move {
            match self.call(&place, request).await {
                Ok(found) => decode(found.messages, &place.name),
                Err(error) if is_code(&error, &[ResponseCode::QUERY_NOT_FOUND]) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        });
        let all = all.await.context(format_args!(
            "query of topic {} for {}",
            request.topic, request.key
        ));
        all.merge(|messages: &mut Vec<MessageView>, found| {
            messages.extend(found.into_iter().filter(&wanted));
            messages.sort_by_key(by_time);
        })
    }

    /// The message at an offset of a queue; none if it is gone or not there yet. Java: a pull of one message.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known; what the broker refuses.
    pub async fn message_at(&self, queue: &MessageQueue, offset: i64) -> Result<Option<MessageView>> {
        let place = self.place_of(queue).await?;
        let (mut found, _) = self.pull(&place, queue, offset, 1).await?;
        found.retain(|message| message.queue_offset() == offset);
        Ok(found.into_iter().next())
    }

    /// The messages of a topic that were stored within a range of time, oldest first: at most `max` of each queue.
    ///
    /// This reads the queues themselves, so it sees a message as soon as it is stored.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`] if no broker has the topic; the failure of the first broker if none answers.
    pub async fn messages(
        &self,
        topic: &str,
        stored: impl Into<TimeRange>,
        max: usize,
    ) -> Result<Merged<Vec<MessageView>>> {
        let times = stored.into();
        let route = self.fresh_route(topic).await?;
        let places = self.places_of_route(&route);
        let queues = &route.queue_datas;
        let all = self.each(places, |place| async move {
            let mut found = Vec::new();
            let broker = place.name.split('#').next().unwrap_or_default();
            for data in queues
                .iter()
                .filter(|data| data.broker_name == broker && data.perm & permission::READ != 0)
            {
                for id in 0..data.read_queue_nums {
                    let queue = MessageQueue::new(topic, broker, id);
                    found.extend(self.messages_of(&place, &queue, times, max).await?);
                }
            }
            Ok(found)
        });
        let all = all.await.context(format_args!("messages of topic {topic}"));
        all.merge(|messages: &mut Vec<MessageView>, found| {
            messages.extend(found);
            messages.sort_by_key(by_time);
        })
    }

    async fn messages_of(
        &self,
        place: &Place,
        queue: &MessageQueue,
        times: TimeRange,
        max: usize,
    ) -> Result<Vec<MessageView>> {
        let from = self.first_stored_at(place, queue, times.begin).await?;
        let mut offset = from;
        let mut found = Vec::new();
        while found.len() < max {
            let (messages, next) = self.pull(place, queue, offset, PULL_BATCH).await?;
            let past = messages
                .iter()
                .any(|message| message.store_timestamp() > times.end);
            let within =
                |message: &MessageView| (times.begin..=times.end).contains(&message.store_timestamp());
            found.extend(messages.into_iter().filter(within));
            if past || next <= offset {
                break;
            }
            offset = next;
        }
        found.truncate(max);
        Ok(found)
    }

    /// The first offset that was stored at a time or later, on brokers of 4.9 too: those answer with a message that is
    /// nearest in time, which may not be the first of its time.
    async fn first_stored_at(&self, place: &Place, queue: &MessageQueue, begin: i64) -> Result<i64> {
        if begin <= 0 {
            let request = MinOffset {
                topic: queue.topic.to_string(),
                queue_id: queue.queue_id,
            };
            return Ok(self.call(place, &request).await?.offset);
        }
        let mut from = self.search_at(place, queue, begin, None).await?;
        while from > 0 {
            let (before, _) = self.pull(place, queue, from - 1, 1).await?;
            let is_later = |message: &MessageView| {
                message.queue_offset() == from - 1 && message.store_timestamp() >= begin
            };
            if !before.first().is_some_and(is_later) {
                break;
            }
            from = from.saturating_sub(i64::from(PULL_BATCH)).max(0);
        }
        Ok(from)
    }

    /// Pulls without waiting; gives the messages and where to go on.
    async fn pull(
        &self,
        place: &Place,
        queue: &MessageQueue,
        offset: i64,
        max: i32,
    ) -> Result<(Vec<MessageView>, i64)> {
        let request = PullMessage {
            consumer_group: TOOLS_CONSUMER.to_owned(),
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            queue_offset: offset,
            max_msg_nums: max,
            sys_flag: pull_flag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some(SubscriptionData::ALL.to_owned()),
            sub_version: 0,
            expression_type: None,
            max_msg_bytes: None,
        };
        let pulled = self.call(place, &request).await?;
        let next = pulled.header.next_begin_offset;
        Ok(match pulled.status {
            PullStatus::Found => (decode(pulled.messages, &queue.broker_name)?, next),
            // The end of the queue, or an offset outside of it.
            PullStatus::NoNewMessage => (Vec::new(), offset),
            _ => (Vec::new(), next),
        })
    }

    /// Entries of a consume queue from an offset on, with what a group's filter makes of them if one is given. Java:
    /// `queryConsumeQueue`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no broker of that name is known; [`ErrorKind::Rejected`] with `SYSTEM_ERROR` if the
    /// broker has no such queue.
    pub async fn consume_queue(
        &self,
        queue: &MessageQueue,
        from: i64,
        count: i32,
        group: Option<&str>,
    ) -> Result<ConsumeQueuePage> {
        let place = self.place_of(queue).await?;
        let request = QueryConsumeQueue {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
            index: from,
            count,
            consumer_group: group.map(str::to_owned),
        };
        Ok(self.call(&place, &request).await?.0)
    }

    /// Lets the broker ask again about a transaction that it has given up on: `message` is the half message. Java:
    /// `resumeCheckHalfMessage`.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] if the message is no half message or is gone.
    pub async fn resume_check_half_message(&self, message: &MessageView) -> Result<()> {
        let id = message.offset_message_id();
        let address = id.store_host.to_string();
        let place = Place {
            name: address.clone(),
            address: address.into(),
        };
        let request = ResumeCheckHalfMessage {
            topic: Some(message.record().topic.as_str().to_owned()),
            msg_id: id.to_string(),
        };
        self.call(&place, &request).await.map(drop)
    }
}

/// In the order of storing: those of one broker and millisecond by their places.
fn by_time(message: &MessageView) -> (i64, i64) {
    (message.store_timestamp(), message.record().physical_offset)
}

/// Stored messages, back to back, of a broker.
fn decode(bytes: bytes::Bytes, broker: &str) -> Result<Vec<MessageView>> {
    let records = Record::decode_all(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Protocol,
            format!("messages of {broker} cannot be read: {error}"),
        )
        .caused_by(error)
    })?;
    let broker = broker.split('#').next().unwrap_or_default();
    let views = records.into_iter().map(|record| {
        let queue = MessageQueue::new(record.topic.as_str(), broker, record.queue_id);
        MessageView::new(record, queue)
    });
    Ok(views.collect())
}

fn no_message(what: std::fmt::Arguments<'_>) -> Error {
    Error::new(
        ErrorKind::Rejected,
        format!("{what}: no broker of the topic has it; it may be gone, or not be in the index yet"),
    )
}
