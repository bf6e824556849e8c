//! The HTTP address that tells the name servers: one GET, small and bounded in every way.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failed;
use crate::error::{Error, Result};
use tower::BoxError;

/// The largest answer: room for thousands of name servers.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// An HTTP address.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As it is asked, the unit included.
    url: String,
    /// `host:port`.
    address: String,
    /// What goes into the header `Host`.
    host: String,
    /// Path and query.
    path: String,
}

impl Endpoint {
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no HTTP address.
    pub(super) fn new(url: &str, unit: Option<&str>) -> Result<Self> {
        let wrong = |reason: &str| {
            Error::config(format!(
                "endpoint {url:?} cannot be used: {reason}; write for instance \
                 http://jmenv.example.com:8080/rocketmq/nsaddr"
            ))
        };
        let full = match unit {
            Some(unit) => format!("{url}-{unit}?nofix=1"),
            None => url.to_owned(),
        };
        let uri: Uri = full
            .parse()
            .map_err(|error| wrong(&format!("it is no address ({error})")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(_) => return Err(wrong("only http:// is supported")),
            None => return Err(wrong("it has no http:// in front")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("credentials are not supported"));
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            address: format!("{}:{port}", authority.host()),
            host: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            url: full,
        })
    }

    /// The first line that the address answers with.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) with the reason.
    ///
    /// # Cancellation
    /// Safe; the connection ends with the future.
    pub(super) async fn fetch(&self, limit: Duration) -> Result<String> {
        let body = match timeout(limit, self.exchange()).await {
            Ok(answer) => answer.map_err(|error| self.failed(&error))?,
            Err(_) => return Err(self.failed(&format!("no answer in {limit:?}"))),
        };
        let text = String::from_utf8(body).map_err(|error| self.failed(&error))?;
        let line = text.trim().lines().next().unwrap_or_default().trim();
        match line.is_empty() {
            true => Err(self.failed(&"the answer is empty")),
            false => Ok(line.to_owned()),
        }
    }

    pub(super) fn failed(&self, reason: &dyn std::fmt::Display) -> Error {
        failed(&self.url, reason)
    }

    async fn exchange(&self) -> std::result::Result<Vec<u8>, BoxError> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BODY_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let asked = async move {
            let request = Request::get(&self.path)
                .header(HOST, &self.host)
                .body(String::new())?;
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::OK {
                return Err(format!("it answered {}", response.status()).into());
            }
            read(response.into_body()).await
        };
        // The connection ends with its sender, once the answer is read.
        let (answer, _) = tokio::join!(asked, connection);
        answer
    }
}

async fn read(body: Incoming) -> std::result::Result<Vec<u8>, BoxError> {
    let mut body = pin!(body);
    let mut read = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if read.len() + data.len() > MAX_BODY_BYTES {
            return Err(format!("the answer is above {MAX_BODY_BYTES} bytes").into());
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}
