//! Messages found through the admin client: by id, key, place and time.

use std::time::{Duration, SystemTime};

use integration_tests::{
    scenario::{TestResult, eventually},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    ErrorKind, Message, MessageQueue,
    admin::{KeyQuery, TopicConfig},
};

use crate::{
    administering::{operator, routed},
    inbox::expect,
};

scenarios![
    a_message_is_found_by_either_of_its_ids,
    messages_are_found_by_key,
    messages_are_found_by_place_and_time,
    the_ends_of_a_queue_and_its_times_are_known,
];

async fn a_message_is_found_by_either_of_its_ids(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("by-id");
    let producer = client.producer(target.group("sender")).start().await?;
    let receipt = producer
        .send(Message::new(&topic, "found").tag("t").property("p", "v"))
        .await?;
    let by_place = admin.view_message(&topic, &receipt.offset_message_id).await?;
    expect("body", &by_place.body()[..], b"found")?;
    expect("property", by_place.property("p"), Some("v"))?;
    expect("queue", by_place.queue(), &receipt.queue)?;
    eventually("the message in the index", async || {
        Ok(admin.view_message(&topic, &receipt.message_id).await.is_ok())
    })
    .await?;
    let by_id = admin.view_message(&topic, &receipt.message_id).await?;
    expect(
        "same place",
        by_id.offset_message_id(),
        by_place.offset_message_id(),
    )?;
    let copies = admin
        .query_by_unique_key(&topic, &receipt.message_id)
        .await?
        .complete()?;
    expect("copies", copies.len(), 1)?;
    for absent in ["0123456789ABCDEF0123456789ABCDEF", "no-id"] {
        let error = admin.view_message(&topic, absent).await.expect_err("a refusal");
        expect(absent, error.kind(), ErrorKind::Rejected)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn messages_are_found_by_key(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("by-key");
    let producer = client.producer(target.group("sender")).start().await?;
    for (body, keys) in [("1", &["red", "round"][..]), ("2", &["red"]), ("3", &["redder"])] {
        let message = keys
            .iter()
            .fold(Message::new(&topic, body), |message, key| message.key(key));
        producer.send(message).await?;
    }
    let find = async |key: &str, query: KeyQuery| -> Result<Vec<String>, integration_tests::Failure> {
        let found = admin.query_by_key(&topic, key, query).await?.complete()?;
        let bodies = found
            .iter()
            .map(|message| String::from_utf8_lossy(message.body()).into_owned());
        Ok(bodies.collect())
    };
    let always = KeyQuery::default();
    eventually("the index to have all three", async || {
        Ok(find("redder", always).await? == ["3"] && find("red", always).await?.len() == 2)
    })
    .await?;
    expect("in the order of storing", find("red", always).await?, ["1", "2"])?;
    expect("by a second key", find("round", always).await?, ["1"])?;
    expect("none", find("blue", always).await?.len(), 0)?;
    expect("the newest only", find("red", always.max(1)).await?, ["2"])?;
    let past = always.stored(..SystemTime::now() - Duration::from_secs(3600));
    expect("an hour ago", find("red", past).await?.len(), 0)?;
    client.shutdown().await;
    Ok(())
}

async fn messages_are_found_by_place_and_time(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("by-time");
    admin.create_topic(&TopicConfig::new(&topic, 2)).await?;
    routed(&admin, &topic).await?;
    let producer = client.producer(target.group("sender")).start().await?;
    let mut queues = Vec::new();
    for index in 0..70 {
        let receipt = producer.send(Message::new(&topic, index.to_string())).await?;
        queues.push((receipt.queue, receipt.queue_offset));
    }
    let (queue, offset) = &queues[10];
    eventually("all messages in the queues", async || {
        Ok(admin.messages(&topic, .., 100).await?.complete()?.len() == 70)
    })
    .await?;
    let tenth = admin.message_at(queue, *offset).await?.ok_or("no message")?;
    expect("body", &tenth.body()[..], b"10")?;
    expect(
        "beyond the end",
        admin.message_at(queue, 9999).await?.is_none(),
        true,
    )?;
    let all = admin.messages(&topic, .., 100).await?.complete()?;
    let from = all[30].store_time();
    let later = admin.messages(&topic, from.., 100).await?.complete()?;
    let wanted = all.iter().filter(|message| message.store_time() >= from).count();
    expect("from then on", later.len(), wanted)?;
    let earlier = admin.messages(&topic, ..from, 100).await?.complete()?;
    expect("before", earlier.len(), 70 - wanted)?;
    expect(
        "a few of each queue",
        admin.messages(&topic, .., 3).await?.len(),
        6,
    )?;

    let page = admin.consume_queue(queue, *offset, 3, None).await?;
    expect("entries", page.queue_data.len(), 3)?;
    let place = tenth.offset_message_id().physical_offset;
    expect("place of the first", page.queue_data[0].physic_offset, place)?;
    client.shutdown().await;
    Ok(())
}

async fn the_ends_of_a_queue_and_its_times_are_known(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("ends");
    admin.create_topic(&TopicConfig::new(&topic, 2)).await?;
    routed(&admin, &topic).await?;
    let producer = client.producer(target.group("sender")).start().await?;
    let queues = admin.topic_stats(&topic).await?.complete()?.offset_table;
    let mut queues = queues.into_keys();
    let (full, empty) = (
        queues.next().ok_or("no queue")?,
        queues.next().ok_or("one queue")?,
    );
    for body in ["1", "2", "3"] {
        producer
            .send(Message::new(&topic, body))
            .to_queue(full.clone())
            .await?;
    }
    let ends = async |queue: &MessageQueue| -> Result<(i64, i64), integration_tests::Failure> {
        Ok((admin.min_offset(queue).await?, admin.max_offset(queue).await?))
    };
    eventually("three messages", async || Ok(ends(&full).await? == (0, 3))).await?;
    expect("ends of the empty one", ends(&empty).await?, (0, 0))?;
    let first = admin.message_at(&full, 0).await?.ok_or("no message")?;
    let earliest = admin.earliest_store_time(&full).await?;
    expect("oldest", earliest, Some(first.store_timestamp()))?;
    expect(
        "oldest of the empty one",
        admin.earliest_store_time(&empty).await?,
        None,
    )?;
    let long_ago = first.store_time() - Duration::from_secs(3600);
    expect("an hour ago", admin.search_offset(&full, long_ago).await?, 0)?;
    let stats = admin.topic_stats(&topic).await?.complete()?;
    let counts: Vec<_> = stats.offset_table.values().map(|at| at.max_offset).collect();
    expect("statistics", counts, vec![3, 0])?;
    client.shutdown().await;
    Ok(())
}
