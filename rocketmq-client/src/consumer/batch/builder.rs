//! How a consumer of batches is made.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::linger::Linger;
use super::outcome::{BatchOutcome, IntoBatchOutcome};
use super::work::{BatchFunction, BatchHandler, Batches, LayeredBatch};
use crate::consumer::builder::PushConsumerBuilder;
use crate::consumer::outcome::BoxError;
use crate::consumer::push::PushConsumer;
use crate::error::{Error, Result};
use crate::message::MessageView;

impl PushConsumerBuilder {
    /// How long a batch may wait to be filled, from its first message on. Default zero: a handler gets what there is.
    /// Java has no such wait.
    pub fn batch_linger(mut self, linger: Duration) -> Self {
        self.options.batch_linger = linger;
        self
    }

    /// As [`layer`](Self::layer), around a handler of batches.
    pub fn batch_layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<BoxCloneSyncService<Vec<MessageView>, BatchOutcome, BoxError>> + Send + 'static,
        L::Service: Service<Vec<MessageView>, Response = BatchOutcome> + Clone + Send + Sync + 'static,
        <L::Service as Service<Vec<MessageView>>>::Error: Into<BoxError>,
        <L::Service as Service<Vec<MessageView>>>::Future: Send + 'static,
    {
        self.batch_layers.push(Box::new(move |inner| {
            BoxCloneSyncService::new(layer.layer(inner).map_err(Into::into))
        }));
        self
    }

    /// Starts to consume with a handler of batches: an async function of up to `size` messages, from 1 to 1024, that
    /// returns `()`, a [`BatchOutcome`], or a `Result` of one of them. Java: `consumeMessageBatchMaxSize`.
    ///
    /// The messages of a batch are of one queue and of one topic, in the order of their offsets; several batches of a
    /// queue may be handled at a time. There are as many in a batch as the queue has when a handler is free, or as come
    /// within the [linger](Self::batch_linger). The handler says of all of them, from an index on, or of each what
    /// becomes of it. An error, a panic, and a handler that does not end within the
    /// [consume timeout](Self::consume_timeout) mean that all messages of the batch come again, as
    /// [`retry`](Self::retry) says. A message whose body cannot be read does not get into a batch; it comes again.
    ///
    /// A batch is one of the [`concurrency`](Self::concurrency) calls. A stream of single messages can be read in
    /// batches too, by `ready_chunks` of the `futures` crate.
    ///
    /// ```
    /// use rocketmq_client::{BatchOutcome, Client, ConsumeFrom, Message, MessageView};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// # let producer = client.producer("shop").start().await?;
    /// # let (handled, mut some) = tokio::sync::mpsc::channel(1);
    /// # producer.send(Message::new("orders", "42 apples")).await?;
    /// let consumer = client
    ///     .push_consumer("billing")
    ///     .subscribe("orders", "*")
    ///     .consume_from(ConsumeFrom::First)
    ///     .start_batch(32, move |orders: Vec<MessageView>| {
    /// #       let handled = handled.clone();
    ///         async move {
    ///             let mut done = 0;
    ///             for order in &orders {
    ///                 println!("{order:?}");
    ///                 if order.body().is_empty() {
    ///                     break;
    ///                 }
    ///                 done += 1;
    ///             }
    /// #           let _ = handled.send(done).await;
    ///             // This one and those behind it come again.
    ///             BatchOutcome::retry_from(done)
    ///         }
    ///     })
    ///     .await?;
    /// # assert_eq!(some.recv().await, Some(1));
    /// consumer.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start); also [`ErrorKind::Config`](crate::ErrorKind::Config) for a size out of range, and for
    /// layers of single messages.
    ///
    /// # Cancellation
    /// Safe: nothing runs before it returns.
    pub async fn start_batch<H, F>(self, size: usize, handler: H) -> Result<PushConsumer>
    where
        H: Fn(Vec<MessageView>) -> F + Send + Sync + 'static,
        F: Future<Output: IntoBatchOutcome> + Send + 'static,
    {
        let mut builder = self;
        builder.options.batch_size = size;
        if !builder.layers.is_empty() {
            return Err(Error::config(
                "a handler of batches has layers of single messages; add them with batch_layer",
            ));
        }
        let layers = std::mem::take(&mut builder.batch_layers);
        if layers.is_empty() {
            return builder.run_batches(BatchFunction(handler)).await;
        }
        let handler = Arc::new(BatchFunction(handler));
        let mut service = BoxCloneSyncService::new(tower::service_fn(move |messages| {
            let handler = Arc::clone(&handler);
            async move { handler.handle(messages).await }
        }));
        for layer in layers.into_iter().rev() {
            service = layer(service);
        }
        builder.run_batches(LayeredBatch(service)).await
    }

    async fn run_batches<H: BatchHandler>(self, handler: H) -> Result<PushConsumer> {
        let size = self.options.batch_size;
        let linger = self.options.batch_linger;
        let linger = (size > 1 && !linger.is_zero()).then(|| Arc::new(Linger::new(linger)));
        let batches = Batches {
            handler,
            size,
            linger: linger.clone(),
        };
        let consumer = self.run(batches).await?;
        if let Some(linger) = linger {
            let engine = Arc::clone(consumer.engine());
            consumer.engine().intake.spawn("linger", move |stop| async move {
                linger.run(&engine.ready, &stop).await;
            });
        }
        Ok(consumer)
    }
}
