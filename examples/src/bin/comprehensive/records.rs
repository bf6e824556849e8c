//! What the supplier supplies: a counter, or the lines of a file.

use std::{
    fmt, io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use stream_binder::BoxError;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
    sync::Mutex,
};

use crate::{report::Console, tally::Tally};

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 1 << 20;

/// The records of one run, each the text of one JSON value.
pub(crate) struct Records {
    left: AtomicU64,
    source: Source,
}

enum Source {
    Counter(AtomicU64),
    // Only the supplier reads, one call at a time; reading a line takes an await.
    Lines(Mutex<Lines>),
}

struct Lines {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    number: u64,
}

impl Records {
    /// At most `count` records from `input`, `-` for standard input, else from a counter.
    pub(crate) async fn open(input: Option<&Path>, count: Option<u64>) -> Result<Self, BoxError> {
        let source = match input {
            None => Source::Counter(AtomicU64::new(0)),
            Some(path) => {
                let reader: Box<dyn AsyncBufRead + Send + Unpin> = if path.as_os_str() == "-" {
                    Box::new(BufReader::new(tokio::io::stdin()))
                } else {
                    let file = File::open(path).await;
                    Box::new(BufReader::new(
                        file.map_err(|e| format!("cannot open {}: {e}", path.display()))?,
                    ))
                };
                Source::Lines(Mutex::new(Lines { reader, number: 0 }))
            }
        };
        Ok(Self {
            left: AtomicU64::new(count.unwrap_or(u64::MAX)),
            source,
        })
    }

    /// The next record, `None` when there is no more. Lines that are no record are reported and counted as failed.
    pub(crate) async fn next(&self, console: &Console, tally: &Tally) -> Option<String> {
        self.left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
            .ok()?;
        match &self.source {
            Source::Counter(next) => Some(next.fetch_add(1, Ordering::AcqRel).to_string()),
            Source::Lines(lines) => {
                let mut lines = lines.lock().await;
                loop {
                    match lines.next().await {
                        Ok(record) => return record,
                        Err(BadLine::Malformed { number, reason }) => {
                            console.note(format_args!("line {number} is no JSON value: {reason}"));
                            tally.unreadable();
                        }
                        Err(BadLine::Unreadable { number, error }) => {
                            console.note(format_args!("cannot read on after line {number}: {error}"));
                            tally.unreadable();
                            return None;
                        }
                    }
                }
            }
        }
    }
}

/// A line that is no record.
#[derive(Debug)]
enum BadLine {
    Malformed { number: u64, reason: String },
    Unreadable { number: u64, error: io::Error },
}

impl Lines {
    /// The next line that is not blank, if it is one JSON value.
    async fn next(&mut self) -> Result<Option<String>, BadLine> {
        loop {
            let Some(line) = self.line().await? else {
                return Ok(None);
            };
            self.number += 1;
            let number = self.number;
            let malformed = |reason: &dyn fmt::Display| BadLine::Malformed {
                number,
                reason: reason.to_string(),
            };
            let line = line.ok_or_else(|| malformed(&format_args!("it is longer than {MAX_LINE} bytes")))?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let value: &serde_json::value::RawValue =
                serde_json::from_slice(&line).map_err(|e| malformed(&e))?;
            return Ok(Some(value.get().to_owned()));
        }
    }

    /// One line, `Some(None)` for one that is too long; never more than `MAX_LINE` bytes are held.
    async fn line(&mut self) -> Result<Option<Option<Vec<u8>>>, BadLine> {
        let mut line = Vec::new();
        let (mut any, mut too_long) = (false, false);
        loop {
            let number = self.number;
            let read = self
                .reader
                .fill_buf()
                .await
                .map_err(|error| BadLine::Unreadable { number, error })?;
            if read.is_empty() {
                return Ok(any.then_some((!too_long).then_some(line)));
            }
            any = true;
            let (part, used, ended) = match read.iter().position(|byte| *byte == b'\n') {
                Some(end) => (read.get(..end).unwrap_or_default(), end + 1, true),
                None => (read, read.len(), false),
            };
            too_long = too_long || line.len() + part.len() > MAX_LINE;
            if !too_long {
                line.extend_from_slice(part);
            }
            self.reader.consume(used);
            if ended {
                return Ok(Some((!too_long).then_some(line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: Vec<u8>) -> Lines {
        Lines {
            reader: Box::new(BufReader::with_capacity(64, io::Cursor::new(text))),
            number: 0,
        }
    }

    #[tokio::test]
    async fn each_line_is_one_record_and_blank_ones_are_passed_over() {
        let mut lines = lines(b"1\r\n\n  \n{\"a\": [1, 2]}\n-3.5".to_vec());
        for expected in ["1", "{\"a\": [1, 2]}", "-3.5"] {
            assert_eq!(lines.next().await.unwrap().as_deref(), Some(expected));
        }
        assert!(lines.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_malformed_line_is_named_by_its_number_and_the_next_one_is_read() {
        let mut text = b"1\n\nnot json\n\xff\xfe\n".to_vec();
        text.extend(std::iter::repeat_n(b'9', MAX_LINE + 1));
        text.extend_from_slice(b"\n2\n");
        let mut lines = lines(text);
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("1"));
        for expected in [3, 4, 5] {
            let Err(BadLine::Malformed { number, .. }) = lines.next().await else {
                panic!("line {expected}")
            };
            assert_eq!(number, expected);
        }
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("2"));
    }
}
