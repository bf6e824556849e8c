//! Consuming messages: four kinds of consumers, all of them members of a group.
//!
//! - A [`PushConsumer`] shares the queues of its topics with the other members, pulls messages from its own share, calls
//!   the handler with each, and commits how far it got: `engine` has the picture. Variations of it have a folder each:
//!   `orderly` (queues or keys in order), `batch`, `broadcast` (offsets in a file), `pop` (the broker divides).
//! - `lite_pull`: a [`LitePullConsumer`] shares the same way, and is polled.
//! - `simple`: a [`SimpleConsumer`] pops, and acknowledges message by message.
//! - `pull_consumer`: a [`PullConsumer`] pulls what it is told to.
//!
//! What holds, whatever fails:
//!
//! - A message is delivered at least once: the committed offset never passes one that was neither acknowledged nor
//!   taken back by a broker.
//! - Memory is bounded: by messages, bytes and span for each queue, and by bytes over all.
//! - One message never stops its neighbours: a handler that fails, panics or hangs costs one slot for a limited time.

mod agreement;
mod allocate;
mod assignment;
mod batch;
mod broadcast;
mod budget;
mod builder;
mod confirm;
mod division;
mod engine;
mod filter;
mod filters;
mod first_offset;
mod flow;
mod give_back;
mod handler;
mod limits;
mod lite_pull;
mod member;
mod offsets;
mod only;
mod options;
mod orderly;
mod outcome;
mod pop;
mod process_queue;
mod pull;
mod pull_consumer;
mod push;
mod ready;
mod rebalance;
mod received;
mod recover;
mod refusal;
mod remote;
mod requeue;
mod resubscribe;
mod retry_policy;
mod simple;
mod source;
mod spans;
mod standing;
mod stats;
mod stream;
mod subscriptions;
mod traced;
mod worker;

pub use allocate::{
    AllocateAveragely, AllocateByCircle, AllocateByConfig, AllocateByMachineRoom, AllocateConsistentHash,
    AllocateMachineRoomNearby, AllocateStrategy,
};
pub use batch::{BatchOutcome, IntoBatchOutcome};
pub use broadcast::Broadcasting;
pub use builder::PushConsumerBuilder;
pub use filter::Filter;
pub use first_offset::{ConsumeFrom, NewQueues};
pub use lite_pull::{
    AssignmentChange, Commit, LitePullConsumer, LitePullConsumerBuilder, LitePullHandle, LitePullStats,
    SeekTo,
};
pub use only::{Choosing, Only, only};
pub use orderly::Poison;
pub use outcome::{BoxError, IntoOutcome, Outcome, Retry};
pub use pop::PopStats;
pub use pull_consumer::{PullBuilder, PullConsumer, PullConsumerBuilder, PullOutcome, PullSchedule};
pub use push::{ConsumerStats, PushConsumer, ShutdownReport};
pub use simple::{Received, SimpleConsumer, SimpleConsumerBuilder, SimpleConsumerStats};
pub use spans::SpanLinker;
pub use stats::{QueueProgress, TopicRates};
pub use stream::{Leased, LeasedStream};

#[cfg(test)]
mod tests;
