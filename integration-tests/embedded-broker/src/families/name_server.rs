//! The name server's own configuration, and what operators do to routes.
//!
//! Protocol source: `DefaultRequestProcessor`.

use rocketmq_client::protocol::bodies::{TopicList, permission};
use rocketmq_client::protocol::requests::{
    AddWritePermission, AddedTopics, ConfigText, NameServerConfig, SystemTopicsOfNameServer,
    UnitSubscribedForeignTopics, UnitSubscribedTopics, UnitTopics, UpdateNameServerConfig,
    WipeWritePermission, WipedTopics,
};
use rocketmq_client::protocol::{Done, Json};

use super::admin::update;
use crate::broker::Broker;
use crate::server::{Context, Refusal};

pub(super) fn config(context: Context<'_>, _: NameServerConfig) -> Result<ConfigText, Refusal> {
    Ok(ConfigText(context.broker.name_server_settings.text().0))
}

pub(super) fn update_config(context: Context<'_>, request: UpdateNameServerConfig) -> Result<Done, Refusal> {
    let broker = context.broker;
    update(&broker.name_server_settings, &request.body, broker.clock.now())?;
    Ok(Done)
}

pub(super) fn wipe_write(context: Context<'_>, request: WipeWritePermission) -> Result<WipedTopics, Refusal> {
    let broker = context.broker;
    let count = if request.broker_name == broker.options.broker_name {
        broker.route_permissions.wipe(broker.topics.all())
    } else {
        let wipe = |perm: i32| perm & !permission::WRITE;
        broker.registry.change_permissions(&request.broker_name, wipe)
    };
    Ok(WipedTopics {
        wipe_topic_count: count_of(count),
    })
}

pub(super) fn add_write(context: Context<'_>, request: AddWritePermission) -> Result<AddedTopics, Refusal> {
    let broker = context.broker;
    let count = if request.broker_name == broker.options.broker_name {
        broker.route_permissions.add(broker.topics.all())
    } else {
        let all = |_| permission::READ | permission::WRITE;
        broker.registry.change_permissions(&request.broker_name, all)
    };
    Ok(AddedTopics {
        add_topic_count: count_of(count),
    })
}

fn count_of(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The names of clusters and brokers, which are topics too.
pub(super) fn system_topics(
    context: Context<'_>,
    _: SystemTopicsOfNameServer,
) -> Result<Json<TopicList>, Refusal> {
    let broker = context.broker;
    let mut topic_list = vec![
        broker.options.cluster_name.clone(),
        broker.options.broker_name.clone(),
    ];
    for other in broker.registry.brokers() {
        topic_list.extend([other.cluster, other.broker_name]);
    }
    topic_list.sort();
    topic_list.dedup();
    Ok(Json(TopicList {
        broker_addr: Some(broker.address.to_string()),
        topic_list,
    }))
}

/// Bits of a topic's flag. Java: `TopicSysFlag`.
const UNIT: i32 = 1;
const UNIT_SUBSCRIBED: i32 = 2;

fn units(broker: &Broker, wanted: impl Fn(i32) -> bool) -> Json<TopicList> {
    let topics = broker.topics.all().into_iter();
    let mut topic_list: Vec<_> = topics
        .filter(|topic| wanted(topic.config.topic_sys_flag))
        .map(|topic| topic.name.to_string())
        .collect();
    topic_list.sort();
    Json(TopicList {
        topic_list,
        ..TopicList::default()
    })
}

pub(super) fn unit_topics(context: Context<'_>, _: UnitTopics) -> Result<Json<TopicList>, Refusal> {
    Ok(units(context.broker, |flag| flag & UNIT != 0))
}

pub(super) fn unit_subscribed(
    context: Context<'_>,
    _: UnitSubscribedTopics,
) -> Result<Json<TopicList>, Refusal> {
    Ok(units(context.broker, |flag| flag & UNIT_SUBSCRIBED != 0))
}

pub(super) fn unit_subscribed_foreign(
    context: Context<'_>,
    _: UnitSubscribedForeignTopics,
) -> Result<Json<TopicList>, Refusal> {
    Ok(units(context.broker, |flag| {
        flag & UNIT_SUBSCRIBED != 0 && flag & UNIT == 0
    }))
}
