//! What the producing side tells of its messages in message trace.
//!
//! Protocol source: `SendMessageTraceHookImpl`, `DefaultRecallMessageTraceHook`.

use super::Core;
use super::attempt::{Attempt, Job};
use super::prepare::Needs;
use super::receipt::{SendReceipt, SendStatus};
use super::transaction::{Place, TransactionState, Transactions};
use crate::protocol::trace::{
    DEFAULT_REGION, EndTransactionTrace, PubTrace, RecallTrace, TraceMessageType, TraceRecord,
};
use crate::protocol::{Fields, property};
use crate::trace::{Tracer, cost_since, now_millis};

impl Job {
    /// Records a message that a broker stored. `fields` are those of its answer.
    pub(super) fn trace(&self, tracer: &Tracer, attempt: &Attempt, fields: &Fields, receipt: &SendReceipt) {
        let prepared = &self.prepared;
        if !tracer.covers(&prepared.topic) || fields.get(property::TRACE_ON) == Some("false") {
            return;
        }
        let text = |name| prepared.property(name).map(str::to_owned);
        let message_type = if prepared.property(property::TRANSACTION_PREPARED) == Some("true") {
            TraceMessageType::HALF
        } else if prepared.needs == Needs::DeliveryTime || prepared.property(property::DELAY).is_some() {
            TraceMessageType::DELAY
        } else {
            TraceMessageType::NORMAL
        };
        // Of a batch there are as many ids as messages, and one record for each: it can be found by any of its ids.
        let messages = receipt.message_id.split(',').count().max(1) as u64;
        let mut offset_ids = receipt.offset_message_id.split(',');
        for message_id in receipt.message_id.split(',') {
            tracer.record(TraceRecord::Pub(PubTrace {
                timestamp: prepared.born_timestamp,
                region: region(fields.get(property::MSG_REGION)),
                group: self.core.group.clone(),
                topic: prepared.topic.clone(),
                message_id: message_id.to_owned(),
                tags: text(property::TAGS),
                keys: text(property::KEYS),
                store_host: attempt.address.to_string(),
                body_length: prepared.body.len() as u64 / messages,
                cost: cost_since(prepared.born_timestamp),
                message_type,
                offset_message_id: offset_ids.next().map(str::to_owned),
                success: receipt.status == SendStatus::Ok,
            }));
        }
    }
}

impl Core {
    /// Records what a broker answered to the recall of a message.
    pub(super) fn trace_recall(&self, topic: &str, message_id: &str, success: bool) {
        let Some(tracer) = self.cluster.trace().filter(|tracer| tracer.covers(topic)) else {
            return;
        };
        tracer.record(TraceRecord::Recall(RecallTrace {
            timestamp: now_millis(),
            region: region(None),
            group: self.group.clone(),
            topic: topic.to_owned(),
            message_id: message_id.to_owned(),
            success,
        }));
    }
}

impl Transactions {
    /// Records that a broker was told the end of a transaction.
    pub(super) fn trace_end(
        &self,
        tracer: &Tracer,
        place: &Place,
        id: &str,
        state: TransactionState,
        from_check: bool,
    ) {
        if !tracer.covers(&place.user_topic) {
            return;
        }
        let address = self.address_of(place);
        tracer.record(TraceRecord::EndTransaction(EndTransactionTrace {
            timestamp: now_millis(),
            region: region(None),
            group: self.group.clone(),
            topic: place.user_topic.clone(),
            message_id: id.to_owned(),
            // What it was sent with is in the record of the half message.
            tags: None,
            keys: None,
            store_host: address.map_or_else(|_| String::new(), |address| address.to_string()),
            message_type: TraceMessageType::COMMIT,
            transaction_id: place.transaction_id.clone(),
            state: match state {
                TransactionState::Commit => "COMMIT_MESSAGE",
                TransactionState::Rollback => "ROLLBACK_MESSAGE",
                TransactionState::Unknown => "UNKNOW",
            }
            .to_owned(),
            from_check,
        }));
    }
}

/// The region that a broker names, or the one that brokers have by default.
fn region(named: Option<&str>) -> String {
    named
        .filter(|region| !region.is_empty())
        .unwrap_or(DEFAULT_REGION)
        .to_owned()
}
