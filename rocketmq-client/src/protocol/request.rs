//! Typed requests and responses.
//!
//! A request is a struct that knows its code and its response. `requests!` makes one from a block that reads like a
//! struct, and keeps the table [`REQUESTS`](super::requests::REQUESTS) complete: adding a request is adding a block.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CodecError, Frame, RequestCode, ResponseCode};

/// A request that can be sent and received.
pub trait Request: Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static {
    /// The code that says what it asks for.
    const CODE: RequestCode;
    /// The name of the type, for logs.
    const NAME: &'static str;
    /// What answers it.
    type Response: Response;

    /// The body to send; empty for most.
    fn body(&self) -> Bytes {
        Bytes::new()
    }

    /// Takes the body that was received.
    fn set_body(&mut self, body: Bytes) {
        drop(body);
    }

    /// Reads the request out of a frame.
    ///
    /// # Errors
    /// [`CodecError::Field`] that names the header field which is missing or wrong.
    fn from_frame(frame: Frame) -> Result<Self, CodecError> {
        let mut request: Self = frame.fields.header()?;
        request.set_body(frame.body);
        Ok(request)
    }
}

/// What answers a request.
pub trait Response: Sized + Send + 'static {
    /// Reads the response out of a frame.
    ///
    /// # Errors
    /// [`ResponseError::Refused`] for a code that means failure here, [`ResponseError::Malformed`] for a header or a
    /// body that cannot be read.
    fn from_frame(frame: Frame) -> Result<Self, ResponseError>;

    /// The frame that carries this response.
    ///
    /// # Errors
    /// [`CodecError`] when it cannot be put on the wire.
    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError>;
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseError {
    /// The peer said no.
    Refused {
        /// The response code.
        code: ResponseCode,
        /// The peer's reason; cut after 1 KiB.
        remark: String,
    },
    /// The peer answered what cannot be read.
    Malformed(CodecError),
}

impl ResponseError {
    /// The refusal that a frame with an error code stands for.
    #[must_use]
    pub fn refused(frame: &Frame) -> Self {
        // A peer may send megabytes; they would end in log files.
        let remark = frame
            .remark
            .as_deref()
            .unwrap_or_default()
            .chars()
            .take(1024)
            .collect();
        Self::Refused {
            code: ResponseCode(frame.code),
            remark,
        }
    }
}

impl From<CodecError> for ResponseError {
    fn from(error: CodecError) -> Self {
        Self::Malformed(error)
    }
}

impl std::fmt::Display for ResponseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { code, remark } => write!(f, "{code}: {remark}"),
            Self::Malformed(error) => write!(f, "unreadable response: {error}"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// A response that says no more than that it worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done;

impl Response for Done {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame).map(|()| Self)
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame::response(ResponseCode::SUCCESS, opaque))
    }
}

/// No response: the request is sent one-way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}

impl Response for Never {
    fn from_frame(_: Frame) -> Result<Self, ResponseError> {
        Err(CodecError::Field("a one-way request has no response".into()).into())
    }

    fn into_frame(self, _: i32) -> Result<Frame, CodecError> {
        match self {}
    }
}

/// A value that travels as the JSON body of a frame.
///
/// The JSON is fastjson's: see [`loose`](super::bodies::loose) for how it differs from the standard.
pub trait JsonBody: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the type, for errors.
    const NAME: &'static str;

    /// The body of a frame.
    ///
    /// # Errors
    /// [`CodecError::Json`] when the value has no JSON form.
    fn to_body(&self) -> Result<Bytes, CodecError> {
        let text = serde_json::to_string(self).map_err(|error| CodecError::Json {
            what: Self::NAME,
            message: error.to_string(),
        })?;
        Ok(super::bodies::loose::loosen(text).into())
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`CodecError::Json`] that says what was expected and where.
    fn from_body(body: &[u8]) -> Result<Self, CodecError> {
        let strict = super::bodies::loose::tighten(body);
        serde_json::from_slice(&strict).map_err(|error| CodecError::Json {
            what: Self::NAME,
            message: error.to_string(),
        })
    }
}

