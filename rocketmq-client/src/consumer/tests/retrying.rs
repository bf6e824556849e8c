//! When failed messages come again.

use super::*;

#[tokio::test]
async fn a_failed_message_comes_again_as_the_policy_says_for_its_attempt() {
    let stage = Stage::new().await;
    stage.script.store(&["first", "fourth", "hundredth"]);
    for (at, times) in [(1, 3), (2, 99)] {
        lock(&stage.script.0).log[at].reconsume_times = times;
    }
    let consumer = stage
        .builder()
        .max_reconsume_times(1000)
        .retry_by_attempt(|attempt| match attempt {
            1 => Retry::Level(2),
            4 => Retry::After(Duration::from_secs(60)),
            _ => panic!("on purpose"),
        })
        .start(|_: MessageView| async { Err::<(), _>("no") })
        .await
        .unwrap();
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(3)).await;
    let mut levels: Vec<_> = backs.iter().map(|back| (back.offset, back.delay_level)).collect();
    levels.sort_unstable();
    assert_eq!(levels, [(7, 2), (1007, 5), (2007, 0)]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_says_when_is_obeyed() {
    let stage = Stage::new().await;
    stage.script.store(&["a"]);
    let consumer = stage
        .builder()
        .retry(Retry::Level(9))
        .start(|_: MessageView| async { Outcome::Retry(Retry::Broker) })
        .await
        .unwrap();
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(1)).await;
    assert_eq!(backs[0].delay_level, 0);
    consumer.shutdown().await;
}

#[tokio::test]
async fn an_exact_retry_is_a_timed_copy_and_a_level_where_that_is_refused() {
    let stage = Stage::new().await;
    stage.script.store(&["timed", "refused", "dead"]);
    lock(&stage.script.0).log[2].reconsume_times = 16;
    stage.script.then::<SendMessageV2>(Answer::with(SendResult {
        code: ResponseCode::SUCCESS,
        header: SendResultHeader::default(),
    }));
    stage
        .script
        .then::<SendMessageV2>(Answer::code(ResponseCode::MESSAGE_ILLEGAL));
    let consumer = stage
        .builder()
        .concurrency(1)
        .retry(Retry::Exactly(Duration::from_secs(5 * 3600)))
        .start(|_: MessageView| async { Err::<(), _>("no") })
        .await
        .unwrap();
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(2)).await;
    let copies = stage.broker.requests_of::<SendMessageV2>();
    assert_eq!(copies.len(), 2, "no copy of what has been tried often enough");
    let sent = Properties::new(Text::from(copies[0].properties.clone().unwrap()));
    assert_eq!(sent.get("TIMER_DELAY_MS"), Some("18000000"));
    assert_eq!(sent.get("DELAY"), None);
    assert_eq!(
        (&*copies[0].topic, copies[0].reconsume_times),
        ("%RETRY%billing", Some(1))
    );
    let backs: Vec<_> = backs.iter().map(|back| (back.offset, back.delay_level)).collect();
    assert_eq!(backs, [(1007, 18), (2007, 18)]);
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&3));
}
