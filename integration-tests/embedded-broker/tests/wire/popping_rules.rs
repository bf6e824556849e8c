//! Around popping: looking without taking, who is to pop what, and what is refused.

use rocketmq_client::protocol::bodies::{
    AssignmentQuery, ConsumeType, ConsumerData, HeartbeatData, MessageModel, MessageRequestMode,
    QueueAssignment, RequestMode, SubscriptionData, SubscriptionGroupConfig,
};
use rocketmq_client::protocol::requests::{
    AckMessage, BatchAckMessage, CreateGroup, CreateTopic, HeartBeat, Notification, PeekMessage, PollingInfo,
    PopMessage, PopStatus, QueryAssignment, SetMessageRequestMode,
};
use rocketmq_client::protocol::{BrokerVersion, Frame, Json, JsonBody, RequestCode, ResponseCode};
use rocketmq_embedded_broker::EmbeddedBroker;

use crate::client::{Wire, frame_of, message};
use crate::popping::{
    GROUP, TOPIC, ack, bodies, committed, create, hide, pop, received, send, start, take, waiting,
};

fn notification(poll_time: i64) -> Notification {
    Notification {
        consumer_group: GROUP.into(),
        topic: TOPIC.into(),
        queue_id: -1,
        poll_time,
        born_time: 0,
        order: None,
        attempt_id: None,
        broker_name: None,
    }
}

