//! What the proxy reads of a header and writes into it, in both of its forms.

use serde_json::Value;

/// The three facts of a header that matter here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) code: i32,
    pub(super) opaque: i32,
    pub(super) response: bool,
}

impl Summary {
    pub(super) fn read(start: &[u8], header: &[u8]) -> Option<Self> {
        match start.get(4)? {
            0 => {
                let header: Value = serde_json::from_slice(header).ok()?;
                let number = |name| {
                    header
                        .get(name)
                        .and_then(Value::as_i64)
                        .and_then(|n| i32::try_from(n).ok())
                };
                Some(Self {
                    code: number("code")?,
                    opaque: number("opaque").unwrap_or_default(),
                    response: number("flag").unwrap_or_default() & 1 == 1,
                })
            }
            1 => {
                // code i16, language i8, version i16, opaque i32, flag i32
                let (code, rest) = header.split_first_chunk::<2>()?;
                let (_, rest) = rest.split_first_chunk::<3>()?;
                let (opaque, rest) = rest.split_first_chunk::<4>()?;
                let (flag, _) = rest.split_first_chunk::<4>()?;
                Some(Self {
                    code: i16::from_be_bytes(*code).into(),
                    opaque: i32::from_be_bytes(*opaque),
                    response: i32::from_be_bytes(*flag) & 1 == 1,
                })
            }
            _ => None,
        }
    }
}

/// Makes the length at the start of a frame that of the frame.
pub(super) fn set_length(frame: &mut [u8]) {
    let length = u32::try_from(frame.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(field) = frame.first_chunk_mut::<4>() {
        *field = length.to_be_bytes();
    }
}

/// The frame with another code; `None` if it is none.
pub(super) fn with_code(frame: &[u8], code: i32) -> Option<Vec<u8>> {
    edited(frame, "code", |_| code)
}

/// The frame with another opaque; `None` if it is none.
pub(super) fn with_opaque(frame: &[u8], change: impl FnOnce(i32) -> i32) -> Option<Vec<u8>> {
    edited(frame, "opaque", change)
}

fn edited(frame: &[u8], name: &str, change: impl FnOnce(i32) -> i32) -> Option<Vec<u8>> {
    let (start, rest) = frame.split_first_chunk::<8>()?;
    let [.., form, a, b, c] = *start;
    let (header, body) = rest.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)?;
    let header = match form {
        0 => {
            let mut header: Value = serde_json::from_slice(header).ok()?;
            let field = header.get_mut(name)?;
            *field = change(i32::try_from(field.as_i64()?).ok()?).into();
            serde_json::to_vec(&header).ok()?
        }
        _ => {
            let mut header = header.to_vec();
            if name == "code" {
                let field = header.first_chunk_mut::<2>()?;
                // A code that does not fit has no binary form.
                *field = i16::try_from(change(i16::from_be_bytes(*field).into()))
                    .ok()?
                    .to_be_bytes();
            } else {
                let field = header.get_mut(5..)?.first_chunk_mut::<4>()?;
                *field = change(i32::from_be_bytes(*field)).to_be_bytes();
            }
            header
        }
    };
    let mark = u32::from(form) << 24 | u32::try_from(header.len()).ok()?;
    let mut frame = [&[0; 4], &mark.to_be_bytes()[..], &header, body].concat();
    set_length(&mut frame);
    Some(frame)
}
