//! Latency fault tolerance: for how long a broker that answered slowly comes later, and how one that did not answer is
//! found well again.
//!
//! Protocol source: `MQFaultStrategy`, `LatencyFaultToleranceImpl`. What is known of each broker is kept by the
//! transport.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use super::Cluster;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::MaxOffset;

/// Which latency makes other brokers be preferred, and for how long. Java: `latencyMax` and `notAvailableDuration` of
/// `MQFaultStrategy`, which `sendLatencyFaultEnable` switches on.
///
/// ```
/// use std::time::Duration;
/// use rocketmq_client::LatencyFaultTolerance;
///
/// let table = LatencyFaultTolerance::default();
/// assert_eq!(table.not_available(Duration::from_millis(100)), Duration::ZERO);
/// assert_eq!(table.not_available(Duration::from_millis(600)), Duration::from_secs(2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyFaultTolerance {
    /// Latencies, ascending, and for how long others are preferred from each on.
    steps: Vec<(Duration, Duration)>,
    /// The latency that a failure counts as.
    failure: Duration,
}

/// The table of Java 5.x.
impl Default for LatencyFaultTolerance {
    fn default() -> Self {
        Self::millis(
            [50, 100, 550, 1800, 3000, 5000, 15_000],
            [0, 0, 2000, 5000, 6000, 10_000, 30_000],
            10_000,
        )
    }
}

impl LatencyFaultTolerance {
    /// The table of Java 4.9, which avoids slow brokers for longer.
    #[must_use]
    pub fn java_4() -> Self {
        Self::millis(
            [50, 100, 550, 1000, 2000, 3000, 15_000],
            [0, 0, 30_000, 60_000, 120_000, 180_000, 600_000],
            30_000,
        )
    }

    /// A table of one's own: from each latency on, for how long other brokers are preferred. Java: `setLatencyMax`,
    /// `setNotAvailableDuration`.
    #[must_use]
    pub fn new(steps: impl IntoIterator<Item = (Duration, Duration)>) -> Self {
        let mut steps: Vec<_> = steps.into_iter().collect();
        steps.sort();
        Self {
            steps,
            ..Self::default()
        }
    }

    /// The latency that a send without an answer counts as. Default 10 s.
    #[must_use]
    pub fn failure_counts_as(mut self, latency: Duration) -> Self {
        self.failure = latency;
        self
    }

    fn millis(latencies: [u64; 7], not_available: [u64; 7], failure: u64) -> Self {
        let steps = latencies.into_iter().zip(not_available);
        Self {
            steps: steps
                .map(|(latency, time)| (Duration::from_millis(latency), Duration::from_millis(time)))
                .collect(),
            failure: Duration::from_millis(failure),
        }
    }

    /// For how long other brokers are preferred after an answer that took this long.
    #[must_use]
    pub fn not_available(&self, latency: Duration) -> Duration {
        let reached = self.steps.iter().rev().find(|(from, _)| *from <= latency);
        reached.map_or(Duration::ZERO, |(_, time)| *time)
    }

    /// The same after a send that was not answered.
    #[must_use]
    pub fn not_available_after_failure(&self) -> Duration {
        self.not_available(self.failure)
    }
}

/// How it is found out that a broker is reachable again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detector {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl Cluster {
    /// Asks a broker that did not answer for an offset, again and again, until it answers: then it is as good as any.
    /// To be called once for each time that it breaks.
    pub(crate) fn detect(self: &Arc<Self>, address: &Arc<str>, queue: &MessageQueue, detector: Detector) {
        let cluster = Arc::clone(self);
        let address = Arc::clone(address);
        let probe = MaxOffset {
            topic: queue.topic.to_string(),
            queue_id: queue.queue_id,
        };
        self.tasks.spawn("detect", |stop| async move {
            let detecting = async {
                loop {
                    sleep(detector.interval).await;
                    let standings = cluster.remoting.pool().standings();
                    if !standings.is_broken(&address) {
                        return;
                    }
                    if !cluster.routes.is_broker(&address) {
                        // It is in no route any more, so nobody sends to it.
                        standings.good(&address);
                        return;
                    }
                    match cluster.call_addr(&address, &probe, detector.timeout).await {
                        Err(error) if error.response().is_none() => {
                            debug!(%address, %error, "the broker is not reachable yet");
                        }
                        // A refusal is an answer.
                        _ => {
                            info!(%address, "the broker is reachable again");
                            standings.good(&address);
                            return;
                        }
                    }
                }
            };
            stop.run_until_cancelled(detecting).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_java() {
        let tables = [LatencyFaultTolerance::default(), LatencyFaultTolerance::java_4()];
        for (latency, five, four) in [
            (0, 0, 0),
            (49, 0, 0),
            (50, 0, 0),
            (549, 0, 0),
            (550, 2000, 30_000),
            (999, 2000, 30_000),
            (1000, 2000, 60_000),
            (1799, 2000, 60_000),
            (1800, 5000, 60_000),
            (2000, 5000, 120_000),
            (3000, 6000, 180_000),
            (5000, 10_000, 180_000),
            (15_000, 30_000, 600_000),
            (1_000_000, 30_000, 600_000),
        ] {
            let latency = Duration::from_millis(latency);
            let times = tables
                .each_ref()
                .map(|table| table.not_available(latency).as_millis());
            assert_eq!(times, [five, four], "{latency:?}");
        }
        let failed = tables.map(|table| table.not_available_after_failure().as_secs());
        assert_eq!(failed, [10, 600]);
    }

    #[test]
    fn a_table_of_ones_own_needs_no_order() {
        let seconds = Duration::from_secs;
        let table = LatencyFaultTolerance::new([(seconds(2), seconds(9)), (seconds(1), seconds(3))]);
        assert_eq!(table.not_available(Duration::from_millis(999)), Duration::ZERO);
        assert_eq!(table.not_available(seconds(1)), seconds(3));
        assert_eq!(table.not_available(seconds(2)), seconds(9));
        assert_eq!(
            table.failure_counts_as(seconds(1)).not_available_after_failure(),
            seconds(3)
        );
    }
}
