use proptest::prelude::*;

use super::*;

fn with(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
    move |name| {
        pairs
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    }
}

#[test]
fn references_are_replaced_wherever_they_stand() {
    let lookup = with(&[("A", "1"), ("B", "x${A}y"), ("name-1", "n"), ("E", "")]);
    for (text, expected) in [
        ("plain", "plain"),
        ("${A}", "1"),
        ("-${A}-${B}-", "-1-x1y-"),
        ("${NO:default}", "default"),
        ("${NO:}", ""),
        ("${NO:a:b}", "a:b"),
        ("${NO:${A}}", "1"),
        ("${NO:${NEITHER:${B}}}", "x1y"),
        ("${name-${A}}", "n"),
        ("${A:unused ${NO}}", "1"),
        ("${E:default}", ""),
        ("\\${A}", "${A}"),
        ("{A} $A $", "{A} $A $"),
        ("${ A }", "1"),
    ] {
        assert_eq!(resolve(text, &lookup).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn names_that_lead_back_to_themselves_are_an_error() {
    let lookup = with(&[("A", "${B}"), ("B", "${C}"), ("C", "${A}")]);
    let error = resolve("${A}", &lookup).expect_err("a cycle");
    assert_eq!(error, "placeholder ${A} refers to itself: A -> B -> C -> A");
}

#[test]
fn what_cannot_be_resolved_is_an_error() {
    let lookup = with(&[]);
    for (text, message) in [
        ("${NO}", "placeholder ${NO} has no value"),
        ("${A", "not closed"),
        ("${A:${B}", "not closed"),
        ("${}", "without a name"),
        ("${:x}", "without a name"),
    ] {
        let error = resolve(text, &lookup).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn expansion_is_bounded() {
    // Each name stands for ten of the next, as in a billion laughs.
    let lookup = |name: &str| {
        let level: usize = name.parse().ok()?;
        Some(if level == 0 {
            "lol".to_owned()
        } else {
            format!("${{{}}}", level - 1).repeat(10)
        })
    };
    let error = resolve("${9}", &lookup).expect_err("a bomb");
    assert!(error.contains("more than 1000 placeholders"), "{error}");

    let long = |_: &str| Some("x".repeat(MAX_LENGTH));
    resolve("${A}${B}", &long).expect_err("long");

    let deep = format!("{}x{}", "${NO:".repeat(100), "}".repeat(100));
    resolve(&deep, &with(&[])).expect_err("deep");
}

proptest! {
    #[test]
    fn no_text_makes_the_resolver_panic(text in "[${}:\\\\aé]{0,40}") {
        let _ = resolve(&text, &with(&[("a", "${aa}"), ("aa", "x")]));
    }
}
