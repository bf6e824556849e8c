//! The table in memory and its way to the disk.

use std::fs;

use tokio::runtime::Handle;

use super::*;
use crate::ErrorKind;

fn queue(id: i32) -> MessageQueue {
    MessageQueue::new("orders", "broker-a", id)
}

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("local-{}", uuid::Uuid::new_v4()))
}

async fn open(directory: &Path) -> Result<LocalOffsets> {
    let tasks = Tasks::new(Handle::current());
    LocalOffsets::open(directory.join("offsets.json"), 3, tasks).await
}

#[tokio::test]
async fn what_was_stored_is_there_at_the_next_start() {
    let directory = directory();
    let local = open(&directory).await.unwrap();
    assert_eq!(local.offset(&queue(0)), None);
    assert!(!local.knows("orders"));
    assert!(!local.store().await.unwrap(), "there is nothing to write");
    local.note([(queue(0), 7), (queue(1), 0)]);
    assert!(local.store().await.unwrap());
    local.note([(queue(0), 7)]);
    assert!(!local.store().await.unwrap(), "nothing is new");
    // An operator moved the group back.
    local.note([(queue(0), 3)]);
    assert!(local.store().await.unwrap());
    drop(local);
    let local = open(&directory).await.unwrap();
    assert_eq!(local.offset(&queue(0)), Some(3));
    assert_eq!(local.offset(&queue(1)), Some(0));
    assert!(local.knows("orders") && !local.knows("order"));
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_failed_write_is_made_up_for_by_the_next() {
    let directory = directory();
    let local = open(&directory).await.unwrap();
    let obstacle = directory.join("offsets.json.tmp");
    fs::create_dir_all(obstacle.join("full")).unwrap();
    local.note([(queue(0), 7)]);
    for in_a_row in 1..=3 {
        assert_eq!(local.store().await.unwrap_err().in_a_row, in_a_row);
        assert!(local.is_behind());
    }
    fs::remove_dir_all(obstacle).unwrap();
    assert!(local.store().await.unwrap());
    assert!(!local.is_behind());
    drop(local);
    let local = open(&directory).await.unwrap();
    assert_eq!(local.offset(&queue(0)), Some(7));
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_second_consumer_waits_for_the_first_to_end_and_then_gives_up() {
    let directory = directory();
    let first = open(&directory).await.unwrap();
    let error = open(&directory).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("identity"), "{error}");
    first.close();
    let second = open(&directory).await.unwrap();
    first.note([(queue(0), 1)]);
    assert!(!first.store().await.unwrap(), "it is closed");
    drop(second);
    fs::remove_dir_all(directory).unwrap();
}
