//! What transactions promise: a message is seen if its local part succeeded, and never otherwise, whoever dies.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    admin::call,
    fault_proxy::{Direction, Fault, FaultPath},
    peer::{Language, Order, Outcome, PeerConsumer, PeerTransactor, Subscription},
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, ServerSettings, Target},
};
use rocketmq_client::{
    Client, ErrorKind, Message, MessageView, Producer, SendReceipt, TransactionError, TransactionState,
    protocol::{
        OffsetMessageId, Record, RequestCode, ResponseCode, SysFlag, names::CHECKED_TOO_OFTEN_TOPIC,
        requests::ViewMessage,
    },
};
use tokio::sync::mpsc;

use crate::{
    inbox::{Inbox, expect},
    raw,
};

scenarios![
    a_message_is_seen_if_its_local_part_succeeded_and_never_otherwise,
    a_half_message_and_its_commit_look_the_same_everywhere,
    many_transactions_at_once_each_end_their_own_way,
    a_producer_that_does_not_know_is_asked_as_often_as_it_takes,
    a_question_during_the_local_part_neither_loses_nor_doubles_the_message,
    a_peer_answers_for_a_producer_that_died_before_its_commit,
    a_commit_that_got_lost_is_repaired_by_the_check,
    a_half_message_that_nobody_knows_is_put_away,
    a_broker_that_refuses_transactions_says_so,
    transactions_of_other_languages_are_read_and_answered_for,
];

/// A listener that nobody should need.
async fn nobody(_: MessageView) -> TransactionState {
    panic!("the listener was asked")
}

async fn client(target: &Target) -> Result<Client, Failure> {
    Ok(Client::connect(target.name_server()).await?)
}

fn payment(topic: &str, body: impl Into<String>) -> Message {
    Message::new(topic, body.into()).tag("paid").key("order-1")
}

/// Waits for a last message that is sent outside of transactions: what came before it is all there is.
async fn bodies_until_end(
    inbox: &mut Inbox,
    producer: &Producer,
    topic: &str,
) -> Result<Vec<String>, Failure> {
    producer.send(Message::new(topic, "end")).await?;
    let mut bodies = Vec::new();
    loop {
        let body = String::from_utf8_lossy(inbox.next().await?.body()).into_owned();
        if body == "end" {
            return Ok(bodies);
        }
        bodies.push(body);
    }
}

async fn a_message_is_seen_if_its_local_part_succeeded_and_never_otherwise(target: &Target) -> TestResult {
    let topic = target.topic("tx");
    target.create_topic(&topic, 1).await?;
    let client = client(target).await?;
    let tx = client
        .producer(target.group("tx"))
        .start_transactional(nobody)
        .await?;
    let done = tx
        .send(payment(&topic, "committed"), async |receipt: SendReceipt| {
            Ok::<_, Failure>(receipt.message_id)
        })
        .await?;
    let failed = tx
        .send(payment(&topic, "rolled back"), async |_| Err::<(), _>("no money"))
        .await;
    expect(
        "own error",
        matches!(failed, Err(TransactionError::Local("no money"))),
        true,
    )?;
    tx.begin(payment(&topic, "also committed"))
        .await?
        .commit()
        .await?;
    tx.begin(payment(&topic, "also rolled back"))
        .await?
        .rollback()
        .await?;

    let mut inbox = Inbox::open(&client, &target.group("readers"), &topic, "*").await?;
    let first = inbox.next().await?;
    expect("id", first.message_id(), done.value.clone())?;
    expect("receipt", done.receipt.message_id, done.value)?;
    expect("body", first.body().as_ref(), b"committed")?;
    expect("tag", first.tag(), Some("paid"))?;
    expect("topic", first.topic(), topic.as_str())?;
    let rest = bodies_until_end(&mut inbox, tx.producer(), &topic).await?;
    expect("the rest", rest, ["also committed"])?;
    client.shutdown().await;
    Ok(())
}

