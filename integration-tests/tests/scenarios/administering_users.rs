//! Users, policies and accounts through the admin client, and Apache RocketMQ's own `mqadmin` beside it.

use std::collections::BTreeMap;

use integration_tests::{
    Failure,
    mqadmin::MqAdmin,
    scenario::{TestResult, eventually, skip},
    scenarios,
    target::{
        Kind, Target,
        secure::{ADMIN, SecureServer, Theme, account},
    },
};
use rocketmq_client::{
    Client, ErrorKind, Message,
    admin::{
        Account, AclEntry, AclInfo, AclPolicy, Admin, SubscriptionGroupConfig, TopicConfig, TopicRouteData,
        UserInfo,
    },
    protocol::JsonBody,
};

use crate::{
    administering::{is_old, operator, routed},
    inbox::{Inbox, expect},
};

scenarios![
    users_and_policies_are_created_changed_and_deleted,
    accounts_are_created_changed_and_deleted,
    mqadmin_prints_what_the_typed_results_say,
    what_mqadmin_creates_is_found,
];

async fn administrator(target: &Target) -> Result<(std::sync::Arc<SecureServer>, Client, Admin), Failure> {
    if target.kind() == Kind::Embedded {
        return Err(skip(
            "an embedded broker's accounts are those it was started with",
        ));
    }
    let server = SecureServer::start(target, Theme::Accounts).await?;
    let client = Client::builder(server.name_server())
        .credentials(account(ADMIN))
        .connect()
        .await?;
    let admin = client.admin();
    Ok((server, client, admin))
}

async fn users_and_policies_are_created_changed_and_deleted(target: &Target) -> TestResult {
    let (_server, client, admin) = administrator(target).await?;
    if is_old(target) {
        let error = admin.users(None).await?.complete().expect_err("a refusal");
        expect("kind", error.kind(), ErrorKind::Unsupported)?;
        expect(&error.to_string(), error.to_string().contains("V4_9_7"), true)?;
        client.shutdown().await;
        return Ok(());
    }
    let name = "operated-user";
    let user = UserInfo {
        username: name.to_owned(),
        password: Some("pass-word-1".into()),
        user_type: Some("Normal".to_owned()),
        user_status: Some("enable".to_owned()),
    };
    let found = async || -> Result<Option<UserInfo>, Failure> {
        Ok(admin.user(name).await?.complete()?.into_values().next().flatten())
    };
    expect("before", found().await?, None)?;
    admin.create_user(&user).await?;
    let status = found().await?.and_then(|user| user.user_status);
    expect("status", status.as_deref(), Some("enable"))?;
    let change = UserInfo {
        user_status: Some("disable".to_owned()),
        ..user.clone()
    };
    admin.update_user(&change).await?;
    let status = found().await?.and_then(|user| user.user_status);
    expect("status", status.as_deref(), Some("disable"))?;
    for (broker, users) in admin.users(Some("operated")).await?.complete()? {
        let names: Vec<_> = users.iter().map(|user| user.username.as_str()).collect();
        expect(&broker, names, vec![name])?;
    }

    let subject = format!("User:{name}");
    let acl = |actions: &[&str]| AclInfo {
        subject: subject.clone(),
        policies: vec![AclPolicy {
            policy_type: Some("Custom".to_owned()),
            entries: vec![AclEntry {
                resource: Some("Topic:orders".to_owned()),
                actions: actions.iter().map(ToString::to_string).collect(),
                source_ips: None,
                decision: Some("Allow".to_owned()),
            }],
        }],
    };
    admin.create_acl(&acl(&["Pub"])).await?;
    admin.update_acl(&acl(&["Pub", "Sub"])).await?;
    for (broker, found) in admin.acl(&subject).await?.complete()? {
        let policies = found.ok_or("no policies")?.policies;
        let actions = policies[0].entries[0].actions.len();
        expect(&broker, actions, 2)?;
    }
    for (broker, acls) in admin.acls(Some(&subject), None).await?.complete()? {
        expect(&broker, acls.len(), 1)?;
    }
    admin.delete_acl(&subject, None).await?;
    for (broker, acls) in admin.acls(Some(&subject), None).await?.complete()? {
        expect(
            &broker,
            acls.iter().map(|acl| acl.policies.len()).sum::<usize>(),
            0,
        )?;
    }
    admin.delete_user(name).await?;
    expect("after", found().await?, None)?;
    client.shutdown().await;
    Ok(())
}

async fn accounts_are_created_changed_and_deleted(target: &Target) -> TestResult {
    let (_server, client, admin) = administrator(target).await?;
    let account = Account {
        access_key: "operated-account".to_owned(),
        secret_key: "pass-word-1".into(),
        default_topic_perm: Some("PUB|SUB".to_owned()),
        default_group_perm: Some("SUB".to_owned()),
        topic_perms: Some(vec!["orders=DENY".to_owned(), "bills=SUB".to_owned()]),
        ..Account::default()
    };
    if !is_old(target) {
        let error = admin.set_account(&account).await.expect_err("a refusal");
        expect("kind", error.kind(), ErrorKind::Unsupported)?;
        client.shutdown().await;
        return Ok(());
    }
    let version = admin.accounts_version().await?.complete()?;
    admin.set_account(&account).await?;
    eventually("the accounts to have changed", async || {
        Ok(admin.accounts_version().await?.complete()? != version)
    })
    .await?;
    admin.delete_account("operated-account").await?;
    let error = admin
        .delete_account("no-such-account")
        .await
        .expect_err("a refusal");
    expect("kind", error.kind(), ErrorKind::Rejected)?;
    client.shutdown().await;
    Ok(())
}

