//! A client of raw frames: what goes over the wire and nothing else.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::frame::next_frame;
use rocketmq_client::protocol::requests::{PullMessage, SendMessageV2, pull_flag};
use rocketmq_client::protocol::{
    Fields, Frame, HeaderFormat, PropertiesBuf, Request, Response, ResponseCode, ResponseError,
};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A broker with default settings and a connection to it.
pub(crate) async fn start() -> (EmbeddedBroker, Wire) {
    let broker = EmbeddedBroker::start().await.unwrap();
    let wire = Wire::connect(&broker.name_server()).await;
    (broker, wire)
}

/// One connection. Answers are read in the order in which they come.
pub(crate) struct Wire {
    stream: TcpStream,
    input: BytesMut,
    next_opaque: i32,
    pub(crate) format: HeaderFormat,
}

impl Wire {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        // Two requests without an answer in between must not wait for the kernel: a paused clock would run on.
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            input: BytesMut::new(),
            next_opaque: 1,
            format: HeaderFormat::Json,
        }
    }

    /// Sends a request and does not wait; returns its number.
    pub(crate) async fn send<R: Request>(&mut self, request: &R) -> i32 {
        let frame = frame_of(request);
        self.send_frame(frame).await
    }

    pub(crate) async fn send_frame(&mut self, mut frame: Frame) -> i32 {
        frame.opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut out = BytesMut::new();
        frame.encode(self.format, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
        frame.opaque
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; none when the broker has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = next_frame(&mut self.input).unwrap() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends a request and returns the frame that answers it.
    pub(crate) async fn ask<R: Request>(&mut self, request: &R) -> Frame {
        let frame = frame_of(request);
        self.ask_frame(frame).await
    }

    pub(crate) async fn ask_frame(&mut self, frame: Frame) -> Frame {
        let opaque = self.send_frame(frame).await;
        loop {
            let frame = self
                .next()
                .await
                .expect("an answer, not the end of the connection");
            if frame.is_response() && frame.opaque == opaque {
                return frame;
            }
        }
    }

    pub(crate) async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, ResponseError> {
        R::Response::from_frame(self.ask(request).await)
    }

    /// The code and the remark of the answer.
    pub(crate) async fn code<R: Request>(&mut self, request: &R) -> (ResponseCode, String) {
        let frame = self.ask(request).await;
        (ResponseCode(frame.code), frame.remark.unwrap_or_default())
    }
}

pub(crate) fn frame_of<R: Request>(request: &R) -> Frame {
    Frame {
        fields: Fields::from_header(request).unwrap(),
        body: request.body(),
        ..Frame::request(R::CODE)
    }
}

pub(crate) fn properties(pairs: &[(&str, &str)]) -> String {
    let mut properties = PropertiesBuf::new();
    for (name, value) in pairs {
        properties.set(name, value).unwrap();
    }
    properties.into_string()
}

pub(crate) fn message(topic: &str, queue_id: i32, body: impl Into<Bytes>) -> SendMessageV2 {
    SendMessageV2 {
        producer_group: "producers".into(),
        topic: topic.into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties: None,
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: None,
        broker_name: None,
        body: body.into(),
    }
}

pub(crate) fn tagged(topic: &str, queue_id: i32, tag: &str) -> SendMessageV2 {
    SendMessageV2 {
        properties: Some(properties(&[("TAGS", tag)])),
        ..message(topic, queue_id, tag.to_owned())
    }
}

/// A pull that brings its subscription along and does not wait.
pub(crate) fn pull(topic: &str, queue_id: i32, offset: i64) -> PullMessage {
    PullMessage {
        consumer_group: "consumers".into(),
        topic: topic.into(),
        queue_id,
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: pull_flag::SUBSCRIPTION,
        commit_offset: 0,
        suspend_timeout_millis: 0,
        subscription: Some("*".into()),
        sub_version: 0,
        expression_type: Some("TAG".into()),
        max_msg_bytes: None,
    }
}

/// The same pull, ready to wait.
pub(crate) fn waiting(pull: PullMessage, wait: Duration) -> PullMessage {
    PullMessage {
        sys_flag: pull.sys_flag | pull_flag::SUSPEND,
        suspend_timeout_millis: i64::try_from(wait.as_millis()).unwrap(),
        ..pull
    }
}
