//! A consumer in order against a scripted broker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::Poison;
use crate::cluster::Client;
use crate::cluster::testing::{self, FakeRoutes, name_server_and_broker, route};
use crate::consumer::{BatchOutcome, BoxError, Outcome, PushConsumerBuilder, Retry};
use crate::message::MessageView;
use crate::protocol::bodies::{ConsumerList, LockBatch, LockedQueues, MessageQueue};
use crate::protocol::requests::{
    ConsumerSendMsgBack, LockQueues, NotifyConsumerIdsChanged, Offset, PullMessage, PullResult,
    PullResultHeader, PullStatus, QueryConsumerOffset, SendResult, SendResultHeader, UnlockQueues,
    UnregisterClient, UpdateConsumerOffset,
};
use crate::protocol::{
    Done, Fields, Frame, Json, JsonBody, Properties, Record, Request, RequestCode, ResponseCode, SysFlag,
    Text,
};
use crate::sync::lock;
use crate::transport::fake::{Answer, FakeServer};

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const LONG: Duration = Duration::from_secs(60);

pub(super) fn record(queue_offset: i64, properties: &str) -> Record {
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
        body: Bytes::new(),
        topic: Text::from_static(TOPIC),
        properties: Properties::new(Text::from(properties.to_owned())),
    }
}

/// A broker with one queue, whose lock is somebody else's as long as the script says so.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    log: Vec<Record>,
    committed: i64,
    members: Vec<String>,
    /// What becomes of the next requests for the lock; afterwards it is given.
    locks: VecDeque<Lock>,
    /// Whether the next question for the members ends the connection.
    hangs_up: bool,
    /// Whether send-backs and copies are refused.
    refuses: bool,
}

#[derive(Clone, Copy)]
enum Lock {
    Theirs,
    Error,
}

impl Script {
    /// Messages with one letter as key each, and a number as body.
    fn store(&self, keys: &str) {
        let mut state = lock(&self.0);
        for key in keys.chars() {
            let offset = i64::try_from(state.log.len()).unwrap();
            let mut record = record(offset, &format!("__SHARDINGKEY\u{1}{key}\u{2}"));
            record.body = format!("{key}{offset}").into();
            state.log.push(record);
        }
    }

    fn answer(&self, frame: &Frame) -> Answer {
        let mut state = lock(&self.0);
        if frame.is_response() {
            return Answer::Silence;
        }
        match RequestCode(frame.code) {
            RequestCode::GET_CONSUMER_LIST_BY_GROUP if std::mem::take(&mut state.hangs_up) => Answer::Close,
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => Answer::with(Json(ConsumerList {
                consumer_id_list: state.members.clone(),
            })),
            RequestCode::QUERY_CONSUMER_OFFSET => Answer::with(Offset {
                offset: state.committed,
            }),
            RequestCode::UPDATE_CONSUMER_OFFSET => {
                let commit = UpdateConsumerOffset::from_frame(frame.clone()).unwrap();
                state.committed = commit.commit_offset;
                Answer::with(Done)
            }
            RequestCode::LOCK_BATCH_MQ => {
                let body = LockQueues::from_frame(frame.clone()).unwrap().body;
                let asked = LockBatch::from_body(&body).unwrap();
                match state.locks.pop_front() {
                    None => Answer::with(Json(LockedQueues {
                        lock_ok_mq_set: asked.mq_set,
                    })),
                    Some(Lock::Theirs) => Answer::with(Json(LockedQueues::default())),
                    Some(Lock::Error) => Answer::code(ResponseCode::SYSTEM_BUSY),
                }
            }
            RequestCode::UNLOCK_BATCH_MQ => Answer::with(Done),
            RequestCode::PULL_MESSAGE => {
                let pull = PullMessage::from_frame(frame.clone()).unwrap();
                let from = usize::try_from(pull.queue_offset).unwrap();
                match state.log.get(from..) {
                    Some(records) if !records.is_empty() && pull.topic == TOPIC => found(records),
                    _ => Answer::Silence,
                }
            }
            RequestCode::CONSUMER_SEND_MSG_BACK | RequestCode::SEND_MESSAGE_V2 if state.refuses => {
                Answer::code(ResponseCode::SYSTEM_ERROR)
            }
            RequestCode::CONSUMER_SEND_MSG_BACK => Answer::with(Done),
            RequestCode::SEND_MESSAGE_V2 => Answer::with(SendResult {
                code: ResponseCode::SUCCESS,
                header: SendResultHeader::default(),
            }),
            code => panic!("nobody said what to answer to {code}"),
        }
    }
}

