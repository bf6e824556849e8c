//! Where a queue without an offset starts, where one beyond its end goes on, and from which replica it is pulled.

use super::*;
use crate::protocol::requests::{BrokerRuntimeInfo, SearchOffset};

impl Stage {
    /// What is pulled first of each queue.
    async fn first_pulls(&self, queues: usize) -> Vec<(i32, i64)> {
        let pulls = soon(self.broker.asked::<PullMessage>(queues)).await;
        let mut first: Vec<(i32, i64)> = Vec::new();
        for pull in pulls.iter().filter(|pull| pull.topic == TOPIC) {
            if !first.iter().any(|(queue, _)| *queue == pull.queue_id) {
                first.push((pull.queue_id, pull.queue_offset));
            }
        }
        first.sort_unstable();
        first
    }

    async fn with_queues(queues: i32, committed: &[(i32, i64)]) -> Self {
        let stage = Self::new().await;
        stage
            .routes
            .set(TOPIC, route(&[("broker-a", &stage.broker.address())], queues));
        lock(&stage.script.0).committed = Some(committed.iter().copied().collect());
        stage
    }
}

#[tokio::test]
async fn a_new_group_starts_at_the_end_of_all_queues_and_says_so_at_once() {
    let stage = Stage::with_queues(3, &[]).await;
    let builder = stage.builder().commit_interval(Duration::from_secs(3600));
    let consumer = builder.start(|_: MessageView| async {}).await.unwrap();
    assert_eq!(stage.first_pulls(3).await, [(0, 1000), (1, 1000), (2, 1000)]);
    soon(stage.broker.asked::<UpdateConsumerOffset>(3)).await;
    assert_eq!(stage.commits(), [1000; 3]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_queue_without_an_offset_is_new_if_the_group_has_consumed_another_one() {
    let stage = Stage::with_queues(3, &[(0, 0), (2, 7)]).await;
    let consumer = stage.builder().start(|_: MessageView| async {}).await.unwrap();
    assert_eq!(stage.first_pulls(3).await, [(0, 0), (1, 0), (2, 7)]);
    assert_eq!(stage.broker.requests_of::<MaxOffset>(), []);
    consumer.shutdown().await;
}

#[tokio::test]
async fn new_queues_start_as_all_do_if_that_is_wanted() {
    let stage = Stage::with_queues(2, &[(0, 7)]).await;
    let builder = stage.builder().new_queues(NewQueues::AsConsumeFrom);
    let consumer = builder.start(|_: MessageView| async {}).await.unwrap();
    assert_eq!(stage.first_pulls(2).await, [(0, 7), (1, 1000)]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_topic_that_comes_while_the_consumer_runs_is_read_from_its_start() {
    let stage = Stage::with_queues(2, &[]).await;
    stage.routes.remove(TOPIC);
    let consumer = stage.builder().start(|_: MessageView| async {}).await.unwrap();
    let address = stage.broker.address();
    stage.routes.set(TOPIC, route(&[("broker-a", &address)], 2));
    assert_eq!(stage.first_pulls(2).await, [(0, 0), (1, 0)]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn beyond_the_end_of_a_queue_that_was_read_what_came_since_is_searched_by_time() {
    let stage = Stage::new().await;
    let stored_at = |time, offset, body| Record {
        store_timestamp: time,
        ..record(offset, body)
    };
    let before = ["a", "b", "c", "d", "e"];
    let before: Vec<Record> = (0i64..)
        .zip(before)
        .map(|(offset, body)| stored_at(5_000, offset, body))
        .collect();
    // The broker has lost the last three after they were consumed, and two others have come.
    let mut after = before[..2].to_vec();
    after.extend([stored_at(9_000, 2, "new"), stored_at(9_000, 3, "newer")]);
    lock(&stage.script.0).log = after;
    stage.script.then::<PullMessage>(found(&before));
    stage
        .script
        .then::<PullMessage>(pull_result(PullStatus::OffsetIllegal, 4, Bytes::new()));
    stage
        .script
        .then::<SearchOffset>(Answer::with(Offset { offset: 2 }));
    let (handler, mut received) = collector();
    let consumer = stage.builder().concurrency(1).start(handler).await.unwrap();
    let mut bodies = Vec::new();
    while bodies.last().is_none_or(|body| body != "newer") {
        bodies.push(soon(received.recv()).await.unwrap());
    }
    assert!(bodies.iter().any(|body| body == "new"), "{bodies:?}");
    let searches = stage.broker.requests_of::<SearchOffset>();
    assert_eq!(searches.first().map(|search| search.timestamp), Some(5_000));
    assert_eq!(stage.broker.requests_of::<BrokerRuntimeInfo>(), []);
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&4));
}

#[tokio::test]
async fn beyond_the_end_at_the_start_what_came_since_the_brokers_start_is_read() {
    let stage = Stage::with_queues(1, &[(0, 500)]).await;
    stage.script.store(&["old", "new", "newer"]);
    stage
        .script
        .then::<PullMessage>(pull_result(PullStatus::OffsetIllegal, 3, Bytes::new()));
    stage
        .script
        .then::<SearchOffset>(Answer::with(Offset { offset: 1 }));
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for body in ["new", "newer"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    let searches = stage.broker.requests_of::<SearchOffset>();
    assert_eq!(searches.first().map(|search| search.timestamp), Some(1234));
    consumer.shutdown().await;
}

#[tokio::test]
async fn an_operators_reset_is_followed_to_the_letter() {
    let stage = Stage::with_queues(1, &[(0, 500)]).await;
    stage.script.store(&["a", "b", "c"]);
    let reset = PullResult {
        status: PullStatus::OffsetIllegal,
        header: PullResultHeader {
            next_begin_offset: 2,
            ..PullResultHeader::default()
        },
        messages: Bytes::new(),
        remark: Some("OFFSET_RESET".to_owned()),
    };
    stage.script.then::<PullMessage>(Answer::with(reset));
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), "c");
    assert_eq!(stage.broker.requests_of::<SearchOffset>(), []);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_slave_that_does_not_have_the_offset_is_left_for_the_master_at_the_same_offset() {
    for status in [PullStatus::OffsetIllegal, PullStatus::NoMatchedMessage] {
        let stage = Stage::with_queues(1, &[(0, 2)]).await;
        stage.script.store(&["a", "b", "c", "d"]);
        let slave = FakeServer::start(move |frame| {
            if frame.code != PullMessage::CODE.0 {
                return testing::manage(frame).unwrap_or(Answer::Silence);
            }
            Answer::with(PullResult {
                status,
                header: PullResultHeader {
                    suggest_which_broker_id: 1,
                    next_begin_offset: 1,
                    ..PullResultHeader::default()
                },
                messages: Bytes::new(),
                remark: Some("OFFSET_OVERFLOW_BADLY".to_owned()),
            })
        })
        .await;
        let mut both = route(&[("broker-a", &stage.broker.address())], 1);
        both.broker_datas[0].broker_addrs.insert(1, slave.address());
        stage.routes.set(TOPIC, both);
        let one = lock(&stage.script.0).log[2..3].to_vec();
        stage.script.then::<PullMessage>(Answer::with(PullResult {
            status: PullStatus::Found,
            header: PullResultHeader {
                suggest_which_broker_id: 1,
                next_begin_offset: 3,
                ..PullResultHeader::default()
            },
            messages: encoded(&one).freeze(),
            remark: None,
        }));
        let (handler, mut received) = collector();
        let consumer = stage.builder().start(handler).await.unwrap();
        for body in ["c", "d"] {
            assert_eq!(soon(received.recv()).await.unwrap(), body);
        }
        consumer.shutdown().await;
        let at_the_slave: Vec<i64> = slave
            .requests_of::<PullMessage>()
            .iter()
            .map(|pull| pull.queue_offset)
            .collect();
        assert_eq!(at_the_slave, [3]);
        assert_eq!(stage.pulls()[..2], [2, 3]);
        assert!(
            stage.commits().iter().all(|&offset| offset >= 2),
            "{:?}",
            stage.commits()
        );
        assert_eq!(slave.requests_of::<UpdateConsumerOffset>(), []);
    }
}
