//! What the values must fulfil together.

use std::collections::{BTreeMap, BTreeSet};

use crate::closest::closest;

use super::error::{ConfigError, ConfigErrorKind as Kind, Origin};
use super::settings::Settings;
use super::value::{Value, relaxed};
use super::{Config, keys};

const BINDINGS: &str = "spring.cloud.stream.bindings";
const RENAMES: &str = "spring.cloud.stream.function.bindings.";

/// Checks that need no functions: bindings whose name says that they are inputs. One that already has a mistake
/// among `errors` is passed over, because what seems to be missing may be what was misspelt.
pub(crate) fn alone(settings: &Settings, errors: &[ConfigError]) -> Vec<ConfigError> {
    let renamed: BTreeSet<String> = settings
        .below(RENAMES)
        .filter(|(_, setting)| setting.written.rsplit('.').next().is_some_and(is_input))
        .filter_map(|(_, setting)| match &setting.value {
            Value::Text(name) => Some(relaxed(name)),
            _ => None,
        })
        .collect();
    let inputs: Vec<String> = settings
        .names()
        .filter(|name| is_input(name) || renamed.contains(&relaxed(name)))
        .filter(|name| {
            !errors
                .iter()
                .any(|error| error.path().contains(&format!("bindings.{name}.")))
        })
        .map(str::to_owned)
        .collect();
    let mut errors = missing_groups(settings, &inputs);
    errors.extend(inconsistent(settings, &inputs));
    errors.extend(settings.names().filter_map(|name| small_cache(settings, name)));
    errors
}

/// A cache that cannot hold what one pull asks for.
fn small_cache(settings: &Settings, binding: &str) -> Option<ConfigError> {
    let cache = settings.count(&keys::PULL_THRESHOLD_FOR_QUEUE, binding);
    let batch = settings.count(&keys::PULL_BATCH_SIZE, binding);
    let set = settings
        .set(&keys::PULL_THRESHOLD_FOR_QUEUE, binding)
        .or_else(|| settings.set(&keys::PULL_BATCH_SIZE, binding))?;
    (cache < batch).then(|| {
        ConfigError::new(
            Kind::InvalidValue,
            &set.written,
            set.origin.clone(),
            format!(
                "binding `{binding}` has pull-threshold-for-queue {cache} and pull-batch-size {batch}; the first must \
                 not be less than the second"
            ),
        )
    })
}

/// Checks against the functions that exist.
pub(crate) fn with_functions(config: &Config, inputs: &[&str], outputs: &[&str]) -> Vec<ConfigError> {
    let settings = &config.settings;
    let bound: Vec<String> = inputs
        .iter()
        .map(|implicit| config.binding_name(implicit).to_owned())
        .collect();
    let mut errors = missing_groups(settings, &bound);
    errors.extend(inconsistent(settings, &bound));

    let implicit: BTreeSet<String> = inputs.iter().chain(outputs).map(|name| relaxed(name)).collect();
    for (renamed, setting) in settings.below(RENAMES) {
        if !implicit.contains(renamed) {
            errors.push(ConfigError::new(
                Kind::UnknownBinding,
                &setting.written,
                setting.origin.clone(),
                no_function(renamed, inputs.iter().chain(outputs).copied()),
            ));
        }
    }
    let known: BTreeSet<String> = bound
        .iter()
        .map(String::as_str)
        .chain(outputs.iter().map(|implicit| config.binding_name(implicit)))
        .map(relaxed)
        .collect();
    for name in settings.names().filter(|name| !known.contains(&relaxed(name))) {
        // An output without function is there for StreamBridge; an input without function would do nothing.
        let Some((written, origin)) = input_only(settings, name) else {
            continue;
        };
        let candidates = bound.iter().map(String::as_str).chain(outputs.iter().copied());
        errors.push(ConfigError::new(
            Kind::UnknownBinding,
            written,
            origin,
            no_function(name, candidates),
        ));
    }
    errors
}

