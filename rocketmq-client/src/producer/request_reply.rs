//! Requests: messages whose sender waits for an answer by another message.
//!
//! The answer comes past all queues: the broker that the replier sends it to passes it on over the connection of the
//! client that waits. Protocol source: `DefaultMQProducerImpl#request`, `RequestFutureHolder`, `MessageUtil`.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::send::SendFuture;
use super::{Core, Producer, SendBuilder};
use crate::cluster::BoxFuture;
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::message::{Message, MessageView};
use crate::protocol::bodies::MessageQueue;
use crate::protocol::property;
use crate::transport::random;

impl Producer {
    /// Sends a message and gives the reply of the consumer that answers it with [`Message::reply_to`]. `timeout` is for
    /// all of it: the send, the consumer's work, the reply.
    ///
    /// ```
    /// # use rocketmq_embedded_broker::EmbeddedBroker;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = EmbeddedBroker::start().await?;
    /// use std::time::Duration;
    /// use rocketmq_client::{Client, ConsumeFrom, Message, MessageView};
    ///
    /// let client = Client::connect(broker.name_server()).await?;
    ///
    /// // The answering side: an ordinary consumer and an ordinary producer, mostly in another process.
    /// let replier = client.producer("adder").start().await?;
    /// let adder = client
    ///     .push_consumer("adder")
    ///     .subscribe("sums", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .start(move |request: MessageView| {
    ///         let replier = replier.clone();
    ///         async move {
    ///             let text = String::from_utf8_lossy(request.body());
    ///             let sum: i32 = text.split('+').filter_map(|part| part.parse::<i32>().ok()).sum();
    ///             replier.send(Message::reply_to(&request, sum.to_string())).await.map(drop)
    ///         }
    ///     })
    ///     .await?;
    ///
    /// // The asking side.
    /// let producer = client.producer("asker").start().await?;
    /// let reply = producer.request(Message::new("sums", "1+2+39"), Duration::from_secs(30)).await?;
    /// assert_eq!(reply.body().as_ref(), b"42");
    /// client.shutdown().await;
    /// # drop(adder);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Replies need nothing of the topic and no consumer of the asker's. A reply that comes after the timeout is
    /// counted, see [`Client::late_replies`](crate::Client::late_replies).
    pub fn request(&self, message: Message, timeout: Duration) -> RequestBuilder<'_> {
        let correlation_id = format!("{:016x}{:016x}", random(), random());
        let topic = message.topic().to_owned();
        let answers = message.get(property::MESSAGE_TYPE).is_some();
        let millis = timeout.as_millis().to_string();
        let message = message
            .set(property::CORRELATION_ID, &correlation_id)
            .set(property::REPLY_TO_CLIENT, self.client().client_id())
            .set(property::TTL, &millis);
        RequestBuilder {
            send: self.send(message).timeout(timeout),
            core: Arc::clone(self.core()),
            topic,
            correlation_id,
            timeout,
            answers,
        }
    }
}

/// A request about to be made.
///
/// # Cancellation
/// Dropping the awaited future frees everything; the message may be sent and answered all the same, and such a reply is
/// counted as late.
#[must_use = "a request does nothing until awaited, detached, or given a callback"]
pub struct RequestBuilder<'a> {
    send: SendBuilder<'a>,
    core: Arc<Core>,
    topic: String,
    correlation_id: String,
    timeout: Duration,
    /// Whether the message answers another one.
    answers: bool,
}

impl RequestBuilder<'_> {
    /// Sends to this queue, all attempts.
    pub fn to_queue(mut self, queue: MessageQueue) -> Self {
        self.send = self.send.to_queue(queue);
        self
    }

    /// Lets `choose` say which of the topic's writable queues the message goes to, as
    /// [`SendBuilder::select_queue`] does.
    pub fn select_queue(mut self, choose: impl FnOnce(&[MessageQueue]) -> usize + Send + 'static) -> Self {
        self.send = self.send.select_queue(choose);
        self
    }

    /// Makes the request without waiting; the handle gives the reply to whoever wants it.
    #[must_use = "drop the handle on purpose if the reply does not matter"]
    pub fn detach(self) -> RequestHandle {
        let (sender, receiver) = oneshot::channel();
        self.on_complete(move |result| {
            // Nobody may want it.
            let _ = sender.send(result);
        });
        RequestHandle(receiver)
    }

    /// Makes the request without waiting and hands the reply to `done`, on a task of the client; `done` must not block.
    pub fn on_complete(self, done: impl FnOnce(Result<MessageView>) + Send + 'static) {
        let core = Arc::clone(&self.core);
        let request = self.into_future();
        core.tasks.spawn("request", |_| async move {
            // It ends by itself when the client is shut down.
            done(request.await);
        });
    }
}

