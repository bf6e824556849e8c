//! One direction of one connection: read a frame's header, decide, write with the byte faults applied.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::sleep,
};

use super::{
    Cut, Direction, Fault, Rule, Rules,
    edit::{self, Summary},
    lock,
};

/// A frame with a longer header is passed on as mere bytes.
const MAX_HEADER: usize = 1 << 20;
/// A longer body is not looked into for addresses.
const MAX_BODY: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
/// Requests without an answer are forgotten beyond this number.
const MAX_REQUESTS: usize = 1 << 16;
/// No more copies than this wait to be written.
const MAX_HELD: usize = 1 << 12;

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
    /// Copies to be written after so many more frames.
    held: Vec<(u32, Vec<u8>)>,
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
            held: Vec::new(),
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
        let summary = frame
            .split_at_checked(8)
            .and_then(|(start, header)| Summary::read(start, header));
        // The code of the request that this is or answers.
        let asked = summary.and_then(|summary| self.pair(&summary));
        let length = 8 + header + body;
        let concerns = |fault: &Fault| match (fault, asked) {
            (
                Fault::DropAnswer { code }
                | Fault::Recode { code, .. }
                | Fault::Repeat { code, .. }
                | Fault::Misaddress { code, .. },
                Some(asked),
            ) => *code == asked,
            (Fault::CutIn { code, after: at, .. } | Fault::FlipIn { code, at, .. }, Some(asked)) => {
                *code == asked && *at < length
            }
            (Fault::Readdress { .. }, _) => true,
            _ => false,
        };
        let requested = summary
            .filter(|summary| !summary.response)
            .map(|summary| summary.code);
        let concerns = |fault: &Fault| match fault {
            Fault::DropRequest { code } => requested == Some(*code),
            fault => concerns(fault),
        };
        let rules = self.rules_where(concerns);
        let dropped =
            |rule: &&Arc<Rule>| matches!(rule.fault, Fault::DropAnswer { .. } | Fault::DropRequest { .. });
        if rules.iter().find(dropped).is_some_and(|rule| rule.strike()) {
            let mut swallowed = (&mut self.reader).take(body as u64);
            return Ok(tokio::io::copy(&mut swallowed, &mut tokio::io::sink()).await? == body as u64);
        }
        self.frames += 1;
        if rules.is_empty() || body > MAX_BODY {
            self.lie(&mut frame);
            self.write(&frame).await?;
            return self.copy(body as u64).await;
        }
        (&mut self.reader)
            .take(body as u64)
            .read_to_end(&mut frame)
            .await?;
        self.whole(frame, 8 + header, &rules).await?;
        Ok(true)
    }

    /// Writes a frame that was read to its end, with the faults that need that.
    async fn whole(&mut self, mut frame: Vec<u8>, body_at: usize, rules: &[Arc<Rule>]) -> Result<(), End> {
        for rule in rules {
            match rule.fault {
                Fault::Readdress { from, to } => readdress(&mut frame, body_at, rule, from, to),
                Fault::Recode { to, .. } if rule.strike() => {
                    frame = edit::with_code(&frame, to).unwrap_or(frame);
                }
                Fault::Misaddress { mask, .. } if rule.strike() => {
                    if let Some(copy) = edit::with_opaque(&frame, |opaque| opaque ^ mask) {
                        self.write(&copy).await?;
                    }
                }
                Fault::FlipIn { at, mask, .. } => {
                    if let Some(byte) = frame.get_mut(at)
                        && rule.strike()
                    {
                        *byte ^= mask;
                    }
                }
                Fault::CutIn { after, how, .. } if rule.strike() => {
                    frame.truncate(after);
                    self.write(&frame).await?;
                    return Err(End::Cut(how));
                }
                _ => {}
            }
        }
        let copy = frame.clone();
        self.lie(&mut frame);
        self.write(&frame).await?;
        for (frames, _) in &mut self.held {
            *frames = frames.saturating_sub(1);
        }
        for rule in rules {
            if let Fault::Repeat { after, .. } = rule.fault
                && self.held.len() < MAX_HELD
                && rule.strike()
            {
                self.held.push((after, copy.clone()));
            }
        }
        let (due, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(frames, _)| *frames == 0);
        self.held = held;
        for (_, copy) in due {
            self.write(&copy).await?;
        }
        Ok(())
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

    /// Notes a request. Gives its code, or the code of the request that a response answers.
    fn pair(&self, summary: &Summary) -> Option<i32> {
        match (self.direction, summary.response) {
            (Direction::ToServer, false) => {
                self.requests.asked(summary.opaque, summary.code);
                Some(summary.code)
            }
            (Direction::ToClient, true) => self.requests.answered(summary.opaque),
            _ => None,
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
        for rule in self.rules_where(|fault| matches!(fault, Fault::Throttle { .. })) {
            if let Fault::Throttle { bytes_per_second } = rule.fault
                && rule.strike()
            {
                let micros = bytes.len() as u64 * 1_000_000 / u64::from(bytes_per_second.max(1));
                sleep(Duration::from_micros(micros)).await;
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

fn readdress(frame: &mut Vec<u8>, body_at: usize, rule: &Rule, from: SocketAddr, to: SocketAddr) {
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
    edit::set_length(frame);
}
