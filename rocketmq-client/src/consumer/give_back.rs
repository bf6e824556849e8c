//! A message that was not acknowledged goes back to the broker, which delivers it again later or calls it dead.
//!
//! The broker that stored the message makes the copy itself. If it cannot, the client sends the copy to the group's
//! retry topic like any other message. If that fails too, the message stays here.
//!
//! A request to give a message back has a delay level and no time. For a delay of another length the client sends the
//! copy itself, to a broker that keeps timers.
//!
//! Protocol source: `DefaultMQPushConsumerImpl#sendMessageBack`, `AbstractSendMessageProcessor`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, warn};

use super::engine::Engine;
use super::outcome::GiveBack;
use super::remote::Remote;
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::requests::{ConsumerSendMsgBack, SendMessageV2};
use crate::protocol::{BrokerVersion, CodecError, Properties, PropertiesBuf, Record, names, property};

/// The group that copies are sent as. Java: `MixAll.CLIENT_INNER_PRODUCER_GROUP`.
const INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";

impl Engine {
    /// Returns whether the message is in a broker's hands.
    pub(super) async fn give_back(&self, message: &MessageView, give_back: GiveBack) -> bool {
        if let Some(local) = &self.local {
            return self.give_up(local, message, give_back);
        }
        let max = self.options.max_reconsume_times;
        if let GiveBack::Timed(delay) = give_back
            && self.send_timed_copy(message, delay).await
        {
            return true;
        }
        let request = send_back_request(&self.group, message, give_back, max);
        let refused = match self.remote.send_back(message, request).await {
            Ok(()) => {
                debug!(group = %self.group, ?message, ?give_back, "gave the message back");
                self.look_for_retry_topic();
                return true;
            }
            Err(error) => error,
        };
        let origin = self.remote.cluster().wire_name(message.topic());
        let copy = match copy_request(&self.group, message.record(), message, &origin, give_back, max) {
            Ok(copy) => copy,
            Err(error) => {
                warn!(group = %self.group, ?message, %refused, %error, "the message cannot be given back, it stays");
                return false;
            }
        };
        match self.remote.send_copy(message.queue(), copy).await {
            Ok(()) => {
                debug!(group = %self.group, ?message, %refused, "sent the message to the retry topic instead");
                self.look_for_retry_topic();
                true
            }
            Err(error) => {
                warn!(group = %self.group, ?message, %refused, %error, "the message cannot be given back, it stays");
                false
            }
        }
    }

