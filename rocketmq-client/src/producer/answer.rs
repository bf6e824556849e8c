//! What the answer to an attempt says.
//!
//! Protocol source: `MQClientAPIImpl#processSendResponse`.

use std::str::FromStr;

use super::attempt::{Attempt, Job};
use super::prepare::Needs;
use super::receipt::{SendReceipt, SendStatus};
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::protocol::{CodecError, Fields, Frame, ResponseCode, ResponseError};

impl Job {
    /// The broker answered: it is well, or, by the table of latencies, slow.
    fn note_answer(&self, attempt: &Attempt) {
        let standings = self.core.cluster.remoting().pool().standings();
        if let Some(table) = &self.core.options.latency_fault_tolerance {
            let later = table.not_available(attempt.started.elapsed());
            if !later.is_zero() {
                standings.slow(&attempt.address, later);
                return;
            }
        }
        standings.good(&attempt.address);
    }

    /// What is known of a message that nobody answers for.
    pub(super) fn unanswered(&mut self, attempt: Attempt) -> SendReceipt {
        self.succeeded(&attempt);
        SendReceipt {
            message_id: std::mem::take(&mut self.prepared.message_id),
            offset_message_id: String::new(),
            queue: attempt.queue,
            queue_offset: -1,
            status: SendStatus::Ok,
            attempts: self.attempts,
            recall_handle: None,
        }
    }

    fn succeeded(&self, attempt: &Attempt) {
        attempt
            .meters
            .succeeded(self.prepared.messages(), self.begun.elapsed());
    }

    /// What the frame that answered an attempt says.
    pub(super) fn read(&mut self, attempt: &Attempt, frame: Frame) -> Result<SendReceipt> {
        let code = ResponseCode(frame.code);
        let Some(status) = SendStatus::of(code) else {
            return Err(refusal(attempt, &frame));
        };
        let malformed = |error| {
            Error::from_response("SendMessageV2", &attempt.address, ResponseError::Malformed(error))
                .with_persisted(Persisted::Yes)
        };
        let place = Place::read(&frame.fields).map_err(malformed)?;
        self.note_answer(attempt);
        if status != SendStatus::Ok && self.core.options.retry_when_not_stored_ok && self.may_retry() {
            return Err(refusal(attempt, &frame).with_persisted(Persisted::Yes));
        }
        if status != SendStatus::Ok && self.require_ok {
            let remark = frame.remark.unwrap_or_default();
            return Err(Error::not_durable(
                &attempt.address,
                status.name(),
                (code, remark),
            ));
        }
        self.succeeded(attempt);
        let mut queue = attempt.queue.clone();
        queue.queue_id = place.queue_id;
        let receipt = SendReceipt {
            message_id: std::mem::take(&mut self.prepared.message_id),
            offset_message_id: place.message_id.to_owned(),
            queue,
            queue_offset: place.queue_offset,
            status,
            attempts: self.attempts,
            // The hot path does not look for what it cannot have.
            recall_handle: match self.prepared.needs {
                Needs::DeliveryTime => frame.fields.get("recallHandle").map(str::to_owned),
                _ => None,
            },
        };
        if let Some(tracer) = self.core.cluster.trace() {
            self.trace(tracer, attempt, &frame.fields, &receipt);
        }
        Ok(receipt)
    }
}

/// What a receipt needs of [`SendResultHeader`](crate::protocol::requests::SendResultHeader): read in place, since this
/// is done for every message.
struct Place<'a> {
    message_id: &'a str,
    queue_id: i32,
    queue_offset: i64,
}

impl<'a> Place<'a> {
    fn read(fields: &'a Fields) -> Result<Self, CodecError> {
        let field = |name| {
            let missing = || CodecError::Field(format!("missing field `{name}`"));
            fields.get(name).ok_or_else(missing)
        };
        Ok(Self {
            message_id: field("msgId")?,
            queue_id: number("queueId", field("queueId")?)?,
            queue_offset: number("queueOffset", field("queueOffset")?)?,
        })
    }
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, CodecError> {
    let wrong = |_| CodecError::Field(format!("header field {name:?}: cannot read {text:?}"));
    text.parse().map_err(wrong)
}

/// A code that is no success. Of the known ones it is known that nothing was stored, but for code 1, which stands for
/// anything; what another one means is the broker's secret.
fn refusal(attempt: &Attempt, frame: &Frame) -> Error {
    let error = Error::from_response("SendMessageV2", &attempt.address, ResponseError::refused(frame));
    let persisted = match ResponseCode(frame.code) {
        ResponseCode::SYSTEM_ERROR if error.kind() != ErrorKind::Auth => Persisted::Maybe,
        code if code.name().is_none() => Persisted::Maybe,
        _ => Persisted::No,
    };
    error.with_persisted(persisted)
}
