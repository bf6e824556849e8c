//! One queue: where its messages are in the log, and the pulls that wait for the next one.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use rocketmq_client::protocol::bodies::SubscriptionData;

use super::QueueRange;
use super::log::Log;
use crate::wait::HeldPull;

/// The most messages and bytes that one pull is given. Java: `maxTransferCountOnMessageInMemory`,
/// `maxTransferBytesOnMessageInMemory`.
const MAX_BATCH_MESSAGES: usize = 32;
const MAX_BATCH_BYTES: usize = 256 * 1024;
/// The most messages that one pull looks at. Java: `maxFilterMessageSize` / 20.
const MAX_SCANNED: i64 = 800;

/// Which messages a pull wants, by the hash of their tag; clients compare the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TagFilter {
    All,
    Codes(BTreeSet<i32>),
}

impl TagFilter {
    pub(crate) fn matches(&self, code: i64) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => i32::try_from(code).is_ok_and(|code| codes.contains(&code)),
        }
    }
}

impl From<&SubscriptionData> for TagFilter {
    fn from(subscription: &SubscriptionData) -> Self {
        if subscription.code_set.is_empty() {
            Self::All
        } else {
            Self::Codes(subscription.code_set.clone())
        }
    }
}

/// What is to be read of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) offset: i64,
    pub(crate) max_messages: i32,
    pub(crate) filter: &'a TagFilter,
    /// Messages from this position of the log on do not exist for the reader.
    pub(crate) horizon: Option<u64>,
}

/// How a read ended. Java: `GetMessageStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchStatus {
    Found,
    NoMatchedMessage,
    NoMessageInQueue,
    OffsetOverflowOne,
    OffsetOverflowBadly,
    OffsetTooSmall,
}

impl BatchStatus {
    /// Java's name: clients print it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
        }
    }
}

/// What a read found.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) status: BatchStatus,
    pub(crate) next: i64,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) messages: Vec<Bytes>,
    /// Whether the pull waits in the queue now.
    pub(crate) held: bool,
}

impl Batch {
    /// The answer of a queue to which nothing was ever put.
    pub(super) fn of_empty_queue(_offset: i64) -> Self {
        Self {
            status: BatchStatus::NoMessageInQueue,
            next: 0,
            min: 0,
            max: 0,
            messages: Vec::new(),
            held: false,
        }
    }

