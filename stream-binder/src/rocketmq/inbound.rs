//! Input bindings: one push consumer each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rocketmq_client::{Client, ConsumeFrom, Outcome as Decision, PushConsumer, Retry};

use super::message::incoming;
use crate::binder::{BindError, BoundConsumer, ConsumerBinding, DeliveryHandler};
use crate::config::{Config, ConsumeFromWhere, DelayLevelWhenNextConsume};
use crate::failure::{ErrorChain, Failure, Outcome, RetryDelay, Settlement};

/// How far back `CONSUME_FROM_TIMESTAMP` goes, as in Java's client.
const TIMESTAMP_AGE: Duration = Duration::from_secs(30 * 60);

/// Bytes in a MiB.
const MIB: usize = 1024 * 1024;

/// A running input binding.
#[derive(Debug)]
struct Inbound(PushConsumer);

/// Joins the group of the binding and delivers to `handler`.
pub(super) async fn bind(
    client: &Client,
    config: &Config,
    binding: ConsumerBinding,
    handler: DeliveryHandler,
) -> Result<Box<dyn BoundConsumer>, BindError> {
    let properties = config.rocketmq().consumer(&binding.name);
    let max_attempts = properties.max_reconsume_times.saturating_add(1);
    let policy = properties.delay_level_when_next_consume;
    let (name, topic) = (Arc::clone(&binding.name), Arc::clone(&binding.destination));
    let consumer = client
        .push_consumer(&*binding.group)
        .subscribe(&*binding.destination, properties.subscription.as_str())
        .concurrency(binding.concurrency)
        .consume_from(consume_from(properties.consume_from_where))
        .max_reconsume_times(properties.max_reconsume_times)
        .pull_batch_size(size(properties.pull_batch_size))
        .max_cached_messages_per_queue(size(properties.pull_threshold_for_queue))
        .max_cached_bytes_per_queue(size(properties.pull_threshold_size_for_queue).saturating_mul(MIB))
        .max_span(properties.consume_max_span)
        .consume_timeout(properties.consume_timeout)
        .commit_interval(properties.persist_consumer_offset_interval)
        .paused(!binding.auto_startup)
        .start(move |view| {
            let handler = handler.clone();
            let delivery = incoming(&name, &topic, &view, max_attempts);
            async move { decide(handler.handle(delivery).await, policy) }
        })
        .await
        .map_err(|error| BindError::new(&*binding.name, ErrorChain(&error).to_string()))?;
    Ok(Box::new(Inbound(consumer)))
}

#[async_trait]
impl BoundConsumer for Inbound {
    fn pause(&self) {
        self.0.pause();
    }

    fn resume(&self) {
        self.0.resume();
    }

    async fn stop(&self, grace: Duration) -> usize {
        self.0.shutdown_within(grace).await.handlers_cut_off
    }
}

/// What the client does with a message, given what became of its delivery.
fn decide(outcome: Outcome, policy: DelayLevelWhenNextConsume) -> Decision {
    let retry = match outcome.settlement() {
        Settlement::Ack => return Decision::Ack,
        Settlement::Reject => return Decision::Reject(reason(outcome)),
        Settlement::Retry(RetryDelay::Level(level)) => Retry::Level(level),
        Settlement::Retry(RetryDelay::After(delay)) => Retry::After(delay),
        Settlement::Retry(RetryDelay::Broker) => match policy {
            DelayLevelWhenNextConsume::DeadLetter => return Decision::Reject(reason(outcome)),
            DelayLevelWhenNextConsume::Broker => Retry::Broker,
            DelayLevelWhenNextConsume::Level(level) => Retry::Level(level),
        },
    };
    Decision::Retry(retry)
}

fn reason(outcome: Outcome) -> crate::BoxError {
    match outcome {
        Outcome::Ack => "acknowledged".into(),
        Outcome::Failed(
            Failure::Retry(error)
            | Failure::RetryIn(_, error)
            | Failure::RetryLevel(_, error)
            | Failure::Reject(error)
            | Failure::Skip(error),
        ) => error,
    }
}

fn consume_from(place: ConsumeFromWhere) -> ConsumeFrom {
    match place {
        ConsumeFromWhere::LastOffset => ConsumeFrom::Last,
        ConsumeFromWhere::FirstOffset => ConsumeFrom::First,
        ConsumeFromWhere::Timestamp => {
            let now = SystemTime::now();
            ConsumeFrom::Timestamp(now.checked_sub(TIMESTAMP_AGE).unwrap_or(now))
        }
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failure: Failure, policy: DelayLevelWhenNextConsume) -> Decision {
        decide(Outcome::Failed(failure), policy)
    }

    #[test]
    fn a_function_that_chooses_goes_before_the_policy_of_the_binding() {
        let policy = DelayLevelWhenNextConsume::Level(4);
        assert!(matches!(decide(Outcome::Ack, policy), Decision::Ack));
        assert!(matches!(failed(Failure::skip("x"), policy), Decision::Ack));
        assert!(matches!(
            failed(Failure::reject("x"), policy),
            Decision::Reject(_)
        ));
        assert!(matches!(
            failed(Failure::retry_level(2, "x"), policy),
            Decision::Retry(Retry::Level(2))
        ));
        let second = Duration::from_secs(1);
        assert!(matches!(
            failed(Failure::retry_in(second, "x"), policy),
            Decision::Retry(Retry::After(delay)) if delay == second
        ));
    }

    #[test]
    fn the_policy_of_the_binding_decides_about_plain_failures() {
        for (policy, expected) in [
            (DelayLevelWhenNextConsume::Broker, Retry::Broker),
            (DelayLevelWhenNextConsume::Level(4), Retry::Level(4)),
        ] {
            assert!(
                matches!(failed(Failure::retry("x"), policy), Decision::Retry(retry) if retry == expected)
            );
        }
        let dead = failed(Failure::retry("why"), DelayLevelWhenNextConsume::DeadLetter);
        assert!(matches!(dead, Decision::Reject(error) if error.to_string() == "why"));
    }
}
