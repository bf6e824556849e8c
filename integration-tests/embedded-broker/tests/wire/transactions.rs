//! Half messages: invisible until their transaction ends, and asked about if it does not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rocketmq_client::protocol::bodies::{HeartbeatData, ProducerData};
use rocketmq_client::protocol::requests::{
    CheckTransactionState, EndTransaction, HeartBeat, MaxOffset, SendMessageV2, SendResultHeader,
};
use rocketmq_client::protocol::{
    JsonBody, OffsetMessageId, Record, Request, ResponseCode, SysFlag, property,
};
use rocketmq_embedded_broker::{Builder, EmbeddedBroker};

use crate::client::{Wire, message, properties, pull, waiting};

const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";

/// A broker that asks soon and often.
fn builder() -> Builder {
    EmbeddedBroker::builder()
        .transaction_timeout(Duration::ZERO)
        .transaction_check_interval(Duration::from_millis(20))
}

async fn patient() -> (EmbeddedBroker, Wire) {
    let broker = EmbeddedBroker::start().await.unwrap();
    let wire = Wire::connect(&broker.name_server()).await;
    (broker, wire)
}

fn half(body: &'static str, more: &[(&str, &str)]) -> SendMessageV2 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut pairs = vec![
        ("TRAN_MSG", "true"),
        ("PGROUP", "g"),
        ("UNIQ_KEY", "U"),
        ("TAGS", "a"),
    ];
    pairs.extend(more);
    SendMessageV2 {
        sys_flag: SysFlag::TRANSACTION_PREPARED | SysFlag::COMPRESSED,
        properties: Some(properties(&pairs)),
        born_timestamp: i64::try_from(now.as_millis()).unwrap(),
        flag: 7,
        ..message("t", 1, body)
    }
}

fn end(receipt: &SendResultHeader, outcome: i32) -> EndTransaction {
    EndTransaction {
        topic: Some("t".into()),
        producer_group: "g".into(),
        tran_state_table_offset: receipt.queue_offset,
        commit_log_offset: receipt.msg_id.parse::<OffsetMessageId>().unwrap().physical_offset,
        commit_or_rollback: outcome,
        from_transaction_check: None,
        msg_id: "U".into(),
        transaction_id: None,
        broker_name: None,
    }
}

async fn register(wire: &mut Wire, group: &str, client_id: &str) {
    let data = HeartbeatData {
        client_id: client_id.into(),
        producer_data_set: vec![ProducerData {
            group_name: group.into(),
        }],
        ..HeartbeatData::default()
    };
    let body = data.to_body().unwrap();
    wire.call(&HeartBeat { body }).await.unwrap();
}

/// The next question, and the half message in it.
async fn question(wire: &mut Wire) -> (CheckTransactionState, Record) {
    loop {
        let frame = wire.next().await.unwrap();
        if frame.code == CheckTransactionState::CODE.0 {
            assert!(frame.is_one_way());
            let check = CheckTransactionState::from_frame(frame).unwrap();
            let half = Record::decode(check.body.clone()).unwrap();
            return (check, half);
        }
    }
}

fn answer(check: &CheckTransactionState, outcome: i32) -> EndTransaction {
    EndTransaction {
        topic: check.topic.clone(),
        producer_group: "g".into(),
        tran_state_table_offset: check.tran_state_table_offset,
        commit_log_offset: check.commit_log_offset,
        commit_or_rollback: outcome,
        from_transaction_check: Some(true),
        msg_id: "U".into(),
        transaction_id: check.transaction_id.clone(),
        broker_name: None,
    }
}

async fn count(wire: &mut Wire, topic: &str, queue_id: i32) -> i64 {
    let max = MaxOffset {
        topic: topic.into(),
        queue_id,
    };
    wire.call(&max).await.unwrap().offset
}

