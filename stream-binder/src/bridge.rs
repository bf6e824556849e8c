//! Sending from anywhere: by binding name, or to a topic.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::{
    binder::{Binder, Outbound, OutboundError, Persisted, ProducerBinding, SendReceipt},
    closest::closest,
    config::ProducerProperties,
    failure::BoxError,
    function::output::IntoMessage,
    message::{EncodeError, Message},
};

/// Sends messages through configured bindings, or to any topic.
///
/// It is an [extractor](crate::FromDelivery), and [`RunningApp::bridge`](crate::RunningApp::bridge) hands it
/// out. Cloning is cheap, sending takes no lock, and the table of bindings never changes while the
/// application runs: a mistyped binding name is an error, never a new topic.
///
/// ```
/// # use stream_binder::{App, Config, Json, MemoryBinder, Message};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = Config::from_yaml("spring.cloud.stream.bindings.orders-out-0.destination: orders")?;
/// # let app = App::new(config).binder(MemoryBinder::new()).start().await?;
/// let bridge = app.bridge();
/// let receipt = bridge.send("orders-out-0", Json(42)).await?;
/// assert_eq!(&*receipt.topic, "orders");
///
/// bridge.to_topic("audit").send(Message::text("hello").tag("vip").key("42")).await?;
///
/// let error = bridge.send("order-out-0", Json(42)).await.unwrap_err();
/// assert!(error.to_string().contains("did you mean `orders-out-0`?"));
/// # app.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct StreamBridge(Arc<Inner>);

struct Inner {
    bindings: BTreeMap<Arc<str>, Arc<OutputBinding>>,
    binder: Arc<dyn Binder>,
    dynamic: OnceCell<Arc<dyn Outbound>>,
    closed: CancellationToken,
}

/// One configured output: its topic and its sender.
#[derive(Debug)]
pub(crate) struct OutputBinding {
    pub(crate) name: Arc<str>,
    pub(crate) destination: Arc<str>,
    pub(crate) content_type: String,
    pub(crate) producer: ProducerProperties,
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) closed: CancellationToken,
}

impl OutputBinding {
    pub(crate) async fn send(&self, mut message: Message) -> Result<SendReceipt, SendError> {
        if self.closed.is_cancelled() {
            return Err(SendError::closed(&self.name));
        }
        message.default_content_type(&self.content_type);
        let sent = self.outbound.send(&self.destination, message).await;
        sent.map_err(|error| SendError::outbound(&self.name, &self.destination, error))
    }
}

impl StreamBridge {
    pub(crate) fn new(
        bindings: impl IntoIterator<Item = Arc<OutputBinding>>,
        binder: Arc<dyn Binder>,
        closed: CancellationToken,
    ) -> Self {
        let bindings = bindings
            .into_iter()
            .map(|binding| (Arc::clone(&binding.name), binding))
            .collect();
        Self(Arc::new(Inner {
            bindings,
            binder,
            dynamic: OnceCell::new(),
            closed,
        }))
    }

    /// Stores one message on the topic of a configured output binding and returns the broker's receipt.
    ///
    /// # Errors
    /// [`SendErrorKind::UnknownBinding`] with the closest name, [`SendErrorKind::Encode`], and what the broker
    /// or the way to it answers; [`SendError::persisted`] says whether the message may be stored all the same.
    ///
    /// # Cancellation
    /// A dropped send may or may not have stored its message.
    pub fn send<'a>(
        &'a self,
        binding: &'a str,
        message: impl IntoMessage,
    ) -> impl Future<Output = Result<SendReceipt, SendError>> + Send + 'a {
        let message = message.into_message();
        let target = self.0.bindings.get(binding);
        async move {
            let target = target.ok_or_else(|| self.unknown(binding))?;
            let message = message.map_err(|error| SendError::encode(binding, error))?;
            target.send(message).await
        }
    }

    /// A sender to a topic that no binding names. All such topics share one producer, so their number costs
    /// nothing.
    pub fn to_topic<'a>(&'a self, topic: &'a str) -> TopicSender<'a> {
        TopicSender { bridge: self, topic }
    }

    /// Names of the configured output bindings, sorted.
    pub fn bindings(&self) -> impl Iterator<Item = &str> {
        self.0.bindings.keys().map(|name| &**name)
    }

    fn unknown(&self, binding: &str) -> SendError {
        let near = closest(binding, self.bindings());
        let mut text = format!("no output binding `{binding}`");
        match near {
            Some(name) => text.push_str(&format!("; did you mean `{name}`?")),
            None => {
                let known: Vec<_> = self.bindings().collect();
                let known = if known.is_empty() {
                    "there is none".to_owned()
                } else {
                    known.join(", ")
                };
                text.push_str(&format!(
                    " (known: {known}); configure `spring.cloud.stream.bindings.{binding}.destination`, or send with `to_topic`"
                ));
            }
        }
        SendError {
            kind: SendErrorKind::UnknownBinding,
            text,
            persisted: Persisted::No,
            source: None,
        }
    }
}

