//! Offsets of groups and of queues.
//!
//! Protocol source: the `*OffsetRequestHeader` classes, `SearchOffsetRequestHeader`,
//! `GetEarliestMsgStoretimeRequestHeader`.

use crate::protocol::Done;
use crate::protocol::request::{requests, responses};

requests! {
    /// The committed offset of one queue of a group. `QUERY_NOT_FOUND` (22) when the broker has none.
    pub struct QueryConsumerOffset = QUERY_CONSUMER_OFFSET => Offset {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// Whether a new group gets 0 where the whole queue is still in memory; absent means yes. 5.x.
        pub set_zero_if_not_found: Option<bool>,
    }

    /// Commits the offset of one queue of a group. Clients send it one-way.
    pub struct UpdateConsumerOffset = UPDATE_CONSUMER_OFFSET => Done {
        /// The group.
        pub consumer_group: String,
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// One past the last consumed offset.
        pub commit_offset: i64,
    }

    /// The first offset stored at a time or later.
    pub struct SearchOffset = SEARCH_OFFSET_BY_TIMESTAMP => Offset {
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
        /// Milliseconds since 1970.
        pub timestamp: i64,
        /// `LOWER` or `UPPER`; absent means lower. 5.x.
        pub boundary_type: Option<String>,
    }

    /// One past the newest offset of a queue.
    pub struct MaxOffset = GET_MAX_OFFSET => Offset {
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
    }

    /// The oldest offset of a queue.
    pub struct MinOffset = GET_MIN_OFFSET => Offset {
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
    }

    /// When the oldest message of a queue was stored.
    pub struct EarliestStoreTime = GET_EARLIEST_MSG_STORETIME => StoreTime {
        /// The topic.
        pub topic: String,
        /// The queue.
        pub queue_id: i32,
    }
}

responses! {
    /// An offset.
    pub struct Offset {
        /// The offset.
        pub offset: i64,
    }

    /// A time.
    pub struct StoreTime {
        /// Milliseconds since 1970; -1 if the queue is empty.
        pub timestamp: i64,
    }
}
