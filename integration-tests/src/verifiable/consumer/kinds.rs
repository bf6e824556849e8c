//! The ways to consume that `verifiable-consumer` knows.

use std::{collections::BTreeMap, sync::Arc};

use rocketmq_client::{
    BatchOutcome, Broadcasting, Client, MessageView, Outcome, PushConsumer, PushConsumerBuilder, Retry,
    protocol::bodies::MessageQueue,
};

use super::{End, Setup};
use crate::Failure;

/// What `--kind` may be.
pub(super) const NAMES: &str = "concurrent, batch, orderly, orderly-batch, key-ordered or broadcasting";

/// A consumer that runs.
#[derive(Debug)]
pub(super) enum Consumer {
    Push(PushConsumer),
}

impl Consumer {
    pub(super) async fn start(client: &Client, setup: &Setup) -> Result<Self, Failure> {
        let consumer = match setup.arguments.text("--kind") {
            "concurrent" => one_by_one(push(client, setup)?, setup).await,
            "batch" => in_batches(push(client, setup)?, setup).await,
            "orderly" => one_by_one(push(client, setup)?.orderly(), setup).await,
            "orderly-batch" => in_batches(push(client, setup)?.orderly(), setup).await,
            "key-ordered" => one_by_one(push(client, setup)?.ordered_by_key(), setup).await,
            "broadcasting" => one_by_one(push(client, setup)?.broadcasting_with(local(setup)), setup).await,
            other => Err(format!("--kind is {other:?}, it has to be {NAMES}").into()),
        };
        Ok(Self::Push(consumer?))
    }

    /// The queues that it has now.
    pub(super) fn queues(&self) -> Vec<MessageQueue> {
        match self {
            Self::Push(consumer) => consumer.stats().queues,
        }
    }

    /// Stops in order and tells what it has done.
    pub(super) async fn shutdown(&self) -> BTreeMap<String, i64> {
        match self {
            Self::Push(consumer) => {
                let report = consumer.shutdown().await;
                let stats = consumer.stats();
                let figures = [
                    ("received", stats.received),
                    ("acknowledged", stats.acknowledged),
                    ("retried", stats.retried),
                    ("panicked", stats.panicked),
                    ("timed_out", stats.timed_out),
                    ("rejected", stats.rejected),
                    ("not_given_back", stats.not_given_back),
                    ("subscription_conflicts", stats.subscription_conflicts),
                    ("handlers_cut_off", report.handlers_cut_off as u64),
                    ("commits_unconfirmed", report.commits_unconfirmed as u64),
                ];
                figures
                    .into_iter()
                    .map(|(name, count)| (name.to_owned(), i64::try_from(count).unwrap_or(i64::MAX)))
                    .collect()
            }
        }
    }
}

/// A push consumer with the settings of the command line.
fn push(client: &Client, setup: &Setup) -> Result<PushConsumerBuilder, Failure> {
    let arguments = &setup.arguments;
    let mut builder = client
        .push_consumer(arguments.text("--group"))
        .consume_from(setup.consume_from()?)
        .concurrency(arguments.parsed("--concurrency")?)
        .max_reconsume_times(arguments.parsed("--max-reconsume-times")?)
        .consume_timeout(arguments.millis("--consume-timeout-ms")?)
        .commit_interval(arguments.millis("--commit-interval-ms")?)
        .rebalance_interval(arguments.millis("--rebalance-interval-ms")?)
        .max_cached_messages_per_queue(arguments.parsed("--max-cached")?)
        .max_cached_bytes(arguments.parsed("--max-cached-bytes")?)
        .max_span(arguments.parsed("--max-span")?)
        .suspend_time(arguments.millis("--suspend-ms")?)
        .shutdown_grace(arguments.millis("--grace-ms")?);
    for topic in arguments.list("--topic") {
        builder = builder.subscribe(topic, arguments.text("--filter"));
    }
    Ok(builder)
}

/// Where a member of its own keeps its offsets.
fn local(setup: &Setup) -> Broadcasting {
    let local = Broadcasting::new().identity(setup.identity());
    match setup.arguments.text("--offsets") {
        "" => local,
        directory => local.directory(directory),
    }
}

fn retry(setup: &Setup) -> Result<Retry, Failure> {
    Ok(match setup.arguments.parsed("--retry-level")? {
        0 => Retry::Broker,
        level => Retry::Level(level),
    })
}

async fn one_by_one(builder: PushConsumerBuilder, setup: &Setup) -> Result<PushConsumer, Failure> {
    let (worker, retry) = (Arc::clone(&setup.worker), retry(setup)?);
    let handler = move |message: MessageView| {
        let worker = Arc::clone(&worker);
        async move {
            let (_, end) = worker.handle(std::slice::from_ref(&message)).await?;
            Ok::<_, Failure>(match end {
                End::Done => Outcome::Ack,
                End::Failed => Outcome::Retry(retry),
                End::Rejected => Outcome::Reject("poison".into()),
            })
        }
    };
    Ok(builder.start(handler).await?)
}

async fn in_batches(builder: PushConsumerBuilder, setup: &Setup) -> Result<PushConsumer, Failure> {
    let (worker, retry) = (Arc::clone(&setup.worker), retry(setup)?);
    let size = setup.arguments.parsed("--batch")?;
    let handler = move |messages: Vec<MessageView>| {
        let worker = Arc::clone(&worker);
        async move {
            let (done, end) = worker.handle(&messages).await?;
            Ok::<_, Failure>(match end {
                End::Done => BatchOutcome::Ack,
                End::Failed => BatchOutcome::RetryFrom(done, retry),
                // What is behind the poison goes with it.
                End::Rejected => BatchOutcome::each(messages.iter().enumerate().map(|(place, _)| {
                    if place < done {
                        Outcome::Ack
                    } else {
                        Outcome::Reject("poison".into())
                    }
                })),
            })
        }
    };
    Ok(builder.start_batch(size, handler).await?)
}
