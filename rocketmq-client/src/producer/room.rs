//! How much of one producer is in flight: messages and bytes, both bounded.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Core, WhenFull};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::InFlightGauges;
use crate::transport::Hold;

#[derive(Debug)]
pub(super) struct Room {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_messages: u32,
    max_bytes: u32,
    gauges: InFlightGauges,
}

impl Room {
    pub(super) fn new(group: &str, max_messages: u32, max_bytes: u32) -> Self {
        Self {
            messages: Arc::new(Semaphore::new(max_messages as usize)),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_messages,
            max_bytes,
            gauges: InFlightGauges::new(group),
        }
    }

    /// What a body of this size takes; a larger one than all there is takes all there is.
    fn cost(&self, body: usize) -> u32 {
        u32::try_from(body).map_or(self.max_bytes, |bytes| bytes.min(self.max_bytes))
    }

    /// Takes room if there is some. Gives what [`leave`](Self::leave) has to give back.
    pub(super) fn try_enter(&self, body: usize) -> Option<u32> {
        let cost = self.cost(body);
        let message = self.messages.try_acquire().ok()?;
        let bytes = self.bytes.try_acquire_many(cost).ok()?;
        message.forget();
        bytes.forget();
        self.tell();
        Some(cost)
    }

    /// Takes room, after a wait if that is wanted.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] without room, at once or at the deadline.
    pub(super) async fn enter(&self, body: usize, when_full: WhenFull, deadline: Instant) -> Result<u32> {
        if let Some(cost) = self.try_enter(body) {
            return Ok(cost);
        }
        if when_full == WhenFull::Fail {
            return Err(self.full());
        }
        let entered = timeout_at(deadline, self.enter_when_room(body)).await;
        entered.unwrap_or_else(|_| Err(self.full()))
    }

    /// Takes room as soon as there is some: as long as it takes.
    pub(super) async fn enter_when_room(&self, body: usize) -> Result<u32> {
        let cost = self.cost(body);
        let message = self.messages.acquire().await;
        let bytes = self.bytes.acquire_many(cost).await;
        match (message, bytes) {
            (Ok(message), Ok(bytes)) => {
                message.forget();
                bytes.forget();
                self.tell();
                Ok(cost)
            }
            // The semaphores are never closed; this is for the compiler.
            _ => Err(Error::closed("the producer")),
        }
    }

    /// Takes room for a one-way request, which gives it back by itself once its frame is written.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(super) async fn hold(&self, body: usize, when_full: WhenFull, deadline: Instant) -> Result<Hold> {
        let cost = self.cost(body);
        let hold = |(messages, bytes)| Hold {
            _messages: messages,
            _bytes: bytes,
        };
        let at_once = || {
            let messages = Arc::clone(&self.messages).try_acquire_owned().ok()?;
            let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(cost).ok()?;
            Some((messages, bytes))
        };
        if let Some(permits) = at_once() {
            return Ok(hold(permits));
        }
        if when_full == WhenFull::Fail {
            return Err(self.full());
        }
        let waiting = async {
            let messages = Arc::clone(&self.messages).acquire_owned().await.ok()?;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(cost).await.ok()?;
            Some((messages, bytes))
        };
        match timeout_at(deadline, waiting).await {
            Ok(Some(permits)) => Ok(hold(permits)),
            // The semaphores are never closed, so this is the deadline.
            _ => Err(self.full()),
        }
    }

    pub(super) fn full(&self) -> Error {
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "{} messages of at most {}, or {} bytes of at most {}, are in flight; send more slowly or raise \
                 max_in_flight or max_in_flight_bytes",
                self.max_messages as usize - self.messages.available_permits(),
                self.max_messages,
                self.max_bytes as usize - self.bytes.available_permits(),
                self.max_bytes
            ),
        )
    }

    pub(super) fn leave(&self, cost: u32) {
        self.messages.add_permits(1);
        self.bytes.add_permits(cost as usize);
        self.tell();
    }

    /// Tells the gauges. What one-way requests give back is told by whoever comes or goes next.
    fn tell(&self) {
        let taken = |all: u32, free: usize| all.saturating_sub(u32::try_from(free).unwrap_or(all));
        self.gauges.set(
            taken(self.max_messages, self.messages.available_permits()),
            taken(self.max_bytes, self.bytes.available_permits()),
        );
    }

    /// Waits until there is some room.
    pub(super) async fn wait(&self) -> Result<()> {
        let message = self.messages.acquire().await;
        let bytes = self.bytes.acquire().await;
        // Both are given back at once.
        match (message, bytes) {
            (Ok(_), Ok(_)) => Ok(()),
            _ => Err(Error::closed("the producer")),
        }
    }

    /// Waits until nothing is in flight.
    pub(super) async fn drained(&self) {
        let _all = self.messages.acquire_many(self.max_messages).await;
    }
}

/// Room that was taken for a message that is not on its way yet; given back unless it is used.
#[derive(Debug)]
pub(super) struct Seat {
    core: Arc<Core>,
    cost: Option<u32>,
}

impl Seat {
    pub(super) fn new(core: &Arc<Core>, cost: u32) -> Self {
        Self {
            core: Arc::clone(core),
            cost: Some(cost),
        }
    }

    /// What has to be given back by whoever takes it over.
    pub(super) fn take(mut self) -> Option<u32> {
        self.cost.take()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(cost) = self.cost.take() {
            self.core.room.leave(cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_bounds_hold_and_one_message_always_fits() {
        let room = Room::new("g", 2, 100);
        let first = room.try_enter(60).unwrap();
        assert_eq!(room.try_enter(60), None, "too many bytes");
        let second = room.try_enter(10).unwrap();
        assert_eq!(room.try_enter(1), None, "too many messages");
        let deadline = Instant::now() + Duration::from_secs(1);
        let error = room.enter(1, WhenFull::Fail, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(
            error.to_string(),
            "2 messages of at most 2, or 70 bytes of at most 100, are in flight; send more slowly or raise \
             max_in_flight or max_in_flight_bytes"
        );
        assert_eq!(
            room.enter(1, WhenFull::Wait, deadline).await.unwrap_err().kind(),
            ErrorKind::Overloaded
        );
        room.leave(first);
        room.leave(second);
        let huge = room.try_enter(1_000_000).unwrap();
        assert_eq!(room.try_enter(1), None);
        room.leave(huge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_there_is_room_and_a_cancelled_one_takes_none() {
        let room = Room::new("g", 1, 100);
        let first = room.try_enter(1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        {
            let cancelled = room.enter(1, WhenFull::Wait, deadline);
            assert!(
                tokio::time::timeout(Duration::from_secs(1), cancelled)
                    .await
                    .is_err()
            );
        }
        let (entered, ()) = tokio::join!(room.enter(1, WhenFull::Wait, deadline), async {
            tokio::task::yield_now().await;
            room.leave(first);
        });
        let drained = tokio::time::timeout(Duration::from_secs(1), room.drained()).await;
        assert!(drained.is_err(), "one is in flight");
        room.leave(entered.unwrap());
        room.drained().await;
        room.wait().await.unwrap();
    }
}
