//! The table of routes: which function serves which request code.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use rocketmq_client::protocol::{Frame, HeaderFormat, Request, RequestCode, Response, ResponseCode};

use super::{Refusal, Reply, RequestHead, Session};
use crate::broker::Broker;
use crate::state::Members;

/// What a handler sees besides its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    pub(crate) session: &'a Arc<Session>,
    pub(crate) head: RequestHead,
}

impl<'a> Context<'a> {
    /// Who has said to be there: to the master, or to its slave.
    pub(crate) fn members(&self) -> &'a Members {
        self.session.members(self.broker)
    }
}

type Handler = Box<dyn Fn(Context<'_>, Frame, Reply<'_>) + Send + Sync>;

/// Handlers by request code.
#[derive(Default)]
pub(crate) struct Routes(HashMap<i32, Route>);

struct Route {
    handler: Handler,
    /// Whether users are asked who they are, if the broker knows any.
    guarded: bool,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same without these codes: they are answered as unknown.
    pub(crate) fn without(mut self, codes: &[RequestCode]) -> Self {
        for code in codes {
            self.0.remove(&code.0);
        }
        self
    }

    /// Serves one request type. Header and body that cannot be read are answered with `SYSTEM_ERROR`, as on a real
    /// broker.
    pub(crate) fn on<R: Request>(
        self,
        handler: impl Fn(Context<'_>, R) -> Result<R::Response, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.on_raw(R::CODE, move |context, frame, reply| {
            let opaque = frame.opaque;
            let answer = R::from_frame(frame)
                .map_err(unreadable)
                .and_then(|request| handler(context, request))
                .and_then(|response| response.into_frame(opaque).map_err(unreadable));
            match answer {
                Ok(answer) => reply.frame(&answer),
                Err(refusal) => reply.refuse(&refusal),
            }
        })
    }

    /// Serves a code with a function that writes the answer itself, or later, or never.
    pub(crate) fn on_raw(
        mut self,
        code: RequestCode,
        handler: impl Fn(Context<'_>, Frame, Reply<'_>) + Send + Sync + 'static,
    ) -> Self {
        let route = Route {
            handler: Box::new(handler),
            guarded: false,
        };
        let earlier = self.0.insert(code.0, route);
        debug_assert!(earlier.is_none(), "{code} has two routes");
        self
    }

    /// Lets access control decide about all of these.
    pub(crate) fn guarded(mut self) -> Self {
        for route in self.0.values_mut() {
            route.guarded = true;
        }
        self
    }

    /// All routes of both tables: for one port with two roles.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Serves a request; the answer, if there is one now, is appended to `out`.
    pub(super) fn dispatch(
        &self,
        broker: &Arc<Broker>,
        session: &Arc<Session>,
        frame: Frame,
        format: HeaderFormat,
        out: &mut BytesMut,
    ) {
        let head = RequestHead::of(&frame, format);
        let reply = Reply::new(head, out);
        match self.0.get(&frame.code) {
            Some(route) => {
                if let (true, Some(access)) = (route.guarded, &broker.access)
                    && let Err(refusal) = access.check(&frame, session.peer().ip())
                {
                    tracing::debug!(code = %RequestCode(frame.code), peer = %session.peer(), %refusal.remark, "refused");
                    return reply.refuse(&refusal);
                }
                let context = Context {
                    broker,
                    session,
                    head,
                };
                (route.handler)(context, frame, reply);
            }
            None => {
                let remark = format!(" request type {} not supported", frame.code);
                tracing::debug!(code = %RequestCode(frame.code), peer = %session.peer(), "no route");
                reply.refuse(&Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark));
            }
        }
    }
}

pub(crate) fn unreadable(error: rocketmq_client::protocol::CodecError) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut codes: Vec<_> = self.0.keys().map(|&code| RequestCode(code)).collect();
        codes.sort();
        f.debug_set().entries(codes).finish()
    }
}
