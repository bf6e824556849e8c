//! POP: what is handed out, what comes back, and when.

use std::time::Duration;

use rocketmq_client::protocol::bodies::TopicFilterType;
use rocketmq_client::protocol::bodies::{BatchAck, BatchAcks};
use rocketmq_client::protocol::requests::{
    AckMessage, BatchAckMessage, ChangeInvisibleTime, CreateTopic, DeleteTopic, InvisibleTimeChanged,
    MaxOffset, PopMessage, PopResult, PopStatus, QueryConsumerOffset, ResetOffset, init_mode,
};
use rocketmq_client::protocol::{
    JsonBody, MessageOffsets, PopQueue, PopTopic, ReceiptHandle, Record, ResponseCode, StartOffsets, property,
};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::time::{self, Instant};

use crate::client::{Wire, frame_of, message, start as start_broker, tagged};

pub(super) const TOPIC: &str = "orders";
pub(super) const GROUP: &str = "poppers";
pub(super) const RETRIES: &str = "%RETRY%poppers_orders";

/// A broker with a topic of this many queues.
pub(super) async fn start(queues: i32) -> (EmbeddedBroker, Wire) {
    let (broker, mut wire) = start_broker().await;
    create(&mut wire, TOPIC, queues).await;
    (broker, wire)
}