/// The words of the lines that are not headings.
fn rows(printed: &str) -> Vec<Vec<&str>> {
    let lines = printed.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_whitespace().collect())
        .filter(|words: &Vec<_>| !words.is_empty())
        .collect()
}

async fn mqadmin_prints_what_the_typed_results_say(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let java = MqAdmin::new(target.name_server())?;
    let (topic, group) = (target.topic("printed"), target.group("printed"));
    admin.create_topic(&TopicConfig::new(&topic, 2)).await?;
    routed(&admin, &topic).await?;
    let producer = client.producer(&group).start().await?;
    for index in 0..5 {
        producer.send(Message::new(&topic, index.to_string())).await?;
    }

    let printed = java.run("topicRoute", &["-t", &topic]).await?;
    let json = printed
        .find('{')
        .zip(printed.rfind('}'))
        .and_then(|(from, to)| printed.get(from..=to));
    let mut route = TopicRouteData::from_body(json.ok_or_else(|| printed.clone())?.as_bytes())?;
    route.sort();
    expect("route", &route, &admin.topic_route(&topic).await?)?;

    eventually("the producer", async || {
        match admin.producer_connection(&group, &topic).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Rejected => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let printed = java
        .run("producerConnection", &["-g", &group, "-t", &topic])
        .await?;
    let connected = admin.producer_connection(&group, &topic).await?.complete()?;
    for one in &connected.connection_set {
        expect(&printed, printed.contains(&one.client_id), true)?;
    }
    expect("producers", connected.connection_set.len(), 1)?;
    if is_old(target) {
        // The 5.x tool asks brokers for static topics before it prints statistics, which 4.9 does not understand.
        client.shutdown().await;
        return Ok(());
    }

    let printed = java.run("topicStatus", &["-t", &topic]).await?;
    let stats = admin.topic_stats(&topic).await?.complete()?;
    let wanted: BTreeMap<_, _> = stats
        .offset_table
        .iter()
        .map(|(queue, at)| {
            (
                queue.queue_id.to_string(),
                (at.min_offset.to_string(), at.max_offset.to_string()),
            )
        })
        .collect();
    let mut found = BTreeMap::new();
    for row in rows(&printed) {
        if let [_, queue, min, max, ..] = row[..]
            && queue.parse::<i32>().is_ok()
        {
            found.insert(queue.to_owned(), (min.to_owned(), max.to_owned()));
        }
    }
    expect("statistics of the topic", &found, &wanted)?;

    let mut inbox = Inbox::open(&client, &group, &topic, "*").await?;
    inbox.bodies(5).await?;
    inbox.consumer.shutdown().await;
    producer.send(Message::new(&topic, "one more")).await?;
    let stats = admin.consume_stats_of(&group, &topic).await?.complete()?;
    expect("lag", stats.lag(), 1)?;
    let printed = java
        .run("consumerProgress", &["-g", &group, "-t", &topic])
        .await?;
    let total = printed.lines().find_map(|line| {
        line.strip_prefix("Consume Diff Total:")
            .or_else(|| line.strip_prefix("Diff Total:"))
    });
    let total = total.map(|total| total.trim().split(' ').next().unwrap_or_default());
    expect(&printed, total, Some("1"))?;
    client.shutdown().await;
    Ok(())
}

async fn what_mqadmin_creates_is_found(target: &Target) -> TestResult {
    let (client, admin) = operator(target).await?;
    let java = MqAdmin::new(target.name_server())?;
    let (topic, group) = (target.topic("foreign"), target.group("foreign"));
    let info = admin.cluster_info().await?;
    let cluster = info.cluster_addr_table.keys().next().ok_or("no cluster")?;
    java.run(
        "updateTopic",
        &["-c", cluster, "-t", &topic, "-r", "3", "-w", "5"],
    )
    .await?;
    for (broker, config) in admin.topic_config(&topic).await?.complete()? {
        let queues = (config.read_queue_nums, config.write_queue_nums);
        expect(&broker, queues, (3, 5))?;
    }
    java.run("updateSubGroup", &["-c", cluster, "-g", &group, "-r", "4"])
        .await?;
    for (broker, config) in admin.group_config(&group).await?.complete()? {
        let times = config.map(|config| (config.retry_max_times, config.consume_enable));
        expect(&broker, times.map(|(_, enabled)| enabled), Some(true))?;
    }
    java.run("updateKvConfig", &["-s", &topic, "-k", "k", "-v", "v"])
        .await?;
    expect("value", admin.kv(&topic, "k").await?.as_deref(), Some("v"))?;

    // And the other way round.
    let config = SubscriptionGroupConfig::new(target.group("ours"));
    admin.create_group(&config).await?;
    admin.delete_topic(&topic).await?;
    eventually("the topic to be gone for the tool", async || {
        Ok(!java
            .run("topicList", &[])
            .await?
            .lines()
            .any(|line| line.trim() == topic))
    })
    .await?;
    client.shutdown().await;
    Ok(())
}
