//! A consumer whose handler hands every message to the scenario.

use std::{fmt::Debug, time::Duration};

use integration_tests::{
    Failure,
    admin::{call, refused_with},
    scenario::{TestResult, eventually},
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, MessageView, PushConsumer,
    protocol::{ResponseCode, requests::QueryConsumerOffset},
};
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

/// Longer than any cluster takes for a message that is not delayed, after a rebalance too.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What a consumer received and the scenario has not looked at.
pub(crate) struct Inbox {
    pub(crate) consumer: PushConsumer,
    messages: Receiver<MessageView>,
}

impl Inbox {
    /// Subscribes a group that starts at the oldest message and acknowledges everything.
    pub(crate) async fn open(
        client: &Client,
        group: &str,
        topic: &str,
        filter: &str,
    ) -> Result<Self, Failure> {
        let (sender, messages) = channel(100_000);
        let consumer = client
            .push_consumer(group)
            .subscribe(topic, filter)
            .consume_from(ConsumeFrom::First)
            .start(move |message: MessageView| {
                let sender = sender.clone();
                async move { sender.send(message).await.map_err(|_| "the scenario has ended") }
            })
            .await?;
        Ok(Self { consumer, messages })
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<MessageView, Failure> {
        match timeout(LIMIT, self.messages.recv()).await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err("the consumer is gone".into()),
            Err(_) => Err(format!("no message in {LIMIT:?}").into()),
        }
    }

    /// So many messages, in the order of their bodies.
    pub(crate) async fn bodies(&mut self, count: usize) -> Result<Vec<String>, Failure> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            bodies.push(String::from_utf8_lossy(self.next().await?.body()).into_owned());
        }
        bodies.sort_unstable();
        Ok(bodies)
    }

    /// What has arrived beyond what was read: nothing, if messages come once.
    pub(crate) fn rest(&mut self) -> Vec<MessageView> {
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }
}

/// What a group has committed of a queue on the first broker; -1 if nothing.
pub(crate) async fn committed(
    target: &Target,
    group: &str,
    topic: &str,
    queue_id: i32,
) -> Result<i64, Failure> {
    let query = QueryConsumerOffset {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        queue_id,
        set_zero_if_not_found: Some(false),
    };
    match call(target.first_broker().await?, &query).await {
        Ok(answer) => Ok(answer.offset),
        Err(error) if refused_with(&error, ResponseCode::QUERY_NOT_FOUND) => Ok(-1),
        Err(error) => Err(error),
    }
}

/// Waits until a group has committed queue 0 up to here.
pub(crate) async fn until_committed(target: &Target, group: &str, topic: &str, offset: i64) -> TestResult {
    eventually(&format!("a commit of {offset}"), async || {
        Ok(committed(target, group, topic, 0).await? == offset)
    })
    .await
}

/// Fails with both values unless they are equal.
pub(crate) fn expect<T: PartialEq<U> + Debug, U: Debug>(what: &str, found: T, wanted: U) -> TestResult {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {found:?}, not {wanted:?}").into())
    }
}