/// The parts of a stored message that are equal on all brokers.
fn facts(record: &Record, topic: &str) -> Vec<(String, String)> {
    let known = [
        "TRAN_MSG",
        "PGROUP",
        "REAL_TOPIC",
        "REAL_QID",
        "TAGS",
        "KEYS",
        "CLUSTER",
        "UNIQ_KEY",
        "TRANSACTION_CHECK_TIMES",
    ];
    let own = |text: &str| text.replace(topic, "<topic>");
    let mut facts: Vec<_> = known
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), own(record.properties.get(name)?))))
        .collect();
    facts.push(("topic".to_owned(), own(record.topic.as_str())));
    facts.push(("queue".to_owned(), record.queue_id.to_string()));
    facts.push((
        "transaction bits".to_owned(),
        (record.sys_flag.0 & SysFlag::TRANSACTION_MASK).to_string(),
    ));
    facts.push((
        "body".to_owned(),
        String::from_utf8_lossy(&record.body).into_owned(),
    ));
    facts
}

/// What is stored where the receipt of a half message says.
async fn half_at(broker: SocketAddr, receipt: &SendReceipt) -> Result<Record, Failure> {
    let place: OffsetMessageId = receipt.offset_message_id.parse()?;
    let request = ViewMessage {
        topic: Some("RMQ_SYS_TRANS_HALF_TOPIC".to_owned()),
        offset: place.physical_offset,
    };
    Ok(Record::decode(call(broker, &request).await?.0)?)
}

async fn a_half_message_and_its_commit_look_the_same_everywhere(target: &Target) -> TestResult {
    let group = target.group("sender");
    let broker = target.first_broker().await?;
    let client = client(target).await?;
    let tx = client.producer(&group).start_transactional(nobody).await?;
    let (topic, receipt, stored, committed) = 'unasked: {
        for turn in 0..5 {
            let topic = target.topic(&format!("looks-{turn}"));
            target.create_topic(&topic, 1).await?;
            let half = tx.begin(payment(&topic, "x")).await?;
            let receipt = half.receipt().clone();
            let stored = half_at(broker, &receipt).await?;
            half.commit().await?;
            let committed = raw::first_record(broker, &group, &topic).await?;
            // A question, which a busy machine leaves time for, stores the half message anew.
            if committed.properties.get("TRANSACTION_CHECK_TIMES").is_none() {
                break 'unasked (topic, receipt, stored, committed);
            }
        }
        return Err("the broker asked about each half message before its commit".into());
    };

    let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let of_both = [
        fact("TRAN_MSG", "true"),
        fact("PGROUP", &group),
        fact("REAL_TOPIC", "<topic>"),
        fact("REAL_QID", "0"),
        fact("TAGS", "paid"),
        fact("KEYS", "order-1"),
        fact("CLUSTER", "DefaultCluster"),
        fact("UNIQ_KEY", &receipt.message_id),
    ];
    let destination = ["REAL_TOPIC", "REAL_QID"];
    // Brokers of 5.x take out of a committed message what its half message said of its destination.
    let is_kept =
        |name: &str, bits| bits == 0 || target.kind() == Kind::Rocketmq4 || !destination.contains(&name);
    let wanted = |topic: &str, bits: i32| {
        let own = [
            fact("topic", topic),
            fact("queue", "0"),
            fact("transaction bits", &bits.to_string()),
            fact("body", "x"),
        ];
        let common = of_both.iter().filter(|(name, _)| is_kept(name, bits));
        common.cloned().chain(own).collect::<Vec<_>>()
    };
    expect(
        "the half message",
        facts(&stored, &topic),
        wanted("RMQ_SYS_TRANS_HALF_TOPIC", 0),
    )?;
    expect(
        "the message",
        facts(&committed, &topic),
        wanted("<topic>", SysFlag::TRANSACTION_COMMIT),
    )?;
    expect(
        "where the half message was",
        committed.prepared_transaction_offset,
        stored.physical_offset,
    )?;
    expect("born", committed.born_timestamp, stored.born_timestamp)?;
    client.shutdown().await;
    Ok(())
}

