//! One pull.
//!
//! Protocol source: `DefaultMQPullConsumerImpl#pullSyncImpl`, `PullAPIWrapper#processPullResult`.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::engine::Puller;
use crate::cluster::BoxFuture;
use crate::consumer::filter::Filter;
use crate::consumer::received::{Damaged, Received};
use crate::consumer::remote::ActivePull;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageView;
use crate::protocol::bodies::{MASTER_ID, MessageQueue};
use crate::protocol::requests::{PullResult, PullStatus};

/// A pull that is being put together; see [`PullConsumer::pull`](super::PullConsumer::pull).
#[must_use = "a pull does nothing until it is awaited"]
#[derive(Debug)]
pub struct PullBuilder {
    puller: Arc<Puller>,
    queue: MessageQueue,
    filter: Filter,
    offset: i64,
    max_messages: usize,
    max_bytes: Option<usize>,
    wait: bool,
    timeout: Option<Duration>,
}

/// What a pull found. Java: `PullResult`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PullOutcome {
    /// How it ended.
    pub status: PullStatus,
    /// The messages; none unless something was [found](PullStatus::Found), and then too if the broker took tags for the
    /// wanted ones that only have their hash.
    pub messages: Vec<MessageView>,
    /// The offset to pull from next time. Of an [illegal](PullStatus::OffsetIllegal) offset, the nearest one that is not.
    pub next_offset: i64,
    /// The oldest offset of the queue.
    pub min_offset: i64,
    /// One past the newest offset of the queue.
    pub max_offset: i64,
}

impl PullBuilder {
    pub(super) fn new(
        puller: &Arc<Puller>,
        queue: &MessageQueue,
        filter: Filter,
        offset: i64,
        max_messages: usize,
    ) -> Self {
        Self {
            puller: Arc::clone(puller),
            queue: queue.clone(),
            filter,
            offset,
            max_messages,
            max_bytes: None,
            wait: false,
            timeout: None,
        }
    }

    /// Waits at the broker while there is nothing, for at most
    /// [`broker_suspend`](super::PullConsumerBuilder::broker_suspend). Java: `pullBlockIfNotFound`.
    pub fn wait(mut self) -> Self {
        self.wait = true;
        self
    }

    /// How many bytes at the most; brokers up to 5.5 do not look at it.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How long this pull may take. Default: as the consumer says, for one that waits and one that does not.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn run(self) -> Result<PullOutcome> {
        let Self {
            puller,
            queue,
            filter,
            ..
        } = &self;
        puller.check_open()?;
        let fault = match (self.offset, self.max_messages, filter.check()) {
            (..=-1, ..) => Some(format!("offset {} is below 0", self.offset)),
            (_, 0, _) => Some("no message is asked for".to_owned()),
            (.., Err(fault)) => Some(format!("its filter cannot be used: {fault}")),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Error::config(format!("pull of queue {queue}: {fault}")));
        }
        let options = &puller.options;
        let usual = if self.wait {
            options.suspended_pull_timeout
        } else {
            options.pull_timeout
        };
        let subscription = filter.subscription(&queue.topic, puller.started);
        let pull = ActivePull {
            queue,
            broker_id: MASTER_ID,
            offset: self.offset,
            max_messages: self.max_messages,
            max_bytes: self.max_bytes,
            subscription: &subscription,
            hold: self.wait.then_some(options.broker_suspend),
            timeout: self.timeout.unwrap_or(usual),
            lite: false,
        };
        let result = puller
            .remote
            .pull_actively(pull)
            .await
            .map_err(|error| error.context(format_args!("pull of queue {queue} from {}", self.offset)))?;
        self.outcome(result)
    }

    fn outcome(&self, result: PullResult) -> Result<PullOutcome> {
        let PullResult {
            status,
            header,
            messages,
            ..
        } = result;
        // A response shares the connection's read buffer with its neighbours and would keep all of it.
        let mut received = Received::read(Bytes::copy_from_slice(&messages));
        let readable = received
            .records
            .last()
            .map(|record| record.queue_offset.saturating_add(1));
        if !self.filter.is_all() {
            received.keep(&self.filter);
        }
        let mut next_offset = header.next_begin_offset;
        if let Some(Damaged { error, .. }) = received.damaged {
            // What was read is worth something; the next pull fails at the message that cannot be.
            let Some(readable) = readable else {
                let text = format!("pull of queue {} from {}: {error}", self.queue, self.offset);
                return Err(Error::new(ErrorKind::Protocol, text));
            };
            next_offset = readable;
        }
        let cluster = self.puller.remote.cluster();
        let view = |record| MessageView::in_namespace(record, self.queue.clone(), cluster.namespace());
        let messages: Vec<_> = received.records.into_iter().map(view).collect();
        if let Some(tracer) = cluster.trace() {
            self.puller.remote.trace_polled(tracer, &messages);
        }
        Ok(PullOutcome {
            status,
            messages,
            next_offset,
            min_offset: header.min_offset,
            max_offset: header.max_offset,
        })
    }
}

impl IntoFuture for PullBuilder {
    type Output = Result<PullOutcome>;
    type IntoFuture = BoxFuture<'static, Result<PullOutcome>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
