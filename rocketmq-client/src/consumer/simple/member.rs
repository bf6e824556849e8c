//! The simple consumer as its client's brokers see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::builder::Options;
use super::{Counters, FAREWELL};
use crate::cluster::{BoxFuture, Cluster, GroupMember};
use crate::consumer::filter::Filter;
use crate::consumer::pop::calls::Receipt;
use crate::consumer::remote::Remote;
use crate::error::{Error, Result};
use crate::protocol::bodies::{ConsumeType, ConsumerData, MessageModel};
use crate::protocol::{Frame, ResponseCode};
use crate::sync::lock;
use crate::tasks::{Tasks, join_all};
use crate::trace::now_millis;

/// What the handles of one consumer share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) remote: Arc<Remote>,
    pub(super) subscriptions: BTreeMap<Arc<str>, Filter>,
    /// When it was made, in milliseconds since 1970.
    version: i64,
    pub(super) options: Options,
    pub(super) counters: Counters,
    /// Pops: they are not cut off.
    pub(super) tasks: Tasks,
    /// Where the next receive starts to look, so that no topic and no broker is always the last one.
    pub(super) turn: std::sync::Mutex<usize>,
}

impl Core {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        group: Arc<str>,
        subscriptions: BTreeMap<Arc<str>, Filter>,
        options: Options,
    ) -> Self {
        Self {
            tasks: cluster.tasks().child(),
            remote: Arc::new(Remote::new(cluster, group)),
            subscriptions,
            version: now_millis(),
            options,
            counters: Counters::default(),
            turn: std::sync::Mutex::default(),
        }
    }

    pub(super) fn group(&self) -> &str {
        self.remote.group()
    }

    /// Finds the brokers of the topics; those that do not exist yet are asked for again by each receive.
    pub(super) async fn find_topics(&self) {
        join_all(self.subscriptions.keys().map(|topic| self.remote.queues(topic))).await;
    }

    pub(super) async fn check_brokers(&self) -> Result<()> {
        for topic in self.subscriptions.keys() {
            if let Ok(queues) = self.remote.queues(topic).await {
                self.remote.check_can_pop(&queues)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.tasks.token().is_cancelled() {
            return Err(Error::closed(format_args!(
                "simple consumer of group {}",
                self.group()
            )));
        }
        Ok(())
    }

    /// Takes no more calls.
    pub(super) fn close(&self) {
        self.tasks.cancel();
    }

    pub(super) async fn shutdown(&self) {
        let _ = self.tasks.stop(FAREWELL).await;
        self.remote.leave(FAREWELL).await;
    }

    pub(super) fn leave_in_background(self: &Arc<Self>) {
        self.close();
        let core = Arc::clone(self);
        let leave = move |_| async move { core.remote.leave(FAREWELL).await };
        self.remote.cluster().tasks().spawn("leave", leave);
    }

    /// The start of the next look at all sources.
    pub(super) fn next_turn(&self) -> usize {
        let mut turn = lock(&self.turn);
        *turn = turn.wrapping_add(1);
        *turn
    }

    pub(super) async fn ack_each(&self, receipts: &[&Receipt]) -> Result<()> {
        for receipt in receipts {
            self.remote.ack(receipt).await?;
        }
        Ok(())
    }

    pub(super) fn count_acks(&self, count: usize, acked: Result<()>) -> Result<()> {
        let counter = match acked {
            Ok(()) => &self.counters.acknowledged,
            Err(_) => &self.counters.not_acknowledged,
        };
        Counters::add(counter, count);
        acked
    }
}

/// A member as the cluster holds it.
#[derive(Debug)]
pub(super) struct Member(pub(super) Arc<Core>);

impl GroupMember for Member {
    fn group(&self) -> &str {
        self.0.group()
    }

    fn topics(&self) -> Vec<String> {
        self.0
            .subscriptions
            .keys()
            .map(|topic| topic.to_string())
            .collect()
    }

    fn heartbeat(&self) -> ConsumerData {
        let subscriptions = self.0.subscriptions.iter();
        ConsumerData {
            consume_from_where: self.0.options.consume_from.announced(),
            consume_type: ConsumeType::Pop,
            group_name: self.0.group().to_owned(),
            message_model: MessageModel::Clustering,
            subscription_data_set: subscriptions
                .map(|(topic, filter)| filter.subscription(topic, self.0.version))
                .collect(),
            unit_mode: false,
        }
    }

    fn on_members_changed(&self) {}

    fn on_route_changed(&self) {}

    fn handle(&self, frame: Frame) -> BoxFuture<'_, Frame> {
        Box::pin(async move {
            let remark = format!(
                "request type {} not supported: a simple consumer holds nothing that could be told or moved",
                frame.code
            );
            Frame::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, frame.opaque, remark)
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.shutdown())
    }
}
