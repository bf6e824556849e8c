//! Topics, groups, settings and permissions through the admin client.

use std::collections::BTreeMap;

use integration_tests::{
    Failure,
    scenario::{TestResult, eventually},
    scenarios,
    target::{Kind, Target},
};
use rocketmq_client::{
    Client, ErrorKind, Message,
    admin::{Admin, PartialFailure, SubscriptionGroupConfig, TopicConfig, permission},
};

use crate::inbox::expect;

scenarios![
    a_topic_is_created_changed_listed_and_deleted,
    attributes_are_changed_one_by_one,
    many_topics_and_groups_are_created_at_once,
    a_group_is_created_changed_and_deleted,
    topics_and_groups_move_to_another_cluster_as_one_document,
    name_servers_keep_values_and_orders_of_queues,
    settings_of_brokers_and_name_servers_are_read_and_changed,
    a_broker_without_write_permission_gets_no_messages,
    what_a_broker_is_too_old_for_is_said_with_its_version,
    a_broker_that_is_gone_neither_hides_the_others_nor_is_hidden,
];

/// A client and its administration.
pub(crate) async fn operator(target: &Target) -> Result<(Client, Admin), Failure> {
    let client = Client::connect(target.name_server()).await?;
    let admin = client.admin();
    Ok((client, admin))
}

/// Whether brokers of this target lack what 5.x has.
pub(crate) fn is_old(target: &Target) -> bool {
    target.kind() == Kind::Rocketmq4
}

