//! Where the consumption of a queue starts.
//!
//! Protocol source: `RebalancePushImpl#computePullFromWhere`.

use std::time::{Duration, SystemTime};

use super::remote::Remote;
use crate::error::{Error, Result};
use crate::protocol::bodies::{self, MessageQueue};

/// Where a group starts in a queue that it has no committed offset for.
///
/// It matters once in the life of a group: afterwards the committed offset counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeFrom {
    /// Behind the newest message. Two exceptions lose nothing that was sent while the group was running or the topic
    /// was young: a queue that appears after the group has begun with its topic is read from its start, see
    /// [`NewQueues`], and so is a queue whose whole content is still in the broker's memory, because the broker then
    /// answers 0 as the offset of a new group.
    #[default]
    Last,
    /// At the oldest message.
    First,
    /// At the first message stored at this time or later; brokers of 4.9 take the one that is nearest in time.
    Timestamp(SystemTime),
}

/// Where a group starts in queues that appear after it has begun to consume their topic: the topic gets more queues, or
/// a broker that did not have it.
///
/// A producer may write to such a queue before any member has heard of it. Java's consumers start there as in any other
/// queue without an offset, so with [`ConsumeFrom::Last`] they skip those messages.
///
/// # What counts as new
/// With [`FromStart`](Self::FromStart) and [`ConsumeFrom::Last`], a queue without a committed offset is read from its
/// start if
///
/// - it was not there when this member first looked at the topic, which is before it joins the group; a topic that did
///   not exist then has only new queues; or
/// - the group had already consumed any other queue of the topic when this member came.
///
/// So nothing is lost in a queue that appears while any member runs, while all are restarted one after the other, or
/// while none runs, whichever member gets the queue and however late. What is left is a topic that is created while
/// *no* member runs: nothing tells it from one that the group just begins with.
///
/// The price: if the first members of a new group crash before any of their commits is stored, a queue of theirs may
/// be read from its start although the group was to begin at its end. Messages come that nobody expected, and none is
/// missing.
///
/// By [broadcasting](super::PushConsumerBuilder::broadcasting), a queue is new if the file of offsets has other queues
/// of its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewQueues {
    /// At their first message: nothing is lost.
    #[default]
    FromStart,
    /// As [`ConsumeFrom`] says, as in Java.
    AsConsumeFrom,
}

impl ConsumeFrom {
    /// A time as Java's `setConsumeTimestamp` takes it, `yyyyMMddHHmmss`. Java reads it in the time zone of the
    /// machine; here it is that of a place so many minutes ahead of UTC, or behind if negative.
    ///
    /// Java's default is 30 minutes ago: `ConsumeFrom::Timestamp(SystemTime::now() - Duration::from_secs(1800))`.
    ///
    /// ```
    /// use rocketmq_client::ConsumeFrom;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let noon_in_shanghai = ConsumeFrom::timestamp("20260401120000", 8 * 60)?;
    /// let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_775_016_000);
    /// assert_eq!(noon_in_shanghai, ConsumeFrom::Timestamp(time));
    /// # Ok::<_, rocketmq_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it is no date and time since 1970.
    pub fn timestamp(text: &str, minutes_east: i32) -> Result<Self> {
        let wrong = || {
            Error::config(format!(
                "{text:?} with {minutes_east} minutes east of Greenwich is no time since 1970; write yyyyMMddHHmmss"
            ))
        };
        let seconds = seconds_since_1970(text).ok_or_else(wrong)?;
        let utc = seconds
            .checked_sub(i64::from(minutes_east) * 60)
            .ok_or_else(wrong)?;
        let since_1970 = u64::try_from(utc).map_err(|_| wrong())?;
        Ok(Self::Timestamp(
            SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970),
        ))
    }

    /// What brokers are told of it.
    pub(super) const fn announced(self) -> bodies::ConsumeFrom {
        match self {
            Self::Last => bodies::ConsumeFrom::Last,
            Self::First => bodies::ConsumeFrom::First,
            Self::Timestamp(_) => bodies::ConsumeFrom::Timestamp,
        }
    }
}

/// `yyyyMMddHHmmss` in UTC.
fn seconds_since_1970(text: &str) -> Option<i64> {
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // From the first of March of the year 0 to 1970.
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
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

/// The start in a queue without a committed offset. `appeared` says that the queue came up after the group had begun with
/// its topic, and that this is to make a difference.
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

/// The first offset of a queue, and whether the broker has it as the group's.
///
/// # Errors
/// When a broker cannot be asked: no answer is no reason to start anywhere.
pub(super) async fn ask_first_offset(
    remote: &Remote,
    queue: &MessageQueue,
    from: ConsumeFrom,
    is_retry_topic: bool,
    appeared: bool,
) -> Result<(i64, bool)> {
    if let Some(offset) = remote.committed_offset(queue).await? {
        return Ok((offset.max(0), true));
    }
    let offset = match first_offset(from, is_retry_topic, appeared) {
        FirstOffset::At(offset) => offset,
        FirstOffset::Newest => remote.max_offset(queue).await?,
        FirstOffset::StoredAt(timestamp) => remote.offset_at(queue, timestamp).await?,
    };
    Ok((offset.max(0), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_java_writes_it() {
        for (text, seconds) in [
            ("19700101000000", Some(0)),
            ("20000229235959", Some(951_868_799)),
            ("20260401040000", Some(1_775_016_000)),
            ("21000301000000", Some(4_107_542_400)),
            ("20380119031408", Some(2_147_483_648)),
            ("21000229000000", None),
            ("20261301000000", None),
            ("20260431000000", None),
            ("20260400000000", None),
            ("20260401240000", None),
            ("20260401006000", None),
            ("2026040100000", None),
            ("2026040100000x", None),
            ("+0260401000000", None),
            ("", None),
        ] {
            assert_eq!(seconds_since_1970(text), seconds, "{text}");
        }
        let kind = |text, east| ConsumeFrom::timestamp(text, east).unwrap_err().kind();
        assert_eq!(kind("tomorrow", 0), crate::ErrorKind::Config);
        assert_eq!(kind("19700101000000", 1), crate::ErrorKind::Config);
        let west = ConsumeFrom::timestamp("19700101000000", -60).unwrap();
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        assert_eq!(west, ConsumeFrom::Timestamp(expected));
    }

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
