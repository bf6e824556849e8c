//! Sends through the StreamBridge: by binding name, with tag, key, header and delay, and to a topic.

use serde::{Deserialize, Serialize};
use stream_binder::{App, Config, Json, Message, Meta, State, consumer};
use tokio::sync::mpsc;

#[derive(Debug, Serialize, Deserialize)]
struct Bill {
    order: u64,
    total: f64,
}

#[consumer]
async fn audit(Json(bill): Json<Bill>, meta: Meta, State(seen): State<mpsc::Sender<u64>>) {
    println!("received {bill:?}, tag {:?}, keys {:?}", meta.tags(), meta.keys());
    // The program waits for three; if it is gone, nobody needs to know.
    let _ = seen.send(bill.order).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::builder()
        .named_yaml("application.yml", include_str!("application.yml"))
        .environment(std::env::vars_os());
    let (seen, mut received) = mpsc::channel::<u64>(16);
    let app = App::new(config.load()?).state(seen).start().await?;
    let bridge = app.bridge();

    // A value, through the binding `bills-out-0`.
    let receipt = bridge
        .send("bills-out-0", Json(Bill { order: 1, total: 9.5 }))
        .await?;
    println!("stored as {} in queue {}", receipt.message_id, receipt.queue_id);

    // A message with tag, key and header, delivered after a second (delay level 1).
    let message = Message::json(&Bill {
        order: 2,
        total: 12.0,
    })?
    .tag("vip")
    .key("2")
    .header("region", "eu");
    bridge.send("bills-out-0", message.delay_level(1)).await?;

    // To a topic that no binding names.
    bridge
        .to_topic("bills")
        .send(Json(Bill { order: 3, total: 0.5 }))
        .await?;

    // A mistyped name is an error, never a new topic.
    if let Err(error) = bridge
        .send("bill-out-0", Json(Bill { order: 4, total: 1.0 }))
        .await
    {
        println!("refused: {error}");
    }

    for _ in 0..3 {
        received.recv().await;
    }
    app.shutdown().await;
    Ok(())
}
