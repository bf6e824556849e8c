//! One direction of one connection: read a frame's header, decide, write with the byte faults applied.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::sleep,
};

use super::{Cut, Direction, Fault, Rule, Rules, lock};

/// A frame with a longer header is passed on as mere bytes.
const MAX_HEADER: usize = 1 << 20;
/// A longer body is not looked into for addresses.
const MAX_BODY: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
/// Requests without an answer are forgotten beyond this number.
const MAX_REQUESTS: usize = 1 << 16;

/// Why a connection ends before both sides are done.
#[derive(Debug)]
pub(super) enum End {
    Cut(Cut),
    /// One of the peers is gone; the other is to notice.
    Broken,
}

/// The codes of the requests that the server has not answered, by opaque.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<HashMap<i32, i32>>);

impl Requests {
    fn asked(&self, opaque: i32, code: i32) {
        let mut codes = lock(&self.0);
        if codes.len() >= MAX_REQUESTS {
            codes.clear();
        }
        codes.insert(opaque, code);
    }

    fn answered(&self, opaque: i32) -> Option<i32> {
        lock(&self.0).remove(&opaque)
    }
}

pub(super) struct Pump<R, W> {
    direction: Direction,
    reader: R,
    writer: W,
    rules: watch::Receiver<Rules>,
    requests: Arc<Requests>,
    frames: u64,
    /// Bytes written in this direction.
    position: u64,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<R, W> {
    pub(super) fn new(
        direction: Direction,
        reader: R,
        writer: W,
        rules: watch::Receiver<Rules>,
        requests: Arc<Requests>,
    ) -> Self {
        Self {
            direction,
            reader,
            writer,
            rules,
            requests,
            frames: 0,
            position: 0,
        }
    }

    /// Until the end of what the peer writes, which is passed on; the other direction goes on.
    pub(super) async fn run(mut self) -> Result<(), End> {
        while self.frame().await? {}
        self.writer.shutdown().await?;
        Ok(())
    }

    /// Passes on one frame, or everything that is left when it is none. False at the end of the stream.
    async fn frame(&mut self) -> Result<bool, End> {
        let mut start = Vec::with_capacity(8);
        (&mut self.reader).take(8).read_to_end(&mut start).await?;
        let Some((length, header)) = lengths(&start) else {
            return self.rest(&start).await;
        };
        let body = length - 4 - header;
        let mut frame = start;
        (&mut self.reader)
            .take(header as u64)
            .read_to_end(&mut frame)
            .await?;
        if frame.len() < 8 + header {
            return self.rest(&frame).await;
        }
        if let Some(summary) = frame
            .split_at_checked(8)
            .and_then(|(start, header)| Summary::read(start, header))
            && self.swallow(&summary)
        {
            let mut swallowed = (&mut self.reader).take(body as u64);
            return Ok(tokio::io::copy(&mut swallowed, &mut tokio::io::sink()).await? == body as u64);
        }
        self.frames += 1;
        if body <= MAX_BODY
            && self
                .rule(|fault| matches!(fault, Fault::Readdress { .. }))
                .is_some()
        {
            (&mut self.reader)
                .take(body as u64)
                .read_to_end(&mut frame)
                .await?;
            self.readdress(&mut frame, 8 + header);
            self.lie(&mut frame);
            self.write(&frame).await?;
            return Ok(true);
        }
        self.lie(&mut frame);
        self.write(&frame).await?;
        self.copy(body as u64).await
    }

    /// What is no frame: these bytes and all that follow.
    async fn rest(&mut self, first: &[u8]) -> Result<bool, End> {
        self.write(first).await?;
        self.copy(u64::MAX).await?;
        Ok(false)
    }

    /// Passes on so many bytes. False at the end of the stream.
    async fn copy(&mut self, mut left: u64) -> Result<bool, End> {
        let mut chunk = vec![0; CHUNK];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let (space, _) = chunk.split_at_mut(want);
            let got = self.reader.read(space).await?;
            if got == 0 {
                return Ok(false);
            }
            let (bytes, _) = space.split_at(got);
            let bytes = bytes.to_vec();
            self.write(&bytes).await?;
            left -= got as u64;
        }
        Ok(true)
    }

    fn swallow(&self, summary: &Summary) -> bool {
        match (self.direction, summary.response) {
            (Direction::ToServer, false) => {
                self.requests.asked(summary.opaque, summary.code);
                false
            }
            (Direction::ToClient, true) => {
                let Some(asked) = self.requests.answered(summary.opaque) else {
                    return false;
                };
                self.rule(|fault| matches!(fault, Fault::DropAnswer { code } if *code == asked))
                    .is_some_and(|rule| rule.strike())
            }
            _ => false,
        }
    }

