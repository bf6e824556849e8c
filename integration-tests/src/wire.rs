//! One request on a connection of its own, blocking.
//!
//! A fixture must not call a server healthy through the very code that the tests examine, so this does not use the
//! client: JSON header, one frame out, one frame in.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::Failure;

const MAX_FRAME: usize = 16 * 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(5);

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// Response code; 0 is success.
    pub code: i64,
    /// The server's explanation, mostly of a refusal.
    pub remark: String,
    /// Header fields.
    pub fields: Map<String, Value>,
    /// The body, empty when there is none.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer, provided that it is a success.
    ///
    /// # Errors
    /// With code and remark when it is not.
    pub fn success(self) -> Result<Self, Failure> {
        if self.code == 0 {
            Ok(self)
        } else {
            Err(format!("refused: code {}, {}", self.code, self.remark).into())
        }
    }

    /// A header field as text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }
}

/// Sends one request to `address` and waits up to 5 seconds for each step of the exchange. Blocks the thread.
///
/// # Errors
/// When the server cannot be reached, says nothing in time, or answers with something that is no frame.
pub fn request(address: SocketAddr, code: i32, fields: &Value, body: &[u8]) -> Result<Answer, Failure> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    // Version 401 is 4.9.4's neighbourhood: new enough for strict JSON in route bodies where asked for.
    let header = serde_json::to_vec(&json!({
        "code": code, "language": "OTHER", "version": 401, "opaque": 1, "flag": 0, "extFields": fields,
        "serializeTypeCurrentRPC": "JSON",
    }))?;
    let mut frame = Vec::with_capacity(8 + header.len() + body.len());
    frame.extend(u32::try_from(4 + header.len() + body.len())?.to_be_bytes());
    frame.extend(u32::try_from(header.len())?.to_be_bytes());
    frame.extend(header);
    frame.extend(body);
    socket.write_all(&frame)?;

    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if !(4..=MAX_FRAME).contains(&length) {
        return Err(format!("{address} answered a frame of {length} bytes").into());
    }
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame)?;
    parse(&frame).ok_or_else(|| format!("{address} answered {length} bytes that are no frame").into())
}

fn parse(frame: &[u8]) -> Option<Answer> {
    let (mark, rest) = frame.split_first_chunk::<4>()?;
    let mark = u32::from_be_bytes(*mark);
    if mark >> 24 != 0 {
        return None; // a server answers a JSON header with a JSON header
    }
    let (header, body) = rest.split_at_checked(usize::try_from(mark & 0x00ff_ffff).ok()?)?;
    let mut header: Map<String, Value> = serde_json::from_slice(header).ok()?;
    Some(Answer {
        code: header.get("code")?.as_i64()?,
        remark: header
            .get("remark")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        fields: match header.remove("extFields") {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        },
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(header: &str, body: &[u8]) -> Vec<u8> {
        [
            &(u32::try_from(header.len()).unwrap()).to_be_bytes(),
            header.as_bytes(),
            body,
        ]
        .concat()
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let frame = framed(
            r#"{"code":17,"remark":"no route","extFields":{"a":"b"}}"#,
            b"body",
        );
        let answer = parse(&frame).unwrap();
        assert_eq!(
            (answer.code, answer.remark.as_str(), answer.field("a")),
            (17, "no route", Some("b"))
        );
        assert_eq!(answer.body, b"body");
    }

    #[test]
    fn cut_and_foreign_frames_are_refused() {
        let frame = framed(r#"{"code":0}"#, b"");
        assert!(parse(&frame).is_some());
        for end in 0..frame.len() {
            assert!(parse(&frame[..end]).is_none(), "{end} bytes");
        }
        let mut binary = frame;
        binary[0] = 1;
        assert!(parse(&binary).is_none());
    }
}
