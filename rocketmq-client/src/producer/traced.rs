//! What the producing side tells of its messages in message trace.
//!
//! Protocol source: `SendMessageTraceHookImpl`.

use super::attempt::{Attempt, Job};
use super::receipt::{SendReceipt, SendStatus};
use crate::protocol::trace::{DEFAULT_REGION, PubTrace, TraceMessageType, TraceRecord};
use crate::protocol::{Fields, property};
use crate::trace::{Tracer, cost_since};

/// Properties of a message that is delivered later.
const LATER: [&str; 4] = [
    property::DELAY,
    "TIMER_DELIVER_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELAY_MS",
];

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
        } else if LATER.iter().any(|name| prepared.property(name).is_some()) {
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

/// The region that a broker names, or the one that brokers have by default.
pub(super) fn region(named: Option<&str>) -> String {
    named
        .filter(|region| !region.is_empty())
        .unwrap_or(DEFAULT_REGION)
        .to_owned()
}
