//! What a broker sees of a member that broadcasts.

use std::path::PathBuf;

use super::*;
use crate::protocol::bodies::{HeartbeatData, MessageModel};
use crate::protocol::requests::pull_flag;

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("broadcasting-{}", uuid::Uuid::new_v4())))
    }

    fn settings(&self) -> Broadcasting {
        Broadcasting::new().directory(&self.0).identity("one")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.0.join("one").join(GROUP).join("offsets.json")).unwrap_or_default()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn brokers_see_pulls_and_heartbeats_and_nothing_else() {
    let (stage, directory) = (Stage::new().await, Directory::new());
    let address = stage.broker.address();
    stage.routes.set(TOPIC, route(&[("broker-a", &address)], 2));
    stage.script.store(&["a", "b", "c"]);
    let (handler, mut received) = collector();
    let builder = stage.builder().consume_from(ConsumeFrom::First);
    let consumer = builder
        .broadcasting_with(directory.settings())
        .start(handler)
        .await
        .unwrap();
    for body in ["a", "b", "c"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    assert_eq!(consumer.stats().queues.len(), 2);
    consumer.shutdown().await;

    let text = directory.text();
    assert!(text.contains("\"queueId\":0,\"topic\":\"orders\"}:3"), "{text}");
    assert!(text.contains("\"queueId\":1,\"topic\":\"orders\"}:0"), "{text}");
    for pull in stage.broker.requests_of::<PullMessage>() {
        assert_eq!(pull.sys_flag & pull_flag::COMMIT_OFFSET, 0);
        assert_eq!(pull.topic, TOPIC);
    }
    let heartbeats = stage.broker.requests_of::<HeartBeat>();
    let data = HeartbeatData::from_body(&heartbeats[0].body).unwrap();
    let member = &data.consumer_data_set[0];
    assert_eq!(member.message_model, MessageModel::Broadcasting);
    assert_eq!(member.subscription_data_set.len(), 1, "no retry topic");
    assert!(stage.commits().is_empty());
    assert_eq!(stage.broker.requests_of::<QueryConsumerOffset>(), []);
    assert_eq!(stage.broker.requests_of::<ConsumerListByGroup>(), []);
}

#[tokio::test]
async fn the_next_start_goes_on_in_the_file_and_begins_with_what_is_new() {
    let directory = Directory::new();
    for queues in [1, 2] {
        let stage = Stage::new().await;
        let address = stage.broker.address();
        stage.routes.set(TOPIC, route(&[("broker-a", &address)], queues));
        let consumer = stage
            .builder()
            .broadcasting_with(directory.settings())
            .start(|_: MessageView| async {})
            .await
            .unwrap();
        let pulls = soon(
            stage
                .broker
                .asked::<PullMessage>(usize::try_from(queues).unwrap()),
        )
        .await;
        let mut starts: Vec<_> = pulls
            .iter()
            .map(|pull| (pull.queue_id, pull.queue_offset))
            .collect();
        starts.sort_unstable();
        // The first start is at the end; a queue that was not there then is read from its start.
        assert_eq!(starts, [(0, 1000), (1, 0)][..starts.len()]);
        consumer.shutdown().await;
    }
}