    /// Sends a copy that its broker keeps for this long. Returns whether the broker has it; if not, nothing was done.
    async fn send_timed_copy(&self, message: &MessageView, delay: Duration) -> bool {
        let max = self.options.max_reconsume_times;
        // A dead letter must not be delayed, and only the broker may have known the limit of the group.
        if message.reconsume_times() >= max {
            return false;
        }
        let version = self.remote.version_of(message.queue());
        if version.is_none_or(|version| version < BrokerVersion::V5_0_0) {
            debug!(group = %self.group, ?message, ?version, "the broker keeps no timers, it gets a delay level");
            return false;
        }
        let origin = self.remote.cluster().wire_name(message.topic());
        let give_back = GiveBack::Timed(delay);
        let copy = copy_request(&self.group, message.record(), message, &origin, give_back, max)
            .and_then(|copy| timed(copy, delay));
        let refused = match copy {
            Ok(copy) => match self.remote.send_copy_home(message.queue(), copy).await {
                Ok(()) => {
                    debug!(group = %self.group, ?message, ?delay, "sent the message to the retry topic, timed");
                    self.look_for_retry_topic();
                    return true;
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        warn!(group = %self.group, ?message, ?delay, %refused, "the retry cannot be timed, it gets a delay level");
        false
    }

    /// The retry topic may exist only since now: the first message must not wait for the next regular rebalance.
    fn look_for_retry_topic(&self) {
        if !self.retry_topic_exists.load(Ordering::Relaxed) {
            self.rebalance.notify_one();
        }
    }
}

impl Remote {
    /// Gives a message back for a user who wants to know why it cannot be.
    pub(super) async fn give_back(
        &self,
        message: &MessageView,
        give_back: GiveBack,
        max_reconsume_times: i32,
    ) -> Result<()> {
        let group = self.group();
        let request = send_back_request(group, message, give_back, max_reconsume_times);
        let Err(refused) = self.send_back(message, request).await else {
            debug!(%group, ?message, ?give_back, "gave the message back");
            return Ok(());
        };
        let origin = self.cluster().wire_name(message.topic());
        let copy = copy_request(
            group,
            message.record(),
            message,
            &origin,
            give_back,
            max_reconsume_times,
        );
        match copy {
            Ok(copy) => self.send_copy(message.queue(), copy).await,
            Err(error) => Err(Error::from_encode("message to give back", error).context(refused)),
        }
    }
}

fn send_back_request(
    group: &str,
    message: &MessageView,
    give_back: GiveBack,
    max_reconsume_times: i32,
) -> ConsumerSendMsgBack {
    ConsumerSendMsgBack {
        offset: message.record().physical_offset,
        group: group.to_owned(),
        delay_level: give_back.delay_level(),
        origin_msg_id: Some(message.message_id()),
        origin_topic: Some(message.topic().to_owned()),
        unit_mode: Some(false),
        max_reconsume_times: Some(max_reconsume_times),
    }
}

/// Replaces the delay level of a copy by a time.
fn timed(mut copy: SendMessageV2, delay: Duration) -> Result<SendMessageV2, CodecError> {
    let text = copy.properties.take().unwrap_or_default();
    let mut properties = PropertiesBuf::from(&Properties::new(text.into()));
    properties.remove(property::DELAY);
    // Relative: it is the broker's clock that counts.
    properties.set(property::TIMER_DELAY_MS, &delay.as_millis().to_string())?;
    copy.properties = Some(properties.into_string());
    Ok(copy)
}

/// The body goes out as it was stored: compressed, if it was.
fn copy_request(
    group: &str,
    record: &Record,
    message: &MessageView,
    origin_topic: &str,
    give_back: GiveBack,
    max_reconsume_times: i32,
) -> Result<SendMessageV2, CodecError> {
    let mut properties = PropertiesBuf::from(&record.properties);
    // A copy is no half message, even if the original was one.
    properties.remove(property::TRANSACTION_PREPARED);
    // Nor is it to wait as the original did: a broker ignores a time for a message that it has timed before.
    for own in [
        property::DELAY,
        property::TIMER_DELAY_SEC,
        property::TIMER_DELAY_MS,
        property::TIMER_DELIVER_MS,
        property::TIMER_OUT_MS,
        property::TIMER_ENQUEUE_MS,
        property::TIMER_DEQUEUE_MS,
    ] {
        properties.remove(own);
    }
    properties.set(property::RETRY_TOPIC, origin_topic)?;
    if properties.get(property::ORIGIN_MESSAGE_ID).is_none() {
        properties.set(property::ORIGIN_MESSAGE_ID, &message.message_id())?;
    }
    let reconsume_times = give_back.next_reconsume_times(record.reconsume_times, max_reconsume_times);
    properties.set(property::RECONSUME_TIME, &reconsume_times.to_string())?;
    properties.set(property::MAX_RECONSUME_TIMES, &max_reconsume_times.to_string())?;
    let level = give_back.explicit_level(record.reconsume_times);
    if level > 0 {
        properties.set(property::DELAY, &level.to_string())?;
    }
    Ok(SendMessageV2 {
        producer_group: INNER_PRODUCER.to_owned(),
        topic: names::retry_topic(group),
        default_topic: names::AUTO_CREATE_TOPIC.to_owned(),
        default_topic_queue_nums: 1,
        queue_id: 0,
        sys_flag: record.sys_flag.0 & COMPRESSION_BITS,
        born_timestamp: record.born_timestamp,
        flag: record.flag,
        properties: Some(properties.into_string()),
        reconsume_times: Some(reconsume_times),
        unit_mode: Some(false),
        max_reconsume_times: Some(max_reconsume_times),
        batch: Some(false),
        broker_name: None,
        body: record.body.clone(),
    })
}

const COMPRESSION_BITS: i32 =
    crate::protocol::SysFlag::COMPRESSED | crate::protocol::SysFlag::COMPRESSION_MASK;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::bodies::MessageQueue;
    use crate::protocol::{SysFlag, Text};

    fn message(topic: &'static str, properties: &'static str, reconsume_times: i32) -> MessageView {
        let record = Record {
            queue_id: 0,
            flag: 7,
            queue_offset: 1,
            physical_offset: 4242,
            sys_flag: SysFlag(SysFlag::TRANSACTION_COMMIT | SysFlag::BORN_HOST_V6 | 0x301),
            born_timestamp: 99,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_timestamp: 100,
            store_host: ([10, 0, 0, 9], 10911).into(),
            reconsume_times,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"not zlib"),
            topic: Text::from_static(topic),
            properties: Properties::new(Text::from_static(properties)),
        };
        MessageView::new(record, MessageQueue::new(topic, "broker-a", 0))
    }

    #[test]
    fn a_send_back_names_the_place_in_the_log_the_level_and_the_maximum() {
        let first = message("orders", "UNIQ_KEY\u{1}AB\u{2}", 0);
        let request = send_back_request("billing", &first, GiveBack::Later(4), 16);
        assert_eq!((request.offset, request.delay_level), (4242, 4));
        assert_eq!(request.max_reconsume_times, Some(16));
        assert_eq!(request.origin_msg_id.as_deref(), Some("AB"));
        assert_eq!(
            send_back_request("billing", &first, GiveBack::Dead, 16).delay_level,
            -1
        );
    }

    #[test]
    fn a_copy_carries_what_the_broker_needs_to_retry_it() {
        let properties = "UNIQ_KEY\u{1}AB\u{2}TRAN_MSG\u{1}true\u{2}DELAY\u{1}2\u{2}mine\u{1}1\u{2}";
        let first = message("orders", properties, 0);
        let copy = copy_request(
            "billing",
            first.record(),
            &first,
            "orders",
            GiveBack::Later(0),
            16,
        )
        .unwrap();
        let sent = Properties::new(Text::from(copy.properties.unwrap()));
        let expected = [
            ("UNIQ_KEY", "AB"),
            ("mine", "1"),
            ("RETRY_TOPIC", "orders"),
            ("ORIGIN_MESSAGE_ID", "AB"),
            ("RECONSUME_TIME", "1"),
            ("MAX_RECONSUME_TIMES", "16"),
            ("DELAY", "3"),
        ];
        assert_eq!(sent.iter().collect::<Vec<_>>(), expected);
        assert_eq!(copy.topic, "%RETRY%billing");
        assert_eq!(
            (copy.reconsume_times, copy.max_reconsume_times),
            (Some(1), Some(16))
        );
        assert_eq!(copy.body, "not zlib");
        assert_eq!(
            copy.sys_flag, 0x301,
            "compression stays, transaction and addresses do not"
        );
    }

    #[test]
    fn a_timed_copy_has_a_time_instead_of_a_level_and_nothing_of_an_earlier_time() {
        let properties = "UNIQ_KEY\u{1}AB\u{2}TIMER_DELIVER_MS\u{1}5\u{2}TIMER_OUT_MS\u{1}4\u{2}TIMER_ENQUEUE_MS\u{1}3\u{2}";
        let first = message("orders", properties, 0);
        let delay = Duration::from_secs(7000);
        let give_back = GiveBack::Timed(delay);
        let copy = copy_request("billing", first.record(), &first, "orders", give_back, 16).unwrap();
        let sent = timed(copy, delay).unwrap().properties.unwrap();
        let sent = Properties::new(Text::from(sent));
        let expected = [
            ("UNIQ_KEY", "AB"),
            ("RETRY_TOPIC", "orders"),
            ("ORIGIN_MESSAGE_ID", "AB"),
            ("RECONSUME_TIME", "1"),
            ("MAX_RECONSUME_TIMES", "16"),
            ("TIMER_DELAY_MS", "7000000"),
        ];
        assert_eq!(sent.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_copy_of_a_retried_message_keeps_its_origin() {
        let properties = "UNIQ_KEY\u{1}AB\u{2}RETRY_TOPIC\u{1}orders\u{2}ORIGIN_MESSAGE_ID\u{1}FIRST\u{2}";
        let retried = message("%RETRY%billing", properties, 3);
        let copy = copy_request(
            "billing",
            retried.record(),
            &retried,
            "orders",
            GiveBack::Dead,
            16,
        )
        .unwrap();
        let sent = Properties::new(Text::from(copy.properties.unwrap()));
        assert_eq!(sent.get("RETRY_TOPIC"), Some("orders"));
        assert_eq!(sent.get("ORIGIN_MESSAGE_ID"), Some("FIRST"));
        assert_eq!(
            copy.reconsume_times,
            Some(17),
            "above the maximum, so the broker calls it dead"
        );
        assert_eq!(sent.get("DELAY"), None);
    }
}
