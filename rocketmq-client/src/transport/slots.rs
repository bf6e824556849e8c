//! The requests in flight on one connection: a ring of reusable slots.
//!
//! A request's number (`opaque`) counts up through all 31 bits and picks its slot by its low bits; numbers whose slot
//! is taken are skipped. So a number comes back only after two thousand million requests, and a late reply never
//! completes another's request.

use std::mem;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use crate::error::Error;
use crate::protocol::Frame;

/// How many slots a connection starts with.
const FIRST_SLOTS: usize = 64;

#[derive(Debug)]
pub(super) struct Slots {
    /// Its length is a power of two.
    ring: Vec<Slot>,
    next: u32,
    used: usize,
    limit: usize,
    /// The earliest deadline that the sweep knows of.
    next_sweep: Option<Instant>,
    failure: Option<Error>,
    late: u64,
}

#[derive(Debug)]
struct Slot {
    opaque: u32,
    deadline: Option<Instant>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    Waiting(Option<Waker>),
    Done(Frame),
    Expired,
}

/// What opening a slot came to.
#[derive(Debug)]
pub(super) enum Opened {
    /// The number of the request; whether the sweep has to be told of a deadline that is earlier than it thinks.
    Slot { opaque: i32, tell_sweep: bool },
    /// As many are in flight as may be.
    Full,
    /// The connection is of no further use.
    Failed(Error),
}

/// How a request in flight ended.
#[derive(Debug)]
pub(super) enum Ended {
    Reply(Frame),
    Expired,
    Failed(Error),
}

/// What a sweep found.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) expired: u32,
    pub(super) wakers: Vec<Waker>,
    pub(super) next: Option<Instant>,
    pub(super) in_flight: usize,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ring: (0..FIRST_SLOTS).map(|_| Slot::free()).collect(),
            next: 0,
            used: 0,
            limit: limit.max(1),
            next_sweep: None,
            failure: None,
            late: 0,
        }
    }

    pub(super) fn open(&mut self, deadline: Instant) -> Opened {
        if let Some(failure) = &self.failure {
            return Opened::Failed(failure.clone());
        }
        if self.used >= self.limit {
            return Opened::Full;
        }
        if self.used * 2 >= self.ring.len() {
            self.grow();
        }
        // At most half of the slots are taken, so this ends.
        loop {
            let opaque = self.next;
            self.next = (self.next + 1) & 0x7FFF_FFFF;
            let slot = self.slot(opaque);
            if matches!(slot.state, State::Free) {
                slot.opaque = opaque;
                slot.deadline = Some(deadline);
                slot.state = State::Waiting(None);
                self.used += 1;
                let tell_sweep = self.next_sweep.is_none_or(|at| deadline < at);
                if tell_sweep {
                    self.next_sweep = Some(deadline);
                }
                return Opened::Slot {
                    opaque: opaque.cast_signed(),
                    tell_sweep,
                };
            }
        }
    }

    /// Asks how the request went; a reply can be taken once.
    pub(super) fn poll(&mut self, opaque: i32, context: &Context<'_>) -> Poll<Ended> {
        let failure = self.failure.clone();
        let Some(slot) = self.find(opaque) else {
            // The slot is freed by its owner alone, so it is there as long as the owner asks.
            return Poll::Ready(Ended::Expired);
        };
        match mem::take(&mut slot.state) {
            State::Done(frame) => {
                slot.state = State::Expired;
                Poll::Ready(Ended::Reply(frame))
            }
            State::Expired | State::Free => {
                slot.state = State::Expired;
                Poll::Ready(Ended::Expired)
            }
            State::Waiting(waker) => {
                if let Some(failure) = failure {
                    slot.state = State::Waiting(None);
                    return Poll::Ready(Ended::Failed(failure));
                }
                let current = context.waker();
                let waker = waker.filter(|waker| waker.will_wake(current));
                slot.state = State::Waiting(Some(waker.unwrap_or_else(|| current.clone())));
                Poll::Pending
            }
        }
    }

    /// Hands a reply to the request it belongs to. Without one it came too late, and is dropped and counted.
    pub(super) fn resolve(&mut self, frame: Frame) -> Option<Waker> {
        if let Some(slot) = self.find(frame.opaque)
            && let State::Waiting(waker) = &mut slot.state
        {
            let waker = waker.take();
            slot.state = State::Done(frame);
            return waker;
        }
        self.late += 1;
        None
    }

    /// Frees the slot of a request, answered or not.
    pub(super) fn close(&mut self, opaque: i32) {
        if let Some(slot) = self.find(opaque) {
            slot.state = State::Free;
            slot.deadline = None;
            self.used -= 1;
        }
    }

    /// Ends all requests whose deadline has passed.
    pub(super) fn sweep(&mut self, now: Instant) -> Swept {
        let mut swept = Swept {
            in_flight: self.used,
            ..Swept::default()
        };
        if self.used > 0 {
            for slot in &mut self.ring {
                let (State::Waiting(waker), Some(deadline)) = (&mut slot.state, slot.deadline) else {
                    continue;
                };
                if deadline <= now {
                    swept.wakers.extend(waker.take());
                    swept.expired += 1;
                    slot.state = State::Expired;
                } else if swept.next.is_none_or(|next| deadline < next) {
                    swept.next = Some(deadline);
                }
            }
        }
        self.next_sweep = swept.next;
        swept
    }

    /// Ends all requests: the connection broke. The first reason counts.
    pub(super) fn fail(&mut self, error: Error) -> Vec<Waker> {
        if self.failure.is_some() {
            return Vec::new();
        }
        self.failure = Some(error);
        let wakers = self.ring.iter_mut().filter_map(|slot| match &mut slot.state {
            State::Waiting(waker) => waker.take(),
            _ => None,
        });
        wakers.collect()
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// How many requests have a slot.
    pub(super) fn in_flight(&self) -> usize {
        self.used
    }

    /// How many replies came after their request had ended.
    pub(super) fn late_replies(&self) -> u64 {
        self.late
    }

    fn slot(&mut self, opaque: u32) -> &mut Slot {
        let mask = self.ring.len() - 1;
        &mut self.ring[opaque as usize & mask]
    }

    fn find(&mut self, opaque: i32) -> Option<&mut Slot> {
        let opaque = u32::try_from(opaque).ok()?;
        let slot = self.slot(opaque);
        let taken = !matches!(slot.state, State::Free);
        (taken && slot.opaque == opaque).then_some(slot)
    }

    /// Doubles the ring. Numbers that differ in their low bits still do with one bit more.
    fn grow(&mut self) {
        let doubled = (0..self.ring.len() * 2).map(|_| Slot::free()).collect();
        for slot in mem::replace(&mut self.ring, doubled) {
            if !matches!(slot.state, State::Free) {
                let opaque = slot.opaque;
                *self.slot(opaque) = slot;
            }
        }
    }
}

impl Slot {
    fn free() -> Self {
        Self {
            opaque: 0,
            deadline: None,
            state: State::Free,
        }
    }
}

#[cfg(test)]
mod tests;
