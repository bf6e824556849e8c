//! The end of a transaction: its half message becomes visible, or goes.
//!
//! Protocol source: `EndTransactionProcessor`.

use rocketmq_client::protocol::names::HALF_TOPIC;
use rocketmq_client::protocol::requests::EndTransaction;
use rocketmq_client::protocol::{
    Done, Frame, Properties, PropertiesBuf, Record, Request, Response, ResponseCode, SysFlag, property,
};

use super::send::too_many_topics;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::wait::immunity;

/// Serves the end of a transaction. Who does not know the outcome gets no answer.
pub(super) fn end(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let opaque = frame.opaque;
    let ended = EndTransaction::from_frame(frame)
        .map_err(unreadable)
        .and_then(|request| match request.commit_or_rollback {
            EndTransaction::COMMIT => commit(context, &request).map(Some),
            EndTransaction::ROLLBACK => roll_back(context, &request).map(Some),
            _ => Ok(None),
        });
    let answer = match ended {
        Ok(None) => return,
        Ok(Some(done)) => done.into_frame(opaque).map_err(unreadable),
        Err(refusal) => Err(refusal),
    };
    match answer {
        Ok(frame) => reply.frame(&frame),
        Err(refusal) => reply.refuse(&refusal),
    }
}

fn commit(context: Context<'_>, request: &EndTransaction) -> Result<Done, Refusal> {
    let broker = context.broker;
    let half = half_message(context, request)?;
    let real = |name| half.properties.get(name).unwrap_or_default();
    let queue_id = real(property::REAL_QUEUE_ID).parse().unwrap_or(0);
    let topic = broker
        .topics
        .find_or_create(
            real(property::REAL_TOPIC),
            i32::saturating_add(queue_id, 1),
            broker.clock.now(),
        )
        .map_err(|_| too_many_topics())?;
    // As brokers of 5.x do; older ones keep what it says of its destination.
    let mut properties = PropertiesBuf::from(&half.properties);
    properties.remove(property::REAL_TOPIC);
    properties.remove(property::REAL_QUEUE_ID);
    let record = Record {
        topic: topic.text.clone(),
        properties: Properties::from(properties),
        queue_id,
        sys_flag: half
            .sys_flag
            .with(SysFlag::TRANSACTION_MASK, false)
            .with(SysFlag::TRANSACTION_COMMIT, true),
        prepared_transaction_offset: request.commit_log_offset,
        ..half
    };
    broker.append(&topic, record).map_err(unreadable)?;
    broker.halves.done(request.tran_state_table_offset);
    Ok(Done)
}

fn roll_back(context: Context<'_>, request: &EndTransaction) -> Result<Done, Refusal> {
    half_message(context, request)?;
    context.broker.halves.done(request.tran_state_table_offset);
    Ok(Done)
}

/// The half message that a request is about, if the request is right about it.
fn half_message(context: Context<'_>, request: &EndTransaction) -> Result<Record, Refusal> {
    let broker = context.broker;
    let wrong = |remark: &str| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    let found = broker.store.at_physical(request.commit_log_offset);
    let half = match found.map(Record::decode) {
        Some(Ok(half)) if half.topic.as_str() == HALF_TOPIC => half,
        _ => return wrong("Find prepared transaction message failed"),
    };
    let immune = half.properties.get(property::CHECK_IMMUNITY_TIME_IN_SECONDS);
    if let Some(seconds) = immune
        && request.from_transaction_check != Some(true)
        && broker.clock.now().saturating_sub(half.born_timestamp)
            > immunity(seconds, broker.options.transaction_timeout)
    {
        // From now on only the answer to a check counts.
        return Err(Refusal::new(ResponseCode::ILLEGAL_OPERATION, ""));
    }
    if half.properties.get(property::PRODUCER_GROUP) != Some(request.producer_group.as_str()) {
        return wrong("The producer group wrong");
    }
    if half.queue_offset != request.tran_state_table_offset {
        return wrong("The transaction state table offset wrong");
    }
    Ok(half)
}
