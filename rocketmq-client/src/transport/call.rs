//! One request to one address, with or without layers around it.
//!
//! Without layers a typed request is encoded straight into the connection's buffer. With layers it becomes a
//! [`Call`] that they may read, change, answer or refuse.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use tower::layer::Layer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt, service_fn};

use super::connection::{Outbound, Started};
use super::outgoing::Hold;
use super::pool::Pool;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::frame::NoFields;
use crate::protocol::{Fields, Frame, RequestCode, ResponseCode};
use crate::sync::lock;

/// A request as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// `host:port` of the peer.
    pub address: Arc<str>,
    /// What is asked for.
    pub code: RequestCode,
    /// The name of the typed request.
    pub name: &'static str,
    /// The header fields; a layer may add some.
    pub fields: Fields,
    /// The body.
    pub body: Bytes,
    /// How long the call may take from now on.
    pub timeout: Duration,
    /// Whether no response is wanted. The reply of such a call is an empty success.
    pub one_way: bool,
}

/// The answer to a [`Call`] as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// How the request ended.
    pub code: ResponseCode,
    /// The peer's version.
    pub version: i32,
    /// Text for people, mostly the reason of an error.
    pub remark: Option<String>,
    /// The header fields.
    pub fields: Fields,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// An answer with this code and nothing else: for layers that answer themselves.
    #[must_use]
    pub fn new(code: ResponseCode) -> Self {
        Self::from(Frame::response(code, 0))
    }
}

impl From<Frame> for Reply {
    fn from(frame: Frame) -> Self {
        Self {
            code: ResponseCode(frame.code),
            version: frame.version,
            remark: frame.remark,
            fields: frame.fields,
            body: frame.body,
        }
    }
}

impl From<Reply> for Frame {
    fn from(reply: Reply) -> Self {
        Self {
            version: reply.version,
            remark: reply.remark,
            fields: reply.fields,
            body: reply.body,
            ..Self::response(reply.code, 0)
        }
    }
}

/// Requests inside layers; the innermost service sends them. What a layer of
/// [`request_layer`](crate::ClientBuilder::request_layer) is put around.
pub type RequestStack = BoxCloneSyncService<Call, Reply, Error>;

/// Puts a layer around a stack; `kind` is what such layers are called in errors.
pub(crate) fn layered<L, Q, A>(
    layer: &L,
    inner: BoxCloneSyncService<Q, A, Error>,
    kind: &'static str,
) -> BoxCloneSyncService<Q, A, Error>
where
    L: Layer<BoxCloneSyncService<Q, A, Error>>,
    L::Service: Service<Q, Response = A> + Clone + Send + Sync + 'static,
    <L::Service as Service<Q>>::Error: Into<BoxError>,
    <L::Service as Service<Q>>::Future: Send + 'static,
    Q: 'static,
    A: 'static,
{
    let service = layer.layer(inner).map_err(move |error| {
        let error: BoxError = error.into();
        // An error of ours comes back as it was; one of a layer's own is wrapped.
        match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::new(ErrorKind::Rejected, format!("a {kind} layer failed: {error}"))
                .caused_by(Foreign(error)),
        }
    });
    BoxCloneSyncService::new(service)
}

/// An error of a layer as a source.
#[derive(Debug)]
struct Foreign(BoxError);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Foreign {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Requests to any address.
#[derive(Debug)]
pub(crate) struct Remoting {
    pool: Arc<Pool>,
    layers: Option<Layered>,
}

/// The stack is cloned for each call; the lock makes that possible from any thread.
struct Layered(Mutex<RequestStack>);

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layered")
    }
}

