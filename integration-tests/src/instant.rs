//! A name server and broker that answers every send at once and stores nothing: what is left of the time is the
//! client's.
//!
//! One thread for each connection reads what has arrived, answers all of it, and writes the answers at once, in the
//! header format of the request. Every topic exists, with [`QUEUES`] queues.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use bytes::{Buf, Bytes, BytesMut};
use rocketmq_client::protocol::bodies::{BrokerData, MASTER_ID, QueueData, TopicRouteData, permission};
use rocketmq_client::protocol::frame::{Head, next_frame};
use rocketmq_client::protocol::{
    Fields, Frame, HeaderFormat, JsonBody, OffsetMessageId, Properties, RequestCode, ResponseCode, Text,
    property,
};
use serde::Serialize;

use crate::Failure;

/// How many queues every topic has.
pub const QUEUES: i32 = 8;

const BROKER: &str = "instant";
const READ_BYTES: usize = 256 * 1024;

/// Serves connections for as long as the process lives.
///
/// # Errors
/// When a connection cannot be accepted.
pub fn serve(listener: &TcpListener) -> Result<(), Failure> {
    let broker = Arc::new(Broker {
        address: listener.local_addr()?,
        log_offset: AtomicI64::new(0),
        queue_offset: AtomicI64::new(0),
    });
    loop {
        let (stream, peer) = listener.accept()?;
        let broker = Arc::clone(&broker);
        thread::spawn(move || {
            if let Err(error) = broker.converse(stream) {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

struct Broker {
    address: SocketAddr,
    /// Where the next message would be in the log.
    log_offset: AtomicI64,
    /// One count for all queues: nobody reads them.
    queue_offset: AtomicI64,
}

/// The header of the answer to a send, as a real broker writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    msg_id: &'a str,
    queue_id: &'a str,
    queue_offset: i64,
    transaction_id: Option<&'a str>,
    #[serde(rename = "MSG_REGION")]
    region: &'static str,
    #[serde(rename = "TRACE_ON")]
    trace_on: &'static str,
}

#[derive(Serialize)]
struct Nothing {}

impl Broker {
    fn converse(&self, mut stream: TcpStream) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        let mut arrived = vec![0; READ_BYTES];
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        loop {
            let count = stream.read(&mut arrived)?;
            if count == 0 {
                return Ok(());
            }
            input.extend_from_slice(arrived.get(..count).unwrap_or_default());
            loop {
                // The format is a byte behind the length.
                let format = match input.get(4) {
                    Some(1) => HeaderFormat::Binary,
                    _ => HeaderFormat::Json,
                };
                let Some(request) = next_frame(&mut input)? else {
                    break;
                };
                if !request.is_one_way() {
                    self.answer(&request, format, &mut output)?;
                }
            }
            if !output.is_empty() {
                stream.write_all(&output)?;
                output.clear();
            }
        }
    }

    fn answer(&self, request: &Frame, format: HeaderFormat, output: &mut BytesMut) -> Result<(), Failure> {
        let success = Head::response(ResponseCode::SUCCESS.0, request.opaque, None);
        let none = Fields::new();
        match RequestCode(request.code) {
            RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE | RequestCode::SEND_MESSAGE => {
                let fields = &request.fields;
                let queue_id = fields.get("e").or_else(|| fields.get("queueId"));
                let properties = fields.get("i").or_else(|| fields.get("properties"));
                let properties = Properties::new(Text::from(properties.unwrap_or_default().to_owned()));
                let is_batch = fields.get("m").or_else(|| fields.get("batch")) == Some("true");
                let messages = if is_batch { count(request.body.clone()) } else { 1 };
                let mut ids = String::with_capacity(33 * messages);
                for _ in 0..messages {
                    if !ids.is_empty() {
                        ids.push(',');
                    }
                    ids.push_str(&self.next_id(request.body.len() / messages));
                }
                let stored = Stored {
                    msg_id: &ids,
                    queue_id: queue_id.unwrap_or("0"),
                    queue_offset: self.queue_offset.fetch_add(messages as i64, Ordering::Relaxed),
                    transaction_id: properties.get(property::UNIQUE_KEY),
                    region: "DefaultRegion",
                    trace_on: "true",
                };
                success.encode(format, &stored, &none, 0, output)?;
            }
            RequestCode::GET_ROUTEINFO_BY_TOPIC => {
                let body = self.route().to_body()?;
                success.encode(format, &Nothing {}, &none, body.len(), output)?;
                output.extend_from_slice(&body);
            }
            // Heartbeats, unregistrations, and whatever else a client says of itself.
            _ => success.encode(format, &Nothing {}, &none, 0, output)?,
        }
        Ok(())
    }

    fn next_id(&self, bytes: usize) -> String {
        let id = OffsetMessageId {
            store_host: self.address,
            physical_offset: self.log_offset.fetch_add(bytes as i64, Ordering::Relaxed),
        };
        id.to_string()
    }

    fn route(&self) -> TopicRouteData {
        TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_addrs: BTreeMap::from([(MASTER_ID, self.address.to_string())]),
                broker_name: BROKER.to_owned(),
                cluster: "DefaultCluster".to_owned(),
                enable_acting_master: false,
            }],
            queue_datas: vec![QueueData {
                broker_name: BROKER.to_owned(),
                perm: permission::READ | permission::WRITE,
                read_queue_nums: QUEUES,
                topic_sys_flag: 0,
                write_queue_nums: QUEUES,
            }],
            ..TopicRouteData::default()
        }
    }
}

/// How many messages a batch has; at least one.
fn count(mut batch: Bytes) -> usize {
    let mut messages = 0;
    while let Ok(size) = batch.try_get_i32() {
        messages += 1;
        let rest = usize::try_from(size).unwrap_or_default().saturating_sub(4);
        batch.advance(rest.min(batch.len()));
    }
    messages.max(1)
}

#[cfg(test)]
mod tests {
    use rocketmq_client::{Client, Message};

    use super::*;

    #[tokio::test]
    async fn a_send_gets_its_receipt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || serve(&listener));
        let client = Client::connect(&address).await.unwrap();
        let producer = client.producer("instant").start().await.unwrap();
        producer
            .send(Message::new("any", "body"))
            .one_way()
            .await
            .unwrap();
        let receipt = producer.send(Message::new("any", "body")).await.unwrap();
        assert_eq!(receipt.queue.broker_name.as_ref(), BROKER);
        assert_eq!(receipt.offset_message_id.len(), 32);
        producer.shutdown().await;
        client.shutdown().await;
    }

    #[test]
    fn a_batch_is_counted_and_damage_ends_the_count() {
        let mut batch = BytesMut::new();
        for _ in 0..3 {
            batch.extend_from_slice(&[0, 0, 0, 6, 1, 2]);
        }
        assert_eq!(count(batch.clone().freeze()), 3);
        batch.extend_from_slice(&[0x7F, 0, 0, 0, 1]);
        assert_eq!(count(batch.freeze()), 4);
        assert_eq!(count(Bytes::new()), 1);
    }
}
