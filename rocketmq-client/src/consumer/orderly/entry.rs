//! How a queue whose order is kept comes to be consumed: after its lock, and anew after the lock was lost.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{InOrder, OrderedQueue};
use crate::consumer::engine::Engine;
use crate::consumer::pull::{self, Start};
use crate::protocol::bodies::MessageQueue;
use crate::sync::lock;

/// Pulls a queue whenever it is this member's, until it is told to stop.
pub(in crate::consumer) async fn consume_in_order(
    engine: Arc<Engine>,
    queue: MessageQueue,
    ordered: Arc<OrderedQueue>,
    mut start: Start,
    stop: CancellationToken,
) {
    loop {
        let epoch = ordered.held().await;
        let in_order = InOrder {
            queue: Arc::clone(&ordered),
            epoch,
        };
        let open = pull::open(
            Arc::clone(&engine),
            queue.clone(),
            start,
            stop.clone(),
            Some(in_order),
        );
        let consume = async {
            if let Some(mut pulls) = open.await {
                pulls.run().await;
            }
        };
        tokio::select! {
            () = consume => return,
            () = ordered.lost(epoch) => {}
        }
        let reached = lock(&engine.assignment).close(&queue, &stop);
        warn!(group = %engine.group, %queue, ?reached, "the lock of the queue is lost, it is asked for again");
        if let Some(reached) = reached {
            start = Start::Again(reached);
        }
    }
}
