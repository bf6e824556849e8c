//! Return values: what is sent, and whether the message is done with.

use bytes::Bytes;
use serde::Serialize;

use crate::{
    failure::{Failure, Outcome},
    function::extract::{Json, Payload, Text},
    message::{EncodeError, Message},
};

/// What can be sent as one message.
///
/// [`Json`] and [`Payload`], numbers, booleans and `serde_json::Value` go as JSON (`application/json`);
/// [`Text`], `String` and `&'static str` as plain text (`text/plain;charset=UTF-8`); `Bytes` and `Vec<u8>`
/// as they are (`application/octet-stream`); a [`Message`] as it says.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no message",
    label = "cannot be sent",
    note = "send `Json(value)`, `Text(..)`, `Bytes`, or a `Message` with tag, keys and headers"
)]
pub trait IntoMessage {
    /// The message.
    ///
    /// # Errors
    /// [`EncodeError`] when the value cannot be written in its format.
    fn into_message(self) -> Result<Message, EncodeError>;
}

/// What a function or supplier may return: nothing or several messages, each stored and confirmed before the
/// input is acknowledged.
///
/// `()` and `None` send nothing; everything that is [`IntoMessage`] sends one message; a `Vec` one per
/// element, in order; `Result` sends what is in `Ok` and fails with what is in `Err`.
pub trait IntoOutput {
    /// The messages.
    ///
    /// # Errors
    /// The delivery's failure.
    fn into_output(self) -> Result<Output, Failure>;
}

/// What a consumer may return: `()`, `Result<(), E>` or an [`Outcome`].
pub trait IntoOutcome {
    /// Done, or the failure.
    ///
    /// # Errors
    /// The delivery's failure.
    fn into_outcome(self) -> Result<(), Failure>;
}

/// The messages that a function returned. One message costs no list.
#[derive(Debug, Default)]
pub struct Output {
    one: Option<Message>,
    more: Vec<Message>,
}

impl Output {
    /// Nothing to send.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.one.is_some()) + self.more.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Message> for Output {
    fn from(message: Message) -> Self {
        Self {
            one: Some(message),
            more: Vec::new(),
        }
    }
}

impl From<Vec<Message>> for Output {
    fn from(messages: Vec<Message>) -> Self {
        Self {
            one: None,
            more: messages,
        }
    }
}

impl IntoIterator for Output {
    type Item = Message;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Message>, std::vec::IntoIter<Message>>;

    fn into_iter(self) -> Self::IntoIter {
        self.one.into_iter().chain(self.more)
    }
}

/// The same value would fail to encode again.
fn encode(value: impl IntoMessage) -> Result<Message, Failure> {
    value.into_message().map_err(Failure::reject)
}

macro_rules! one_message {
    ($($type:ty $([$($generics:tt)*])? => |$value:ident| $encode:expr;)+) => {$(
        impl $(<$($generics)*>)? IntoMessage for $type {
            fn into_message(self) -> Result<Message, EncodeError> {
                let $value = self;
                $encode
            }
        }

        impl $(<$($generics)*>)? IntoOutput for $type {
            fn into_output(self) -> Result<Output, Failure> {
                encode(self).map(Output::from)
            }
        }
    )+};
}

one_message! {
    Message => |message| message.checked();
    Json<T> [T: Serialize] => |value| value.encode();
    Payload<T> [T: Serialize] => |value| value.encode();
    serde_json::Value => |value| Message::json(&value);
    Text => |text| Ok(Message::text(text.0));
    String => |text| Ok(Message::text(text));
    &'static str => |text| Ok(Message::new(Bytes::from_static(text.as_bytes())).content_type_static(crate::message::TEXT));
    Bytes => |bytes| Ok(Message::bytes(bytes));
}

// No `u8`: a `Vec<u8>` returned by a function would be one message per byte.
macro_rules! json_scalars {
    ($($type:ty)+) => { one_message! { $($type => |value| Message::json(&value);)+ } };
}

json_scalars! { i16 i32 i64 i128 u16 u32 u64 u128 f32 f64 bool }

impl IntoMessage for Vec<u8> {
    fn into_message(self) -> Result<Message, EncodeError> {
        Ok(Message::bytes(self))
    }
}

impl IntoOutput for () {
    fn into_output(self) -> Result<Output, Failure> {
        Ok(Output::none())
    }
}

impl IntoOutput for Output {
    fn into_output(self) -> Result<Output, Failure> {
        Ok(self)
    }
}

impl<T: IntoOutput> IntoOutput for Option<T> {
    fn into_output(self) -> Result<Output, Failure> {
        self.map_or_else(|| Ok(Output::none()), T::into_output)
    }
}

impl<T: IntoMessage> IntoOutput for Vec<T> {
    fn into_output(self) -> Result<Output, Failure> {
        self.into_iter()
            .map(encode)
            .collect::<Result<Vec<_>, _>>()
            .map(Output::from)
    }
}

impl<T: IntoOutput, E: Into<Failure>> IntoOutput for Result<T, E> {
    fn into_output(self) -> Result<Output, Failure> {
        self.map_err(Into::into)?.into_output()
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Result<(), Failure> {
        match self {
            Self::Ack => Ok(()),
            Self::Failed(failure) => Err(failure),
        }
    }
}

impl<E: Into<Failure>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: impl IntoOutput) -> Vec<(Option<String>, Vec<u8>)> {
        let output = value.into_output().unwrap();
        output
            .into_iter()
            .map(|m| (m.media_type().map(str::to_owned), m.payload().to_vec()))
            .collect()
    }

    #[test]
    fn each_type_states_its_media_type() {
        let json = Some("application/json".to_owned());
        let text = Some("text/plain;charset=UTF-8".to_owned());
        let octets = Some("application/octet-stream".to_owned());
        assert_eq!(sent(Json("a")), [(json.clone(), b"\"a\"".to_vec())]);
        assert_eq!(sent(42_i64), [(json, b"42".to_vec())]);
        assert_eq!(sent("a"), [(text.clone(), b"a".to_vec())]);
        assert_eq!(sent(Text("b".to_owned())), [(text, b"b".to_vec())]);
        assert_eq!(sent(Bytes::from_static(b"c")), [(octets, b"c".to_vec())]);
    }

    #[test]
    fn none_sends_nothing_and_a_vec_sends_each_element_in_order() {
        assert!(sent(None::<i64>).is_empty());
        assert!(sent(()).is_empty());
        let bodies: Vec<_> = sent(vec![1_u32, 2, 3])
            .into_iter()
            .map(|(_, body)| body)
            .collect();
        assert_eq!(bodies, [b"1", b"2", b"3"]);
    }

    #[test]
    fn an_error_is_the_failure_and_sends_nothing() {
        let failed: Result<u32, Failure> = Err(Failure::reject("no"));
        assert!(matches!(failed.into_output(), Err(Failure::Reject(_))));
        let unreadable: Result<u32, _> = "x".parse::<u32>();
        assert!(unreadable.into_output().unwrap_err().is_retry());
    }

    #[test]
    fn a_value_that_cannot_be_encoded_is_rejected() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let failure = Json(map).into_output().unwrap_err();
        assert!(matches!(failure, Failure::Reject(_)));
        assert!(failure.to_string().contains("as JSON"), "{failure}");
    }
}
