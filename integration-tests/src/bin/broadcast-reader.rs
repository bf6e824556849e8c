//! A consumer that broadcasts and is meant to be killed: it commits as often as it may, and prints each message that its
//! handler has done with, before it says so.
//!
//! `broadcast-reader NAME_SERVER TOPIC GROUP DIRECTORY IDENTITY`; lines are `ready`, then `<queue> <offset> <body>`. It
//! ends in order when its standard input does.

use std::{
    env,
    io::{Write, stdout},
    time::Duration,
};

use integration_tests::Failure;
use rocketmq_client::{Broadcasting, Client, ConsumeFrom, MessageView};
use tokio::io::{AsyncReadExt, stdin};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name_server, topic, group, directory, identity] = arguments.as_slice() else {
        return Err("broadcast-reader NAME_SERVER TOPIC GROUP DIRECTORY IDENTITY".into());
    };
    let client = Client::connect(name_server.as_str()).await?;
    let consumer = client
        .push_consumer(group)
        .subscribe(topic, "*")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(10))
        .broadcasting_with(Broadcasting::new().directory(directory).identity(identity))
        .start(|message: MessageView| async move {
            let body = String::from_utf8_lossy(message.body());
            let line = format!("{} {} {body}\n", message.queue().queue_id, message.queue_offset());
            // One write for each line: a kill leaves no half of one behind another.
            stdout().lock().write_all(line.as_bytes())
        })
        .await?;
    stdout().lock().write_all(b"ready\n")?;
    // Whatever is written there does not matter.
    let _ = stdin().read_to_end(&mut Vec::new()).await;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