    /// Whether the reader has everything, so that it can wait for more.
    pub(super) fn is_at_the_end(&self, offset: i64) -> bool {
        match self.status {
            BatchStatus::OffsetOverflowOne => true,
            BatchStatus::NoMessageInQueue => offset == 0,
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct QueueLog {
    /// The offset of the first message that is left.
    first: i64,
    positions: VecDeque<u64>,
    waiting: Vec<HeldPull>,
}

impl QueueLog {
    pub(super) fn max(&self) -> i64 {
        self.first + i64::try_from(self.positions.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn push(&mut self, position: u64) {
        self.positions.push_back(position);
    }

    pub(super) fn pop_oldest(&mut self) {
        if self.positions.pop_front().is_some() {
            self.first += 1;
        }
        // A queue that was long once must not keep the room for it.
        if self.positions.capacity() > 1024 && self.positions.len() < self.positions.capacity() / 4 {
            self.positions.shrink_to(self.positions.len() * 2);
        }
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = u64> + use<> {
        self.positions.clone().into_iter()
    }

    pub(super) fn position(&self, offset: i64) -> Option<u64> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        self.positions.get(index).copied()
    }

    pub(super) fn range(&self, log: &Log) -> QueueRange {
        let last = self.positions.back().and_then(|&position| log.get(position));
        QueueRange {
            min: self.first,
            max: self.max(),
            last_stored: last.map_or(0, |stored| stored.store_timestamp),
        }
    }

    pub(super) fn read(&self, log: &Log, wanted: Wanted<'_>) -> Batch {
        let offset = wanted.offset;
        let max = match wanted.horizon {
            None => self.max(),
            Some(horizon) => {
                let seen = self.positions.partition_point(|&position| position < horizon);
                self.first + i64::try_from(seen).unwrap_or(i64::MAX)
            }
        };
        let (status, next) = if max == 0 {
            (BatchStatus::NoMessageInQueue, 0)
        } else if offset < self.first {
            (BatchStatus::OffsetTooSmall, self.first)
        } else if offset == max {
            (BatchStatus::OffsetOverflowOne, offset)
        } else if offset > max {
            (BatchStatus::OffsetOverflowBadly, max)
        } else {
            (BatchStatus::NoMatchedMessage, offset)
        };
        let mut batch = Batch {
            status,
            next,
            min: self.first,
            max,
            messages: Vec::new(),
            held: false,
        };
        if status == BatchStatus::NoMatchedMessage {
            self.fill(&mut batch, log, wanted.max_messages, wanted.filter);
        }
        batch
    }

    fn fill(&self, batch: &mut Batch, log: &Log, max_messages: i32, filter: &TagFilter) {
        let wanted = usize::try_from(max_messages)
            .unwrap_or(0)
            .clamp(1, MAX_BATCH_MESSAGES);
        let scanned_to = batch
            .next
            .saturating_add(MAX_SCANNED.max(i64::from(max_messages)));
        let mut bytes = 0;
        while batch.next < batch.max.min(scanned_to) {
            let Some(stored) = self.position(batch.next).and_then(|position| log.get(position)) else {
                break;
            };
            if filter.matches(stored.tag_code) {
                let size = stored.record.len();
                if batch.messages.len() >= wanted || (bytes > 0 && bytes + size > MAX_BATCH_BYTES) {
                    break;
                }
                bytes += size;
                batch.messages.push(stored.record.clone());
                batch.status = BatchStatus::Found;
            }
            batch.next += 1;
        }
    }

    pub(super) fn search(&self, log: &Log, timestamp: i64, upper: bool) -> i64 {
        let stored_at = |&position: &u64| {
            log.get(position)
                .map_or(i64::MIN, |stored| stored.store_timestamp)
        };
        let count = if upper {
            self.positions
                .partition_point(|position| stored_at(position) <= timestamp)
        } else {
            self.positions
                .partition_point(|position| stored_at(position) < timestamp)
        };
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        match (upper, count) {
            (false, count) => self.first + count,
            (true, 0) => 0,
            (true, count) => self.first + count - 1,
        }
    }

    /// As brokers of 4.9 search: of messages stored at that time the one that is met first, else the one stored nearest
    /// to it. Java: `ConsumeQueue#getOffsetInQueueByTime`.
    pub(super) fn search_nearest(&self, log: &Log, timestamp: i64) -> i64 {
        let stored_at = |index: usize| {
            let position = self.positions.get(index);
            let stored = position.and_then(|&position| log.get(position));
            stored.map_or(i64::MIN, |stored| stored.store_timestamp)
        };
        let (mut left, mut right) = (None, None);
        let (mut low, mut high) = (0, self.positions.len());
        while low < high {
            // The middle of the closed range, as there.
            let middle = (low + high - 1) / 2;
            let at = stored_at(middle);
            match at.cmp(&timestamp) {
                Ordering::Equal => return self.offset_at(middle),
                Ordering::Greater => (high, right) = (middle, Some((middle, at))),
                Ordering::Less => (low, left) = (middle + 1, Some((middle, at))),
            }
        }
        match (left, right) {
            (Some((_, before)), Some((after, later)))
                if timestamp.abs_diff(before) > timestamp.abs_diff(later) =>
            {
                self.offset_at(after)
            }
            (Some((index, _)), _) | (None, Some((index, _))) => self.offset_at(index),
            (None, None) => 0,
        }
    }

    fn offset_at(&self, index: usize) -> i64 {
        self.first + i64::try_from(index).unwrap_or(i64::MAX)
    }

    pub(super) fn wait(&mut self, held: HeldPull) {
        self.waiting.push(held);
    }

    /// The pulls that a message with this tag is for; each is answered once.
    pub(super) fn take_waiting_for(&mut self, tag_code: i64) -> Vec<HeldPull> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.waiting
            .extract_if(.., |held| held.filter.matches(tag_code))
            .collect()
    }

    pub(super) fn take_waiting(&mut self, id: u64) -> Option<HeldPull> {
        let at = self.waiting.iter().position(|held| held.id == id)?;
        Some(self.waiting.swap_remove(at))
    }

    pub(super) fn take_all_waiting(&mut self) -> Vec<HeldPull> {
        std::mem::take(&mut self.waiting)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.positions.capacity()
    }
}
