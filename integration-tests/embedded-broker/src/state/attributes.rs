//! Attributes of topics: which there are, and how a request changes them.
//!
//! Protocol source: `AttributeUtil`, `AttributeParser`, `TopicAttributes`.

use std::collections::{BTreeMap, BTreeSet};

/// Which values an attribute takes.
enum Values {
    OneOf(&'static [&'static str]),
    AtLeast(i64),
}

/// Name, whether it can be changed later, and its values.
const ALL: [(&str, bool, Values); 5] = [
    ("queue.type", false, Values::OneOf(&["BatchCQ", "SimpleCQ"])),
    ("cleanup.policy", false, Values::OneOf(&["DELETE", "COMPACTION"])),
    (
        "message.type",
        true,
        Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "PRIORITY",
            "MIXED",
            "LITE",
        ]),
    ),
    ("reserve.time", true, Values::AtLeast(-1)),
    ("lite.topic.expiration", true, Values::AtLeast(-1)),
];

/// The changes of a request, by name with its sign: `+name=value,-name`.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let wrong = || Err("kv string format wrong.".to_owned());
    let mut changes = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) if name.starts_with('+') => (name, value),
            None if part.starts_with('-') => (part, ""),
            _ => return wrong(),
        };
        if changes.insert(name.to_owned(), value.to_owned()).is_some() {
            return wrong();
        }
    }
    Ok(changes)
}

/// The attributes after a change; `current` is absent for a topic that is new.
pub(crate) fn alter(
    current: Option<&BTreeMap<String, String>>,
    changes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut altered = current.cloned().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (signed, value) in changes {
        let (sign, name) = signed.split_at_checked(1).unwrap_or_default();
        if name.is_empty() || name.contains(['+', '-']) {
            return Err("kv string format wrong.".to_owned());
        }
        if !seen.insert(name) {
            return Err(format!("alter duplication key. key: {name}"));
        }
        let delete = match (sign, current) {
            ("+", _) => false,
            (_, None) => {
                return Err(format!(
                    "only add attribute is supported while creating topic. key: {name}"
                ));
            }
            ("-", Some(current)) if current.contains_key(name) => true,
            ("-", Some(_)) => return Err(format!("attempt to delete a nonexistent key: {name}")),
            _ => return Err(format!("wrong format key: {name}")),
        };
        let Some((_, changeable, values)) = ALL.iter().find(|(known, ..)| *known == name) else {
            return Err(format!("unsupported key: {name}"));
        };
        if current.is_some() && !changeable {
            return Err(format!(
                "attempt to update an unchangeable attribute. key: {name}"
            ));
        }
        if delete {
            altered.remove(name);
            continue;
        }
        check(values, value)?;
        altered.insert(name.to_owned(), value.clone());
    }
    Ok(altered)
}

fn check(values: &Values, value: &str) -> Result<(), String> {
    match values {
        Values::OneOf(names) if names.contains(&value) => Ok(()),
        Values::OneOf(names) => Err(format!("value is not in set: {names:?}")),
        Values::AtLeast(least) => match value.parse::<i64>() {
            Ok(number) if number >= *least => Ok(()),
            Ok(_) => Err(format!("value is not in range({least}, {})", i64::MAX)),
            Err(_) => Err(format!("For input string: \"{value}\"")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(current: Option<&str>, text: &str) -> Result<String, String> {
        let current = current.map(|text| alter(None, &parse(text).unwrap()).unwrap());
        let altered = alter(current.as_ref(), &parse(text)?)?;
        let pairs: Vec<_> = altered
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Ok(pairs.join(","))
    }

    #[test]
    fn a_change_leaves_other_attributes_alone() {
        let current = Some("+message.type=FIFO,+reserve.time=5");
        assert_eq!(changed(current, "").unwrap(), "message.type=FIFO,reserve.time=5");
        assert_eq!(
            changed(current, "+message.type=DELAY,-reserve.time").unwrap(),
            "message.type=DELAY"
        );
    }

    #[test]
    fn what_a_real_broker_refuses_is_refused() {
        for (current, text, reason) in [
            (None, "message.type=FIFO", "kv string format wrong."),
            (None, "+colour=red", "unsupported key: colour"),
            (
                None,
                "-message.type",
                "only add attribute is supported while creating topic. key: message.type",
            ),
            (
                Some(""),
                "-message.type",
                "attempt to delete a nonexistent key: message.type",
            ),
            (
                Some("+queue.type=SimpleCQ"),
                "+queue.type=BatchCQ",
                "attempt to update an unchangeable attribute. key: queue.type",
            ),
        ] {
            assert_eq!(changed(current, text).unwrap_err(), reason, "{text}");
        }
        assert!(changed(None, "+message.type=fifo").is_err());
        assert!(changed(None, "+reserve.time=-2").is_err());
    }
}
