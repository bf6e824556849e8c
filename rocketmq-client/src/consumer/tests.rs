//! The consumer against a scripted broker: what it does when things go wrong.

mod batches;
mod broadcasting;
mod leasing;
mod resubscribing;
mod retrying;
mod starting;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::cluster::Client;
use crate::cluster::testing::{self, FakeRoutes, name_server_and_broker, route};
use crate::message::MessageView;
use crate::protocol::bodies::{
    ConsumeDirectlyResult, ConsumerList, KvTable, MessageQueue, OffsetTable, QueueMap,
};
use crate::protocol::requests::{
    ConsumeMessageDirectly, ConsumerListByGroup, ConsumerSendMsgBack, HeartBeat, MaxOffset,
    NotifyConsumerIdsChanged, Offset, PullMessage, PullResult, PullResultHeader, PullStatus,
    QueryConsumerOffset, ResetConsumerClientOffset, SendMessageV2, SendResult, SendResultHeader,
    UpdateConsumerOffset,
};
use crate::protocol::{
    Done, Fields, Frame, Json, JsonBody, Properties, Record, Request, RequestCode, ResponseCode, SysFlag,
    Text,
};
use crate::sync::lock;
use crate::transport::fake::{Answer, FakeServer};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const LONG: Duration = Duration::from_secs(30);

/// What the broker answers: the next scripted answer of a request, else what a healthy broker would.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: HashMap<i32, VecDeque<Answer>>,
    /// Refused as often as they are asked.
    refused: HashMap<i32, ResponseCode>,
    /// The only queue that has messages is number 0.
    log: Vec<Record>,
    members: Vec<String>,
    /// What the group has committed, by queue; without it, 0 of each, which a member that asks before it joins does
    /// not hear of.
    committed: Option<HashMap<i32, i64>>,
}

impl Script {
    fn then<R: Request>(&self, answer: Answer) {
        lock(&self.0).next.entry(R::CODE.0).or_default().push_back(answer);
    }

    fn refuse<R: Request>(&self, code: ResponseCode) {
        lock(&self.0).refused.insert(R::CODE.0, code);
    }

    fn accept<R: Request>(&self) {
        lock(&self.0).refused.remove(&R::CODE.0);
    }

    fn store(&self, bodies: &[&'static str]) {
        let mut state = lock(&self.0);
        for body in bodies {
            let offset = i64::try_from(state.log.len()).unwrap();
            state.log.push(record(offset, body));
        }
    }

    fn answer(&self, frame: &Frame) -> Answer {
        let mut state = lock(&self.0);
        if frame.is_response() {
            return Answer::Silence;
        }
        if let Some(answer) = state.first_look(frame) {
            return answer;
        }
        if let Some(answer) = state.next.get_mut(&frame.code).and_then(VecDeque::pop_front) {
            return answer;
        }
        if let Some(code) = state.refused.get(&frame.code) {
            return Answer::code(*code);
        }
        match RequestCode(frame.code) {
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => Answer::with(Json(ConsumerList {
                consumer_id_list: state.members.clone(),
            })),
            RequestCode::QUERY_CONSUMER_OFFSET => {
                let query = QueryConsumerOffset::from_frame(frame.clone()).unwrap();
                state.committed(query.queue_id)
            }
            RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => Answer::with(Offset { offset: 1000 }),
            RequestCode::GET_BROKER_RUNTIME_INFO => Answer::with(Json(KvTable {
                table: [("bootTimestamp".to_owned(), "1234".to_owned())].into(),
            })),
            RequestCode::GET_MAX_OFFSET => Answer::with(Offset { offset: 1000 }),
            RequestCode::PULL_MESSAGE => state.pull(&PullMessage::from_frame(frame.clone()).unwrap()),
            RequestCode::CONSUMER_SEND_MSG_BACK | RequestCode::UPDATE_CONSUMER_OFFSET => Answer::with(Done),
            RequestCode::SEND_MESSAGE_V2 => Answer::with(SendResult {
                code: ResponseCode::SUCCESS,
                header: SendResultHeader::default(),
            }),
            code => panic!("nobody said what to answer to {code}"),
        }
    }
}

impl State {
    /// The answer to a member that looks what the group has consumed, before it joins.
    fn first_look(&self, frame: &Frame) -> Option<Answer> {
        if frame.code != QueryConsumerOffset::CODE.0 {
            return None;
        }
        let query = QueryConsumerOffset::from_frame(frame.clone()).unwrap();
        let looks = query.set_zero_if_not_found == Some(false);
        looks.then(|| match self.committed {
            Some(_) => self.committed(query.queue_id),
            None => Answer::code(ResponseCode::QUERY_NOT_FOUND),
        })
    }

