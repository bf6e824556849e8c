//! The RocketMQ binder put through the suite of all binders, on every target.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use integration_tests::{
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::protocol::names::dlq_topic;
use stream_binder::{
    Binder, RocketMqBinder,
    conformance::{self, MAX_ATTEMPTS},
    conformance_checks,
};
use tokio::{runtime::Handle, task::block_in_place};

use crate::{
    binding::{PATIENCE, config},
    raw,
};

/// Makes a scenario of each check.
macro_rules! scenarios_of {
    ($($check:ident)+) => {
        scenarios![$($check),+];

        $(async fn $check(target: &Target) -> TestResult {
            Ok(conformance::$check(&Bench(target)).await?)
        })+
    };
}

conformance_checks! { scenarios_of, }

/// A target as the suite of all binders wants it.
struct Bench<'a>(&'a Target);

#[async_trait]
impl conformance::Target for Bench<'_> {
    async fn binder(&self) -> Arc<dyn Binder> {
        let retries = MAX_ATTEMPTS - 1;
        let yaml =
            format!("spring.cloud.stream.rocketmq.default.consumer.push.max-reconsume-times: {retries}");
        let config = config(self.0, &yaml).expect("a valid configuration");
        Arc::new(
            RocketMqBinder::connect(&config)
                .await
                .expect("a reachable name server"),
        )
    }

    async fn unique(&self, base: &str) -> String {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let count = NAMES.fetch_add(1, Ordering::Relaxed);
        let name = self.0.topic(&format!("{base}{count}"));
        here(self.0.create_topic(&name, 4)).expect("the broker creates topics");
        name
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn watch(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn dead_letters(&self, group: &str, count: usize) -> Vec<Bytes> {
        here(async {
            let broker = self.0.first_broker().await.expect("a broker");
            let mut letters = Vec::new();
            // What is missing after the patience is for the check to say.
            let _ = eventually("dead letters", async || {
                if let Ok(pulled) = raw::pull(broker, group, &dlq_topic(group), 0, 0, "*").await {
                    letters = raw::records(&pulled)?
                        .into_iter()
                        .map(|record| record.body)
                        .collect();
                }
                Ok(letters.len() >= count)
            })
            .await;
            letters
        })
    }
}

/// Runs to the end on this thread. The suite wants futures that move between threads, which those that poll with
/// closures are not.
fn here<F: Future>(future: F) -> F::Output {
    block_in_place(|| Handle::current().block_on(future))
}
