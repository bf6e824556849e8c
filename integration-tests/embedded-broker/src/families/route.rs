//! The name server: where topics are. It knows the broker of its own process and those that have registered.
//!
//! Protocol source: `ClientRequestProcessor`, `DefaultRequestProcessor`, `RouteInfoManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::{
    BrokerData, ClusterInfo, KvTable, MASTER_ID, MessageQueue, QueueData, TopicList, TopicRouteData, loose,
    permission,
};
use rocketmq_client::protocol::requests::{
    AllTopics, DeleteKvConfig, DeleteTopicInNameServer, KvConfig, KvList, KvValue, PutKvConfig, RouteInfo,
    TopicsByCluster,
};
use rocketmq_client::protocol::{CodecError, Done, Frame, Json, JsonBody, Request, ResponseCode};

use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::state::{ORDER_MESSAGE_ENABLE, SLAVE_ID, queue_data};

/// From this version on (4.9.4) clients read standard JSON.
const STANDARD_JSON_VERSION: i32 = 401;
/// Where orders of queues are kept.
const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

pub(super) fn topic_route(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let no_zone = wants_own_zone_only(&frame);
    let request = match RouteInfo::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let broker = context.broker;
    let (mut broker_datas, mut queue_datas) = route_of(broker, &request.topic);
    if queue_datas.is_empty() {
        let remark = format!(
            "No topic route info in name server for the topic: {}",
            request.topic
        );
        return reply.refuse(&Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    }
    let ordered = broker.name_server_settings.is_on(ORDER_MESSAGE_ENABLE);
    if no_zone {
        broker_datas.clear();
        queue_datas.clear();
    }
    let route = TopicRouteData {
        broker_datas,
        queue_datas,
        order_topic_conf: ordered
            .then(|| broker.kv.get(ORDER_TOPIC_CONFIG, &request.topic))
            .flatten(),
        ..TopicRouteData::default()
    };
    let standard =
        context.head.version >= STANDARD_JSON_VERSION || request.accept_standard_json_only == Some(true);
    answer_json(&route, standard, reply);
}

/// The brokers that have a topic, and their queues; nothing if none has it.
fn route_of(broker: &Broker, topic: &str) -> (Vec<BrokerData>, Vec<QueueData>) {
    let (mut broker_datas, mut queue_datas) = (Vec::new(), Vec::new());
    if let Some(topic) = broker.topics.get(topic) {
        broker_datas.push(broker_data(broker));
        queue_datas.push(QueueData {
            perm: broker.route_permissions.of(&topic),
            ..queue_data(&broker.options.broker_name, &topic.config)
        });
    }
    broker
        .registry
        .add_route(topic, &mut broker_datas, &mut queue_datas);
    (broker_datas, queue_datas)
}

/// The queues of a topic that can be read, on all brokers; none if there is no such topic.
pub(super) fn queues_to_read(broker: &Broker, topic: &str) -> Option<BTreeSet<MessageQueue>> {
    let (_, queue_datas) = route_of(broker, topic);
    if queue_datas.is_empty() {
        return None;
    }
    let topic: Arc<str> = topic.into();
    let readable = queue_datas
        .iter()
        .filter(|data| data.perm & permission::READ != 0);
    let queues = readable.flat_map(|data| {
        let broker_name: Arc<str> = data.broker_name.as_str().into();
        let topic = Arc::clone(&topic);
        (0..data.read_queue_nums)
            .map(move |queue_id| MessageQueue::new(Arc::clone(&topic), Arc::clone(&broker_name), queue_id))
    });
    Some(queues.collect())
}

/// Whether brokers of no zone, as all here are, are to be left out. Java 5.x: `ZoneRouteRPCHook`.
fn wants_own_zone_only(frame: &Frame) -> bool {
    let mode = frame.fields.get("__ZONE_MODE").unwrap_or_default();
    let zone = frame.fields.get("__ZONE_NAME").unwrap_or_default();
    mode.eq_ignore_ascii_case("true") && !zone.trim().is_empty()
}

pub(super) fn cluster_info(context: Context<'_>, _: Frame, reply: Reply<'_>) {
    let mut info = ClusterInfo::default();
    let mut brokers = context.broker.registry.brokers();
    brokers.push(broker_data(context.broker));
    for broker in brokers {
        let names = info.cluster_addr_table.entry(broker.cluster.clone()).or_default();
        names.push(broker.broker_name.clone());
        names.sort();
        info.broker_addr_table.insert(broker.broker_name.clone(), broker);
    }
    // Always without quotes, whatever the client's version.
    answer_json(&info, false, reply);
}

fn broker_data(broker: &Broker) -> BrokerData {
    let mut broker_addrs = BTreeMap::from([(MASTER_ID, broker.address.to_string())]);
    broker_addrs.extend(
        broker
            .slave
            .registered()
            .map(|slave| (SLAVE_ID, slave.to_string())),
    );
    BrokerData {
        broker_addrs,
        broker_name: broker.options.broker_name.clone(),
        cluster: broker.options.cluster_name.clone(),
        enable_acting_master: false,
    }
}

fn answer_json<T: JsonBody>(value: &T, standard: bool, reply: Reply<'_>) {
    let body = value
        .to_body()
        .and_then(|body| if standard { Ok(body) } else { without_quotes(&body) });
    match body {
        Ok(body) => reply.typed(ResponseCode::SUCCESS, None, &NoHeader {}, &[body]),
        Err(error) => reply.refuse(&unreadable(error)),
    }
}

/// The header of an answer that is a body only.
#[derive(serde::Serialize)]
struct NoHeader {}

fn without_quotes(body: &[u8]) -> Result<Bytes, CodecError> {
    let json = std::str::from_utf8(body).map_err(|error| CodecError::Field(error.to_string()))?;
    Ok(Bytes::from(loose::unquote_numbers(json)))
}

pub(super) fn all_topics(context: Context<'_>, _: AllTopics) -> Result<Json<TopicList>, Refusal> {
    Ok(Json(topic_list(context.broker, None)))
}

pub(super) fn topics_by_cluster(
    context: Context<'_>,
    request: TopicsByCluster,
) -> Result<Json<TopicList>, Refusal> {
    Ok(Json(topic_list(context.broker, Some(&request.cluster))))
}

fn topic_list(broker: &Broker, cluster: Option<&str>) -> TopicList {
    let mut topics = broker.registry.topics(cluster);
    if cluster.is_none_or(|cluster| cluster == broker.options.cluster_name) {
        topics.extend(broker.topics.all().iter().map(|topic| topic.name.to_string()));
    }
    TopicList {
        topic_list: topics.into_iter().collect(),
        ..TopicList::default()
    }
}

/// The broker of this process and its name server have one table of topics, so a topic of that broker is gone with its
/// deletion there; one that is still there would be registered again by the broker's next report anyway.
pub(super) fn delete_topic(context: Context<'_>, request: DeleteTopicInNameServer) -> Result<Done, Refusal> {
    context.broker.registry.remove_topic(&request.topic);
    Ok(Done)
}

pub(super) fn put_kv_config(context: Context<'_>, request: PutKvConfig) -> Result<Done, Refusal> {
    if context
        .broker
        .kv
        .put(request.namespace, request.key, request.value)
    {
        Ok(Done)
    } else {
        Err(Refusal::new(
            ResponseCode::SYSTEM_ERROR,
            "no room for more configuration values",
        ))
    }
}

pub(super) fn kv_config(context: Context<'_>, request: KvConfig) -> Result<KvValue, Refusal> {
    match context.broker.kv.get(&request.namespace, &request.key) {
        Some(value) => Ok(KvValue { value: Some(value) }),
        None => {
            let KvConfig { namespace, key } = request;
            let remark = format!("No config item, Namespace: {namespace} Key: {key}");
            Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark))
        }
    }
}

pub(super) fn delete_kv_config(context: Context<'_>, request: DeleteKvConfig) -> Result<Done, Refusal> {
    context.broker.kv.delete(&request.namespace, &request.key);
    Ok(Done)
}

pub(super) fn kv_list(context: Context<'_>, request: KvList) -> Result<Json<KvTable>, Refusal> {
    match context.broker.kv.list(&request.namespace) {
        Some(table) => Ok(Json(KvTable { table })),
        None => {
            let remark = format!("No config item, Namespace: {}", request.namespace);
            Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark))
        }
    }
}