fn no_function<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.collect();
    let hint = match closest(name, candidates.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None if candidates.is_empty() => "no function is bound".to_owned(),
        None => format!("the bound functions have {}", candidates.join(", ")),
    };
    format!("no bound function has the binding `{name}`; {hint}")
}

/// Whether a name is `<function>-in-<index>`.
fn is_input(name: &str) -> bool {
    let mut parts = name.rsplit('-');
    let index = parts
        .next()
        .is_some_and(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()));
    index && parts.next().is_some_and(|part| part.eq_ignore_ascii_case("in")) && parts.next().is_some()
}

/// The first setting that makes sense for an input alone, or any setting of a binding that is named like an input.
fn input_only(settings: &Settings, name: &str) -> Option<(String, Origin)> {
    let identity = relaxed(name);
    let core = format!("{BINDINGS}.{identity}.");
    let rocketmq = format!("spring.cloud.stream.rocketmq.bindings.{identity}.");
    settings
        .below(&core)
        .chain(settings.below(&rocketmq))
        .find(|(key, _)| is_input(name) || *key == "group" || key.starts_with("consumer."))
        .map(|(_, setting)| (setting.written.clone(), setting.origin.clone()))
}

fn missing_groups(settings: &Settings, inputs: &[String]) -> Vec<ConfigError> {
    inputs
        .iter()
        .filter(|name| settings.set(&keys::GROUP, name).is_none())
        .map(|name| {
            ConfigError::new(
                Kind::MissingGroup,
                format!("{BINDINGS}.{name}.group"),
                settings.named_at(name),
                format!(
                    "input binding `{name}` has no consumer group: name the service, `group: my-service`, or write \
                     `group: anonymous` for a group that no other process shares"
                ),
            )
        })
        .collect()
}

/// RocketMQ keeps one subscription per group, so what one binding subscribes replaces what the other did, and its
/// members must all subscribe the same. Two inputs of one group therefore lose messages.
fn inconsistent(settings: &Settings, inputs: &[String]) -> Vec<ConfigError> {
    let mut groups: BTreeMap<String, &String> = BTreeMap::new();
    let mut errors = Vec::new();
    for name in inputs {
        let Some(setting) = settings.set(&keys::GROUP, name) else {
            continue;
        };
        let Value::Text(group) = &setting.value else {
            continue;
        };
        if group == "anonymous" {
            continue;
        }
        let Some(first) = groups.get(group) else {
            groups.insert(group.clone(), name);
            continue;
        };
        if relaxed(first) == relaxed(name) {
            continue;
        }
        let (ours, theirs) = (subscription(settings, name), subscription(settings, first));
        let reason = if ours == theirs {
            format!("both consume {ours}, so each message would reach only one of the two functions")
        } else {
            format!(
                "it consumes {ours}, and `{first}` consumes {theirs}: RocketMQ keeps one subscription per group"
            )
        };
        errors.push(ConfigError::new(
            Kind::InconsistentSubscription,
            format!("{BINDINGS}.{name}.group"),
            setting.origin.clone(),
            format!(
                "group `{group}` is already used by {BINDINGS}.{first}.group ({}); {reason}. Give each binding a group \
                 of its own",
                settings.set(&keys::GROUP, first).map(|setting| setting.origin.clone()).unwrap_or_default()
            ),
        ));
    }
    errors
}

/// Topic and tags, the tags in one order.
fn subscription(settings: &Settings, binding: &str) -> String {
    let topic = settings
        .text(&keys::DESTINATION, binding)
        .unwrap_or_else(|| binding.to_owned());
    let tags = settings.text(&keys::SUBSCRIPTION, binding).unwrap_or_default();
    let tags: BTreeSet<&str> = tags.split("||").map(str::trim).collect();
    format!(
        "topic `{topic}` with `{}`",
        tags.into_iter().collect::<Vec<_>>().join(" || ")
    )
}
