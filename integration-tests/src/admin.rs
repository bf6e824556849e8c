//! Typed requests without a client: one connection, one request.
//!
//! For what scenarios need around the client under test: topics to exist, offsets to look at, answers to compare
//! between servers.

use std::{net::SocketAddr, time::Duration};

use bytes::BytesMut;
use rocketmq_client::protocol::{
    Fields, HeaderFormat, Request, Response, ResponseCode, ResponseError,
    frame::{Head, next_frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Failure;

const LIMIT: Duration = Duration::from_secs(10);

/// Sends one request and waits up to 10 seconds for the answer.
///
/// # Errors
/// When the server refuses, which [`refused_with`] tells apart, or there is no answer.
pub async fn call<R: Request>(address: SocketAddr, request: &R) -> Result<R::Response, Failure> {
    timeout(LIMIT, exchange(address, request))
        .await
        .unwrap_or_else(|_| Err(format!("{address} did not answer {} in {LIMIT:?}", R::NAME).into()))
}

/// Whether a failed [`call`] is a refusal with this code.
#[must_use]
pub fn refused_with(failure: &Failure, wanted: ResponseCode) -> bool {
    matches!(failure.downcast_ref(), Some(ResponseError::Refused { code, .. }) if *code == wanted)
}

async fn exchange<R: Request>(address: SocketAddr, request: &R) -> Result<R::Response, Failure> {
    let mut socket = TcpStream::connect(address).await?;
    let body = request.body();
    let mut buffer = BytesMut::new();
    let head = Head::request(R::CODE.0, 1, false);
    head.encode(
        HeaderFormat::Json,
        request,
        &Fields::new(),
        body.len(),
        &mut buffer,
    )?;
    buffer.extend_from_slice(&body);
    socket.write_all(&buffer).await?;
    buffer.clear();
    loop {
        if let Some(frame) = next_frame(&mut buffer)? {
            return Ok(R::Response::from_frame(frame)?);
        }
        if socket.read_buf(&mut buffer).await? == 0 {
            return Err(format!("{address} closed the connection instead of answering {}", R::NAME).into());
        }
    }
}