async fn many_transactions_at_once_each_end_their_own_way(target: &Target) -> TestResult {
    const EACH: usize = 30;
    let topic = target.topic("many");
    target.create_topic(&topic, 4).await?;
    let client = client(target).await?;
    // Those that are left to the listener go by what their body says.
    let listener = |half: MessageView| async move {
        match half.body().starts_with(b"asked, yes") {
            true => TransactionState::Commit,
            false => TransactionState::Rollback,
        }
    };
    let tx = client
        .producer(target.group("many"))
        .start_transactional(listener)
        .await?;
    let mut work = tokio::task::JoinSet::new();
    for index in 0..EACH {
        for way in ["yes", "no", "asked, yes", "asked, no"] {
            let (tx, topic) = (tx.clone(), topic.clone());
            work.spawn(async move {
                let half = tx.begin(payment(&topic, format!("{way} {index}"))).await?;
                match way {
                    "yes" => half.commit().await.map(drop),
                    "no" => half.rollback().await,
                    _ => Ok(()),
                }
            });
        }
    }
    while let Some(ended) = work.join_next().await {
        ended??;
    }
    let mut inbox = Inbox::open(&client, &target.group("many"), &topic, "*").await?;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 * EACH {
        let body = String::from_utf8_lossy(inbox.next().await?.body()).into_owned();
        expect("succeeded", body.contains("yes"), true)?;
        expect(&format!("{body} is seen once"), seen.insert(body), true)?;
    }
    eventually("all that was left to the listener is answered", async || {
        Ok(tx.stats().answered >= 2 * EACH as u64)
    })
    .await?;
    expect("the rest", inbox.rest().len(), 0)?;
    client.shutdown().await;
    Ok(())
}

async fn a_producer_that_does_not_know_is_asked_as_often_as_it_takes(target: &Target) -> TestResult {
    let topic = target.topic("unsure");
    target.create_topic(&topic, 1).await?;
    let client = client(target).await?;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // It panics first, and does not know then.
    let listener = move |_| {
        let times = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match times {
                0 => panic!("as the scenario wants it"),
                1 => TransactionState::Unknown,
                _ => TransactionState::Commit,
            }
        }
    };
    let tx = client
        .producer(target.group("unsure"))
        .start_transactional(listener)
        .await?;
    let half = tx.begin(payment(&topic, "at last")).await?;
    let id = half.transaction_id().to_owned();
    drop(half);
    let mut inbox = Inbox::open(&client, &target.group("unsure"), &topic, "*").await?;
    let message = inbox.next().await?;
    expect("id", message.message_id(), id)?;
    expect("questions", asked.load(Ordering::SeqCst), 3)?;
    expect(
        "questions as the broker counts them",
        message.property("TRANSACTION_CHECK_TIMES"),
        Some("3"),
    )?;
    client.shutdown().await;
    Ok(())
}

async fn a_question_during_the_local_part_neither_loses_nor_doubles_the_message(
    target: &Target,
) -> TestResult {
    let topic = target.topic("slow");
    target.create_topic(&topic, 1).await?;
    let client = client(target).await?;
    // It is asked about the second message alone.
    let listener = |half: MessageView| async move {
        match half.body().as_ref() {
            b"mark" => TransactionState::Rollback,
            other => panic!("the listener was asked about {other:?}"),
        }
    };
    let tx = client
        .producer(target.group("slow"))
        .start_transactional(listener)
        .await?;
    let half = tx.begin(payment(&topic, "slow")).await?;
    eventually("two questions during the local part", async || {
        Ok(tx.stats().answered >= 2)
    })
    .await?;
    half.commit().await?;
    // The round of questions in which this one is asked about comes after any copy of the first.
    drop(tx.begin(payment(&topic, "mark")).await?);
    let before = tx.stats().answered;
    eventually("another round", async || Ok(tx.stats().answered > before)).await?;
    eventually("the listener is done", async || Ok(tx.stats().checking == 0)).await?;
    let mut inbox = Inbox::open(&client, &target.group("slow"), &topic, "*").await?;
    let bodies = bodies_until_end(&mut inbox, tx.producer(), &topic).await?;
    expect("seen", bodies, ["slow"])?;
    client.shutdown().await;
    Ok(())
}