pub(super) async fn create(wire: &mut Wire, topic: &str, queues: i32) {
    let create = CreateTopic {
        topic: topic.into(),
        default_topic: "TBW102".into(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: 6,
        topic_filter_type: TopicFilterType::SingleTag,
        topic_sys_flag: None,
        order: false,
        attributes: None,
    };
    wire.call(&create).await.unwrap();
}

pub(super) async fn send(wire: &mut Wire, queue_id: i32, bodies: &[&str]) {
    for body in bodies {
        wire.call(&message(TOPIC, queue_id, (*body).to_owned()))
            .await
            .unwrap();
    }
}

/// A pop of any queue that does not wait and hides messages for 20 s: silent connections live for 120 s.
pub(super) fn pop(max_msg_nums: i32) -> PopMessage {
    PopMessage {
        consumer_group: GROUP.into(),
        topic: TOPIC.into(),
        queue_id: -1,
        max_msg_nums,
        invisible_time: 20_000,
        poll_time: 0,
        born_time: 0,
        init_mode: init_mode::MIN,
        exp_type: None,
        exp: None,
        order: None,
        attempt_id: None,
        broker_name: None,
    }
}

/// The same, ready to wait.
pub(super) fn waiting(pop: PopMessage) -> PopMessage {
    PopMessage {
        poll_time: 60_000,
        ..pop
    }
}

/// A popped message with its handle, made as the Java client makes it.
pub(super) struct Received {
    pub(super) record: Record,
    pub(super) handle: ReceiptHandle,
}

pub(super) fn received(popped: PopResult) -> Vec<Received> {
    let header = popped.header;
    let starts: StartOffsets = header.start_offset_info.unwrap_or_default().parse().unwrap();
    let offsets: MessageOffsets = header.msg_offset_info.unwrap_or_default().parse().unwrap();
    let records = Record::decode_all(popped.messages).unwrap();
    let with_handle = |record: Record| {
        let handle = match record.properties.get(property::POP_CK) {
            Some(handle) => handle.parse().unwrap(),
            None => {
                let queue = PopQueue {
                    topic: PopTopic::Normal,
                    queue_id: record.queue_id,
                };
                assert!(offsets.get(queue).unwrap().contains(&record.queue_offset));
                ReceiptHandle {
                    start_offset: starts.get(queue).unwrap(),
                    pop_time: header.pop_time,
                    invisible_time: header.invisible_time,
                    revive_queue_id: header.revive_qid,
                    topic: PopTopic::Normal,
                    broker_name: "broker-a".into(),
                    queue_id: record.queue_id,
                    offset: record.queue_offset,
                }
            }
        };
        Received { record, handle }
    };
    records.into_iter().map(with_handle).collect()
}

pub(super) async fn take(wire: &mut Wire, pop: &PopMessage) -> Vec<Received> {
    received(wire.call(pop).await.unwrap())
}

pub(super) fn bodies(received: &[Received]) -> Vec<String> {
    let text = |received: &Received| String::from_utf8(received.record.body.to_vec()).unwrap();
    received.iter().map(text).collect()
}

pub(super) fn ack(handle: &ReceiptHandle) -> AckMessage {
    AckMessage {
        consumer_group: GROUP.into(),
        topic: handle.topic.name(TOPIC, GROUP),
        queue_id: handle.queue_id,
        extra_info: handle.to_string(),
        offset: handle.offset,
        broker_name: None,
    }
}

pub(super) fn hide(handle: &ReceiptHandle, invisible_time: i64) -> ChangeInvisibleTime {
    let AckMessage {
        consumer_group,
        topic,
        queue_id,
        extra_info,
        offset,
        broker_name,
    } = ack(handle);
    ChangeInvisibleTime {
        consumer_group,
        topic,
        queue_id,
        extra_info,
        offset,
        invisible_time,
        broker_name,
    }
}

pub(super) fn next_handle(handle: &ReceiptHandle, changed: &InvisibleTimeChanged) -> ReceiptHandle {
    handle.changed(changed.pop_time, changed.invisible_time, changed.revive_qid)
}

pub(super) async fn committed(wire: &mut Wire, queue_id: i32) -> i64 {
    let query = QueryConsumerOffset {
        consumer_group: GROUP.into(),
        topic: TOPIC.into(),
        queue_id,
        set_zero_if_not_found: Some(false),
    };
    wire.call(&query).await.unwrap().offset
}

/// How many messages ever came back.
async fn came_back(wire: &mut Wire) -> i64 {
    let request = MaxOffset {
        topic: RETRIES.into(),
        queue_id: 0,
    };
    wire.call(&request).await.unwrap().offset
}

#[tokio::test]
async fn a_pop_tells_where_its_messages_are_and_moves_the_offset() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b", "c"]).await;
    let popped = wire.call(&pop(2)).await.unwrap();
    assert_eq!(
        (popped.status, popped.remark.as_deref()),
        (PopStatus::Found, Some("FOUND"))
    );
    let header = &popped.header;
    assert_eq!(header.start_offset_info.as_deref(), Some("0 0 0"));
    assert_eq!(header.msg_offset_info.as_deref(), Some("0 0 0,1"));
    assert_eq!(header.order_count_info, None);
    assert_eq!((header.rest_num, header.invisible_time), (1, 20_000));
    assert!((0..8).contains(&header.revive_qid));
    assert_eq!(bodies(&received(popped)), ["a", "b"]);
    assert_eq!(committed(&mut wire, 0).await, 2);

    let popped = wire.call(&pop(2)).await.unwrap();
    assert_eq!(popped.header.start_offset_info.as_deref(), Some("0 0 2"));
    assert_eq!(popped.header.msg_offset_info.as_deref(), Some("0 0 2"));
    assert_eq!(popped.header.rest_num, 0);

    let frame = wire.ask(&pop(2)).await;
    assert_eq!(ResponseCode(frame.code), ResponseCode::POLLING_TIMEOUT);
    assert_eq!(frame.remark.as_deref(), Some("NO_MESSAGE_IN_QUEUE"));
    assert_eq!(frame.fields.get("startOffsetInfo"), Some(""));
    assert_eq!(frame.fields.get("msgOffsetInfo"), Some(""));
    assert_eq!(frame.fields.get("orderCountInfo"), None);
}

