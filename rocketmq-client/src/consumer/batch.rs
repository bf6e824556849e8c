//! Batches: a handler gets several messages of one queue at a time and says what became of each.
//!
//! A batch is what its queue has when a worker is free, up to the size asked for; it waits for more only if told to.
//! Of the retry topic, which holds messages of several topics, a batch has those of one.
//!
//! Protocol source: `ConsumeMessageConcurrentlyService` (`consumeMessageBatchMaxSize`, `ackIndex`).

mod builder;
mod linger;
mod outcome;
mod work;

pub use outcome::{BatchOutcome, IntoBatchOutcome};
pub(super) use work::BatchService;
