//! Questions of tools that only a member can answer: the broker passes them on and, when the member has answered, is
//! gone or has been silent for too long, answers the tool.
//!
//! Protocol source: `AdminBrokerProcessor#callConsumer`, `Broker2Client#getConsumeStatus`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::bodies::{ConsumerStatus, QueueMap};
use rocketmq_client::protocol::{Frame, Json, JsonBody, RequestCode, Response, ResponseCode};
use tokio::time::Instant;

use super::timer::{Event, TimerKey};
use crate::broker::Broker;
use crate::lock::lock;
use crate::server::{Refusal, Reply, RequestHead, Session};

/// How long a member may take to answer a question that is passed on as it is.
const RELAY_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to tell its offsets.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How many questions may be open.
const MAX_OPEN: usize = 16 * 1024;

/// Who asked, and is answered in the end.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) session: Arc<Session>,
    pub(crate) head: RequestHead,
}

impl Asker {
    fn answer(&self, write: impl FnOnce(Reply<'_>)) {
        let mut out = BytesMut::new();
        write(Reply::new(self.head, &mut out));
        if !out.is_empty() {
            // An asker that is gone wants no answer.
            self.session.push(out.freeze());
        }
    }
}

/// What is done with an answer.
#[derive(Debug)]
enum Question {
    /// It goes to the asker as it is. The text names group and client.
    Relay { asker: Asker, whom: String },
    /// It is one of several that are put together.
    Status { all: Arc<Statuses>, client_id: String },
}

/// The offsets of several members.
#[derive(Debug)]
struct Statuses {
    asker: Asker,
    state: Mutex<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    open: usize,
    found: BTreeMap<String, QueueMap<i64>>,
}

/// All open questions, by the member's connection and the number of the request to it.
#[derive(Debug, Default)]
pub(crate) struct Relays(Mutex<HashMap<(u64, i32), (Question, TimerKey)>>);

impl Relays {
    /// Forgets all: their connections are gone.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    fn take(broker: &Broker, session: u64, opaque: i32) -> Option<Question> {
        let (question, timer) = lock(&broker.relays.0).remove(&(session, opaque))?;
        broker.timers.cancel(timer);
        Some(question)
    }

    /// Asks a member. What cannot be asked counts as not answered.
    fn ask(broker: &Broker, member: &Session, frame: Frame, limit: Duration, question: Question) {
        let opaque = member.next_opaque();
        let mut out = BytesMut::new();
        let frame = Frame { opaque, ..frame };
        let encoded = frame.encode(rocketmq_client::protocol::HeaderFormat::Json, &mut out);
        // Before the push: the answer may be quicker than this function.
        let refused = {
            let mut open = lock(&broker.relays.0);
            if open.len() >= MAX_OPEN || encoded.is_err() {
                Some(question)
            } else {
                let event = Event::QuestionTimeout {
                    session: member.id(),
                    opaque,
                };
                let timer = broker.timers.set(Instant::now() + limit, event);
                open.insert((member.id(), opaque), (question, timer));
                None
            }
        };
        match refused {
            Some(question) => fail(question, Failure::NotSent),
            None if member.push(out.freeze()) => {}
            None => {
                if let Some(question) = Self::take(broker, member.id(), opaque) {
                    fail(question, Failure::NotSent);
                }
            }
        }
    }
}

/// Passes a question on to a member as it is.
pub(crate) fn relay(broker: &Broker, asker: Asker, member: &Session, frame: Frame, whom: String) {
    let question = Question::Relay { asker, whom };
    Relays::ask(broker, member, frame, RELAY_LIMIT, question);
}

/// Asks members, given with their client ids, for their offsets, and answers when all have answered or cannot.
pub(crate) fn gather(broker: &Broker, asker: Asker, members: Vec<(String, Arc<Session>)>, frame: &Frame) {
    let all = Arc::new(Statuses {
        asker,
        state: Mutex::new(Gathered {
            open: members.len(),
            found: BTreeMap::new(),
        }),
    });
    if members.is_empty() {
        return all.answer_if_done();
    }
    for (client_id, session) in members {
        let question = Question::Status {
            all: Arc::clone(&all),
            client_id,
        };
        Relays::ask(broker, &session, frame.clone(), STATUS_LIMIT, question);
    }
}

impl Statuses {
    /// Takes what a member said, if it said something.
    fn add(&self, client_id: String, found: Option<QueueMap<i64>>) {
        {
            let mut state = lock(&self.state);
            state.open = state.open.saturating_sub(1);
            if let Some(found) = found {
                state.found.insert(client_id, found);
            }
        }
        self.answer_if_done();
    }

    fn answer_if_done(&self) {
        let consumer_table = {
            let mut state = lock(&self.state);
            if state.open > 0 {
                return;
            }
            std::mem::take(&mut state.found)
        };
        let status = ConsumerStatus {
            consumer_table,
            ..ConsumerStatus::default()
        };
        self.asker
            .answer(|reply| match Json(status).into_frame(self.asker.head.opaque) {
                Ok(frame) => reply.frame(&frame),
                Err(error) => reply.refuse(&Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())),
            });
    }
}

/// Why a member has not answered.
#[derive(Clone, Copy, Debug)]
enum Failure {
    NotSent,
    Gone,
    Silent,
}

fn fail(question: Question, failure: Failure) {
    match question {
        Question::Status { all, client_id } => all.add(client_id, None),
        Question::Relay { asker, whom } => {
            let refusal = match failure {
                Failure::Silent => Refusal::new(
                    ResponseCode::CONSUME_MSG_TIMEOUT,
                    format!(
                        "consumer {whom} Timeout: no answer within {} s",
                        RELAY_LIMIT.as_secs()
                    ),
                ),
                Failure::Gone | Failure::NotSent => Refusal::new(
                    ResponseCode::SYSTEM_ERROR,
                    format!("invoke consumer {whom} Exception: its connection does not take the request"),
                ),
            };
            asker.answer(|reply| reply.refuse(&refusal));
        }
    }
}

/// A client has answered a request of the broker, perhaps one of these.
pub(super) fn answered(broker: &Broker, session: &Session, frame: &Frame) {
    match Relays::take(broker, session.id(), frame.opaque) {
        None => {}
        Some(Question::Relay { asker, .. }) => {
            let answer = Frame {
                opaque: asker.head.opaque,
                ..frame.clone()
            };
            asker.answer(|reply| reply.frame(&answer));
        }
        Some(Question::Status { all, client_id }) => {
            let told = frame.code == ResponseCode::SUCCESS.0 && !frame.body.is_empty();
            let status = told
                .then(|| ConsumerStatus::from_body(&frame.body).ok())
                .flatten();
            all.add(client_id, status.map(|status| status.message_queue_table));
        }
    }
}

/// A connection is closed: who was asked over it does not answer.
pub(crate) fn member_is_gone(broker: &Broker, session: u64) {
    let opaques: Vec<_> = lock(&broker.relays.0)
        .keys()
        .filter(|(to, _)| *to == session)
        .map(|(_, opaque)| *opaque)
        .collect();
    for opaque in opaques {
        if let Some(question) = Relays::take(broker, session, opaque) {
            fail(question, Failure::Gone);
        }
    }
}

pub(super) fn time_out(broker: &Broker, session: u64, opaque: i32) {
    if let Some(question) = Relays::take(broker, session, opaque) {
        fail(question, Failure::Silent);
    }
}

/// The frame of a question to members.
pub(crate) fn question(code: RequestCode, fields: rocketmq_client::protocol::Fields, body: Bytes) -> Frame {
    Frame {
        fields,
        body,
        ..Frame::request(code)
    }
}