impl IntoFuture for RequestBuilder<'_> {
    type Output = Result<MessageView>;
    type IntoFuture = RequestFuture;

    fn into_future(self) -> RequestFuture {
        let request = Request {
            send: self.send.into_future(),
            core: self.core,
            topic: self.topic,
            correlation_id: self.correlation_id,
            timeout: self.timeout,
            answers: self.answers,
        };
        RequestFuture(Box::pin(request.run()))
    }
}

impl fmt::Debug for RequestBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("topic", &self.topic)
            .field("correlation_id", &self.correlation_id)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The future of an awaited request. Nothing happens before it is polled.
#[must_use = "a request does nothing until awaited"]
pub struct RequestFuture(BoxFuture<'static, Result<MessageView>>);

impl Future for RequestFuture {
    type Output = Result<MessageView>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for RequestFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFuture").finish_non_exhaustive()
    }
}

/// The reply to a detached request, for whoever wants it. Dropping it changes nothing about the request.
#[derive(Debug)]
pub struct RequestHandle(oneshot::Receiver<Result<MessageView>>);

impl Future for RequestHandle {
    type Output = Result<MessageView>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(result.unwrap_or_else(|_| Err(Error::closed("the client"))))
    }
}

/// One request from its send to its reply.
struct Request {
    send: SendFuture,
    core: Arc<Core>,
    topic: String,
    correlation_id: String,
    timeout: Duration,
    answers: bool,
}

impl Request {
    async fn run(mut self) -> Result<MessageView> {
        let core = Arc::clone(&self.core);
        core.check_open()?;
        // The shutdown of the producer waits for this.
        let _in_work = core.requests.token();
        if self.answers {
            return Err(self.failed(Error::config(
                "it is a reply itself; send it, and ask with a message of its own",
            )));
        }
        let deadline = Instant::now() + self.timeout;
        let expected = core.cluster.expect_reply(&self.correlation_id);
        let mut expected = expected.map_err(|error| self.failed(error))?;

        // Before the message is sent: a reply may be quicker than a heartbeat.
        let template = &core.options.template;
        let introduced = core.cluster.introduce(&core.group, &self.topic, template);
        let introduced = timeout_at(deadline, introduced).await;
        introduced
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    "no name server told the route in time",
                ))
            })
            .map_err(|error| self.failed(error))?;

        let stop = core.tasks.token();
        tokio::select! {
            reply = expected.reply() => return Ok(reply),
            sent = &mut self.send => drop(sent.map_err(|error| self.failed(error))?),
            () = sleep_until(deadline) => return Err(self.timed_out(Persisted::Maybe)),
            () = stop.cancelled() => return Err(self.given_up(Persisted::Maybe)),
        }
        tokio::select! {
            reply = expected.reply() => Ok(reply),
            () = sleep_until(deadline) => Err(self.timed_out(Persisted::Yes)),
            () = stop.cancelled() => Err(self.given_up(Persisted::Yes)),
        }
    }

    fn failed(&self, error: Error) -> Error {
        error.context(format_args!("request to topic {}", self.topic))
    }

    /// Java: `RequestTimeoutException`, 10006.
    fn timed_out(&self, persisted: Persisted) -> Error {
        let text = format!(
            "no reply in {:?}; is there a consumer that replies, and is it quick enough",
            self.timeout
        );
        self.failed(Error::new(ErrorKind::Timeout, text).with_persisted(persisted))
    }

    fn given_up(&self, persisted: Persisted) -> Error {
        let text = "the client was shut down before the reply came";
        self.failed(Error::new(ErrorKind::Closed, text).with_persisted(persisted))
    }
}

#[cfg(test)]
mod tests;
