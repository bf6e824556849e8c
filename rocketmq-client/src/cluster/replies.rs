//! Requests of this client that wait for their replies.
//!
//! One table for the whole client: brokers pass a reply on to a client, not to a producer. Protocol source:
//! `RequestFutureHolder`, `ClientRemotingProcessor#receiveReplyMessage`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::{Client, Cluster};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageView;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::PushReplyMessage;
use crate::protocol::{
    CodecError, Frame, Properties, PropertiesBuf, Record, Request, ResponseCode, SysFlag, Text, property,
};
use crate::sync::lock;

/// How many requests of one client may wait for their replies.
const MAX_WAITING: usize = 65_536;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: Mutex<HashMap<String, oneshot::Sender<MessageView>>>,
    late: AtomicU64,
}

/// A request that waits. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct ExpectedReply<'a> {
    table: &'a Replies,
    correlation_id: String,
    reply: oneshot::Receiver<MessageView>,
}

impl ExpectedReply<'_> {
    /// The reply.
    ///
    /// # Cancellation
    /// Safe: the next call goes on waiting.
    pub(crate) async fn reply(&mut self) -> MessageView {
        match (&mut self.reply).await {
            Ok(reply) => reply,
            // The sender is in the table as long as this is alive, and is used up by a reply alone.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for ExpectedReply<'_> {
    fn drop(&mut self) {
        lock(&self.table.waiting).remove(&self.correlation_id);
    }
}

impl Replies {
    fn expect(&self, correlation_id: &str) -> Result<ExpectedReply<'_>> {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= MAX_WAITING {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{MAX_WAITING} requests wait for their replies; send fewer at a time"),
            ));
        }
        let (sender, reply) = oneshot::channel();
        match waiting.entry(correlation_id.to_owned()) {
            Entry::Vacant(place) => place.insert(sender),
            Entry::Occupied(_) => {
                return Err(Error::config(format!(
                    "a request with correlation id {correlation_id} waits already"
                )));
            }
        };
        Ok(ExpectedReply {
            table: self,
            correlation_id: correlation_id.to_owned(),
            reply,
        })
    }

    /// Hands a reply to the request that waits for it.
    fn complete(&self, reply: MessageView) {
        let correlation_id = reply.property(property::CORRELATION_ID).unwrap_or_default();
        let sender = lock(&self.waiting).remove(correlation_id);
        match sender.map(|sender| sender.send(reply.clone())) {
            Some(Ok(())) => debug!(correlation_id, "a reply has come"),
            // Nobody waits, or nobody any more.
            Some(Err(_)) | None => {
                self.late.fetch_add(1, Ordering::Relaxed);
                info!(
                    correlation_id,
                    from = %reply.born_host(),
                    "a reply came for which no request waits; it was late, or came twice"
                );
            }
        }
    }
}

impl Cluster {
    /// Makes room for a reply. What is given has to live until the reply has come or is not wanted any more.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] with too many requests that wait.
    pub(crate) fn expect_reply(&self, correlation_id: &str) -> Result<ExpectedReply<'_>> {
        self.replies.expect(correlation_id)
    }

    /// Serves a reply that a broker passes on. One that nobody waits for is confirmed too, as Java does: the replier
    /// could do nothing about it.
    pub(super) fn receive_reply(&self, peer: &str, frame: Frame) -> Frame {
        match self.read_reply(frame) {
            Ok(reply) => {
                self.replies.complete(reply);
                Frame::response(ResponseCode::SUCCESS, 0)
            }
            Err(error) => {
                warn!(peer, %error, "a reply cannot be read");
                Frame::refusal(
                    ResponseCode::SYSTEM_ERROR,
                    0,
                    format!("process reply message fail: {error}"),
                )
            }
        }
    }

    fn read_reply(&self, frame: Frame) -> Result<MessageView, CodecError> {
        let push = PushReplyMessage::from_frame(frame)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent = Properties::new(Text::from(push.properties.unwrap_or_default()));
        let mut properties = PropertiesBuf::from(&sent);
        properties.set(property::ARRIVE_TIME, &now.as_millis().to_string())?;
        let queue = MessageQueue::new(push.topic.as_str(), "", push.queue_id);
        let record = Record {
            queue_id: push.queue_id,
            flag: push.flag,
            // A reply comes to its requester past all queues.
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: SysFlag(push.sys_flag),
            born_timestamp: push.born_timestamp,
            born_host: host(&push.born_host),
            store_timestamp: push.store_timestamp,
            store_host: host(&push.store_host),
            reconsume_times: push.reconsume_times.unwrap_or(0),
            prepared_transaction_offset: 0,
            body: push.body,
            topic: Text::from(push.topic),
            properties: Properties::from(properties),
        };
        Ok(MessageView::in_namespace(record, queue, self.namespace()))
    }
}

/// Brokers before 5.x put a slash before an address. What is none is shown as `0.0.0.0:0`: it is only there to be read.
fn host(text: &str) -> SocketAddr {
    let address = text.rsplit_once('/').map_or(text, |(_, address)| address);
    address
        .parse()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

impl Client {
    /// How many requests wait for their replies. Every request is counted out again: with its reply, after its
    /// timeout, when its send fails, when it is dropped.
    #[must_use]
    pub fn waiting_requests(&self) -> usize {
        lock(&self.cluster().replies.waiting).len()
    }

    /// How many replies came for which no request waited any more.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        self.cluster().replies.late.load(Ordering::Relaxed)
    }
}
