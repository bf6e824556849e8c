//! POP without a client: what a broker answers to each request, byte for byte, and when messages come again.

use std::net::SocketAddr;

use integration_tests::{
    Failure,
    admin::{Connection, call},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::protocol::{
    Fields, Frame, JsonBody, PopTopic, ReceiptHandle, Record, Request, RequestCode, ResponseCode,
    bodies::{AssignmentQuery, BatchAck, BatchAcks, MessageModel, MessageRequestMode},
    property,
    requests::{
        AckMessage, BatchAckMessage, ChangeInvisibleTime, Notification, PeekMessage, PollingInfo, PopMessage,
        PopResult, PopStatus, QueryAssignment, QueryConsumerOffset, ResetOffset, RouteInfo,
        SetMessageRequestMode, init_mode,
    },
};

use crate::raw::{join, send};

scenarios![
    each_request_about_popping_is_answered_alike,
    what_is_wrong_about_popping_is_refused_alike,
    pops_in_order_are_answered_alike,
    queues_are_divided_alike,
    a_popped_message_comes_again_unless_it_is_acknowledged,
    a_pop_that_waits_is_answered_when_a_message_comes,
    an_old_broker_does_not_pop,
];

fn pops(target: &Target) -> bool {
    target.kind() != Kind::Rocketmq4
}

/// A broker with a topic of its own, and the names.
struct Place {
    broker: SocketAddr,
    broker_name: String,
    topic: String,
    group: String,
}

impl Place {
    async fn new(target: &Target, stem: &str, queues: i32) -> Result<Self, Failure> {
        let (topic, group) = (target.topic(stem), target.group(stem));
        target.create_topic(&topic, queues).await?;
        let broker = target.first_broker().await?;
        let route = RouteInfo {
            topic: topic.clone(),
            accept_standard_json_only: Some(true),
        };
        let route = call(target.name_server_address().await?, &route).await?.0;
        let address = broker.to_string();
        let mut brokers = route.broker_datas.into_iter();
        let own = brokers.find(|data| data.broker_addrs.values().any(|known| *known == address));
        Ok(Self {
            broker,
            broker_name: own.ok_or("the topic has no route to its broker")?.broker_name,
            topic,
            group,
        })
    }

    async fn send(&self, queue: i32, bodies: &[&str]) -> TestResult {
        for body in bodies {
            send(self.broker, &self.topic, queue, body.as_bytes(), &[]).await?;
        }
        // A real broker stores first and lets others see it a little later.
        let wanted = i64::try_from(bodies.len())?;
        eventually("all messages", async || {
            let peek = PeekMessage {
                queue_id: queue,
                ..self.peek()
            };
            let peeked = call(self.broker, &peek).await?;
            Ok(peeked.header.rest_num >= wanted)
        })
        .await
    }

    fn pop(&self, max_msg_nums: i32) -> PopMessage {
        PopMessage {
            consumer_group: self.group.clone(),
            topic: self.topic.clone(),
            queue_id: -1,
            max_msg_nums,
            invisible_time: 60_000,
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

    fn peek(&self) -> PeekMessage {
        PeekMessage {
            topic: self.topic.clone(),
            queue_id: -1,
            max_msg_nums: 32,
            consumer_group: self.group.clone(),
        }
    }

    fn notification(&self) -> Notification {
        Notification {
            consumer_group: self.group.clone(),
            topic: self.topic.clone(),
            queue_id: -1,
            poll_time: 0,
            born_time: 0,
            order: None,
            attempt_id: None,
            broker_name: None,
        }
    }

    fn ack(&self, handle: &ReceiptHandle) -> AckMessage {
        AckMessage {
            consumer_group: self.group.clone(),
            topic: handle.topic.name(&self.topic, &self.group),
            queue_id: handle.queue_id,
            extra_info: handle.to_string(),
            offset: handle.offset,
            broker_name: None,
        }
    }

    fn hide(&self, handle: &ReceiptHandle, invisible_time: i64) -> ChangeInvisibleTime {
        let ack = self.ack(handle);
        ChangeInvisibleTime {
            consumer_group: ack.consumer_group,
            topic: ack.topic,
            queue_id: ack.queue_id,
            extra_info: ack.extra_info,
            offset: ack.offset,
            invisible_time,
            broker_name: None,
        }
    }

    async fn committed(&self, queue_id: i32, wanted: i64) -> TestResult {
        let query = QueryConsumerOffset {
            consumer_group: self.group.clone(),
            topic: self.topic.clone(),
            queue_id,
            set_zero_if_not_found: Some(false),
        };
        eventually(&format!("offset {wanted} of queue {queue_id}"), async || {
            Ok(call(self.broker, &query).await?.offset == wanted)
        })
        .await
    }
}

/// The handle of a message of queue 0 of the topic itself.
fn handle_of(place: &Place, popped: &PopResult, start_offset: i64, offset: i64) -> ReceiptHandle {
    ReceiptHandle {
        start_offset,
        pop_time: popped.header.pop_time,
        invisible_time: popped.header.invisible_time,
        revive_queue_id: popped.header.revive_qid,
        topic: PopTopic::Normal,
        broker_name: place.broker_name.as_str().into(),
        queue_id: 0,
        offset,
    }
}

/// Requests and their answers, with what differs from run to run replaced by letters.
struct Transcript<'a> {
    place: &'a Place,
    connection: Connection,
    lines: Vec<String>,
    last: Frame,
}

impl<'a> Transcript<'a> {
    async fn new(place: &'a Place) -> Result<Self, Failure> {
        Ok(Self {
            place,
            connection: Connection::open(place.broker).await?,
            lines: Vec::new(),
            last: Frame::request(RequestCode(0)),
        })
    }

    async fn ask<R: Request>(&mut self, what: &str, request: &R) -> TestResult {
        let mut frame = Frame {
            fields: Fields::from_header(request)?,
            body: request.body(),
            ..Frame::request(R::CODE)
        };
        frame.opaque = 1000 + i32::try_from(self.lines.len())?;
        let answer = self.connection.exchange(&frame).await?;
        let mut fields: Vec<String> = answer
            .fields
            .iter()
            .map(|(name, value)| match name {
                "popTime" if value != "0" => "popTime=T".to_owned(),
                "reviveQid" if (0..8).any(|queue| value == queue.to_string()) => "reviveQid=R".to_owned(),
                _ => format!("{name}={value}"),
            })
            .collect();
        fields.sort_unstable();
        let remark = answer.remark.as_deref().unwrap_or("-");
        // Real brokers add where to read more; the port of the asker is another one each time.
        let remark = remark.split("\nSee http").next().unwrap_or_default();
        let remark = remark.split(", See http").next().unwrap_or_default();
        let remark = remark
            .split_once("/127.0.0.1:")
            .map_or_else(|| remark.to_owned(), |(before, _)| format!("{before}PEER"));
        let (topic, group) = (&self.place.topic, &self.place.group);
        let line = format!(
            "{what}: {} {}; {}",
            answer.code,
            remark.trim_end(),
            fields.join(" ")
        );
        let line = line
            .replace(topic.as_str(), "TOPIC")
            .replace(group.as_str(), "GROUP");
        self.lines.push(line.trim_end().to_owned());
        self.last = answer;
        Ok(())
    }

    fn popped(&self) -> Result<PopResult, Failure> {
        use rocketmq_client::protocol::Response as _;
        Ok(PopResult::from_frame(self.last.clone())?)
    }

    fn is(self, wanted: &[&str]) -> TestResult {
        if self.lines == wanted {
            return Ok(());
        }
        let mut text = String::from("the answers differ\n");
        for at in 0..self.lines.len().max(wanted.len()) {
            let (is, want) = (
                self.lines.get(at).map_or("", String::as_str),
                wanted.get(at).copied().unwrap_or_default(),
            );
            let mark = if is == want { ' ' } else { '!' };
            text.push_str(&format!("{mark} {is}\n"));
            if is != want {
                text.push_str(&format!("  {want}\n"));
            }
        }
        Err(text.into())
    }
}

async fn each_request_about_popping_is_answered_alike(target: &Target) -> TestResult {
    if !pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "pop", 1).await?;
    let mut transcript = Transcript::new(&place).await?;
    let it = &mut transcript;
    it.ask("notification of nothing", &place.notification()).await?;
    it.ask("peek of nothing", &place.peek()).await?;
    it.ask("pop of nothing", &place.pop(2)).await?;
    place.send(0, &["a", "b", "c"]).await?;
    it.ask("notification", &place.notification()).await?;
    it.ask("peek", &place.peek()).await?;
    it.ask("pop of two", &place.pop(2)).await?;
    let popped = it.popped()?;
    let handles = [0, 1].map(|offset| handle_of(&place, &popped, 0, offset));
    place.committed(0, 2).await?;
    it.ask("pop of the rest", &place.pop(32)).await?;
    place.committed(0, 3).await?;
    it.ask("ack", &place.ack(&handles[0])).await?;
    it.ask("ack again", &place.ack(&handles[0])).await?;
    it.ask("change", &place.hide(&handles[1], 70_000)).await?;
    let batch = BatchAcks {
        acks: vec![BatchAck {
            offsets: [0, 1].into_iter().collect(),
            consumer_group: place.group.clone(),
            invisible_time: 60_000,
            pop_time: popped.header.pop_time,
            queue_id: 0,
            retry: "0".into(),
            revive_queue_id: popped.header.revive_qid,
            start_offset: 0,
            topic: place.topic.clone(),
        }],
        broker_name: place.broker_name.as_str().into(),
    };
    let batch = BatchAckMessage {
        body: batch.to_body()?,
    };
    it.ask("batch ack", &batch).await?;
    let info = PollingInfo {
        consumer_group: place.group.clone(),
        topic: place.topic.clone(),
        queue_id: -1,
    };
    it.ask("polling info", &info).await?;
    let reset = ResetOffset {
        group: place.group.clone(),
        topic: place.topic.clone(),
        timestamp: -1,
        force: true,
        queue_id: Some(0),
        offset: Some(1),
    };
    call(place.broker, &reset).await?;
    it.ask("pop after a reset", &place.pop(32)).await?;
    place.committed(0, 3).await?;
    transcript.is(&[
        "notification of nothing: 0 not set any response code; hasMsg=false pollingFull=false",
        "peek of nothing: 19 NO_MESSAGE_IN_QUEUE; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "pop of nothing: 210 NO_MESSAGE_IN_QUEUE; invisibleTime=60000 msgOffsetInfo= popTime=T restNum=0 reviveQid=R startOffsetInfo=",
        "notification: 0 not set any response code; hasMsg=true pollingFull=false",
        "peek: 0 FOUND; invisibleTime=0 popTime=0 restNum=3 reviveQid=R",
        "pop of two: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 0,1 popTime=T restNum=1 reviveQid=R startOffsetInfo=0 0 0",
        "pop of the rest: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 2 popTime=T restNum=0 reviveQid=R startOffsetInfo=0 0 2",
        "ack: 0 -;",
        "ack again: 0 -;",
        "change: 0 not set any response code; invisibleTime=70000 popTime=T reviveQid=R",
        "batch ack: 0 -;",
        "polling info: 0 not set any response code; pollingNum=0",
        "pop after a reset: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 1,2 popTime=T restNum=0 reviveQid=R startOffsetInfo=0 0 1",
    ])
}

async fn what_is_wrong_about_popping_is_refused_alike(target: &Target) -> TestResult {
    if !pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "wrong", 1).await?;
    place.send(0, &["a"]).await?;
    let mut transcript = Transcript::new(&place).await?;
    let it = &mut transcript;
    let pop = || place.pop(1);
    let none = || "no-such-topic".to_owned();
    it.ask("pop of 33", &place.pop(33)).await?;
    it.ask(
        "pop too late",
        &PopMessage {
            born_time: 1,
            ..pop()
        },
    )
    .await?;
    it.ask(
        "pop of no topic",
        &PopMessage {
            topic: none(),
            ..pop()
        },
    )
    .await?;
    it.ask("pop of no queue", &PopMessage { queue_id: 1, ..pop() })
        .await?;
    it.ask(
        "pop of nothing wanted",
        &PopMessage {
            exp: Some("||".into()),
            ..pop()
        },
    )
    .await?;
    it.ask(
        "pop of no messages",
        &PopMessage {
            max_msg_nums: 0,
            ..pop()
        },
    )
    .await?;
    it.ask(
        "peek of no topic",
        &PeekMessage {
            topic: none(),
            ..place.peek()
        },
    )
    .await?;
    it.ask(
        "notification of no topic",
        &Notification {
            topic: none(),
            ..place.notification()
        },
    )
    .await?;
    it.ask(
        "notification of no queue",
        &Notification {
            queue_id: 1,
            ..place.notification()
        },
    )
    .await?;
    let info = PollingInfo {
        consumer_group: place.group.clone(),
        topic: none(),
        queue_id: -1,
    };
    it.ask("polling info of no topic", &info).await?;
    it.ask("pop", &pop()).await?;
    let handle = handle_of(&place, &it.popped()?, 0, 0);
    let ack = || place.ack(&handle);
    it.ask(
        "ack of no topic",
        &AckMessage {
            topic: none(),
            ..ack()
        },
    )
    .await?;
    it.ask("ack of no queue", &AckMessage { queue_id: 1, ..ack() })
        .await?;
    it.ask("ack behind the end", &AckMessage { offset: 2, ..ack() })
        .await?;
    it.ask("ack at the end", &AckMessage { offset: 1, ..ack() })
        .await?;
    let hide = || place.hide(&handle, 1000);
    it.ask(
        "change of no topic",
        &ChangeInvisibleTime {
            topic: none(),
            ..hide()
        },
    )
    .await?;
    it.ask(
        "change of no queue",
        &ChangeInvisibleTime {
            queue_id: -1,
            ..hide()
        },
    )
    .await?;
    it.ask("change at the end", &ChangeInvisibleTime { offset: 1, ..hide() })
        .await?;
    let empty = |body: &str| BatchAckMessage {
        body: body.to_owned().into(),
    };
    it.ask("batch ack of nothing", &empty("")).await?;
    it.ask("batch ack of no acks", &empty(r#"{"acks":[]}"#)).await?;
    let mode = |topic: String| {
        let body = MessageRequestMode {
            topic,
            consumer_group: place.group.clone(),
            mode: "POP".into(),
            pop_share_queue_num: 0,
        };
        body.to_body().map(|body| SetMessageRequestMode { body })
    };
    it.ask("mode of no topic", &mode(none())?).await?;
    it.ask("mode of retries", &mode(format!("%RETRY%{}", place.group))?)
        .await?;
    it.ask("mode", &mode(place.topic.clone())?).await?;
    transcript.is(&[
        "pop of 33: 29 the broker[127.0.0.1] pop message's num is greater than 32; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "pop too late: 210 the broker[127.0.0.1] pop message is timeout too much; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "pop of no topic: 17 topic[no-such-topic] not exist, apply first please!; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "pop of no queue: 29 queueId[1] is illegal, topic:[TOPIC] topicConfig.readQueueNums:[1] consumer:[PEER; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "pop of nothing wanted: 23 parse the consumer's subscription failed; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "pop of no messages: 210 NO_MESSAGE_IN_QUEUE; invisibleTime=60000 msgOffsetInfo= popTime=T restNum=1 reviveQid=R startOffsetInfo=",
        "peek of no topic: 17 topic[no-such-topic] not exist, apply first please!; invisibleTime=0 popTime=0 restNum=0 reviveQid=R",
        "notification of no topic: 17 topic[no-such-topic] not exist, apply first please!; hasMsg=false pollingFull=false",
        "notification of no queue: 29 queueId[1] is illegal, topic:[TOPIC] topicConfig.readQueueNums:[1] consumer:[PEER; hasMsg=false pollingFull=false",
        "polling info of no topic: 17 topic[no-such-topic] not exist, apply first please!; pollingNum=0",
        "pop: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 0 popTime=T restNum=0 reviveQid=R startOffsetInfo=0 0 0",
        "ack of no topic: 17 topic[no-such-topic] not exist, apply first please!;",
        "ack of no queue: 13 queueId[1] is illegal, topic:[TOPIC] topicConfig.readQueueNums:[1] consumer:[PEER;",
        "ack behind the end: 208 offset is illegal, key:TOPIC@0, commit:2, store:0~1;",
        "ack at the end: 0 -;",
        "change of no topic: 17 topic[no-such-topic] not exist, apply first please!; invisibleTime=0 popTime=0 reviveQid=R",
        "change of no queue: 13 queueId[-1] is illegal, topic:[TOPIC] topicConfig.readQueueNums:[1] consumer:[PEER; invisibleTime=0 popTime=0 reviveQid=R",
        "change at the end: 208 not set any response code; invisibleTime=0 popTime=0 reviveQid=R",
        "batch ack of nothing: 208 -;",
        "batch ack of no acks: 208 -;",
        "mode of no topic: 17 topic[no-such-topic] not exist;",
        "mode of retries: 16 retry topic is not allowed to set mode;",
        "mode: 0 -;",
    ])
}

async fn pops_in_order_are_answered_alike(target: &Target) -> TestResult {
    if !pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "order", 1).await?;
    place.send(0, &["a", "b", "c", "d"]).await?;
    let mut transcript = Transcript::new(&place).await?;
    let it = &mut transcript;
    let attempt = |max, attempt: &str| PopMessage {
        order: Some(true),
        attempt_id: Some(attempt.to_owned()),
        ..place.pop(max)
    };
    it.ask("pop", &attempt(2, "1")).await?;
    it.ask("the same try", &attempt(2, "1")).await?;
    let popped = it.popped()?;
    it.ask("another try", &attempt(2, "2")).await?;
    let of_order = Notification {
        order: Some(true),
        ..place.notification()
    };
    it.ask("notification", &of_order).await?;
    let handles = [0, 1, 2].map(|offset| handle_of(&place, &popped, 0, offset));
    it.ask("ack of what was not popped", &place.ack(&handles[2]))
        .await?;
    it.ask("ack of the second", &place.ack(&handles[1])).await?;
    place.committed(0, 0).await?;
    it.ask("ack of the first", &place.ack(&handles[0])).await?;
    place.committed(0, 2).await?;
    it.ask("ack again", &place.ack(&handles[0])).await?;
    it.ask("change of what is done", &place.hide(&handles[0], 1000))
        .await?;
    it.ask("pop of the next", &attempt(2, "3")).await?;
    let popped = it.popped()?;
    let handles = [2, 3].map(|offset| handle_of(&place, &popped, 2, offset));
    it.ask("ack", &place.ack(&handles[0])).await?;
    place.committed(0, 3).await?;
    let hide = place.hide(&handles[1], 1);
    call(place.broker, &hide).await?;
    eventually("the message that is not hidden any more", async || {
        let notified = call(place.broker, &of_order).await?;
        Ok(notified.has_msg)
    })
    .await?;
    it.ask("pop again", &attempt(2, "4")).await?;
    transcript.is(&[
        "pop: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 0,1 orderCountInfo=0 0 0 popTime=T restNum=2 reviveQid=999 startOffsetInfo=0 0 0",
        "the same try: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 0,1 orderCountInfo=0 0 0 popTime=T restNum=2 reviveQid=999 startOffsetInfo=0 0 0",
        "another try: 210 NO_MESSAGE_IN_QUEUE; invisibleTime=60000 msgOffsetInfo= orderCountInfo= popTime=T restNum=0 reviveQid=999 startOffsetInfo=",
        "notification: 0 not set any response code; hasMsg=false pollingFull=false",
        "ack of what was not popped: 13 offset is illegal, key:TOPIC@TOPIC@0, old:0, commit:2, next:-1, PEER;",
        "ack of the second: 0 -;",
        "ack of the first: 0 -;",
        "ack again: 0 -;",
        "change of what is done: 0 not set any response code; invisibleTime=0 popTime=0 reviveQid=R",
        "pop of the next: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 2,3 orderCountInfo=0 0 0 popTime=T restNum=0 reviveQid=999 startOffsetInfo=0 0 2",
        "ack: 0 -;",
        "pop again: 0 FOUND; invisibleTime=60000 msgOffsetInfo=0 0 3 orderCountInfo=0 qo0%3 1;0 0 1 popTime=T restNum=0 reviveQid=999 startOffsetInfo=0 0 3",
    ])
}

async fn queues_are_divided_alike(target: &Target) -> TestResult {
    if !pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "divide", 5).await?;
    let mut members = Vec::new();
    for client in ["a", "b", "c", "d"] {
        members.push(join(place.broker, client, &place.group, &place.topic).await?);
    }
    let mut lines = Vec::new();
    for (mode, share) in [
        ("PULL", 0),
        ("POP", -1),
        ("POP", 0),
        ("POP", 1),
        ("POP", 2),
        ("POP", 3),
    ] {
        let body = MessageRequestMode {
            topic: place.topic.clone(),
            consumer_group: place.group.clone(),
            mode: mode.to_owned(),
            pop_share_queue_num: share,
        };
        let set = SetMessageRequestMode {
            body: body.to_body()?,
        };
        call(place.broker, &set).await?;
        for strategy in ["AVG", "AVG_BY_CIRCLE", "CONSISTENT_HASH"] {
            for client in ["a", "d", "x"] {
                let query = AssignmentQuery {
                    client_id: client.to_owned(),
                    consumer_group: place.group.clone(),
                    message_model: MessageModel::Clustering,
                    strategy_name: strategy.to_owned(),
                    topic: place.topic.clone(),
                };
                let body = query.to_body()?;
                let assigned = call(place.broker, &QueryAssignment { body }).await?.0;
                let queues = assigned.message_queue_assignments.map(|assigned| {
                    let mut queues: Vec<String> = assigned
                        .iter()
                        .map(|assigned| format!("{:?} {}", assigned.mode, assigned.message_queue.queue_id))
                        .collect();
                    queues.sort_unstable();
                    queues.join(", ")
                });
                let queues = queues.unwrap_or_else(|| "unknown".to_owned());
                let line = format!("{mode} {share} {strategy} {client}: {queues}");
                lines.push(line.trim_end().to_owned());
            }
        }
    }
    let wanted: &[&str] = &[
        "PULL 0 AVG a: Pull 0, Pull 1",
        "PULL 0 AVG d: Pull 4",
        "PULL 0 AVG x:",
        "PULL 0 AVG_BY_CIRCLE a: Pull 0, Pull 4",
        "PULL 0 AVG_BY_CIRCLE d: Pull 3",
        "PULL 0 AVG_BY_CIRCLE x:",
        "PULL 0 CONSISTENT_HASH a: unknown",
        "PULL 0 CONSISTENT_HASH d: unknown",
        "PULL 0 CONSISTENT_HASH x: unknown",
        "POP -1 AVG a: Pop -1",
        "POP -1 AVG d: Pop -1",
        "POP -1 AVG x: Pop -1",
        "POP -1 AVG_BY_CIRCLE a: Pop -1",
        "POP -1 AVG_BY_CIRCLE d: Pop -1",
        "POP -1 AVG_BY_CIRCLE x: Pop -1",
        "POP -1 CONSISTENT_HASH a: unknown",
        "POP -1 CONSISTENT_HASH d: unknown",
        "POP -1 CONSISTENT_HASH x: unknown",
        "POP 0 AVG a: Pop -1",
        "POP 0 AVG d: Pop -1",
        "POP 0 AVG x: Pop -1",
        "POP 0 AVG_BY_CIRCLE a: Pop -1",
        "POP 0 AVG_BY_CIRCLE d: Pop -1",
        "POP 0 AVG_BY_CIRCLE x: Pop -1",
        "POP 0 CONSISTENT_HASH a: unknown",
        "POP 0 CONSISTENT_HASH d: unknown",
        "POP 0 CONSISTENT_HASH x: unknown",
        "POP 1 AVG a: Pop 0, Pop 1, Pop 2",
        "POP 1 AVG d: Pop 0, Pop 1, Pop 4",
        "POP 1 AVG x:",
        "POP 1 AVG_BY_CIRCLE a: Pop 0, Pop 1, Pop 4",
        "POP 1 AVG_BY_CIRCLE d: Pop 0, Pop 3, Pop 4",
        "POP 1 AVG_BY_CIRCLE x:",
        "POP 1 CONSISTENT_HASH a: unknown",
        "POP 1 CONSISTENT_HASH d: unknown",
        "POP 1 CONSISTENT_HASH x: unknown",
        "POP 2 AVG a: Pop 0, Pop 1, Pop 2, Pop 3",
        "POP 2 AVG d: Pop 0, Pop 1, Pop 2, Pop 4",
        "POP 2 AVG x:",
        "POP 2 AVG_BY_CIRCLE a: Pop 0, Pop 1, Pop 2, Pop 4",
        "POP 2 AVG_BY_CIRCLE d: Pop 0, Pop 1, Pop 3, Pop 4",
        "POP 2 AVG_BY_CIRCLE x:",
        "POP 2 CONSISTENT_HASH a: unknown",
        "POP 2 CONSISTENT_HASH d: unknown",
        "POP 2 CONSISTENT_HASH x: unknown",
        "POP 3 AVG a: Pop -1",
        "POP 3 AVG d: Pop -1",
        "POP 3 AVG x: Pop -1",
        "POP 3 AVG_BY_CIRCLE a: Pop -1",
        "POP 3 AVG_BY_CIRCLE d: Pop -1",
        "POP 3 AVG_BY_CIRCLE x: Pop -1",
        "POP 3 CONSISTENT_HASH a: unknown",
        "POP 3 CONSISTENT_HASH d: unknown",
        "POP 3 CONSISTENT_HASH x: unknown",
    ];
    match lines == wanted {
        true => Ok(()),
        false => Err(lines.join("\n").into()),
    }
}

async fn a_popped_message_comes_again_unless_it_is_acknowledged(target: &Target) -> TestResult {
    if !pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "again", 1).await?;
    let mine = [(property::TAGS, "t"), (property::UNIQUE_KEY, "U"), ("mine", "x")];
    send(place.broker, &place.topic, 0, b"kept", &mine).await?;
    send(place.broker, &place.topic, 0, b"done", &mine).await?;
    let pop = PopMessage {
        invisible_time: 1000,
        ..place.pop(1)
    };
    let mut first = None;
    for _ in 0..2 {
        eventually("both messages", async || {
            let popped = call(place.broker, &pop).await?;
            if popped.status != PopStatus::Found {
                return Ok(false);
            }
            let record = Record::decode(popped.messages.clone())?;
            let offset = record.queue_offset;
            let handle = handle_of(&place, &popped, offset, offset);
            if record.body == "done" {
                call(place.broker, &place.ack(&handle)).await?;
            } else {
                first = Some(handle);
            }
            Ok(true)
        })
        .await?;
    }
    let first = first.ok_or("the first message was not popped")?;
    for time in 1..=2 {
        let hidden = PopMessage {
            invisible_time: if time == 1 { 1000 } else { 60_000 },
            ..place.pop(32)
        };
        let mut again = None;
        eventually("the message that nobody has acknowledged", async || {
            let popped = call(place.broker, &hidden).await?;
            let header = popped.header.clone();
            let found = Record::decode_all(popped.messages)?;
            if let [record] = found.as_slice() {
                again = Some((record.clone(), header));
            }
            Ok(again.is_some())
        })
        .await?;
        let (record, header) = again.ok_or("no message")?;
        let shown = |name| record.properties.get(name);
        let handle: ReceiptHandle = shown(property::POP_CK).ok_or("no POP_CK")?.parse()?;
        let facts = (
            &record.body[..],
            &*record.topic,
            record.queue_id,
            record.reconsume_times,
            (shown(property::TAGS), shown(property::UNIQUE_KEY), shown("mine")),
            (shown("ORIGIN_GROUP"), shown(property::FIRST_POP_TIME)),
            record.queue_offset,
            header.msg_offset_info.as_deref(),
        );
        let offset = i64::from(time) - 1;
        let wanted = (
            &b"kept"[..],
            &*place.topic,
            0,
            time,
            (Some("t"), Some("U"), Some("x")),
            (Some(&*place.group), Some(&*first.pop_time.to_string())),
            offset,
            Some(&*format!("1 0 {offset}")),
        );
        if facts != wanted {
            return Err(format!("{facts:?}, not {wanted:?}").into());
        }
        let expected = ReceiptHandle {
            start_offset: offset,
            pop_time: header.pop_time,
            invisible_time: header.invisible_time,
            revive_queue_id: header.revive_qid,
            topic: PopTopic::RetryV1,
            broker_name: place.broker_name.as_str().into(),
            queue_id: 0,
            offset,
        };
        if handle != expected {
            return Err(format!("POP_CK is {handle}, not {expected}").into());
        }
        if time == 2 {
            call(place.broker, &place.ack(&handle)).await?;
        }
    }
    Ok(())
}