#[tokio::test]
async fn a_peek_takes_nothing() {
    let (_broker, mut wire) = start(1).await;
    let peek = PeekMessage {
        topic: TOPIC.into(),
        queue_id: -1,
        max_msg_nums: 2,
        consumer_group: GROUP.into(),
    };
    let frame = wire.ask(&peek).await;
    assert_eq!(ResponseCode(frame.code), ResponseCode::PULL_NOT_FOUND);
    send(&mut wire, 0, &["a", "b", "c"]).await;
    for _ in 0..2 {
        let peeked = wire.call(&peek).await.unwrap();
        assert_eq!(peeked.header.rest_num, 3);
        assert_eq!(
            (peeked.header.pop_time, peeked.header.start_offset_info.clone()),
            (0, None)
        );
        let records = rocketmq_client::protocol::Record::decode_all(peeked.messages).unwrap();
        assert_eq!(records.len(), 2);
    }
    assert_eq!(bodies(&take(&mut wire, &pop(32)).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_notification_says_whether_there_is_something_or_waits_for_it() {
    let (broker, mut wire) = start(1).await;
    assert!(!wire.call(&notification(0)).await.unwrap().has_msg);
    let mut waits = Wire::connect(&broker.name_server()).await;
    waits.send(&notification(60_000)).await;
    committed_or_none(&mut waits).await;
    send(&mut wire, 0, &["a"]).await;
    let frame = waits.next().await.unwrap();
    assert_eq!((frame.code, frame.fields.get("hasMsg")), (0, Some("true")));
    assert!(wire.call(&notification(0)).await.unwrap().has_msg);

    // What is popped in order and not done with is not there.
    let in_order = PopMessage {
        order: Some(true),
        ..pop(1)
    };
    let taken = take(&mut wire, &in_order).await;
    let of_order = Notification {
        order: Some(true),
        ..notification(0)
    };
    assert!(!wire.call(&of_order).await.unwrap().has_msg);
    wire.call(&ack(&taken[0].handle)).await.unwrap();
    assert!(!wire.call(&notification(0)).await.unwrap().has_msg);
    let nothing = wire.call(&notification(100)).await.unwrap();
    assert_eq!((nothing.has_msg, nothing.polling_full), (false, Some(false)));
}

async fn committed_or_none(wire: &mut Wire) {
    // Any answer proves that what was sent before has been seen.
    wire.ask(&notification(0)).await;
}

#[tokio::test]
async fn pops_that_wait_are_counted() {
    let (broker, mut wire) = start(1).await;
    let info = PollingInfo {
        consumer_group: GROUP.into(),
        topic: TOPIC.into(),
        queue_id: -1,
    };
    assert_eq!(wire.call(&info).await.unwrap().polling_num, 0);
    let mut waits = Wire::connect(&broker.name_server()).await;
    for _ in 0..2 {
        waits.send(&waiting(pop(1))).await;
    }
    committed(&mut waits, 0).await;
    assert_eq!(wire.call(&info).await.unwrap().polling_num, 2);
    drop(waits);
    while broker.stats().connections > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(wire.call(&info).await.unwrap().polling_num, 0);
}

#[tokio::test]
async fn there_is_an_end_to_how_many_wait() {
    let (_broker, mut wire) = start(1).await;
    for _ in 0..1025 {
        wire.send(&waiting(pop(1))).await;
    }
    let popped = wire.call(&waiting(pop(1))).await.unwrap();
    assert_eq!(popped.status, PopStatus::PollingFull);
}

#[tokio::test]
async fn each_request_that_is_not_right_gets_the_code_of_a_real_broker() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let write_only = CreateTopic {
        topic: "write-only".into(),
        default_topic: "TBW102".into(),
        read_queue_nums: 1,
        write_queue_nums: 1,
        perm: 2,
        topic_filter_type: rocketmq_client::protocol::bodies::TopicFilterType::SingleTag,
        topic_sys_flag: None,
        order: false,
        attributes: None,
    };
    wire.call(&write_only).await.unwrap();
    let stopped = SubscriptionGroupConfig {
        group_name: "stopped".into(),
        consume_enable: false,
        ..SubscriptionGroupConfig::default()
    };
    let body = stopped.to_body().unwrap();
    wire.call(&CreateGroup { body }).await.unwrap();
    let cases = [
        (
            PopMessage {
                max_msg_nums: 33,
                ..pop(1)
            },
            ResponseCode::INVALID_PARAMETER,
            "the broker[127.0.0.1] pop message's num is greater than 32",
        ),
        (
            PopMessage {
                topic: "none".into(),
                ..pop(1)
            },
            ResponseCode::TOPIC_NOT_EXIST,
            "topic[none] not exist, apply first please!",
        ),
        (
            PopMessage {
                topic: "write-only".into(),
                ..pop(1)
            },
            ResponseCode::NO_PERMISSION,
            "the topic[write-only] peeking message is forbidden",
        ),
        (
            PopMessage {
                queue_id: 1,
                ..pop(1)
            },
            ResponseCode::INVALID_PARAMETER,
            "queueId[1] is illegal, topic:[orders] topicConfig.readQueueNums:[1] consumer:[/127.0.0.1:",
        ),
        (
            PopMessage {
                consumer_group: "stopped".into(),
                ..pop(1)
            },
            ResponseCode::NO_PERMISSION,
            "subscription group no permission, stopped",
        ),
        (
            PopMessage {
                exp: Some("||".into()),
                ..pop(1)
            },
            ResponseCode::SUBSCRIPTION_PARSE_FAILED,
            "parse the consumer's subscription failed",
        ),
        (
            PopMessage {
                born_time: 1,
                ..pop(1)
            },
            ResponseCode::POLLING_TIMEOUT,
            "the broker[127.0.0.1] pop message is timeout too much",
        ),
    ];
    for (request, code, remark) in cases {
        let frame = wire.ask(&request).await;
        let said = frame.remark.clone().unwrap_or_default();
        assert_eq!(ResponseCode(frame.code), code, "{said}");
        assert!(said.starts_with(remark), "{said}");
        assert_eq!(frame.fields.get("restNum"), Some("0"), "{said}");
    }
    assert_eq!(bodies(&take(&mut wire, &pop(1)).await), ["a"]);
}

#[tokio::test]
async fn acknowledgements_that_are_not_right_get_the_code_of_a_real_broker() {
    let (_broker, mut wire) = start(1).await;
    send(&mut wire, 0, &["a"]).await;
    let taken = take(&mut wire, &pop(1)).await;
    let right = ack(&taken[0].handle);
    let cases = [
        (
            AckMessage {
                topic: "none".into(),
                ..right.clone()
            },
            ResponseCode::TOPIC_NOT_EXIST,
        ),
        (
            AckMessage {
                queue_id: 1,
                ..right.clone()
            },
            ResponseCode::MESSAGE_ILLEGAL,
        ),
        (
            AckMessage {
                queue_id: -1,
                ..right.clone()
            },
            ResponseCode::MESSAGE_ILLEGAL,
        ),
        (
            AckMessage {
                offset: 2,
                ..right.clone()
            },
            ResponseCode::NO_MESSAGE,
        ),
        (
            AckMessage {
                offset: -1,
                ..right.clone()
            },
            ResponseCode::NO_MESSAGE,
        ),
        (
            AckMessage {
                extra_info: "0 1".into(),
                ..right.clone()
            },
            ResponseCode::SYSTEM_ERROR,
        ),
        (
            AckMessage {
                extra_info: "a b c d e f".into(),
                ..right.clone()
            },
            ResponseCode::SYSTEM_ERROR,
        ),
    ];
    for (request, code) in cases {
        assert_eq!(wire.code(&request).await.0, code, "{request:?}");
    }
    let mut behind = hide(&taken[0].handle, 5);
    behind.offset = 1;
    let frame = wire.ask(&behind).await;
    assert_eq!(ResponseCode(frame.code), ResponseCode::NO_MESSAGE);
    assert_eq!(frame.fields.get("popTime"), Some("0"));
    for body in ["", r#"{"acks":[]}"#] {
        let empty = BatchAckMessage { body: body.into() };
        assert_eq!(wire.code(&empty).await.0, ResponseCode::NO_MESSAGE, "{body:?}");
    }
    let unknown = r#"{"acks":[{"b":"AQ==","c":"g","r":"7","t":"t"}]}"#;
    let unknown = BatchAckMessage { body: unknown.into() };
    assert_eq!(wire.code(&unknown).await.0, ResponseCode::SYSTEM_ERROR);
    wire.call(&right).await.unwrap();
}

#[tokio::test]
async fn a_broker_of_4_9_knows_nothing_of_it() {
    let broker = EmbeddedBroker::builder()
        .version(BrokerVersion(407))
        .start()
        .await
        .unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    let requests = [
        frame_of(&pop(1)),
        frame_of(&notification(0)),
        Frame::request(RequestCode::ACK_MESSAGE),
        Frame::request(RequestCode::BATCH_ACK_MESSAGE),
        Frame::request(RequestCode::CHANGE_MESSAGE_INVISIBLETIME),
        Frame::request(RequestCode::PEEK_MESSAGE),
        Frame::request(RequestCode::POLLING_INFO),
        Frame::request(RequestCode::QUERY_ASSIGNMENT),
        Frame::request(RequestCode::SET_MESSAGE_REQUEST_MODE),
        Frame::request(RequestCode::LITE_PULL_MESSAGE),
    ];
    for request in requests {
        let code = request.code;
        let answer = wire.ask_frame(request).await;
        assert_eq!(
            ResponseCode(answer.code),
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED
        );
        let remark = format!(" request type {code} not supported");
        assert_eq!(answer.remark.as_deref(), Some(&*remark));
    }
}

fn heartbeat(client: &str) -> HeartBeat {
    let data = HeartbeatData {
        client_id: client.into(),
        consumer_data_set: vec![ConsumerData {
            group_name: GROUP.into(),
            consume_type: ConsumeType::Pop,
            subscription_data_set: vec![SubscriptionData::by_tags(TOPIC, "*", 1)],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    HeartBeat {
        body: data.to_body().unwrap(),
    }
}

async fn set_mode(wire: &mut Wire, mode: &str, share: i32) {
    let body = MessageRequestMode {
        topic: TOPIC.into(),
        consumer_group: GROUP.into(),
        mode: mode.into(),
        pop_share_queue_num: share,
    };
    let body = body.to_body().unwrap();
    wire.call(&SetMessageRequestMode { body }).await.unwrap();
}

/// The numbers of the queues of a member, and how it gets their messages; none if the broker cannot say.
async fn assigned(wire: &mut Wire, query: AssignmentQuery) -> Option<(Vec<i32>, RequestMode)> {
    let body = query.to_body().unwrap();
    let Json(assigned) = wire.call(&QueryAssignment { body }).await.unwrap();
    let assigned = assigned.message_queue_assignments?;
    let mode = assigned
        .first()
        .map_or(RequestMode::Pull, |assigned| assigned.mode);
    let number = |assigned: &QueueAssignment| {
        assert_eq!(&*assigned.message_queue.broker_name, "broker-a");
        assert_eq!(assigned.mode, mode);
        assigned.message_queue.queue_id
    };
    let mut queues: Vec<i32> = assigned.iter().map(number).collect();
    queues.sort_unstable();
    Some((queues, mode))
}

fn query(client: &str) -> AssignmentQuery {
    AssignmentQuery {
        client_id: client.into(),
        consumer_group: GROUP.into(),
        message_model: MessageModel::Clustering,
        strategy_name: "AVG".into(),
        topic: TOPIC.into(),
    }
}

#[tokio::test]
async fn the_broker_divides_the_queues_of_a_topic() {
    use RequestMode::{Pop, Pull};
    let (broker, mut wire) = start(5).await;
    assert_eq!(
        assigned(&mut wire, query("a")).await,
        None,
        "the group has no members"
    );
    let mut members = Vec::new();
    for client in ["a", "b", "c", "d"] {
        let mut member = Wire::connect(&broker.name_server()).await;
        member.call(&heartbeat(client)).await.unwrap();
        members.push(member);
    }
    let circle = |client| AssignmentQuery {
        strategy_name: "AVG_BY_CIRCLE".into(),
        ..query(client)
    };
    assert_eq!(assigned(&mut wire, query("a")).await, Some((vec![0, 1], Pull)));
    assert_eq!(assigned(&mut wire, query("b")).await, Some((vec![2], Pull)));
    assert_eq!(assigned(&mut wire, circle("a")).await, Some((vec![0, 4], Pull)));
    assert_eq!(assigned(&mut wire, circle("d")).await, Some((vec![3], Pull)));
    assert_eq!(assigned(&mut wire, query("x")).await, Some((vec![], Pull)));
    let all = AssignmentQuery {
        message_model: MessageModel::Broadcasting,
        ..query("x")
    };
    assert_eq!(assigned(&mut wire, all).await, Some((vec![0, 1, 2, 3, 4], Pull)));
    let odd = AssignmentQuery {
        strategy_name: "CONSISTENT_HASH".into(),
        ..query("a")
    };
    assert_eq!(assigned(&mut wire, odd).await, None);
    let unknown = AssignmentQuery {
        topic: "none".into(),
        ..query("a")
    };
    assert_eq!(assigned(&mut wire, unknown).await, None);

    for (share, a, d) in [
        (-1, vec![-1], vec![-1]),
        (0, vec![-1], vec![-1]),
        (1, vec![0, 1, 2], vec![0, 1, 4]),
        (2, vec![0, 1, 2, 3], vec![0, 1, 2, 4]),
        (3, vec![-1], vec![-1]),
    ] {
        set_mode(&mut wire, "POP", share).await;
        assert_eq!(
            assigned(&mut wire, query("a")).await,
            Some((a, Pop)),
            "share {share}"
        );
        assert_eq!(
            assigned(&mut wire, query("d")).await,
            Some((d, Pop)),
            "share {share}"
        );
    }
    set_mode(&mut wire, "PULL", 0).await;
    assert_eq!(assigned(&mut wire, query("b")).await, Some((vec![2], Pull)));
}

#[tokio::test]
async fn with_fewer_queues_than_members_each_pops_one() {
    let (broker, mut wire) = start(2).await;
    let mut members = Vec::new();
    for client in ["a", "b", "c"] {
        let mut member = Wire::connect(&broker.name_server()).await;
        member.call(&heartbeat(client)).await.unwrap();
        members.push(member);
    }
    set_mode(&mut wire, "POP", 1).await;
    for (client, queue) in [("a", 0), ("b", 1), ("c", 0)] {
        let expected = Some((vec![queue], RequestMode::Pop));
        assert_eq!(assigned(&mut wire, query(client)).await, expected, "{client}");
    }
}

#[tokio::test]
async fn a_mode_is_refused_for_what_does_not_exist_and_for_retries() {
    let (_broker, mut wire) = start(1).await;
    let set = |topic: &str| {
        let body = MessageRequestMode {
            topic: topic.into(),
            consumer_group: GROUP.into(),
            mode: "POP".into(),
            pop_share_queue_num: 0,
        };
        SetMessageRequestMode {
            body: body.to_body().unwrap(),
        }
    };
    let refused = wire.code(&set("%RETRY%poppers")).await;
    let remark = "retry topic is not allowed to set mode".to_owned();
    assert_eq!(refused, (ResponseCode::NO_PERMISSION, remark));
    let refused = wire.code(&set("none")).await;
    assert_eq!(
        refused,
        (ResponseCode::TOPIC_NOT_EXIST, "topic[none] not exist".to_owned())
    );
    wire.call(&set(TOPIC)).await.unwrap();
    let all = wire
        .ask_frame(Frame::request(RequestCode::GET_ALL_MESSAGE_REQUEST_MODE))
        .await;
    let text = r#"{"messageRequestModeMap":{"orders":{"poppers":{"#;
    assert!(all.body.starts_with(text.as_bytes()), "{:?}", all.body);
    let back = wire.ask_frame(Frame::request(RequestCode::POP_ROLLBACK)).await;
    assert_eq!(back.code, 0);
}

#[tokio::test]
async fn queues_of_higher_priorities_come_first() {
    let (_broker, mut wire) = start(1).await;
    let by_priority = CreateTopic {
        topic: "urgent".into(),
        default_topic: "TBW102".into(),
        read_queue_nums: 8,
        write_queue_nums: 8,
        perm: 6,
        topic_filter_type: rocketmq_client::protocol::bodies::TopicFilterType::SingleTag,
        topic_sys_flag: None,
        order: false,
        attributes: Some("+message.type=PRIORITY".into()),
    };
    wire.call(&by_priority).await.unwrap();
    for queue_id in [3, 7, 0, 5] {
        wire.call(&message("urgent", queue_id, queue_id.to_string()))
            .await
            .unwrap();
    }
    let urgent = PopMessage {
        topic: "urgent".into(),
        ..pop(32)
    };
    assert_eq!(
        bodies(&received(wire.call(&urgent).await.unwrap())),
        ["7", "5", "3", "0"]
    );
}

#[tokio::test]
async fn a_second_server_does_not_pop_but_takes_acknowledgements() {
    let broker = EmbeddedBroker::builder().vip_channel(true).start().await.unwrap();
    let mut wire = Wire::connect(&broker.name_server()).await;
    create(&mut wire, TOPIC, 1).await;
    send(&mut wire, 0, &["a"]).await;
    let taken = take(&mut wire, &pop(1)).await;
    let address: std::net::SocketAddr = broker.broker_address().parse().unwrap();
    let second = format!("127.0.0.1:{}", address.port() - 2);
    let mut second = Wire::connect(&second).await;
    let refused = second.code(&pop(1)).await;
    assert_eq!(refused.0, ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    second.call(&ack(&taken[0].handle)).await.unwrap();
}