fn found(records: &[Record]) -> Answer {
    let mut messages = BytesMut::new();
    for record in records {
        record.encode(&mut messages).unwrap();
    }
    Answer::with(PullResult {
        status: PullStatus::Found,
        header: PullResultHeader {
            next_begin_offset: records.last().unwrap().queue_offset + 1,
            ..PullResultHeader::default()
        },
        messages: messages.freeze(),
        remark: None,
    })
}

struct Stage {
    broker: FakeServer,
    script: Script,
    client: Client,
}

impl Stage {
    async fn new(keys: &str) -> Self {
        let (routes, script) = (FakeRoutes::default(), Script::default());
        script.store(keys);
        let answers = script.clone();
        let broker = name_server_and_broker(&routes, move |frame| answers.answer(frame)).await;
        routes.set(TOPIC, route(&[("broker-a", &broker.address())], 1));
        let client = testing::client(&broker.address()).await;
        lock(&script.0).members = vec![client.client_id().to_owned()];
        Self {
            broker,
            script,
            client,
        }
    }

    fn builder(&self) -> PushConsumerBuilder {
        let mut builder = self
            .client
            .push_consumer(GROUP)
            .subscribe(TOPIC, "*")
            .commit_interval(Duration::from_millis(20))
            .suspend_time(Duration::from_millis(20));
        builder.options.requeue_delay = Duration::from_millis(20);
        builder
    }

    /// Where the first and the last request of a kind are among all requests.
    fn places<R: Request>(&self) -> (usize, usize) {
        let requests = self.broker.requests();
        let is_one = |frame: &Frame| frame.code == R::CODE.0;
        let first = requests.iter().position(is_one).expect("there is one");
        (first, requests.iter().rposition(is_one).unwrap())
    }

    /// The offsets that were pulled from.
    fn pulls(&self) -> Vec<i64> {
        let pulls = self.broker.requests_of::<PullMessage>().into_iter();
        pulls
            .filter(|pull| pull.topic == TOPIC)
            .map(|pull| pull.queue_offset)
            .collect()
    }

    fn notify(&self) {
        self.broker.push(Frame {
            fields: Fields::from_header(&NotifyConsumerIdsChanged {
                consumer_group: GROUP.to_owned(),
            })
            .unwrap(),
            ..Frame::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED).one_way()
        });
    }

    fn hang_up(&self) {
        lock(&self.script.0).hangs_up = true;
        self.notify();
    }
}

fn text(message: &MessageView) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.expect("it happens in time")
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// What a handler saw, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, text: impl Into<String>) {
        lock(&self.0).push(text.into());
    }

    fn all(&self) -> Vec<String> {
        lock(&self.0).clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<String> {
        eventually(|| lock(&self.0).len() >= count).await;
        self.all()
    }
}

#[tokio::test]
async fn the_lock_comes_before_the_offset_and_goes_after_the_last_commit() {
    let stage = Stage::new("aaa").await;
    let seen = Seen::default();
    let sees = seen.clone();
    let consumer = stage
        .builder()
        .orderly()
        .start(move |message: MessageView| {
            sees.note(text(&message));
            std::future::ready(())
        })
        .await
        .unwrap();
    assert_eq!(seen.wait_for(3).await, ["a0", "a1", "a2"]);
    consumer.shutdown().await;
    let (locked, pulled) = (stage.places::<LockQueues>().0, stage.places::<PullMessage>().0);
    assert!(locked < pulled);
    // There are questions whether the group is new, too; the one for the first offset is the last.
    assert!((locked..pulled).contains(&stage.places::<QueryConsumerOffset>().1));
    let unlock = stage.places::<UnlockQueues>();
    assert!(stage.places::<UpdateConsumerOffset>().1 < unlock.0);
    assert!(unlock.1 < stage.places::<UnregisterClient>().0);
    assert_eq!(lock(&stage.script.0).committed, 3);
    let body = stage.broker.requests_of::<UnlockQueues>().pop().unwrap().body;
    let batch = LockBatch::from_body(&body).unwrap();
    assert_eq!(batch.consumer_group, GROUP);
    assert_eq!(batch.client_id, stage.client.client_id());
    assert!(batch.mq_set.contains(&MessageQueue::new(TOPIC, "broker-a", 0)));
}

