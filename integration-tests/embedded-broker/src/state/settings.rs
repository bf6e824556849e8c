//! Configuration that can be read and changed over the wire: lines of `key=value`, by Java's names.
//!
//! As on a real server a name that is not known is passed over without a word, and most changes only show when the
//! configuration is read again. Protocol source: `Configuration`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::DataVersion;

use crate::lock::lock;
use crate::options::Options;

/// How large all settings may be together.
const MAX_BYTES: usize = 256 * 1024;

/// The settings of a broker or a name server.
#[derive(Debug)]
pub(crate) struct Settings {
    state: Mutex<State>,
    /// What cannot be changed over the wire.
    fixed: &'static [&'static str],
}

#[derive(Debug)]
struct State {
    values: BTreeMap<String, String>,
    version: DataVersion,
}

/// Why settings were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingsError {
    /// One of them cannot be changed over the wire.
    Fixed,
    /// The text is too large, or not UTF-8.
    Unusable,
}

impl Settings {
    /// The settings that this broker has, and those that a real one has by default.
    pub(crate) fn of_broker(
        options: &Options,
        name_server: SocketAddr,
        address: SocketAddr,
        now: i64,
    ) -> Self {
        let levels = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
        let millis = |duration: std::time::Duration| duration.as_millis().to_string();
        let values = [
            (
                "autoCreateSubscriptionGroup",
                options.auto_create_groups.to_string(),
            ),
            ("autoCreateTopicEnable", options.auto_create_topics.to_string()),
            ("brokerClusterName", options.cluster_name.clone()),
            ("brokerIP1", address.ip().to_string()),
            ("brokerId", "0".to_owned()),
            ("brokerName", options.broker_name.clone()),
            ("brokerPermission", "6".to_owned()),
            ("brokerRole", "ASYNC_MASTER".to_owned()),
            ("defaultMessageRequestMode", "PULL".to_owned()),
            ("defaultPopShareQueueNum", "-1".to_owned()),
            ("defaultTopicQueueNums", options.default_queues.to_string()),
            ("enableRetryTopicV2", "false".to_owned()),
            ("enablePropertyFilter", "false".to_owned()),
            ("fileReservedTime", "72".to_owned()),
            ("listenPort", address.port().to_string()),
            ("longPollingEnable", "true".to_owned()),
            ("maxMessageSize", options.max_message_bytes.to_string()),
            ("messageDelayLevel", levels.to_owned()),
            ("namesrvAddr", name_server.to_string()),
            ("popFromRetryProbability", "20".to_owned()),
            ("popFromRetryProbabilityForPriority", "0".to_owned()),
            ("popResponseReturnActualRetryTopic", "false".to_owned()),
            (
                "rejectTransactionMessage",
                options.reject_transactions.to_string(),
            ),
            ("retrieveMessageFromPopRetryTopicV1", "true".to_owned()),
            ("storeReplyMessageEnable", options.store_replies.to_string()),
            ("timerWheelEnable", "false".to_owned()),
            ("traceTopicEnable", options.trace_topic.to_string()),
            (
                "transactionCheckInterval",
                millis(options.transaction_check_interval),
            ),
            ("transactionCheckMax", options.transaction_check_max.to_string()),
            ("transactionTimeOut", millis(options.transaction_timeout)),
            ("useServerSideResetOffset", "true".to_owned()),
        ];
        Self::new(&values, &["configBlackList", "brokerConfigPath"], now)
    }

    /// The settings of the name server.
    pub(crate) fn of_name_server(name_server: SocketAddr, now: i64) -> Self {
        let values = [
            ("clusterTest", "false".to_owned()),
            ("listenPort", name_server.port().to_string()),
            (ORDER_MESSAGE_ENABLE, "false".to_owned()),
            ("returnOrderTopicConfigToBroker", "true".to_owned()),
        ];
        let fixed = &[
            "configBlackList",
            "configStorePath",
            "kvConfigPath",
            "rocketmqHome",
        ];
        Self::new(&values, fixed, now)
    }

    fn new(values: &[(&str, String)], fixed: &'static [&'static str], now: i64) -> Self {
        let values = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let version = DataVersion {
            timestamp: now,
            ..DataVersion::default()
        };
        Self {
            state: Mutex::new(State {
                values: values.collect(),
                version,
            }),
            fixed,
        }
    }

    /// All settings as text, and which state of them this is.
    pub(crate) fn text(&self) -> (Bytes, DataVersion) {
        let state = lock(&self.state);
        let lines: String = state
            .values
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        (lines.into(), state.version)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.is(name, "true")
    }

    /// Whether a setting has this value.
    pub(crate) fn is(&self, name: &str, wanted: &str) -> bool {
        lock(&self.state)
            .values
            .get(name)
            .is_some_and(|value| value == wanted)
    }

    /// A setting that is a number; 0 if it is none.
    pub(crate) fn number(&self, name: &str) -> i64 {
        let state = lock(&self.state);
        let value = state.values.get(name);
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    /// Takes over the settings of a text that are known.
    pub(crate) fn update(&self, text: &[u8], now: i64) -> Result<(), SettingsError> {
        let text = std::str::from_utf8(text).map_err(|_| SettingsError::Unusable)?;
        if text.len() > MAX_BYTES {
            return Err(SettingsError::Unusable);
        }
        let pairs: Vec<_> = text.lines().filter_map(pair).collect();
        if pairs.iter().any(|(name, _)| self.fixed.contains(&name.as_str())) {
            return Err(SettingsError::Fixed);
        }
        let mut state = lock(&self.state);
        for (name, value) in pairs {
            if let Some(known) = state.values.get_mut(&name) {
                *known = value;
            }
        }
        state.version.counter += 1;
        state.version.timestamp = now;
        Ok(())
    }
}

/// The name server's switch for orders of queues in routes.
pub(crate) const ORDER_MESSAGE_ENABLE: &str = "orderMessageEnable";

/// One line as Java's `Properties#load` reads it, as far as clients write such lines.
fn pair(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    if line.starts_with(['#', '!']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.trim_start().chars();
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' => match rest.next()? {
                'n' => '\n',
                't' => '\t',
                escaped => escaped,
            },
            c => c,
        });
    }
    // A value of several lines would look like several settings.
    (!plain.contains('\n')).then(|| (name.trim().to_owned(), plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(&[("a", "1".to_owned()), ("path", String::new())], &["fixed"], 5)
    }

    #[test]
    fn known_settings_change_and_others_are_passed_over() {
        let settings = settings();
        settings
            .update(b"# note\n a = 2\npath=C:\\\\x\nunknown=3\n", 6)
            .unwrap();
        let (text, version) = settings.text();
        assert_eq!(text, "a=2\npath=C:\\x\n");
        assert_eq!((version.counter, version.timestamp), (1, 6));
    }

    #[test]
    fn a_fixed_setting_keeps_all_others_from_changing() {
        let settings = settings();
        assert_eq!(settings.update(b"a=2\nfixed=1\n", 6), Err(SettingsError::Fixed));
        assert_eq!(settings.update(b"\xff", 6), Err(SettingsError::Unusable));
        assert_eq!(settings.text().0, "a=1\npath=\n");
    }
}
