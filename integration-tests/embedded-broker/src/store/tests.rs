use rocketmq_client::protocol::{Properties, Record, SysFlag, Text};

use super::*;

const HOST: &str = "127.0.0.1:10911";

fn record(topic: &str, queue_id: i32, body: usize) -> Record {
    Record {
        queue_id,
        flag: 0,
        queue_offset: 0,
        physical_offset: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 0,
        born_host: HOST.parse().unwrap(),
        store_timestamp: 0,
        store_host: HOST.parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: vec![1; body].into(),
        topic: Text::from(topic),
        properties: Properties::default(),
    }
}

fn put(store: &Store, topic: &str, queue_id: i32, body: usize) -> Appended {
    let record = record(topic, queue_id, body);
    store
        .append(&Arc::from(topic), record, 0, HOST.parse().unwrap())
        .unwrap()
        .0
}

fn read(store: &Store, topic: &str, queue_id: i32, offset: i64) -> Batch {
    store.read(topic, queue_id, offset, 32, &TagFilter::All, || None)
}

#[tokio::test]
async fn what_is_kept_for_messages_that_have_gone_is_bounded() {
    let limit = 4 * 1024 * 1024;
    let store = Store::new(Clock::start(), limit);
    for number in 0..44_000 {
        // Small messages, then large ones: the room for the many small ones must not stay.
        put(&store, "t", number % 3, if number < 40_000 { 1 } else { 2000 });
    }
    let inner = lock(&store.inner);
    assert!(inner.log.bytes() <= limit);
    assert_eq!(inner.evicted, 44_000 - inner.log.messages() as u64);
    let queues = &inner.topics["t"];
    let kept: usize = queues.values().map(QueueLog::len).sum();
    assert_eq!(kept, inner.log.messages());
    let room: usize = queues.values().map(QueueLog::capacity).sum();
    assert!(
        room < 8192,
        "queues keep room for {room} messages, {kept} are there"
    );
    let room = inner.log.capacity();
    assert!(
        room <= 8192,
        "the log keeps room for {room} messages, {kept} are there"
    );
}

#[tokio::test]
async fn a_deleted_topic_frees_its_bytes_at_once_and_its_entries_in_time() {
    let store = Store::new(Clock::start(), 10 * 1024 * 1024);
    put(&store, "first", 0, 10);
    for _ in 0..1000 {
        put(&store, "t", 0, 1000);
    }
    let before = store.stats().bytes;
    store.delete_topic("t");
    let after = store.stats();
    assert!(after.bytes < before - 1000 * 1000, "{before} {}", after.bytes);
    assert_eq!(read(&store, "t", 0, 0).status, BatchStatus::NoMessageInQueue);
    // A topic of the same name is a new one, whose messages do not go for the old ones.
    assert_eq!(put(&store, "t", 0, 10).queue_offset, 0);
    store.delete_topic("first");
    let stats = store.stats();
    assert_eq!((stats.messages, stats.evicted), (1, 0));
    assert_eq!(read(&store, "t", 0, 0).messages.len(), 1);
}

#[tokio::test]
async fn messages_are_found_by_their_position_in_the_log_only_at_their_start() {
    let store = Store::new(Clock::start(), 1024 * 1024);
    let first = put(&store, "t", 0, 10);
    let second = put(&store, "t", 1, 10);
    let found = store.at_physical(second.physical_offset).unwrap();
    assert_eq!(
        second.physical_offset - first.physical_offset,
        i64::try_from(found.len()).unwrap()
    );
    assert_eq!(Record::decode(found).unwrap().queue_id, 1);
    for offset in [second.physical_offset + 1, -1, i64::MAX] {
        assert!(store.at_physical(offset).is_none());
    }
}

#[tokio::test]
async fn a_query_over_more_than_one_stretch_sees_each_message_once() {
    let store = Store::new(Clock::start(), 64 * 1024 * 1024);
    for number in 0..10_000 {
        put(&store, if number % 2 == 0 { "even" } else { "odd" }, 0, 1);
    }
    let all = store.query("odd", i64::MIN..=i64::MAX, usize::MAX, usize::MAX, |_| true);
    let offsets: Vec<_> = all
        .into_iter()
        .map(|record| Record::decode(record).unwrap().queue_offset)
        .collect();
    assert_eq!(offsets, (0..5000).rev().collect::<Vec<_>>());
    let limited = store.query("odd", i64::MIN..=i64::MAX, usize::MAX, 1000, |_| true);
    assert!(!limited.is_empty() && limited.len() < 20, "{}", limited.len());
}

#[tokio::test]
async fn a_full_log_fills_its_own_chunks_again() {
    let store = Store::new(Clock::start(), 1024 * 1024);
    let mut chunks = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let appended = put(&store, "t", 0, 1000);
        let record = store.at_physical(appended.physical_offset).unwrap();
        chunks.insert(record.as_ptr() as usize / 4096);
    }
    // 20 MB have passed through; what they were written to is little more than the limit.
    assert!(chunks.len() * 4096 < 2 * 1024 * 1024, "{} pages", chunks.len());
}