#[tokio::test]
async fn nothing_is_pulled_while_the_queue_is_somebody_elses_and_the_lock_is_soon_asked_for_again() {
    let stage = Stage::new("a").await;
    lock(&stage.script.0).locks = [Lock::Theirs, Lock::Error, Lock::Theirs, Lock::Theirs].into();
    let seen = Seen::default();
    let sees = seen.clone();
    let consumer = stage
        .builder()
        .orderly()
        .start(move |message: MessageView| {
            sees.note(text(&message));
            std::future::ready(())
        })
        .await
        .unwrap();
    assert_eq!(seen.wait_for(1).await, ["a0"]);
    let requests = stage.broker.requests();
    let pull = requests
        .iter()
        .position(|frame| frame.code == PullMessage::CODE.0);
    let locks = requests.iter().take(pull.unwrap());
    assert!(locks.filter(|frame| frame.code == LockQueues::CODE.0).count() >= 5);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_lost_lock_cuts_the_handler_off_and_consumption_starts_again_at_the_brokers_offset() {
    let stage = Stage::new("aaaa").await;
    let seen = Seen::default();
    let sees = seen.clone();
    let consumer = stage
        .builder()
        .orderly()
        .start(move |message: MessageView| {
            let sees = sees.clone();
            async move {
                sees.note(text(&message));
                if message.queue_offset() == 0 {
                    let _cut = Cut(sees);
                    std::future::pending::<()>().await;
                }
            }
        })
        .await
        .unwrap();
    seen.wait_for(1).await;
    // While the first one works, the connection breaks; somebody else gets the queue, handles two messages and lets
    // it go.
    {
        let mut state = lock(&stage.script.0);
        state.committed = 2;
        state.locks = [Lock::Theirs, Lock::Theirs].into();
    }
    stage.hang_up();
    assert_eq!(seen.wait_for(4).await, ["a0", "cut off", "a2", "a3"]);
    consumer.shutdown().await;
    assert_eq!(lock(&stage.script.0).committed, 4);
}

/// Notes that the handler that holds it was dropped.
struct Cut(Seen);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.note("cut off");
    }
}

