//! The lite-pull consumer: messages are pulled in the background and handed out when the user asks for them.
//!
//! ```text
//! divide or assign -> held queues -> one pull loop each -> caches -> line -> poll
//!                          ^                                                  |
//!                        seek                commits <- positions <-----------+
//! ```
//!
//! Protocol source: `DefaultLitePullConsumerImpl`, `RebalanceLitePullImpl`, `AssignedMessageQueue`.

mod answers;
mod builder;
mod commit;
mod consumer;
mod divide;
mod engine;
mod held;
mod options;
mod pulling;
mod seek;
mod watch;

pub use builder::LitePullConsumerBuilder;
pub use commit::Commit;
pub use consumer::{LitePullConsumer, LitePullHandle, LitePullStats};
pub use seek::SeekTo;
pub use watch::AssignmentChange;
pub(super) use watch::AssignmentListener;
