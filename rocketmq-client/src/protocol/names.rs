//! Topics and groups: which names are legal, and the names that the protocol derives from them.
//!
//! Protocol source: `TopicValidator`, `Validators`, `MixAll`.

mod namespace;

use std::fmt;

pub use namespace::Namespace;

/// The longest topic that a client may name, in bytes.
pub const MAX_TOPIC_BYTES: usize = 127;
/// The longest topic that a broker derives from a group (`%RETRY%`, `%DLQ%`), in bytes.
pub const MAX_DERIVED_TOPIC_BYTES: usize = 255;
/// The longest group, in bytes: the limit of 5.x brokers.
pub const MAX_GROUP_BYTES: usize = 120;

/// The topic whose queues are the template for topics created by a send.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Where delayed messages wait; one queue for each level.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where messages with a delivery time wait.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Where half messages wait for the end of their transaction.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Where brokers note which half messages are done.
pub const HALF_OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Where half messages go whose producer was asked too often.
pub const CHECKED_TOO_OFTEN_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// What comes before the group in the name of its retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// What comes before the group in the name of its dead-letter topic.
pub const DLQ_PREFIX: &str = "%DLQ%";

/// The delay levels 1 to 18 of a broker with default settings, in seconds.
pub const DELAY_LEVEL_SECONDS: [u64; 18] = [
    1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// Topics that belong to the broker and to which clients may not send.
const FORBIDDEN: [&str; 6] = [
    SCHEDULE_TOPIC,
    HALF_TOPIC,
    HALF_OP_TOPIC,
    CHECKED_TOO_OFTEN_TOPIC,
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

/// Groups that clients use for themselves and that a user cannot take.
const RESERVED_GROUPS: [&str; 2] = ["DEFAULT_PRODUCER", "DEFAULT_CONSUMER"];

/// A name that is not one, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    what: &'static str,
    name: String,
    reason: String,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is not legal: {}", self.what, self.name, self.reason)
    }
}

impl std::error::Error for NameError {}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    let wrong = |reason: String| {
        Err(NameError {
            what,
            name: name.chars().take(160).collect(),
            reason,
        })
    };
    if name.is_empty() {
        return wrong("it is empty".into());
    }
    if name.len() > max {
        return wrong(format!("it has {} bytes, the limit is {max}", name.len()));
    }
    match name.chars().find(|&c| !is_legal_char(c)) {
        Some(c) => wrong(format!(
            "{c:?} is not allowed, only letters, digits, '%', '|', '_' and '-' are"
        )),
        None => Ok(()),
    }
}

fn is_legal_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '%' | '|' | '_' | '-')
}

/// Whether a name is not empty and has legal characters only: what a broker asks of any name, before lengths.
#[must_use]
pub fn is_legal_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_legal_char)
}

/// Checks the name of a topic that a client sends to or subscribes to.
///
/// # Errors
/// [`NameError`] when the name is empty, longer than [`MAX_TOPIC_BYTES`] ([`MAX_DERIVED_TOPIC_BYTES`] for retry and
/// dead-letter topics) or holds another character than letters, digits, `%`, `|`, `_` and `-`.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
    check(
        "topic",
        topic,
        if derived {
            MAX_DERIVED_TOPIC_BYTES
        } else {
            MAX_TOPIC_BYTES
        },
    )
}

/// Checks the name of a producer or consumer group.
///
/// # Errors
/// [`NameError`] as for topics, with [`MAX_GROUP_BYTES`]; also for the two names that clients keep for themselves.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check("group", group, MAX_GROUP_BYTES)?;
    if RESERVED_GROUPS.contains(&group) {
        let reason = "it is reserved, choose a name of your own".into();
        return Err(NameError {
            what: "group",
            name: group.into(),
            reason,
        });
    }
    Ok(())
}

/// Whether clients may not send to this topic.
#[must_use]
pub fn is_forbidden_topic(topic: &str) -> bool {
    FORBIDDEN.contains(&topic)
}

/// Whether a topic belongs to the broker.
#[must_use]
pub fn is_system_topic(topic: &str) -> bool {
    topic.starts_with("rmq_sys_")
        || is_forbidden_topic(topic)
        || [
            AUTO_CREATE_TOPIC,
            "BenchmarkTest",
            "RMQ_SYS_TRACE_TOPIC",
            "CHECKPOINT_TOPIC",
        ]
        .contains(&topic)
}

/// The topic through which a group gets messages again.
#[must_use]
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic to which messages go that a group has given up.
#[must_use]
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// The topic to which replies to requests go that were stored in this cluster.
#[must_use]
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_brokers_rules() {
        assert!(check_topic("Orders_2-eu|x%").is_ok());
        assert!(check_topic(&"t".repeat(127)).is_ok());
        assert!(check_topic(&retry_topic(&"g".repeat(120))).is_ok());
        for (topic, reason) in [
            ("", "topic \"\" is not legal: it is empty"),
            (
                "bad topic!",
                "topic \"bad topic!\" is not legal: ' ' is not allowed, only letters, digits, '%', '|', '_' and '-' are",
            ),
        ] {
            assert_eq!(check_topic(topic).unwrap_err().to_string(), reason);
        }
        assert!(
            check_topic(&"t".repeat(128))
                .unwrap_err()
                .to_string()
                .ends_with("it has 128 bytes, the limit is 127")
        );
        assert!(check_group("DEFAULT_CONSUMER").is_err());
        assert!(check_group("../../etc").is_err());
    }
}