#[tokio::test]
async fn a_half_message_is_seen_only_when_it_is_committed() {
    let (_broker, mut wire) = patient().await;
    let receipt = wire.call(&half("paid", &[])).await.unwrap().header;
    assert_eq!((receipt.queue_id, receipt.queue_offset), (1, 0));
    assert_eq!(receipt.transaction_id.as_deref(), Some("U"));
    assert_eq!(count(&mut wire, "t", 1).await, 0);
    let waiting_half = Record::decode(wire.call(&pull(HALF_TOPIC, 0, 0)).await.unwrap().messages).unwrap();
    assert_eq!(waiting_half.sys_flag, SysFlag(SysFlag::COMPRESSED));
    for (name, value) in [
        ("REAL_TOPIC", "t"),
        ("REAL_QID", "1"),
        ("__transactionId__", "U"),
        ("CLUSTER", "DefaultCluster"),
    ] {
        assert_eq!(waiting_half.properties.get(name), Some(value), "{name}");
    }

    wire.call(&end(&receipt, EndTransaction::COMMIT)).await.unwrap();
    let committed = Record::decode(wire.call(&pull("t", 1, 0)).await.unwrap().messages).unwrap();
    assert_eq!(
        (committed.topic.as_str(), committed.queue_id, committed.flag),
        ("t", 1, 7)
    );
    assert_eq!(
        committed.sys_flag,
        SysFlag(SysFlag::TRANSACTION_COMMIT | SysFlag::COMPRESSED)
    );
    assert_eq!(
        committed.prepared_transaction_offset,
        waiting_half.physical_offset
    );
    assert_eq!(committed.born_timestamp, waiting_half.born_timestamp);
    let destination = ["REAL_TOPIC", "REAL_QID"];
    let kept = waiting_half
        .properties
        .iter()
        .filter(|(name, _)| !destination.contains(name));
    assert!(committed.properties.iter().eq(kept), "{:?}", committed.properties);
    assert_eq!(committed.body, "paid");
}

#[tokio::test]
async fn a_rolled_back_half_message_is_never_seen_and_never_asked_about() {
    let broker = builder().start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let receipt = wire
        .call(&half("no", &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "60")]))
        .await
        .unwrap()
        .header;
    wire.call(&end(&receipt, EndTransaction::ROLLBACK)).await.unwrap();
    let open = wire.call(&half("open", &[])).await.unwrap();
    assert_eq!(open.header.queue_offset, 1);
    register(&mut wire, "g", "c").await;
    for _ in 0..3 {
        let (_, half) = question(&mut wire).await;
        assert_eq!(
            half.body, "open",
            "the one that was rolled back is not asked about"
        );
    }
    assert_eq!(count(&mut wire, "t", 1).await, 0);
}

#[tokio::test]
async fn an_end_that_is_wrong_about_its_half_message_is_refused_with_the_reason() {
    let (_broker, mut wire) = patient().await;
    wire.call(&message("t", 1, "plain")).await.unwrap();
    let receipt = wire.call(&half("x", &[])).await.unwrap().header;
    let right = end(&receipt, EndTransaction::COMMIT);
    let cases = [
        (
            EndTransaction {
                producer_group: "other".into(),
                ..right.clone()
            },
            "The producer group wrong",
        ),
        (
            EndTransaction {
                tran_state_table_offset: 5,
                ..right.clone()
            },
            "The transaction state table offset wrong",
        ),
        (
            EndTransaction {
                commit_log_offset: 0,
                ..right.clone()
            },
            "Find prepared transaction message failed",
        ),
        (
            EndTransaction {
                commit_log_offset: right.commit_log_offset + 1,
                ..right.clone()
            },
            "Find prepared transaction message failed",
        ),
    ];
    for (request, remark) in cases {
        for outcome in [EndTransaction::COMMIT, EndTransaction::ROLLBACK] {
            let request = EndTransaction {
                commit_or_rollback: outcome,
                ..request.clone()
            };
            assert_eq!(
                wire.code(&request).await,
                (ResponseCode::SYSTEM_ERROR, remark.to_owned())
            );
        }
    }
    // Who does not know is not answered: the next answer is that of the next request.
    wire.send(&end(&receipt, EndTransaction::UNKNOWN)).await;
    wire.send(&end(&receipt, 5)).await;
    let committed = wire.send(&right).await;
    assert_eq!(wire.next().await.unwrap().opaque, committed);
    assert_eq!(count(&mut wire, "t", 1).await, 2);
}

#[tokio::test]
async fn the_answer_to_a_question_names_the_place_in_the_question() {
    let broker = builder().start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    register(&mut wire, "g", "c").await;
    let receipt = wire.call(&half("paid", &[])).await.unwrap().header;
    let (first, half_message) = question(&mut wire).await;
    assert_eq!((half_message.topic.as_str(), half_message.queue_id), ("t", 1));
    assert_eq!(half_message.body, "paid");
    assert_eq!(
        half_message.properties.get(property::TRANSACTION_CHECK_TIMES),
        Some("1")
    );
    assert_eq!(first.topic.as_deref(), Some(HALF_TOPIC));
    assert_eq!(
        (first.msg_id.as_deref(), first.transaction_id.as_deref()),
        (Some("U"), Some("U"))
    );
    assert_eq!(first.broker_name.as_deref(), Some("broker-a"));
    assert!(first.tran_state_table_offset > receipt.queue_offset);
    let place: OffsetMessageId = first.offset_msg_id.as_deref().unwrap().parse().unwrap();
    assert_eq!(place.physical_offset, first.commit_log_offset);

    // No answer: the question comes again, from another place, and counts.
    let (second, half_message) = question(&mut wire).await;
    assert_eq!(
        half_message.properties.get(property::TRANSACTION_CHECK_TIMES),
        Some("2")
    );
    assert!(second.tran_state_table_offset > first.tran_state_table_offset);
    wire.call(&answer(&second, EndTransaction::COMMIT)).await.unwrap();
    assert_eq!(count(&mut wire, "t", 1).await, 1);
}

