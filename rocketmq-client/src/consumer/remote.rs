//! What the engine asks of the cluster: each question that a consumer has for a broker, in one place.
//!
//! Protocol source: `MQClientAPIImpl`, `RemoteBrokerOffsetStore`, `PullAPIWrapper`.

mod active;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::cluster::{Cluster, GroupMember};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageView;
use crate::protocol::bodies::{LockBatch, MASTER_ID, MessageQueue, SubscriptionData};
use crate::protocol::requests::{
    BrokerRuntimeInfo, ConsumerConnectionList, ConsumerListByGroup, ConsumerSendMsgBack, LockQueues,
    MaxOffset, PullMessage, PullResult, QueryConsumerOffset, SearchOffset, SendMessageV2, UnlockQueues,
    UpdateConsumerOffset, pull_flag,
};
use crate::protocol::{BrokerVersion, JsonBody, Request, ResponseCode};
use crate::sync::lock;
use crate::transport::{Connection, random};

pub(super) use active::ActivePull;

/// How long a broker may hold a pull. Java: `BROKER_SUSPEND_MAX_TIME_MILLIS`.
const SUSPEND: Duration = Duration::from_secs(15);
/// How long a pull may take in all. Java: `CONSUMER_TIMEOUT_MILLIS_WHEN_SUSPEND`.
const PULL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long offsets and give-backs may take. Java: 5 s in `RemoteBrokerOffsetStore` and `sendMessageBack`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long locking may take: well below what is left of a lock when it is renewed.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// The shortest time between two heartbeats that failing pulls ask for.
const HEARTBEAT_PAUSE: Duration = Duration::from_millis(500);

/// The brokers, as one consumer group sees them.
#[derive(Debug)]
pub(super) struct Remote {
    cluster: Arc<Cluster>,
    group: Arc<str>,
    /// The group as brokers know it.
    wire_group: String,
    last_heartbeat: Mutex<Option<Instant>>,
}

/// One pull.
#[derive(Debug)]
pub(super) struct Pull<'a> {
    pub(super) queue: &'a MessageQueue,
    /// Where to pull from.
    pub(super) replica: &'a Replica,
    pub(super) offset: i64,
    pub(super) max_messages: usize,
    /// Left to the broker if absent.
    pub(super) max_bytes: Option<u32>,
    /// What is consumed of the queue.
    pub(super) commit_offset: Option<i64>,
    /// The version of the subscription.
    pub(super) version: i64,
    /// The subscription itself, if the pull is to carry it.
    pub(super) subscription: Option<Box<SubscriptionData>>,
}

/// A master or a slave.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) id: i64,
    address: Arc<str>,
}

impl Replica {
    pub(super) fn is_master(&self) -> bool {
        self.id == MASTER_ID
    }
}

