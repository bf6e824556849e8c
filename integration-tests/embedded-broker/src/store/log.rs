//! The log: encoded messages in the order in which they came, found by position or by physical offset.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rocketmq_client::protocol::{CodecError, Record};

/// Messages are encoded into chunks of this many bytes; a chunk is freed when its last message has gone.
const CHUNK_BYTES: usize = 256 * 1024;

/// Below this many entries no room is given back.
const MIN_ENTRIES: usize = 4096;

/// What a message costs besides its encoded bytes: its entry here and its place in a queue, with room to grow.
pub(super) const ENTRY_BYTES: usize = 2 * (size_of::<Stored>() + size_of::<u64>());

/// One message of the log.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The encoded message; empty once its topic was deleted.
    pub(crate) record: Bytes,
    pub(crate) topic: Arc<str>,
    pub(crate) queue_id: i32,
    pub(crate) tag_code: i64,
    pub(crate) physical_offset: i64,
    pub(crate) store_timestamp: i64,
}

impl Stored {
    fn cost(&self) -> usize {
        self.record.len() + ENTRY_BYTES
    }
}

#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<Stored>,
    /// The position of the first entry; positions count all messages ever put.
    first: u64,
    chunk: BytesMut,
    /// A chunk whose messages have all gone. A full log fills it again instead of asking for memory, which would come
    /// from another place each time and leave holes.
    spare: Option<BytesMut>,
    next_physical: i64,
    bytes: usize,
    limit: usize,
}

impl Log {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            chunk: BytesMut::new(),
            spare: None,
            next_physical: 0,
            bytes: 0,
            limit,
        }
    }

    /// Encodes a message at the end; its offsets are final. Returns its position.
    pub(super) fn append(
        &mut self,
        topic: &Arc<str>,
        record: &Record,
        tag_code: i64,
    ) -> Result<u64, CodecError> {
        let size = record.encoded_len();
        if self.chunk.capacity() < size {
            let spare = self.spare.take().filter(|spare| spare.capacity() >= size);
            self.chunk = spare.unwrap_or_else(|| BytesMut::with_capacity(size.max(CHUNK_BYTES)));
        }
        record.encode(&mut self.chunk)?;
        let stored = Stored {
            record: self.chunk.split().freeze(),
            topic: Arc::clone(topic),
            queue_id: record.queue_id,
            tag_code,
            physical_offset: record.physical_offset,
            store_timestamp: record.store_timestamp,
        };
        self.next_physical += i64::try_from(size).unwrap_or(0);
        self.bytes += stored.cost();
        self.entries.push_back(stored);
        Ok(self.first + self.entries.len() as u64 - 1)
    }

    pub(super) fn get(&self, position: u64) -> Option<&Stored> {
        let index = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.entries.get(index)
    }

    /// The message that starts at a physical offset.
    pub(super) fn find(&self, physical_offset: i64) -> Option<&Stored> {
        let index = self
            .entries
            .binary_search_by_key(&physical_offset, |stored| stored.physical_offset)
            .ok()?;
        self.entries.get(index).filter(|stored| !stored.record.is_empty())
    }

    /// Messages below a position, newest first, with their positions.
    pub(super) fn newest_first(&self, below: u64) -> impl Iterator<Item = (u64, &Stored)> {
        let count = usize::try_from(below.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let entries = self
            .entries
            .iter()
            .enumerate()
            .take(count.min(self.entries.len()));
        entries
            .rev()
            .map(|(index, stored)| (self.first + index as u64, stored))
            .filter(|(_, stored)| !stored.record.is_empty())
    }

    pub(super) fn oldest(&self) -> Option<&Stored> {
        self.entries.iter().find(|stored| !stored.record.is_empty())
    }

    /// Frees the bytes of a message whose topic is gone; the entry itself goes when it is the oldest.
    pub(super) fn bury(&mut self, position: u64) {
        let Some(index) = position
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return;
        };
        if let Some(stored) = self.entries.get_mut(index) {
            self.bytes -= stored.record.len();
            stored.record = Bytes::new();
        }
    }

    /// Takes out the oldest message if the log is above its limit, and says whose it was. The newest one always
    /// stays.
    pub(super) fn pop_if_above_limit(&mut self) -> Option<(Arc<str>, i32)> {
        loop {
            let buried = self
                .entries
                .front()
                .is_some_and(|stored| stored.record.is_empty());
            if !buried && (self.bytes <= self.limit || self.entries.len() <= 1) {
                return None;
            }
            let stored = self.entries.pop_front()?;
            self.first += 1;
            self.bytes -= stored.cost();
            self.recycle(stored.record);
            // A log of many small messages must not keep the room for them when it has few large ones.
            if self.entries.capacity() > MIN_ENTRIES && self.entries.len() < self.entries.capacity() / 4 {
                self.entries.shrink_to(self.entries.len() * 2);
            }
            if !buried {
                return Some((stored.topic, stored.queue_id));
            }
        }
    }

    /// Keeps the chunk of a message that was the last one in it.
    fn recycle(&mut self, record: Bytes) {
        if self.spare.is_none()
            && let Ok(mut chunk) = record.try_into_mut()
        {
            chunk.clear();
            if chunk.try_reclaim(CHUNK_BYTES) {
                self.spare = Some(chunk);
            }
        }
    }

    pub(super) fn messages(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn min_physical(&self) -> i64 {
        self.entries
            .front()
            .map_or(self.next_physical, |stored| stored.physical_offset)
    }

    pub(super) fn max_physical(&self) -> i64 {
        self.next_physical
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}
