//! Between the binder's messages and RocketMQ's, as the Java binder maps them.
//!
//! Tag, keys, delay level and flag are fields of the message; `contentType` and every user header are properties of
//! the same name. Two things differ from Java on purpose: a property called like one of the binder's own headers
//! (`ROCKET_TAGS`, `ROCKET_MQ_TOPIC`, ..) never reaches a function, so a sender cannot forge metadata, and a header
//! that RocketMQ keeps for itself is an error instead of vanishing.

use std::sync::Arc;

use rocketmq_client::protocol::property;
use rocketmq_client::{Message as Outgoing, MessageView};

use crate::binder::{OutboundError, Persisted};
use crate::delivery::Delivery;
use crate::headers::{Headers, names};
use crate::message::{Delay, Message};

/// Names that a function sees as metadata, never as a property of the sender.
const METADATA: [&str; 11] = [
    names::ROCKET_TAGS,
    names::ROCKET_KEYS,
    names::ROCKET_DELAY,
    names::ROCKET_MQ_FLAG,
    names::ROCKET_MQ_TOPIC,
    names::ROCKET_MQ_MESSAGE_ID,
    names::ROCKET_MQ_BORN_TIMESTAMP,
    names::ROCKET_MQ_BORN_HOST,
    names::ROCKET_MQ_QUEUE_ID,
    "ROCKET_MQ_SYS_FLAG",
    "ROCKET_MQ_TRANSACTION_ID",
];

/// Headers that Spring's messaging makes anew for each message and writes on the wire of every send.
const SPRING_NOISE: [&str; 2] = ["id", "timestamp"];

/// What is sent for a message of the binder.
///
/// # Errors
/// A delay that is not a level, and a `WAIT` header that is neither `true` nor `false`. Everything else is checked by
/// the client.
pub(super) fn outgoing(topic: &str, message: &Message) -> Result<Outgoing, OutboundError> {
    let mut out = Outgoing::new(topic, message.payload().clone()).flag(message.mq_flag());
    if let Some(tag) = message.tags() {
        out = out.tag(tag);
    }
    if let Some(keys) = message.keys() {
        out = out.key(keys);
    }
    match message.delayed() {
        None => {}
        Some(Delay::Level(level)) => out = out.delay_level(level),
        Some(Delay::After(delay)) => {
            return Err(refused(
                topic,
                &format!(
                    "a delay of {delay:?} is not supported by this version; use a delay level (1 to 18)"
                ),
            ));
        }
    }
    if let Some(content_type) = message.media_type() {
        out = out.property(names::CONTENT_TYPE, content_type);
    }
    for (name, value) in message.user_headers().iter() {
        out = match name {
            property::WAIT => match value.trim().to_ascii_lowercase().as_str() {
                "true" => out.wait_store(true),
                "false" => out.wait_store(false),
                _ => {
                    return Err(refused(
                        topic,
                        &format!("header `WAIT` is {value:?}; it must be true or false"),
                    ));
                }
            },
            name => out.property(name, value),
        };
    }
    Ok(out)
}

fn refused(topic: &str, reason: &str) -> OutboundError {
    OutboundError::new(format!("message to topic {topic}: {reason}"), Persisted::No).permanent()
}

/// The delivery of a received message. `topic` is that of the binding; `max_attempts` the last attempt that the
/// broker makes.
pub(super) fn incoming(
    binding: &Arc<str>,
    topic: &Arc<str>,
    view: &MessageView,
    max_attempts: u32,
) -> Delivery {
    let topic = if **topic == *view.topic() {
        Arc::clone(topic)
    } else {
        Arc::from(view.topic())
    };
    let headers: Headers = view
        .properties()
        .filter(|(name, _)| is_user_header(name))
        .collect();
    let mut delivery = Delivery::builder(Arc::clone(binding), topic, view.body().clone())
        .headers(headers)
        .message_id(view.message_id())
        .broker(Arc::clone(&view.queue().broker_name))
        .queue(view.queue().queue_id, view.queue_offset())
        .flag(view.flag())
        .born(view.born_timestamp(), Some(view.born_host().ip()))
        .attempt(view.attempt(), Some(max_attempts));
    if let Some(tag) = view.tag() {
        delivery = delivery.tags(tag);
    }
    if let Some(keys) = view.property(property::KEYS) {
        delivery = delivery.keys(keys);
    }
    delivery.build()
}

fn is_user_header(name: &str) -> bool {
    !property::is_reserved(name) && !METADATA.contains(&name) && !SPRING_NOISE.contains(&name)
}

#[cfg(test)]
mod tests;
