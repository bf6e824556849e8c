//! One topic: its last messages, and the groups that read it.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{binder::SendReceipt, delivery::Delivery, memory::group::Group, message::Message};

/// A stored message.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) message: Message,
    pub(super) message_id: Arc<str>,
    tags: Option<Arc<str>>,
    keys: Option<Arc<str>>,
    offset: i64,
    born: i64,
}

impl Record {
    /// One attempt to deliver it.
    pub(super) fn delivery(
        &self,
        binding: &Arc<str>,
        topic: &Arc<str>,
        attempt: u32,
        max_attempts: u32,
    ) -> Delivery {
        let message = &self.message;
        let mut headers = message.user_headers().clone();
        if let Some(media_type) = message.media_type() {
            headers.insert(crate::names::CONTENT_TYPE, media_type);
        }
        let mut delivery =
            Delivery::builder(Arc::clone(binding), Arc::clone(topic), message.payload().clone())
                .headers(headers)
                .message_id(Arc::clone(&self.message_id))
                .queue(0, self.offset)
                .flag(message.mq_flag())
                .born(self.born, None)
                .attempt(attempt, Some(max_attempts));
        if let Some(tags) = &self.tags {
            delivery = delivery.tags(Arc::clone(tags));
        }
        if let Some(keys) = &self.keys {
            delivery = delivery.keys(Arc::clone(keys));
        }
        delivery.build()
    }
}

#[derive(Debug)]
pub(super) struct Topic {
    name: Arc<str>,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    retained: VecDeque<Arc<Record>>,
    next_offset: i64,
    // Replaced as a whole, so that a sender can tell whether it changed while it waited.
    groups: Arc<[Arc<Group>]>,
}

impl Topic {
    pub(super) fn new(name: Arc<str>, retained: usize) -> Self {
        let state = State {
            retained: VecDeque::new(),
            next_offset: 0,
            groups: Arc::from([]),
        };
        Self {
            name,
            limit: retained,
            state: Mutex::new(state),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn retained(&self) -> Vec<Arc<Record>> {
        self.state().retained.iter().cloned().collect()
    }

    /// The group of that name, and whether it is new. A new group starts with the retained messages, as far
    /// as they fit.
    pub(super) fn group(&self, name: &str, make: impl FnOnce() -> Group) -> (Arc<Group>, bool) {
        let mut state = self.state();
        if let Some(group) = state.groups.iter().find(|group| group.name() == name) {
            return (Arc::clone(group), false);
        }
        let group = Arc::new(make());
        for record in &state.retained {
            let Some(room) = group.try_reserve() else { break };
            group.put(Arc::clone(record), Some(room));
        }
        state.groups = state.groups.iter().cloned().chain([Arc::clone(&group)]).collect();
        (group, true)
    }

    /// Waits for room in every group, then stores.
    pub(super) async fn send(&self, message: Message) -> SendReceipt {
        let mut unsent = Some(message);
        loop {
            let groups = Arc::clone(&self.state().groups);
            let mut room = Vec::with_capacity(groups.len());
            for group in groups.iter() {
                room.push(group.reserve().await);
            }
            if let Some(record) = self.store(&mut unsent, &groups, room) {
                return SendReceipt::new(
                    Arc::clone(&record.message_id),
                    Arc::clone(&self.name),
                    0,
                    record.offset,
                );
            }
            // A group joined meanwhile, for which there is no reservation yet.
        }
    }

    /// Takes the message and stores it, unless the groups are no longer the expected ones.
    fn store(
        &self,
        unsent: &mut Option<Message>,
        expected: &Arc<[Arc<Group>]>,
        room: Vec<Option<OwnedSemaphorePermit>>,
    ) -> Option<Arc<Record>> {
        let mut state = self.state();
        if !Arc::ptr_eq(&state.groups, expected) {
            return None;
        }
        let message = unsent.take()?;
        let id = message_id(&self.name, state.next_offset);
        let record = self.append(&mut state, message, id);
        for (group, room) in expected.iter().zip(room) {
            group.put(Arc::clone(&record), room);
        }
        Some(record)
    }

    /// Stores a dead letter. It takes no room of its own: the source's reservation goes with it.
    pub(super) fn store_dead_letter(
        &self,
        message: Message,
        id: Arc<str>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        let mut state = self.state();
        let record = self.append(&mut state, message, id);
        let mut room = room;
        for group in state.groups.iter() {
            group.put(Arc::clone(&record), room.take());
        }
    }

    fn append(&self, state: &mut State, message: Message, message_id: Arc<str>) -> Arc<Record> {
        let born = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let record = Arc::new(Record {
            tags: message.tags().map(Arc::from),
            keys: message.keys().map(Arc::from),
            message,
            message_id,
            offset: state.next_offset,
            born: i64::try_from(born).unwrap_or(i64::MAX),
        });
        state.next_offset += 1;
        state.retained.push_back(Arc::clone(&record));
        while state.retained.len() > self.limit {
            state.retained.pop_front();
        }
        record
    }
}

/// "<topic>-<offset>", put together without a detour through the heap.
fn message_id(topic: &str, offset: i64) -> Arc<str> {
    let mut buffer = [0_u8; 160];
    let mut rest = &mut buffer[..];
    // A topic has at most 127 characters, so this fits; were it not so, the id would only be shorter.
    let _ = write!(rest, "{topic}-{offset:08X}");
    let left = rest.len();
    let written = buffer.get(..buffer.len() - left).unwrap_or_default();
    Arc::from(std::str::from_utf8(written).unwrap_or_default())
}
