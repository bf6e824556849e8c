//! What a program says.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rocketmq_client::{MessageView, protocol::bodies::MessageQueue};

use crate::{
    Failure,
    history::{Clock, Event, Handled, Id, Line, Place},
};

/// Prints lines for one process; clones print for the same one.
#[derive(Debug, Clone)]
pub(super) struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    proc: String,
    calls: AtomicU64,
}

impl Recorder {
    pub(super) fn new(proc: &str) -> Self {
        Self(Arc::new(Shared {
            clock: Clock::start(),
            proc: proc.to_owned(),
            calls: AtomicU64::new(0),
        }))
    }

    /// Prints a line; it is out when this returns.
    pub(super) fn say(&self, event: Event) {
        let mut out = std::io::stdout().lock();
        // Under the lock, so that the lines lie in the order of their times.
        let line = Line {
            ts: self.0.clock.now(),
            proc: self.0.proc.clone(),
            event,
        };
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return;
        };
        text.push(b'\n');
        // Nobody listens any more: then the program is about to be ended, too.
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }

    /// The number of the next call of a handler.
    pub(super) fn next_call(&self) -> u64 {
        self.0.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// A handler begins with a message; says so, or that the message is not what was sent.
    pub(super) fn begin(&self, message: &MessageView, call: u64) -> Result<Delivery, Failure> {
        let place = place(message);
        let read = || {
            let id = Id::of_body(message.body())?;
            if message.body() != id.body(message.body().len()).as_bytes() {
                return Err(Failure::from(format!("the body of {id} is altered")));
            }
            match message.property(Id::PROPERTY) {
                Some(other) if other != id.to_string() => Err(format!("{id} says that it is {other}").into()),
                _ => Ok(id),
            }
        };
        let id = match read() {
            Ok(id) => id,
            Err(error) => {
                let reason = error.to_string();
                self.say(Event::Altered { place, reason });
                return Err(error);
            }
        };
        let attempt = message.attempt();
        let call = Some(call);
        self.say(Event::Recv {
            id,
            place: place.clone(),
            key: message.sharding_key().map(str::to_owned),
            attempt,
            call,
        });
        Ok(Delivery {
            recorder: self.clone(),
            id,
            attempt,
            ended: Some(Event::Ack {
                id,
                place,
                status: Handled::Cut,
                call,
            }),
        })
    }
}

fn place(message: &MessageView) -> Place {
    let queue = message.queue();
    Place {
        broker: queue.broker_name.to_string(),
        topic: queue.topic.to_string(),
        queue: queue.queue_id,
        offset: message.queue_offset(),
    }
}

/// A queue in the words of a line.
pub(super) fn queue_name(queue: &MessageQueue) -> String {
    format!("{}:{}:{}", queue.topic, queue.broker_name, queue.queue_id)
}

/// A message in a handler. Dropped without an end, it says that the handler panicked or was cut off.
#[derive(Debug)]
pub(super) struct Delivery {
    recorder: Recorder,
    pub(super) id: Id,
    pub(super) attempt: u32,
    /// What is left to say.
    ended: Option<Event>,
}

impl Delivery {
    /// Says how the handler has ended.
    pub(super) fn end(mut self, how: Handled) {
        self.say(how);
    }

    fn say(&mut self, how: Handled) {
        if let Some(mut event) = self.ended.take() {
            if let Event::Ack { status, .. } = &mut event {
                *status = how;
            }
            self.recorder.say(event);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.say(if thread::panicking() {
            Handled::Panicked
        } else {
            Handled::Cut
        });
    }
}
