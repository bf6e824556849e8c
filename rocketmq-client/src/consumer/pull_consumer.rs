//! The classic pull consumer: the user says from which offset of which queue, and keeps the offsets.
//!
//! Protocol source: `DefaultMQPullConsumerImpl`, `MQPullConsumerScheduleService`.

mod answers;
mod builder;
mod consumer;
mod engine;
mod pull;
mod schedule;

pub use builder::PullConsumerBuilder;
pub use consumer::PullConsumer;
pub use pull::{PullBuilder, PullOutcome};
pub use schedule::PullSchedule;