#[tokio::test]
async fn the_members_of_a_group_are_asked_in_turn_and_others_are_not() {
    let broker = builder().start().await.unwrap();
    let mut one = Wire::connect(&broker.name_server()).await;
    let mut two = Wire::connect(&broker.name_server()).await;
    let mut stranger = Wire::connect(&broker.name_server()).await;
    register(&mut one, "g", "one").await;
    register(&mut two, "g", "two").await;
    register(&mut stranger, "other", "stranger").await;
    one.call(&half("x", &[])).await.unwrap();
    let (first, _) = question(&mut one).await;
    let (second, _) = question(&mut two).await;
    assert_ne!(first.tran_state_table_offset, second.tran_state_table_offset);
    // Nothing but its own answers has come to the stranger.
    let opaque = stranger
        .send(&MaxOffset {
            topic: "t".into(),
            queue_id: 0,
        })
        .await;
    let next = stranger.next().await.unwrap();
    assert!(next.is_response() && next.opaque == opaque);
    // When one is gone the other is asked alone.
    drop(one);
    let (third, _) = question(&mut two).await;
    two.call(&answer(&third, EndTransaction::ROLLBACK)).await.unwrap();
}

#[tokio::test]
async fn a_half_message_without_an_end_is_put_away_after_so_many_questions() {
    let broker = builder().transaction_check_max(2).start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    wire.call(&half("lost", &[])).await.unwrap();
    // Nobody is there to be asked; the attempts count all the same.
    let put_away = loop {
        let pulled = wire
            .call(&waiting(
                pull("TRANS_CHECK_MAX_TIME_TOPIC", 0, 0),
                Duration::from_secs(1),
            ))
            .await;
        match pulled {
            Ok(pulled) if !pulled.messages.is_empty() => break Record::decode(pulled.messages).unwrap(),
            // The topic is made with the first message.
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(put_away.body, "lost");
    assert_eq!(
        put_away.properties.get(property::TRANSACTION_CHECK_TIMES),
        Some("2")
    );
    assert_eq!(put_away.properties.get("REAL_TOPIC"), Some("t"));
    assert_eq!(count(&mut wire, "t", 1).await, 0);
}

#[tokio::test]
async fn an_immune_half_message_is_not_asked_about_and_late_ends_wait_for_the_question() {
    let broker = builder().start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    register(&mut wire, "g", "c").await;
    let immune = |body| half(body, &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "3")]);
    let soon = wire.call(&immune("soon")).await.unwrap().header;
    let late = wire.call(&immune("late")).await.unwrap().header;
    // Both are stored anew, and the first places still end them.
    while count(&mut wire, HALF_TOPIC, 0).await < 4 {
        tokio::task::yield_now().await;
    }
    wire.call(&end(&soon, EndTransaction::COMMIT)).await.unwrap();
    let (check, asked) = question(&mut wire).await;
    assert_eq!(asked.body, "late");
    assert_eq!(
        asked.properties.get(property::TRANSACTION_PREPARED_QUEUE_OFFSET),
        Some("1")
    );
    assert_eq!(
        wire.code(&end(&late, EndTransaction::COMMIT)).await.0,
        ResponseCode::ILLEGAL_OPERATION
    );
    wire.call(&answer(&check, EndTransaction::COMMIT)).await.unwrap();
    let all = wire.call(&pull("t", 1, 0)).await.unwrap();
    let bodies: Vec<Bytes> = Record::decode_all(all.messages)
        .unwrap()
        .into_iter()
        .map(|record| record.body)
        .collect();
    assert_eq!(bodies, ["soon", "late"]);
}

#[tokio::test]
async fn questions_go_on_after_a_crash() {
    let broker = builder().start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    wire.call(&half("x", &[])).await.unwrap();
    broker.kill().await;
    broker.restart().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    register(&mut wire, "g", "c").await;
    let (check, _) = question(&mut wire).await;
    wire.call(&answer(&check, EndTransaction::COMMIT)).await.unwrap();
    assert_eq!(count(&mut wire, "t", 1).await, 1);
}