/// A response whose whole content is a JSON body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: JsonBody> Response for Json<T> {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        Ok(Self(T::from_body(&frame.body)?))
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        Ok(Frame {
            body: self.0.to_body()?,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}

/// Fails unless the frame says success.
pub(crate) fn expect_success(frame: &Frame) -> Result<(), ResponseError> {
    if frame.code == ResponseCode::SUCCESS.0 {
        Ok(())
    } else {
        Err(ResponseError::refused(frame))
    }
}

/// One line of the table of requests.
#[derive(Clone, Copy, Debug)]
pub struct RequestMeta {
    /// The code.
    pub code: RequestCode,
    /// The name of the type.
    pub name: &'static str,
    /// Reads a frame as this request and writes it again: for tests and fuzzing, which walk the table.
    pub round_trip: fn(Frame) -> Result<Frame, CodecError>,
}

pub(crate) fn round_trip<R: Request>(frame: Frame) -> Result<Frame, CodecError> {
    let opaque = frame.opaque;
    let request = R::from_frame(frame)?;
    let fields = super::Fields::from_header(&request)?;
    Ok(Frame {
        opaque,
        fields,
        body: request.body(),
        ..Frame::request(R::CODE)
    })
}

impl From<RequestCode> for i32 {
    fn from(code: RequestCode) -> Self {
        code.0
    }
}

/// Declares requests of one family and their table.
///
/// `pub struct Name = CODE => Response { fields }`; `Name = CODE, body => ..` adds a field `body: Bytes`. Fields are
/// written in camel case; `#[serde(rename)]` passes through.
macro_rules! requests {
    ($($(#[$meta:meta])* pub struct $name:ident = $code:ident $(, $body:ident)? => $response:ty {
        $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)*
    })*) => {
        $(requests!(@one [$($body)?] $(#[$meta])* $name $code $response { $($(#[$field_meta])* $field: $ty,)* });)*

        /// The requests of this family.
        pub(super) const TABLE: &[$crate::protocol::request::RequestMeta] = &[$(
            $crate::protocol::request::RequestMeta {
                code: $crate::protocol::RequestCode::$code,
                name: stringify!($name),
                round_trip: $crate::protocol::request::round_trip::<$name>,
            },
        )*];
    };
    (@one [] $(#[$meta:meta])* $name:ident $code:ident $response:ty { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $crate::protocol::Request for $name {
            const CODE: $crate::protocol::RequestCode = $crate::protocol::RequestCode::$code;
            const NAME: &'static str = stringify!($name);
            type Response = $response;
        }
    };
    (@one [body] $(#[$meta:meta])* $name:ident $code:ident $response:ty { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
            /// The body of the frame.
            #[serde(skip)]
            pub body: bytes::Bytes,
        }

        impl $crate::protocol::Request for $name {
            const CODE: $crate::protocol::RequestCode = $crate::protocol::RequestCode::$code;
            const NAME: &'static str = stringify!($name);
            type Response = $response;

            fn body(&self) -> bytes::Bytes {
                self.body.clone()
            }

            fn set_body(&mut self, body: bytes::Bytes) {
                self.body = body;
            }
        }
    };
}
pub(super) use requests;

/// Declares responses that are header fields only.
macro_rules! responses {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $crate::protocol::Response for $name {
            fn from_frame(frame: $crate::protocol::Frame) -> Result<Self, $crate::protocol::ResponseError> {
                $crate::protocol::request::expect_success(&frame)?;
                Ok(frame.fields.header()?)
            }

            fn into_frame(self, opaque: i32) -> Result<$crate::protocol::Frame, $crate::protocol::CodecError> {
                let fields = $crate::protocol::Fields::from_header(&self)?;
                Ok($crate::protocol::Frame {
                    fields,
                    ..$crate::protocol::Frame::response($crate::protocol::ResponseCode::SUCCESS, opaque)
                })
            }
        }
    )*};
}
pub(super) use responses;