    fn committed(&self, queue: i32) -> Answer {
        let Some(committed) = &self.committed else {
            return Answer::with(Offset { offset: 0 });
        };
        match committed.get(&queue) {
            Some(&offset) => Answer::with(Offset { offset }),
            None => Answer::code(ResponseCode::QUERY_NOT_FOUND),
        }
    }

    fn pull(&self, request: &PullMessage) -> Answer {
        let from = usize::try_from(request.queue_offset).unwrap();
        match self.log.get(from..) {
            Some(records) if !records.is_empty() && request.queue_id == 0 && request.topic == TOPIC => {
                found(records)
            }
            // A long poll that lasts longer than the test.
            _ => Answer::Silence,
        }
    }
}

fn record(queue_offset: i64, body: &'static str) -> Record {
    Record {
        queue_id: 0,
        flag: 0,
        queue_offset,
        physical_offset: queue_offset * 1000 + 7,
        sys_flag: SysFlag::default(),
        born_timestamp: 0,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_timestamp: 0,
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(body.as_bytes()),
        topic: Text::from_static(TOPIC),
        properties: Properties::default(),
    }
}

fn encoded(records: &[Record]) -> BytesMut {
    let mut out = BytesMut::new();
    for record in records {
        record.encode(&mut out).unwrap();
    }
    out
}

fn found(records: &[Record]) -> Answer {
    pull_result(
        PullStatus::Found,
        records.last().unwrap().queue_offset + 1,
        encoded(records).freeze(),
    )
}

fn pull_result(status: PullStatus, next_begin_offset: i64, messages: Bytes) -> Answer {
    Answer::with(PullResult {
        status,
        header: PullResultHeader {
            next_begin_offset,
            ..PullResultHeader::default()
        },
        messages,
        remark: None,
    })
}

struct Stage {
    broker: FakeServer,
    routes: FakeRoutes,
    script: Script,
    client: Client,
}

impl Stage {
    async fn new() -> Self {
        let (routes, script) = (FakeRoutes::default(), Script::default());
        let answers = script.clone();
        let broker = name_server_and_broker(&routes, move |frame| answers.answer(frame)).await;
        routes.set(TOPIC, route(&[("broker-a", &broker.address())], 1));
        let client = testing::client(&broker.address()).await;
        lock(&script.0).members = vec![client.client_id().to_owned()];
        Self {
            broker,
            routes,
            script,
            client,
        }
    }

    fn builder(&self) -> PushConsumerBuilder {
        let mut builder = self
            .client
            .push_consumer(GROUP)
            .subscribe(TOPIC, "*")
            .commit_interval(Duration::from_millis(20));
        builder.options.requeue_delay = Duration::from_millis(20);
        builder
    }

    fn pulls(&self) -> Vec<i64> {
        let pulls = self.broker.requests_of::<PullMessage>();
        pulls.iter().map(|pull| pull.queue_offset).collect()
    }

    /// How often the offset of a queue was asked for, to start there.
    fn offset_queries(&self) -> usize {
        let queries = self.broker.requests_of::<QueryConsumerOffset>().into_iter();
        queries
            .filter(|query| query.set_zero_if_not_found.is_none())
            .count()
    }