impl Remote {
    pub(super) fn new(cluster: Arc<Cluster>, group: Arc<str>) -> Self {
        Self {
            wire_group: cluster.wire_name(&group).into_owned(),
            cluster,
            group,
            last_heartbeat: Mutex::new(None),
        }
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The group as brokers know it.
    pub(super) fn wire_group(&self) -> &str {
        &self.wire_group
    }

    pub(super) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(super) fn client_id(&self) -> &str {
        self.cluster.client_id()
    }

    /// Joins the group on all brokers that are known.
    pub(super) async fn join(&self, member: Arc<dyn GroupMember>) -> Result<()> {
        self.cluster.register_consumer(member).await
    }

    /// Leaves the group on all brokers.
    pub(super) async fn leave(&self, limit: Duration) {
        // A broker that does not answer notices by the end of the connection.
        let _ = timeout(limit, self.cluster.unregister_consumer(&self.group)).await;
    }

    /// The queues of a topic that can be read; none if the topic does not exist.
    pub(super) async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        match self.cluster.subscribe_queues(topic).await {
            Ok(queues) => Ok(queues.to_vec()),
            Err(error) if error.kind() == ErrorKind::TopicNotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks anew where the queues of a topic are.
    pub(super) async fn refresh(&self, topic: &str) {
        // A failure is the next one's who needs the route.
        let _ = self.cluster.refresh_route(topic).await;
    }

    /// The members of the group, as one of the brokers of these queues knows them.
    pub(super) async fn members(&self, queues: &[MessageQueue]) -> Result<Vec<String>> {
        let mut brokers: Vec<&Arc<str>> = queues.iter().map(|queue| &queue.broker_name).collect();
        brokers.sort();
        brokers.dedup();
        let start = usize::from(random() as u16) % brokers.len().max(1);
        let request = ConsumerListByGroup {
            consumer_group: self.wire_group.clone(),
        };
        let mut last = Error::new(
            ErrorKind::Connect,
            format!("members of group {}: the topic has no broker", self.group),
        );
        for broker in brokers.iter().cycle().skip(start).take(brokers.len()) {
            match self.ask(broker, MASTER_ID, &request).await {
                Ok(list) => return Ok(list.0.consumer_id_list),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What a broker keeps as the subscriptions of the group.
    pub(super) async fn subscriptions(&self, broker: &str) -> Result<BTreeMap<String, SubscriptionData>> {
        let request = ConsumerConnectionList {
            consumer_group: self.wire_group.clone(),
        };
        let kept = self.ask(broker, MASTER_ID, &request).await?.0.subscription_table;
        let by_topic = kept.into_iter().map(|(topic, data)| {
            let topic = self.cluster.user_name(&topic).into_owned();
            (topic, data)
        });
        Ok(by_topic.collect())
    }

    /// What the group has committed of a queue; `None` if nothing.
    pub(super) async fn committed_offset(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        let request = QueryConsumerOffset {
            consumer_group: self.wire_group.clone(),
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
            set_zero_if_not_found: None,
        };
        match self.ask(&queue.broker_name, MASTER_ID, &request).await {
            // Java reads a negative offset as none.
            Ok(answer) => Ok(Some(answer.offset).filter(|&offset| offset >= 0)),
            Err(error) if is_code(&error, ResponseCode::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the group has consumed anything of a queue.
    pub(super) async fn has_consumed(&self, queue: &MessageQueue) -> Result<bool> {
        let request = QueryConsumerOffset {
            consumer_group: self.wire_group.clone(),
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
            // A broker of 4.9 answers 0 all the same.
            set_zero_if_not_found: Some(false),
        };
        match self.ask(&queue.broker_name, MASTER_ID, &request).await {
            Ok(answer) => Ok(answer.offset > 0),
            Err(error) if is_code(&error, ResponseCode::QUERY_NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One past the newest message of a queue.
    pub(super) async fn max_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let request = MaxOffset {
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
        };
        Ok(self.ask(&queue.broker_name, MASTER_ID, &request).await?.offset)
    }

    /// The first offset stored at a time (milliseconds since 1970) or later.
    pub(super) async fn offset_at(&self, queue: &MessageQueue, timestamp: i64) -> Result<i64> {
        let request = SearchOffset {
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
            timestamp,
            boundary_type: None,
        };
        Ok(self.ask(&queue.broker_name, MASTER_ID, &request).await?.offset)
    }

    /// Messages of a queue. The broker holds the request until there are some.
    pub(super) async fn pull(&self, pull: Pull<'_>) -> Result<PullResult> {
        // A slave cannot take offsets. Zero is what a broker without an offset assumes.
        let commit_offset = pull
            .commit_offset
            .filter(|&offset| offset > 0 && pull.replica.is_master());
        let mut sys_flag = pull_flag::SUSPEND;
        if commit_offset.is_some() {
            sys_flag |= pull_flag::COMMIT_OFFSET;
        }
        if pull.subscription.is_some() {
            sys_flag |= pull_flag::SUBSCRIPTION;
        }
        let (subscription, expression_type) = pull
            .subscription
            .map(|data| (data.sub_string, data.expression_type))
            .unzip();
        let request = PullMessage {
            consumer_group: self.wire_group.clone(),
            topic: self.wire_topic(pull.queue),
            queue_id: pull.queue.queue_id,
            queue_offset: pull.offset,
            max_msg_nums: i32::try_from(pull.max_messages).unwrap_or(i32::MAX),
            sys_flag,
            commit_offset: commit_offset.unwrap_or(0),
            suspend_timeout_millis: i64::try_from(SUSPEND.as_millis()).unwrap_or(i64::MAX),
            subscription,
            sub_version: pull.version,
            expression_type,
            max_msg_bytes: pull.max_bytes.and_then(|bytes| i32::try_from(bytes).ok()),
        };
        self.cluster
            .call_addr(&pull.replica.address, &request, PULL_TIMEOUT)
            .await
    }

    /// Who serves a pull that is meant for the broker of this id.
    pub(super) fn replica(&self, queue: &MessageQueue, broker_id: i64) -> Result<Replica> {
        let name = &queue.broker_name;
        let found = self.cluster.replica_for_read(name, broker_id);
        let (id, address) = found.ok_or_else(|| unknown_broker(name))?;
        Ok(Replica { id, address })
    }

    /// The id of a slave that has the queue too, if there is one.
    pub(super) fn slave_of(&self, queue: &MessageQueue) -> Option<i64> {
        self.cluster.slave_of(&queue.broker_name)
    }

    /// When the master of a queue was started: milliseconds since 1970.
    pub(super) async fn started_at(&self, queue: &MessageQueue) -> Result<i64> {
        let info = self
            .ask(&queue.broker_name, MASTER_ID, &BrokerRuntimeInfo {})
            .await?
            .0;
        let started = info.table.get("bootTimestamp").and_then(|text| text.parse().ok());
        started.ok_or_else(|| {
            let text = format!("broker {} does not say when it was started", queue.broker_name);
            Error::new(ErrorKind::Protocol, text)
        })
    }

    /// Commits an offset without waiting for an answer.
    pub(super) async fn commit(&self, queue: &MessageQueue, offset: i64) -> Result<()> {
        let address = self.cluster.vip(self.address(&queue.broker_name, MASTER_ID)?);
        let request = self.commit_request(queue, offset);
        self.cluster.one_way(&address, &request).await
    }

    /// Commits an offset and waits until the broker has confirmed it.
    pub(super) async fn commit_confirmed(
        &self,
        queue: &MessageQueue,
        offset: i64,
        limit: Duration,
    ) -> Result<()> {
        let address = self.cluster.vip(self.address(&queue.broker_name, MASTER_ID)?);
        let request = self.commit_request(queue, offset);
        self.cluster.call_addr(&address, &request, limit).await?;
        Ok(())
    }

    fn commit_request(&self, queue: &MessageQueue, offset: i64) -> UpdateConsumerOffset {
        UpdateConsumerOffset {
            consumer_group: self.wire_group.clone(),
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
            commit_offset: offset,
        }
    }

    /// Gives a message back to the broker that stored it.
    pub(super) async fn send_back(
        &self,
        message: &MessageView,
        mut request: ConsumerSendMsgBack,
    ) -> Result<()> {
        request.group.clone_from(&self.wire_group);
        request.origin_topic = Some(self.cluster.wire_name(message.topic()).into_owned());
        request.unit_mode = Some(self.cluster.unit_mode());
        self.ask(&message.queue().broker_name, MASTER_ID, &request)
            .await?;
        Ok(())
    }

    /// Makes a dead letter of a message that cannot be read, by its place in the broker's log.
    pub(super) async fn dead_letter(
        &self,
        queue: &MessageQueue,
        physical_offset: i64,
        max_reconsume_times: i32,
    ) -> Result<()> {
        let request = ConsumerSendMsgBack {
            offset: physical_offset,
            group: self.wire_group.clone(),
            delay_level: -1,
            origin_msg_id: None,
            origin_topic: Some(self.wire_topic(queue)),
            unit_mode: Some(self.cluster.unit_mode()),
            max_reconsume_times: Some(max_reconsume_times),
        };
        self.ask(&queue.broker_name, MASTER_ID, &request).await?;
        Ok(())
    }

    /// Sends a copy of a message to the retry topic, if possible to another broker than the one that has just refused
    /// to take the message back.
    pub(super) async fn send_copy(&self, from: &MessageQueue, mut copy: SendMessageV2) -> Result<()> {
        let address = match self.cluster.route(&copy.topic).await {
            Ok(route) => {
                let mut queues = route.publish_queues().iter().enumerate();
                let other = queues
                    .clone()
                    .find(|(_, queue)| queue.broker_name != from.broker_name);
                let chosen = other.or_else(|| queues.next());
                chosen.and_then(|(index, queue)| {
                    copy.queue_id = queue.queue_id;
                    route.publish_address(index).map(Arc::clone)
                })
            }
            Err(_) => None,
        };
        copy.topic = self.cluster.wire_name(&copy.topic).into_owned();
        copy.unit_mode = Some(self.cluster.unit_mode());
        let address = match address {
            Some(address) => address,
            // The broker creates the retry topic of a group that it knows.
            None => self.address(&from.broker_name, MASTER_ID)?,
        };
        self.cluster.call_addr(&address, &copy, TIMEOUT).await?;
        Ok(())
    }

    /// Sends a copy of a message to the retry topic on the broker that stored it.
    pub(super) async fn send_copy_home(&self, from: &MessageQueue, mut copy: SendMessageV2) -> Result<()> {
        copy.topic = self.cluster.wire_name(&copy.topic).into_owned();
        copy.unit_mode = Some(self.cluster.unit_mode());
        let address = self.address(&from.broker_name, MASTER_ID)?;
        self.cluster.call_addr(&address, &copy, TIMEOUT).await?;
        Ok(())
    }

    /// The version of the broker that a queue is on, if that has answered a heartbeat.
    pub(super) fn version_of(&self, queue: &MessageQueue) -> Option<BrokerVersion> {
        let address = self.address(&queue.broker_name, MASTER_ID).ok()?;
        self.cluster.known_broker_version(&address)
    }

    /// Tells all brokers who is here, unless that was done a moment ago: many pulls may fail for one reason. Gives why,
    /// if they refuse it.
    pub(super) async fn heartbeat(&self) -> Option<Error> {
        let now = Instant::now();
        {
            let mut last = lock(&self.last_heartbeat);
            if last.is_some_and(|last| now.duration_since(last) < HEARTBEAT_PAUSE) {
                return None;
            }
            *last = Some(now);
        }
        self.cluster.heartbeat_now().await
    }

    /// Tells all brokers who is here, now, and waits for their answers.
    pub(super) async fn announce(&self) {
        *lock(&self.last_heartbeat) = Some(Instant::now());
        self.cluster.heartbeat_now().await;
    }

    /// Locks queues of one broker for this member, or renews their locks. Returns those that it has now.
    pub(super) async fn lock_queues(
        &self,
        broker: &str,
        queues: &[MessageQueue],
    ) -> Result<Vec<MessageQueue>> {
        let request = LockQueues {
            body: self.lock_batch(queues)?,
        };
        let address = self.master(broker)?;
        let locked = self.cluster.call_addr(&address, &request, LOCK_TIMEOUT).await?;
        let locked = locked.0.lock_ok_mq_set.into_iter();
        Ok(locked.map(|queue| self.user_queue(queue)).collect())
    }

    /// Gives back the locks of queues of one broker.
    pub(super) async fn unlock_queues(&self, broker: &str, queues: &[MessageQueue]) -> Result<()> {
        let request = UnlockQueues {
            body: self.lock_batch(queues)?,
        };
        let address = self.master(broker)?;
        self.cluster.call_addr(&address, &request, LOCK_TIMEOUT).await?;
        Ok(())
    }

    fn lock_batch(&self, queues: &[MessageQueue]) -> Result<Bytes> {
        let batch = LockBatch {
            consumer_group: self.wire_group.clone(),
            client_id: self.client_id().to_owned(),
            only_this_broker: false,
            mq_set: queues.iter().map(|queue| self.wire_queue(queue)).collect(),
        };
        batch
            .to_body()
            .map_err(|error| Error::from_encode("queues to lock", error))
    }

    /// The connection that requests to the master of a broker go over, if there is one.
    pub(super) fn connection_to(&self, broker: &str) -> Option<Arc<Connection>> {
        self.cluster.remoting().pool().ready(&self.master(broker).ok()?)
    }

    /// A slave keeps no locks.
    fn master(&self, broker: &str) -> Result<Arc<str>> {
        let address = self.cluster.broker_addr(broker, MASTER_ID).ok_or_else(|| {
            let text = format!("broker {broker} has no master in any route; is it running and registered?");
            Error::new(ErrorKind::Connect, text).at(broker)
        })?;
        Ok(self.cluster.vip(address))
    }

    pub(super) fn wire_topic(&self, queue: &MessageQueue) -> String {
        self.cluster.wire_name(&queue.topic).into_owned()
    }

    /// A queue as brokers name it.
    pub(super) fn wire_queue(&self, queue: &MessageQueue) -> MessageQueue {
        match self.cluster.wire_name(&queue.topic) {
            Cow::Borrowed(_) => queue.clone(),
            Cow::Owned(topic) => MessageQueue::new(topic, Arc::clone(&queue.broker_name), queue.queue_id),
        }
    }

    /// A queue as the user knows it.
    pub(super) fn user_queue(&self, queue: MessageQueue) -> MessageQueue {
        let topic = self.cluster.user_name(&queue.topic);
        if *topic == *queue.topic {
            return queue;
        }
        MessageQueue::new(&*topic, queue.broker_name, queue.queue_id)
    }

    /// Subscriptions as brokers name their topics.
    pub(super) fn wire_subscriptions(
        &self,
        mut subscriptions: Vec<SubscriptionData>,
    ) -> Vec<SubscriptionData> {
        for subscription in &mut subscriptions {
            subscription.topic = self.cluster.wire_name(&subscription.topic).into_owned();
        }
        subscriptions
    }

    pub(super) async fn ask<R: Request>(
        &self,
        broker: &str,
        broker_id: i64,
        request: &R,
    ) -> Result<R::Response> {
        let address = self.cluster.vip(self.address(broker, broker_id)?);
        self.cluster.call_addr(&address, request, TIMEOUT).await
    }

    pub(super) fn address(&self, broker: &str, broker_id: i64) -> Result<Arc<str>> {
        self.cluster
            .broker_addr_for_read(broker, broker_id)
            .ok_or_else(|| unknown_broker(broker))
    }
}

fn unknown_broker(name: &str) -> Error {
    let text = format!("broker {name} is in no route any more; is it running and registered?");
    Error::new(ErrorKind::Connect, text).at(name)
}

fn is_code(error: &Error, code: ResponseCode) -> bool {
    error.response().is_some_and(|(actual, _)| actual == code)
}
