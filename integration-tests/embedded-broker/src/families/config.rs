//! Creating, showing and deleting topics and groups.
//!
//! Protocol source: `AdminBrokerProcessor`.

use rocketmq_client::protocol::bodies::{
    GroupConfigList, SubscriptionGroupConfig, SubscriptionGroupTable, TopicConfig, TopicConfigAndMapping,
    TopicConfigList, TopicConfigTable,
};
use rocketmq_client::protocol::names::{check_topic, is_system_topic, retry_topic};
use rocketmq_client::protocol::requests::{
    AllGroupConfig, AllTopicConfig, CreateGroup, CreateGroups, CreateTopic, CreateTopics, DeleteGroup,
    DeleteTopic, GetGroupConfig, GetTopicConfig,
};
use rocketmq_client::protocol::{BrokerVersion, Done, Json, JsonBody, PopTopic, ResponseCode};

use super::send::{no_group, too_many_topics};
use crate::broker::Broker;
use crate::server::{Context, Refusal, unreadable};
use crate::state::{MAX_QUEUES, alter_attributes, is_legal_group, parse_attributes};

/// How large the configuration of one group, or the attributes of one topic, may be.
const MAX_CONFIG_BYTES: usize = 64 * 1024;

fn invalid(remark: String) -> Refusal {
    Refusal::new(ResponseCode::INVALID_PARAMETER, remark)
}

pub(super) fn create_topic(context: Context<'_>, request: CreateTopic) -> Result<Done, Refusal> {
    let changes = parse_attributes(request.attributes.as_deref().unwrap_or_default()).map_err(failed)?;
    put_topic(
        context,
        TopicConfig {
            attributes: changes,
            order: request.order,
            perm: request.perm,
            read_queue_nums: request.read_queue_nums,
            topic_filter_type: request.topic_filter_type,
            topic_name: request.topic,
            topic_sys_flag: request.topic_sys_flag.unwrap_or(0),
            write_queue_nums: request.write_queue_nums,
        },
    )
}

/// A list is created as far as it is good: what comes behind a topic that is refused is not looked at.
pub(super) fn create_topics(context: Context<'_>, request: CreateTopics) -> Result<Done, Refusal> {
    let list = TopicConfigList::from_body(&request.body).map_err(unreadable)?;
    for config in &list.topic_config_list {
        check_config(config)?;
    }
    for config in list.topic_config_list {
        put_topic(context, config)?;
    }
    Ok(Done)
}

fn failed(remark: String) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
}

fn check_config(config: &TopicConfig) -> Result<(), Refusal> {
    let topic = &config.topic_name;
    if let Err(error) = check_topic(topic) {
        return Err(invalid(error.to_string()));
    }
    if is_system_topic(topic) {
        return Err(invalid(format!(
            "The topic[{topic}] is conflict with system topic."
        )));
    }
    for queues in [config.read_queue_nums, config.write_queue_nums] {
        if !(0..=MAX_QUEUES).contains(&queues) {
            return Err(invalid(format!(
                "{queues} queues of topic {topic}: this broker has 0 to {MAX_QUEUES}"
            )));
        }
    }
    let attributes_len: usize = config
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if attributes_len > MAX_CONFIG_BYTES {
        return Err(invalid(format!(
            "attributes of {attributes_len} bytes: this broker takes {MAX_CONFIG_BYTES}"
        )));
    }
    Ok(())
}

/// Creates or changes a topic; its attributes are changes.
fn put_topic(context: Context<'_>, config: TopicConfig) -> Result<Done, Refusal> {
    check_config(&config)?;
    let broker = context.broker;
    let known = broker.topics.get(&config.topic_name);
    let current = known.as_ref().map(|topic| &topic.config.attributes);
    let attributes = alter_attributes(current, &config.attributes).map_err(failed)?;
    broker
        .topics
        .put(TopicConfig { attributes, ..config }, broker.clock.now())
        .map_err(|_| too_many_topics())?;
    Ok(Done)
}

pub(super) fn delete_topic(context: Context<'_>, request: DeleteTopic) -> Result<Done, Refusal> {
    if request.topic.trim().is_empty() {
        return Err(invalid("The specified topic is blank.".to_owned()));
    }
    if is_system_topic(&request.topic) {
        return Err(invalid(format!(
            "The topic[{}] is conflict with system topic.",
            request.topic
        )));
    }
    let broker = context.broker;
    if broker.options.version >= BrokerVersion::V5_0_0 {
        delete_pop_retries(broker, &request.topic);
    }
    broker.delete_topic(&request.topic);
    Ok(Done)
}