async fn a_peer_answers_for_a_producer_that_died_before_its_commit(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("died"), target.group("died"));
    target.create_topic(&topic, 1).await?;
    let path = FaultPath::start(target.name_server_address().await?, &target.brokers().await?).await?;

    // The one that dies: its connections are cut with its half messages open, and it says nothing any more.
    let dying = Client::connect(path.name_server.address().to_string()).await?;
    let tx = dying.producer(&group).start_transactional(nobody).await?;
    let committed = tx.begin(payment(&topic, "was done")).await?;
    let failed = tx.begin(payment(&topic, "was not done")).await?;
    let ids = [
        committed.transaction_id().to_owned(),
        failed.transaction_id().to_owned(),
    ];
    drop(path);

    // The one that lives: it has sent nothing, and looks into what both share.
    let done = ids[0].clone();
    let (asked, mut questions) = mpsc::channel(64);
    let client = client(target).await?;
    let _peer = client
        .producer(&group)
        .transaction_topics([topic.clone()])
        .start_transactional(move |half: MessageView| {
            let (asked, is_done) = (asked.clone(), half.message_id() == done);
            async move {
                // The scenario may have seen enough.
                let _ = asked.try_send(half);
                match is_done {
                    true => TransactionState::Commit,
                    false => TransactionState::Rollback,
                }
            }
        })
        .await?;
    let mut inbox = Inbox::open(&client, &target.group("readers"), &topic, "*").await?;
    let message = inbox.next().await?;
    expect("id", message.message_id(), ids[0].clone())?;
    expect("body", message.body().as_ref(), b"was done")?;
    let mut left: BTreeSet<String> = ids.into();
    while !left.is_empty() {
        let half = questions.recv().await.ok_or("no more questions")?;
        expect("the real topic", half.topic(), topic.as_str())?;
        left.remove(&half.message_id());
    }
    expect("the rest", inbox.rest().len(), 0)?;
    drop((committed, failed, tx));
    dying.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_commit_that_got_lost_is_repaired_by_the_check(target: &Target) -> TestResult {
    let topic = target.topic("lost");
    target.create_topic(&topic, 1).await?;
    let path = FaultPath::start(target.name_server_address().await?, &target.brokers().await?).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let tx = client
        .producer(target.group("lost"))
        .send_timeout(Duration::from_secs(2))
        .start_transactional(nobody)
        .await?;
    let code = RequestCode::END_TRANSACTION.0;
    // Once the broker does not hear of the commit, once it does and is not heard.
    for (body, direction, fault) in [
        ("unheard", Direction::ToServer, Fault::DropRequest { code }),
        ("unanswered", Direction::ToClient, Fault::DropAnswer { code }),
    ] {
        let rule = path.broker.inject_times(direction, fault, 1);
        let ended = tx
            .send(payment(&topic, body), async |_| Ok::<_, Failure>(()))
            .await;
        match ended {
            Err(TransactionError::EndUnknown(error)) => {
                expect("kind", error.kind(), ErrorKind::Timeout)?;
                expect("struck", rule.hits(), 1)?;
            }
            // The broker asked meanwhile and confirmed the answer to that.
            Ok(_) => path.broker.heal(),
            other => return Err(format!("{body}: {other:?}").into()),
        }
    }
    let mut inbox = Inbox::open(&client, &target.group("lost"), &topic, "*").await?;
    expect("bodies", inbox.bodies(2).await?, ["unanswered", "unheard"])?;
    // A round of questions later there is nothing else; what was committed without an answer may have been asked about
    // before the broker had noted it, and then it is there twice.
    let open = tx.begin(payment(&topic, "open")).await?;
    let before = tx.stats().answered;
    eventually("another round", async || Ok(tx.stats().answered > before)).await?;
    open.rollback().await?;
    let mut rest = inbox.rest();
    rest.retain(|message| message.body().as_ref() != b"unanswered");
    expect("the rest", rest.len(), 0)?;
    client.shutdown().await;
    Ok(())
}

