//! Extractors: arguments that read a delivery.
//!
//! They borrow the delivery, so any number may stand in any order, and several may read the payload.

use std::{convert::Infallible, future::Future, ops::Deref, str::FromStr};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    bridge::StreamBridge,
    delivery::{Delivery, Meta},
    failure::{BoxError, Failure},
    function::{
        context::{Context, Requirements},
        convert::{self, DecodeError},
    },
    headers::{HeaderError, Headers},
    message::{EncodeError, Message},
};

/// An argument of a consumer or function, made from the delivery.
///
/// Implement it for your own types. What it rejects becomes the delivery's [`Failure`]; an ordinary error
/// asks for a retry, so return [`Failure::Reject`] for a message that can never be read.
///
/// ```
/// use stream_binder::{Context, Delivery, Failure, FromDelivery};
///
/// struct Tenant(String);
///
/// impl FromDelivery for Tenant {
///     type Rejection = Failure;
///
///     async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Failure> {
///         let tenant = delivery.headers().get("tenant");
///         tenant.map(|name| Self(name.to_owned())).ok_or_else(|| Failure::reject("no header `tenant`"))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor",
    label = "take `Json<T>`, `Payload<T>`, `Text`, `Bytes`, `Headers`, `Meta`, `State<T>` or `StreamBridge`",
    note = "`T` must be `serde::Deserialize` in `Json<T>` and `Payload<T>`, and `Clone` in `State<T>`"
)]
pub trait FromDelivery: Sized {
    /// Why there is no value.
    type Rejection: Into<Failure>;

    /// Reads the delivery.
    fn from_delivery(
        delivery: &Delivery,
        cx: &Context,
    ) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;

    /// States what the application must provide; its absence is then an error at start.
    fn require(_requirements: &mut Requirements) {}
}

/// An argument of a supplier: it comes from the application alone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor of a supplier",
    label = "take `State<T>` or `StreamBridge`",
    note = "a supplier is called without a message; `T` must be `Clone` in `State<T>`"
)]
pub trait FromContext: Sized {
    /// Why there is no value.
    type Rejection: Into<Failure>;

    /// Reads the context.
    ///
    /// # Errors
    /// The rejection becomes the failure of this poll.
    fn from_context(cx: &Context) -> Result<Self, Self::Rejection>;

    /// States what the application must provide; its absence is then an error at start.
    fn require(_requirements: &mut Requirements) {}
}

macro_rules! value_wrapper {
    ($name:ident) => {
        impl<T> Deref for $name<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }

        impl<T> From<T> for $name<T> {
            fn from(value: T) -> Self {
                Self(value)
            }
        }
    };
}

/// A value in JSON, whatever the message's content type says. As an output: JSON.
///
/// A payload that is no `T` is rejected: it goes to the dead letters without further attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Json<T>(pub T);

value_wrapper!(Json);

impl<T: DeserializeOwned> FromDelivery for Json<T> {
    type Rejection = DecodeError;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, DecodeError> {
        convert::json(delivery.payload()).map(Self)
    }
}

/// A value decoded by content type: the message's `contentType`, else the binding's `content-type`, else
/// JSON. As an output: JSON.
///
/// `application/json` and `..+json` are JSON; in `text/..` a number, boolean or JSON text is read as such and
/// anything else is a string; `application/octet-stream` fits byte types, else is read as text. A JSON
/// payload that is no `T` but fits it as plain text (a `String`) is taken as text: Spring producers label
/// any text as JSON. What fits nothing, and any other content type, is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload<T>(pub T);

value_wrapper!(Payload);

impl<T: DeserializeOwned> FromDelivery for Payload<T> {
    type Rejection = DecodeError;

    async fn from_delivery(delivery: &Delivery, cx: &Context) -> Result<Self, DecodeError> {
        let media_type = delivery.content_type().unwrap_or_else(|| cx.content_type());
        convert::payload(media_type, delivery.payload()).map(Self)
    }
}

/// The payload as UTF-8 text. As an output: the text as it is, `text/plain`.
///
/// A payload that is one JSON string is unquoted, because that is how Spring producers send text. Use
/// [`Bytes`] to see the body untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(pub String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl FromDelivery for Text {
    type Rejection = DecodeError;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, DecodeError> {
        convert::text(delivery.payload()).map(Self)
    }
}

/// The body untouched, without a copy.
impl FromDelivery for Bytes {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Infallible> {
        Ok(delivery.payload().clone())
    }
}

/// All user headers.
impl FromDelivery for Headers {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Infallible> {
        Ok(delivery.headers().clone())
    }
}

