//! Pops and notifications that found nothing and wait for a message, and messages that come back because nobody has
//! acknowledged them.
//!
//! Who waits is known by topic, queue and group. A message wakes one of each group, whoever has to be answered first (of
//! notifications the last); that one is handed to its connection, which runs it once more and lets it wait on if there
//! is still nothing.
//! Protocol source: `PopLongPollingService`, `PopReviveService`.

mod revive;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::requests::{Notification, PopMessage};
use rocketmq_client::protocol::{Properties, property};
use tokio::time::Instant;

pub(super) use self::revive::revive_due;
pub(crate) use self::revive::{launch, launch_alone, resume as resume_revival, retry_version};
use super::timer::{Event, TimerKey};
use crate::broker::Broker;
use crate::lock::lock;
use crate::server::{RequestHead, Session};
use crate::state::Place;
use crate::store::TagFilter;

/// How many requests of a group may wait for one queue. Java: `popPollingSize`.
const MAX_HELD_OF_QUEUE: usize = 1025;
/// How many requests may wait together. Java: `maxPopPollingSize`.
const MAX_HELD: usize = 100_000;
/// The queue id of requests that take any queue of the topic.
pub(crate) const ANY_QUEUE: i32 = -1;

/// What a request asks that waits.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Pop(Box<PopMessage>),
    Notification(Box<Notification>),
}

impl Asked {
    fn place(&self) -> (&str, &str, i32) {
        match self {
            Self::Pop(request) => (&request.topic, &request.consumer_group, request.queue_id),
            Self::Notification(request) => (&request.topic, &request.consumer_group, request.queue_id),
        }
    }

    fn is_pop(&self) -> bool {
        matches!(self, Self::Pop(_))
    }
}

/// A request that waits, or goes on after it has waited.
#[derive(Debug)]
pub(crate) struct HeldPop {
    pub(crate) head: RequestHead,
    pub(crate) asked: Asked,
    /// When it has to be answered.
    pub(crate) answer_by: Instant,
    filter: TagFilter,
    session: Arc<Session>,
    timer: TimerKey,
}

/// Why a request does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// Too many others do.
    Full,
    /// It has waited long enough, or does not want to.
    Over,
}

/// Names a request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    place: Place,
    is_pop: bool,
    turn: Turn,
}

/// When a request has to be answered, and a number to tell those of one moment apart.
type Turn = (Instant, u64);

/// All that waits.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    table: Mutex<HashMap<Arc<str>, Queues>>,
    held: AtomicUsize,
}

/// Of one topic, by queue and group.
type Queues = BTreeMap<i32, HashMap<Arc<str>, Waiting>>;

#[derive(Debug, Default)]
struct Waiting {
    pops: BTreeMap<Turn, HeldPop>,
    notifications: BTreeMap<Turn, HeldPop>,
}

impl Waiting {
    fn of(&mut self, is_pop: bool) -> &mut BTreeMap<Turn, HeldPop> {
        if is_pop {
            &mut self.pops
        } else {
            &mut self.notifications
        }
    }

    fn is_empty(&self) -> bool {
        self.pops.is_empty() && self.notifications.is_empty()
    }
}

impl Polls {
    /// Lets a request wait, if it is not late and there is room.
    pub(crate) fn hold(
        broker: &Broker,
        session: &Arc<Session>,
        head: RequestHead,
        asked: Asked,
        filter: &TagFilter,
        answer_by: Instant,
    ) -> Result<Ticket, NotHeld> {
        if answer_by <= Instant::now() {
            return Err(NotHeld::Over);
        }
        let polls = &broker.polls;
        let (topic, group, queue_id) = asked.place();
        let place = Place {
            group: group.into(),
            topic: topic.into(),
            queue_id: queue_id.max(ANY_QUEUE),
        };
        let is_pop = asked.is_pop();
        let mut table = lock(&polls.table);
        let groups = table
            .entry(Arc::clone(&place.topic))
            .or_default()
            .entry(place.queue_id)
            .or_default();
        let waiting = groups.entry(Arc::clone(&place.group)).or_default().of(is_pop);
        let is_full = polls.held.load(Ordering::Relaxed) >= MAX_HELD || waiting.len() >= MAX_HELD_OF_QUEUE;
        if is_full || !session.take_hold() {
            prune(&mut table, &place);
            return Err(NotHeld::Full);
        }
        let turn = (answer_by, broker.timers.next_id());
        let ticket = Ticket { place, is_pop, turn };
        let held = HeldPop {
            head,
            asked,
            answer_by,
            filter: filter.clone(),
            session: Arc::clone(session),
            timer: broker
                .timers
                .set(answer_by, Event::PopTimeout(Box::new(ticket.clone()))),
        };
        waiting.insert(turn, held);
        polls.held.fetch_add(1, Ordering::Relaxed);
        Ok(ticket)
    }