impl fmt::Debug for StreamBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBridge")
            .field("bindings", &self.0.bindings.keys())
            .finish_non_exhaustive()
    }
}

/// Sends to one topic; made by [`StreamBridge::to_topic`].
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is sent until `send`"]
pub struct TopicSender<'a> {
    bridge: &'a StreamBridge,
    topic: &'a str,
}

impl<'a> TopicSender<'a> {
    /// Stores one message on the topic and returns the broker's receipt. The topic is created by the broker
    /// where that is allowed.
    ///
    /// # Errors
    /// As [`StreamBridge::send`], without the kind for unknown bindings.
    ///
    /// # Cancellation
    /// A dropped send may or may not have stored its message.
    pub fn send(
        self,
        message: impl IntoMessage,
    ) -> impl Future<Output = Result<SendReceipt, SendError>> + Send + 'a {
        let message = message.into_message();
        async move {
            let Self { bridge, topic } = self;
            let Inner {
                binder,
                dynamic,
                closed,
                ..
            } = &*bridge.0;
            if closed.is_cancelled() {
                return Err(SendError::closed(topic));
            }
            let message = message.map_err(|error| SendError::encode(topic, error))?;
            let outbound = dynamic
                .get_or_try_init(|| binder.bind_producer(ProducerBinding::dynamic()))
                .await
                .map_err(|error| SendError::unbound(topic, error))?;
            outbound
                .send(topic, message)
                .await
                .map_err(|error| SendError::outbound("to_topic", topic, error))
        }
    }
}

/// Why a message was not sent, or not certainly.
#[derive(Debug)]
pub struct SendError {
    kind: SendErrorKind,
    text: String,
    persisted: Persisted,
    source: Option<BoxError>,
}

/// The kinds of [`SendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// No output binding has the name.
    UnknownBinding,
    /// The value cannot be written in its format, or a header cannot be honoured.
    Encode,
    /// The application is shutting down.
    Closed,
    /// The same message would be refused again: too large, illegal topic, no permission.
    Refused,
    /// The broker or the way to it; trying again may succeed.
    Unavailable,
}

impl SendError {
    fn encode(target: &str, error: EncodeError) -> Self {
        let text = format!("send to `{target}`: {error}");
        let source = std::error::Error::source(&error).map(|cause| cause.to_string().into());
        Self {
            kind: SendErrorKind::Encode,
            text,
            persisted: Persisted::No,
            source,
        }
    }

    fn closed(target: &str) -> Self {
        let text = format!("send to `{target}`: the application is shutting down");
        Self {
            kind: SendErrorKind::Closed,
            text,
            persisted: Persisted::No,
            source: None,
        }
    }

    fn unbound(topic: &str, error: crate::binder::BindError) -> Self {
        let text = format!("send to topic {topic}: no producer");
        Self {
            kind: SendErrorKind::Unavailable,
            text,
            persisted: Persisted::No,
            source: Some(error.into()),
        }
    }

    fn outbound(binding: &str, topic: &str, error: OutboundError) -> Self {
        let kind = if error.is_retryable() {
            SendErrorKind::Unavailable
        } else {
            SendErrorKind::Refused
        };
        let text = format!("send through `{binding}` to topic {topic} failed");
        Self {
            kind,
            text,
            persisted: error.persisted(),
            source: Some(error.into()),
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> SendErrorKind {
        self.kind
    }

    /// Whether the message may be stored all the same.
    #[must_use]
    pub fn persisted(&self) -> Persisted {
        self.persisted
    }

    /// Whether sending the same message again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            SendErrorKind::Unavailable => true,
            SendErrorKind::UnknownBinding
            | SendErrorKind::Encode
            | SendErrorKind::Closed
            | SendErrorKind::Refused => false,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}
