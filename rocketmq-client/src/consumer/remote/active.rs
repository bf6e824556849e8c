//! Questions of consumers that pull by themselves: with the subscription in each pull, and about offsets.
//!
//! Protocol source: `DefaultLitePullConsumerImpl#pullSyncImpl`, `DefaultMQPullConsumerImpl#pullSyncImpl`,
//! `MQClientAPIImpl#pullMessage`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Remote;
use crate::cluster::{outbound_parts, read_response};
use crate::error::{Error, Result};
use crate::protocol::bodies::{MASTER_ID, MessageQueue, SubscriptionData};
use crate::protocol::requests::{
    EarliestStoreTime, LitePullMessage, MinOffset, PullMessage, PullResult, pull_flag,
};
use crate::protocol::{BrokerVersion, Fields, Request};

/// A pull that brings its subscription along: the broker need not know the group.
#[derive(Debug)]
pub(in crate::consumer) struct ActivePull<'a> {
    pub(in crate::consumer) queue: &'a MessageQueue,
    pub(in crate::consumer) broker_id: i64,
    pub(in crate::consumer) offset: i64,
    pub(in crate::consumer) max_messages: usize,
    /// How many bytes at the most; brokers up to 5.5 do not look at it.
    pub(in crate::consumer) max_bytes: Option<usize>,
    /// What is wanted of the topic.
    pub(in crate::consumer) subscription: &'a SubscriptionData,
    /// For how long the broker may hold the pull while there is nothing; not at all without.
    pub(in crate::consumer) hold: Option<Duration>,
    /// How long the pull may take in all.
    pub(in crate::consumer) timeout: Duration,
    /// Whether brokers that tell pulls of lite consumers apart are told. It gives them threads of their own there.
    pub(in crate::consumer) lite: bool,
}

impl Remote {
    /// Messages of a queue from an offset on.
    pub(in crate::consumer) async fn pull_actively(&self, pull: ActivePull<'_>) -> Result<PullResult> {
        let ActivePull {
            queue, subscription, ..
        } = pull;
        let address = self.address_of(queue, pull.broker_id).await?;
        // A broker of 4.9 does not know the code of lite pulls.
        let lite = pull.lite
            && self
                .cluster
                .known_broker_version(&address)
                .is_some_and(|version| version >= BrokerVersion::V5_0_0);
        let flags = [
            (pull_flag::SUBSCRIPTION, true),
            (pull_flag::SUSPEND, pull.hold.is_some()),
            (pull_flag::LITE_PULL, lite),
        ];
        let by_tags = subscription.expression_type == SubscriptionData::TAG;
        let hold = pull.hold.unwrap_or_default();
        let request = PullMessage {
            consumer_group: self.wire_group.clone(),
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
            queue_offset: pull.offset,
            max_msg_nums: i32::try_from(pull.max_messages).unwrap_or(i32::MAX),
            sys_flag: flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum(),
            commit_offset: 0,
            suspend_timeout_millis: i64::try_from(hold.as_millis()).unwrap_or(i64::MAX),
            subscription: Some(subscription.sub_string.clone()),
            // Brokers compare it only for SQL, which they compile ahead.
            sub_version: if by_tags { 0 } else { subscription.sub_version },
            expression_type: Some(subscription.expression_type.clone()),
            max_msg_bytes: pull
                .max_bytes
                .map(|bytes| i32::try_from(bytes).unwrap_or(i32::MAX)),
        };
        if !lite {
            return self.cluster.call_addr(&address, &request, pull.timeout).await;
        }
        let extra = Fields::new();
        let outbound = outbound_parts::<LitePullMessage, _>(&request, &extra, request.body());
        let deadline = Instant::now() + pull.timeout;
        let frame = self
            .cluster
            .remoting()
            .request(&address, &outbound, deadline)
            .await?;
        read_response::<LitePullMessage>(&address, frame)
    }

    /// The address to pull from.
    async fn address_of(&self, queue: &MessageQueue, broker_id: i64) -> Result<Arc<str>> {
        self.look_for(queue).await;
        self.address(&queue.broker_name, broker_id)
    }

    /// Looks for the broker of a queue, if no route tells of it yet: users may name any queue.
    pub(in crate::consumer) async fn look_for(&self, queue: &MessageQueue) {
        if self.address(&queue.broker_name, MASTER_ID).is_err() {
            self.refresh(&queue.topic).await;
        }
    }

    /// Fails for a name that no topic can have.
    pub(in crate::consumer) fn check_topic(&self, topic: &str) -> Result<()> {
        let checked = self.cluster.check_topic(topic);
        checked.map_err(|error| Error::config(error.to_string()))
    }

    /// The oldest offset of a queue.
    pub(in crate::consumer) async fn min_offset(&self, queue: &MessageQueue) -> Result<i64> {
        let request = MinOffset {
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
        };
        Ok(self.ask(&queue.broker_name, MASTER_ID, &request).await?.offset)
    }

    /// When the oldest message of a queue was stored, in milliseconds since 1970; `None` if it is empty.
    pub(in crate::consumer) async fn earliest_store_time(&self, queue: &MessageQueue) -> Result<Option<i64>> {
        let request = EarliestStoreTime {
            topic: self.wire_topic(queue),
            queue_id: queue.queue_id,
        };
        let answer = self.ask(&queue.broker_name, MASTER_ID, &request).await?;
        Ok(Some(answer.timestamp).filter(|&timestamp| timestamp >= 0))
    }

    /// The first offset stored at a time or later.
    pub(in crate::consumer) async fn offset_stored_at(
        &self,
        queue: &MessageQueue,
        time: SystemTime,
    ) -> Result<i64> {
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        self.offset_at(queue, timestamp).await
    }
}