    /// Takes a request back that was just told to wait; none if it goes on already.
    pub(crate) fn take_back(broker: &Broker, ticket: &Ticket) -> bool {
        match broker.polls.take(&ticket.place, ticket.is_pop, |waiting| {
            waiting.contains_key(&ticket.turn).then_some(ticket.turn)
        }) {
            Some(held) => {
                broker.timers.cancel(held.timer);
                held.session.release_hold();
                true
            }
            None => false,
        }
    }

    /// How many pops of a group wait for a queue.
    pub(crate) fn count(&self, topic: &str, group: &str, queue_id: i32) -> usize {
        let table = lock(&self.table);
        let groups = table.get(topic).and_then(|queues| queues.get(&queue_id));
        groups
            .and_then(|groups| groups.get(group))
            .map_or(0, |waiting| waiting.pops.len())
    }

    /// Drops everything that waits: the connections are gone.
    pub(crate) fn clear(&self) {
        let mut table = lock(&self.table);
        table.clear();
        self.held.store(0, Ordering::Relaxed);
    }

    /// Drops what a closed connection waits for.
    pub(crate) fn forget(broker: &Broker, session: &Session) {
        if !session.is_holding() {
            return;
        }
        let mut gone = Vec::new();
        let mut table = lock(&broker.polls.table);
        table.retain(|_, queues| {
            queues.retain(|_, groups| {
                groups.retain(|_, waiting| {
                    for held in [&mut waiting.pops, &mut waiting.notifications] {
                        held.retain(|_, held| {
                            let stays = held.session.id() != session.id();
                            if !stays {
                                gone.push(held.timer);
                            }
                            stays
                        });
                    }
                    !waiting.is_empty()
                });
                !groups.is_empty()
            });
            !queues.is_empty()
        });
        broker.polls.held.fetch_sub(gone.len(), Ordering::Relaxed);
        drop(table);
        for timer in gone {
            broker.timers.cancel(timer);
        }
    }

    fn is_empty(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0
    }

    fn take(
        &self,
        place: &Place,
        is_pop: bool,
        choose: impl FnOnce(&BTreeMap<Turn, HeldPop>) -> Option<Turn>,
    ) -> Option<HeldPop> {
        let mut table = lock(&self.table);
        let waiting = table
            .get_mut(&place.topic)?
            .get_mut(&place.queue_id)?
            .get_mut(&place.group)?
            .of(is_pop);
        let turn = choose(waiting)?;
        let held = waiting.remove(&turn)?;
        self.held.fetch_sub(1, Ordering::Relaxed);
        prune(&mut table, place);
        Some(held)
    }

    /// The groups that wait for a queue, or for any.
    fn groups(&self, topic: &str, queue_id: i32) -> Vec<Place> {
        let table = lock(&self.table);
        let Some((topic, queues)) = table.get_key_value(topic) else {
            return Vec::new();
        };
        let mut places = Vec::new();
        for queue_id in [ANY_QUEUE, queue_id] {
            let groups = queues.get(&queue_id).into_iter().flat_map(HashMap::keys);
            places.extend(groups.map(|group| Place {
                group: Arc::clone(group),
                topic: Arc::clone(topic),
                queue_id,
            }));
        }
        places
    }
}

/// Takes the room of a place at which nothing waits any more.
fn prune(table: &mut HashMap<Arc<str>, Queues>, place: &Place) {
    let Some(queues) = table.get_mut(&place.topic) else {
        return;
    };
    if let Some(groups) = queues.get_mut(&place.queue_id) {
        if groups.get(&place.group).is_some_and(Waiting::is_empty) {
            groups.remove(&place.group);
        }
        if groups.is_empty() {
            queues.remove(&place.queue_id);
        }
    }
    if queues.is_empty() {
        table.remove(&place.topic);
    }
}

