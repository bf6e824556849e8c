//! Ending a transaction: what became of a half message.
//!
//! Protocol source: `EndTransactionRequestHeader`, `EndTransactionProcessor`.

use crate::protocol::request::requests;
use crate::protocol::{Done, SysFlag};

requests! {
    /// Makes a half message visible, or drops it.
    ///
    /// A broker answers commits and rollbacks, and never a request whose outcome is [`UNKNOWN`](Self::UNKNOWN): send
    /// that one-way. Committing the same half message twice stores it twice.
    pub struct EndTransaction = END_TRANSACTION => Done {
        /// The topic: the real one from who sent the half message, the one of half messages in answer to a check.
        pub topic: Option<String>,
        /// The group that sent the half message.
        pub producer_group: String,
        /// The position of the half message in its queue.
        pub tran_state_table_offset: i64,
        /// The position of the half message in the broker's log.
        pub commit_log_offset: i64,
        /// The outcome: [`UNKNOWN`](Self::UNKNOWN), [`COMMIT`](Self::COMMIT) or [`ROLLBACK`](Self::ROLLBACK).
        pub commit_or_rollback: i32,
        /// Whether this answers a check; absent means no.
        pub from_transaction_check: Option<bool>,
        /// The client's id of the message.
        pub msg_id: String,
        /// The id of the transaction.
        pub transaction_id: Option<String>,
        /// The name of the broker.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }
}

impl EndTransaction {
    /// Nobody knows yet; the broker asks later.
    pub const UNKNOWN: i32 = 0;
    /// The message becomes visible.
    pub const COMMIT: i32 = SysFlag::TRANSACTION_COMMIT;
    /// The message is dropped.
    pub const ROLLBACK: i32 = SysFlag::TRANSACTION_MASK;
}
