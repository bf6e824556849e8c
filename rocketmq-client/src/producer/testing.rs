//! Scripted brokers for the tests of sends.

use crate::cluster::testing::{FakeRoutes, manage, name_server_and_broker, route};
use crate::message::Message;
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{Frame, Request, ResponseCode};
use crate::transport::fake::{Answer, FakeServer};

/// A broker's answer to a send that it stored, with this code.
pub(super) fn stored(frame: &Frame, code: ResponseCode) -> Answer {
    let request = SendMessageV2::from_frame(frame.clone()).unwrap();
    let mut response = Frame::response(code, 0);
    response.fields.push("msgId", "7F00000100002A9F0000000000001234");
    response.fields.push("queueId", &request.queue_id.to_string());
    response.fields.push("queueOffset", "5");
    Answer::Respond(response)
}

pub(super) fn ok(frame: &Frame) -> Answer {
    stored(frame, ResponseCode::SUCCESS)
}

/// A broker of its own, not a name server.
pub(super) async fn broker(script: impl Fn(&Frame) -> Answer + Send + Sync + 'static) -> FakeServer {
    FakeServer::start(move |frame| manage(frame).unwrap_or_else(|| script(frame))).await
}

/// A name server and two brokers with scripts, and the topic `t` with one queue on each.
pub(super) struct Two {
    pub(super) routes: FakeRoutes,
    pub(super) name_server: FakeServer,
    pub(super) a: FakeServer,
    pub(super) b: FakeServer,
}

impl Two {
    pub(super) async fn new(
        a: impl Fn(&Frame) -> Answer + Send + Sync + 'static,
        b: impl Fn(&Frame) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let routes = FakeRoutes::default();
        let name_server = name_server_and_broker(&routes, |_| Answer::Silence).await;
        let (a, b) = (broker(a).await, broker(b).await);
        routes.set("t", route(&[("a", &a.address()), ("b", &b.address())], 1));
        Self {
            routes,
            name_server,
            a,
            b,
        }
    }

    pub(super) fn sent_to_a(&self) -> usize {
        self.a.requests_of::<SendMessageV2>().len()
    }

    pub(super) fn sent_to_b(&self) -> usize {
        self.b.requests_of::<SendMessageV2>().len()
    }
}

pub(super) fn message() -> Message {
    Message::new("t", "body")
}