    fn readdress(&self, frame: &mut Vec<u8>, body_at: usize) {
        for rule in self.rules_where(|fault| matches!(fault, Fault::Readdress { .. })) {
            let Fault::Readdress { from, to } = &rule.fault else {
                continue;
            };
            let body = frame.split_off(body_at);
            let text = String::from_utf8(body).map(|text| {
                // Quoted as in JSON, lest a port be found inside a longer one.
                let (from, to) = (format!("\"{from}\""), format!("\"{to}\""));
                if text.contains(&from) && rule.strike() {
                    text.replace(&from, &to)
                } else {
                    text
                }
            });
            frame.extend(text.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes));
        }
        let length = u32::try_from(frame.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(field) = frame.first_chunk_mut::<4>() {
            *field = length.to_be_bytes();
        }
    }

    fn lie(&self, frame: &mut [u8]) {
        let this = self.frames - 1;
        let lie = self.rule(|fault| matches!(fault, Fault::LieAboutLength { frame, .. } if *frame == this));
        let Some(rule) = lie else { return };
        if let (Fault::LieAboutLength { length, .. }, Some(field)) =
            (&rule.fault, frame.first_chunk_mut::<4>())
            && rule.strike()
        {
            *field = length.to_be_bytes();
        }
    }

    /// Writes with the faults that concern bytes.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        while self
            .rule(|fault| *fault == Fault::Stall)
            .is_some_and(|rule| rule.strike())
        {
            // Until the rules change; the sender is gone when the proxy is.
            self.rules.changed().await.map_err(|_| End::Broken)?;
        }
        for rule in self.rules_where(|fault| matches!(fault, Fault::Delay(_))) {
            if let Fault::Delay(delay) = rule.fault
                && rule.strike()
            {
                sleep(delay).await;
            }
        }
        let mut bytes = bytes.to_vec();
        for rule in self.rules_where(|fault| matches!(fault, Fault::Flip { .. })) {
            let Fault::Flip { at, mask } = rule.fault else {
                continue;
            };
            let here = at
                .checked_sub(self.position)
                .and_then(|index| usize::try_from(index).ok());
            if let Some(byte) = here.and_then(|index| bytes.get_mut(index))
                && rule.strike()
            {
                *byte ^= mask;
            }
        }
        let cut = self
            .rules_where(|fault| matches!(fault, Fault::Cut { .. }))
            .into_iter()
            .find_map(|rule| match rule.fault {
                Fault::Cut { after, how } => {
                    let left = usize::try_from(after.saturating_sub(self.position)).unwrap_or(usize::MAX);
                    (left <= bytes.len() && rule.strike()).then_some((left, how))
                }
                _ => None,
            });
        if let Some((left, _)) = cut {
            bytes.truncate(left);
        }
        if self
            .rule(|fault| *fault == Fault::Slice)
            .is_some_and(|rule| rule.strike())
        {
            for byte in &bytes {
                self.writer.write_all(&[*byte]).await?;
                self.writer.flush().await?;
                tokio::task::yield_now().await;
            }
        } else {
            self.writer.write_all(&bytes).await?;
        }
        self.position += bytes.len() as u64;
        match cut {
            Some((_, how)) => Err(End::Cut(how)),
            None => Ok(()),
        }
    }

    fn rule(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Arc<Rule>> {
        self.rules_where(wanted).into_iter().next()
    }

    fn rules_where(&self, wanted: impl Fn(&Fault) -> bool) -> Vec<Arc<Rule>> {
        let rules = Rules::clone(&self.rules.borrow());
        rules
            .iter()
            .filter(|rule| rule.direction == self.direction && wanted(&rule.fault))
            .map(Arc::clone)
            .collect()
    }
}

/// Frame and header length, if these eight bytes can start a frame.
fn lengths(start: &[u8]) -> Option<(usize, usize)> {
    let (length, rest) = start.split_first_chunk::<4>()?;
    let (mark, _) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let header = usize::try_from(u32::from_be_bytes(*mark) & 0x00ff_ffff).ok()?;
    (header <= MAX_HEADER && length >= header.checked_add(4)?).then_some((length, header))
}

/// The three facts of a header that matter here.
struct Summary {
    code: i32,
    opaque: i32,
    response: bool,
}

impl Summary {
    fn read(start: &[u8], header: &[u8]) -> Option<Self> {
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