impl Remoting {
    /// Without layers unless `install` puts some around the innermost service.
    pub(crate) fn new(
        pool: Arc<Pool>,
        install: Option<Box<dyn FnOnce(RequestStack) -> RequestStack + Send>>,
    ) -> Self {
        let layers = install.map(|install| {
            let innermost = Arc::clone(&pool);
            let stack = BoxCloneSyncService::new(service_fn(move |call: Call| {
                let pool = Arc::clone(&innermost);
                async move { perform(&pool, call).await }
            }));
            Layered(Mutex::new(install(stack)))
        });
        Self { pool, layers }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Starts a request if that needs neither layers, nor a dial, nor waiting.
    pub(crate) fn try_start<F: Serialize + ?Sized>(
        &self,
        address: &str,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
    ) -> Option<Started> {
        if self.layers.is_some() {
            return None;
        }
        let connection = self.pool.ready(address)?;
        Some(connection.try_start(outbound, deadline))
    }

    /// Makes a request and waits for the response frame, whatever its code.
    ///
    /// # Errors
    /// [`Error::persisted`] says whether the request may have reached the peer.
    ///
    /// # Cancellation
    /// Safe; once the frame is in the buffer it leaves whole.
    pub(crate) async fn request<F: Serialize + Sync + ?Sized>(
        &self,
        address: &str,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
    ) -> Result<Frame> {
        if let Some(layers) = &self.layers {
            let reply = layers.call(address, outbound, deadline, false).await?;
            return Ok(reply.into());
        }
        exchange(&self.pool, address, outbound, deadline).await
    }

    /// Puts a one-way request into the buffer of the connection; `hold` is kept until the frame is written.
    ///
    /// # Errors
    /// When there is no connection, or no room in its buffer, before the deadline.
    pub(crate) async fn one_way<F: Serialize + Sync + ?Sized>(
        &self,
        address: &str,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
        hold: Option<Hold>,
    ) -> Result<()> {
        if let Some(layers) = &self.layers {
            layers.call(address, outbound, deadline, true).await?;
            return Ok(());
        }
        let connection = self.pool.connection(address, deadline).await?;
        connection.one_way(outbound, deadline, hold).await
    }
}

impl Layered {
    async fn call<F: Serialize + Sync + ?Sized>(
        &self,
        address: &str,
        outbound: &Outbound<'_, F>,
        deadline: Instant,
        one_way: bool,
    ) -> Result<Reply> {
        let mut fields =
            Fields::from_header(outbound.fields).map_err(|error| Error::from_encode(outbound.name, error))?;
        for (key, value) in outbound.extra.iter() {
            fields.push(key, value);
        }
        let call = Call {
            address: address.into(),
            code: RequestCode(outbound.code),
            name: outbound.name,
            fields,
            body: outbound.body.clone(),
            timeout: deadline.saturating_duration_since(Instant::now()),
            one_way,
        };
        let stack = lock(&self.0).clone();
        stack.oneshot(call).await
    }
}

/// The innermost service of a stack.
async fn perform(pool: &Arc<Pool>, call: Call) -> Result<Reply> {
    let deadline = Instant::now() + call.timeout;
    let outbound = Outbound {
        code: call.code.0,
        name: call.name,
        fields: &NoFields,
        extra: &call.fields,
        body: call.body,
    };
    if call.one_way {
        let connection = pool.connection(&call.address, deadline).await?;
        connection.one_way(&outbound, deadline, None).await?;
        return Ok(Reply::new(ResponseCode::SUCCESS));
    }
    exchange(pool, &call.address, &outbound, deadline)
        .await
        .map(Reply::from)
}

async fn exchange<F: Serialize + Sync + ?Sized>(
    pool: &Arc<Pool>,
    address: &str,
    outbound: &Outbound<'_, F>,
    deadline: Instant,
) -> Result<Frame> {
    let connection = pool.connection(address, deadline).await?;
    let frame = connection.start_request(outbound, deadline).await?.await?;
    if frame.code != ResponseCode::GO_AWAY.0 {
        return Ok(frame);
    }
    // The server is about to stop: it has not served this request, and wants no more on this connection. What is in
    // flight on it is still answered.
    pool.retire(address, &connection);
    let connection = pool.connection(address, deadline).await?;
    connection.start_request(outbound, deadline).await?.await
}
