//! Which key a path means, and what is wrong with one that means none.

use crate::closest::closest;

use super::keys::refused::{REFUSED, Refused};
use super::keys::{KEYS, Key};
use super::value::relaxed;

/// What a path means.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// The application's own key.
    Foreign,
    /// An accepted key.
    Key(Match),
    /// A key known elsewhere.
    Refused(&'static Refused),
    /// The start of longer keys.
    Section,
    /// Nothing: the number of segments that are known, and a hint.
    Unknown { known: usize, hint: String },
}

/// An accepted key at a place.
#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) key: &'static Key,
    /// The place in kebab case, `*` for the name of a binding.
    pub(crate) pattern: String,
    /// The name of the binding as written.
    pub(crate) binding: Option<String>,
}

impl Match {
    /// The path under which [`Settings`](super::settings::Settings) keeps the value.
    pub(crate) fn canonical(&self) -> String {
        self.pattern
            .replace('*', &relaxed(self.binding.as_deref().unwrap_or_default()))
    }
}

/// Parts of the tree that belong to this crate.
const ROOTS: [&[&str]; 3] = [
    &["spring", "cloud", "stream"],
    &["spring", "cloud", "function"],
    &["spring", "integration", "poller"],
];

/// Whether the path is the name that `spring.cloud.function.definition` had before Spring Cloud Stream 4.
pub(crate) fn is_old_definition(path: &[&str]) -> bool {
    path.iter()
        .map(|part| relaxed(part))
        .eq(["spring", "cloud", "stream", "function", "definition"])
}

/// The path with the short root `stream` and the old name of the function definition written out.
///
/// The second value is by how many segments the result is longer.
fn written_out(path: &[&str]) -> (Vec<String>, usize) {
    let own = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let (full, longer) = match path {
        [root, rest @ ..] if relaxed(root) == "stream" => {
            let mut full = own(&["spring", "cloud", "stream"]);
            full.extend(own(rest));
            (full, 2)
        }
        path => (own(path), 0),
    };
    if is_old_definition(&full.iter().map(String::as_str).collect::<Vec<_>>()) {
        return (own(&["spring", "cloud", "function", "definition"]), longer);
    }
    (full, longer)
}

/// A spelling-independent form of a whole path.
pub(crate) fn identity(path: &[&str]) -> String {
    let (full, _) = written_out(path);
    full.iter()
        .map(|part| relaxed(part))
        .collect::<Vec<_>>()
        .join(".")
}

/// What `path` means. Its segments are as written, the short root included.
pub(crate) fn meaning(path: &[&str]) -> Meaning {
    let (full, longer) = written_out(path);
    let parts: Vec<String> = full.iter().map(|part| relaxed(part)).collect();
    if !ROOTS
        .iter()
        .any(|root| parts.len() >= root.len() && parts.iter().zip(root.iter()).all(|(a, b)| a == b))
    {
        return Meaning::Foreign;
    }
    let mut section = false;
    for key in KEYS {
        for pattern in key.patterns() {
            match compare(&pattern, &parts) {
                Compared::Equal => {
                    let binding = pattern
                        .split('.')
                        .zip(&full)
                        .find_map(|(part, written)| (part == "*").then(|| written.clone()));
                    return Meaning::Key(Match {
                        key,
                        pattern,
                        binding,
                    });
                }
                Compared::Shorter => section = true,
                Compared::Longer | Compared::Different(_) => {}
            }
        }
    }
    for refused in REFUSED {
        for prefix in refused.scope.prefixes() {
            match compare(&format!("{prefix}.{}", refused.name), &parts) {
                Compared::Equal | Compared::Longer => return Meaning::Refused(refused),
                Compared::Shorter => section = true,
                Compared::Different(_) => {}
            }
        }
    }
    if section {
        return Meaning::Section;
    }
    unknown(&parts, longer)
}

enum Compared {
    Equal,
    /// The path ends inside the pattern.
    Shorter,
    /// The path goes on below the pattern.
    Longer,
    /// The first segment in which they differ.
    Different(usize),
}

fn compare(pattern: &str, parts: &[String]) -> Compared {
    let mut names = pattern.split('.');
    for (index, part) in parts.iter().enumerate() {
        match names.next() {
            None => return Compared::Longer,
            Some("*") => {}
            Some(name) if relaxed(name) == *part => {}
            Some(_) => return Compared::Different(index),
        }
    }
    if names.next().is_none() {
        Compared::Equal
    } else {
        Compared::Shorter
    }
}

/// The hint for a path of which no key is known: the closest name at the place where it goes wrong, else the same
/// name at another place of the same tree, else the names that are known there.
fn unknown(parts: &[String], longer: usize) -> Meaning {
    let accepted: Vec<String> = KEYS.iter().flat_map(|key| key.patterns()).collect();
    let known = accepted
        .iter()
        .map(|pattern| match compare(pattern, parts) {
            Compared::Different(index) => index,
            Compared::Longer => pattern.split('.').count(),
            Compared::Equal | Compared::Shorter => parts.len(),
        })
        .max()
        .unwrap_or(0);
    let wrong = parts.get(known).map_or("", String::as_str);
    let under: Vec<&String> = accepted
        .iter()
        .filter(|pattern| match compare(pattern, parts) {
            Compared::Different(index) => index == known,
            Compared::Longer => pattern.split('.').count() == known,
            Compared::Equal | Compared::Shorter => false,
        })
        .collect();
    let mut here: Vec<&str> = under
        .iter()
        .filter_map(|pattern| pattern.split('.').nth(known))
        .collect();
    here.sort_unstable();
    here.dedup();
    let hint = if here.is_empty() {
        "it has no keys below it".to_owned()
    } else if let Some(name) = closest(wrong, here.iter().copied()) {
        format!("did you mean `{name}`?")
    } else if let Some(tail) = elsewhere(wrong, &under, &accepted, known) {
        format!("did you mean `{tail}`?")
    } else {
        format!("known here: {}", here.join(", "))
    };
    Meaning::Unknown {
        known: known.saturating_sub(longer),
        hint,
    }
}

/// A key with nearly the name `wrong`, deeper below the same place or anywhere.
fn elsewhere(wrong: &str, under: &[&String], accepted: &[String], known: usize) -> Option<String> {
    let tail = |pattern: &str| pattern.split('.').skip(known).collect::<Vec<_>>().join(".");
    let deeper = under.iter().map(|pattern| (pattern.as_str(), tail(pattern)));
    let anywhere = accepted
        .iter()
        .rev()
        .map(|pattern| (pattern.as_str(), pattern.replace('*', "<name>")));
    let find = |candidates: Vec<(&str, String)>| {
        let last = |pattern: &str| pattern.rsplit('.').next().map(str::to_owned).unwrap_or_default();
        let names: Vec<String> = candidates.iter().map(|(pattern, _)| last(pattern)).collect();
        let name = closest(wrong, names.iter().map(String::as_str))?;
        candidates
            .iter()
            .zip(&names)
            .find(|(_, candidate)| *candidate == name)
            .map(|((_, text), _)| text.clone())
    };
    find(deeper.collect()).or_else(|| find(anywhere.collect()))
}