/// The topics through which groups would pop messages of this one again. Java: `clearRetryTopicWhenDeleteTopic`.
fn delete_pop_retries(broker: &Broker, topic: &str) {
    for group in broker.offsets.groups_of(topic) {
        for version in [PopTopic::RetryV2, PopTopic::RetryV1] {
            let retries = version.name(topic, &group);
            if broker.topics.get(&retries).is_some() {
                broker.delete_topic(&retries);
            }
        }
    }
}

pub(super) fn all_topics(context: Context<'_>, _: AllTopicConfig) -> Result<Json<TopicConfigTable>, Refusal> {
    let topics = &context.broker.topics;
    let configs = topics
        .all()
        .into_iter()
        .map(|topic| (topic.name.to_string(), topic.config.clone()));
    Ok(Json(TopicConfigTable {
        data_version: topics.version(),
        topic_config_table: configs.collect(),
    }))
}

pub(super) fn topic(
    context: Context<'_>,
    request: GetTopicConfig,
) -> Result<Json<TopicConfigAndMapping>, Refusal> {
    match context.broker.topics.get(&request.topic) {
        Some(topic) => Ok(Json(TopicConfigAndMapping {
            config: topic.config.clone(),
            mapping_detail: None,
        })),
        None => Err(no_topic(&request.topic)),
    }
}

pub(super) fn no_topic(topic: &str) -> Refusal {
    Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist"))
}

pub(super) fn create_group(context: Context<'_>, request: CreateGroup) -> Result<Done, Refusal> {
    if request.body.len() > MAX_CONFIG_BYTES {
        let size = request.body.len();
        return Err(invalid(format!(
            "a configuration of {size} bytes: this broker takes {MAX_CONFIG_BYTES}"
        )));
    }
    let config = SubscriptionGroupConfig::from_body(&request.body).map_err(unreadable)?;
    put_group(context, config)
}

pub(super) fn create_groups(context: Context<'_>, request: CreateGroups) -> Result<Done, Refusal> {
    let list = GroupConfigList::from_body(&request.body).map_err(unreadable)?;
    for config in list.group_config_list {
        put_group(context, config)?;
    }
    Ok(Done)
}

fn put_group(context: Context<'_>, config: SubscriptionGroupConfig) -> Result<Done, Refusal> {
    if !is_legal_group(&config.group_name) {
        return Err(invalid(format!("group {:?} is not legal", config.group_name)));
    }
    if config.retry_queue_nums > MAX_QUEUES {
        return Err(invalid(format!(
            "{} retry queues: this broker has at most {MAX_QUEUES}",
            config.retry_queue_nums
        )));
    }
    let broker = context.broker;
    match broker.groups.put(config, broker.clock.now()) {
        Some(_) => Ok(Done),
        None => Err(Refusal::new(
            ResponseCode::SYSTEM_ERROR,
            "too many groups on this broker",
        )),
    }
}

pub(super) fn all_groups(
    context: Context<'_>,
    _: AllGroupConfig,
) -> Result<Json<SubscriptionGroupTable>, Refusal> {
    let (subscription_group_table, data_version) = context.broker.groups.all();
    Ok(Json(SubscriptionGroupTable {
        data_version,
        forbidden_table: context.broker.groups.forbidden(),
        subscription_group_table,
    }))
}

/// As on a real broker, asking for a group makes it where groups are made by themselves.
pub(super) fn group(
    context: Context<'_>,
    request: GetGroupConfig,
) -> Result<Json<SubscriptionGroupConfig>, Refusal> {
    let broker = context.broker;
    match broker.groups.find_or_create(&request.group, broker.clock.now()) {
        Some(config) => Ok(Json(SubscriptionGroupConfig::clone(&config))),
        None => Err(no_group(&request.group)),
    }
}

pub(super) fn delete_group(context: Context<'_>, request: DeleteGroup) -> Result<Done, Refusal> {
    let broker = context.broker;
    broker.groups.remove(&request.group_name, broker.clock.now());
    broker.orders.remove_group(&request.group_name);
    let offsets_too = request.clean_offset.or(request.remove_offset) == Some(true);
    if offsets_too {
        broker.offsets.remove_group(&request.group_name);
        broker.delete_topic(&retry_topic(&request.group_name));
    }
    Ok(Done)
}