/// A type that is read from one header.
///
/// ```
/// use stream_binder::{Function, Header, TypedHeader};
///
/// struct Price(u32);
///
/// impl std::str::FromStr for Price {
///     type Err = std::num::ParseIntError;
///     fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(Self) }
/// }
///
/// impl TypedHeader for Price {
///     const NAME: &'static str = "price";
/// }
///
/// let orders = Function::consumer("orders", |Header(Price(price)): Header<Price>| async move { println!("{price}") });
/// # let _ = orders;
/// ```
pub trait TypedHeader: FromStr<Err: Into<BoxError>> {
    /// Name of the header. The Java binder's `ROCKET_..` names give the message's metadata.
    const NAME: &'static str;
}

/// One header as a value; a missing or unreadable one rejects the message and is named in the error.
/// `Option<Header<T>>` takes messages without it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header<T>(pub T);

value_wrapper!(Header);

/// A header problem of the same message will not go away.
fn reject(error: HeaderError) -> Failure {
    match std::error::Error::source(&error) {
        Some(cause) => Failure::reject(format!("{error}: {cause}")),
        None => Failure::reject(error),
    }
}

impl<T: TypedHeader> FromDelivery for Header<T> {
    type Rejection = Failure;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Failure> {
        let Some(value) = delivery.header(T::NAME) else {
            return Err(reject(HeaderError::missing(T::NAME)));
        };
        let parsed = value.parse::<T>().map(Self);
        parsed.map_err(|e: T::Err| reject(HeaderError::unreadable(T::NAME, &value, e)))
    }
}

impl FromDelivery for Meta {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Infallible> {
        Ok(delivery.meta().clone())
    }
}

impl FromDelivery for Delivery {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, _: &Context) -> Result<Self, Infallible> {
        Ok(delivery.clone())
    }
}

/// A clone of the value given to [`App::state`](crate::App::state). A missing one is an error at start that
/// names the function and the type. Share what is expensive to clone in an `Arc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State<T>(pub T);

value_wrapper!(State);

/// A state that the application does not have; only seen where the check at start was passed by.
#[derive(Debug)]
pub struct MissingState(&'static str);

impl std::fmt::Display for MissingState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no state of type `{}`; give one with `App::state`", self.0)
    }
}

impl std::error::Error for MissingState {}

impl<T: Clone + Send + Sync + 'static> State<T> {
    fn of(cx: &Context) -> Result<Self, MissingState> {
        cx.state::<T>()
            .cloned()
            .map(Self)
            .ok_or_else(|| MissingState(std::any::type_name::<T>()))
    }
}

impl<T: Clone + Send + Sync + 'static> FromDelivery for State<T> {
    type Rejection = MissingState;

    async fn from_delivery(_: &Delivery, cx: &Context) -> Result<Self, MissingState> {
        Self::of(cx)
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}

impl<T: Clone + Send + Sync + 'static> FromContext for State<T> {
    type Rejection = MissingState;

    fn from_context(cx: &Context) -> Result<Self, MissingState> {
        Self::of(cx)
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}

impl FromDelivery for StreamBridge {
    type Rejection = Infallible;

    async fn from_delivery(_: &Delivery, cx: &Context) -> Result<Self, Infallible> {
        Ok(cx.bridge().clone())
    }
}

impl FromContext for StreamBridge {
    type Rejection = Infallible;

    fn from_context(cx: &Context) -> Result<Self, Infallible> {
        Ok(cx.bridge().clone())
    }
}

/// `None` instead of a rejection.
impl<T: FromDelivery> FromDelivery for Option<T> {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, cx: &Context) -> Result<Self, Infallible> {
        Ok(T::from_delivery(delivery, cx).await.ok())
    }
}

/// The function decides what a rejection means.
impl<T: FromDelivery> FromDelivery for Result<T, Failure> {
    type Rejection = Infallible;

    async fn from_delivery(delivery: &Delivery, cx: &Context) -> Result<Self, Infallible> {
        Ok(T::from_delivery(delivery, cx).await.map_err(Into::into))
    }

    fn require(requirements: &mut Requirements) {
        T::require(requirements);
    }
}

impl<T: Serialize> Json<T> {
    pub(crate) fn encode(&self) -> Result<Message, EncodeError> {
        Message::json(&self.0)
    }
}

impl<T: Serialize> Payload<T> {
    pub(crate) fn encode(&self) -> Result<Message, EncodeError> {
        Message::json(&self.0)
    }
}
