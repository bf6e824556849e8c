//! The client alone, without bindings: send three messages, receive them.
//!
//! `NAMESRV_ADDR=host:port` names a cluster; without it an embedded broker runs in this process.

use std::time::Duration;

use rocketmq_client::{Client, ConsumeFrom, Message, MessageView, Outcome, Retry};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::{sync::mpsc, time::timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (broker, name_server) = match std::env::var("NAMESRV_ADDR") {
        Ok(address) => (None, address),
        Err(_) => {
            let broker = EmbeddedBroker::start().await?;
            let address = broker.name_server();
            (Some(broker), address)
        }
    };
    let client = Client::connect(name_server).await?;

    // Send: the receipt says where the message is stored, an error whether it may be stored all the same.
    let producer = client.producer("greeters").start().await?;
    for (key, tag) in [("1", "hello"), ("2", "hello"), ("3", "goodbye")] {
        let message = Message::new("greetings", format!("{tag} number {key}"))
            .tag(tag)
            .key(key);
        let receipt = producer.send(message).await?;
        println!("sent {} to queue {}", receipt.message_id, receipt.queue.queue_id);
    }

    // Receive: what a handler returns decides whether a message is done with, comes again, or is a dead letter.
    let (sender, mut received) = mpsc::channel(16);
    let consumer = client
        .push_consumer("listeners")
        .subscribe("greetings", "hello || goodbye")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let sender = sender.clone();
            async move {
                let text = String::from_utf8_lossy(message.body()).into_owned();
                match sender.send((text, message.tag().map(str::to_owned))).await {
                    Ok(()) => Outcome::Ack,
                    Err(_) => Outcome::Retry(Retry::Broker),
                }
            }
        })
        .await?;
    for _ in 0..3 {
        let Some((text, tag)) = timeout(Duration::from_secs(60), received.recv()).await? else {
            break;
        };
        println!("received {text:?}, tag {tag:?}");
    }

    consumer.shutdown().await;
    client.shutdown().await;
    if let Some(broker) = broker {
        broker.shutdown().await;
    }
    Ok(())
}
