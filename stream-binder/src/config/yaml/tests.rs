use proptest::prelude::*;

use super::*;

fn entries(text: &str) -> Vec<(String, Leaf, usize)> {
    parse(text)
        .expect(text)
        .into_iter()
        .flatten()
        .map(|entry| {
            let path: Vec<&str> = entry.path.iter().map(|segment| &*segment.text).collect();
            (path.join("/"), entry.leaf, entry.line)
        })
        .collect()
}

fn text(value: &str) -> Leaf {
    Leaf::Text(value.to_owned())
}

#[test]
fn scalars_stay_as_written() {
    let found = entries("a: no\nb: 1.10\nc: 0o7\nd: '~'\ne: ~\nf:\ng: \"x\\ty\"\n");
    let values: Vec<Leaf> = found.into_iter().map(|(_, leaf, _)| leaf).collect();
    assert_eq!(values, ["no", "1.10", "0o7", "~", "", "", "x\ty"].map(text));
}

#[test]
fn dotted_keys_are_paths_and_brackets_hold_one_name() {
    let found = entries("a.b:\n  c.d: 1\n  '[x.y]': 2\n  e[f.g].h: 3\n");
    let paths: Vec<String> = found.into_iter().map(|(path, _, _)| path).collect();
    assert_eq!(paths, ["a/b/c/d", "a/b/x.y", "a/b/e/f.g/h"]);
}

#[test]
fn every_value_knows_its_line() {
    let lines: Vec<usize> = entries("# head\na: 1\n\nb:\n  c: 2\n---\nd: 3\n")
        .into_iter()
        .map(|(_, _, line)| line)
        .collect();
    assert_eq!(lines, [2, 5, 7]);
}

#[test]
fn lists_of_scalars_are_values_and_others_are_not() {
    let found = entries("a: [1, x]\nb: [[1]]\nc: {}\nd: []\n");
    let leaves: Vec<Leaf> = found.into_iter().map(|(_, leaf, _)| leaf).collect();
    assert_eq!(
        leaves,
        [
            Leaf::List(vec!["1".to_owned(), "x".to_owned()]),
            Leaf::Nested,
            Leaf::Empty,
            Leaf::List(Vec::new())
        ]
    );
}

#[test]
fn aliases_and_merge_keys_are_followed() {
    let found = entries(
        "base: &b { x: 1, y: 2 }\none: *b\ntwo: { <<: *b, y: 3 }\nthree: { y: 4, <<: [*b, { z: 5 }] }\n",
    );
    let found: Vec<(String, Leaf)> = found.into_iter().map(|(path, leaf, _)| (path, leaf)).collect();
    let expected = [
        ("base/x", "1"),
        ("base/y", "2"),
        ("one/x", "1"),
        ("one/y", "2"),
        ("two/y", "3"),
        ("two/x", "1"),
        ("three/y", "4"),
        ("three/x", "1"),
        ("three/z", "5"),
    ];
    assert_eq!(
        found,
        expected.map(|(path, value)| (path.to_owned(), text(value)))
    );
}

#[test]
fn empty_texts_and_documents_have_no_entries() {
    for empty in ["", "\n", "# nothing\n", "---\n", "---\n---\n", "{}"] {
        assert!(
            entries(empty).iter().all(|(path, _, _)| path.is_empty()),
            "{empty:?}"
        );
    }
}

#[test]
fn what_is_not_a_tree_of_keys_is_an_error_with_its_line() {
    for (yaml, line, message) in [
        ("a: 1\nb: [", 2, "not YAML"),
        ("a: 1\n- b\n", 2, "not YAML"),
        ("a: &x [*x]", 1, "refers to the value that holds it"),
        ("a: *nowhere", 1, "not YAML"),
        ("x: 1\n? [a]\n: b", 2, "keys are texts"),
        ("- a", 1, "not a mapping"),
        ("just text", 1, "not a mapping"),
        (
            "a: 1\nb: 2\na: 3\n",
            3,
            "given twice in one mapping, first in line 1",
        ),
        ("a: { <<: text }", 1, "merges mappings"),
    ] {
        let error = parse(yaml).expect_err(yaml);
        assert!(error.message.contains(message), "{yaml:?}: {}", error.message);
        assert_eq!(error.line, line, "{yaml:?}: {}", error.message);
    }
}

#[test]
fn a_billion_laughs_are_refused() {
    let mut yaml = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..=9 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        yaml.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert!(
        parse(&yaml)
            .expect_err("a bomb")
            .message
            .contains("aliases stand for more than")
    );
}

#[test]
fn depth_size_and_number_are_bounded() {
    let deep = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    parse(&deep).expect_err("deep");
    let mut indented = String::new();
    for level in 0..200 {
        indented.push_str(&format!("{}k:\n", " ".repeat(level)));
    }
    parse(&indented).expect_err("deep");
    let wide: String = (0..MAX_NODES).map(|index| format!("k{index}: v\n")).collect();
    assert!(parse(&wide).expect_err("wide").message.contains("more than"));
    parse(&"#".repeat(MAX_BYTES + 1)).expect_err("large");
    parse(&format!("{}: 1", "a.".repeat(400))).expect_err("long");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_of_yaml_marks_makes_the_reader_panic(text in "[ab:\\-\\[\\]{}&*<>|'\"\n ,?!#%~.0]{0,80}") {
        let _ = parse(&text);
        let _ = crate::config::Config::from_yaml(&text);
    }

    #[test]
    fn what_is_written_is_read_back(values in proptest::collection::vec("[a-z0-9 ]{0,12}", 0..20)) {
        let yaml: String = values.iter().zip(0..).map(|(value, index)| format!("k{index}: '{value}'\n")).collect();
        let found: Vec<Leaf> = entries(&yaml).into_iter().filter(|(path, _, _)| !path.is_empty()).map(|(_, leaf, _)| leaf).collect();
        let expected: Vec<Leaf> = values.iter().map(|value| text(value.trim())).collect();
        prop_assert_eq!(found, expected);
    }
}
