//! Taking back messages that wait for their delivery time.
//!
//! Protocol source: `RecallMessageProcessor`.

use rocketmq_client::protocol::requests::{RecallMessage, Recalled};
use rocketmq_client::protocol::{BrokerVersion, RecallHandle, ResponseCode};

use crate::server::{Context, Refusal};
use crate::wait::Wheel;

pub(super) fn recall(context: Context<'_>, request: RecallMessage) -> Result<Recalled, Refusal> {
    let broker = context.broker;
    if broker.options.version < BrokerVersion::V5_3_2 {
        let remark = "request type 370 not supported";
        return Err(Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark));
    }
    if !broker.options.recall_messages {
        let remark = "recall failed, operation is forbidden";
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    let topic = &request.topic;
    if broker.topics.get(topic).is_none() {
        let remark = format!("recall failed, the topic[{topic}] not exist");
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    }
    let illegal = |remark: String| Refusal::new(ResponseCode::ILLEGAL_OPERATION, remark);
    let handle: RecallHandle = request
        .recall_handle
        .parse()
        .map_err(|error| illegal(format!("recall handle is invalid: {error}")))?;
    if handle.topic != *topic {
        return Err(illegal("recall failed, topic not match".into()));
    }
    if handle.broker_name != broker.options.broker_name {
        return Err(illegal("recall failed, broker service not available".into()));
    }
    let left = handle.deliver_timestamp.saturating_sub(broker.clock.now());
    if left <= 0 || left >= Wheel::MAX_DELAY {
        return Err(illegal("recall failed, timestamp invalid".into()));
    }
    // The handle says a millisecond more than what the message shows.
    let told = handle.deliver_timestamp.saturating_sub(1);
    Wheel::forget(broker, told, topic, &handle.unique_key);
    Ok(Recalled {
        msg_id: handle.unique_key,
    })
}
