//! Environment variables in Spring's relaxed spelling.
//!
//! Dots become `_` and dashes vanish, so `SPRING_CLOUD_STREAM_BINDINGS_ORDERSIN0_CONSUMER_MAXATTEMPTS` is
//! `spring.cloud.stream.bindings.orders-in-0.consumer.max-attempts`; a dash written as `_` is understood too. The
//! short root is `STREAM_BINDINGS_`, `STREAM_ROCKETMQ_`, `STREAM_DEFAULT_` or `STREAM_FUNCTION_`.

use super::keys::KEYS;
use super::schema::Match;
use super::value::relaxed;

/// Beginnings of the variables that belong to this crate; whatever follows must be a key.
const PREFIXES: [&str; 7] = [
    "spring_cloud_stream_",
    "spring_cloud_function_",
    "spring_integration_poller_",
    "stream_bindings_",
    "stream_rocketmq_",
    "stream_default_",
    "stream_function_",
];

/// RocketMQ's own variable for the name servers.
pub(crate) const NAMESRV_ADDR: &str = "NAMESRV_ADDR";

/// Whether a variable of this name must be a key.
pub(crate) fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The key that a variable sets.
pub(crate) fn meaning(name: &str) -> Option<Match> {
    let lower = name.to_ascii_lowercase();
    let tokens: Vec<&str> = lower.split('_').collect();
    let mut found: Option<(usize, Match)> = None;
    for key in KEYS {
        for pattern in key.patterns() {
            for spelling in spellings(&pattern) {
                let names: Vec<String> = spelling.split('.').map(relaxed).collect();
                let Some(binding) = consume(&names, &tokens) else {
                    continue;
                };
                // The fewer tokens are taken for a binding name, the more were understood.
                if found.as_ref().is_none_or(|(size, _)| binding.len() < *size) {
                    let name = (!binding.is_empty()).then(|| binding_name(&binding));
                    found = Some((
                        binding.len(),
                        Match {
                            key,
                            pattern: pattern.clone(),
                            binding: name,
                        },
                    ));
                }
            }
        }
    }
    found.map(|(_, found)| found)
}

/// A pattern with every root it may have.
fn spellings(pattern: &str) -> Vec<String> {
    let mut spellings = vec![pattern.to_owned()];
    if let Some(rest) = pattern.strip_prefix("spring.cloud.stream.") {
        spellings.push(format!("stream.{rest}"));
    }
    if pattern == "spring.cloud.function.definition" {
        spellings.extend(
            [
                "stream.function.definition",
                "spring.cloud.stream.function.definition",
            ]
            .map(str::to_owned),
        );
    }
    spellings
}

/// The path a variable seems to mean, for the message about one that means nothing.
pub(crate) fn as_path(name: &str) -> Vec<String> {
    name.to_ascii_lowercase()
        .split('_')
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The variable that Spring would read for a key of the application.
pub(crate) fn variable(key: &str) -> String {
    key.chars()
        .filter(|c| *c != '-')
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

/// Matches tokens with the segments of a pattern; the tokens that stand for `*` come back.
fn consume<'a>(names: &[String], tokens: &[&'a str]) -> Option<Vec<&'a str>> {
    let Some((name, names)) = names.split_first() else {
        return tokens.is_empty().then(Vec::new);
    };
    for taken in 1..=tokens.len() {
        let (head, tail) = tokens.split_at_checked(taken)?;
        if name == "*" {
            if let Some(rest) = consume(names, tail) {
                return rest.is_empty().then(|| head.to_vec());
            }
        } else if head.concat() == *name {
            return consume(names, tail);
        }
    }
    None
}

/// How a binding is likely to be written, where nothing else names it: `ordersin0` as `orders-in-0`.
fn binding_name(tokens: &[&str]) -> String {
    let joined = tokens.concat();
    let stem = joined.trim_end_matches(|c: char| c.is_ascii_digit());
    let index = joined.strip_prefix(stem).unwrap_or_default();
    for direction in ["in", "out"] {
        if let Some(function) = stem.strip_suffix(direction)
            && !function.is_empty()
            && !index.is_empty()
        {
            return format!("{function}-{direction}-{index}");
        }
    }
    tokens.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Option<String> {
        meaning(name).map(|found| {
            found
                .pattern
                .replace('*', found.binding.as_deref().unwrap_or("?"))
        })
    }

    #[test]
    fn dashes_vanish_and_dots_become_underscores() {
        for (name, expected) in [
            (
                "SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESERVER",
                "spring.cloud.stream.rocketmq.binder.name-server",
            ),
            (
                "SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAME_SERVER",
                "spring.cloud.stream.rocketmq.binder.name-server",
            ),
            (
                "SPRING_CLOUD_STREAM_BINDINGS_CONSUMERIN0_GROUP",
                "spring.cloud.stream.bindings.consumer-in-0.group",
            ),
            (
                "SPRING_CLOUD_STREAM_BINDINGS_MY_ORDERS_IN_0_CONSUMER_MAXATTEMPTS",
                "spring.cloud.stream.bindings.myorders-in-0.consumer.max-attempts",
            ),
            (
                "SPRING_CLOUD_STREAM_DEFAULT_CONSUMER_CONCURRENCY",
                "spring.cloud.stream.default.consumer.concurrency",
            ),
            (
                "SPRING_CLOUD_FUNCTION_DEFINITION",
                "spring.cloud.function.definition",
            ),
            ("STREAM_FUNCTION_DEFINITION", "spring.cloud.function.definition"),
            (
                "STREAM_BINDINGS_XOUT1_DESTINATION",
                "spring.cloud.stream.bindings.x-out-1.destination",
            ),
            (
                "SPRING_INTEGRATION_POLLER_FIXEDDELAY",
                "spring.integration.poller.fixed-delay",
            ),
        ] {
            assert_eq!(path(name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_slip_is_ours_but_means_nothing() {
        assert!(is_ours("SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESRV"));
        assert_eq!(path("SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESRV"), None);
        assert!(!is_ours("STREAM_OF_CONSCIOUSNESS"));
        assert!(!is_ours("SPRING_APPLICATION_NAME"));
    }

    #[test]
    fn the_variable_of_a_key_of_the_application_is_springs() {
        assert_eq!(variable("my.own-key"), "MY_OWNKEY");
    }
}
