//! What a push consumer that pops can be told.

use std::time::Duration;

use super::{PopOptions, PopStats};
use crate::consumer::builder::PushConsumerBuilder;
use crate::consumer::push::PushConsumer;

impl PushConsumerBuilder {
    /// Lets the broker divide the work: of topics whose mode is POP for this group, messages are handed out one by one
    /// to whichever member asks, and each is kept from the others for `invisible_time`. Topics whose mode is PULL are
    /// pulled, by the broker's division. Java: `setClientRebalance(false)` and `popInvisibleTime`.
    ///
    /// The mode is set by [`Admin::set_message_request_mode`](crate::admin::Admin::set_message_request_mode), by
    /// `mqadmin setConsumeMode`, or for all groups by the broker's `defaultMessageRequestMode`; without any it is PULL.
    /// It may be changed while the group runs and takes effect with the next
    /// [rebalance](Self::rebalance_interval) of each member. Nothing is lost by that; what is in progress at that time
    /// may be handled twice.
    ///
    /// POP needs no queue for each member: any number of members shares any number of queues, and a member that hangs
    /// keeps only the messages that it has. In exchange the order of messages is lost: it cannot be combined with
    /// [`orderly`](Self::orderly). A [simple consumer](crate::SimpleConsumerBuilder::orderly) can pop in order.
    ///
    /// What differs from pulling:
    ///
    /// - `invisible_time` is from 1 s to 48 h; Java allows 5 s to 5 min, with 1 min as the default. As long as a handler
    ///   runs, the time of its message is [renewed](Self::pop_renewal).
    /// - A message that failed comes again after 10 s, 30 s, 1 min, 2 min and so on up to 2 h, or as
    ///   [`Retry`](super::super::Retry) says. Brokers look for messages whose time is over about once a second.
    /// - A message that was delivered for the last time and failed is put into the group's dead-letter topic by this
    ///   client, because brokers do not do that for POP. Java acknowledges it when it is old enough: it is gone.
    ///   Deliveries that nobody handled count as well.
    /// - A new group starts at the [oldest or the newest](Self::consume_from) message; brokers cannot start at a time.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use rocketmq_client::{Client, MessageView};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    /// # let client = Client::connect(broker.name_server()).await?;
    /// let consumer = client
    ///     .push_consumer("resize")
    ///     .subscribe("pictures", "*")
    ///     .pop(Duration::from_secs(60))
    ///     .start(|message: MessageView| async move {
    ///         println!("{:?}", message.body());
    ///     })
    ///     .await?;
    /// // ..
    /// consumer.shutdown().await;
    /// # client.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`start`](Self::start) fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where a broker is
    /// older than 5.0.
    pub fn pop(mut self, invisible_time: Duration) -> Self {
        match &mut self.options.pop {
            Some(pop) => pop.invisible_time = invisible_time,
            none => *none = Some(PopOptions::new(invisible_time)),
        }
        self
    }

    /// How many messages one pop asks for; from 1 to 32. Default 32. Call it after [`pop`](Self::pop). Java:
    /// `popBatchNums`.
    pub fn pop_batch_size(mut self, messages: usize) -> Self {
        if let Some(pop) = &mut self.options.pop {
            pop.batch_size = messages;
        }
        self
    }

    /// Nothing is popped from a queue, or from a broker whose queues are all shared, as long as more popped messages
    /// than this are not done with; from 1 to 65535. Default 96. Call it after [`pop`](Self::pop). Java:
    /// `popThresholdForQueue`.
    pub fn pop_threshold_for_queue(mut self, messages: usize) -> Self {
        if let Some(pop) = &mut self.options.pop {
            pop.threshold = messages;
        }
        self
    }

    /// Whether the invisible time of a message is renewed as long as its handler runs, so that nobody else gets the
    /// message meanwhile. Default true. Call it after [`pop`](Self::pop). Java does not.
    ///
    /// The [consume timeout](Self::consume_timeout) ends a handler that hangs, and the renewal with it.
    pub fn pop_renewal(mut self, renewal: bool) -> Self {
        if let Some(pop) = &mut self.options.pop {
            pop.renewal = renewal;
        }
        self
    }
}

impl PushConsumer {
    /// What the consumer has done by [POP](PushConsumerBuilder::pop); `None` if it never pops.
    #[must_use]
    pub fn pop_stats(&self) -> Option<PopStats> {
        self.engine().pop.as_ref().map(super::Pop::stats)
    }
}
