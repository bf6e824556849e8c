//! Members, progress and offsets of groups through the admin client.

use std::time::{Duration, SystemTime};

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ErrorKind, Message, MessageQueue, SendReceipt,
    admin::{Admin, ResetTo, SubscriptionGroupConfig, TopicConfig, TrackState},
};

use crate::{
    administering::{is_old, operator, routed},
    inbox::{Inbox, expect},
};

scenarios![
    a_member_is_seen_with_its_subscriptions_and_asked_for_its_state,
    a_message_is_consumed_directly_whatever_the_offsets_are,
    producers_are_seen_by_group,
    lag_follows_what_is_sent_and_committed,
    a_group_without_members_is_reset_to_any_place,
    a_group_with_members_consumes_again_what_it_is_reset_to,
    offsets_are_cloned_from_one_group_to_another,
    a_group_that_may_not_read_a_topic_gets_nothing_of_it,
];

/// A topic with messages in its only queue.
async fn filled(
    target: &Target,
    client: &Client,
    admin: &Admin,
    count: usize,
) -> Result<(String, Vec<SendReceipt>), Failure> {
    let topic = target.topic("filled");
    admin.create_topic(&TopicConfig::new(&topic, 1)).await?;
    routed(admin, &topic).await?;
    let producer = client.producer(target.group("filler")).start().await?;
    let mut receipts = Vec::new();
    for index in 0..count {
        receipts.push(producer.send(Message::new(&topic, index.to_string())).await?);
    }
    Ok((topic, receipts))
}