async fn a_half_message_that_nobody_knows_is_put_away(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("unknown"), target.group("unknown"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let client = client(target).await?;
    let listener = |_| async { TransactionState::Unknown };
    let tx = client.producer(&group).start_transactional(listener).await?;
    let half = tx.begin(payment(&topic, format!("of {group}"))).await?;
    drop(half);
    let wanted = format!("of {group}");
    let mut put_away = None;
    eventually("the half message among those put away", async || {
        let mut next = 0;
        // The topic is made with its first message.
        while let Ok(pulled) = raw::pull(broker, &group, CHECKED_TOO_OFTEN_TOPIC, 0, next, "*").await {
            let records = raw::records(&pulled)?;
            next = pulled.header.next_begin_offset;
            put_away = records
                .into_iter()
                .find(|record| record.body == wanted.as_bytes())
                .or_else(|| put_away.take());
            if put_away.is_some() || next >= pulled.header.max_offset {
                break;
            }
        }
        Ok(put_away.is_some())
    })
    .await?;
    let put_away = put_away.ok_or("not put away")?;
    expect(
        "questions",
        put_away.properties.get("TRANSACTION_CHECK_TIMES"),
        Some("15"),
    )?;
    expect("answers", tx.stats().answered, 15)?;
    client.shutdown().await;
    Ok(())
}

async fn a_broker_that_refuses_transactions_says_so(target: &Target) -> TestResult {
    let mut settings = ServerSettings::default();
    settings
        .broker
        .insert("rejectTransactionMessage".to_owned(), "true".to_owned());
    let servers = target.own_servers(settings).await?;
    let client = Client::connect(servers.name_server()).await?;
    let tx = client
        .producer("refused")
        .max_attempts(1)
        .start_transactional(nobody)
        .await?;
    let refused = tx
        .send(Message::new("t", "x"), async |_| -> Result<(), Failure> {
            Err("it ran".into())
        })
        .await;
    let Err(TransactionError::Send(error)) = refused else {
        return Err(format!("{refused:?}").into());
    };
    expect(
        "code",
        error.response().map(|(code, _)| code),
        Some(ResponseCode::NO_PERMISSION),
    )?;
    client.shutdown().await;
    Ok(())
}

async fn transactions_of_other_languages_are_read_and_answered_for(target: &Target) -> TestResult {
    for language in Language::ALL {
        language.installed()?;
    }
    for language in Language::ALL {
        exchange(target, language)
            .await
            .map_err(|failure| format!("{language}: {failure}"))?;
    }
    Ok(())
}

/// One group with members of two languages; each answers for the other.
async fn exchange(target: &Target, language: Language) -> TestResult {
    let (topic, group) = (
        target.topic(&format!("mixed-{language:?}")),
        target.group(&format!("mixed-{language:?}")),
    );
    target.create_topic(&topic, 1).await?;
    let order = |body: &str| Order {
        topic: topic.clone(),
        body: body.as_bytes().to_vec(),
        ..Order::default()
    };

    // Theirs, read by us; and what they do not know, answered by us when they are gone.
    let mut peer = PeerTransactor::start(language, target.name_server(), &group, Outcome::Unknown).await?;
    let committed = peer.send(&order("their commit"), Outcome::Commit).await?;
    expect("status", committed.status.as_str(), "SEND_OK")?;
    peer.send(&order("their rollback"), Outcome::Rollback).await?;
    let unknown = peer.send(&order("their doubt"), Outcome::Unknown).await?;
    peer.shutdown().await?;
    let client = client(target).await?;
    let listener = |half: MessageView| async move {
        match half.body().as_ref() {
            b"their doubt" => TransactionState::Commit,
            _ => TransactionState::Rollback,
        }
    };
    let tx = client.producer(&group).start_transactional(listener).await?;
    let mut inbox = Inbox::open(&client, &target.group(&format!("us-{language:?}")), &topic, "*").await?;
    for (body, id) in [
        ("their commit", &committed.msg_id),
        ("their doubt", &unknown.msg_id),
    ] {
        let message = inbox.next().await?;
        expect("body", message.body().as_ref(), body.as_bytes())?;
        expect("id", &message.message_id(), id)?;
    }

    // Ours, read by them; and what we do not know any more, answered by them.
    tx.send(payment(&topic, "our commit"), async |_| Ok::<_, Failure>(()))
        .await?;
    let doubt = tx.begin(payment(&topic, "our doubt")).await?;
    let id = doubt.transaction_id().to_owned();
    let mut peer = PeerTransactor::start(language, target.name_server(), &group, Outcome::Commit).await?;
    // The Go client knows brokers only when it has sent something.
    peer.send(&order("their second commit"), Outcome::Commit).await?;
    drop(doubt);
    drop(inbox);
    client.shutdown().await;
    // A broker may ask again about what it was told a moment ago: it writes that down every three seconds.
    loop {
        let check = peer.check().await?;
        expect("the real topic", &check.topic, &topic)?;
        if check.msg_id == id {
            break;
        }
    }
    let readers = target.group(&format!("them-{language:?}"));
    let mut consumer = PeerConsumer::start(
        language,
        target.name_server(),
        &Subscription::all(&readers, &topic),
    )
    .await?;
    let mut bodies = BTreeSet::new();
    while bodies.len() < 5 {
        bodies.insert(String::from_utf8_lossy(&consumer.next().await?.body).into_owned());
    }
    expect(
        "read by them",
        bodies,
        BTreeSet::from(
            [
                "our commit",
                "our doubt",
                "their commit",
                "their doubt",
                "their second commit",
            ]
            .map(str::to_owned),
        ),
    )?;
    consumer.shutdown().await?;
    peer.shutdown().await
}
