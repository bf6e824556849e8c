//! What a broker says of its state, with the figures that every broker has as numbers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The state of a broker. Everything it said is in [`table`](Self::table), by Java's names.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BrokerRuntime {
    /// The version, for instance `V5_5_0`.
    pub version: String,
    /// When it started: milliseconds since 1970.
    pub boot_timestamp: i64,
    /// Messages stored per second, over the last ten seconds.
    pub put_tps: f64,
    /// Messages delivered per second, over the last ten seconds.
    pub get_transferred_tps: f64,
    /// Messages stored since midnight.
    pub put_today: i64,
    /// Messages delivered since midnight.
    pub got_today: i64,
    /// The first position of the log.
    pub commit_log_min_offset: i64,
    /// One past the last position of the log.
    pub commit_log_max_offset: i64,
    /// How full the disk is, from 0 to 1; -1 if it does not say.
    pub commit_log_disk_ratio: f64,
    /// Sends that wait for a thread.
    pub send_queue: i64,
    /// Pulls that wait for a thread.
    pub pull_queue: i64,
    /// Bytes of the log that are not in consume queues yet.
    pub dispatch_behind_bytes: i64,
    /// All figures as text.
    pub table: BTreeMap<String, String>,
}

impl BrokerRuntime {
    pub(super) fn new(table: BTreeMap<String, String>) -> Self {
        let text = |name: &str| table.get(name).map(String::as_str).unwrap_or_default();
        let count = |name: &str| text(name).trim().parse::<i64>().unwrap_or(0);
        // Rates are three numbers: over ten seconds, a minute and ten minutes.
        let rate = |name: &str| {
            let first = text(name).split_whitespace().next();
            first.and_then(|first| first.parse().ok()).unwrap_or(0.0)
        };
        // 4.9 spells it with one r, 5.x has both.
        let transferred = match table.contains_key("getTransferredTps") {
            true => "getTransferredTps",
            false => "getTransferedTps",
        };
        let since_midnight = |now: &str, morning: &str| count(now).saturating_sub(count(morning));
        Self {
            version: text("brokerVersionDesc").to_owned(),
            boot_timestamp: count("bootTimestamp"),
            put_tps: rate("putTps"),
            get_transferred_tps: rate(transferred),
            put_today: since_midnight("msgPutTotalTodayNow", "msgPutTotalTodayMorning"),
            got_today: since_midnight("msgGetTotalTodayNow", "msgGetTotalTodayMorning"),
            commit_log_min_offset: count("commitLogMinOffset"),
            commit_log_max_offset: count("commitLogMaxOffset"),
            commit_log_disk_ratio: text("commitLogDiskRatio").trim().parse().unwrap_or(-1.0),
            send_queue: count("sendThreadPoolQueueSize"),
            pull_queue: count("pullThreadPoolQueueSize"),
            dispatch_behind_bytes: count("dispatchBehindBytes"),
            table,
        }
    }

    /// When it started.
    #[must_use]
    pub fn boot_time(&self) -> SystemTime {
        let since_1970 = Duration::from_millis(u64::try_from(self.boot_timestamp).unwrap_or(0));
        let time = SystemTime::UNIX_EPOCH.checked_add(since_1970);
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_nonsense_is_nothing() {
        let table = [
            ("brokerVersionDesc", "V4_9_7"),
            ("bootTimestamp", "1000"),
            ("putTps", "1.5 2.5 3.5"),
            ("getTransferedTps", "0.25 0 0"),
            ("msgPutTotalTodayNow", "12"),
            ("msgPutTotalTodayMorning", "2"),
            ("commitLogMaxOffset", "many"),
        ];
        let runtime = BrokerRuntime::new(
            table
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
        assert_eq!((runtime.put_tps, runtime.get_transferred_tps), (1.5, 0.25));
        assert_eq!((runtime.put_today, runtime.commit_log_max_offset), (10, 0));
        assert_eq!(
            runtime.boot_time(),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1)
        );
        assert!(runtime.commit_log_disk_ratio < 0.0);
    }
}
