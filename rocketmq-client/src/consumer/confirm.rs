//! Commits that brokers confirm.
//!
//! One after the other on one broker: of a group's first commits for a topic that arrive at the same time, brokers keep
//! but one, and confirm all (4.9.7 and 5.5.0, `ConsumerOffsetManager#commitOffset`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::remote::Remote;
use crate::error::Result;
use crate::protocol::bodies::MessageQueue;
use crate::tasks::join_all;

/// Commits offsets and gives for each whether its broker has confirmed it. All of it takes `limit` at the most.
///
/// # Cancellation
/// Safe; some of them may be committed.
pub(super) async fn commit_confirmed(
    remote: &Remote,
    offsets: impl IntoIterator<Item = (MessageQueue, i64)>,
    limit: Duration,
) -> Vec<(MessageQueue, i64, Result<()>)> {
    let mut brokers: BTreeMap<Arc<str>, Vec<(MessageQueue, i64)>> = BTreeMap::new();
    for (queue, offset) in offsets {
        let broker = brokers.entry(Arc::clone(&queue.broker_name)).or_default();
        broker.push((queue, offset));
    }
    let deadline = Instant::now() + limit;
    let commits = brokers.into_values().map(|offsets| async move {
        let mut results = Vec::with_capacity(offsets.len());
        for (queue, offset) in offsets {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = remote.commit_confirmed(&queue, offset, left).await;
            results.push((queue, offset, result));
        }
        results
    });
    join_all(commits).await.into_iter().flatten().collect()
}
