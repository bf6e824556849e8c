//! Which messages of a topic a group wants.
//!
//! Brokers compare hashes of tags, so another tag with the same hash slips through; the consumer compares the text
//! again. Protocol source: `FilterAPI`, `SubscriptionData`.

use std::borrow::Cow;

use crate::protocol::bodies::SubscriptionData;

/// Which messages of a topic a group wants: all of them, or those with certain tags.
///
/// All members of a group have to subscribe to the same topics with the same filters: a broker keeps one subscription
/// for each group and topic, the newest.
///
/// ```
/// use rocketmq_client::Filter;
///
/// assert_eq!(Filter::from("vip || late"), Filter::tags(["vip", "late"]));
/// assert_eq!(Filter::from("*"), Filter::all());
/// assert_eq!(Filter::from("vip||late").to_string(), "vip || late");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// In the order they were given; empty means all messages.
    tags: Vec<String>,
    /// Kept until [`Filter::check`], so that building a filter cannot fail.
    fault: Option<Cow<'static, str>>,
}

impl Filter {
    /// All messages, with any tag or none. The expression `*`.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            tags: Vec::new(),
            fault: None,
        }
    }

    /// Messages that have one of these tags.
    ///
    /// A tag that cannot be one (blank, `*`, with a `|` or a control character inside) or an empty list is reported
    /// when the consumer starts.
    pub fn tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> Self {
        let mut filter = Self::all();
        for tag in tags {
            let tag: String = tag.into();
            let tag = tag.trim();
            if filter.fault.is_none() {
                filter.fault = fault_of(tag);
            }
            if !filter.tags.iter().any(|known| known == tag) {
                filter.tags.push(tag.to_owned());
            }
        }
        if filter.tags.is_empty() {
            filter.fault = Some(Cow::Borrowed("it names no tag; use `*` for all messages"));
        }
        filter
    }

    /// Whether every message is wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.tags.is_empty() && self.fault.is_none()
    }

    /// Whether a message with this tag is wanted.
    #[must_use]
    pub fn matches(&self, tag: Option<&str>) -> bool {
        self.tags.is_empty() || tag.is_some_and(|tag| self.tags.iter().any(|wanted| wanted == tag))
    }

    /// Why the filter cannot be used, if it cannot.
    pub(super) fn check(&self) -> Result<(), &str> {
        self.fault.as_deref().map_or(Ok(()), Err)
    }

    /// Whether a subscription that a broker keeps is this filter, in whatever words.
    pub(super) fn is(&self, kept: &SubscriptionData) -> bool {
        kept.expression_type == SubscriptionData::TAG
            && kept.tags_set.len() == self.tags.len()
            && self.tags.iter().all(|tag| kept.tags_set.contains(tag))
    }

    /// What brokers are told of this filter.
    pub(super) fn subscription(&self, topic: &str, version: i64) -> SubscriptionData {
        SubscriptionData::by_tags(topic, &self.to_string(), version)
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

/// Reads an expression: `*`, or tags separated by `||`. Nothing at all means `*`, as in Java.
impl From<&str> for Filter {
    fn from(expression: &str) -> Self {
        let expression = expression.trim();
        if expression.is_empty() || expression == SubscriptionData::ALL {
            return Self::all();
        }
        // Java drops empty alternatives (`a || || b`) too.
        Self::tags(
            expression
                .split("||")
                .map(str::trim)
                .filter(|tag| !tag.is_empty()),
        )
    }
}

impl From<String> for Filter {
    fn from(expression: String) -> Self {
        Self::from(expression.as_str())
    }
}

impl From<&String> for Filter {
    fn from(expression: &String) -> Self {
        Self::from(expression.as_str())
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.tags.is_empty() {
            return f.write_str(SubscriptionData::ALL);
        }
        for (at, tag) in self.tags.iter().enumerate() {
            if at > 0 {
                f.write_str(" || ")?;
            }
            f.write_str(tag)?;
        }
        Ok(())
    }
}

fn fault_of(tag: &str) -> Option<Cow<'static, str>> {
    if tag.is_empty() {
        return Some(Cow::Borrowed("a tag is blank"));
    }
    if tag == SubscriptionData::ALL {
        return Some(Cow::Borrowed(
            "`*` stands beside other tags, where it would be a tag of that name; use `*` alone for all messages",
        ));
    }
    if tag.contains('|') {
        return Some(Cow::Owned(format!(
            "{tag:?} has a single `|`, which is part of the tag; separate tags by `||`"
        )));
    }
    if tag.contains(char::is_control) {
        return Some(Cow::Owned(format!("{tag:?} has a control character")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_java_reads_them() {
        for (expression, canonical) in [
            ("", "*"),
            ("  ", "*"),
            ("*", "*"),
            ("TagA", "TagA"),
            ("TagA||TagB", "TagA || TagB"),
            (" TagA  ||  TagB ", "TagA || TagB"),
            ("TagA || || TagB", "TagA || TagB"),
            ("TagA || TagA", "TagA"),
        ] {
            let filter = Filter::from(expression);
            assert_eq!(filter.check(), Ok(()), "{expression}");
            assert_eq!(filter.to_string(), canonical, "{expression}");
        }
    }

    #[test]
    fn a_filter_that_would_never_match_is_refused_with_the_remedy() {
        for (expression, remedy) in [
            ("||", "use `*` for all messages"),
            ("a || *", "use `*` alone"),
            ("a|b", "separate tags by `||`"),
            ("a\u{1}b", "control character"),
        ] {
            let fault = Filter::from(expression).check().unwrap_err().to_owned();
            assert!(fault.contains(remedy), "{expression}: {fault}");
        }
        assert!(Filter::tags(Vec::<String>::new()).check().is_err());
    }

    #[test]
    fn a_tag_with_the_same_hash_is_told_apart_by_its_text() {
        // Java's hash of both is 2112.
        let (wanted, other) = ("Aa", "BB");
        let filter = Filter::from(wanted);
        let subscription = filter.subscription("orders", 7);
        assert!(subscription.matches_code(i64::from(crate::protocol::java_hash(other))));
        assert!(filter.matches(Some(wanted)));
        assert!(!filter.matches(Some(other)));
        assert!(!filter.matches(None));
        assert!(Filter::all().matches(None));
        assert_eq!(subscription.sub_version, 7);
    }
}
