//! What happened, one line for each: the form in which programs tell it and files keep it.
//!
//! A file of such lines is called `history.jsonl`. The lines of several processes of one machine can be put together:
//! their times compare.

use std::{
    collections::BTreeMap,
    fmt, io,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::time::Instant;

use crate::Failure;

/// Names a message: who sent it, and as which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The sender within the scenario. One sender sends one after the other.
    pub producer: u32,
    /// Counts up for each message of a sender.
    pub sequence: u32,
}

impl Id {
    /// The property that carries the id beside the body.
    pub const PROPERTY: &'static str = "history-id";

    /// The id at the start of a body, before the first blank.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_body(body: &[u8]) -> Result<Self, Failure> {
        let text = std::str::from_utf8(body)?;
        text.split(' ').next().unwrap_or_default().parse()
    }

    /// A body that starts with the id and is so long, or as long as the id is.
    #[must_use]
    pub fn body(&self, length: usize) -> String {
        let mut body = self.to_string();
        if body.len() < length {
            body.push(' ');
        }
        while body.len() < length {
            body.push('x');
        }
        body
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.sequence)
    }
}

impl FromStr for Id {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (producer, sequence) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is no message id"))?;
        Ok(Self {
            producer: producer.parse()?,
            sequence: sequence.parse()?,
        })
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A place in the cluster that holds one message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Broker name.
    pub broker: String,
    /// Topic; a retry lives in another.
    pub topic: String,
    /// Queue of the topic on that broker.
    pub queue: i32,
    /// Offset in the queue.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}@{}", self.topic, self.broker, self.queue, self.offset)
    }
}

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Acknowledged, and where it is stored.
    Stored(Place),
    /// The producer cannot know: the answer was lost, or none was asked for.
    Unknown,
    /// Certainly not stored.
    NotStored,
}

/// How a send ended, without the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendStatus {
    /// Stored.
    Ok,
    /// Certainly not stored.
    NotSent,
    /// Nobody can say.
    Unknown,
}

/// How a handler's work on a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handled {
    /// Done with.
    Ok,
    /// It has to come again.
    Failed,
    /// Given up: it becomes a dead letter.
    Dead,
    /// The handler panicked.
    Panicked,
    /// The handler was cut off.
    Cut,
}

impl Handled {
    /// Whether the message need not come again.
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Ok | Self::Dead)
    }
}

/// What a member of a group says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// It has joined its group, or can send.
    Ready,
    /// It was asked to stop.
    Stopping,
    /// It has stopped in order: every handler that began has ended.
    Left,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Event {
    /// A send begins.
    Begin {
        /// The message.
        id: Id,
        /// Messages of one sender and key keep their order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// A send has ended.
    Send {
        /// The message.
        id: Id,
        /// How.
        status: SendStatus,
        /// Where it is stored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
        /// Why it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A handler got a message.
    Recv {
        /// The message.
        id: Id,
        /// Where it lay.
        place: Place,
        /// Its ordering key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// 1 for the first delivery.
        #[serde(default)]
        attempt: u32,
        /// The number of the handler's call in its process: messages of one call are handled together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<u64>,
    },
    /// A handler is done with a message.
    Ack {
        /// The message.
        id: Id,
        /// Where it lay.
        place: Place,
        /// How.
        status: Handled,
        /// As when it was received.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<u64>,
    },
    /// A message came whose body is not that of its id.
    Altered {
        /// Where it lay.
        place: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// A process says how it is.
    Member {
        /// How.
        state: Member,
        /// Figures that it leaves behind.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        figures: BTreeMap<String, i64>,
    },
    /// A member got a queue.
    Assigned {
        /// The queue, as `topic:broker:id`.
        queue: String,
    },
    /// A member lost a queue.
    Revoked {
        /// The queue, as `topic:broker:id`.
        queue: String,
    },
    /// How far a group has committed a queue.
    Committed {
        /// The queue, as `topic:broker:id`.
        queue: String,
        /// The offset.
        offset: i64,
    },
    /// Something was broken on purpose.
    Fault {
        /// What was done.
        what: String,
        /// The process that it was done to; `kill` ends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
    },
    /// What was broken is whole again.
    Mended {
        /// As in the fault.
        what: String,
    },
    /// How many messages the group has not consumed.
    Lag {
        /// In all queues.
        messages: i64,
    },
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When: microseconds since 1970.
    pub ts: u64,
    /// Who: the name of a process.
    pub proc: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Line {
    /// Reads the lines of a file. One that was cut off at the end, because its writer was killed, is passed over.
    ///
    /// # Errors
    /// When the file cannot be read, or with the number of the first line that is none.
    pub fn read_all(mut file: impl io::Read) -> Result<Vec<Self>, Failure> {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                Err(_) if !line.ends_with('\n') => {}
                Err(error) => return Err(format!("line {number} is no line of a history: {error}").into()),
            }
        }
        Ok(lines)
    }
}

/// The time of a process: the machine's at the start, and going on evenly whatever is done to the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
    started: Instant,
}

impl Clock {
    /// Reads the machine's clock.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            started: Instant::now(),
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from((self.start + self.started.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}