#[tokio::test]
async fn a_broken_connection_alone_loses_no_lock_and_interrupts_nobody() {
    let stage = Stage::new("aaa").await;
    let (seen, go_on) = (Seen::default(), Arc::new(Notify::new()));
    let (sees, gate) = (seen.clone(), Arc::clone(&go_on));
    let consumer = stage
        .builder()
        .orderly()
        .start(move |message: MessageView| {
            let (sees, gate) = (sees.clone(), Arc::clone(&gate));
            async move {
                sees.note(text(&message));
                if message.queue_offset() == 0 {
                    gate.notified().await;
                }
            }
        })
        .await
        .unwrap();
    seen.wait_for(1).await;
    let pulled_from = stage.pulls();
    stage.hang_up();
    // It is renewed as soon as the connection is gone.
    soon(stage.broker.asked::<LockQueues>(2)).await;
    go_on.notify_one();
    assert_eq!(seen.wait_for(3).await, ["a0", "a1", "a2"]);
    assert_eq!(pulled_from.first(), Some(&0));
    assert!(!stage.pulls()[1..].contains(&0), "the queue was not begun again");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_message_that_fails_holds_its_queue_and_comes_again_in_its_place() {
    let stage = Stage::new("aaa").await;
    let seen = Seen::default();
    let sees = seen.clone();
    let consumer = stage
        .builder()
        .orderly()
        .start(move |message: MessageView| {
            let sees = sees.clone();
            async move {
                sees.note(format!("{}.{}", text(&message), message.reconsume_times()));
                match (message.queue_offset(), message.reconsume_times()) {
                    (1, 0) => Err("not yet".into()),
                    (1, 1) => Ok(Outcome::Retry(Retry::After(Duration::from_millis(10)))),
                    (1, 2) => panic!("on purpose"),
                    _ => Ok::<_, BoxError>(Outcome::Ack),
                }
            }
        })
        .await
        .unwrap();
    assert_eq!(
        seen.wait_for(6).await,
        ["a0.0", "a1.0", "a1.1", "a1.2", "a1.3", "a2.0"]
    );
    let stats = consumer.stats();
    assert_eq!((stats.retried, stats.panicked, stats.acknowledged), (3, 1, 3));
    consumer.shutdown().await;
    assert_eq!(stage.broker.requests_of::<ConsumerSendMsgBack>().len(), 0);
    assert_eq!(lock(&stage.script.0).committed, 3);
}

#[tokio::test]
async fn a_poison_message_holds_its_queue_until_a_broker_has_taken_it() {
    let stage = Stage::new("aa").await;
    lock(&stage.script.0).refuses = true;
    let seen = Seen::default();
    let sees = seen.clone();
    let consumer = stage
        .builder()
        .orderly()
        .max_reconsume_times(1)
        .start(move |message: MessageView| {
            sees.note(text(&message));
            let result = if message.queue_offset() == 0 {
                Err("no")
            } else {
                Ok(())
            };
            std::future::ready(result)
        })
        .await
        .unwrap();
    soon(stage.broker.asked::<ConsumerSendMsgBack>(3)).await;
    assert_eq!(
        seen.all(),
        ["a0", "a0"],
        "the handler has said what it had to say"
    );
    lock(&stage.script.0).refuses = false;
    assert_eq!(seen.wait_for(3).await, ["a0", "a0", "a1"]);
    let back = stage.broker.requests_of::<ConsumerSendMsgBack>();
    assert!(back.iter().all(|back| back.delay_level == -1 && back.offset == 7));
    consumer.shutdown().await;
    assert_eq!(lock(&stage.script.0).committed, 2);
}

#[tokio::test]
async fn what_becomes_of_poison_is_a_choice() {
    for (poison, level, skipped) in [(Poison::Skip, None, 1), (Poison::GiveBack, Some(0), 0)] {
        let stage = Stage::new("aa").await;
        let seen = Seen::default();
        let sees = seen.clone();
        let consumer = stage
            .builder()
            .orderly()
            .max_reconsume_times(0)
            .poison(poison)
            .start(move |message: MessageView| {
                sees.note(text(&message));
                let result = if message.queue_offset() == 0 {
                    Err("no")
                } else {
                    Ok(())
                };
                std::future::ready(result)
            })
            .await
            .unwrap();
        assert_eq!(seen.wait_for(2).await, ["a0", "a1"]);
        let back = stage.broker.requests_of::<ConsumerSendMsgBack>();
        assert_eq!(back.first().map(|back| back.delay_level), level);
        assert_eq!(consumer.stats().skipped, skipped);
        consumer.shutdown().await;
    }
}

#[tokio::test]
async fn a_batch_that_fails_in_the_middle_loses_nothing_and_keeps_its_order() {
    let stage = Stage::new("aaaaaaa").await;
    let (seen, batches) = (Seen::default(), Seen::default());
    let (sees, notes) = (seen.clone(), batches.clone());
    let consumer = stage
        .builder()
        .orderly()
        .max_reconsume_times(1)
        .start_batch(5, move |messages: Vec<MessageView>| {
            let (sees, notes) = (sees.clone(), notes.clone());
            async move {
                let all: Vec<String> = messages
                    .iter()
                    .map(|message| format!("{}.{}", text(message), message.reconsume_times()))
                    .collect();
                notes.note(all.join(" "));
                // One of them cannot be handled, whatever comes with it.
                let bad = messages.iter().position(|message| message.queue_offset() == 2);
                let good = bad.unwrap_or(messages.len());
                for message in messages.iter().take(good) {
                    sees.note(text(message));
                }
                BatchOutcome::retry_from(good)
            }
        })
        .await
        .unwrap();
    assert_eq!(seen.wait_for(6).await, ["a0", "a1", "a3", "a4", "a5", "a6"]);
    let wanted = [
        "a0.0 a1.0 a2.0 a3.0 a4.0",
        "a2.1 a3.0 a4.0 a5.0 a6.0",
        // The failures are those of one message; those behind it have not been tried.
        "a3.0 a4.0 a5.0 a6.0",
    ];
    assert_eq!(batches.all(), wanted);
    let back = stage.broker.requests_of::<ConsumerSendMsgBack>();
    assert_eq!(back.len(), 1, "one dead letter, not its neighbours");
    consumer.shutdown().await;
    assert_eq!(lock(&stage.script.0).committed, 7);
}

#[tokio::test]
async fn keys_are_handled_side_by_side_and_each_in_order() {
    let stage = Stage::new("abababc").await;
    let (seen, go_on) = (Seen::default(), Arc::new(Notify::new()));
    let (sees, gate) = (seen.clone(), Arc::clone(&go_on));
    let consumer = stage
        .builder()
        .ordered_by_key()
        .start(move |message: MessageView| {
            let (sees, gate) = (sees.clone(), Arc::clone(&gate));
            async move {
                if message.queue_offset() == 0 {
                    // Ends only when all other keys are through.
                    gate.notified().await;
                }
                sees.note(text(&message));
            }
        })
        .await
        .unwrap();
    let mut others = seen.wait_for(4).await;
    assert!(!others.contains(&"a2".to_owned()));
    others.retain(|text| text.starts_with('b'));
    assert_eq!(others, ["b1", "b3", "b5"]);
    soon(stage.broker.asked::<PullMessage>(2)).await;
    assert_eq!(
        lock(&stage.script.0).committed,
        0,
        "nothing passes the first message"
    );
    go_on.notify_one();
    let all = seen.wait_for(7).await;
    let of_a: Vec<_> = all.iter().filter(|text| text.starts_with('a')).collect();
    assert_eq!(of_a, ["a0", "a2", "a4"]);
    consumer.shutdown().await;
    assert_eq!(lock(&stage.script.0).committed, 7);
}

#[tokio::test]
async fn a_key_that_fails_waits_and_the_others_go_on() {
    let stage = Stage::new("aabb").await;
    let seen = Seen::default();
    let (sees, others) = (seen.clone(), seen.clone());
    let consumer = stage
        .builder()
        .ordered_by(|message: &MessageView| message.sharding_key().map(str::to_owned))
        .concurrency(1)
        .start(move |message: MessageView| {
            let (sees, others) = (sees.clone(), others.clone());
            async move {
                let b_is_through = others.all().contains(&"b3".to_owned());
                sees.note(text(&message));
                if message.queue_offset() == 0 && !b_is_through {
                    return Err("after you");
                }
                Ok(())
            }
        })
        .await
        .unwrap();
    eventually(|| seen.all().contains(&"a1".to_owned())).await;
    let mut all = seen.all();
    all.dedup();
    let b = all.iter().position(|text| text == "b3").unwrap();
    let a = all.iter().rposition(|text| text == "a0").unwrap();
    assert!(b < a, "{all:?}");
    assert_eq!(all.last().map(String::as_str), Some("a1"));
    consumer.shutdown().await;
    assert_eq!(lock(&stage.script.0).committed, 4);
}

#[tokio::test]
async fn a_queue_that_is_given_up_is_unlocked_when_its_handler_has_ended_and_its_offset_is_known() {
    let stage = Stage::new("aaa").await;
    let (begun, mut beginnings) = mpsc::channel(10);
    let go_on = Arc::new(Notify::new());
    let gate = Arc::clone(&go_on);
    let consumer = stage
        .builder()
        .orderly()
        .start(move |message: MessageView| {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            async move {
                let _ = begun.send(message.queue_offset()).await;
                gate.notified().await;
            }
        })
        .await
        .unwrap();
    assert_eq!(soon(beginnings.recv()).await, Some(0));
    // Somebody who comes first in the order of names.
    lock(&stage.script.0).members.insert(0, "0".to_owned());
    stage.notify();
    eventually(|| consumer.stats().queues.is_empty()).await;
    let orders = |stage: &Stage| {
        let unlocks = stage.broker.requests_of::<UnlockQueues>();
        let batches = unlocks
            .iter()
            .map(|unlock| LockBatch::from_body(&unlock.body).unwrap());
        batches
            .flat_map(|batch| batch.mq_set)
            .filter(|queue| &*queue.topic == TOPIC)
            .count()
    };
    assert_eq!(orders(&stage), 0, "its handler still works");
    go_on.notify_one();
    eventually(|| orders(&stage) == 1).await;
    assert_eq!(lock(&stage.script.0).committed, 1, "what the handler did counts");
    assert!(beginnings.try_recv().is_err(), "and nothing was begun after it");

    // The other one leaves: the queue comes back and goes on behind it.
    lock(&stage.script.0).members.remove(0);
    stage.notify();
    assert_eq!(soon(beginnings.recv()).await, Some(1));
    go_on.notify_one();
    assert_eq!(soon(beginnings.recv()).await, Some(2));
    go_on.notify_one();
    eventually(|| consumer.stats().acknowledged == 3).await;
    consumer.shutdown().await;
}
