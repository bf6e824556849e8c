//! The properties of a sent message: what the broker reads of them and what it adds.

use rocketmq_client::protocol::property;

use super::REGION;

const NAME_END: char = '\u{1}';
const PAIR_END: char = '\u{2}';

/// A receipt of POP consumption; never taken from a producer.
const POP_CK: &str = "POP_CK";

/// One look at a property string.
#[derive(Debug, Default)]
pub(super) struct SentProperties<'a> {
    text: &'a str,
    pub(super) tags: Option<&'a str>,
    pub(super) unique_key: Option<&'a str>,
    pub(super) delay_level: i32,
    pub(super) is_transaction: bool,
    pub(super) timer: Option<Timer<'a>>,
    /// Whether somebody else's broker has had the message on its timer wheel.
    was_timed: bool,
    pub(super) priority: Option<i32>,
    pub(super) is_fifo: bool,
    drops_priority: bool,
    pub(super) has_unreadable_delay: bool,
    /// Whether the string has pairs that the broker writes itself or takes out.
    has_brokers_own: bool,
    has_destination: bool,
    dead: bool,
}

/// When a message is to be delivered, as its properties say it; the first of these three counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer<'a> {
    Seconds(&'a str),
    Millis(&'a str),
    At(&'a str),
}

impl Timer<'_> {
    /// When that is: milliseconds since 1970. None for what is no number.
    pub(super) fn due(self, now: i64) -> Option<i64> {
        Some(match self {
            Self::Seconds(seconds) => now.saturating_add(seconds.parse::<i64>().ok()?.saturating_mul(1000)),
            Self::Millis(millis) => now.saturating_add(millis.parse().ok()?),
            Self::At(time) => time.parse().ok()?,
        })
    }
}

impl<'a> SentProperties<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let mut read = Self {
            text,
            ..Self::default()
        };
        for (name, value) in pairs(text) {
            match name {
                property::TAGS => read.tags = Some(value),
                property::UNIQUE_KEY => read.unique_key = Some(value),
                property::DELAY => match value.parse() {
                    Ok(level) => read.delay_level = level,
                    Err(_) => read.has_unreadable_delay = true,
                },
                property::TRANSACTION_PREPARED => read.is_transaction = value.eq_ignore_ascii_case("true"),
                property::MSG_REGION | property::TRACE_ON | property::CLUSTER | POP_CK => {
                    read.has_brokers_own = true;
                }
                property::REAL_TOPIC | property::REAL_QUEUE_ID => read.has_destination = true,
                property::TIMER_DELAY_SEC => read.timer = Some(Timer::Seconds(value)),
                property::TIMER_DELAY_MS if !matches!(read.timer, Some(Timer::Seconds(_))) => {
                    read.timer = Some(Timer::Millis(value));
                }
                property::TIMER_DELIVER_MS if read.timer.is_none() => read.timer = Some(Timer::At(value)),
                property::TIMER_OUT_MS => read.was_timed = true,
                property::PRIORITY => read.priority = value.parse().ok().filter(|priority| *priority >= 0),
                property::SHARDING_KEY => read.is_fifo = true,
                _ => {}
            }
        }
        // A delay level wins over a delivery time.
        if read.delay_level > 0 || read.was_timed {
            read.timer = None;
        }
        read
    }

    /// The message goes to the dead letters: at once, and shown by a level of -1 as on a real broker.
    pub(super) fn is_dead(&mut self) {
        self.dead = true;
        self.delay_level = 0;
    }

    /// The queue that a priority stands for, if nothing stands against it: else the message loses its priority.
    pub(super) fn queue_of_priority(&mut self, write_queues: i32) -> Option<i32> {
        let priority = self.priority?;
        if self.is_transaction || self.delay_level > 0 || self.timer.is_some() || self.is_fifo {
            self.drops_priority = true;
            return None;
        }
        Some(priority.min(write_queues - 1))
    }

    /// The property string to store.
    ///
    /// `unique_key` is the message's, or the one that the broker gives a message without; `destination` is where a delayed
    /// message goes in the end.
    pub(super) fn stored(&self, unique_key: &str, cluster: &str, destination: Option<(&str, i32)>) -> String {
        // What the broker adds is mostly below 160 bytes.
        let mut out = String::with_capacity(self.text.len() + 160);
        if self.has_brokers_own
            || self.dead
            || self.drops_priority
            || (self.has_destination && destination.is_some())
        {
            let kept = pairs(self.text).filter(|(name, _)| !self.replaces(name, destination.is_some()));
            for (name, value) in kept {
                push(&mut out, name, value);
            }
        } else {
            out.push_str(self.text);
            if !out.is_empty() && !out.ends_with(PAIR_END) {
                out.push(PAIR_END);
            }
        }
        if self.unique_key.is_none() {
            push(&mut out, property::UNIQUE_KEY, unique_key);
        }
        if self.dead {
            push(&mut out, property::DELAY, "-1");
        }
        push(&mut out, property::MSG_REGION, REGION);
        push(&mut out, property::TRACE_ON, "true");
        push(&mut out, property::CLUSTER, cluster);
        if let Some((topic, queue_id)) = destination {
            push(&mut out, property::REAL_TOPIC, topic);
            push(&mut out, property::REAL_QUEUE_ID, &queue_id.to_string());
        }
        out
    }

    fn replaces(&self, name: &str, has_destination: bool) -> bool {
        match name {
            property::MSG_REGION | property::TRACE_ON | property::CLUSTER | POP_CK => true,
            property::DELAY => self.dead,
            property::PRIORITY => self.drops_priority,
            property::REAL_TOPIC | property::REAL_QUEUE_ID => has_destination,
            _ => false,
        }
    }
}