/// A message is in its queue: whoever waits for it goes on. `of_group` is the group to which it comes back, if it does.
pub(crate) fn arrived(broker: &Broker, topic: &str, queue_id: i32, tag_code: i64, of_group: Option<&str>) {
    if broker.polls.is_empty() {
        return;
    }
    let wanted = |filter: &TagFilter| filter.matches(tag_code);
    if !topic.starts_with(RETRY_PREFIX) {
        for place in broker.polls.groups(topic, queue_id) {
            wake(broker, &place, wanted);
        }
        return;
    }
    let Some(group) = of_group.filter(|group| !group.trim().is_empty()) else {
        return;
    };
    // The topic of which it is a retry is behind the group and a separator.
    let Some(origin) = topic.get(RETRY_PREFIX.len() + group.len() + 1..) else {
        return;
    };
    wake_group(broker, group, origin, queue_id);
}

/// The group to which a message comes back, if it does.
pub(crate) fn origin_group<'a>(topic: &str, properties: &'a Properties) -> Option<&'a str> {
    topic
        .starts_with(RETRY_PREFIX)
        .then(|| properties.get(property::ORIGIN_GROUP))
        .flatten()
}

/// Lets one request of a group for any queue of a topic, and one for this queue, go on.
pub(crate) fn wake_group(broker: &Broker, group: &str, topic: &str, queue_id: i32) {
    if broker.polls.is_empty() {
        return;
    }
    for queue_id in [ANY_QUEUE, queue_id] {
        wake_one(broker, group, topic, queue_id);
    }
}

/// Lets one request of a group for just this queue go on.
pub(crate) fn wake_one(broker: &Broker, group: &str, topic: &str, queue_id: i32) {
    if broker.polls.is_empty() {
        return;
    }
    let place = Place {
        group: group.into(),
        topic: topic.into(),
        queue_id: queue_id.max(ANY_QUEUE),
    };
    wake(broker, &place, |_| true);
}

fn wake(broker: &Broker, place: &Place, wanted: impl Fn(&TagFilter) -> bool) {
    let first = |waiting: &BTreeMap<Turn, HeldPop>| {
        let mut held = waiting.iter();
        held.find(|(_, held)| wanted(&held.filter)).map(|(turn, _)| *turn)
    };
    while let Some(held) = broker.polls.take(place, true, first) {
        broker.timers.cancel(held.timer);
        if hand_back(held) {
            break;
        }
    }
    let last = |waiting: &BTreeMap<Turn, HeldPop>| waiting.last_key_value().map(|(turn, _)| *turn);
    while let Some(held) = broker.polls.take(place, false, last) {
        broker.timers.cancel(held.timer);
        if hand_back(held) {
            break;
        }
    }
}

/// False if the connection is closed.
fn hand_back(held: HeldPop) -> bool {
    let session = Arc::clone(&held.session);
    session.resume_pop(held)
}

/// Requests that were to go on, on a connection that was closed before they could: somebody else goes on instead.
pub(crate) fn pass_on(broker: &Broker, dropped: impl IntoIterator<Item = HeldPop>) {
    for held in dropped {
        let (topic, group, queue_id) = held.asked.place();
        wake_one(broker, group, topic, queue_id);
    }
}

pub(super) fn time_out(broker: &Broker, ticket: &Ticket) {
    let timed_out = broker.polls.take(&ticket.place, ticket.is_pop, |waiting| {
        waiting.contains_key(&ticket.turn).then_some(ticket.turn)
    });
    if let Some(held) = timed_out {
        hand_back(held);
    }
}

/// Sets a timer for the moment at which a queue that is popped in order stops to wait for its batch, if that needs one.
pub(crate) fn watch_order(broker: &Broker, place: &Place) {
    if let Some(free_at) = broker.orders.arm(place, broker.clock.now()) {
        let event = Event::OrderIsFree(Box::new(place.clone()));
        broker.timers.set(broker.clock.instant(free_at), event);
    }
}

/// A queue that is popped in order may have stopped to wait.
pub(super) fn order_is_free(broker: &Broker, place: &Place) {
    if broker.orders.is_blocked(place, None, 0, broker.clock.now()) {
        watch_order(broker, place);
        return;
    }
    let max = broker.store.range(&place.topic, place.queue_id).max;
    let next = broker
        .offsets
        .committed(&place.group, &place.topic, place.queue_id);
    if next.is_none_or(|next| next < max) {
        wake_group(broker, &place.group, &place.topic, place.queue_id);
    }
}
