use crate::MessageQueue;
use crate::cluster::testing::client;
use crate::message::Message;
use crate::producer::testing::{Two, ok};
use crate::protocol::requests::SendMessageV2;

fn large() -> Message {
    Message::new("t", b"0123456789".repeat(100_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_task_sends_overtakes_a_large_body_of_it() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    let queue = MessageQueue::new("t", "a", 0);
    // So that route and connection are there.
    producer
        .send(Message::new("t", "first"))
        .to_queue(queue.clone())
        .await
        .unwrap();
    for _ in 0..5 {
        let send = |message| producer.send(message).to_queue(queue.clone());
        let handles = [
            send(large()).detach(),
            send(Message::new("t", "behind")).detach(),
            send(large()).detach(),
        ];
        send(Message::new("t", "last")).await.unwrap();
        for handle in handles {
            handle.await.unwrap();
        }
    }
    let sizes: Vec<_> = two
        .a
        .requests_of::<SendMessageV2>()
        .iter()
        .map(|request| request.body.len())
        .skip(1)
        .collect();
    let size = sizes[0];
    assert!(size > 100 && size < 100_000, "{size}");
    for round in sizes.chunks(4) {
        assert_eq!(round, [size, "behind".len(), size, "last".len()]);
    }
    assert!(!producer.core().line.is_busy(), "nobody stands in line any more");
    assert!(crate::sync::lock(&producer.core().line.last).is_empty());
    client.shutdown().await;
}

#[tokio::test]
async fn other_tasks_are_not_held_up_and_a_send_that_is_given_up_holds_up_nobody() {
    let two = Two::new(ok, ok).await;
    let client = client(&two.name_server.address()).await;
    let producer = client.producer("g").start().await.unwrap();
    producer.send(Message::new("t", "first")).await.unwrap();
    let core = producer.core();
    let ahead = super::Line::join(core);
    assert!(core.line.is_busy());
    let elsewhere = std::sync::Arc::clone(core);
    let waits = core
        .tasks
        .compute(move || elsewhere.line.behind().ahead.is_some())
        .await;
    assert_eq!(waits, Some(false), "another task has its own line");
    assert!(core.line.behind().ahead.is_some());
    drop(ahead);
    assert!(!core.line.is_busy());
    producer.send(Message::new("t", "goes")).detach().await.unwrap();
    client.shutdown().await;
}