/// Polls until a name server has heard of a topic.
pub(crate) async fn routed(admin: &Admin, topic: &str) -> TestResult {
    eventually(&format!("a route of {topic}"), async || {
        match admin.topic_route(topic).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::TopicNotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn a_topic_is_created_changed_listed_and_deleted(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("operated");
    let gone = admin.topic_route(&topic).await.expect_err("a refusal");
    expect("kind", gone.kind(), ErrorKind::TopicNotFound)?;
    let wrong = admin
        .create_topic(&TopicConfig::new("a b", 1))
        .await
        .expect_err("a refusal");
    expect("kind of an illegal name", wrong.kind(), ErrorKind::Config)?;

    for queues in [2, 6] {
        let config = TopicConfig {
            perm: permission::READ | permission::WRITE,
            ..TopicConfig::new(&topic, queues)
        };
        admin.create_topic(&config).await?;
        routed(&admin, &topic).await?;
        for (broker, found) in admin.topic_config(&topic).await?.complete()? {
            let sizes = (found.read_queue_nums, found.write_queue_nums, found.perm);
            expect(&broker, sizes, (queues, queues, 6))?;
        }
        eventually("the route to have the queues", async || {
            let route = admin.topic_route(&topic).await?;
            Ok(route
                .queue_datas
                .iter()
                .all(|data| data.write_queue_nums == queues))
        })
        .await?;
    }
    expect("listed", admin.topics().await?.contains(&topic), true)?;
    let info = admin.cluster_info().await?;
    let clusters: Vec<_> = info.cluster_addr_table.keys().cloned().collect();
    let found: Vec<_> = admin.topic_clusters(&topic).await?.into_iter().collect();
    expect("clusters", &found, &clusters)?;
    let of_cluster = admin.in_cluster(clusters[0].as_str());
    expect(
        "listed in its cluster",
        of_cluster.topics().await?.contains(&topic),
        true,
    )?;
    for (broker, configs) in admin.user_topic_configs(false).await?.complete()? {
        expect(&broker, configs.contains_key(&topic), true)?;
        expect("a system topic", configs.contains_key("TBW102"), false)?;
    }
    let stranger = admin
        .in_cluster("no-such-cluster")
        .topic_configs()
        .await
        .expect_err("a refusal");
    expect("kind of a strange cluster", stranger.kind(), ErrorKind::Config)?;

    admin.delete_topic(&topic).await?;
    eventually("the route to be gone", async || {
        match admin.topic_route(&topic).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::TopicNotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    for (broker, configs) in admin.topic_configs().await?.complete()? {
        expect(&broker, configs.contains_key(&topic), false)?;
    }
    admin.clean_unused_topics().await?;
    admin.clean_expired_consume_queues().await?;
    client.shutdown().await;
    Ok(())
}

async fn attributes_are_changed_one_by_one(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("attributes");
    let attributes = async || -> Result<BTreeMap<String, String>, Failure> {
        let configs = admin.topic_config(&topic).await?.complete()?;
        let config = configs.into_values().next().ok_or("no broker")?;
        Ok(config.attributes)
    };
    let fifo = TopicConfig::new(&topic, 1).attribute("message.type", "FIFO");
    admin
        .create_topic(&fifo.attribute("reserve.time", "60000"))
        .await?;
    routed(&admin, &topic).await?;
    if is_old(target) {
        // 4.9 has no attributes and pays no attention to them.
        expect("attributes", attributes().await?.len(), 0)?;
        client.shutdown().await;
        return Ok(());
    }
    let change = TopicConfig::new(&topic, 1).without_attribute("reserve.time");
    admin
        .create_topic(&change.attribute("message.type", "DELAY"))
        .await?;
    let wanted = BTreeMap::from([("message.type".to_owned(), "DELAY".to_owned())]);
    expect("attributes", &attributes().await?, &wanted)?;
    for (name, value) in [("colour", "red"), ("message.type", "WRONG")] {
        let config = TopicConfig::new(&topic, 1).attribute(name, value);
        let error = admin.create_topic(&config).await.expect_err("a refusal");
        expect(name, error.kind(), ErrorKind::Rejected)?;
    }
    expect("attributes", &attributes().await?, &wanted)?;
    let mapping = admin.topic_mapping(&topic).await?.complete()?;
    expect("a static topic", mapping.values().any(Option::is_some), false)?;
    client.shutdown().await;
    Ok(())
}

async fn many_topics_and_groups_are_created_at_once(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let names: Vec<_> = (0..3)
        .map(|index| target.topic(&format!("many{index}")))
        .collect();
    let topics: Vec<_> = names.iter().map(|name| TopicConfig::new(name, 3)).collect();
    let groups: Vec<_> = names.iter().map(SubscriptionGroupConfig::new).collect();
    // In one request on 5.x, one by one on 4.9.
    admin.create_topics(&topics).await?;
    admin.create_groups(&groups).await?;
    for (broker, found) in admin.topic_configs().await?.complete()? {
        for name in &names {
            let queues = found.get(name).map(|config| config.write_queue_nums);
            expect(&format!("{name} on {broker}"), queues, Some(3))?;
        }
    }
    for (broker, found) in admin.user_group_configs().await?.complete()? {
        expect(&broker, names.iter().all(|name| found.contains_key(name)), true)?;
    }
    client.shutdown().await;
    Ok(())
}

async fn a_group_is_created_changed_and_deleted(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let group = target.group("operated");
    let retries = async || -> Result<Vec<Option<i32>>, Failure> {
        let found = admin.group_config(&group).await?.complete()?;
        let retries = |config: Option<SubscriptionGroupConfig>| config.map(|config| config.retry_max_times);
        Ok(found.into_values().map(retries).collect())
    };
    expect("before", retries().await?.iter().all(Option::is_none), true)?;
    for times in [3, 5] {
        let config = SubscriptionGroupConfig {
            retry_max_times: times,
            consume_broadcast_enable: false,
            ..SubscriptionGroupConfig::new(&group)
        };
        admin.create_group(&config).await?;
        expect(
            "retries",
            retries().await?.iter().all(|found| *found == Some(times)),
            true,
        )?;
    }
    admin.delete_group(&group, true).await?;
    expect("after", retries().await?.iter().all(Option::is_none), true)?;
    client.shutdown().await;
    Ok(())
}

async fn topics_and_groups_move_to_another_cluster_as_one_document(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, group) = (target.topic("moved"), target.group("moved"));
    admin.create_topic(&TopicConfig::new(&topic, 5)).await?;
    let config = SubscriptionGroupConfig {
        retry_max_times: 7,
        ..SubscriptionGroupConfig::new(&group)
    };
    admin.create_group(&config).await?;
    let document = serde_json::to_string(&admin.export_metadata().await?)?;
    client.shutdown().await;

    let other = rocketmq_embedded_broker::EmbeddedBroker::start().await?;
    let client = Client::connect(other.name_server()).await?;
    let admin = client.admin();
    admin.import_metadata(&serde_json::from_str(&document)?).await?;
    let topics = admin.topic_config(&topic).await?.complete()?;
    expect(
        "queues",
        topics
            .values()
            .map(|config| config.read_queue_nums)
            .collect::<Vec<_>>(),
        vec![5],
    )?;
    let groups = admin.group_config(&group).await?.complete()?;
    expect("the group", groups.values().all(Option::is_some), true)?;
    client.shutdown().await;
    other.shutdown().await;
    Ok(())
}

async fn name_servers_keep_values_and_orders_of_queues(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let (topic, namespace) = (target.topic("ordered"), target.topic("namespace"));
    expect("before", admin.kv(&namespace, "k").await?, None)?;
    expect("values before", admin.kv_list(&namespace).await?.len(), 0)?;
    admin.set_kv(&namespace, "k", "v w").await?;
    admin.set_kv(&namespace, "l", "2").await?;
    expect("value", admin.kv(&namespace, "k").await?.as_deref(), Some("v w"))?;
    expect("values", admin.kv_list(&namespace).await?.len(), 2)?;
    admin.delete_kv(&namespace, "k").await?;
    expect("after", admin.kv(&namespace, "k").await?, None)?;

    admin.create_topic(&TopicConfig::new(&topic, 4)).await?;
    expect("order before", admin.order_config(&topic).await?, None)?;
    admin.set_order_config_of_broker(&topic, "broker-x", 4).await?;
    admin.set_order_config_of_broker(&topic, "broker-y", 2).await?;
    let order = BTreeMap::from([("broker-x".to_owned(), 4), ("broker-y".to_owned(), 2)]);
    expect("order", admin.order_config(&topic).await?, Some(order))?;
    // Goes with its topic.
    admin.delete_topic(&topic).await?;
    expect("order after", admin.order_config(&topic).await?, None)?;
    client.shutdown().await;
    Ok(())
}

async fn settings_of_brokers_and_name_servers_are_read_and_changed(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    for (broker, runtime) in admin.broker_runtime().await?.complete()? {
        expect(&broker, runtime.version.starts_with('V'), true)?;
        expect("started", runtime.boot_timestamp > 1_600_000_000_000, true)?;
    }
    let value = async |name: &str| -> Result<Option<String>, Failure> {
        let configs = admin.broker_config().await?.complete()?;
        let config = configs.into_values().next().ok_or("no broker")?;
        Ok(config.get(name).cloned())
    };
    expect(
        "cluster",
        value("brokerClusterName").await?.as_deref(),
        Some("DefaultCluster"),
    )?;
    let before = value("fileReservedTime").await?.ok_or("no such setting")?;
    admin
        .update_broker_config([("fileReservedTime", "71"), ("noSuchSetting", "1")])
        .await?;
    expect("changed", value("fileReservedTime").await?.as_deref(), Some("71"))?;
    admin.update_broker_config([("fileReservedTime", before)]).await?;
    let fixed = admin.update_broker_config([("brokerConfigPath", "/tmp/x")]).await;
    if let Err(error) = fixed {
        // 4.9.7 and 5.x have a list of what cannot be changed.
        expect("kind", error.kind(), ErrorKind::Rejected)?;
    }

    for (address, config) in admin.name_server_config().await.complete()? {
        expect(&address, config.contains_key("listenPort"), true)?;
    }
    expect("name servers", admin.name_servers(), vec![target.name_server()])?;
    admin.update_name_server_config([("clusterTest", "true")]).await?;
    let configs = admin.name_server_config().await.complete()?;
    let changed = configs.values().all(|config| config["clusterTest"] == "true");
    expect("changed on all name servers", changed, true)?;
    admin
        .update_name_server_config([("clusterTest", "false")])
        .await?;
    let unknown = admin
        .broker_stats("NO_SUCH_COUNTER", "nothing")
        .await?
        .complete()?;
    expect("counted", unknown.values().any(Option::is_some), false)?;
    client.shutdown().await;
    Ok(())
}

async fn a_broker_without_write_permission_gets_no_messages(target: &Target) -> TestResult {
    // Taking the permission concerns all topics, so the servers must be this scenario's own.
    let servers = target.pair().await?;
    let client = Client::connect(servers.name_server()).await?;
    let admin = client.admin();
    let topic = target.topic("wiped");
    admin.create_topic(&TopicConfig::new(&topic, 1)).await?;
    let info = admin.cluster_info().await?;
    let broker = info.broker_addr_table.keys().next().ok_or("no broker")?;
    eventually("both brokers in the route", async || {
        Ok(admin
            .topic_route(&topic)
            .await
            .is_ok_and(|route| route.queue_datas.len() == 2))
    })
    .await?;
    let writable = async || -> Result<Vec<String>, Failure> {
        let route = admin.topic_route(&topic).await?;
        let writable = route
            .queue_datas
            .into_iter()
            .filter(|data| data.perm & permission::WRITE != 0);
        Ok(writable.map(|data| data.broker_name).collect())
    };
    let wiped = admin.wipe_write_permission(broker).await.complete()?;
    expect("topics without it", wiped.values().all(|count| *count > 0), true)?;
    let left = writable().await?;
    expect("brokers that can be written", left.len(), 1)?;
    let producer = client.producer(target.group("wiped")).start().await?;
    for _ in 0..4 {
        let receipt = producer.send(Message::new(&topic, "x")).await?;
        expect(
            "broker of a message",
            &*receipt.queue.broker_name,
            left[0].as_str(),
        )?;
    }
    let added = admin.add_write_permission(broker).await.complete()?;
    expect(
        "topics with it again",
        added.values().all(|count| *count > 0),
        true,
    )?;
    expect("brokers that can be written", writable().await?.len(), 2)?;
    client.shutdown().await;
    Ok(())
}

async fn what_a_broker_is_too_old_for_is_said_with_its_version(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let topic = target.topic("young");
    admin.create_topic(&TopicConfig::new(&topic, 1)).await?;
    routed(&admin, &topic).await?;
    let answer = admin
        .group_may_read(&target.group("young"), &topic)
        .await?
        .complete();
    if !is_old(target) {
        answer?;
        client.shutdown().await;
        return Ok(());
    }
    let error = answer.expect_err("a refusal");
    expect("kind", error.kind(), ErrorKind::Unsupported)?;
    let text = error.to_string();
    expect(
        &text,
        text.contains("V4_9_7") && text.contains("5.0 and newer"),
        true,
    )?;
    client.shutdown().await;
    Ok(())
}

async fn a_broker_that_is_gone_neither_hides_the_others_nor_is_hidden(target: &Target) -> TestResult {
    let servers = target.pair().await?;
    let client = Client::connect(servers.name_server()).await?;
    let admin = client.admin();
    let topic = target.topic("half");
    admin.create_topic(&TopicConfig::new(&topic, 1)).await?;
    eventually("both brokers in the route", async || {
        Ok(admin
            .topic_route(&topic)
            .await
            .is_ok_and(|route| route.queue_datas.len() == 2))
    })
    .await?;
    // Frozen: the name server still tells of it.
    servers.freeze(1).await?;
    let admin = admin.timeout(std::time::Duration::from_secs(2));
    let stats = admin.topic_stats(&topic).await?;
    expect("queues", stats.offset_table.len(), 1)?;
    let failures: Vec<_> = stats
        .failures()
        .values()
        .map(rocketmq_client::Error::kind)
        .collect();
    expect("failures", failures, vec![ErrorKind::Timeout])?;
    let error = admin
        .create_topic(&TopicConfig::new(&topic, 2))
        .await
        .expect_err("a refusal");
    expect("kind", error.kind(), ErrorKind::Timeout)?;
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<PartialFailure>());
    let partial = source.ok_or("no list of who failed")?;
    expect(
        "done and failed",
        (partial.done().len(), partial.failures().len()),
        (1, 1),
    )?;
    servers.thaw(1).await?;
    client.shutdown().await;
    Ok(())
}