/// As Java reads them: pairs without a name or a value do not count, the last separator may be missing.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(PAIR_END)
        .filter_map(|pair| pair.split_once(NAME_END))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
}

pub(super) fn push(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(NAME_END);
    out.push_str(value);
    out.push(PAIR_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pairs: &[(&str, &str)]) -> String {
        let mut out = String::new();
        for (name, value) in pairs {
            push(&mut out, name, value);
        }
        out
    }

    #[test]
    fn the_brokers_own_pairs_are_added_once() {
        let sent = text(&[
            ("TAGS", "a"),
            ("CLUSTER", "elsewhere"),
            ("POP_CK", "x"),
            ("UNIQ_KEY", "u"),
        ]);
        let read = SentProperties::read(&sent);
        assert_eq!((read.tags, read.unique_key), (Some("a"), Some("u")));
        let expected = text(&[
            ("TAGS", "a"),
            ("UNIQ_KEY", "u"),
            ("MSG_REGION", "DefaultRegion"),
            ("TRACE_ON", "true"),
            ("CLUSTER", "here"),
        ]);
        assert_eq!(read.stored("u", "here", None), expected);
    }

    #[test]
    fn a_missing_last_separator_does_not_join_pairs() {
        let sent = "a\u{1}1\u{2}b\u{1}2";
        let stored = SentProperties::read(sent).stored("id", "c", None);
        assert!(
            stored.starts_with("a\u{1}1\u{2}b\u{1}2\u{2}UNIQ_KEY\u{1}id\u{2}"),
            "{stored:?}"
        );
    }

    #[test]
    fn a_delayed_message_says_where_it_goes_now() {
        let sent = text(&[
            ("DELAY", "3"),
            ("REAL_TOPIC", "before"),
            ("REAL_QID", "9"),
            ("TIMER_DELAY_SEC", "1"),
        ]);
        let read = SentProperties::read(&sent);
        assert_eq!((read.delay_level, read.timer), (3, None));
        let stored = read.stored("u", "c", Some(("now", 2)));
        assert!(
            stored.ends_with(&text(&[("REAL_TOPIC", "now"), ("REAL_QID", "2")])),
            "{stored:?}"
        );
        assert!(!stored.contains("before"), "{stored:?}");
    }

    #[test]
    fn a_dead_message_shows_level_minus_one() {
        let sent = text(&[("DELAY", "3"), ("UNIQ_KEY", "u")]);
        let mut read = SentProperties::read(&sent);
        read.is_dead();
        assert_eq!(read.delay_level, 0);
        assert!(
            read.stored("u", "c", None)
                .starts_with(&text(&[("UNIQ_KEY", "u"), ("DELAY", "-1")]))
        );
    }
}
