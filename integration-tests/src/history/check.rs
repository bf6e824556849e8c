//! The checker.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
};

use super::{Event, Handled, Id, Line, Member, Place, SendStatus, Shared, Verdict};

/// Everything that is wrong with what happened. The lines of each process have to be in their order, those of
/// different processes need not.
pub(super) fn check(lines: &[Line]) -> Verdict {
    let mut in_time: Vec<&Line> = lines.iter().collect();
    // Stable: what a process said in one microsecond stays in its order.
    in_time.sort_by_key(|line| line.ts);
    let mut verdict = Verdict::default();
    let mut places = BTreeMap::new();
    let sends = Sends::read(&in_time, &mut places, &mut verdict);
    Deliveries::default().read(&in_time, &sends, &mut places, &mut verdict);
    for (id, outcome) in &sends.outcomes {
        if *outcome == SendStatus::Ok && !sends.done.contains(id) {
            verdict.lost.insert(*id);
        }
    }
    Work::read(&in_time).judge(&mut verdict);
    verdict
}

/// What became of the sends.
#[derive(Debug, Default)]
struct Sends<'a> {
    outcomes: BTreeMap<Id, SendStatus>,
    keys: HashMap<Id, &'a str>,
    done: BTreeSet<Id>,
}

impl<'a> Sends<'a> {
    fn read(lines: &[&'a Line], places: &mut BTreeMap<&'a Place, Id>, verdict: &mut Verdict) -> Self {
        let mut sends = Self::default();
        // Of each send: how often it began, less how often it ended.
        let mut open: BTreeMap<Id, i64> = BTreeMap::new();
        for line in lines {
            match &line.event {
                Event::Begin { id, key } => {
                    *open.entry(*id).or_default() += 1;
                    if let Some(key) = key {
                        sends.keys.insert(*id, key);
                    }
                }
                Event::Send {
                    id, status, place, ..
                } => {
                    *open.entry(*id).or_default() -= 1;
                    sends.outcomes.insert(*id, *status);
                    if let Some(place) = place {
                        occupy(places, place, *id, verdict);
                    }
                }
                Event::Ack { id, status, .. } if status.is_done() => {
                    sends.done.insert(*id);
                }
                Event::Lag { messages } => verdict.lag = Some(*messages),
                Event::Altered { place, .. } => {
                    verdict.altered.insert(place.clone());
                }
                _ => {}
            }
        }
        for (id, open) in open {
            match open.cmp(&0) {
                Ordering::Greater => verdict.unended.insert(id),
                Ordering::Less => verdict.ended_again.insert(id),
                Ordering::Equal => false,
            };
        }
        sends
    }
}

/// What was delivered, in the order in which it came.
#[derive(Debug, Default)]
struct Deliveries<'a> {
    /// Of each message that came: how often its handler failed without a delivery since.
    failed: BTreeMap<Id, u32>,
    runs: BTreeMap<(&'a str, &'a str, i32, u32, &'a str), Run>,
}

impl<'a> Deliveries<'a> {
    fn read(
        mut self,
        lines: &[&'a Line],
        sends: &Sends<'a>,
        places: &mut BTreeMap<&'a Place, Id>,
        verdict: &mut Verdict,
    ) {
        for line in lines {
            match &line.event {
                Event::Recv { id, place, .. } => {
                    self.count(*id, verdict);
                    occupy(places, place, *id, verdict);
                    match sends.outcomes.get(id) {
                        Some(SendStatus::Ok) => {
                            let key = sends.keys.get(id).copied().unwrap_or_default();
                            let run = (&*place.broker, &*place.topic, place.queue, id.producer, key);
                            if !self.runs.entry(run).or_default().accept(id.sequence) {
                                verdict.disordered.insert(*id);
                            }
                        }
                        // It may have been stored at any time, before or behind its neighbours.
                        Some(SendStatus::Unknown) => {}
                        Some(SendStatus::NotSent) | None => {
                            verdict.ghosts.insert(*id);
                        }
                    }
                }
                Event::Ack { id, status, .. } if !status.is_done() => {
                    *self.failed.entry(*id).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn count(&mut self, id: Id, verdict: &mut Verdict) {
        match self.failed.entry(id) {
            Entry::Vacant(first) => {
                first.insert(0);
            }
            Entry::Occupied(mut failed) => match failed.get().checked_sub(1) {
                Some(left) => {
                    failed.insert(left);
                    verdict.retries += 1;
                }
                None => verdict.duplicates += 1,
            },
        }
    }
}

fn occupy<'a>(places: &mut BTreeMap<&'a Place, Id>, place: &'a Place, id: Id, verdict: &mut Verdict) {
    match places.entry(place) {
        Entry::Vacant(free) => {
            free.insert(id);
        }
        Entry::Occupied(taken) => {
            if *taken.get() != id {
                verdict.conflicts.insert(place.clone());
            }
        }
    }
}

/// Sequence numbers as they arrive: new ones must grow, and a replay repeats, without gaps, what came before.
#[derive(Debug, Default)]
struct Run {
    arrived: Vec<u32>,
    /// Index in `arrived` of the one that has to come next while a replay goes on.
    replay: Option<usize>,
}

impl Run {
    fn accept(&mut self, sequence: u32) -> bool {
        match self.arrived.binary_search(&sequence) {
            Ok(index) => {
                let in_order = self.replay.is_none_or(|next| index <= next);
                self.replay = (index + 1 < self.arrived.len()).then_some(index + 1);
                in_order
            }
            Err(index) => {
                // New messages come after all the old ones, and only once a replay has caught up.
                let in_order = index == self.arrived.len() && self.replay.is_none();
                self.arrived.insert(index, sequence);
                if index + 1 == self.arrived.len() {
                    self.replay = None;
                }
                in_order
            }
        }
    }
}

/// One message in one call of a handler.
#[derive(Debug)]
struct Interval<'a> {
    id: Id,
    place: &'a Place,
    key: Option<&'a str>,
    proc: &'a str,
    call: u64,
    begin: u64,
    end: Option<u64>,
}

/// When which handler was at what. Only of handlers whose calls are numbered.
#[derive(Debug, Default)]
struct Work<'a> {
    intervals: Vec<Interval<'a>>,
    /// When each process was killed.
    kills: HashMap<&'a str, Vec<u64>>,
    /// The last that was heard of each process.
    last: HashMap<&'a str, u64>,
    /// Those that stopped in order, and when.
    left: HashMap<&'a str, u64>,
}

impl<'a> Work<'a> {
    fn read(lines: &[&'a Line]) -> Self {
        let mut work = Self::default();
        let mut open: HashMap<(&str, u64, &Place), usize> = HashMap::new();
        for line in lines {
            let (ts, proc) = (line.ts, &*line.proc);
            work.last.insert(proc, ts);
            match &line.event {
                Event::Recv {
                    id,
                    place,
                    key,
                    call: Some(call),
                    ..
                } => {
                    open.insert((proc, *call, place), work.intervals.len());
                    work.intervals.push(Interval {
                        id: *id,
                        place,
                        key: key.as_deref(),
                        proc,
                        call: *call,
                        begin: ts,
                        end: None,
                    });
                }
                Event::Ack {
                    place,
                    call: Some(call),
                    ..
                } => {
                    let interval = open.remove(&(proc, *call, place));
                    if let Some(interval) = interval.and_then(|index| work.intervals.get_mut(index)) {
                        interval.end = Some(ts);
                    }
                }
                Event::Fault {
                    what,
                    target: Some(target),
                } if what == KILL => {
                    work.kills.entry(target).or_default().push(ts);
                }
                Event::Member {
                    state: Member::Left, ..
                } => {
                    work.left.insert(proc, ts);
                }
                _ => {}
            }
        }
        work
    }

    fn judge(&self, verdict: &mut Verdict) {
        for interval in &self.intervals {
            let stopped = self.left.get(interval.proc);
            if interval.end.is_none() && stopped.is_some_and(|stopped| interval.begin <= *stopped) {
                verdict.cut.insert(interval.id);
            }
        }
        verdict.shared_queues = self.shared(|_| Some(""));
        verdict.shared_keys = self.shared(|interval| interval.key);
    }

    /// Handlers that worked side by side on one queue and the same of whatever else is asked for.
    fn shared(&self, part: impl Fn(&Interval<'a>) -> Option<&'a str>) -> BTreeSet<Shared> {
        let mut units: BTreeMap<(&str, &str, i32, &str), Vec<&Interval<'_>>> = BTreeMap::new();
        for interval in &self.intervals {
            if let Some(part) = part(interval) {
                let Place {
                    broker, topic, queue, ..
                } = interval.place;
                units
                    .entry((broker, topic, *queue, part))
                    .or_default()
                    .push(interval);
            }
        }
        let mut shared = BTreeSet::new();
        for intervals in units.into_values() {
            let mut active: Vec<(&Interval<'_>, u64)> = Vec::new();
            for interval in intervals {
                active.retain(|(_, end)| *end > interval.begin);
                for (other, _) in &active {
                    if (other.proc, other.call) != (interval.proc, interval.call) {
                        shared.insert(Shared {
                            place: interval.place.clone(),
                            first: other.proc.to_owned(),
                            second: interval.proc.to_owned(),
                        });
                    }
                }
                active.push((interval, self.end_of(interval)));
            }
        }
        shared
    }

    /// When a handler ended: with its process at the latest.
    fn end_of(&self, interval: &Interval<'_>) -> u64 {
        if let Some(end) = interval.end {
            return end;
        }
        let kills = self.kills.get(interval.proc).into_iter().flatten();
        let killed = kills.copied().max();
        let last = self.last.get(interval.proc).copied();
        // It may have gone on for a moment while it was being killed, and nobody knows how long.
        killed.or(last).unwrap_or_default().max(interval.begin)
    }
}

/// How a fault is called that ends a process.
pub(super) const KILL: &str = "kill";

/// Whether a line says that a message need not come again.
pub(super) fn is_handled(line: &Line) -> bool {
    matches!(
        &line.event,
        Event::Ack {
            status: Handled::Ok | Handled::Dead,
            ..
        }
    )
}