async fn a_member_is_seen_with_its_subscriptions_and_asked_for_its_state(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, receipts) = filled(target, &client, &admin, 3).await?;
    let queue = &receipts[0].queue;
    let group = target.group("seen");
    let offline = admin.consumer_connection(&group).await.expect_err("a refusal");
    expect("kind before", offline.kind(), ErrorKind::Rejected)?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    inbox.bodies(3).await?;

    eventually("the member", async || {
        match admin.consumer_connection(&group).await {
            Ok(members) => Ok(members.complete()?.connection_set.len() == 1),
            Err(error) if error.kind() == ErrorKind::Rejected => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let members = admin.consumer_connection(&group).await?.complete()?;
    let ids: Vec<_> = members
        .connection_set
        .iter()
        .map(|one| one.client_id.as_str())
        .collect();
    expect("members", ids, vec![client.client_id()])?;
    expect(
        "subscribed",
        members.subscription_table.contains_key(&topic),
        true,
    )?;
    let groups = admin.groups_of_topic(&topic).await?.complete()?;
    expect("groups of the topic", groups.contains(&group), true)?;

    let info = admin
        .consumer_running_info(&group, client.client_id(), false)
        .await?;
    expect("queues of the member", info.mq_table.0.contains_key(queue), true)?;
    expect(
        "its type",
        info.properties.get("PROP_CONSUME_TYPE").map(String::as_str),
        Some("CONSUME_PASSIVELY"),
    )?;
    eventually("the member to have done with all three", async || {
        let status = admin.consumer_status(&group, &topic, None).await?.complete()?;
        let offsets = status.get(client.client_id());
        Ok(offsets.and_then(|offsets| offsets.get(queue)) == Some(&3))
    })
    .await?;
    let stranger = admin
        .consumer_running_info(&group, "nobody", false)
        .await
        .expect_err("a refusal");
    expect("kind of a stranger", stranger.kind(), ErrorKind::Rejected)?;

    if !is_old(target) {
        let subscription = admin.subscription(&group, &topic).await?.complete()?;
        let subscription = subscription.ok_or("no subscription")?;
        expect("expression", subscription.sub_string.as_str(), "*")?;
        eventually("the topic among those of the group", async || {
            Ok(admin.topics_of_group(&group).await?.complete()?.contains(&topic))
        })
        .await?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_message_is_consumed_directly_whatever_the_offsets_are(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, receipts) = filled(target, &client, &admin, 2).await?;
    let group = target.group("direct");
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    inbox.bodies(2).await?;
    let message = admin.view_message(&topic, &receipts[0].offset_message_id).await?;
    expect("id", message.message_id(), receipts[0].message_id.clone())?;
    let result = admin
        .consume_message_directly(&group, client.client_id(), &message)
        .await?;
    expect("result", result.consume_result.as_str(), "CR_SUCCESS")?;
    expect(
        "again",
        inbox.next().await?.message_id(),
        receipts[0].message_id.clone(),
    )?;
    let nobody = admin
        .consume_message_directly(&group, "nobody", &message)
        .await
        .expect_err("a refusal");
    expect("kind", nobody.kind(), ErrorKind::Rejected)?;

    eventually("the group to have consumed it", async || {
        let tracks = admin.message_tracks(&message).await?;
        let track = tracks.iter().find(|track| track.group == group);
        Ok(track.is_some_and(|track| track.state == TrackState::Consumed))
    })
    .await?;
    client.shutdown().await;
    let (client, admin) = operator(target).await?;
    eventually("the group to be offline", async || {
        let tracks = admin.message_tracks(&message).await?;
        let track = tracks.iter().find(|track| track.group == group);
        Ok(track.is_some_and(|track| track.state == TrackState::NotOnline))
    })
    .await?;
    client.shutdown().await;
    Ok(())
}

async fn producers_are_seen_by_group(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, group) = (target.topic("sent"), target.group("seen"));
    let producer = client.producer(&group).start().await?;
    producer.send(Message::new(&topic, "x")).await?;
    let is_this = |id: &str| id == client.client_id();
    eventually("the producer", async || {
        match admin.producer_connection(&group, &topic).await {
            Ok(found) => Ok(found
                .complete()?
                .connection_set
                .iter()
                .any(|one| is_this(&one.client_id))),
            Err(error) if error.kind() == ErrorKind::Rejected => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    for (broker, groups) in admin.producers().await?.complete()? {
        let found = groups.get(&group).and_then(|found| found.first());
        expect(&broker, found.is_some_and(|one| is_this(&one.client_id)), true)?;
    }
    let nobody = admin
        .producer_connection(&target.group("nobody"), &topic)
        .await
        .expect_err("a refusal");
    expect("kind", nobody.kind(), ErrorKind::Rejected)?;
    client.shutdown().await;
    Ok(())
}

async fn lag_follows_what_is_sent_and_committed(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, receipts) = filled(target, &client, &admin, 5).await?;
    let queue = &receipts[0].queue;
    let group = target.group("lagging");
    admin.create_group(&SubscriptionGroupConfig::new(&group)).await?;
    // 4.9 says 0 of a young queue.
    let before = if is_old(target) { Some(0) } else { None };
    expect(
        "committed before",
        admin.committed_offset(&group, queue).await?,
        before,
    )?;
    for (offset, lag) in [(0, 5), (4, 1), (2, 3), (5, 0)] {
        admin.set_offset(&group, queue, offset).await?;
        expect(
            "committed",
            admin.committed_offset(&group, queue).await?,
            Some(offset),
        )?;
        eventually("the statistics to follow", async || {
            let stats = admin.consume_stats_of(&group, &topic).await?.complete()?;
            let at = stats
                .queue(queue)
                .map(|at| (at.broker_offset, at.consumer_offset));
            Ok(at == Some((5, offset)) && stats.lag() == lag)
        })
        .await?;
    }
    let newest = admin.message_at(queue, 4).await?.ok_or("no message")?;
    let spans = admin.consume_time_spans(&group, &topic).await?.complete()?;
    expect("queues", spans.len(), 1)?;
    let times = (spans[0].max_time_stamp, spans[0].consume_time_stamp);
    expect(
        "times",
        times,
        (newest.store_timestamp(), newest.store_timestamp()),
    )?;
    expect("delay", spans[0].delay_time, 0)?;
    for (broker, all) in admin.all_consume_stats().await?.complete()? {
        let stats = all
            .consume_stats_list
            .iter()
            .find_map(|groups| groups.get(&group));
        expect(
            &broker,
            stats.is_some_and(|stats| stats.iter().all(|one| one.lag() == 0)),
            true,
        )?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_group_without_members_is_reset_to_any_place(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, receipts) = filled(target, &client, &admin, 4).await?;
    let queue = &receipts[0].queue;
    let group = target.group("moved");
    admin.create_group(&SubscriptionGroupConfig::new(&group)).await?;
    admin.set_offset(&group, queue, 2).await?;
    let committed = async || admin.committed_offset(&group, queue).await;

    let first_time = admin
        .message_at(queue, 0)
        .await?
        .ok_or("no message")?
        .store_time();
    for (to, offset) in [
        (ResetTo::Last, 4),
        (ResetTo::First, 0),
        (ResetTo::Time(first_time - Duration::from_secs(3600)), 0),
    ] {
        let moved = admin.reset_offsets(&group, &topic, to).await?.complete()?;
        expect("moved", moved.get(queue).copied(), Some(offset))?;
        expect("committed", committed().await?, Some(offset))?;
    }
    // After the newest message: 5.x goes behind it, 4.9 to it.
    let later = SystemTime::now() + Duration::from_secs(3600);
    let moved = admin
        .reset_offsets(&group, &topic, ResetTo::Time(later))
        .await?
        .complete()?;
    let wanted = if is_old(target) { 3 } else { 4 };
    expect("moved after the end", moved.get(queue).copied(), Some(wanted))?;

    admin.reset_queue_offset(&group, queue, 1).await?;
    expect("one queue", committed().await?, Some(1))?;
    let forward = admin
        .rewind_offsets(&group, &topic, ResetTo::Last)
        .await?
        .complete()?;
    expect("never forward", (forward.len(), committed().await?), (0, Some(1)))?;
    let back = admin
        .rewind_offsets(&group, &topic, ResetTo::First)
        .await?
        .complete()?;
    expect(
        "back",
        (back.get(queue).copied(), committed().await?),
        (Some(0), Some(0)),
    )?;
    if !is_old(target) {
        let outside = admin
            .reset_queue_offset(&group, queue, 99)
            .await
            .expect_err("a refusal");
        expect("kind outside", outside.kind(), ErrorKind::Rejected)?;
        let stranger = admin
            .reset_offsets(&target.group("stranger"), &topic, ResetTo::First)
            .await;
        expect(
            "kind of a stranger",
            stranger.expect_err("a refusal").kind(),
            ErrorKind::Rejected,
        )?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_group_with_members_consumes_again_what_it_is_reset_to(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, receipts) = filled(target, &client, &admin, 3).await?;
    let group = target.group("again");
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("first", inbox.bodies(3).await?, ["0", "1", "2"])?;
    // A reset of a group that has committed nothing yet is one of a group without members on 4.9.
    eventually("the commit", async || {
        Ok(admin.committed_offset(&group, &receipts[0].queue).await? == Some(3))
    })
    .await?;
    admin
        .reset_offsets(&group, &topic, ResetTo::First)
        .await?
        .complete()?;
    expect("again", inbox.bodies(3).await?, ["0", "1", "2"])?;
    client.shutdown().await;
    Ok(())
}

async fn offsets_are_cloned_from_one_group_to_another(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, receipts) = filled(target, &client, &admin, 4).await?;
    let queue: &MessageQueue = &receipts[0].queue;
    let (from, one, all) = (target.group("from"), target.group("one"), target.group("all"));
    for group in [&from, &one, &all] {
        admin.create_group(&SubscriptionGroupConfig::new(group)).await?;
    }
    admin.set_offset(&from, queue, 3).await?;
    admin.clone_group_offset(&from, &one, Some(&topic)).await?;
    admin.clone_group_offset(&from, &all, None).await?;
    for group in [&one, &all] {
        expect(group, admin.committed_offset(group, queue).await?, Some(3))?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_group_that_may_not_read_a_topic_gets_nothing_of_it(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, _) = filled(target, &client, &admin, 1).await?;
    let group = target.group("forbidden");
    admin.create_group(&SubscriptionGroupConfig::new(&group)).await?;
    if is_old(target) {
        let error = admin
            .set_group_may_read(&group, &topic, false)
            .await
            .expect_err("a refusal");
        expect("kind", error.kind(), ErrorKind::Unsupported)?;
        client.shutdown().await;
        return Ok(());
    }
    let may = async || -> Result<bool, Failure> {
        Ok(admin
            .group_may_read(&group, &topic)
            .await?
            .complete()?
            .into_values()
            .all(|may| may))
    };
    expect("before", may().await?, true)?;
    admin.set_group_may_read(&group, &topic, false).await?;
    expect("forbidden", may().await?, false)?;
    admin.set_group_may_read(&group, &topic, true).await?;
    expect("allowed again", may().await?, true)?;
    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    expect("messages", inbox.bodies(1).await?, ["0"])?;
    client.shutdown().await;
    Ok(())
}
