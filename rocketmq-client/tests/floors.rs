//! The floors of the architecture page, kept: an import only ever points down.

use std::fs;
use std::path::{Path, PathBuf};

/// A module and what it may name of this crate besides itself.
const FLOORS: &[(&str, &[&str])] = &[
    ("docs", &[]),
    ("protocol", &[]),
    ("error", &["protocol"]),
    ("tasks", &[]),
    ("sync", &[]),
    ("message", &["protocol", "error"]),
    ("secret", &[]),
    ("memory", &[]),
    ("telemetry", &["error", "message"]),
    (
        "transport",
        &["protocol", "error", "tasks", "sync", "secret", "telemetry"],
    ),
    ("auth", &["protocol", "error", "sync", "secret", "transport"]),
    ("trace", &["protocol", "sync", "telemetry"]),
    (
        "cluster",
        &[
            "protocol",
            "error",
            "tasks",
            "sync",
            "message",
            "transport",
            "auth",
            "trace",
            "telemetry",
            "memory",
        ],
    ),
    (
        "producer",
        &[
            "protocol",
            "error",
            "tasks",
            "sync",
            "message",
            "transport",
            "cluster",
            "telemetry",
            "trace",
        ],
    ),
    (
        "admin",
        &[
            "protocol",
            "error",
            "tasks",
            "sync",
            "message",
            "transport",
            "cluster",
        ],
    ),
    (
        "consumer",
        &[
            "protocol",
            "error",
            "tasks",
            "sync",
            "message",
            "transport",
            "cluster",
            "trace",
            "telemetry",
            "memory",
        ],
    ),
];

#[test]
fn an_import_only_ever_points_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (floor, may_use) in FLOORS {
        for file in files_of(&source, floor) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                if line.starts_with("//") {
                    continue;
                }
                for used in modules_named(line).filter(|used| used != floor && !may_use.contains(used)) {
                    let file = file.strip_prefix(&source).unwrap().display();
                    wrong.push(format!(
                        "{file}:{}: `{floor}` may not use `crate::{used}`",
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let modules = lib.lines().filter_map(|line| {
        line.trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .strip_prefix("mod ")?
            .strip_suffix(';')
    });
    let without: Vec<_> = modules
        .filter(|name| !FLOORS.iter().any(|(floor, _)| floor == name))
        .collect();
    assert_eq!(without, Vec::<&str>::new(), "give these modules a line in FLOORS");
}

fn files_of(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut files = vec![source.join(format!("{module}.rs"))];
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("the sources can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.retain(|file| file.is_file());
    assert!(!files.is_empty(), "there is no module `{module}`");
    files
}

/// The lower-case names behind each `crate::` of a line; upper-case ones are re-exports of the facade.
fn modules_named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = rest.get(..end)?;
        name.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
    })
}