async fn a_pop_that_waits_is_answered_when_a_message_comes(target: &Target) -> TestResult {
    if !pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "waits", 2).await?;
    let info = PollingInfo {
        consumer_group: place.group.clone(),
        topic: place.topic.clone(),
        queue_id: -1,
    };
    let waits = PopMessage {
        poll_time: 9_000,
        ..place.pop(32)
    };
    let mut connection = Connection::open(place.broker).await?;
    let popped = connection.call(&waits);
    let sent = async {
        eventually("the pop that waits", async || {
            Ok(call(place.broker, &info).await?.polling_num == 1)
        })
        .await?;
        send(place.broker, &place.topic, 1, b"x", &[]).await.map(drop)
    };
    let (popped, sent) = tokio::join!(popped, sent);
    sent?;
    let popped = popped?;
    match popped.header.msg_offset_info.as_deref() {
        Some("0 1 0") if popped.status == PopStatus::Found => Ok(()),
        // On a machine that is busy its time may be over first.
        _ if popped.status == PopStatus::NotFound => Ok(()),
        _ => Err(format!("{popped:?}").into()),
    }
}

async fn an_old_broker_does_not_pop(target: &Target) -> TestResult {
    if pops(target) {
        return Ok(());
    }
    let place = Place::new(target, "old", 1).await?;
    let mut connection = Connection::open(place.broker).await?;
    for code in [
        RequestCode::POP_MESSAGE,
        RequestCode::ACK_MESSAGE,
        RequestCode::BATCH_ACK_MESSAGE,
        RequestCode::CHANGE_MESSAGE_INVISIBLETIME,
        RequestCode::NOTIFICATION,
        RequestCode::PEEK_MESSAGE,
        RequestCode::POLLING_INFO,
        RequestCode::QUERY_ASSIGNMENT,
        RequestCode::SET_MESSAGE_REQUEST_MODE,
        RequestCode::LITE_PULL_MESSAGE,
    ] {
        let answer = connection.exchange(&Frame::request(code)).await?;
        let remark = format!(" request type {} not supported", code.0);
        if ResponseCode(answer.code) != ResponseCode::REQUEST_CODE_NOT_SUPPORTED
            || answer.remark.as_deref() != Some(&*remark)
        {
            return Err(format!("{code}: {} {:?}", answer.code, answer.remark).into());
        }
    }
    Ok(())
}
