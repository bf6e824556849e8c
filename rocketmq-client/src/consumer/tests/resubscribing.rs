//! Subscriptions that change while the consumer runs.

use super::*;
use crate::protocol::bodies::HeartbeatData;

/// A topic, its expression and its version.
type Told = (String, String, i64);

impl Stage {
    /// The subscriptions that each heartbeat so far has told of, with their versions, and where it came among all
    /// requests.
    fn told(&self) -> Vec<(usize, Vec<Told>)> {
        let beats = self.broker.requests().into_iter().enumerate();
        beats
            .filter(|(_, frame)| frame.code == HeartBeat::CODE.0)
            .map(|(at, frame)| {
                let data = HeartbeatData::from_body(&frame.body).unwrap();
                let told = data
                    .consumer_data_set
                    .into_iter()
                    .flat_map(|consumer| consumer.subscription_data_set);
                let told = told.filter(|data| !data.topic.starts_with("%RETRY%"));
                (
                    at,
                    told.map(|data| (data.topic, data.sub_string, data.sub_version))
                        .collect(),
                )
            })
            .collect()
    }

    /// The pulls of a topic and where each came among all requests.
    fn pulls_of(&self, topic: &str) -> Vec<(usize, PullMessage)> {
        let requests = self.broker.requests().into_iter().enumerate();
        requests
            .filter(|(_, frame)| frame.code == PullMessage::CODE.0)
            .map(|(at, frame)| (at, PullMessage::from_frame(frame).unwrap()))
            .filter(|(_, pull)| pull.topic == topic)
            .collect()
    }

    async fn pulled(&self, topic: &str, count: usize) -> Vec<(usize, PullMessage)> {
        until(|| self.pulls_of(topic).len() >= count).await;
        self.pulls_of(topic)
    }
}

#[tokio::test]
async fn a_pull_that_is_held_for_the_old_filter_is_repeated_with_the_new_one() {
    let stage = Stage::new().await;
    let (handler, mut received) = collector();
    let builder = stage.builder();
    let consumer = builder.start(handler).await.unwrap();
    let held = stage.pulled(TOPIC, 1).await.remove(0).1;
    consumer.subscribe(TOPIC, "a || b").await.unwrap();
    let (at, pull) = stage.pulled(TOPIC, 2).await.remove(1);
    assert_eq!(pull.queue_offset, held.queue_offset);
    assert!(pull.sub_version > held.sub_version);
    let told = stage.told();
    let (told_at, told) = told.last().unwrap();
    assert!(
        *told_at < at,
        "a broker hears of the filter before it is pulled by"
    );
    assert_eq!(told, &[(TOPIC.to_owned(), "a || b".to_owned(), pull.sub_version)]);
    // The same once more changes nothing.
    consumer.subscribe(TOPIC, "a||b").await.unwrap();
    assert_eq!(consumer.engine().subscriptions.changes(), 1);
    consumer.shutdown().await;
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_to_the_old_filter_is_not_taken_for_one_to_the_new() {
    let stage = Stage::new().await;
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    stage.pulled(TOPIC, 1).await;
    let held = stage
        .broker
        .requests()
        .into_iter()
        .find(|frame| {
            frame.code == PullMessage::CODE.0
                && PullMessage::from_frame(frame.clone()).unwrap().topic == TOPIC
        })
        .unwrap();
    // The table has changed, and the broker's answer comes before the pull is cut off: what the old filter passed by
    // up to offset 50 may be what the new one wants.
    let _ = consumer
        .engine()
        .subscriptions
        .set(TOPIC, Filter::from("b"), i64::MAX - 1);
    let Answer::Respond(answer) = pull_result(PullStatus::NoMatchedMessage, 50, Bytes::new()) else {
        panic!("it is an answer");
    };
    stage.broker.push(Frame {
        opaque: held.opaque,
        ..answer
    });
    let (_, pull) = stage.pulled(TOPIC, 2).await.remove(1);
    assert_eq!((pull.queue_offset, pull.sub_version), (0, i64::MAX - 1));
    consumer.shutdown().await;
    assert!(stage.commits().is_empty());
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_topic_is_taken_up_and_given_up_while_the_consumer_runs() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b"]);
    let (handler, mut received) = collector();
    let consumer = stage
        .builder()
        .commit_interval(Duration::from_secs(3600))
        .start(handler)
        .await
        .unwrap();
    for body in ["a", "b"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    stage
        .routes
        .set("refunds", route(&[("broker-a", &stage.broker.address())], 1));
    consumer.subscribe("refunds", "x").await.unwrap();
    assert_eq!(
        consumer.subscriptions(),
        std::collections::BTreeMap::from([
            (TOPIC.to_owned(), Filter::all()),
            ("refunds".to_owned(), Filter::from("x"))
        ])
    );
    let (at, _) = stage.pulled("refunds", 1).await.remove(0);
    let told = stage.told();
    assert!(
        told.iter()
            .any(|(told_at, told)| *told_at < at && told.len() == 2)
    );
    until(|| consumer.stats().acknowledged == 2).await;
    let pulls = stage.pulls_of(TOPIC).len();
    assert!(consumer.unsubscribe(TOPIC).await.unwrap());
    assert!(!consumer.unsubscribe(TOPIC).await.unwrap());
    assert_eq!(
        consumer.stats().queues,
        [MessageQueue::new("refunds", "broker-a", 0)]
    );
    // What was consumed of it is committed at once.
    until(|| {
        let commits = stage.broker.requests_of::<UpdateConsumerOffset>();
        commits
            .iter()
            .any(|commit| commit.topic == TOPIC && commit.commit_offset == 2)
    })
    .await;
    let told = stage.told();
    let (_, last) = told.last().unwrap();
    assert_eq!(
        last.iter().map(|(topic, ..)| &**topic).collect::<Vec<_>>(),
        ["refunds"]
    );
    // Subscribed to again, it goes on at the group's offset.
    stage
        .script
        .then::<QueryConsumerOffset>(Answer::with(Offset { offset: 2 }));
    consumer.subscribe(TOPIC, "*").await.unwrap();
    let again = stage.pulled(TOPIC, pulls + 1).await;
    assert_eq!(again.last().unwrap().1.queue_offset, 2);
    consumer.shutdown().await;
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    let (handler, _received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for (topic, filter, reason) in [
        ("", "*", "topic"),
        ("not a topic", "*", "not a topic"),
        ("refunds", "a || *", "use `*` alone"),
        ("%RETRY%billing", "*", "retry topic"),
    ] {
        let error = consumer.subscribe(topic, filter).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Config, "{topic}: {error}");
        assert!(error.to_string().contains(reason), "{topic}: {error}");
    }
    assert!(!consumer.unsubscribe("%RETRY%billing").await.unwrap());
    assert_eq!(consumer.subscriptions().len(), 1);
    consumer.shutdown().await;
    let error = consumer.subscribe("refunds", "*").await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Closed);
    assert_eq!(
        consumer.unsubscribe(TOPIC).await.unwrap_err().kind(),
        crate::ErrorKind::Closed
    );
}