#[tokio::test]
async fn all_queues_are_popped_or_just_one() {
    let (_broker, mut wire) = start(4).await;
    for queue_id in 0..4 {
        send(&mut wire, queue_id, &["x", "y"]).await;
    }
    let one = PopMessage {
        queue_id: 2,
        ..pop(32)
    };
    let popped = wire.call(&one).await.unwrap();
    assert_eq!(popped.header.msg_offset_info.as_deref(), Some("0 2 0,1"));
    let all = wire.call(&pop(32)).await.unwrap();
    let offsets: MessageOffsets = all.header.msg_offset_info.clone().unwrap().parse().unwrap();
    let mut queues: Vec<i32> = offsets.0.iter().map(|(queue, _)| queue.queue_id).collect();
    queues.sort_unstable();
    assert_eq!(queues, [0, 1, 3]);
    assert_eq!(received(all).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_acknowledged_comes_back_when_its_time_is_over() {
    let (_broker, mut wire) = start(1).await;
    wire.call(&tagged(TOPIC, 0, "a")).await.unwrap();
    let first = take(&mut wire, &pop(32)).await.remove(0);
    time::sleep(Duration::from_secs(21)).await;
    assert_eq!(came_back(&mut wire).await, 1);

    let again = take(&mut wire, &pop(32)).await.remove(0);
    let shown = |name| again.record.properties.get(name);
    assert_eq!((&*again.record.topic, &again.record.body[..]), (TOPIC, &b"a"[..]));
    assert_eq!(again.record.reconsume_times, 1);
    assert_eq!(shown(property::TAGS), Some("a"));
    assert_eq!(shown("ORIGIN_GROUP"), Some(GROUP));
    let first_pop_time = first.handle.pop_time.to_string();
    assert_eq!(shown(property::FIRST_POP_TIME), Some(&*first_pop_time));
    assert_eq!((again.handle.topic, again.handle.offset), (PopTopic::RetryV1, 0));
    // To the millisecond.
    assert_eq!(again.record.store_timestamp, first.handle.pop_time + 20_000);

    // The handle of the first delivery has no power over the second, nor has one of another broker.
    wire.call(&ack(&first.handle)).await.unwrap();
    let foreign = ReceiptHandle {
        broker_name: "broker-b".into(),
        ..again.handle.clone()
    };
    wire.call(&ack(&foreign)).await.unwrap();
    time::sleep(Duration::from_secs(21)).await;
    assert_eq!(came_back(&mut wire).await, 2);
    let third = take(&mut wire, &pop(32)).await.remove(0);
    assert_eq!(third.record.reconsume_times, 2);
    assert_eq!(
        third.record.properties.get(property::FIRST_POP_TIME),
        Some(&*first_pop_time)
    );
    wire.call(&ack(&third.handle)).await.unwrap();
    time::sleep(Duration::from_secs(100)).await;
    assert_eq!(came_back(&mut wire).await, 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_alone_or_together_does_not_come_back() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b", "c", "d", "e"]).await;
    let taken = take(&mut wire, &pop(32)).await;
    wire.call(&ack(&taken[1].handle)).await.unwrap();
    let handle = &taken[0].handle;
    let together = BatchAck {
        offsets: [0, 3].into_iter().collect(),
        consumer_group: GROUP.into(),
        invisible_time: handle.invisible_time,
        pop_time: handle.pop_time,
        queue_id: 0,
        retry: "0".into(),
        revive_queue_id: handle.revive_queue_id,
        start_offset: handle.start_offset,
        topic: TOPIC.into(),
    };
    // What was never handed out is passed over.
    let unknown = BatchAck {
        start_offset: 1,
        offsets: [0, 4000].into_iter().collect(),
        ..together.clone()
    };
    let acks = BatchAcks {
        acks: vec![unknown, together],
        broker_name: "broker-a".into(),
    };
    let body = acks.to_body().unwrap();
    wire.call(&BatchAckMessage { body }).await.unwrap();
    time::sleep(Duration::from_secs(21)).await;
    assert_eq!(bodies(&take(&mut wire, &pop(32)).await), ["c", "e"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_can_be_hidden_for_longer_or_shorter_under_a_new_handle() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b"]).await;
    let taken = take(&mut wire, &pop(32)).await;
    let longer = wire.call(&hide(&taken[0].handle, 110_000)).await.unwrap();
    assert_eq!(longer.invisible_time, 110_000);
    assert_eq!(longer.revive_qid, taken[0].handle.revive_queue_id);
    let shorter = wire.call(&hide(&taken[1].handle, 10_000)).await.unwrap();
    assert!(shorter.pop_time >= taken[1].handle.pop_time);
    time::sleep(Duration::from_millis(10_010)).await;
    let again = take(&mut wire, &pop(32)).await;
    assert_eq!(bodies(&again), ["b"]);
    wire.call(&ack(&again[0].handle)).await.unwrap();

    // The old handle is worth nothing any more, the new one ends it.
    wire.call(&ack(&taken[0].handle)).await.unwrap();
    time::sleep(Duration::from_secs(40)).await;
    assert_eq!(came_back(&mut wire).await, 1, "only the other one");
    let new = next_handle(&taken[0].handle, &longer);
    wire.call(&ack(&new)).await.unwrap();
    time::sleep(Duration::from_secs(100)).await;
    assert_eq!(came_back(&mut wire).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_put_off_comes_back_without_being_counted() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let taken = take(&mut wire, &pop(32)).await;
    let mut put_off = frame_of(&hide(&taken[0].handle, 10));
    put_off.fields.push("suspend", "true");
    assert_eq!(wire.ask_frame(put_off).await.code, 0);
    let again = take(&mut wire, &waiting(pop(32))).await;
    assert_eq!(again[0].record.reconsume_times, 0);
}

#[tokio::test]
async fn a_message_handed_out_and_changed_in_one_millisecond_is_not_lost() {
    let (_broker, mut wire) = start(1).await;
    for round in 0..20 {
        send(&mut wire, 0, &["x"]).await;
        let taken = take(&mut wire, &pop(1)).await.remove(0);
        let changed = wire.call(&hide(&taken.handle, 1)).await.unwrap();
        assert_ne!(changed.pop_time, taken.handle.pop_time, "round {round}");
        let again = take(&mut wire, &waiting(pop(1))).await.remove(0);
        wire.call(&ack(&again.handle)).await.unwrap();
    }
}

#[tokio::test]
async fn only_wanted_tags_are_handed_out_and_others_are_passed_over() {
    let (_broker, mut wire) = start(1).await;
    for tag in ["a", "b", "a"] {
        wire.call(&tagged(TOPIC, 0, tag)).await.unwrap();
    }
    let wanted = |tags: &str| PopMessage {
        exp_type: Some("TAG".into()),
        exp: Some(tags.into()),
        ..pop(32)
    };
    let popped = wire.call(&wanted("b || c")).await.unwrap();
    assert_eq!(popped.header.start_offset_info.as_deref(), Some("0 0 0"));
    assert_eq!(popped.header.msg_offset_info.as_deref(), Some("0 0 1"));
    assert_eq!(bodies(&received(popped)), ["b"]);
    assert_eq!(
        committed(&mut wire, 0).await,
        3,
        "those before and behind it are done with too"
    );

    wire.call(&tagged(TOPIC, 0, "a")).await.unwrap();
    let none = wire.call(&wanted("c")).await.unwrap();
    assert_eq!(none.status, PopStatus::NotFound);
    assert_eq!(committed(&mut wire, 0).await, 4);
}

#[tokio::test]
async fn a_reset_group_gets_messages_again_and_those_behind_it() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b", "c"]).await;
    take(&mut wire, &pop(32)).await;
    let reset = ResetOffset {
        group: GROUP.into(),
        topic: TOPIC.into(),
        timestamp: -1,
        force: true,
        queue_id: Some(0),
        offset: Some(1),
    };
    wire.call(&reset).await.unwrap();
    assert_eq!(committed(&mut wire, 0).await, 1);
    assert_eq!(bodies(&take(&mut wire, &pop(32)).await), ["b", "c"]);
    assert_eq!(committed(&mut wire, 0).await, 3);
}

#[tokio::test]
async fn a_group_that_starts_at_the_end_still_gets_what_is_in_memory() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let newest = PopMessage {
        init_mode: init_mode::MAX,
        ..pop(32)
    };
    assert_eq!(bodies(&take(&mut wire, &newest).await), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_survives_a_crash() {
    let (broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let first = take(&mut wire, &pop(32)).await.remove(0);
    broker.kill().await;
    broker.restart().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let again = take(&mut wire, &waiting(pop(32))).await.remove(0);
    assert_eq!(again.record.store_timestamp, first.handle.pop_time + 20_000);
}

#[tokio::test(start_paused = true)]
async fn of_a_topic_that_is_deleted_nothing_comes_back() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a", "b"]).await;
    take(&mut wire, &pop(1)).await;
    time::sleep(Duration::from_secs(21)).await;
    assert_eq!(came_back(&mut wire).await, 1);
    take(&mut wire, &pop(1)).await;
    let delete = DeleteTopic { topic: TOPIC.into() };
    wire.call(&delete).await.unwrap();
    assert_eq!(came_back(&mut wire).await, 0, "its retries are deleted with it");
    time::sleep(Duration::from_secs(40)).await;
    assert_eq!(came_back(&mut wire).await, 0);
}

#[tokio::test]
async fn a_pop_that_waits_gets_the_message_that_it_wants() {
    let (broker, mut wire) = start(2).await;
    let mut sender = Wire::connect(&broker.name_server()).await;
    let wanted = PopMessage {
        exp: Some("b".into()),
        ..waiting(pop(32))
    };
    wire.send(&wanted).await;
    // An answer on the same connection proves that the pop was seen.
    committed(&mut wire, 0).await;
    sender.call(&tagged(TOPIC, 0, "a")).await.unwrap();
    sender.call(&tagged(TOPIC, 1, "b")).await.unwrap();
    let frame = wire.next().await.unwrap();
    assert_eq!(
        (frame.code, frame.fields.get("msgOffsetInfo")),
        (0, Some("0 1 0"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pop_that_waits_is_answered_before_its_time_is_over() {
    let (_broker, mut wire) = start(1).await;
    let asked = Instant::now();
    let popped = wire.call(&waiting(pop(32))).await.unwrap();
    assert_eq!(popped.status, PopStatus::NotFound);
    let waited = asked.elapsed();
    assert!(
        waited >= Duration::from_millis(59_900) && waited < Duration::from_secs(60),
        "{waited:?}"
    );
}

#[tokio::test]
async fn a_message_wakes_one_of_each_group_and_what_is_left_the_next() {
    let (broker, mut wire) = start(1).await;
    let mut poppers = Vec::new();
    for group in ["one", "one", "two"] {
        let mut popper = Wire::connect(&broker.name_server()).await;
        let wait = PopMessage {
            consumer_group: group.into(),
            ..waiting(pop(1))
        };
        popper.send(&wait).await;
        committed_of(&mut popper, group).await;
        poppers.push(popper);
    }
    send(&mut wire, 0, &["a"]).await;
    assert_eq!(
        poppers[0].next().await.unwrap().code,
        0,
        "it has to be answered first"
    );
    assert_eq!(poppers[2].next().await.unwrap().code, 0);
    send(&mut wire, 0, &["b"]).await;
    assert_eq!(poppers[1].next().await.unwrap().code, 0);
}

async fn committed_of(wire: &mut Wire, group: &str) -> i64 {
    let query = QueryConsumerOffset {
        consumer_group: group.into(),
        topic: TOPIC.into(),
        queue_id: 0,
        set_zero_if_not_found: Some(true),
    };
    wire.call(&query).await.map_or(-1, |offset| offset.offset)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_wakes_who_waits() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let first = take(&mut wire, &pop(1)).await.remove(0);
    let again = take(&mut wire, &waiting(pop(1))).await.remove(0);
    assert_eq!(again.record.reconsume_times, 1);
    assert_eq!(again.handle.pop_time, first.handle.pop_time + 20_000);
}

#[tokio::test]
async fn a_connection_that_closes_leaves_the_message_to_others() {
    let (broker, mut wire) = start(1).await;
    let mut gone = Wire::connect(&broker.name_server()).await;
    gone.send(&waiting(pop(1))).await;
    committed(&mut gone, 0).await;
    let mut stays = Wire::connect(&broker.name_server()).await;
    stays.send(&waiting(pop(1))).await;
    committed(&mut stays, 0).await;
    drop(gone);
    while broker.stats().connections > 2 {
        time::sleep(Duration::from_millis(10)).await;
    }
    send(&mut wire, 0, &["a"]).await;
    assert_eq!(stays.next().await.unwrap().code, 0);
}
