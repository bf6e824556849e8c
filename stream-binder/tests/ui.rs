//! Compile errors of the attributes, word by word.
//!
//! The compiler's own wording changes between versions, so the snapshots belong to one of them.
//! `TRYBUILD=overwrite cargo test -p stream-binder --test ui` renews them.

use std::{fs, process::Command};

/// The compiler that wrote the snapshots.
const TOOLCHAIN: &str = "rustc 1.95.";
/// A mistake is explained in at most this many lines.
const MOST_LINES: usize = 15;

#[test]
fn each_mistake_is_explained_where_it_was_made() {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with(TOOLCHAIN) {
        let skipped = fs::read_dir("tests/ui/fail")
            .expect("the snapshots are there")
            .count()
            / 2;
        println!(
            "skipped {skipped} compile errors: snapshots are of {TOOLCHAIN}x, this is {}",
            version.trim()
        );
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

#[test]
fn no_explanation_is_long() {
    let mut errors = 0;
    for file in fs::read_dir("tests/ui/fail").expect("the snapshots are there") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|extension| extension != "stderr") {
            continue;
        }
        let snapshot = fs::read_to_string(&path).expect("a snapshot");
        for error in snapshot.split("\n\n").filter(|error| error.starts_with("error")) {
            errors += 1;
            let lines = error.lines().count();
            assert!(
                lines <= MOST_LINES,
                "{} explains a mistake in {lines} lines:\n{error}",
                path.display()
            );
        }
    }
    assert!(errors >= 12, "only {errors} compile errors are pinned");
}
