//! What the consuming side tells of its messages in message trace.
//!
//! Protocol source: `ConsumeMessageTraceHookImpl`.

use super::handler::Fault;
use super::outcome::Outcome;
use super::remote::Remote;
use crate::message::MessageView;
use crate::protocol::property;
use crate::protocol::trace::{DEFAULT_REGION, SubAfterTrace, SubBeforeTrace, TraceRecord};
use crate::trace::{Tracer, cost_since, now_millis};

/// A delivery that is being traced.
#[derive(Debug)]
pub(super) struct Traced {
    request_id: String,
    message_id: String,
    keys: Option<String>,
    started: i64,
}

impl Remote {
    /// Records that a message is about to be handed to its handler, if it is to be traced.
    pub(super) fn trace_before(&self, tracer: &Tracer, message: &MessageView) -> Option<Traced> {
        if !tracer.covers(message.topic()) || message.property(property::TRACE_ON) == Some("false") {
            return None;
        }
        let traced = Traced {
            request_id: self.cluster().unique_ids().next(),
            message_id: message.message_id(),
            keys: message.property(property::KEYS).map(str::to_owned),
            started: now_millis(),
        };
        let region = message.property(property::MSG_REGION).unwrap_or(DEFAULT_REGION);
        tracer.record(TraceRecord::SubBefore(SubBeforeTrace {
            timestamp: traced.started,
            region: region.to_owned(),
            group: self.group().to_string(),
            request_id: traced.request_id.clone(),
            message_id: traced.message_id.clone(),
            retry_times: message.reconsume_times(),
            keys: traced.keys.clone(),
        }));
        Some(traced)
    }

    /// Records what the handler made of it.
    pub(super) fn trace_after(&self, tracer: &Tracer, traced: Traced, outcome: &Result<Outcome, Fault>) {
        let context_code = match outcome {
            Ok(Outcome::Ack) => SubAfterTrace::SUCCESS,
            Ok(_) => SubAfterTrace::FAILED,
            Err(Fault::TimedOut(_)) => SubAfterTrace::TIME_OUT,
            Err(_) => SubAfterTrace::EXCEPTION,
        };
        tracer.record(TraceRecord::SubAfter(SubAfterTrace {
            cost: cost_since(traced.started),
            request_id: traced.request_id,
            message_id: traced.message_id,
            success: context_code == SubAfterTrace::SUCCESS,
            keys: traced.keys,
            context_code,
            timestamp: Some(now_millis()),
            group: Some(self.group().to_string()),
        }));
    }

    /// Records messages that were handed out to who polls: nobody says what became of them, so it counts as done.
    pub(super) fn trace_polled(&self, tracer: &Tracer, messages: &[MessageView]) {
        for message in messages {
            if let Some(traced) = self.trace_before(tracer, message) {
                self.trace_after(tracer, traced, &Ok(Outcome::Ack));
            }
        }
    }
}
