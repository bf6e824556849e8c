//! What clients of any language build upon: the broker's own part in filters, waiting, retries and membership.

use std::time::Duration;

use bytes::Bytes;
use integration_tests::{
    admin::{Connection, call},
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::protocol::{
    Json, OffsetMessageId, Record, RequestCode,
    names::{dlq_topic, retry_topic},
    property,
    requests::{
        ConsumerListByGroup, ConsumerSendMsgBack, PullMessage, PullStatus, RouteInfo, UnregisterClient,
        pull_flag,
    },
};
use tokio::time::{Instant, timeout};

use crate::raw::{first_record, join, pull, records, send};

scenarios![
    a_pull_returns_the_wanted_tags_and_those_of_equal_hash,
    a_pull_that_may_wait_is_answered_when_a_message_comes,
    a_pull_that_may_wait_is_answered_when_its_time_is_over,
    a_pull_outside_the_queue_is_told_where_to_go_on,
    a_send_to_an_unknown_topic_creates_it,
    a_delayed_message_comes_after_its_delay,
    a_message_given_back_comes_again_and_dies_at_the_limit,
    members_of_a_group_hear_of_each_other,
];

async fn a_pull_returns_the_wanted_tags_and_those_of_equal_hash(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("tags"), target.group("tags"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let _member = join(broker, "one", &group, &topic).await?;
    // "Aa" and "BB" have the same hash; telling them apart is the client's part.
    for tag in ["Aa", "C", "BB", "D", "none"] {
        let tags = [(property::TAGS, tag)];
        send(
            broker,
            &topic,
            0,
            tag.as_bytes(),
            if tag == "none" { &[] } else { &tags },
        )
        .await?;
    }
    eventually("all five", async || {
        Ok(records(&pull(broker, &group, &topic, 0, 0, "*").await?)?.len() == 5)
    })
    .await?;
    for (expression, wanted) in [
        ("Aa", vec!["Aa", "BB"]),
        ("C || D", vec!["C", "D"]),
        ("E", vec![]),
        ("*", vec!["Aa", "C", "BB", "D", "none"]),
    ] {
        let pulled = pull(broker, &group, &topic, 0, 0, expression).await?;
        let bodies: Vec<Bytes> = records(&pulled)?.into_iter().map(|record| record.body).collect();
        if bodies != wanted {
            return Err(format!("{expression}: {bodies:?}, not {wanted:?}").into());
        }
        if wanted.is_empty() && pulled.status != PullStatus::NoMatchedMessage {
            return Err(format!("{expression}: {:?}", pulled.status).into());
        }
        if pulled.header.next_begin_offset != 5 {
            return Err(format!("{expression}: goes on at {}", pulled.header.next_begin_offset).into());
        }
    }
    Ok(())
}

fn waiting_pull(group: &str, topic: &str, limit: Duration) -> PullMessage {
    PullMessage {
        consumer_group: group.to_owned(),
        topic: topic.to_owned(),
        queue_id: 0,
        queue_offset: 0,
        max_msg_nums: 32,
        sys_flag: pull_flag::SUBSCRIPTION | pull_flag::SUSPEND,
        commit_offset: 0,
        suspend_timeout_millis: i64::try_from(limit.as_millis()).unwrap_or(i64::MAX),
        subscription: Some("wanted".to_owned()),
        sub_version: 0,
        expression_type: None,
        max_msg_bytes: None,
    }
}

async fn a_pull_that_may_wait_is_answered_when_a_message_comes(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("wait"), target.group("wait"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let mut member = join(broker, "one", &group, &topic).await?;
    let pull = waiting_pull(&group, &topic, Duration::from_secs(9));
    let pulled = member.call(&pull);
    tokio::pin!(pulled);
    // Long enough for the broker to have taken the request; if it has not, the pull finds the message at once.
    if let Ok(answer) = timeout(Duration::from_millis(500), &mut pulled).await {
        return Err(format!("answered before there was a message: {answer:?}").into());
    }
    send(broker, &topic, 0, b"other", &[(property::TAGS, "unwanted")]).await?;
    send(broker, &topic, 0, b"this", &[(property::TAGS, "wanted")]).await?;
    let answer = pulled.await?;
    match records(&answer)?.as_slice() {
        [record] if record.body == "this" => Ok(()),
        // A broker wakes the pull for every message of the queue, 5.x for the first already.
        [] if answer.header.next_begin_offset > 0 => Ok(()),
        other => Err(format!("{:?} with {other:?}", answer.status).into()),
    }
}

async fn a_pull_that_may_wait_is_answered_when_its_time_is_over(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("over"), target.group("over"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let mut member = join(broker, "one", &group, &topic).await?;
    let answer = member
        .call(&waiting_pull(&group, &topic, Duration::from_secs(1)))
        .await?;
    if answer.status == PullStatus::NoNewMessage {
        Ok(())
    } else {
        Err(format!("{:?}", answer.status).into())
    }
}

async fn a_pull_outside_the_queue_is_told_where_to_go_on(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("outside"), target.group("outside"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let _member = join(broker, "one", &group, &topic).await?;
    for _ in 0..3 {
        send(broker, &topic, 0, b"x", &[]).await?;
    }
    eventually("the end of the queue", async || {
        Ok(pull(broker, &group, &topic, 0, 0, "*").await?.header.max_offset == 3)
    })
    .await?;
    for (offset, status, next) in [
        (3, PullStatus::NoNewMessage, 3),
        (1_000, PullStatus::OffsetIllegal, 3),
    ] {
        let pulled = pull(broker, &group, &topic, 0, offset, "*").await?;
        if (pulled.status, pulled.header.next_begin_offset) != (status, next) {
            return Err(format!("{offset}: {:?} {:?}", pulled.status, pulled.header).into());
        }
    }
    Ok(())
}

async fn a_send_to_an_unknown_topic_creates_it(target: &Target) -> TestResult {
    let topic = target.topic("created");
    let broker = target.first_broker().await?;
    send(broker, &topic, 3, b"x", &[]).await?;
    let name_server = target.name_server_address().await?;
    let route = RouteInfo {
        topic: topic.clone(),
        accept_standard_json_only: Some(true),
    };
    eventually("the new topic's route", async || {
        let Ok(Json(route)) = call(name_server, &route).await else {
            return Ok(false);
        };
        Ok(route
            .queue_datas
            .iter()
            .any(|data| data.read_queue_nums == 4 && data.perm == 6))
    })
    .await
}

async fn a_delayed_message_comes_after_its_delay(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("delayed"), target.group("delayed"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let _member = join(broker, "one", &group, &topic).await?;
    let sent = Instant::now();
    send(
        broker,
        &topic,
        0,
        b"later",
        &[(property::DELAY, "1"), (property::TAGS, "t")],
    )
    .await?;
    let record = first_record(broker, &group, &topic).await?;
    // The broker counts whole milliseconds.
    if sent.elapsed() < Duration::from_millis(990) {
        return Err("a message of delay level 1 came within its second".into());
    }
    let facts = (
        record.body.as_ref(),
        record.queue_id,
        record.properties.get(property::TAGS),
    );
    if facts == (b"later", 0, Some("t")) {
        Ok(())
    } else {
        Err(format!("{record:?}").into())
    }
}

async fn a_message_given_back_comes_again_and_dies_at_the_limit(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("back"), target.group("back"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let mut member = join(broker, "one", &group, &topic).await?;
    let sent = send(
        broker,
        &topic,
        0,
        b"again",
        &[(property::TAGS, "t"), (property::UNIQUE_KEY, "U")],
    )
    .await?;
    let give_back = |offset, delay_level| ConsumerSendMsgBack {
        offset,
        group: group.clone(),
        delay_level,
        origin_msg_id: None,
        origin_topic: Some(topic.clone()),
        unit_mode: None,
        max_reconsume_times: Some(1),
    };
    let first: OffsetMessageId = sent.header.msg_id.parse()?;
    member.call(&give_back(first.physical_offset, 1)).await?;
    let retried = first_record(broker, &group, &retry_topic(&group)).await?;
    same_message(&retried, &topic, 1, &sent.header.msg_id)?;

    member.call(&give_back(retried.physical_offset, 1)).await?;
    let dead = first_record(broker, &group, &dlq_topic(&group)).await?;
    same_message(&dead, &topic, 2, &sent.header.msg_id)
}

fn same_message(record: &Record, topic: &str, reconsume_times: i32, origin: &str) -> TestResult {
    let property = |name| record.properties.get(name);
    let facts = (record.body.as_ref(), record.reconsume_times);
    let properties = [
        (property::RETRY_TOPIC, topic),
        (property::ORIGIN_MESSAGE_ID, origin),
        (property::TAGS, "t"),
        (property::UNIQUE_KEY, "U"),
    ];
    for (name, value) in properties {
        if property(name) != Some(value) {
            return Err(format!("{name} is {:?}, not {value}, in {record:?}", property(name)).into());
        }
    }
    if facts == (b"again", reconsume_times) {
        Ok(())
    } else {
        Err(format!("{record:?}").into())
    }
}

async fn members_of_a_group_hear_of_each_other(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("members"), target.group("members"));
    target.create_topic(&topic, 1).await?;
    let broker = target.first_broker().await?;
    let mut first = join(broker, "first", &group, &topic).await?;
    let mut second = join(broker, "second", &group, &topic).await?;
    hears_of(&mut first, &group, &["first", "second"]).await?;

    // One leaves by saying so, one by closing its connection.
    let leave = UnregisterClient {
        client_id: "second".to_owned(),
        producer_group: None,
        consumer_group: Some(group.clone()),
    };
    second.call(&leave).await?;
    hears_of(&mut first, &group, &["first"]).await?;
    let third = join(broker, "third", &group, &topic).await?;
    hears_of(&mut first, &group, &["first", "third"]).await?;
    drop(third);
    hears_of(&mut first, &group, &["first"]).await
}

/// Each change brings a notice at the least; after one of them the members are these.
async fn hears_of(member: &mut Connection, group: &str, wanted: &[&str]) -> TestResult {
    let list = ConsumerListByGroup {
        consumer_group: group.to_owned(),
    };
    loop {
        let notice = member.notice().await?;
        if notice.code != RequestCode::NOTIFY_CONSUMER_IDS_CHANGED.0 {
            return Err(format!("the broker sent request {}", notice.code).into());
        }
        let Json(mut members) = member.call(&list).await?;
        members.consumer_id_list.sort_unstable();
        if members.consumer_id_list == wanted {
            return Ok(());
        }
    }
}
