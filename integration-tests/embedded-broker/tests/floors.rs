//! The broker stands on the wire protocol alone: it must not use the client that it is there to test.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

#[test]
fn only_the_protocol_floor_of_the_client_is_used() {
    let mut seen = 0;
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut seen);
    assert!(seen > 20, "only {seen} files were looked at");
}

fn check(folder: &Path, seen: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check(&path, seen);
            continue;
        }
        *seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("rocketmq_client").skip(1) {
            assert!(
                rest.starts_with("::protocol"),
                "{} uses rocketmq_client{:.40}",
                path.display(),
                rest
            );
        }
    }
}
