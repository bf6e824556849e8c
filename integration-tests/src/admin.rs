//! Typed requests without a client.
//!
//! For what scenarios need around the client under test: topics to exist, offsets to look at, answers to compare
//! between servers.

use std::{net::SocketAddr, time::Duration};

use bytes::BytesMut;
use rocketmq_client::protocol::{
    Fields, Frame, HeaderFormat, Request, Response, ResponseCode, ResponseError,
    frame::{Head, next_frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Failure;

const LIMIT: Duration = Duration::from_secs(10);

/// Sends one request on a connection of its own and waits up to 10 seconds for the answer.
///
/// # Errors
/// When the server refuses, which [`refused_with`] tells apart, or there is no answer.
pub async fn call<R: Request>(address: SocketAddr, request: &R) -> Result<R::Response, Failure> {
    Connection::open(address).await?.call(request).await
}

/// Whether a failed [`call`] is a refusal with this code.
#[must_use]
pub fn refused_with(failure: &Failure, wanted: ResponseCode) -> bool {
    matches!(failure.downcast_ref(), Some(ResponseError::Refused { code, .. }) if *code == wanted)
}

/// A connection that stays, for what servers tie to one: the members of a group.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    socket: TcpStream,
    buffer: BytesMut,
    opaque: i32,
    notices: Vec<Frame>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the server cannot be reached in 10 seconds.
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let socket = timeout(LIMIT, TcpStream::connect(address))
            .await
            .map_err(|_| format!("no connection to {address} in {LIMIT:?}"))?
            .map_err(|error| format!("no connection to {address}: {error}"))?;
        Ok(Self {
            address,
            socket,
            buffer: BytesMut::new(),
            opaque: 0,
            notices: Vec::new(),
        })
    }

    /// Sends one request and waits up to 10 seconds for the answer.
    ///
    /// # Errors
    /// When the server refuses, which [`refused_with`] tells apart, or there is no answer.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, Failure> {
        self.opaque += 1;
        let body = request.body();
        let mut frame = BytesMut::new();
        let head = Head::request(R::CODE.0, self.opaque, false);
        head.encode(
            HeaderFormat::Json,
            request,
            &Fields::new(),
            body.len(),
            &mut frame,
        )?;
        frame.extend_from_slice(&body);
        self.socket.write_all(&frame).await?;
        loop {
            let frame = self
                .frame()
                .await
                .map_err(|failure| format!("{}: {failure}", R::NAME))?;
            if frame.is_response() && frame.opaque == self.opaque {
                return Ok(R::Response::from_frame(frame)?);
            }
            self.notices.push(frame);
        }
    }

    /// Sends a request as it is and waits up to 10 seconds for whatever is answered.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn exchange(&mut self, request: &Frame) -> Result<Frame, Failure> {
        let mut bytes = BytesMut::new();
        request.encode(HeaderFormat::Json, &mut bytes)?;
        self.socket.write_all(&bytes).await?;
        loop {
            let frame = self.frame().await?;
            if frame.is_response() && frame.opaque == request.opaque {
                return Ok(frame);
            }
            self.notices.push(frame);
        }
    }

    /// The next request that the server sends by itself; waits up to 10 seconds.
    ///
    /// # Errors
    /// When none comes.
    pub async fn notice(&mut self) -> Result<Frame, Failure> {
        if self.notices.is_empty() {
            self.frame().await
        } else {
            Ok(self.notices.remove(0))
        }
    }

    async fn frame(&mut self) -> Result<Frame, Failure> {
        let address = self.address;
        let read = async {
            loop {
                if let Some(frame) = next_frame(&mut self.buffer)? {
                    return Ok(frame);
                }
                if self.socket.read_buf(&mut self.buffer).await? == 0 {
                    return Err(Failure::from(format!("{address} closed the connection")));
                }
            }
        };
        timeout(LIMIT, read)
            .await
            .unwrap_or_else(|_| Err(format!("{address} was silent for {LIMIT:?}").into()))
    }
}