    fn commits(&self) -> Vec<i64> {
        let commits = self.broker.requests_of::<UpdateConsumerOffset>();
        commits.iter().map(|commit| commit.commit_offset).collect()
    }
}

fn text(message: &MessageView) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// A handler that acknowledges everything and passes its body on.
fn collector() -> (
    impl Fn(MessageView) -> std::future::Ready<()> + Send + Sync + 'static,
    mpsc::Receiver<String>,
) {
    let (sender, receiver) = mpsc::channel(1000);
    let handler = move |message: MessageView| {
        sender.try_send(text(&message)).unwrap();
        std::future::ready(())
    };
    (handler, receiver)
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.expect("it happens in time")
}

async fn until(condition: impl Fn() -> bool + Sync) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_offset_query_commits_and_pulls_nothing() {
    let stage = Stage::new().await;
    stage.script.store(&["a"; 10]);
    for _ in 0..3 {
        stage
            .script
            .then::<QueryConsumerOffset>(Answer::code(ResponseCode::SYSTEM_ERROR));
    }
    stage
        .script
        .then::<QueryConsumerOffset>(Answer::with(Offset { offset: 7 }));
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for _ in 0..3 {
        soon(received.recv()).await.unwrap();
    }
    assert_eq!(stage.pulls()[0], 7);
    assert_eq!(stage.offset_queries(), 4);
    consumer.shutdown().await;
    assert!(
        stage.commits().iter().all(|&offset| offset > 7),
        "{:?}",
        stage.commits()
    );
    assert_eq!(stage.commits().last(), Some(&10));
}

#[tokio::test]
async fn a_group_without_an_offset_starts_behind_the_newest_message_and_says_so() {
    let stage = Stage::new().await;
    stage
        .script
        .refuse::<QueryConsumerOffset>(ResponseCode::QUERY_NOT_FOUND);
    let (handler, _received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    assert_eq!(
        soon(stage.broker.asked::<PullMessage>(1)).await[0].queue_offset,
        1000
    );
    soon(stage.broker.asked::<UpdateConsumerOffset>(1)).await;
    assert_eq!(stage.commits()[0], 1000);
    assert_eq!(stage.broker.requests_of::<MaxOffset>().len(), 1);
    consumer.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_given_back_stays_and_pins_the_offset() {
    let stage = Stage::new().await;
    stage.script.store(&["good", "bad", "good too"]);
    stage
        .script
        .refuse::<ConsumerSendMsgBack>(ResponseCode::NO_PERMISSION);
    stage.script.refuse::<SendMessageV2>(ResponseCode::NO_PERMISSION);
    let consumer = stage
        .builder()
        .start(|message: MessageView| async move {
            if text(&message) == "bad" {
                Err("no")
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
    // Three times through handler and both ways back.
    soon(stage.broker.asked::<SendMessageV2>(3)).await;
    assert!(
        stage.commits().iter().all(|&offset| offset <= 1),
        "{:?}",
        stage.commits()
    );
    assert!(consumer.stats().not_given_back >= 2);
    assert_eq!(consumer.stats().acknowledged, 2);
    // The local attempts count.
    let copies = stage.broker.requests_of::<SendMessageV2>();
    let times: Vec<_> = copies.iter().map(|copy| copy.reconsume_times.unwrap()).collect();
    assert_eq!(times[..3], [1, 2, 3]);
    stage.script.accept::<ConsumerSendMsgBack>();
    let before = stage.broker.requests_of::<UpdateConsumerOffset>().len();
    let commits = soon(stage.broker.asked::<UpdateConsumerOffset>(before + 1)).await;
    assert_eq!(commits.last().unwrap().commit_offset, 3);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_rejected_message_that_cannot_be_given_back_is_not_handled_again() {
    let stage = Stage::new().await;
    stage.script.store(&["bad"]);
    stage
        .script
        .refuse::<ConsumerSendMsgBack>(ResponseCode::NO_PERMISSION);
    stage.script.refuse::<SendMessageV2>(ResponseCode::NO_PERMISSION);
    let consumer = stage
        .builder()
        .start(|_: MessageView| async { Outcome::Reject("no".into()) })
        .await
        .unwrap();
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(3)).await;
    assert!(backs.iter().all(|back| back.delay_level == -1));
    assert_eq!(consumer.stats().rejected, 1);
    consumer.shutdown().await;
    assert!(stage.commits().is_empty());
}

#[tokio::test]
async fn a_broker_that_refuses_a_send_back_takes_a_copy_instead() {
    let stage = Stage::new().await;
    stage.script.store(&["bad"]);
    stage
        .script
        .refuse::<ConsumerSendMsgBack>(ResponseCode::SYSTEM_ERROR);
    let consumer = stage
        .builder()
        .max_reconsume_times(5)
        .start(|_: MessageView| async { Outcome::Retry(Retry::Level(4)) })
        .await
        .unwrap();
    let copy = soon(stage.broker.asked::<SendMessageV2>(1)).await.remove(0);
    assert_eq!((&*copy.topic, copy.body), ("%RETRY%billing", "bad".into()));
    assert_eq!(
        (copy.reconsume_times, copy.max_reconsume_times),
        (Some(1), Some(5))
    );
    let commits = soon(stage.broker.asked::<UpdateConsumerOffset>(1)).await;
    assert_eq!(commits[0].commit_offset, 1);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_forgot_the_group_is_told_again() {
    let stage = Stage::new().await;
    stage.script.store(&["a"]);
    for code in [
        ResponseCode::SUBSCRIPTION_NOT_EXIST,
        ResponseCode::SUBSCRIPTION_NOT_LATEST,
        ResponseCode::FLOW_CONTROL,
        ResponseCode::SYSTEM_BUSY,
    ] {
        stage.script.then::<PullMessage>(Answer::code(code));
    }
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), "a");
    // The one of the start, and at least one more.
    assert!(stage.broker.requests_of::<HeartBeat>().len() >= 2);
    assert_eq!(stage.pulls()[..5], [0; 5]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn an_offset_that_the_broker_does_not_have_is_replaced_by_the_one_it_names() {
    let stage = Stage::new().await;
    stage.script.store(&["old", "new", "newest"]);
    stage
        .script
        .then::<QueryConsumerOffset>(Answer::with(Offset { offset: 500 }));
    stage
        .script
        .then::<PullMessage>(pull_result(PullStatus::OffsetIllegal, 1, Bytes::new()));
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for body in ["new", "newest"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    consumer.shutdown().await;
    assert_eq!(stage.pulls()[..2], [500, 1]);
    assert_eq!(stage.commits().last(), Some(&3), "the offset went back");
}

#[tokio::test]
async fn a_message_that_cannot_be_read_becomes_a_dead_letter_and_stops_nobody() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c"]);
    let damaged = |from: usize| {
        let records = lock(&stage.script.0).log[from..].to_vec();
        let mut bytes = encoded(&records);
        let b_at = encoded(&records[..1 - from]).len();
        // The body of the second message no longer matches its checksum.
        bytes[b_at + 84] ^= 1;
        pull_result(PullStatus::Found, 3, bytes.freeze())
    };
    for from in [0, 1, 1] {
        stage.script.then::<PullMessage>(damaged(from));
    }
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for body in ["a", "c"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(1)).await;
    assert_eq!((backs[0].offset, backs[0].delay_level), (1007, -1));
    consumer.shutdown().await;
    assert_eq!(stage.pulls()[..4], [0, 1, 1, 2]);
    assert_eq!(stage.commits().last(), Some(&3));
}

#[tokio::test]
async fn a_body_that_cannot_be_decompressed_is_given_back_without_calling_the_handler() {
    let stage = Stage::new().await;
    stage.script.store(&["not zlib", "fine"]);
    lock(&stage.script.0).log[0].sys_flag = SysFlag(SysFlag::COMPRESSED);
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), "fine");
    let backs = soon(stage.broker.asked::<ConsumerSendMsgBack>(1)).await;
    assert_eq!((backs[0].offset, backs[0].delay_level), (7, 0));
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&2));
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn a_broker_that_goes_back_delivers_nothing_twice() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b"]);
    let both = found(&lock(&stage.script.0).log);
    stage.script.then::<PullMessage>(both);
    let both_again = found(&lock(&stage.script.0).log);
    stage.script.then::<PullMessage>(both_again);
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for body in ["a", "b"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    soon(stage.broker.asked::<PullMessage>(3)).await;
    assert_eq!(consumer.stats().received, 2);
    consumer.shutdown().await;
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn doubtful_answers_take_no_queues_away() {
    let stage = Stage::new().await;
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    soon(stage.broker.asked::<PullMessage>(1)).await;
    let notify = Frame {
        fields: Fields::from_iter([("consumerGroup", GROUP)]),
        ..Frame::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED).one_way()
    };
    // The members are not known; the list is empty; it is of others only; the topic is gone.
    stage
        .script
        .then::<ConsumerListByGroup>(Answer::code(ResponseCode::SYSTEM_ERROR));
    stage
        .script
        .then::<ConsumerListByGroup>(Answer::with(Json(ConsumerList::default())));
    let others = ConsumerList {
        consumer_id_list: vec!["other".into()],
    };
    stage
        .script
        .then::<ConsumerListByGroup>(Answer::with(Json(others)));
    for asked in 2..5 {
        stage.broker.push(notify.clone());
        soon(stage.broker.asked::<ConsumerListByGroup>(asked)).await;
    }
    stage.routes.remove(TOPIC);
    stage.broker.push(notify.clone());
    soon(stage.broker.asked::<ConsumerListByGroup>(5)).await;
    assert_eq!(consumer.stats().queues.len(), 1);
    assert_eq!(stage.offset_queries(), 1, "the queue was never given up");
    consumer.shutdown().await;
    assert!(received.try_recv().is_err());
}

/// Panics when asked for the first time, then gives everything and something that does not exist.
#[derive(Debug, Default)]
struct Clumsy(std::sync::atomic::AtomicBool);

impl AllocateStrategy for Clumsy {
    fn name(&self) -> &str {
        "CLUMSY"
    }

    fn allocate(&self, _: &str, _: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        assert!(
            self.0.swap(true, std::sync::atomic::Ordering::SeqCst),
            "on purpose"
        );
        let mut share = queues.to_vec();
        share.push(MessageQueue::new(TOPIC, "nowhere", 9));
        share
    }
}

#[tokio::test]
async fn a_strategy_that_panics_or_invents_queues_does_no_harm() {
    let stage = Stage::new().await;
    stage.script.store(&["a"]);
    let (handler, mut received) = collector();
    let consumer = stage
        .builder()
        .allocate_strategy(Clumsy::default())
        .start(handler)
        .await
        .unwrap();
    assert_eq!(soon(received.recv()).await.unwrap(), "a");
    assert_eq!(consumer.stats().queues, [MessageQueue::new(TOPIC, "broker-a", 0)]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_storm_of_notifications_is_a_handful_of_rebalances() {
    let stage = Stage::new().await;
    let (handler, _received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    soon(stage.broker.asked::<PullMessage>(1)).await;
    let before = stage.broker.requests_of::<ConsumerListByGroup>().len();
    let notify = Frame {
        fields: Fields::from_header(&NotifyConsumerIdsChanged {
            consumer_group: GROUP.into(),
        })
        .unwrap(),
        ..Frame::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED).one_way()
    };
    for _ in 0..50 {
        stage.broker.push(notify.clone());
    }
    soon(stage.broker.asked::<ConsumerListByGroup>(before + 1)).await;
    consumer.shutdown().await;
    let rebalances = stage.broker.requests_of::<ConsumerListByGroup>().len() - before;
    assert!(rebalances <= 3, "{rebalances}");
}

#[tokio::test]
async fn a_commit_that_may_be_lost_is_sent_again() {
    let stage = Stage::new().await;
    stage.script.store(&["a"]);
    let (handler, _received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    let commits = soon(stage.broker.asked::<UpdateConsumerOffset>(2)).await;
    assert!(commits.iter().all(|commit| commit.commit_offset == 1));
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_last_commit_that_is_refused_is_reported() {
    let stage = Stage::new().await;
    stage.script.store(&["a"]);
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    soon(received.recv()).await.unwrap();
    stage
        .script
        .refuse::<UpdateConsumerOffset>(ResponseCode::SYSTEM_ERROR);
    assert_eq!(consumer.shutdown().await.commits_unconfirmed, 1);
}

#[tokio::test]
async fn an_operator_resets_the_offset() {
    let stage = Stage::new().await;
    stage.script.store(&["a", "b", "c"]);
    let (handler, mut received) = collector();
    let consumer = stage.builder().start(handler).await.unwrap();
    for body in ["a", "b", "c"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    let table = OffsetTable {
        offset_table: QueueMap::from_iter([(queue, 1)]),
    };
    let request = ResetConsumerClientOffset {
        topic: TOPIC.into(),
        group: GROUP.into(),
        timestamp: 0,
        force: true,
        body: Bytes::new(),
    };
    stage.broker.push(Frame {
        fields: Fields::from_header(&request).unwrap(),
        body: table.to_body().unwrap(),
        ..Frame::request(RequestCode::RESET_CONSUMER_CLIENT_OFFSET).one_way()
    });
    for body in ["b", "c"] {
        assert_eq!(soon(received.recv()).await.unwrap(), body);
    }
    consumer.shutdown().await;
    assert_eq!(stage.commits().last(), Some(&3));
}

#[tokio::test]
async fn an_operator_lets_one_message_be_consumed() {
    let stage = Stage::new().await;
    let consumer = stage
        .builder()
        .start(|message: MessageView| async move {
            match &*text(&message) {
                "good" => Ok(()),
                "bad" => Err("it is bad"),
                _ => panic!("on purpose"),
            }
        })
        .await
        .unwrap();
    for (at, (body, result, remark)) in [
        ("good", "CR_SUCCESS", None),
        ("bad", "CR_THROW_EXCEPTION", Some("it is bad")),
        ("ugly", "CR_THROW_EXCEPTION", Some("on purpose")),
    ]
    .into_iter()
    .enumerate()
    {
        let request = ConsumeMessageDirectly {
            consumer_group: GROUP.into(),
            client_id: None,
            msg_id: None,
            broker_name: Some("broker-a".into()),
            topic: None,
            body: Bytes::new(),
        };
        stage.broker.push(Frame {
            opaque: 4000 + i32::try_from(at).unwrap(),
            fields: Fields::from_header(&request).unwrap(),
            body: encoded(&[record(9, body)]).freeze(),
            ..Frame::request(RequestCode::CONSUME_MESSAGE_DIRECTLY)
        });
        let response = soon(response_to(&stage.broker, 4000 + i32::try_from(at).unwrap())).await;
        let answer = ConsumeDirectlyResult::from_body(&response.body).unwrap();
        assert_eq!(answer.consume_result, result);
        let actual = answer.remark.as_deref();
        assert!(
            remark.is_none_or(|remark| actual.unwrap().contains(remark)),
            "{actual:?}"
        );
    }
    assert_eq!(stage.broker.requests_of::<ConsumerSendMsgBack>(), []);
    consumer.shutdown().await;
}

/// Waits for what the client answers to a request of the broker.
async fn response_to(broker: &FakeServer, opaque: i32) -> Frame {
    loop {
        let answered = broker
            .requests()
            .into_iter()
            .find(|frame| frame.is_response() && frame.opaque == opaque);
        match answered {
            Some(response) => return response,
            None => tokio::task::yield_now().await,
        }
    }
}
