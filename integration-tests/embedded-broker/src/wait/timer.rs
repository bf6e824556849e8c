//! The timer facility: events at moments of tokio's clock, so that a test with paused time can pass hours at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::time::{self, Instant};

use super::{delay, half, long_poll, pop, relay, reply, wheel};
use crate::broker::Broker;
use crate::lock::lock;
use crate::state::Place;

/// What happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A held pull has waited long enough.
    PullTimeout { topic: Arc<str>, queue_id: i32, id: u64 },
    /// A held pop or notification has waited long enough.
    PopTimeout(Box<pop::Ticket>),
    /// Popped messages may have to come back; milliseconds since 1970.
    Revive(i64),
    /// A queue that is popped in order may have stopped to wait for its batch.
    OrderIsFree(Box<Place>),
    /// Messages of a delay level, counted from 1, may be due.
    DelayLevel(usize),
    /// Messages with a delivery time may be due.
    Wheel,
    /// Producers may have to be asked about their half messages.
    CheckHalves,
    /// A requester has not confirmed a reply in time.
    ReplyTimeout { session: u64, opaque: i32 },
    /// A member has not answered a question in time.
    QuestionTimeout { session: u64, opaque: i32 },
}

/// Names an event so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    at: Instant,
    id: u64,
}

/// All events to come. There is at most one for each held pull or pop and a few for each delay level.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    events: Mutex<BTreeMap<TimerKey, Event>>,
    next_id: AtomicU64,
    earlier: Notify,
}

impl Timers {
    /// A number that no other event and no other held pull has.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn set(&self, at: Instant, event: Event) -> TimerKey {
        let key = TimerKey {
            at,
            id: self.next_id(),
        };
        let is_first = {
            let mut events = lock(&self.events);
            events.insert(key, event);
            events.first_key_value().is_some_and(|(first, _)| *first == key)
        };
        if is_first {
            self.earlier.notify_one();
        }
        key
    }

    pub(crate) fn cancel(&self, key: TimerKey) {
        lock(&self.events).remove(&key);
    }

    /// Forgets all events: what waited is gone with its connections.
    pub(crate) fn clear(&self) {
        lock(&self.events).clear();
    }

    fn take_due(&self) -> Option<Event> {
        let mut events = lock(&self.events);
        let first = events.first_entry()?;
        (first.key().at <= Instant::now()).then(|| first.remove())
    }

    fn next(&self) -> Option<Instant> {
        lock(&self.events).first_key_value().map(|(key, _)| key.at)
    }
}

/// Lets events happen when their time has come. Runs until it is dropped.
pub(crate) async fn run(broker: Arc<Broker>) {
    loop {
        while let Some(event) = broker.timers.take_due() {
            match event {
                Event::PullTimeout { topic, queue_id, id } => {
                    long_poll::time_out(&broker, &topic, queue_id, id);
                }
                Event::PopTimeout(ticket) => pop::time_out(&broker, &ticket),
                Event::Revive(at) => pop::revive_due(&broker, at),
                Event::OrderIsFree(place) => pop::order_is_free(&broker, &place),
                Event::DelayLevel(level) => delay::deliver_due(&broker, level),
                Event::Wheel => wheel::deliver_due(&broker),
                Event::CheckHalves => half::check(&broker),
                Event::ReplyTimeout { session, opaque } => reply::time_out(&broker, session, opaque),
                Event::QuestionTimeout { session, opaque } => relay::time_out(&broker, session, opaque),
            }
        }
        let earlier = broker.timers.earlier.notified();
        match broker.timers.next() {
            Some(at) => {
                tokio::select! {
                    () = time::sleep_until(at) => {}
                    () = earlier => {}
                }
            }
            None => earlier.await,
        }
    }
}
