//! Where the consumption of a queue starts.
//!
//! Protocol source: `RebalancePushImpl#computePullFromWhere`.

use std::time::SystemTime;

use crate::protocol::bodies;

/// Where a group starts in a queue that it has no committed offset for.
///
/// It matters once in the life of a group: afterwards the committed offset counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeFrom {
    /// Behind the newest message. Two exceptions lose nothing that was sent while the group was running or the topic
    /// was young: a queue that appears while the consumer runs (the topic is created, or gets more queues or brokers)
    /// is read from its start, and so is a queue whose whole content is still in the broker's memory, because the
    /// broker then answers 0 as the offset of a new group.
    #[default]
    Last,
    /// At the oldest message.
    First,
    /// At the first message stored at this time or later.
    Timestamp(SystemTime),
}

impl ConsumeFrom {
    /// What brokers are told of it.
    pub(super) const fn announced(self) -> bodies::ConsumeFrom {
        match self {
            Self::Last => bodies::ConsumeFrom::Last,
            Self::First => bodies::ConsumeFrom::First,
            Self::Timestamp(_) => bodies::ConsumeFrom::Timestamp,
        }
    }
}

/// How to find the first offset of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstOffset {
    At(i64),
    /// Ask for one past the newest message.
    Newest,
    /// Ask for the first message stored at this time: milliseconds since 1970.
    StoredAt(i64),
}

/// The start in a queue without a committed offset. `appeared` says that the queue came up while the group was running.
pub(super) fn first_offset(from: ConsumeFrom, is_retry_topic: bool, appeared: bool) -> FirstOffset {
    // A retry topic holds only what this group itself gave back: to skip any of it would lose it. Java does for
    // `CONSUME_FROM_TIMESTAMP`.
    if is_retry_topic {
        return FirstOffset::At(0);
    }
    match from {
        ConsumeFrom::First => FirstOffset::At(0),
        // Java starts at the newest message here and skips what was sent before its next rebalance.
        ConsumeFrom::Last if appeared => FirstOffset::At(0),
        ConsumeFrom::Last => FirstOffset::Newest,
        ConsumeFrom::Timestamp(time) => {
            let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            FirstOffset::StoredAt(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_start_follows_the_option_except_where_messages_would_be_lost() {
        let time = ConsumeFrom::Timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(1234));
        for (from, is_retry_topic, appeared, expected) in [
            (ConsumeFrom::Last, false, false, FirstOffset::Newest),
            (ConsumeFrom::Last, false, true, FirstOffset::At(0)),
            (ConsumeFrom::First, false, false, FirstOffset::At(0)),
            (time, false, false, FirstOffset::StoredAt(1234)),
            (time, false, true, FirstOffset::StoredAt(1234)),
            (ConsumeFrom::Last, true, false, FirstOffset::At(0)),
            (ConsumeFrom::First, true, false, FirstOffset::At(0)),
            (time, true, false, FirstOffset::At(0)),
        ] {
            assert_eq!(first_offset(from, is_retry_topic, appeared), expected, "{from:?}");
        }
    }
}
